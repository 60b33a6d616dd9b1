# Exported from chapters/04_flash_attention.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""FlashAttention in Triton, forward and backward: `gptbook.flash_attention` for a GPU.

Shapes: B batch, H heads of queries, K heads of keys and values, T places of queries, S places of
keys, D width of a head. A program is one tile of rows of one head.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptbook.arguments import check_heads
from gptbook.flash_attention import Sight, flash_obstacle, make_sight
from gptbook.kernels import tl, triton

LOG2_E = tl.constexpr(1.4426950408889634)
"""exp(x) = exp2(x * LOG2_E), and a GPU has an instruction for exp2 only."""


@triton.jit
def _load_rows(
    base, first, end, stride,
    ROWS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    CHECKED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Return ROWS rows of a head from `first` on, (ROWS, WIDTH), with zeros from `end` and D on.

    Without CHECKED all of the rows are known to lie before `end`.
    """
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    # The distance to the first row may not fit 32 bits; that within a tile does, and is cheaper.
    here = base + first * tl.cast(stride, tl.int64) + rows[:, None] * stride + columns[None, :]
    if CHECKED:
        inside = (first + rows < end)[:, None] & (columns < D)[None, :]
        tile = tl.load(here, mask=inside, other=0.0)
    elif D < WIDTH:
        tile = tl.load(here, mask=(columns < D)[None, :], other=0.0)
    else:
        tile = tl.load(here)
    if UPCAST:  # Triton's interpreter multiplies bfloat16 wrongly
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def _store_rows(
    base, tile, first, end, stride, ROWS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr
):
    """Store a tile at the rows of a head from `first` on, as far as they and its columns exist."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    here = base + first * tl.cast(stride, tl.int64) + rows[:, None] * stride + columns[None, :]
    inside = (first + rows < end)[:, None] & (columns < D)[None, :]
    tl.store(here, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _places(index, documents, at, end, shift, INDEXED: tl.constexpr, DOCUMENTS: tl.constexpr):
    """Return places and documents of the rows `at`; from `end` on -1, an empty slot."""
    inside = at < end
    if INDEXED:
        place = tl.load(index + at, mask=inside, other=-1)
    else:
        place = tl.where(inside, at + shift, -1)
    document = place  # not used
    if DOCUMENTS:
        document = tl.load(documents + at, mask=inside, other=0)
    return place, document


@triton.jit
def _visible(
    q_place, q_document, k_place, k_document,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """Return which queries see which keys; one side is a column, the other a row."""
    visible = k_place >= 0
    if CAUSAL:
        visible = visible & (k_place <= q_place)
    if WINDOW:
        visible = visible & (q_place - k_place < WINDOW)
    if DOCUMENTS:
        visible = visible & (q_document == k_document)
    return visible


@triton.jit
def _forward_kernel(
    q, k, v, out, log_sums,
    q_strides, k_strides, v_strides, out_strides,
    ranges, q_index, k_index, q_documents, k_documents, batch_strides,  # who sees whom
    T, S, H, scale,
    GROUP: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, INDEXED: tl.constexpr, DOCUMENTS: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute ROWS rows of the output of a head: an online softmax over tiles of COLUMNS keys."""
    n_tiles = tl.cdiv(T, ROWS)
    tile = n_tiles - 1 - tl.program_id(0) % n_tiles  # the last see the most keys: start them first
    head = tl.program_id(0) // n_tiles
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    q += b * q_strides[0] + h * q_strides[1]
    k += b * k_strides[0] + h // GROUP * k_strides[1]
    v += b * v_strides[0] + h // GROUP * v_strides[1]
    out += b * out_strides[0] + h * out_strides[1]
    ranges += b * batch_strides[0] + tile * 4
    q_index += b * batch_strides[1]
    k_index += b * batch_strides[2]
    q_documents += b * batch_strides[3]
    k_documents += b * batch_strides[4]

    first = tile * ROWS
    at = first + tl.arange(0, ROWS)
    queries = _load_rows(q, first, T, q_strides[2], ROWS, D, WIDTH, True, UPCAST)
    q_place, q_document = _places(q_index, q_documents, at, T, S - T, INDEXED, DOCUMENTS)
    factor = scale * LOG2_E
    peak = tl.full((ROWS,), float("-inf"), tl.float32)  # the largest score so far, times factor
    total = tl.zeros((ROWS,), tl.float32)
    mix = tl.zeros((ROWS, WIDTH), tl.float32)
    for part in tl.static_range(FIRST, LAST):  # 0: before the visible tiles, 1: these, 2: after
        for j in range(tl.load(ranges + part), tl.load(ranges + part + 1)):
            start = j * COLUMNS
            keys = _load_rows(k, start, S, k_strides[2], COLUMNS, D, WIDTH, part != 1, UPCAST)
            values = _load_rows(v, start, S, v_strides[2], COLUMNS, D, WIDTH, part != 1, UPCAST)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            if part != 1:
                places = start + tl.arange(0, COLUMNS)
                k_place, k_document = _places(
                    k_index, k_documents, places, S, 0, INDEXED, DOCUMENTS
                )
                visible = _visible(
                    q_place[:, None], q_document[:, None], k_place[None, :], k_document[None, :],
                    CAUSAL, WINDOW, DOCUMENTS,
                )  # fmt: skip
                scores = tl.where(visible, scores, float("-inf"))
            higher = tl.maximum(peak, tl.max(scores, 1) * factor)
            base = higher
            if part != 1:  # a row may have seen nothing yet, and -inf - -inf would be NaN
                base = tl.where(higher == float("-inf"), 0.0, higher)
            weights = tl.exp2(scores * factor - base[:, None])
            shrink = tl.exp2(peak - base)
            total = total * shrink + tl.sum(weights, 1)
            mix = mix * shrink[:, None]
            mix = tl.dot(weights.to(values.dtype), values, mix, input_precision=PRECISION)
            peak = higher

    blind = total == 0.0  # these saw nothing: zeros, and in the backward pass weights of zero
    total = tl.where(blind, 1.0, total)
    mix = mix / total[:, None]
    log_sum = tl.where(blind, float("inf"), peak + tl.log2(total))
    _store_rows(out, mix, first, T, out_strides[2], ROWS, D, WIDTH)
    tl.store(log_sums + head.to(tl.int64) * T + at, log_sum, mask=at < T)


@triton.jit
def _grad_q_kernel(
    q, k, v, out, grad_out, grad_q, log_sums, deltas,
    q_strides, k_strides, v_strides, out_strides, grad_out_strides, grad_q_strides,
    ranges, q_index, k_index, q_documents, k_documents, batch_strides,  # who sees whom
    T, S, H, scale,
    GROUP: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, INDEXED: tl.constexpr, DOCUMENTS: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute ROWS rows of the gradient of q, and for the other kernel their deltas."""
    n_tiles = tl.cdiv(T, ROWS)
    tile = n_tiles - 1 - tl.program_id(0) % n_tiles
    head = tl.program_id(0) // n_tiles
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    q += b * q_strides[0] + h * q_strides[1]
    k += b * k_strides[0] + h // GROUP * k_strides[1]
    v += b * v_strides[0] + h // GROUP * v_strides[1]
    out += b * out_strides[0] + h * out_strides[1]
    grad_out += b * grad_out_strides[0] + h * grad_out_strides[1]
    grad_q += b * grad_q_strides[0] + h * grad_q_strides[1]
    ranges += b * batch_strides[0] + tile * 4
    q_index += b * batch_strides[1]
    k_index += b * batch_strides[2]
    q_documents += b * batch_strides[3]
    k_documents += b * batch_strides[4]

    first = tile * ROWS
    at = first + tl.arange(0, ROWS)
    row = head.to(tl.int64) * T + at
    queries = _load_rows(q, first, T, q_strides[2], ROWS, D, WIDTH, True, UPCAST)
    grads = _load_rows(grad_out, first, T, grad_out_strides[2], ROWS, D, WIDTH, True, UPCAST)
    outs = _load_rows(out, first, T, out_strides[2], ROWS, D, WIDTH, True, UPCAST)
    delta = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1)
    tl.store(deltas + row, delta, mask=at < T)
    log_sum = tl.load(log_sums + row, mask=at < T, other=float("inf"))
    q_place, q_document = _places(q_index, q_documents, at, T, S - T, INDEXED, DOCUMENTS)
    mix = tl.zeros((ROWS, WIDTH), tl.float32)
    for part in tl.static_range(FIRST, LAST):
        for j in range(tl.load(ranges + part), tl.load(ranges + part + 1)):
            start = j * COLUMNS
            keys = _load_rows(k, start, S, k_strides[2], COLUMNS, D, WIDTH, part != 1, UPCAST)
            values = _load_rows(v, start, S, v_strides[2], COLUMNS, D, WIDTH, part != 1, UPCAST)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
            weights = tl.exp2(scores * (scale * LOG2_E) - log_sum[:, None])
            if part != 1:
                places = start + tl.arange(0, COLUMNS)
                k_place, k_document = _places(
                    k_index, k_documents, places, S, 0, INDEXED, DOCUMENTS
                )
                visible = _visible(
                    q_place[:, None], q_document[:, None], k_place[None, :], k_document[None, :],
                    CAUSAL, WINDOW, DOCUMENTS,
                )  # fmt: skip
                weights = tl.where(visible, weights, 0.0)
            grad_weights = tl.dot(grads, tl.trans(values), input_precision=PRECISION)
            grad_scores = (weights * (grad_weights - delta[:, None])).to(keys.dtype)
            mix = tl.dot(grad_scores, keys, mix, input_precision=PRECISION)
    _store_rows(grad_q, mix * scale, first, T, grad_q_strides[2], ROWS, D, WIDTH)


@triton.jit
def _grad_kv_kernel(
    q, k, v, grad_out, grad_k, grad_v, log_sums, deltas,
    q_strides, k_strides, v_strides, grad_out_strides, grad_k_strides, grad_v_strides,
    ranges, q_index, k_index, q_documents, k_documents, batch_strides,  # who sees whom
    T, S, H, scale,
    GROUP: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, INDEXED: tl.constexpr, DOCUMENTS: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of COLUMNS keys and values, from all queries of the heads they serve.

    Tiles lie on their side, keys by queries: so each is the left factor of the product it is for.
    """
    n_tiles = tl.cdiv(S, COLUMNS)
    tile = tl.program_id(0) % n_tiles  # the first are seen by the most queries
    head = tl.program_id(0) // n_tiles
    b, shared = (head // (H // GROUP)).to(tl.int64), (head % (H // GROUP)).to(tl.int64)
    k += b * k_strides[0] + shared * k_strides[1]
    v += b * v_strides[0] + shared * v_strides[1]
    grad_k += b * grad_k_strides[0] + shared * grad_k_strides[1]
    grad_v += b * grad_v_strides[0] + shared * grad_v_strides[1]
    ranges += b * batch_strides[0] + tile * 4
    q_index += b * batch_strides[1]
    k_index += b * batch_strides[2]
    q_documents += b * batch_strides[3]
    k_documents += b * batch_strides[4]

    first = tile * COLUMNS
    at = first + tl.arange(0, COLUMNS)
    keys = _load_rows(k, first, S, k_strides[2], COLUMNS, D, WIDTH, True, UPCAST)
    values = _load_rows(v, first, S, v_strides[2], COLUMNS, D, WIDTH, True, UPCAST)
    k_place, k_document = _places(k_index, k_documents, at, S, 0, INDEXED, DOCUMENTS)
    mix_k = tl.zeros((COLUMNS, WIDTH), tl.float32)
    mix_v = tl.zeros((COLUMNS, WIDTH), tl.float32)
    for member in range(GROUP):  # no two programs add to the same keys, so nothing is atomic
        h = shared * GROUP + member
        q_head = q + b * q_strides[0] + h * q_strides[1]
        grad_head = grad_out + b * grad_out_strides[0] + h * grad_out_strides[1]
        row = (b * H + h) * T
        for part in tl.static_range(FIRST, LAST):
            for i in range(tl.load(ranges + part), tl.load(ranges + part + 1)):
                start = i * ROWS
                places = start + tl.arange(0, ROWS)
                queries = _load_rows(
                    q_head, start, T, q_strides[2], ROWS, D, WIDTH, part != 1, UPCAST
                )
                grads = _load_rows(
                    grad_head, start, T, grad_out_strides[2], ROWS, D, WIDTH, part != 1, UPCAST
                )
                if part != 1:
                    log_sum = tl.load(log_sums + row + places, mask=places < T, other=float("inf"))
                    delta = tl.load(deltas + row + places, mask=places < T, other=0.0)
                else:
                    log_sum = tl.load(log_sums + row + places)
                    delta = tl.load(deltas + row + places)
                scores = tl.dot(keys, tl.trans(queries), input_precision=PRECISION)
                weights = tl.exp2(scores * (scale * LOG2_E) - log_sum[None, :])
                if part != 1:
                    q_place, q_document = _places(
                        q_index, q_documents, places, T, S - T, INDEXED, DOCUMENTS
                    )
                    visible = _visible(
                        q_place[None, :], q_document[None, :],
                        k_place[:, None], k_document[:, None],
                        CAUSAL, WINDOW, DOCUMENTS,
                    )  # fmt: skip
                    weights = tl.where(visible, weights, 0.0)
                mix_v = tl.dot(weights.to(grads.dtype), grads, mix_v, input_precision=PRECISION)
                grad_weights = tl.dot(values, tl.trans(grads), input_precision=PRECISION)
                grad_scores = (weights * (grad_weights - delta[None, :])).to(queries.dtype)
                mix_k = tl.dot(grad_scores, queries, mix_k, input_precision=PRECISION)
    _store_rows(grad_k, mix_k * scale, first, S, grad_k_strides[2], COLUMNS, D, WIDTH)
    _store_rows(grad_v, mix_v, first, S, grad_v_strides[2], COLUMNS, D, WIDTH)


# The launch


class Tiling(NamedTuple):
    """How a kernel is cut: queries and keys in a tile, warps in a program, loads under way."""

    rows: int
    columns: int
    warps: int
    stages: int


class Tilings(NamedTuple):
    """A tiling for each kernel."""

    forward: Tiling
    grad_q: Tiling
    grad_kv: Tiling


HOPPER = {
    32: Tilings(Tiling(128, 64, 4, 3), Tiling(64, 64, 4, 3), Tiling(64, 64, 4, 3)),
    64: Tilings(Tiling(128, 128, 4, 3), Tiling(128, 128, 8, 2), Tiling(64, 128, 8, 3)),
    128: Tilings(Tiling(128, 64, 8, 3), Tiling(128, 64, 8, 3), Tiling(64, 128, 8, 3)),
    256: Tilings(Tiling(128, 64, 8, 2), Tiling(128, 32, 8, 2), Tiling(32, 64, 8, 2)),
}
"""Half types on compute capability 9.0 (H100, H200) and 10: by the widest head they are for.

Up to a width of 128 forward and grad_kv have the sizes that torch 2.13's flex attention takes on
an H100. The others are the largest whose inner loops hardly spill a register (Triton 3.7).
"""

AMPERE = {
    32: Tilings(Tiling(128, 64, 4, 3), Tiling(64, 64, 4, 2), Tiling(64, 64, 4, 2)),
    64: Tilings(Tiling(128, 64, 4, 3), Tiling(64, 64, 4, 2), Tiling(64, 64, 4, 2)),
    128: Tilings(Tiling(128, 64, 8, 3), Tiling(64, 64, 4, 2), Tiling(64, 64, 4, 2)),
    256: Tilings(Tiling(64, 32, 4, 2), Tiling(32, 32, 4, 1), Tiling(32, 32, 4, 1)),
}
"""Half types on any other GPU: within the 99 KiB of shared memory of consumer GPUs."""

FLOAT32 = {
    64: Tilings(Tiling(64, 32, 4, 2), Tiling(32, 32, 4, 2), Tiling(32, 32, 4, 2)),
    128: Tilings(Tiling(32, 32, 4, 2), Tiling(32, 32, 8, 2), Tiling(32, 32, 8, 2)),
    256: Tilings(Tiling(16, 16, 4, 1), Tiling(16, 16, 4, 1), Tiling(16, 16, 4, 1)),
}
"""float32: TF32, or three products of it for one of float32, as torch's precision says."""

INTERPRETED = {256: Tilings(Tiling(32, 32, 1, 1), Tiling(32, 16, 1, 1), Tiling(16, 32, 1, 1))}
"""Small, so that small tests cross the borders of tiles."""


def choose_tilings(width: int, dtype: torch.dtype, capability: tuple[int, int] | None) -> Tilings:
    """Return the tilings for heads of `width` on a GPU; capability None: for the interpreter."""
    table = AMPERE
    if capability is None:
        table = INTERPRETED
    elif dtype == torch.float32:
        table = FLOAT32
    elif capability[0] in (9, 10):
        table = HOPPER
    return next(tilings for widest, tilings in table.items() if width <= widest)


def flash_attention(
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
) -> Float[Tensor, "B H T D"]:
    """Return softmax(q k * scale) v on a GPU, without a T by S matrix (Dao 2023).

    The same as `gptbook.flash_attention.tiled_attention`, which describes the arguments.

    Raises:
        ValueError: shapes or arguments that do not go together, or a call that this kernel cannot
            serve: on the CPU without the interpreter, of another dtype, or with D above 256.
    """
    check_heads(q, k, v)
    obstacle = flash_obstacle(q, scale)
    if obstacle is not None:
        raise ValueError(obstacle)
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
    indexed = query_index is not None or key_index is not None
    factor = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    out: Tensor = _Flash.apply(q, k, v, sight, indexed, factor)  # type: ignore[no-untyped-call]
    return out


class _Flash(torch.autograd.Function):
    """Attention that keeps q, k, v, its output, and the log-sum-exp of each query, to base 2."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sight: Sight, indexed: bool, scale: float
    ) -> Tensor:
        q, k, v = (_dense_rows(x) for x in (q, k, v))
        out, log_sums = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        tiling = _tilings(q).forward
        n_programs = q.shape[0] * q.shape[1] * triton.cdiv(q.shape[2], tiling.rows)
        tensors = {"q": q, "k": k, "v": v, "out": out}
        shared = _arguments(q, k, sight, indexed, scale, tiling, by_keys=False)
        _launch(_forward_kernel, n_programs, tensors, log_sums=log_sums, **shared)
        ctx.save_for_backward(q, k, v, out, log_sums)
        ctx.sight, ctx.indexed, ctx.scale = sight, indexed, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, log_sums = ctx.saved_tensors
        tensors = {"q": q, "k": k, "v": v, "grad_out": _dense_rows(grad_out)}
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        rows = {"log_sums": log_sums, "deltas": torch.empty_like(log_sums)}
        n_rows, n_columns = q.shape[0] * q.shape[1], k.shape[0] * k.shape[1]

        tiling = _tilings(q).grad_q
        n_programs = n_rows * triton.cdiv(q.shape[2], tiling.rows)
        shared = _arguments(q, k, ctx.sight, ctx.indexed, ctx.scale, tiling, by_keys=False)
        grads = {"out": out, "grad_q": grad_q}
        _launch(_grad_q_kernel, n_programs, tensors | grads, **rows, **shared)

        tiling = _tilings(q).grad_kv  # after grad_q, which has stored the deltas
        n_programs = n_columns * triton.cdiv(k.shape[2], tiling.columns)
        shared = _arguments(q, k, ctx.sight, ctx.indexed, ctx.scale, tiling, by_keys=True)
        grads = {"grad_k": grad_k, "grad_v": grad_v}
        _launch(_grad_kv_kernel, n_programs, tensors | grads, **rows, **shared)
        return grad_q, grad_k, grad_v, None, None, None


def _dense_rows(x: Tensor) -> Tensor:
    """Return x with the numbers of a head's row side by side; other strides may be anything."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _interpreted() -> bool:
    """Whether the kernels were decorated for Triton's interpreter."""
    return not isinstance(_forward_kernel, triton.JITFunction)


def _tilings(q: Tensor) -> Tilings:
    """Return the tilings for q's width, type and device."""
    capability = None if _interpreted() else torch.cuda.get_device_capability(q.device)
    return choose_tilings(q.shape[3], q.dtype, capability)


def _arguments(
    q: Tensor,
    k: Tensor,
    sight: Sight,
    indexed: bool,
    scale: float,
    tiling: Tiling,
    *,
    by_keys: bool,
) -> dict[str, Any]:
    """Return the arguments that all kernels have: who sees whom, sizes and constants."""
    ranges = sight.ranges(tiling.rows, tiling.columns, by_keys=by_keys)
    places = [ranges] * 4  # of these four, a kernel touches those that its constants say are there
    if indexed:
        places[:2] = [x.to(torch.int32).contiguous() for x in (sight.query_index, sight.key_index)]
    documents = sight.query_documents is not None and sight.key_documents is not None
    if sight.query_documents is not None and sight.key_documents is not None:
        places[2:] = [sight.query_documents.contiguous(), sight.key_documents.contiguous()]
    ends = _stretches(sight, tiling, by_keys=by_keys, by_shape=not (indexed or documents))
    tf32 = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return {
        "ranges": ranges,
        "q_index": places[0],
        "k_index": places[1],
        "q_documents": places[2],
        "k_documents": places[3],
        "batch_strides": tuple(x.stride(0) if len(x) > 1 else 0 for x in [ranges, *places]),
        "T": q.shape[2],
        "S": k.shape[2],
        "H": q.shape[1],
        "scale": scale,
        "GROUP": q.shape[1] // k.shape[1],
        "D": q.shape[3],
        "WIDTH": max(16, triton.next_power_of_2(q.shape[3])),
        "CAUSAL": sight.causal,
        "WINDOW": sight.window or 0,
        "INDEXED": indexed,
        "DOCUMENTS": documents,
        "UPCAST": _interpreted(),
        "PRECISION": "ieee" if _interpreted() else tf32,
        "FIRST": ends[0],
        "LAST": ends[1],
        "ROWS": tiling.rows,
        "COLUMNS": tiling.columns,
        "num_warps": tiling.warps,
        "num_stages": tiling.stages,
    }


def _stretches(sight: Sight, tiling: Tiling, *, by_keys: bool, by_shape: bool) -> tuple[int, int]:
    """Return the first of the three stretches of `tile_ranges` that is needed, and past the last.

    Each stretch is a loop in the compiled kernel, and registers are what it is short of.
    """
    if not by_shape or sight.window is not None:
        return 0, 3
    if not by_keys:
        return 1, 3  # what a query may not see comes last
    even = sight.query_index.shape[1] % tiling.rows == 0
    return 0 if sight.causal else 1, 2 if even else 3  # who may not see a key comes first


def _launch(kernel: Any, n_programs: int, tensors: dict[str, Tensor], **arguments: Any) -> None:
    """Run a kernel on the device of its tensors, each of which comes with three strides."""
    if not n_programs:
        return
    strides = {f"{name}_strides": x.stride()[:3] for name, x in tensors.items()}
    with torch.cuda.device_of(tensors["q"]):
        kernel[(n_programs,)](**tensors, **strides, **arguments)
