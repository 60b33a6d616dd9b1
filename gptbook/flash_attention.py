# Exported from chapters/04_flash_attention.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""FlashAttention in PyTorch: attention tile by tile, forward and backward, never a T by S matrix.

Shapes: B batch, H heads of queries, K heads of keys and values, G = H / K, T places of queries,
S places of keys, D width of a head. `gptbook.kernels.flash_attention` is the same for a GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptbook.arguments import check_heads

HIDDEN, MIXED, VISIBLE = 0, 1, 2
"""What a tile of scores is: no query in it sees a key in it; some do; every one sees every key."""


@dataclass(frozen=True, eq=False)
class Sight:
    """Who sees whom, as `gptbook.attention.AttentionMask` says it, with the blanks filled in.

    Attributes:
        query_index: the place of each query, (B or 1, T).
        key_index: the place of each key, (B or 1, S); negative: an empty slot, seen by nobody.
        query_documents: the document of each query, (B or 1, T), or None.
        key_documents: the document of each key, (B or 1, S), or None.
        causal: a query sees no key that comes after it.
        window: of the keys up to itself, a query sees the last `window`.
    """

    query_index: Int[Tensor, "#B T"]
    key_index: Int[Tensor, "#B S"]
    query_documents: Int[Tensor, "#B T"] | None
    key_documents: Int[Tensor, "#B S"] | None
    causal: bool
    window: int | None
    _ranges: dict[tuple[int, int, bool], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )  # what `ranges` has computed

    def tile(self, rows: slice, columns: slice) -> Bool[Tensor, "B M N"]:
        """Return who sees whom in one tile, true where the query sees the key."""
        queries, keys = self.query_index[:, rows, None], self.key_index[:, None, columns]
        visible = (keys >= 0).expand(-1, queries.shape[1], -1)
        if self.causal:
            visible = visible & (queries >= keys)
        if self.window is not None:
            visible = visible & (queries - keys < self.window)
        if self.query_documents is not None and self.key_documents is not None:
            mine, theirs = self.query_documents[:, rows, None], self.key_documents[:, None, columns]
            visible = visible & (mine == theirs)
        return visible

    def kinds(self, n_rows: int, n_columns: int) -> Int[Tensor, "B I J"]:
        """Return HIDDEN, MIXED or VISIBLE for each tile of n_rows queries by n_columns keys.

        It looks at the smallest and the largest place and document in each stretch only, so MIXED
        means that nothing better is certain.
        """
        first, last = (end[:, :, None] for end in _ends(self.query_index, n_rows))
        low, high = (end[:, None, :] for end in _ends(self.key_index, n_columns))
        every = torch.ones_like(first, dtype=torch.bool)
        hidden, visible = every & (high < 0), every & (low >= 0)
        if self.causal:
            far = torch.iinfo(self.key_index.dtype).max
            taken = self.key_index.masked_fill(self.key_index < 0, far)  # no slot that is empty
            hidden = hidden | (_ends(taken, n_columns)[0][:, None, :] > last)
            visible = visible & (high <= first)
        if self.window is not None:
            hidden = hidden | (first - high >= self.window)
            visible = visible & (last - low < self.window)
        if self.query_documents is not None and self.key_documents is not None:
            first, last = (end[:, :, None] for end in _ends(self.query_documents, n_rows))
            low, high = (end[:, None, :] for end in _ends(self.key_documents, n_columns))
            hidden = hidden | (last < low) | (high < first)
            visible = visible & (first == last) & (low == high) & (first == low)
        kinds = torch.where(visible, VISIBLE, MIXED).masked_fill(hidden, HIDDEN)
        return kinds.to(torch.int8)

    def ranges(self, n_rows: int, n_columns: int, *, by_keys: bool) -> Int[Tensor, "B I 4"]:
        """Return `tile_ranges` of the kinds: of keys for each tile of queries, or the reverse.

        A last tile that is not full counts as mixed.
        """
        key = (n_rows, n_columns, by_keys)
        if key not in self._ranges:
            kinds = self.kinds(n_rows, n_columns)
            if by_keys:
                kinds = kinds.mT
            running, size = (self.query_index, n_rows) if by_keys else (self.key_index, n_columns)
            if running.shape[1] % size:
                kinds[:, :, -1].clamp_(max=MIXED)
            self._ranges[key] = tile_ranges(kinds, mixed_first=self.causal and by_keys)
        return self._ranges[key]


def make_sight(
    n_queries: int,
    n_keys: int,
    device: torch.device,
    *,
    causal: bool = False,
    window: int | None = None,
    query_index: Int[Tensor, "#B T"] | None = None,
    key_index: Int[Tensor, "#B S"] | None = None,
    query_documents: Int[Tensor, "#B T"] | None = None,
    key_documents: Int[Tensor, "#B S"] | None = None,
) -> Sight:
    """Return a Sight. Keys stand at 0 to S - 1 and queries are the last T places, unless given.

    Raises:
        ValueError: the window is below 1 or without causal, documents are given for one side, or a
            tensor has not T or S columns.
    """
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"window must be at least 1 and needs causal, got {window=}, {causal=}")
    if (query_documents is None) != (key_documents is None):
        raise ValueError("give query_documents and key_documents both, or neither")
    by_shape = _sight_by_shape(n_queries, n_keys, device, causal, window)
    if query_index is None and key_index is None and query_documents is None:
        return by_shape
    sight = Sight(
        by_shape.query_index if query_index is None else query_index,
        by_shape.key_index if key_index is None else key_index,
        query_documents,
        key_documents,
        causal,
        window,
    )
    for name, width in [("query", n_queries), ("key", n_keys)]:
        for what in ("index", "documents"):
            given = getattr(sight, f"{name}_{what}")
            if given is not None and (given.ndim != 2 or given.shape[1] != width):
                raise ValueError(
                    f"{name}_{what} must have shape (B or 1, {width}), got {tuple(given.shape)}"
                )
    return sight


@functools.lru_cache(maxsize=64)
def _sight_by_shape(
    n_queries: int, n_keys: int, device: torch.device, causal: bool, window: int | None
) -> Sight:
    """Return the Sight that shapes alone determine, with its ranges if they were asked for."""
    places = torch.arange(min(0, n_keys - n_queries), n_keys, device=device)[None]
    queries, keys = places[:, places.shape[1] - n_queries :], places[:, places.shape[1] - n_keys :]
    return Sight(queries, keys, None, None, causal, window)


def tile_ranges(kinds: Int[Tensor, "B I J"], *, mixed_first: bool = False) -> Int[Tensor, "B I 4"]:
    """Return for each row of tiles where to begin, where all is visible from and to, and the end.

    Tiles outside begin to end are hidden, those from the second number to the third are visible.
    If the visible ones are no single run, none is called so, and all stand after that empty run, or
    before it with mixed_first.
    """
    place = torch.arange(kinds.shape[2], device=kinds.device, dtype=torch.int32)
    begin, end = _span(kinds != HIDDEN, place)
    first, last = _span(kinds == VISIBLE, place)
    run = ((kinds == VISIBLE).sum(2) == last - first) & (last > first)
    border = end if mixed_first else begin
    first, last = torch.where(run, first, border), torch.where(run, last, border)
    return torch.stack([begin, first, last, end], 2).to(torch.int32)


def _span(flags: Bool[Tensor, "B I J"], place: Int[Tensor, " J"]) -> tuple[Tensor, Tensor]:
    """Return the place of the first flag in each row, and that behind the last; 0 and 0 if none."""
    if not len(place):
        none = torch.zeros(flags.shape[:2], dtype=torch.int32, device=flags.device)
        return none, none
    end = torch.where(flags, place + 1, 0).amax(2)
    return torch.where(flags, place, len(place)).amin(2).minimum(end), end


def _ends(values: Int[Tensor, "B N"], size: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value in each stretch of `size`, (B, tiles) each."""
    short = -values.shape[1] % size
    if short:
        values = torch.cat([values, values[:, -1:].expand(-1, short)], 1)
    tiles = values.reshape(values.shape[0], values.shape[1] // size, size)
    return tiles.amin(2), tiles.amax(2)


# The algorithm


def tiled_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B K S D"],
    v: Float[Tensor, "B K S D"],
    *,
    causal: bool = False,
    window: int | None = None,
    query_index: Int[Tensor, "#B T"] | None = None,
    key_index: Int[Tensor, "#B S"] | None = None,
    query_documents: Int[Tensor, "#B T"] | None = None,
    key_documents: Int[Tensor, "#B S"] | None = None,
    scale: float | None = None,
    tile: int | tuple[int, int] = 256,
) -> Float[Tensor, "B H T D"]:
    """Return softmax(q k * scale) v, without ever holding a T by S matrix (Dao et al. 2022).

    The same as `gptbook.attention.reference_attention`, forward and backward, with the fields of
    its mask as arguments. For the backward pass it keeps the output and one number for each query.
    Half types are computed in float32. A query that sees no key gets zeros and no gradient.

    Args:
        q: queries.
        k: keys; K divides H, and query head h reads head h // (H / K).
        v: values.
        causal: a query sees no key that comes after it.
        window: of the keys up to itself, a query sees the last `window`; needs causal.
        query_index: the place of each query, (B or 1, T); None: the last T of the S places.
        key_index: the place of each key, (B or 1, S); negative: an empty slot.
        query_documents: (B or 1, T); a query sees its own document only.
        key_documents: (B or 1, S).
        scale: factor of the scores; None: 1 / sqrt(D).
        tile: how many queries and keys are taken at a time, one number or two.

    Raises:
        ValueError: shapes or arguments that do not go together.
    """
    check_heads(q, k, v)
    sight = make_sight(
        q.shape[2],
        k.shape[2],
        q.device,
        causal=causal,
        window=window,
        query_index=query_index,
        key_index=key_index,
        query_documents=query_documents,
        key_documents=key_documents,
    )
    rows, columns = (tile, tile) if isinstance(tile, int) else tile
    if min(rows, columns) < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    factor = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    out: Tensor = _Tiled.apply(q, k, v, sight, factor, (rows, columns))  # type: ignore[no-untyped-call]
    return out


def flash_obstacle(q: Tensor, scale: float | None = None) -> str | None:
    """Return what keeps `gptbook.kernels.flash_attention` from serving q, or None if it can.

    It runs float32, float16 and bfloat16 on CUDA, with D up to 256. On the CPU it runs, slowly, in
    Triton's interpreter: if TRITON_INTERPRET=1 is set before the kernels are first imported.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: `pip install triton` (Linux), or take another backend"
    if q.device.type != "cuda" and not (q.device.type == "cpu" and interpreted):
        return (
            f"the Triton kernel runs on CUDA, got tensors on {q.device}: move them, take another "
            "backend, or set TRITON_INTERPRET=1 before the start, to try it slowly on the CPU"
        )
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the Triton kernel knows float32, float16 and bfloat16, got {q.dtype}"
    if q.shape[-1] > 256:
        return f"the Triton kernel knows heads up to D = 256, got {q.shape[-1]}"
    if scale is not None and scale <= 0:
        return f"the Triton kernel needs a scale above 0, got {scale}"
    if q.device.type == "cuda" and not interpreted:
        major, minor = torch.cuda.get_device_capability(q.device)
        if major < 8:  # Triton no longer uses the tensor cores of older ones
            return f"the Triton kernel needs compute capability 8.0, {q.device} has {major}.{minor}"
    return None


class _Tiled(torch.autograd.Function):
    """Attention that keeps q, k, v, its output, and the log-sum-exp of each query's scores."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sight: Sight, scale: float, tile: tuple[int, int]
    ) -> Tensor:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        log_sums = q.new_empty(q.shape[:3], dtype=_precise(q))
        for rows, visits in _visits(sight, tile):
            queries = _fold(q[:, :, rows], k) * scale
            peak = torch.full_like(queries[..., :1], -math.inf)  # the largest score so far
            total = torch.zeros_like(peak)  # of exp(score - peak)
            mix = torch.zeros_like(queries)  # of values, each times its exp(score - peak)
            for columns, mixed in visits:
                visible = sight.tile(rows, columns) if mixed else None
                scores = _scores(queries, k[:, :, columns], visible)
                higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
                base = higher.masked_fill(higher == -math.inf, 0.0)  # -inf - -inf would be NaN
                weights = (scores - base).exp_()
                shrink = (peak - base).exp()
                total = total * shrink + weights.sum(-1, keepdim=True)
                mix = mix * shrink + weights @ v[:, :, columns].to(weights.dtype)
                peak = higher
            blind = total == 0  # these saw nothing
            out[:, :, rows] = _unfold(mix / total.masked_fill(blind, 1.0), q)
            log_sum = (peak + total.log()).masked_fill(blind, math.inf)
            log_sums[:, :, rows] = _unfold(log_sum, q).squeeze(-1)
        ctx.save_for_backward(q, k, v, out, log_sums)
        ctx.sight, ctx.scale, ctx.tile = sight, scale, tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, log_sums = ctx.saved_tensors
        grad_q = torch.empty_like(q)
        grad_k = torch.zeros_like(k, dtype=_precise(k))
        grad_v = torch.zeros_like(v, dtype=_precise(v))
        for rows, visits in _visits(ctx.sight, ctx.tile):
            queries = _fold(q[:, :, rows], k) * ctx.scale
            grad = _fold(grad_out[:, :, rows], k)
            delta = (grad * _fold(out[:, :, rows], k)).sum(-1, keepdim=True)
            log_sum = _fold(log_sums[:, :, rows, None], k)
            grad_queries = torch.zeros_like(queries)
            for columns, mixed in visits:
                visible = ctx.sight.tile(rows, columns) if mixed else None
                keys, values = (x[:, :, columns].to(queries.dtype) for x in (k, v))
                weights = (_scores(queries, keys, visible) - log_sum).exp_()
                grad_v[:, :, columns] += weights.mT @ grad
                grad_scores = weights * (grad @ values.mT - delta)
                grad_k[:, :, columns] += grad_scores.mT @ queries
                grad_queries += grad_scores @ keys
            grad_q[:, :, rows] = _unfold(grad_queries * ctx.scale, q)
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None, None, None


def _visits(
    sight: Sight, tile: tuple[int, int]
) -> Iterator[tuple[slice, list[tuple[slice, bool]]]]:
    """Yield each tile of queries, with the tiles of keys to visit and whether each is mixed."""
    kinds = sight.kinds(*tile)
    best, worst = kinds.amax(0).tolist(), kinds.amin(0).tolist()  # over the rows of the batch
    for i, (bests, worsts) in enumerate(zip(best, worst, strict=True)):
        yield (
            slice(i * tile[0], (i + 1) * tile[0]),
            [
                (slice(j * tile[1], (j + 1) * tile[1]), worsts[j] != VISIBLE)
                for j in range(len(bests))
                if bests[j] != HIDDEN
            ],
        )


def _scores(
    queries: Float[Tensor, "B K GM D"],
    keys: Float[Tensor, "B K N D"],
    visible: Bool[Tensor, "#B M N"] | None,
) -> Float[Tensor, "B K GM N"]:
    """Return the scores of a tile, -inf where a query does not see a key."""
    scores = queries @ keys.to(queries.dtype).mT
    if visible is not None:
        (B, K, _, N), M = scores.shape, visible.shape[1]
        by_head = scores.view(B, K, scores.shape[2] // M, M, N)
        by_head.masked_fill_(~visible[:, None, None], -math.inf)
    return scores


def _fold(x: Float[Tensor, "B H M E"], k: Tensor) -> Float[Tensor, "B K GM E"]:
    """Put the queries that share a head of keys below each other, in the type of sums."""
    n_heads, n_places = x.shape[1:3]
    shared = n_heads // k.shape[1] * n_places
    return x.to(_precise(x)).reshape(x.shape[0], k.shape[1], shared, x.shape[3])


def _unfold(x: Float[Tensor, "B K GM E"], q: Tensor) -> Float[Tensor, "B H M E"]:
    """Undo _fold."""
    n_places = x.shape[1] * x.shape[2] // q.shape[1]
    return x.reshape(q.shape[0], q.shape[1], n_places, x.shape[3])


def _precise(x: Tensor) -> torch.dtype:
    """Return the type in which sums are kept: float32 for half types."""
    return torch.promote_types(x.dtype, torch.float32)
