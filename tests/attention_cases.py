"""Random cases of attention, and attention written with plain loops in float64.

Shapes: B batch, H query heads, K key heads, T queries, S keys, D head size.
"""

import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gptbook.attention import AttentionMask

RUNS_FLASH = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the Triton kernel can serve tensors on the CPU; test_flash_attention runs it on GPUs."""

BACKENDS = ["auto", "reference", "sdpa", "tiled", *(["flash"] if RUNS_FLASH else [])]

Arrays = dict[str, np.ndarray]
"""By name: "out", "weights", and "dq", "dk", "dv", the gradients."""


@dataclass(frozen=True)
class Case:
    """Inputs in float64, and the gradient that flows back into the output."""

    q: Tensor
    k: Tensor
    v: Tensor
    gradient: Tensor
    mask: AttentionMask | None = None
    scale: float | None = None
    bias: Tensor | None = None

    def rounded(self, dtype: torch.dtype) -> "Case":
        """Return the case whose numbers are what is left of them in dtype."""
        rounded = (x.to(dtype).double() for x in (self.q, self.k, self.v, self.gradient))
        q, k, v, gradient = rounded
        return replace(self, q=q, k=k, v=v, gradient=gradient)

    def __str__(self) -> str:
        return f"q {tuple(self.q.shape)}, k {tuple(self.k.shape)}, scale {self.scale}, {self.mask}"


# --- Masks ----------------------------------------------------------------------------------------


def entry(table: Tensor, row: int, column: int) -> int:
    """Return a number from a table that has a row for each batch row, or one row for all."""
    return int(table[row if table.shape[0] > 1 else 0, column])


def sees(mask: AttentionMask | None, b: int, t: int, s: int, n_queries: int, n_keys: int) -> bool:
    """Return whether query t of row b sees key s, as the contract words it."""
    if mask is None:
        return True
    query = n_keys - n_queries + t if mask.query_index is None else entry(mask.query_index, b, t)
    key = s if mask.key_index is None else entry(mask.key_index, b, s)
    if key < 0 or (mask.causal and key > query):
        return False
    if mask.window is not None and query - key >= mask.window:
        return False
    if mask.query_documents is None or mask.key_documents is None:
        return True
    return entry(mask.query_documents, b, t) == entry(mask.key_documents, b, s)


def random_documents(rng: random.Random, rows: int, columns: int) -> Tensor:
    return torch.tensor([[rng.choice([-1, 0, 7]) for _ in range(columns)] for _ in range(rows)])


def random_slots(rng: random.Random, rows: int, n_queries: int, n_keys: int) -> AttentionMask:
    """Return the mask of a ring of keys that is not full: any order, and empty slots."""
    query_rows, key_rows = [], []
    for _ in range(rows):
        length = rng.randint(0, n_keys + 5)
        kept = list(range(length))[-rng.randint(1, n_keys) :]
        slots = kept + [-1] * (n_keys - len(kept))
        rng.shuffle(slots)
        key_rows.append(slots)
        query_rows.append([length - n_queries + t for t in range(n_queries)])
    return AttentionMask(query_index=torch.tensor(query_rows), key_index=torch.tensor(key_rows))


def random_mask(
    kind: str, rng: random.Random, batch: int, n_queries: int, n_keys: int
) -> AttentionMask | None:
    """Return a mask of one of the kinds MASKS; some of its queries may see no key."""
    if kind == "none":
        return None
    mask = AttentionMask(causal=kind not in ("all", "documents both ways"))
    if kind in ("slots", "everything", "empty rows"):
        mask = random_slots(rng, batch, n_queries, n_keys)
    if kind == "slots for all rows":
        mask = replace(random_slots(rng, 1, n_queries, n_keys), causal=rng.random() < 0.5)
    if kind in ("window", "everything"):
        mask = replace(mask, window=rng.randint(1, max(n_keys, 2)))
    if kind in ("documents", "documents both ways", "everything"):
        queries, keys = (random_documents(rng, batch, n) for n in (n_queries, n_keys))
        mask = replace(mask, query_documents=queries, key_documents=keys)
    if kind == "empty rows" and mask.key_index is not None:
        mask.key_index[rng.randrange(batch)] = -1
    return mask


MASKS = (
    "none",
    "all",
    "causal",
    "window",
    "documents",
    "documents both ways",
    "slots",
    "slots for all rows",
    "everything",
    "empty rows",
)

# --- Inputs ---------------------------------------------------------------------------------------

HEADS = ((1, 1), (3, 3), (4, 2), (6, 2), (6, 3), (4, 1))
LENGTHS = ((1, 1), (1, 9), (9, 1), (7, 7), (4, 11), (11, 4))


def generator(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.getrandbits(62))


def random_case(
    rng: random.Random,
    kind: str = "causal",
    lengths: tuple[int, int] | None = None,
    heads: tuple[int, int] | None = None,
    d_head: int | None = None,
) -> Case:
    n_queries, n_keys = lengths or (rng.randint(1, 14), rng.randint(1, 14))
    n_head, n_kv_head = heads or rng.choice(HEADS)
    batch, d_head = rng.randint(1, 3), d_head or rng.choice([2, 5, 8, 16])
    source = generator(rng)

    def normal(heads: int, length: int) -> Tensor:
        shape = (batch, heads, length, d_head)
        return torch.randn(shape, generator=source, dtype=torch.float64)

    return Case(
        q=normal(n_head, n_queries),
        k=normal(n_kv_head, n_keys),
        v=normal(n_kv_head, n_keys),
        gradient=normal(n_head, n_queries),
        mask=random_mask(kind, rng, batch, n_queries, n_keys),
        scale=rng.choice([None, None, 0.3]),
    )


def random_cases(rng: random.Random, kind: str, d_head: int | None = None) -> Iterator[Case]:
    """Yield a case for each pair of LENGTHS, and two of any lengths."""
    for lengths in (*LENGTHS, None, None):
        yield random_case(rng, kind, lengths, d_head=d_head)


# --- Attention in loops ---------------------------------------------------------------------------


@dataclass
class Oracle:
    """What attention must give, and for each number the size of what it is summed from.

    A sum's rounding error grows with the absolute values of its terms, not with the sum: `sizes`
    holds the sums of these absolute values. `logit_size` is the largest one of any score.
    """

    values: Arrays
    sizes: Arrays
    logit_size: float = 0.0

    def add(self, name: str, place: tuple[int, ...], value: np.ndarray, size: np.ndarray) -> None:
        self.values[name][place] += value
        self.sizes[name][place] += size


def oracle(case: Case) -> Oracle:
    """Return attention and its gradients, one query and one key after the other."""
    q, k, v, gradient = (x.numpy() for x in (case.q, case.k, case.v, case.gradient))
    (batch, n_head, n_queries, d_head), (n_kv_head, n_keys) = q.shape, k.shape[1:3]
    scale = 1 / math.sqrt(d_head) if case.scale is None else case.scale
    shapes = {"out": q.shape, "weights": (batch, n_head, n_queries, n_keys)}
    shapes |= {"dq": q.shape, "dk": k.shape, "dv": v.shape}
    values, sizes = ({name: np.zeros(shapes[name]) for name in shapes} for _ in range(2))
    found = Oracle(values, sizes)
    for b in range(batch):
        for t in range(n_queries):
            seen = [s for s in range(n_keys) if sees(case.mask, b, t, s, n_queries, n_keys)]
            for h in range(n_head if seen else 0):
                group = h // (n_head // n_kv_head)
                bias = np.zeros(n_keys) if case.bias is None else case.bias[h, t].numpy()
                one_query(found, (b, h, t), group, seen, scale, bias, (q, k, v, gradient))
    return found


def one_query(
    found: Oracle,
    query: tuple[int, int, int],
    group: int,
    seen: list[int],
    scale: float,
    bias: np.ndarray,
    tensors: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Add what one query of one head gives to the output and to the gradients."""
    q, k, v, gradient = tensors
    b, one_q, one_gradient = query[0], q[query], gradient[query]
    scores = {s: scale * float(one_q @ k[b, group, s]) + float(bias[s]) for s in seen}
    largest = max(scores.values())
    total = sum(math.exp(score - largest) for score in scores.values())
    weights = {s: math.exp(score - largest) / total for s, score in scores.items()}
    # d(loss)/d(weight), its mean under the weights, and the sizes of both
    dw = {s: float(one_gradient @ v[b, group, s]) for s in seen}
    dw_size = {s: float(abs(one_gradient) @ abs(v[b, group, s])) for s in seen}
    mean = sum(weights[s] * dw[s] for s in seen)
    mean_size = sum(weights[s] * dw_size[s] for s in seen)
    for s in seen:
        key, w = (b, group, s), weights[s]
        found.logit_size = max(found.logit_size, scale * float(abs(one_q) @ abs(k[key])))
        found.add("weights", (*query, s), np.array(w), np.array(w))
        found.add("out", query, w * v[key], w * abs(v[key]))
        found.add("dv", key, w * one_gradient, w * abs(one_gradient))
        score_gradient = scale * w * (dw[s] - mean)
        size = scale * w * (dw_size[s] + mean_size)
        found.add("dq", query, score_gradient * k[key], size * abs(k[key]))
        found.add("dk", key, score_gradient * one_q, size * abs(one_q))


# --- Comparing ------------------------------------------------------------------------------------

Attention = Callable[..., Tensor | tuple[Tensor, Tensor]]


def inputs(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k, v in dtype, as leaves that collect gradients."""
    q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in (case.q, case.k, case.v))
    return q, k, v


def results(
    attention: Attention, case: Case, leaves: tuple[Tensor, Tensor, Tensor], *views: Tensor
) -> Arrays:
    """Return what an implementation gives for a case: output, gradients, weights if it has them.

    `views` stand for the leaves where the implementation shall see them in another layout.
    """
    options = {"scale": case.scale} | ({} if case.bias is None else {"bias": case.bias})
    found = attention(*(views or leaves), case.mask, **options)
    named = {"out": found} if isinstance(found, Tensor) else {"out": found[0], "weights": found[1]}
    assert named["out"].dtype == leaves[0].dtype
    assert named["out"].shape == case.q.shape
    gradients = torch.autograd.grad(named["out"], leaves, case.gradient.to(leaves[0].dtype))
    named |= dict(zip(("dq", "dk", "dv"), gradients, strict=True))
    return {name: tensor.detach().double().numpy() for name, tensor in named.items()}


def allowed_errors(case: Case, dtype: torch.dtype, expected: Oracle, exact_logits: bool) -> Arrays:
    """Return how far each number may be from the oracle's.

    Rounding a score changes it by at most eps / 2 of its size, and its weight by that factor:
    eps * logit_size covers score and largest score, twice that also the division by their sum.
    The other roundings (weights, their gradients, the sums over keys and over the head size, the
    output) are each eps / 2 of `sizes`; 8 eps of it covers a dozen of them, and sums, whose errors
    grow with the root of their lengths. Measured: torch and the reference use up to 0.4 of this.

    In half types eps * logit_size would be loose. Rounding q and k moves the scores by as much as
    rounding the scores does, and what rounding the inputs changes is measured: twice that, and 4
    eps for the few roundings that are not made in float32. Measured: torch uses up to 0.2 of it.

    Last, a weight below the type's range becomes 0.
    """
    info = torch.finfo(dtype)
    is_half = dtype in (torch.float16, torch.bfloat16)
    logit_roundings = 0.0 if exact_logits else 2 * expected.logit_size
    factor = info.eps * (4 if is_half else 8 + logit_roundings)
    allowed = {name: factor * size for name, size in expected.sizes.items()}
    if is_half:
        unrounded = oracle(case).values
        for name, value in expected.values.items():
            allowed[name] = allowed[name] + 2 * abs(unrounded[name] - value).max()
    underflow = info.smallest_normal * (info.eps if dtype == torch.float16 else 1)
    largest = [float(x.abs().max()) for x in (case.q, case.k, case.v, case.gradient)]
    n_terms = max(case.k.shape[2], case.q.shape[2] * case.q.shape[1] // case.k.shape[1])
    floor = underflow * n_terms * max(1.0, *largest) ** 3
    return {name: errors + floor for name, errors in allowed.items()}


def assert_equals_oracle(
    found: Arrays, case: Case, dtype: torch.dtype, exact_logits: bool = False
) -> None:
    """Compare an implementation's results on case.rounded(dtype) with the loops' results."""
    expected = oracle(case.rounded(dtype))
    allowed = allowed_errors(case, dtype, expected, exact_logits)
    for name, value in found.items():
        assert np.isfinite(value).all(), f"{name} is not finite: {case}"
        errors = abs(value - expected.values[name])
        worst = np.unravel_index(np.argmax(errors - allowed[name]), errors.shape)
        assert (errors <= allowed[name]).all(), (
            f"{name}{list(map(int, worst))} is {value[worst]}, the loops give "
            f"{expected.values[name][worst]} (allowed error {allowed[name][worst]:.2g}): {case}"
        )


def assert_close(found: Tensor, expected: Tensor, roundings: float = 64) -> None:
    """Compare two ways to compute a tensor in one type.

    An element may be off by `roundings` * eps of the expected tensor's largest one: a layer is four
    products and a softmax, each with sums of at most 100 terms, whose errors grow with the root of
    their lengths, so 4 * 10 * eps / 2, and some headroom for another order of the sums.
    """
    assert found.shape == expected.shape, f"{found.shape} != {expected.shape}"
    if not found.numel():
        return
    assert found.isfinite().all()
    size = float(expected.detach().abs().max())
    error = float((found.detach().double() - expected.detach().double()).abs().max())
    eps = torch.finfo(found.dtype).eps
    assert error <= roundings * eps * size, f"off by {error / size / eps:.3g} eps of {size:.3g}"
