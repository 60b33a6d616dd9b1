"""Exercise 7.3: reading with a cache: its mistakes and styles."""

from gptbook.grading.ch07_generation.cached import CHECKS, REFERENCE
from gptbook.grading.ch07_generation.common import BOOK, SECTIONS
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

DECODE = SECTIONS["decode"]

X = 'x = model["tokens"][padded] + model["positions"][places]'
SEEN = "seen = torch.arange(context) <= places[:, :, None]"
STORES = 'keys, values = cache["keys"][layer], cache["values"][layer]'
LENGTHS = 'cache["lengths"] = lengths + counts'
LAST = "last = x[torch.arange(len(new)), counts - 1]"
SIZES = 'n_layer, width, _ = model["query"].shape'
RESULT = 'return last @ model["tokens"].T, cache'

MISTAKES = (
    Mistake(
        "Positions start again at each call",
        "The new tokens get the positions 0, 1, 2 and so on, as if nothing stood before them. They "
        "continue where the row's length says.",
        DECODE,
        8,
        edited(REFERENCE, (X, X.replace("[places]", "[torch.arange(longest)]"))),
        hint=2,
    ),
    Mistake(
        "All rows continue at the place of the longest",
        "You take the length of the longest row as the place of all, so that shorter ones get a "
        "gap. Each row has its own length, and its own positions.",
        DECODE,
        3,
        edited(
            REFERENCE,
            (X, X.replace("[places]", "[(lengths.max() + torch.arange(longest))]")),
        ),
    ),
    Mistake(
        "The logits behind the filler",
        "You take the last column, where shorter rows have filler. Each row's last token stands at "
        "its own place.",
        DECODE,
        5,
        edited(REFERENCE, (LAST, "last = x[:, -1]")),
        hint=3,
    ),
    Mistake(
        "The filler counts",
        "You advance all rows by the longest, so that the filler of the shorter ones becomes a "
        "part of them. Advance each by the tokens that it really has.",
        DECODE,
        3,
        edited(REFERENCE, (LENGTHS, 'cache["lengths"] = lengths + longest')),
    ),
    Mistake(
        "The filler is seen",
        "Your mask lets every row look as far as the longest one, onto places that hold nothing of "
        "its own. A token sees the places up to its own.",
        DECODE,
        3,
        edited(
            REFERENCE,
            (
                SEEN,
                "seen = torch.arange(context) <= (lengths.max() + torch.arange(longest))[:, None]",
            ),
        ),
    ),
    Mistake(
        "Tokens see those behind them",
        "All tokens of a call see each other, as if it were one place. Within a call the mask is "
        "causal, too.",
        DECODE,
        12,
        edited(
            REFERENCE,
            (SEEN, "seen = torch.arange(context) < (lengths + counts)[:, None, None]"),
        ),
        hint=1,
    ),
    Mistake(
        "The mask forgets what the cache holds",
        "Your mask compares columns as if the new tokens began at 0, so that they see the first "
        "places only. Their places are behind those of the cache.",
        DECODE,
        8,
        edited(REFERENCE, (SEEN, "seen = torch.arange(context) <= torch.arange(longest)[:, None]")),
        hint=2,
    ),
    Mistake(
        "A token does not see itself",
        "With `<` in the mask a token sees only those before it, and the first one nothing. Its "
        "own key and value count.",
        DECODE,
        12,
        edited(REFERENCE, (SEEN, SEEN.replace("<=", "<"))),
        hint=1,
    ),
    Mistake(
        "The cache is never advanced",
        "The lengths stay as they were, so that each call writes over the one before. Count the "
        "new tokens when all layers have read them.",
        DECODE,
        8,
        edited(REFERENCE, (LENGTHS, "")),
        hint=2,
    ),
    Mistake(
        "The cache is advanced once for each layer",
        "The lengths grow with each layer, though all of them read the same tokens. Advance once, "
        "behind the last layer.",
        DECODE,
        8,
        edited(REFERENCE, (LENGTHS, 'cache["lengths"] = lengths + n_layer * counts')),
        hint=2,
    ),
    Mistake(
        "All layers share one store",
        "The second layer writes its keys over those of the first. Each layer has keys and values "
        "of its own.",
        DECODE,
        8,
        edited(REFERENCE, (STORES, STORES.replace("[layer]", "[0]"))),
        hint=2,
    ),
    Mistake(
        "What was read is forgotten",
        "Each call starts with an empty store, so that the new tokens see only each other. Keep "
        "the keys and values of all calls.",
        DECODE,
        8,
        edited(
            REFERENCE,
            (
                STORES,
                'keys, values = torch.zeros_like(cache["keys"][layer]), torch.zeros_like('
                'cache["values"][layer])',
            ),
        ),
        hint=2,
    ),
    Mistake(
        "Everything is read again",
        "You keep the ids and compute all keys and values anew at each call. Keep the keys and "
        "values, so that a token is read once.",
        DECODE,
        3,
        edited(
            REFERENCE,
            (
                SIZES,
                "if cache is not None:\n"
                "        new = [[*a, *b] for a, b in zip(cache['ids'], new, strict=True)]\n"
                f"    cache = None\n    {SIZES}",
            ),
            (RESULT, RESULT.replace("cache", '{"ids": new}')),
        ),
    ),
    Mistake(
        "The model's own tensors are changed",
        "You add the positions in place to rows of the table of tokens. Make a new tensor.",
        DECODE,
        13,
        edited(
            REFERENCE,
            (
                X,
                f'{X}\n    model["tokens"][padded[rows, columns]] = x[rows, columns]',
            ),
        ),
        hint=1,
    ),
)

STYLES = {
    "row by row, with lists that grow": """
import torch


def read(model, cache, new):
    if cache is None:
        cache = [{"n": 0, "k": {}, "v": {}} for _ in new]
    logits = []
    for state, ids in zip(cache, new):
        n = state["n"]
        x = model["tokens"][ids] + model["positions"][n : n + len(ids)]
        for l in range(len(model["query"])):
            q, k, v = (x @ model[name][l].T for name in ("query", "key", "value"))
            if n:
                k = torch.cat([state["k"][l], k])
                v = torch.cat([state["v"][l], v])
            state["k"][l], state["v"][l] = k, v
            scores = q @ k.T / x.shape[-1] ** 0.5
            hidden = torch.ones(len(ids), len(k)).triu(n + 1).bool()
            scores = scores.masked_fill(hidden, float("-inf"))
            x = x + scores.softmax(-1) @ v @ model["output"][l].T
        state["n"] = n + len(ids)
        logits.append(model["tokens"] @ x[-1])
    return torch.stack(logits), cache
""",
    "token by token": """
import math
import torch


class Kept:
    def __init__(self, n_rows, n_layer):
        self.k = [[[] for _ in range(n_layer)] for _ in range(n_rows)]
        self.v = [[[] for _ in range(n_layer)] for _ in range(n_rows)]


def read(model, cache, new):
    layers = range(len(model["query"]))
    kept = cache or Kept(len(new), len(layers))
    out = []
    for b, row in enumerate(new):
        for token in row:
            x = model["tokens"][token] + model["positions"][len(kept.k[b][0])]
            for l in layers:
                kept.k[b][l].append(model["key"][l] @ x)
                kept.v[b][l].append(model["value"][l] @ x)
                k, v = torch.stack(kept.k[b][l]), torch.stack(kept.v[b][l])
                w = torch.softmax(k @ (model["query"][l] @ x) / math.sqrt(len(x)), 0)
                x = x + model["output"][l] @ (w @ v)
        out.append(x @ model["tokens"].T)
    return torch.stack(out), kept
""",
    "filler on the left, and scaled_dot_product_attention": """
import torch
import torch.nn.functional as F


def read(model, cache, new):
    n_rows, longest = len(new), max(map(len, new))
    if cache is None:
        cache = {"kv": [None] * len(model["query"]), "real": torch.zeros(n_rows, 0).bool()}
    ids = torch.tensor([[0] * (longest - len(r)) + r for r in new])
    real = torch.tensor([[False] * (longest - len(r)) + [True] * len(r) for r in new])
    before = cache["real"].sum(1, keepdim=True)
    place = (before + real.cumsum(1) - 1).clamp(min=0)
    everything = torch.cat([cache["real"], real], 1)
    old = everything.shape[1] - longest
    causal = torch.arange(everything.shape[1]) <= old + torch.arange(longest)[:, None]
    mask = causal & everything[:, None, :]
    mask = mask | ~mask.any(-1, keepdim=True)
    x = model["tokens"][ids] + model["positions"][place]
    for l, kv in enumerate(cache["kv"]):
        k, v = F.linear(x, model["key"][l]), F.linear(x, model["value"][l])
        if kv is not None:
            k, v = torch.cat([kv[0], k], 1), torch.cat([kv[1], v], 1)
        cache["kv"][l] = (k, v)
        q = F.linear(x, model["query"][l])
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + F.linear(seen, model["output"][l])
    cache["real"] = everything
    return F.linear(x[:, -1], model["tokens"]), cache
""",
}

PART = Part("read", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=PRELOAD)
