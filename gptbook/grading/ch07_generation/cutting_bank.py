"""Exercise 7.2: top-k and top-p: its mistakes and styles."""

from gptbook.grading.ch07_generation.common import BOOK, SECTIONS
from gptbook.grading.ch07_generation.cutting import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

TAIL, ORDER = SECTIONS["tail"], SECTIONS["order"]

SORT = "falling, ids = logits.sort(dim=-1, descending=True, stable=True)"
KEPT = "kept = torch.arange(size).expand(falling.shape) < (size if top_k is None else top_k)"
CUT = "falling = falling.masked_fill(~kept, -math.inf)"
IF_P = "if top_p < 1:"
SHARES = "probabilities = falling.softmax(dim=-1)"
BEFORE = "before = probabilities.cumsum(dim=-1) - probabilities"
NUCLEUS = "kept = kept & (before < top_p)"
FIRST = "        kept[..., 0] = True\n"
LEFT = "left = falling.masked_fill(~kept, -math.inf).softmax(dim=-1)"
RESULT = "return torch.zeros_like(left).scatter(-1, ids, left)"

MISTAKES = (
    Mistake(
        "Everything as large as the k-th stays",
        "You compare with the k-th largest logit, so that all which are equal to it stay. Exactly "
        "k stay, the lower ids of the equal ones.",
        TAIL,
        2,
        edited(
            REFERENCE,
            (
                KEPT,
                "last = (size if top_k is None else min(top_k, size)) - 1\n"
                "    kept = falling >= falling[..., last : last + 1]",
            ),
        ),
    ),
    Mistake(
        "Of equal ones the higher ids stay",
        "Your sort puts the higher id first where two logits are equal, as a reversed ascending "
        "sort does. The lower id comes first: sort with `descending=True, stable=True`.",
        TAIL,
        3,
        edited(
            REFERENCE,
            (
                SORT,
                "falling, ids = logits.flip(-1).sort(dim=-1, descending=True, stable=True)\n"
                "    ids = size - 1 - ids",
            ),
        ),
        hint=1,
    ),
    Mistake(
        "The smallest stay",
        "You sort upwards and keep the beginning, which are the least probable ids. Sort with "
        "`descending=True`.",
        TAIL,
        12,
        edited(REFERENCE, (SORT, "falling, ids = logits.sort(dim=-1, stable=True)")),
        hint=1,
    ),
    Mistake(
        "The id that crosses the line is left out",
        "You keep an id if the sum with its own probability is within top_p, and so stop short of "
        "top_p. What counts is the sum of those before it.",
        TAIL,
        5,
        edited(REFERENCE, (NUCLEUS, "kept = kept & (before + probabilities <= top_p)")),
    ),
    Mistake(
        "One id too many",
        "You keep one more behind the id with which top_p is reached. An id stays if the sum of "
        "those before it, itself excluded, is below top_p.",
        TAIL,
        6,
        edited(
            REFERENCE,
            (
                NUCLEUS,
                "before = torch.cat([before[..., :1], before[..., :-1]], dim=-1)\n"
                "        kept = kept & (before < top_p)",
            ),
        ),
    ),
    Mistake(
        "Nothing is left",
        "With top_p = 0 no sum is below it, and of a row of minus infinities the softmax is NaN. "
        "The first id always stays.",
        TAIL,
        1,
        edited(REFERENCE, (FIRST, "")),
    ),
    Mistake(
        "Everything as probable as the last one stays",
        "You turn top-p into a least probability, and all that are equal to it stay. Keep a "
        "beginning of the falling order, and no more.",
        TAIL,
        1,
        edited(
            REFERENCE,
            (
                FIRST,
                FIRST + "        least = torch.where(kept, falling, math.inf).amin(-1, True)\n"
                "        kept = falling >= least\n",
            ),
        ),
    ),
    Mistake(
        "top_p = 1 cuts off the tail",
        "In float32 the probabilities sum to 1 before the last one has come, and the rest is "
        "gone. With top_p = 1 everything stays, without arithmetic.",
        TAIL,
        1,
        edited(REFERENCE, (IF_P, "if True:")),
    ),
    Mistake(
        "Top-p is a share of everything",
        "You take the probabilities before top-k has cut, so the sum reaches top_p later. Each cut "
        "works on what the one before left, made to sum to 1 again.",
        ORDER,
        2,
        edited(
            REFERENCE,
            (CUT, "everything = falling.softmax(dim=-1)\n    " + CUT),
            (SHARES, "probabilities = everything"),
        ),
    ),
    Mistake(
        "Only one of the two rules acts",
        "Where top_k is given you leave out top_p. Both act, top-k first.",
        ORDER,
        2,
        edited(REFERENCE, (IF_P, "if top_k is None and top_p < 1:")),
    ),
    Mistake(
        "What is left does not sum to 1",
        "You set the others to zero and leave the rest as it was, so that a draw may hit nothing. "
        "Divide by the sum, or take the softmax after the cuts.",
        ORDER,
        10,
        edited(
            REFERENCE,
            (CUT, "everything = falling.softmax(dim=-1)\n    " + CUT),
            (LEFT, "left = everything.masked_fill(~kept, 0.0)"),
        ),
    ),
    Mistake(
        "The answer is in falling order",
        "You return the probabilities as they were sorted, so they belong to other ids. Put each "
        "back in its place, with `scatter`.",
        TAIL,
        12,
        edited(REFERENCE, (RESULT, "return left")),
        hint=1,
    ),
    Mistake(
        "gather where scatter is needed",
        "`ids[j]` says where the j-th came from, so `gather` sorts once more what was sorted. "
        "`scatter` puts it back.",
        TAIL,
        12,
        edited(REFERENCE, (RESULT, "return left.gather(-1, ids)")),
        hint=1,
    ),
    Mistake(
        "Cut logits are set to zero",
        "A logit of 0 is as good as any other: its exponential is 1. What is cut gets -inf.",
        TAIL,
        12,
        edited(
            REFERENCE,
            (LEFT, "left = falling.masked_fill(~kept, 0.0).softmax(dim=-1)"),
        ),
        hint=1,
    ),
    Mistake(
        "k larger than the vocabulary",
        "`topk` raises an error where fewer than k ids are there. Take the smaller of the two "
        "numbers.",
        TAIL,
        1,
        edited(REFERENCE, (KEPT, f"{KEPT}\n    logits.topk(size if top_k is None else top_k)")),
    ),
    Mistake(
        "One number for all rows",
        "You count in the first row how many ids stay, and keep as many in the others. Each row "
        "has its own number.",
        TAIL,
        4,
        edited(REFERENCE, (NUCLEUS, "kept = kept & (before[:1] < top_p)")),
    ),
)

STYLES = {
    "filters one after the other, ranks": """
import torch


def ranks(z):
    order = torch.argsort(z, dim=-1, descending=True, stable=True)
    out = torch.empty_like(order)
    out.scatter_(-1, order, torch.arange(z.shape[-1]).expand_as(order).contiguous())
    return out


def keep_head(logits, top_k, top_p):
    z = logits.clone()
    if top_k is not None:
        z[ranks(logits) >= top_k] = float("-inf")
    if top_p < 1:
        p = torch.softmax(z.double(), -1)
        p_sorted, order = torch.sort(p, dim=-1, descending=True, stable=True)
        cum = torch.cumsum(p_sorted, -1)
        remove = cum >= top_p
        remove[:, 1:] = remove[:, :-1].clone()
        remove[:, 0] = False
        z[remove.scatter(1, order, remove)] = float("-inf")
    return torch.softmax(z, -1)
""",
    "row by row in plain Python": """
import math
import torch


def keep_head(logits, top_k, top_p):
    rows = []
    for z in logits.tolist():
        order = sorted(range(len(z)), key=lambda i: -z[i])
        order = [i for i in order if z[i] > -math.inf][:top_k]
        weight = {i: math.exp(z[i] - z[order[0]]) for i in order}
        if top_p < 1:
            total, acc, kept = sum(weight.values()), 0.0, []
            for i in order:
                kept.append(i)
                acc += weight[i] / total
                if acc >= top_p:
                    break
            order = kept
        s = sum(weight[i] for i in order)
        rows.append([weight[i] / s if i in order else 0.0 for i in range(len(z))])
    return torch.tensor(rows, dtype=logits.dtype)
""",
    "probabilities, and a number for each row": """
import torch


def keep_head(logits, top_k, top_p):
    p = torch.softmax(logits, -1)
    n = p.shape[-1]
    k = n if top_k is None else min(n, top_k)
    s, idx = torch.sort(p, dim=-1, descending=True, stable=True)
    s = s[:, :k] / s[:, :k].sum(-1, keepdim=True)
    if top_p < 1:
        count = 1 + (s.cumsum(-1)[:, :-1] < top_p).sum(-1) if top_p > 0 else torch.ones(len(s))
        s = s * (torch.arange(s.shape[-1])[None] < count[:, None])
        s = s / s.sum(-1, keepdim=True)
    out = torch.zeros_like(p)
    for b in range(len(p)):
        out[b, idx[b, :k]] = s[b]
    return out
""",
}

PART = Part("keep_head", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=PRELOAD)
