"""Exercise 4.5: the backward pass of attention, by hand: its mistakes and styles."""

from gptbook.grading.ch04_attention.backward import CHECKS, REFERENCE
from gptbook.grading.ch04_attention.common import BOOK, LAYER, SDPA, SECTIONS
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

BACKWARD, SCALE, MASK = SECTIONS["backward"], SECTIONS["scale"], SECTIONS["mask"]
BLIND = SECTIONS["blind"]
ONLINE = SECTIONS["online"]

AUTOGRAD = (
    ".backward",
    "torch.autograd.backward",
    "torch.autograd.grad",
    "torch.autograd.functional.jacobian",
    "torch.autograd.functional.vjp",
    *(f"torch.func.{name}" for name in ("grad", "grad_and_value", "jacfwd", "jacrev", "vjp")),
)
FORBIDDEN = Forbidden(BOOK, (*LAYER, *SDPA, *AUTOGRAD))

FORWARD = "(q @ k.transpose(-2, -1) * scale)"
FILL = ".masked_fill(~mask, torch.finfo(q.dtype).min)"
CLEAR = ".masked_fill(~mask, 0.0)"
WEIGHTS = f"weights = torch.softmax(scores, dim=-1){CLEAR}"
VALUES = "dv = weights.transpose(-2, -1) @ d_out"
D_WEIGHTS = "d_weights = d_out @ v.transpose(-2, -1)"
MEAN = "mean = (weights * d_weights).sum(dim=-1, keepdim=True)"
D_SCORES = "d_scores = weights * (d_weights - mean)"
DQ = "d_scores @ k * scale"
DK = "d_scores.transpose(-2, -1) @ q * scale"

MISTAKES = (
    Mistake(
        "The row's sum is forgotten",
        "Through the softmax's denominator each score moves all weights of its row, and you count "
        "only its own. Subtract the weighted mean of the row, the sum of weights times their "
        "gradients.",
        BACKWARD,
        7,
        edited(REFERENCE, (D_SCORES, "d_scores = weights * d_weights")),
    ),
    Mistake(
        "Only the diagonal of the Jacobian",
        "p (1 - p) is the derivative of a weight by its own score, as in a sigmoid. A score moves "
        "the other weights of its row too: subtract the weighted mean of the row.",
        BACKWARD,
        7,
        edited(REFERENCE, (D_SCORES, "d_scores = weights * (1 - weights) * d_weights")),
    ),
    Mistake(
        "The mean runs over the queries",
        "The softmax ties the scores of one query together, so the mean is that of a row. Sum over "
        "the keys, `dim=-1`.",
        BACKWARD,
        7,
        edited(REFERENCE, (MEAN, MEAN.replace("dim=-1", "dim=-2"))),
    ),
    Mistake(
        "The mean is not weighted",
        "What is subtracted is the mean of the row's gradients under the weights, and not their "
        "plain sum. Multiply by the weights before you sum.",
        BACKWARD,
        7,
        edited(REFERENCE, (MEAN, MEAN.replace("(weights * d_weights)", "d_weights"))),
    ),
    Mistake(
        "The mean is subtracted outside of the parentheses",
        "Hidden keys have no weight, and yet they get a gradient, as the mean is not multiplied by "
        "the weight. It is weights * (d_weights - mean).",
        BACKWARD,
        8,
        edited(REFERENCE, (D_SCORES, "d_scores = weights * d_weights - mean")),
    ),
    Mistake(
        "The scale is forgotten in dq and dk",
        "The scores are divided by the root of D on the way there, so their gradients are on the "
        "way back. Multiply dq and dk by the scale.",
        BACKWARD,
        6,
        edited(REFERENCE, (DQ, "d_scores @ k"), (DK, "d_scores.transpose(-2, -1) @ q")),
    ),
    Mistake(
        "The scale is forgotten in dq",
        "dk has the scale and dq has not. Multiply both by it, or the scores' gradient once.",
        BACKWARD,
        3,
        edited(REFERENCE, (DQ, "d_scores @ k")),
    ),
    Mistake(
        "The scale is forgotten in dk",
        "dq has the scale and dk has not. Multiply both by it, or the scores' gradient once.",
        BACKWARD,
        3,
        edited(REFERENCE, (DK, "d_scores.transpose(-2, -1) @ q")),
    ),
    Mistake(
        "The forward pass is not scaled",
        "The weights that you differentiate are not those of the layer. Scale the scores when you "
        "compute them again.",
        SCALE,
        8,
        edited(REFERENCE, (FORWARD, "(q @ k.transpose(-2, -1))")),
    ),
    Mistake(
        "dk is not transposed",
        "Rows of the scores' gradient are queries, and dk has a row for each key. Transpose it; "
        "only where T equals S does it run without.",
        BACKWARD,
        8,
        edited(REFERENCE, (DK, "d_scores @ q * scale")),
    ),
    Mistake(
        "dv is not transposed",
        "Rows of the weights are queries, and dv has a row for each key. Transpose them; only "
        "where T equals S does it run without.",
        BACKWARD,
        6,
        edited(REFERENCE, (VALUES, "dv = weights @ d_out")),
    ),
    Mistake(
        "dq and dk are swapped",
        "The gradient of the queries is made of keys, and that of the keys of queries. Return them "
        "in the order dq, dk, dv.",
        BACKWARD,
        10,
        edited(REFERENCE, (f"return {DQ}, {DK}", f"return {DK}, {DQ}")),
    ),
    Mistake(
        "dv uses scores in place of weights",
        "The output is the sum of values times weights, so weights lead back to them. Keep the "
        "softmax's result for it.",
        BACKWARD,
        3,
        edited(
            REFERENCE,
            (VALUES, "dv = scores.masked_fill(~mask, 0.0).transpose(-2, -1) @ d_out"),
        ),
    ),
    Mistake(
        "The weights' gradient uses the keys",
        "The output is weights times values, so the weights' gradient is d_out times the values. "
        "Keys come in only at the scores.",
        BACKWARD,
        6,
        edited(REFERENCE, (D_WEIGHTS, "d_weights = d_out @ k.transpose(-2, -1)")),
    ),
    Mistake(
        "The mask is forgotten",
        "Hidden keys get a gradient, and visible ones another weight than in the forward pass. "
        "Compute the weights again with the mask.",
        MASK,
        11,
        edited(REFERENCE, (FILL, ""), (CLEAR, "")),
    ),
    Mistake(
        "The mask comes after the softmax",
        "Your weights sum to less than one, as hidden keys took their share. Mask the scores.",
        MASK,
        10,
        edited(REFERENCE, (FILL, "")),
    ),
    Mistake(
        "A query that sees nothing gives NaN",
        "The softmax of a row of minus infinities is NaN, and it spreads to all keys and values. "
        "Give such rows the weights zero.",
        BLIND,
        1,
        edited(REFERENCE, ("torch.finfo(q.dtype).min", "-math.inf"), (CLEAR, "")),
    ),
    Mistake(
        "A query that sees nothing gives all values a gradient",
        "Where all scores are equally low, the softmax gives hidden keys the same weight. Set the "
        "weights to zero wherever the mask is False.",
        BLIND,
        1,
        edited(REFERENCE, (CLEAR, "")),
    ),
    Mistake(
        "The largest score is not subtracted",
        "The exponential of a score above 88 is infinite in float32. Subtract each row's largest "
        "score, or leave it to `torch.softmax`.",
        ONLINE,
        1,
        edited(
            REFERENCE,
            (FILL, ""),
            (
                WEIGHTS,
                f"weights = torch.exp(scores){CLEAR}\n"
                "    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-30)",
            ),
        ),
    ),
)

STYLES = {
    "the mean from the output, as FlashAttention has it": """
import math
import torch


def attention_backward(q, k, v, mask, d_out):
    s = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(q.size(-1))
    s = torch.where(mask, s, float("-inf"))
    lse = torch.logsumexp(s, dim=-1, keepdim=True)
    p = torch.exp(s - torch.where(lse.isinf(), torch.zeros_like(lse), lse))
    out = torch.einsum("bhts,bhsd->bhtd", p, v)
    delta = (d_out * out).sum(-1, keepdim=True)
    dp = torch.einsum("bhtd,bhsd->bhts", d_out, v)
    ds = p * (dp - delta) / math.sqrt(q.size(-1))
    dq = torch.einsum("bhts,bhsd->bhtd", ds, k)
    dk = torch.einsum("bhts,bhtd->bhsd", ds, q)
    return dq, dk, torch.einsum("bhts,bhtd->bhsd", p, d_out)
""",
    "a loop with the whole Jacobian": """
import torch


def attention_backward(q, k, v, mask, d_out):
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    B, H, T, D = q.shape
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = mask[t].nonzero()[:, 0]
                if len(seen) == 0:
                    continue
                keys, values = k[b, h, seen], v[b, h, seen]
                p = torch.softmax(keys @ q[b, h, t] / D**0.5, dim=0)
                jacobian = torch.diag(p) - torch.outer(p, p)
                ds = jacobian @ (values @ d_out[b, h, t]) / D**0.5
                dq[b, h, t] = ds @ keys
                dk[b, h, seen] += torch.outer(ds, q[b, h, t])
                dv[b, h, seen] += torch.outer(p, d_out[b, h, t])
    return dq, dk, dv
""",
    "numpy": """
import numpy as np
import torch


def attention_backward(q, k, v, mask, d_out):
    dtype = q.dtype
    q, k, v, d_out = (a.double().numpy() for a in (q, k, v, d_out))
    mask = np.broadcast_to(mask.numpy(), (*q.shape[:3], k.shape[2]))
    scale = q.shape[-1] ** -0.5
    s = np.where(mask, scale * q @ k.swapaxes(-1, -2), -np.inf)
    top = s.max(axis=-1, keepdims=True)
    e = np.exp(s - np.where(np.isinf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total == 0, 1, total)
    dp = d_out @ v.swapaxes(-1, -2)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    grads = ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ d_out
    return [torch.from_numpy(g).to(dtype) for g in grads]
""",
    "torch's own step back through the softmax": """
import torch


def attention_backward(q, k, v, mask, d_out):
    scale = q.shape[-1] ** -0.5
    s = ((q * scale) @ k.mT).masked_fill(~mask, -1e30)
    p = s.softmax(-1).masked_fill(~mask, 0)
    ds = torch.ops.aten._softmax_backward_data(d_out @ v.mT, p, -1, p.dtype)
    return ds @ (k * scale), ds.mT @ (q * scale), p.mT @ d_out
""",
}

PART = Part("attention_backward", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=PRELOAD)
