"""Exercise 5.1: the backward pass of LayerNorm, by hand: its mistakes and styles."""

from gptbook.grading.ch05_blocks.common import BOOK, SECTIONS
from gptbook.grading.ch05_blocks.layer_norm import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

NORM = SECTIONS["norm"]

VARIANCE = "variance = (centered**2).mean(dim=-1, keepdim=True)"
ROOT = "root = torch.sqrt(variance + eps)"
D_NORMALIZED = "d_normalized = grad_out * weight"
ALONG = "along = (d_normalized * normalized).mean(dim=-1, keepdim=True)"
MEAN = "mean = d_normalized.mean(dim=-1, keepdim=True)"
GRAD_X = "grad_x = (d_normalized - mean - normalized * along) / root"
GRAD_WEIGHT = "grad_weight = (grad_out * normalized).reshape(-1, width).sum(dim=0)"
GRAD_BIAS = "grad_bias = grad_out.reshape(-1, width).sum(dim=0)"

MISTAKES = (
    Mistake(
        "The sample's variance",
        "`var` and `std` divide by C - 1 unless told otherwise, and LayerNorm divides by C. Say "
        "`correction=0`, or take the mean of the squares.",
        NORM,
        9,
        edited(REFERENCE, (VARIANCE, "variance = x.var(dim=-1, keepdim=True)")),
        hint=1,
    ),
    Mistake(
        "eps outside of the root",
        "You add eps to the standard deviation, and LayerNorm adds it to the variance. It makes a "
        "difference wherever a vector is nearly constant.",
        NORM,
        2,
        edited(REFERENCE, (ROOT, "root = torch.sqrt(variance) + eps")),
    ),
    Mistake(
        "eps is forgotten",
        "A vector of equal numbers has the variance zero, and you divide by its root. Add eps to "
        "the variance, in the backward pass as in the forward pass.",
        NORM,
        2,
        edited(REFERENCE, (ROOT, "root = torch.sqrt(variance)")),
    ),
    Mistake(
        "The mean is not subtracted from the gradient",
        "Each number moves the mean of its vector, and with it all others. Subtract the mean of "
        "the gradients, as the forward pass subtracts that of x.",
        NORM,
        8,
        edited(REFERENCE, (GRAD_X, GRAD_X.replace(" - mean", ""))),
        hint=3,
    ),
    Mistake(
        "The variance counts as a constant",
        "Each number also moves the root by which all of its vector are divided. Subtract the "
        "normalized vector times the mean of its products with the gradients.",
        NORM,
        7,
        edited(REFERENCE, (GRAD_X, GRAD_X.replace(" - normalized * along", ""))),
        hint=4,
    ),
    Mistake(
        "Mean and variance count as constants",
        "You divide the gradient by the root and leave out that x is in the mean and in the root "
        "as well. These give two more terms, which are subtracted.",
        NORM,
        8,
        edited(REFERENCE, (GRAD_X, "grad_x = d_normalized / root")),
        hint=3,
    ),
    Mistake(
        "The weight is forgotten in grad_x",
        "The output is the normalized vector times the weight, so on the way back to x the "
        "gradient passes it too. Begin with grad_out times weight.",
        NORM,
        7,
        edited(REFERENCE, (D_NORMALIZED, "d_normalized = grad_out")),
        hint=2,
    ),
    Mistake(
        "The weight is applied at the end",
        "The way back has the opposite order: first the weight, then the normalization. Multiply "
        "grad_out by the weight before you take means of it.",
        NORM,
        8,
        edited(
            REFERENCE,
            (D_NORMALIZED, "d_normalized = grad_out"),
            (GRAD_X, f"{GRAD_X} * weight"),
        ),
        hint=2,
    ),
    Mistake(
        "grad_weight is made of x",
        "The weight is multiplied by the normalized vector and not by x. Multiply grad_out by what "
        "the weight was multiplied by.",
        NORM,
        5,
        edited(REFERENCE, (GRAD_WEIGHT, GRAD_WEIGHT.replace("normalized)", "x)"))),
        hint=2,
    ),
    Mistake(
        "Only the first axis is summed",
        "All places share one weight and one bias, so their gradients are summed over all axes but "
        "the last. With two axes `sum(0)` is that, with three it is not.",
        NORM,
        5,
        edited(
            REFERENCE,
            (GRAD_WEIGHT, GRAD_WEIGHT.replace(".reshape(-1, width)", "")),
            (GRAD_BIAS, GRAD_BIAS.replace(".reshape(-1, width)", "")),
        ),
        hint=2,
    ),
    Mistake(
        "The mean over the places",
        "You divide the gradients of weight and bias by the number of places. If the loss is a "
        "mean, grad_out has that factor already; sum.",
        NORM,
        6,
        edited(
            REFERENCE,
            (GRAD_WEIGHT, GRAD_WEIGHT.replace(".sum(", ".mean(")),
            (GRAD_BIAS, GRAD_BIAS.replace(".sum(", ".mean(")),
        ),
        hint=2,
    ),
    Mistake(
        "Sums in place of means",
        "The two terms that are subtracted are means over the C numbers of a vector, as the mean "
        "and the variance are. Divide by C.",
        NORM,
        8,
        edited(
            REFERENCE,
            (MEAN, MEAN.replace(".mean(", ".sum(")),
            (ALONG, ALONG.replace(".mean(", ".sum(")),
        ),
        hint=4,
    ),
    Mistake(
        "The division by the root is forgotten",
        "A number that is divided in the forward pass has its gradient divided in the backward "
        "pass. Divide grad_x by the root at the end.",
        NORM,
        7,
        edited(REFERENCE, (GRAD_X, GRAD_X.removesuffix(" / root"))),
        hint=4,
    ),
    Mistake(
        "A view of what is not in order",
        "`view` needs numbers that lie in memory in this order, which those of a transposed or "
        "expanded tensor do not. Use `reshape`, or sum over the leading axes.",
        NORM,
        1,
        edited(REFERENCE, (GRAD_BIAS, GRAD_BIAS.replace("reshape", "view"))),
    ),
)

STYLES = {
    "a loop with the whole Jacobian": """
import torch


def layer_norm_backward(x, weight, grad_out, eps):
    C = x.shape[-1]
    grad_x, grad_weight, grad_bias = [], torch.zeros_like(weight), torch.zeros_like(weight)
    for v, g in zip(x.reshape(-1, C), grad_out.reshape(-1, C)):
        root = (v.var(correction=0) + eps) ** 0.5
        n = (v - v.mean()) / root
        jacobian = (torch.eye(C, dtype=x.dtype) - 1 / C - torch.outer(n, n) / C) / root
        grad_x.append(jacobian @ (weight * g))
        grad_weight += g * n
        grad_bias += g
    return torch.stack(grad_x).reshape(x.shape), grad_weight, grad_bias
""",
    "one formula, as in batch normalization": """
import torch


def layer_norm_backward(x, weight, grad_out, eps):
    n = x.size(-1)
    var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    rstd = torch.rsqrt(var + eps)
    xhat = (x - mean) * rstd
    d = grad_out * weight
    dx = rstd / n * (n * d - d.sum(-1, keepdim=True) - xhat * (d * xhat).sum(-1, keepdim=True))
    lead = tuple(range(x.ndim - 1))
    if not lead:
        return dx, grad_out * xhat, grad_out.clone()
    return dx, (grad_out * xhat).sum(lead), grad_out.sum(lead)
""",
    "einsum and torch's own forward pass": """
import torch
import torch.nn.functional as F


def layer_norm_backward(x, weight, grad_out, eps):
    C = x.shape[-1]
    xhat = F.layer_norm(x, (C,), eps=eps)
    rstd = 1 / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps)
    d = torch.einsum("...c,c->...c", grad_out, weight)
    along = torch.einsum("...c,...c->...", d, xhat)[..., None] / C
    return [
        rstd * (d - d.mean(-1, True) - along * xhat),
        torch.einsum("...c,...c->c", grad_out, xhat),
        torch.einsum("...c->c", grad_out),
    ]
""",
    "numpy, step by step through the graph": """
import numpy as np
import torch


def layer_norm_backward(x, weight, grad_out, eps):
    dtype = x.dtype
    x, w, g = (t.double().numpy() for t in (x, weight, grad_out))
    C = x.shape[-1]
    centered = x - x.mean(-1, keepdims=True)
    var = (centered**2).mean(-1, keepdims=True)
    inv = (var + eps) ** -0.5
    d_norm = g * w
    d_inv = (d_norm * centered).sum(-1, keepdims=True)
    d_var = -0.5 * (var + eps) ** -1.5 * d_inv
    d_centered = d_norm * inv + 2 * centered / C * d_var
    d_x = d_centered - d_centered.mean(-1, keepdims=True)
    axes = tuple(range(x.ndim - 1))
    grads = d_x, (g * centered * inv).sum(axis=axes), g.sum(axis=axes)
    return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(dtype) for a in grads)
""",
}

FORBIDDEN = Forbidden(
    BOOK,
    (
        ".backward",
        ".native_layer_norm_backward",
        "torch.autograd.backward",
        "torch.autograd.grad",
        "torch.autograd.functional.jacobian",
        "torch.autograd.functional.vjp",
        *(f"torch.func.{name}" for name in ("grad", "grad_and_value", "jacfwd", "jacrev", "vjp")),
    ),
)

PART = Part("layer_norm_backward", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=PRELOAD)
