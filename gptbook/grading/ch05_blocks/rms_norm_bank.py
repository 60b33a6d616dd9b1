"""Exercise 5.2: RMSNorm with eps inside of the root: its mistakes and styles."""

from gptbook.grading.ch05_blocks.common import BOOK, SECTIONS
from gptbook.grading.ch05_blocks.rms_norm import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import WITH_AUTOGRAD

NORM = SECTIONS["norm"]

WIDE = "wide = x.to(torch.promote_types(x.dtype, torch.float32))"
SQUARE = "mean_square = wide.pow(2).mean(dim=-1, keepdim=True)"
NORMALIZED = "normalized = wide * torch.rsqrt(mean_square + eps)"
RETURN = "return (normalized * weight).to(x.dtype)"

MISTAKES = (
    Mistake(
        "eps outside of the root",
        "You add eps to the root, and RMSNorm adds it to the mean square. With 1e-6 a small vector "
        "is divided by at least 0.001, and in yours by as little as a millionth.",
        NORM,
        2,
        edited(REFERENCE, (NORMALIZED, "normalized = wide / (mean_square.sqrt() + eps)")),
    ),
    Mistake(
        "eps is forgotten",
        "A vector of zeros is divided by zero, and that is NaN. Add eps to the mean square.",
        NORM,
        2,
        edited(REFERENCE, (NORMALIZED, NORMALIZED.replace(" + eps", ""))),
    ),
    Mistake(
        "eps as a lower bound",
        "You take the larger one of the mean square and eps, where RMSNorm adds the two. They are "
        "the same only where one of them is far smaller.",
        NORM,
        2,
        edited(
            REFERENCE, (NORMALIZED, "normalized = wide * torch.rsqrt(mean_square.clamp(min=eps))")
        ),
    ),
    Mistake(
        "The mean is subtracted",
        "That is LayerNorm without its bias. RMSNorm leaves the mean where it is, and the mean "
        "counts in the square.",
        NORM,
        7,
        edited(
            REFERENCE,
            (WIDE, f"{WIDE}\n    wide = wide - wide.mean(dim=-1, keepdim=True)"),
        ),
    ),
    Mistake(
        "The sum of the squares",
        "You divide by the length of the vector, so that its length becomes 1. RMSNorm takes the "
        "mean of the squares, so that numbers are about 1, however many there are.",
        NORM,
        7,
        edited(REFERENCE, (SQUARE, SQUARE.replace(".mean(", ".sum("))),
    ),
    Mistake(
        "The root is forgotten",
        "You divide by the mean square, so that a vector twice as large comes out half as large. "
        "Divide by its root.",
        NORM,
        7,
        edited(REFERENCE, (NORMALIZED, "normalized = wide / (mean_square + eps)")),
    ),
    Mistake(
        "The weight is forgotten",
        "You return the normalized vector. Each of its numbers is multiplied by a learned weight.",
        NORM,
        7,
        edited(REFERENCE, (RETURN, "return normalized.to(x.dtype)")),
    ),
    Mistake(
        "The weight is an offset from 1",
        "You multiply by 1 + weight, as Gemma's files need it. Llama's weights are 1 before "
        "training, and are used as they are.",
        NORM,
        7,
        edited(REFERENCE, (RETURN, RETURN.replace("weight", "(1 + weight)"))),
    ),
    Mistake(
        "One mean for the whole batch",
        "Your mean runs over all axes, so that each token's result depends on its neighbors, "
        "future ones included. Take it over the last axis.",
        NORM,
        8,
        edited(REFERENCE, (SQUARE, "mean_square = wide.pow(2).mean()")),
    ),
    Mistake(
        "Squares in half precision",
        "float16 ends at 65,504, so the square of 300 is infinite, and that of 0.0001 is zero. "
        "Convert x to float32 before you square.",
        NORM,
        2,
        edited(REFERENCE, (WIDE, "wide = x")),
    ),
    Mistake(
        "The result stays in float32",
        "What was computed in float32 comes out in float32, and the rest of the model follows. "
        "Convert the result to the dtype of x.",
        NORM,
        1,
        edited(REFERENCE, (RETURN, "return normalized * weight")),
    ),
    Mistake(
        "The weight decides on the dtype",
        "You convert and then multiply by a weight in float32, which makes float32 again. Convert "
        "the result of the product.",
        NORM,
        1,
        edited(REFERENCE, (RETURN, "return normalized.to(x.dtype) * weight")),
    ),
    Mistake(
        "float64 is rounded to float32",
        "`x.float()` widens half types and narrows float64, and the digits do not come back. Widen "
        "only what is narrower, as `torch.promote_types` does.",
        NORM,
        1,
        edited(REFERENCE, (WIDE, "wide = x.float()")),
    ),
    Mistake(
        "The root counts as a constant",
        "Under `no_grad` or behind `detach`, the root has no gradient, and that of x is wrong, as "
        "each number is in the root too. Leave it in the graph.",
        NORM,
        1,
        edited(REFERENCE, (NORMALIZED, NORMALIZED.replace("mean_square", "mean_square.detach()"))),
        hint=2,
    ),
)

STYLES = {
    "the vector's length": """
import torch


def rms_norm(x, weight, eps):
    wide = x if x.dtype == torch.float64 else x.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    rms = torch.sqrt(length * length / x.shape[-1] + eps)
    return (wide / rms * weight).to(dtype=x.dtype)
""",
    "rounded before the weight, as Llama does": """
import torch


def rms_norm(x, weight, eps):
    dtype = x.dtype
    h = x.double() if dtype == torch.float64 else x.to(torch.float32)
    h = h * torch.rsqrt((h * h).mean(-1, keepdim=True) + eps)
    return weight.to(dtype) * h.to(dtype)
""",
    "a loop over vectors": """
import torch


def rms_norm(x, weight, eps):
    rows = []
    for v in x.reshape(-1, x.shape[-1]).double():
        rows.append(v / (torch.dot(v, v) / v.numel() + eps) ** 0.5 * weight.double())
    return torch.stack(rows).reshape(x.shape).to(x.dtype)
""",
    "einsum": """
import torch


def rms_norm(x, weight, eps):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    square = torch.einsum("...c,...c->...", wide, wide) / x.size(-1)
    scale = (square + eps).pow(-0.5)
    return torch.einsum("...c,...,c->...c", wide, scale, weight.to(wide.dtype)).to(x.dtype)
""",
}

FORBIDDEN = Forbidden(
    BOOK,
    (
        "torch.nn.RMSNorm",
        "torch.nn.functional.rms_norm",
        "torch.rms_norm",
        "torch.ops.aten.rms_norm",
        "torch.ops.aten._fused_rms_norm",
    ),
)

PART = Part("rms_norm", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=WITH_AUTOGRAD)
