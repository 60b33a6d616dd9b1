"""Exercise 4.4: attention over a stream of tiles: its mistakes and styles."""

from gptbook.grading.ch04_attention.common import BY_HAND, SECTIONS
from gptbook.grading.ch04_attention.online import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.tensors import PRELOAD

ONLINE, TILES, SCALE = SECTIONS["online"], SECTIONS["tiles"], SECTIONS["scale"]
MASK = SECTIONS["mask"]

SCORES = "scores = (q @ k.T / math.sqrt(d_head)).masked_fill(~mask, -math.inf)"
ROOT = " / math.sqrt(d_head)"
START = "top = q.new_full((n_query, 1), -math.inf)"
NEW = "new = torch.maximum(top, scores.amax(dim=1, keepdim=True))"
BASE = "base = new.masked_fill(new == -math.inf, 0.0)"
KEEP = "keep, weights = torch.exp(top - base), torch.exp(scores - base)"
TOTAL = "total = total * keep + weights.sum(dim=1, keepdim=True)"
OUT = "out = out * keep + weights @ v"
LSE = "lse = (top + torch.log(total))[:, 0]"
DIVIDE = "out / total.masked_fill(total == 0, 1.0)"
EMPTY = "        if len(k) == 0:\n            continue\n"

GATHERED = """
import math
import torch


def online_attention(q, tiles):
    {gather}
    n_query, d_head = q.shape
    scores = (q @ k.T / math.sqrt(d_head)).masked_fill(~mask, -math.inf)
    lse = torch.logsumexp(scores, dim=1)
    base = lse.masked_fill(lse == -math.inf, 0.0)[:, None]
    return torch.exp(scores - base) @ v, lse
"""

EACH_TILE = """
import math
import torch


def online_attention(q, tiles):
    n_query, d_head = q.shape
    outs, lses = [q.new_zeros(n_query, d_head)], [q.new_full((n_query,), -math.inf)]
    for k, v, mask in tiles:
        if len(k):
            scores = (q @ k.T / math.sqrt(d_head)).masked_fill(~mask, -math.inf)
            lse = torch.logsumexp(scores, dim=1)
            base = lse.masked_fill(lse == -math.inf, 0.0)[:, None]
            outs.append(torch.exp(scores - base) @ v)
            lses.append(lse)
    return {combine}, torch.logsumexp(torch.stack(lses), dim=0)
"""

MISTAKES = (
    Mistake(
        "The old sum is not rescaled",
        "When the largest score rises, the sum so far was made with the old one and is too large. "
        "Multiply it by exp(old - new) before you add.",
        ONLINE,
        12,
        edited(REFERENCE, (TOTAL, TOTAL.replace(" * keep", ""))),
    ),
    Mistake(
        "The old output is not rescaled",
        "The sum is rescaled when the largest score rises, but the weighted values so far are not. "
        "Multiply both by exp(old - new).",
        ONLINE,
        10,
        edited(REFERENCE, (OUT, OUT.replace(" * keep", ""))),
    ),
    Mistake(
        "Nothing is rescaled",
        "Every tile's weights are taken against another largest score, and then added as if it "
        "were the same. Multiply the sum and the output so far by exp(old - new).",
        ONLINE,
        11,
        edited(REFERENCE, (TOTAL, TOTAL.replace(" * keep", "")), (OUT, OUT.replace(" * keep", ""))),
    ),
    Mistake(
        "The factor is upside down",
        "You multiply by exp(new - old), which makes large what must become small, and is infinite "
        "at the first tile. The factor is exp(old - new), never above one.",
        ONLINE,
        12,
        edited(REFERENCE, ("torch.exp(top - base)", "torch.exp(base - top)")),
    ),
    Mistake(
        "The outputs of the tiles are averaged",
        "Each tile counts the same, however large its scores are. Tiles weigh by their sums of "
        "exponentials, against one largest score.",
        TILES,
        9,
        EACH_TILE.format(combine="sum(outs) / max(len(outs) - 1, 1)"),
    ),
    Mistake(
        "Each tile is divided by its own sum",
        "The weights sum to one in every tile, so over all tiles they sum to the number of tiles. "
        "Divide once, at the end, by the sum over all.",
        TILES,
        10,
        EACH_TILE.format(combine="sum(outs)"),
    ),
    Mistake(
        "The final division is missing",
        "What you return are values weighted by exponentials that sum to `total`. Divide by it at "
        "the end.",
        ONLINE,
        10,
        edited(REFERENCE, (DIVIDE, "out")),
    ),
    Mistake(
        "Divided in every tile",
        "The output is divided by the sum so far in each tile, and goes on as if it were not. "
        "Divide once, at the end.",
        ONLINE,
        10,
        edited(
            REFERENCE,
            (OUT, f"out = ({OUT.removeprefix('out = ')}) / total.masked_fill(total == 0, 1.0)"),
            (DIVIDE, "out"),
        ),
    ),
    Mistake(
        "Minus infinity minus minus infinity",
        "While a query has seen nothing, its largest score is minus infinity, and the difference "
        "of two of those is NaN. Subtract 0 in its place as long as that is so.",
        TILES,
        4,
        edited(REFERENCE, (BASE, "base = new")),
    ),
    Mistake(
        "The largest score begins at zero",
        "Where all scores are far below zero, the largest one is never found, and every "
        "exponential is rounded to zero. Begin with minus infinity.",
        ONLINE,
        1,
        edited(REFERENCE, (START, "top = q.new_zeros(n_query, 1)")),
    ),
    Mistake(
        "The newest tile's largest score",
        "The largest score is that of the last tile and not of all so far, so the factor can be "
        "infinite, or zero after a hidden tile. Take the maximum of the old one and the tile's.",
        ONLINE,
        1,
        edited(REFERENCE, (NEW, "new = scores.amax(dim=1, keepdim=True)")),
    ),
    Mistake(
        "The largest score is not subtracted",
        "The exponential of a score above 88 is infinite in float32. Subtract the largest score so "
        "far, and rescale what was summed with an older one.",
        ONLINE,
        1,
        edited(REFERENCE, (START, "top = q.new_zeros(n_query, 1)"), (NEW, "new = top")),
    ),
    Mistake(
        "The scores are not scaled",
        "Scores grow with the number of products in them. Divide by the root of D.",
        SCALE,
        10,
        edited(REFERENCE, (ROOT, "")),
    ),
    Mistake(
        "Scaled twice, or by D",
        "The scores come out too small, and the weights too equal. Divide once by the root of D.",
        SCALE,
        10,
        edited(REFERENCE, (ROOT, " / d_head")),
    ),
    Mistake(
        "The mask is ignored",
        "Each tile says which of its keys a query may see, and you count them all. Make hidden "
        "scores minus infinity.",
        MASK,
        4,
        edited(REFERENCE, (".masked_fill(~mask, -math.inf)", "")),
    ),
    Mistake(
        "The log-sum-exp lacks the largest score",
        "The logarithm of your sum is that of exponentials from which the largest score was "
        "subtracted. Add it again.",
        ONLINE,
        4,
        edited(REFERENCE, (LSE, "lse = torch.log(total)[:, 0]")),
    ),
    Mistake(
        "The largest score in place of the log-sum-exp",
        "The largest score is only the largest term. Add the logarithm of the sum.",
        ONLINE,
        4,
        edited(REFERENCE, (LSE, "lse = top[:, 0]")),
    ),
    Mistake(
        "A query that sees nothing gives NaN",
        "Its sum is zero, and zero by zero is NaN. Divide by one where the sum is zero.",
        TILES,
        2,
        edited(REFERENCE, (DIVIDE, "out / total")),
    ),
    Mistake(
        "A query that sees nothing gets the mean of all values",
        "With -1e9 in place of minus infinity, hidden keys weigh the same where nothing else is "
        "seen. Fill with minus infinity, or set hidden weights to zero.",
        TILES,
        2,
        edited(REFERENCE, (SCORES, SCORES.replace("-math.inf", "-1e9"))),
    ),
    Mistake(
        "An empty tile has no maximum",
        "`amax` of no numbers is an error. Skip a tile without keys.",
        TILES,
        2,
        edited(REFERENCE, (EMPTY, "")),
        hint=1,
    ),
    Mistake(
        "All keys are gathered first",
        "The answer is right, but all keys and a row of all scores are in memory at once, which is "
        "what tiles are there to avoid. Use each tile up before you take the next.",
        TILES,
        1,
        GATHERED.format(
            gather="tiles = [*tiles, (q[:0], q[:0], torch.ones(len(q), 0).bool())]\n"
            "    k, v, mask = (torch.cat(p, int(i == 2)) for i, p in enumerate(zip(*tiles)))"
        ),
    ),
    Mistake(
        "The tiles are read twice",
        "You look for the largest score first, and when you come to sum, the iterator is at its "
        "end. One pass must do: rescale what you have whenever a larger score comes.",
        ONLINE,
        12,
        edited(
            REFERENCE,
            (
                "    for k, v, mask in tiles:\n",
                "    for k, v, mask in tiles:\n"
                "        if len(k):\n"
                f"            {SCORES}\n"
                "            top = torch.maximum(top, scores.amax(dim=1, keepdim=True))\n"
                "    for k, v, mask in tiles:\n",
            ),
        ),
    ),
)

STYLES = {
    "merging normalized tiles": """
import math
import torch


def online_attention(q, tiles):
    T, D = q.shape
    out, lse = torch.zeros_like(q), q.new_full((T,), -math.inf)
    for k, v, mask in tiles:
        scores = torch.where(mask, q @ k.mT * D**-0.5, -math.inf)
        tile_lse = torch.logsumexp(scores, dim=-1)
        both = torch.logaddexp(lse, tile_lse)
        safe = torch.where(both.isinf(), 0.0, both)
        out = out * torch.exp(lse - safe)[:, None] + torch.exp(scores - safe[:, None]) @ v
        lse = both
    return out, lse
""",
    "a loop over queries and keys": """
import math
import torch


def online_attention(q, tiles):
    T, D = q.shape
    state = [[-math.inf, 0.0, torch.zeros(D, dtype=torch.float64)] for _ in range(T)]
    for k, v, mask in tiles:
        for t in range(T):
            for j in range(k.shape[0]):
                if not mask[t, j]:
                    continue
                score = float(q[t].double() @ k[j].double()) / math.sqrt(D)
                top, total, out = state[t]
                new = max(top, score)
                keep, weight = math.exp(top - new), math.exp(score - new)
                state[t] = [new, total * keep + weight, out * keep + weight * v[j].double()]
    outs, lses = [], []
    for top, total, out in state:
        outs.append(out / total if total else out)
        lses.append(top + math.log(total) if total else -math.inf)
    return torch.stack(outs).to(q.dtype), torch.tensor(lses, dtype=q.dtype)
""",
    "einsum, hidden weights set to zero": """
import torch


def online_attention(q, tiles):
    T, D = q.shape
    low = torch.finfo(q.dtype).min
    m = torch.full((T,), low, dtype=q.dtype)
    l = torch.zeros(T, dtype=q.dtype)
    acc = torch.zeros(T, D, dtype=q.dtype)
    for k, v, mask in tiles:
        n = k.size(0)
        if n == 0 or not mask.any():
            continue
        s = torch.einsum("td,nd->tn", q / D**0.5, k).masked_fill(~mask, low)
        m_new = torch.max(m, s.max(dim=1).values)
        p = torch.exp(s - m_new.unsqueeze(1)) * mask
        alpha = torch.exp(m - m_new)
        l, m = l * alpha + p.sum(1), m_new
        acc = acc * alpha.unsqueeze(1) + torch.einsum("tn,nd->td", p, v)
    seen = l > 0
    out = torch.where(seen.unsqueeze(1), acc / l.clamp(min=1e-20).unsqueeze(1), acc)
    return out, torch.where(seen, m + l.log(), float("-inf"))
""",
    "next, and tiles of one key": """
import math
import torch


def online_attention(q, tiles):
    keys = (
        (k[j], v[j], mask[:, j]) for k, v, mask in tiles for j in range(len(k))
    )
    lse = torch.full(q.shape[:1], -math.inf, dtype=q.dtype)
    out = torch.zeros(q.shape, dtype=q.dtype)
    while True:
        found = next(keys, None)
        if found is None:
            return [out, lse]
        k, v, seen = found
        score = (q * k).sum(1) / math.sqrt(q.shape[1])
        new = torch.where(seen, torch.logaddexp(lse, score), lse)
        weight = torch.where(seen, torch.exp(score - new), 0.0)[:, None]
        out = torch.where(weight > 0, out * (1 - weight) + weight * v, out)
        lse = new
""",
}

PART = Part("online_attention", CHECKS, REFERENCE, MISTAKES, STYLES, BY_HAND, preload=PRELOAD)
