"""Exercise 4.3: grouped-query attention with a sliding window: its mistakes and styles."""

from gptbook.grading.ch04_attention.common import FROM_PARTS, SECTIONS
from gptbook.grading.ch04_attention.grouped import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.tensors import PRELOAD

GROUPS, WINDOW, CACHE = SECTIONS["groups"], SECTIONS["window"], SECTIONS["cache"]
SCALE, MASK, DICTIONARY = SECTIONS["scale"], SECTIONS["mask"], SECTIONS["dictionary"]

REPEAT = "k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)"
PLACES = "torch.arange(n_key - n_query, n_key)"
SEEN = "seen = (back >= 0) & (back < window)"
ROOT = " / math.sqrt(q.shape[-1])"
RETURN = "return torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1) @ v"

MISTAKES = (
    Mistake(
        "Query head h uses key head h % K",
        "`repeat`, or a view of the query heads as (group, K), takes the key heads in turn, as in "
        "0, 1, 0, 1. A group's query heads stand side by side, so use `repeat_interleave`, or the "
        "view (K, group).",
        GROUPS,
        6,
        edited(REFERENCE, (REPEAT, "k, v = k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1)")),
    ),
    Mistake(
        "All query heads use the first key head",
        "Broadcasting one key head over all query heads is multi-query attention, where K is 1. "
        "Give each group its own key head.",
        GROUPS,
        10,
        edited(REFERENCE, (REPEAT, "k, v = k[:, :1], v[:, :1]")),
    ),
    Mistake(
        "Query head h uses key head h // K",
        "K is how many groups there are, and not how many query heads are in one. Divide by the "
        "size of a group, H // K.",
        GROUPS,
        10,
        edited(
            REFERENCE,
            (
                REPEAT,
                "chosen = torch.arange(q.shape[1]) // k.shape[1]\n"
                "    k, v = k[:, chosen], v[:, chosen]",
            ),
        ),
    ),
    Mistake(
        "The heads come back in another order",
        "The groups are right, but in the result the first heads of all groups stand together. "
        "Flatten from (K, group), in the order in which you split.",
        GROUPS,
        6,
        edited(
            REFERENCE,
            (
                RETURN,
                f"{RETURN.replace('return', 'out =')}\n    return out.unflatten(1, (-1, group))"
                ".transpose(1, 2).flatten(1, 2)",
            ),
        ),
    ),
    Mistake(
        "The window is one too wide",
        "A window of w holds the query itself and w - 1 places before it, so a distance of w is "
        "outside. Compare with `<`.",
        WINDOW,
        7,
        edited(REFERENCE, ("(back < window)", "(back <= window)")),
    ),
    Mistake(
        "The window is one too narrow",
        "The query itself is one of the w places that it sees, and w - 1 are before it. A distance "
        "of w - 1 is inside.",
        WINDOW,
        7,
        edited(REFERENCE, ("(back < window)", "(back < max(window - 1, 1))")),
    ),
    Mistake(
        "A query does not see itself",
        "The window begins one place before the query, and the first query sees nothing, which "
        "makes NaN. A distance of zero is inside.",
        WINDOW,
        11,
        edited(REFERENCE, (SEEN, "seen = (back > 0) & (back <= window)")),
    ),
    Mistake(
        "The window is ignored",
        "This is causal attention, which sees everything before. Hide also what is `window` places "
        "back or more.",
        WINDOW,
        7,
        edited(REFERENCE, (" & (back < window)", "")),
    ),
    Mistake(
        "The future is not hidden",
        "You bound how far a query looks back, but not that it looks forward. The distance must "
        "be zero or more, too.",
        WINDOW,
        10,
        edited(REFERENCE, (SEEN, "seen = back < window")),
    ),
    Mistake(
        "The window reaches to both sides",
        "With the absolute distance, a query sees as far into the future as into the past. Take "
        "the distance with its sign, and let it be zero or more.",
        WINDOW,
        10,
        edited(REFERENCE, (SEEN, "seen = back.abs() < window")),
    ),
    Mistake(
        "The queries' places begin at 0",
        "With fewer queries than keys, query t is not at place t: the queries are the last ones. "
        "Count from S - T.",
        CACHE,
        4,
        edited(REFERENCE, (PLACES, "torch.arange(n_query)")),
    ),
    Mistake(
        "Only the last keys are kept",
        "The last `window` keys are what the last query sees; earlier queries see earlier keys. "
        "Give each query a window of its own, with a mask.",
        WINDOW,
        7,
        edited(
            REFERENCE,
            (
                "    n_query, n_key =",
                "    k, v = k[:, :, -window:], v[:, :, -window:]\n    n_query, n_key =",
            ),
        ),
    ),
    Mistake(
        "The scores are not scaled",
        "Scores grow with the number of products in them, and the softmax saturates. Divide by "
        "the root of D.",
        SCALE,
        9,
        edited(REFERENCE, (ROOT, "")),
    ),
    Mistake(
        "Scaled twice, or by D",
        "`scaled_dot_product_attention` divides by the root of D itself, so queries that were "
        "scaled before are scaled twice. Divide once.",
        SCALE,
        9,
        edited(REFERENCE, (ROOT, " / q.shape[-1]")),
    ),
    Mistake(
        "The mask comes after the softmax",
        "What is outside the window has taken its share before you remove it. Mask the scores.",
        MASK,
        10,
        edited(REFERENCE, (RETURN, "return (torch.softmax(scores, dim=-1) * seen) @ v")),
    ),
    Mistake(
        "The softmax runs over the queries",
        "Each key's weights sum to one, and a query's do not. Take the softmax over the keys, "
        "`dim=-1`.",
        DICTIONARY,
        9,
        edited(REFERENCE, ("-math.inf), dim=-1", "torch.finfo(scores.dtype).min), dim=-2")),
    ),
)

STYLES = {
    "no copies: a group axis": """
import torch


def grouped_query_attention(q, k, v, window):
    B, H, T, D = q.shape
    K, S = k.shape[1], k.shape[2]
    grouped = q.reshape(B, K, H // K, T, D)
    scores = torch.einsum("bkgtd,bksd->bkgts", grouped, k) * D**-0.5
    place = torch.arange(T) + S - T
    key = torch.arange(S)
    hidden = (key[None] > place[:, None]) | (key[None] <= place[:, None] - window)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("bkgts,bksd->bkgtd", weights, v).reshape(B, H, T, D)
""",
    "scaled_dot_product_attention": """
import torch
import torch.nn.functional as F


def grouped_query_attention(q, k, v, window):
    T, S = q.size(-2), k.size(-2)
    ones = torch.ones(T, S, dtype=torch.bool)
    mask = ones.tril(S - T) & ones.triu(S - T - window + 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
""",
    "a loop over heads and queries": """
import math
import torch


def grouped_query_attention(q, k, v, window):
    B, H, T, D = q.shape
    K, S = k.shape[1:3]
    out = torch.empty_like(q)
    for h in range(H):
        g = h // (H // K)
        for t in range(T):
            end = S - T + t + 1
            start = max(0, end - window)
            keys, values = k[:, g, start:end], v[:, g, start:end]
            scores = (keys * q[:, h, t, None]).sum(-1) / math.sqrt(D)
            out[:, h, t] = (torch.softmax(scores, -1)[..., None] * values).sum(1)
    return out
""",
    "indexed heads": """
import torch


def grouped_query_attention(q, k, v, window):
    heads = [h * k.shape[1] // q.shape[1] for h in range(q.shape[1])]
    k, v = k[:, heads], v[:, heads]
    S, T = k.shape[-2], q.shape[-2]
    s = (q @ k.mT).div(q.shape[-1] ** 0.5)
    for t in range(T):
        for j in range(S):
            if not 0 <= S - T + t - j < window:
                s[..., t, j] = -float("inf")
    p = torch.exp(s - s.max(-1, keepdim=True).values)
    return p @ v / p.sum(-1, keepdim=True)
""",
}

PART = Part(
    "grouped_query_attention", CHECKS, REFERENCE, MISTAKES, STYLES, FROM_PARTS, preload=PRELOAD
)
