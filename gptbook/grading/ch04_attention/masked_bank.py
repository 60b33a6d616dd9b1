"""Exercise 4.1: attention under a mask: its mistakes and styles."""

from gptbook.grading.ch04_attention.common import BY_HAND, SECTIONS
from gptbook.grading.ch04_attention.masked import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.tensors import PRELOAD

DICTIONARY, SCALE, MASK = SECTIONS["dictionary"], SECTIONS["scale"], SECTIONS["mask"]
BLIND = SECTIONS["blind"]
ONLINE = SECTIONS["online"]

WIDE = "wide = torch.promote_types(q.dtype, torch.float32)"
ROOT = " / math.sqrt(q.shape[-1])"
KEYS = "k.to(wide).transpose(-2, -1)"
PRODUCT = f"q.to(wide) @ {KEYS}"
FILL = "scores = scores.masked_fill(~mask, torch.finfo(wide).min)"
CLEAR = ".masked_fill(~mask, 0.0)"
WEIGHTS = f"weights = torch.softmax(scores, dim=-1){CLEAR}"
RETURN = "return (weights @ v.to(wide)).to(q.dtype)"

NORMALIZE = "\n    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-30)"

MISTAKES = (
    Mistake(
        "The scores are not scaled",
        "A sum of D products is about sqrt(D) large, and the softmax of such scores is nearly one "
        "for one key and zero for the rest. Divide the scores by sqrt(D).",
        SCALE,
        8,
        edited(REFERENCE, (ROOT, "")),
    ),
    Mistake(
        "Scaled twice, or by D",
        "The scores are divided by D, as happens too if both queries and scores are divided by "
        "sqrt(D), and the weights come out too equal. Divide once by sqrt(D).",
        SCALE,
        8,
        edited(REFERENCE, (ROOT, " / q.shape[-1]")),
    ),
    Mistake(
        "The softmax runs over the queries",
        "Each key's weights sum to one, so queries compete for keys. Each query's weights must sum "
        "to one: take the softmax over the last axis, `dim=-1`.",
        DICTIONARY,
        10,
        edited(REFERENCE, ("dim=-1", "dim=-2")),
    ),
    Mistake(
        "One softmax over everything",
        "All weights of a head together sum to one, so a query gets only a share. Take the softmax "
        "of each row, with `dim=-1`.",
        DICTIONARY,
        10,
        edited(
            REFERENCE,
            (
                "torch.softmax(scores, dim=-1)",
                "torch.softmax(scores.flatten(2), 2).view_as(scores)",
            ),
        ),
    ),
    Mistake(
        "The mask is upside down",
        "You hide what the query may see and show the rest. Here True means that the query sees "
        "the key, so fill where the mask is False: `~mask`.",
        MASK,
        10,
        REFERENCE.replace("~mask", "mask"),
    ),
    Mistake(
        "A hidden score is zero",
        "You multiply scores by the mask, but a score of zero still has the weight exp(0) = 1. A "
        "hidden score must be so low that its weight is zero.",
        MASK,
        9,
        edited(REFERENCE, (FILL, "scores = scores * mask"), (CLEAR, "")),
    ),
    Mistake(
        "The mask comes after the softmax",
        "Hidden keys have taken their share before you remove it, so what is left sums to less "
        "than one. Mask the scores, and then take the softmax.",
        MASK,
        11,
        edited(REFERENCE, (f"    {FILL}\n", "")),
    ),
    Mistake(
        "-1e9 in half precision",
        "The largest number of float16 is 65504, so -1e9 is none of its numbers. Compute in "
        "float32, or take the lowest number that the dtype has.",
        BLIND,
        1,
        edited(REFERENCE, (WIDE, "wide = q.dtype"), ("torch.finfo(wide).min", "-1e9")),
    ),
    Mistake(
        "A query that sees nothing gives NaN",
        "The softmax of a row of minus infinities is 0/0. Give such rows the weights zero, and do "
        "it before a NaN arises, since its gradient is one as well.",
        BLIND,
        3,
        edited(REFERENCE, ("torch.finfo(wide).min", "-math.inf"), (CLEAR, "")),
    ),
    Mistake(
        "A query that sees nothing gets the mean of all values",
        "Where all scores are equally low, the softmax gives every hidden key the same weight. Set "
        "the weights to zero wherever the mask is False.",
        BLIND,
        3,
        edited(REFERENCE, (CLEAR, "")),
    ),
    Mistake(
        "Zeros outside, NaN in the gradient",
        "The output is repaired after the softmax, but backward still goes through the softmax of "
        "minus infinities, which is NaN. Let no NaN arise: fill with a finite number, or take "
        "those rows out before the softmax.",
        BLIND,
        3,
        edited(
            REFERENCE,
            (FILL, "scores = scores + torch.log(mask.to(wide))"),
            (CLEAR, ".nan_to_num(0.0)"),
        ),
    ),
    Mistake(
        "The largest score is not subtracted",
        "The exponential of a score above 88 is infinite in float32, and that of one below -104 is "
        "zero. Subtract each row's largest score first, or leave it to `torch.softmax`.",
        ONLINE,
        1,
        edited(
            REFERENCE,
            (f"    {FILL}\n", ""),
            (WEIGHTS, f"weights = torch.exp(scores){CLEAR}{NORMALIZE}"),
        ),
    ),
    Mistake(
        "The largest score is a hidden one",
        "You subtract the largest of all scores, and where it is hidden and far above the rest, "
        "every weight that counts is rounded to zero. Mask before you take the maximum.",
        ONLINE,
        1,
        edited(
            REFERENCE,
            (f"    {FILL}\n", ""),
            (
                WEIGHTS,
                "highest = scores.amax(dim=-1, keepdim=True)\n"
                f"    weights = torch.exp(scores - highest){CLEAR}{NORMALIZE}",
            ),
        ),
    ),
    Mistake(
        "The scores are in half precision",
        "With 8 or 11 significant bits, scores that differ come out equal, and exp makes that an "
        "error of many percent. Turn q, k and v to float32 before the first product, and the "
        "result back at the end.",
        SCALE,
        1,
        edited(REFERENCE, (WIDE, "wide = q.dtype")),
    ),
    Mistake(
        "The result has another dtype",
        "You computed in float32, which is right, and returned that. Turn the result to the dtype "
        "of q at the end.",
        DICTIONARY,
        1,
        edited(REFERENCE, (RETURN, "return weights @ v.to(wide)")),
    ),
    Mistake(
        "`view` of what is not contiguous",
        "`view` needs memory in order, and heads that were split from rows by `transpose` are not. "
        "Use `reshape`, or let `@` take care of the leading axes.",
        DICTIONARY,
        1,
        edited(
            REFERENCE,
            (
                PRODUCT,
                "torch.bmm(q.to(wide).view(-1, *q.shape[2:]), k.to(wide).view(-1, *k.shape[2:]).mT)"
                ".view(*q.shape[:3], -1)",
            ),
        ),
    ),
    Mistake(
        "The keys are reshaped and not transposed",
        "`reshape` to (D, S) reads the same numbers row by row, so they end up with the wrong "
        "keys. Swap the axes with `transpose(-2, -1)`.",
        DICTIONARY,
        10,
        edited(REFERENCE, ("transpose(-2, -1)", "reshape(*k.shape[:2], k.shape[3], k.shape[2])")),
    ),
    Mistake(
        "The caller's queries are scaled in place",
        "`/=` changes the tensor that your caller handed over, and one that needs a gradient "
        "cannot be changed so. Make a new one: `q = q / ...`.",
        SCALE,
        4,
        edited(REFERENCE, (WIDE, f"q /= math.sqrt(q.shape[-1])\n    {WIDE}"), (ROOT, "")),
    ),
    Mistake(
        "The gradient is cut",
        "`detach`, `.data` and a detour through NumPy end the graph, so nothing is learned through "
        "the weights. Stay in torch's operations from q, k and v to the result.",
        DICTIONARY,
        3,
        edited(REFERENCE, ("(weights @", "(weights.detach() @")),
    ),
)

STYLES = {
    "einsum, exponentials by hand": """
import torch


def attention(q, k, v, mask):
    scores = torch.einsum("bhtd,bhsd->bhts", q.double(), k.double()) * q.shape[-1] ** -0.5
    scores = torch.where(mask, scores, -torch.inf)
    highest = scores.amax(-1, keepdim=True)
    highest = torch.where(torch.isinf(highest), 0.0, highest)
    powers = torch.exp(scores - highest)
    total = powers.sum(-1, keepdim=True)
    weights = powers / torch.where(total == 0, 1.0, total)
    return torch.einsum("bhts,bhsd->bhtd", weights, v.double()).to(q.dtype)
""",
    "a loop over queries": """
import math
import torch


def attention(q, k, v, mask):
    B, H, T, D = q.shape
    S = k.shape[2]
    mask = mask.expand(B, H, T, S)
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            rows = []
            for t in range(T):
                seen = mask[b, h, t].nonzero()[:, 0]
                if len(seen) == 0:
                    rows.append(torch.zeros(D, dtype=q.dtype))
                    continue
                scores = k[b, h, seen].float() @ q[b, h, t].float() / math.sqrt(D)
                rows.append((torch.softmax(scores, 0) @ v[b, h, seen].float()).to(q.dtype))
            index = torch.tensor([b * H + h])
            out = out.reshape(B * H, T, D).index_add(0, index, torch.stack(rows)[None])
            out = out.reshape(B, H, T, D)
    return out
""",
    "an empty row is shown everything, and dropped": """
import torch
import torch.nn.functional as F


def attention(q, k, v, mask):
    dtype = q.dtype
    if dtype in (torch.float16, torch.bfloat16):
        q, k, v = q.float(), k.float(), v.float()
    sees = mask.any(dim=-1, keepdim=True)
    bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask & sees, float("-inf"))
    scores = torch.matmul(q / q.size(-1) ** 0.5, k.mT) + bias
    out = torch.matmul(F.softmax(scores, dim=-1), v)
    return torch.where(sees, out, torch.zeros_like(out)).to(dtype)
""",
    "logsumexp and float32 scores": """
import torch


def attention(q, k, v, mask):
    s = (q.float()[..., :, None, :] * k.float()[..., None, :, :]).sum(-1) / q.shape[-1] ** 0.5
    s = s.masked_fill(mask.logical_not(), -1e9)
    w = torch.exp(s - torch.logsumexp(s, -1, keepdim=True)) * mask
    return (w.to(v.dtype) @ v).type_as(q)
""",
}

PART = Part("attention", CHECKS, REFERENCE, MISTAKES, STYLES, BY_HAND, preload=PRELOAD)
