"""Exercise 4.2: causal self-attention with many heads: its mistakes and styles."""

from gptbook.grading.ch04_attention.common import FROM_PARTS, SECTIONS
from gptbook.grading.ch04_attention.multi_head import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.tensors import PRELOAD

HEADS, SCALE, MASK = SECTIONS["heads"], SECTIONS["scale"], SECTIONS["mask"]
DICTIONARY, LAYER = SECTIONS["dictionary"], SECTIONS["layer"]

NAMES = "q, k, v = ("
SPLIT = "part.reshape(n_batch, n_token, n_head, d_head).transpose(1, 2)"
PARTS = "for part in (x @ w_qkv.T).chunk(3, dim=-1)"
ROOT = " / math.sqrt(d_head)"
TRIL = ".tril()"
WEIGHTS = "weights = torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1)"
MERGE = "(weights @ v).transpose(1, 2).reshape("
OUT = " @ w_out.T"

MISTAKES = (
    Mistake(
        "Heads are split without a transpose",
        "`view(B, H, T, D)` cuts the rows where they lie, so a head gets whole tokens in place of "
        "its share of each. Split the last axis, `view(B, T, H, D)`, and then swap: "
        "`transpose(1, 2)`.",
        HEADS,
        8,
        edited(REFERENCE, (SPLIT, "part.reshape(n_batch, n_head, n_token, d_head)")),
    ),
    Mistake(
        "Heads are merged without a transpose",
        "After attention the heads stand before the tokens, and `reshape(B, T, C)` joins numbers "
        "of different tokens. Swap the axes back with `transpose(1, 2)` first.",
        HEADS,
        8,
        edited(REFERENCE, (MERGE, "(weights @ v).reshape(")),
    ),
    Mistake(
        "Neither split nor merged with a transpose",
        "Both reshapes read the memory as it lies, so each head attends among pieces of whole "
        "tokens. Split into (B, T, H, D) and swap, and swap again before you merge.",
        HEADS,
        6,
        edited(
            REFERENCE,
            (SPLIT, "part.reshape(n_batch, n_head, n_token, d_head)"),
            (MERGE, "(weights @ v).reshape("),
        ),
    ),
    Mistake(
        "A head takes every H-th number",
        "`view(B, T, D, H)` deals the numbers out to the heads one by one. A head's numbers stand "
        "side by side: `view(B, T, H, D)`.",
        HEADS,
        6,
        edited(
            REFERENCE,
            (SPLIT, "part.reshape(n_batch, n_token, d_head, n_head).permute(0, 3, 1, 2)"),
        ),
    ),
    Mistake(
        "Queries and keys are swapped",
        "The first C rows of `w_qkv` make the queries and the next C the keys; you have them the "
        "other way round. The mask shows that it matters: rows of scores are queries.",
        HEADS,
        7,
        edited(REFERENCE, (NAMES, "k, q, v = (")),
    ),
    Mistake(
        "Keys and values are swapped",
        "The rows of `w_qkv` are queries, keys, values, in this order. You take the second third "
        "for the values.",
        HEADS,
        8,
        edited(REFERENCE, (NAMES, "q, v, k = (")),
    ),
    Mistake(
        "Queries, keys and values are cut within each head",
        "Some models store the three side by side for each head, but here the first C rows are "
        "the queries of all heads. Split into thirds first, and then into heads.",
        HEADS,
        6,
        edited(
            REFERENCE,
            (SPLIT, "part.transpose(1, 2)"),
            (
                PARTS,
                "for part in (x @ w_qkv.T).reshape(n_batch, n_token, n_head, -1)"
                ".split(d_head, dim=-1)",
            ),
        ),
    ),
    Mistake(
        "The output projection is forgotten",
        "The heads' results stand side by side and nothing has mixed them. Multiply by `w_out.T` "
        "at the end.",
        HEADS,
        8,
        edited(REFERENCE, (OUT, "")),
    ),
    Mistake(
        "The output matrix is not transposed",
        "As in `nn.Linear`, a row of the matrix makes one number of the result. That is "
        "`x @ w.T`; `x @ w` runs too, since the matrix is square.",
        HEADS,
        8,
        edited(REFERENCE, (OUT, " @ w_out")),
    ),
    Mistake(
        "Scaled by the width of the model",
        "A score is a sum of as many products as a head has numbers, and not as the model has. "
        "Divide by the root of `C // n_head`.",
        SCALE,
        5,
        edited(REFERENCE, ("math.sqrt(d_head)", "math.sqrt(d_model)")),
    ),
    Mistake(
        "The scores are not scaled",
        "Scores grow with the number of products in them, and the softmax saturates. Divide by "
        "the root of a head's size.",
        SCALE,
        7,
        edited(REFERENCE, (ROOT, "")),
    ),
    Mistake(
        "Scaled twice, or by the head's size",
        "`scaled_dot_product_attention` divides by the root of D itself, so queries that were "
        "scaled before are scaled twice. Divide once.",
        SCALE,
        7,
        edited(REFERENCE, (ROOT, " / d_head")),
    ),
    Mistake(
        "No mask",
        "Every token sees every other one, also the ones it is to predict. Hide the keys that come "
        "after the query.",
        MASK,
        10,
        edited(REFERENCE, ("scores.masked_fill(~seen, -math.inf)", "scores")),
    ),
    Mistake(
        "The mask is off by one: the next token is seen",
        "The diagonal is moved by one, so a query sees the very token that it must predict. A "
        "query sees itself and what is before: `tril()`.",
        MASK,
        10,
        edited(REFERENCE, (TRIL, ".tril(1)")),
    ),
    Mistake(
        "The mask is off by one: a token does not see itself",
        "The diagonal is hidden too, and the first token sees nothing, which makes NaN. A query "
        "sees itself and what is before: `tril()`.",
        MASK,
        10,
        edited(REFERENCE, (TRIL, ".tril(-1)")),
    ),
    Mistake(
        "The mask is upside down",
        "A query sees what comes after it and not what was before. Rows are queries and columns "
        "keys, so what may be seen is the lower triangle.",
        MASK,
        10,
        edited(REFERENCE, (TRIL, ".triu()")),
    ),
    Mistake(
        "The mask comes after the softmax",
        "The future has taken its share of the weights before you remove it, and the rest sums to "
        "less than one. Mask the scores.",
        MASK,
        10,
        edited(REFERENCE, (WEIGHTS, "weights = torch.softmax(scores, dim=-1) * seen")),
    ),
    Mistake(
        "The softmax runs over the queries",
        "Each key's weights sum to one, so a query's do not, and early queries depend on later "
        "ones. Take the softmax over the keys, `dim=-1`.",
        DICTIONARY,
        10,
        edited(REFERENCE, ("-math.inf), dim=-1", "-math.inf), dim=-2")),
    ),
    Mistake(
        "The gradient is cut",
        "`detach`, `.data` and `torch.tensor` end the graph, so the queries and keys learn "
        "nothing. Stay in torch's operations.",
        LAYER,
        1,
        edited(REFERENCE, ("(weights @", "(weights.detach() @")),
    ),
)

STYLES = {
    "scaled_dot_product_attention": """
import torch.nn.functional as F


def multi_head(x, w_qkv, w_out, n_head):
    B, T, C = x.shape
    q, k, v = F.linear(x, w_qkv).view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(y.transpose(1, 2).contiguous().view(B, T, C), w_out)
""",
    "einsum": """
import torch


def multi_head(x, w_qkv, w_out, n_head):
    C = x.shape[-1]
    T = x.shape[1]
    D = C // n_head
    w_q, w_k, w_v = w_qkv.reshape(3, n_head, D, C)
    q = torch.einsum("btc,hdc->bhtd", x, w_q)
    k = torch.einsum("btc,hdc->bhtd", x, w_k)
    v = torch.einsum("btc,hdc->bhtd", x, w_v)
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / D**0.5
    future = torch.triu(torch.full((T, T), float("-inf")), diagonal=1)
    weights = (scores + future).softmax(-1)
    return torch.einsum("bhts,bhsd,chd->btc", weights, v, w_out.reshape(C, n_head, D))
""",
    "a loop over heads": """
import torch


def multi_head(x, w_qkv, w_out, n_head):
    B, T, C = x.shape
    D = C // n_head
    heads = []
    for h in range(n_head):
        rows = slice(h * D, (h + 1) * D)
        q, k, v = (x @ w_qkv[i * C : (i + 1) * C][rows].T for i in range(3))
        steps = []
        for t in range(T):
            scores = (k[:, : t + 1] @ q[:, t, :, None])[..., 0] * D**-0.5
            weights = torch.softmax(scores, dim=-1)
            steps.append((weights[:, None] @ v[:, : t + 1])[:, 0])
        heads.append(torch.stack(steps, dim=1))
    return torch.cat(heads, dim=-1) @ w_out.T
""",
    "heads on the batch axis": """
import math
import torch


def multi_head(x, w_qkv, w_out, n_head):
    B, T, C = x.size()
    D = C // n_head
    qkv = torch.matmul(x, w_qkv.t())
    q, k, v = qkv.chunk(3, dim=2)

    def split(a):
        return torch.stack(a.split(D, dim=2), dim=1).flatten(0, 1)

    mask = torch.arange(T)[None, :] > torch.arange(T)[:, None]
    att = torch.bmm(split(q) / math.sqrt(D), split(k).mT).masked_fill(mask, -1e9)
    y = torch.bmm(torch.softmax(att, 2), split(v)).unflatten(0, (B, n_head))
    return torch.cat(list(y.unbind(1)), dim=2) @ w_out.mT
""",
}

PART = Part("multi_head", CHECKS, REFERENCE, MISTAKES, STYLES, FROM_PARTS, preload=PRELOAD)
