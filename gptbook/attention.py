# Exported from chapters/04_attention.md, chapters/04_kv_cache.md. Edit the cells there and run
# `make export`, or edit this file and run `python -m book.tools.export --back`.
"""Attention: who may see whom, the reference, the choice of a backend, and the layer.

Shapes: B batch, H heads of queries, K heads of keys and values, T places of queries, S places of
keys, D width of a head, C width of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from gptbook.arguments import check_heads, check_share
from gptbook.config import AttentionConfig, Backend
from gptbook.flash_attention import flash_obstacle, tiled_attention
from gptbook.kv_cache import KVCache
from gptbook.linear import Linear
from gptbook.positions import RotaryPositions, Rotation, apply_rotary


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """Who sees whom. A query sees a key if none of what is given here forbids it.

    Everything is said by places in the row; the positions that turn queries and keys (RoPE) play
    no part. Where indexes are left out, the shapes say them: the keys stand at 0 to S - 1, and the
    queries are the last T of these places.

    Attributes:
        causal: a query sees no key that comes after it.
        window: of the keys up to itself, a query sees the last `window`, itself included.
        query_index: the place of each query, (B or 1, T).
        key_index: the place of each key, (B or 1, S); a negative one marks an empty slot, which
            nobody sees.
        query_documents: which document each query belongs to, (B or 1, T); it sees its own only.
        key_documents: which document each key belongs to, (B or 1, S).

    Raises:
        ValueError: the window is below 1 or without causal, or documents are given for one side.
    """

    causal: bool = True
    window: int | None = None
    query_index: Int[Tensor, "B T"] | None = None
    key_index: Int[Tensor, "B S"] | None = None
    query_documents: Int[Tensor, "B T"] | None = None
    key_documents: Int[Tensor, "B S"] | None = None
    _dense: dict[tuple[int, int, str], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )  # what `dense` has computed: one mask serves all layers of a model

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 (a query itself), got {self.window}")
        if self.window is not None and not self.causal:
            raise ValueError(f"window={self.window} looks back only, so it needs causal=True")
        if (self.query_documents is None) != (self.key_documents is None):
            raise ValueError("give query_documents and key_documents both, or neither")

    @property
    def by_shape(self) -> bool:
        """Whether T and S alone say who sees whom, without any tensor."""
        return self.query_index is None and self.key_index is None and self.query_documents is None

    def check(self, n_queries: int, n_keys: int, batch_size: int | None = None) -> None:
        """Raise ValueError, naming the field, unless the mask fits so many queries and keys."""
        for name, tensor, length in (
            ("query_index", self.query_index, n_queries),
            ("key_index", self.key_index, n_keys),
            ("query_documents", self.query_documents, n_queries),
            ("key_documents", self.key_documents, n_keys),
        ):
            if tensor is None:
                continue
            rows = tensor.shape[0]
            if tensor.ndim != 2 or tensor.shape[1] != length:
                raise ValueError(
                    f"{name} must have shape (B or 1, {length}), got {tuple(tensor.shape)}"
                )
            if batch_size is not None and rows not in (1, batch_size):
                raise ValueError(f"{name} has {rows} rows, but the batch has {batch_size}")

    def dense(
        self, n_queries: int, n_keys: int, device: torch.device | str
    ) -> Bool[Tensor, "B 1 T S"]:
        """Return the mask as a tensor, true where the query sees the key; B is 1 if rows agree.

        Raises:
            ValueError: a tensor of the mask has another number of columns.
        """
        self.check(n_queries, n_keys)
        key = (n_queries, n_keys, str(device))
        if key not in self._dense:
            self._dense[key] = self._build(n_queries, n_keys, device)
        return self._dense[key]

    def _build(self, n_queries: int, n_keys: int, device: torch.device | str) -> Tensor:
        queries, keys = self.query_index, self.key_index
        if queries is None:
            queries = torch.arange(n_keys - n_queries, n_keys, device=device)[None]
        if keys is None:
            keys = torch.arange(n_keys, device=device)[None]
        back = queries[:, :, None] - keys[:, None, :]  # how far back the key lies, (B, T, S)
        visible = (keys >= 0)[:, None, :].expand_as(back)
        if self.causal:
            visible = visible & (back >= 0)
        if self.window is not None:
            visible = visible & (back < self.window)
        if self.query_documents is not None and self.key_documents is not None:
            visible = visible & (self.query_documents[:, :, None] == self.key_documents[:, None, :])
        return visible[:, None]


def reference_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B K S D"],
    v: Float[Tensor, "B K S D"],
    mask: AttentionMask | None = None,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    bias: Float[Tensor, "#B #H T S"] | None = None,
) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T S"]]:
    """Return the attention of q over k and v, and its weights: softmax(q k / sqrt(D) + bias) v.

    The plain way, with a T by S matrix for each head, and the judge of all faster ones
    (Vaswani et al. 2017, section 3.2). Half types are computed in float32. Query head h reads the
    heads of keys and values h // (H / K) (Ainslie et al. 2023). A query that sees no key gets
    zeros, in the weights and in the output, and passes no gradient.

    Args:
        q: queries.
        k: keys; K divides H.
        v: values.
        mask: who sees whom; None: everyone sees all keys.
        scale: factor of the scores; None: 1 / sqrt(D).
        dropout_p: share of the weights set to zero, the others growing to keep the mean.
        bias: added to the scores, such as ALiBi's.

    Raises:
        ValueError: shapes that do not go together, or dropout_p is no share.
    """
    check_heads(q, k, v)
    check_share(dropout_p, "dropout_p")
    (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
    if mask is not None:
        mask.check(T, S, B)
    half = q.dtype in (torch.float16, torch.bfloat16)
    kind = torch.float32 if half else q.dtype
    with torch.autocast(q.device.type, enabled=False):  # it would make half types of this
        groups = q.to(kind).reshape(B, K, H // K * T, D)  # a key's queries, one below the other
        scores = (groups @ k.to(kind).mT).reshape(B, H, T, S)
        scores = scores * (1 / math.sqrt(D) if scale is None else scale)
        if bias is not None:
            scores = scores + bias
        if mask is None:
            weights = scores.softmax(-1)
        else:
            hidden = ~mask.dense(T, S, q.device)
            lowest = torch.finfo(kind).min  # not -inf: a row of only that would give NaN
            weights = scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)
        if dropout_p:
            weights = dropout(weights, dropout_p)
        out = weights.reshape(B, K, H // K * T, S) @ v.to(kind)
    return out.reshape(B, H, T, v.shape[-1]).to(q.dtype), weights


def attend(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B K S D"],
    v: Float[Tensor, "B K S D"],
    mask: AttentionMask | None = None,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    backend: Backend = "auto",
) -> Float[Tensor, "B H T D"]:
    """Return what `reference_attention` returns, less the weights, by the backend of your choice.

    Args:
        q: queries.
        k: keys; K divides H.
        v: values.
        mask: who sees whom; None: everyone sees all keys.
        scale: factor of the scores; None: 1 / sqrt(D).
        dropout_p: share of the weights set to zero.
        backend: "reference" makes the T by S matrix; "sdpa" is torch's function; "tiled" goes tile
            by tile in PyTorch, the slow twin of "flash", a Triton kernel for a GPU; "auto" is sdpa,
            or flash on a GPU for a mask that sdpa would have to be given as a matrix.

    Raises:
        ValueError: shapes that do not go together, or a backend that cannot serve, and why.
    """
    check_heads(q, k, v)
    check_share(dropout_p, "dropout_p")
    if mask is not None:
        mask.check(q.shape[2], k.shape[2], len(q))
    if backend == "auto":
        backend = _best_backend(q, mask, scale, dropout_p)
    if dropout_p and backend in ("tiled", "flash"):
        raise ValueError(
            f"backend={backend!r} has no dropout, and dropout_p is {dropout_p}: take sdpa, or 0"
        )
    match backend:
        case "reference":
            return reference_attention(q, k, v, mask, scale=scale, dropout_p=dropout_p)[0]
        case "sdpa":
            if q.is_cpu and q.requires_grad and q.dtype in (torch.float16, torch.bfloat16):
                with torch.autocast("cpu", enabled=False):
                    return _half_sdpa_on_cpu(q, k, v, mask, scale, dropout_p)
            return _sdpa(q, k, v, mask, scale, dropout_p)
        case "tiled":
            return tiled_attention(q, k, v, scale=scale, **_fields(mask))
        case "flash":
            if obstacle := flash_obstacle(q, scale):
                raise ValueError(f"backend='flash' cannot serve: {obstacle}")
            from gptbook.kernels.flash_attention import flash_attention  # needs triton

            return flash_attention(q, k, v, scale=scale, **_fields(mask))
    names = ", ".join(get_args(Backend))
    raise ValueError(f"backend must be one of {names}, got {backend!r}")


def _best_backend(
    q: Tensor, mask: AttentionMask | None, scale: float | None, dropout_p: float
) -> Backend:
    """Choose for "auto"."""
    if mask is None or (mask.by_shape and mask.window is None) or dropout_p or not q.is_cuda:
        return "sdpa"
    return "sdpa" if flash_obstacle(q, scale) else "flash"


def _fields(mask: AttentionMask | None) -> dict[str, Any]:
    """Return a mask as the arguments of the tiled functions, which know no class of this module."""
    if mask is None:
        return {"causal": False}
    return {
        "causal": mask.causal,
        "window": mask.window,
        "query_index": mask.query_index,
        "key_index": mask.key_index,
        "query_documents": mask.query_documents,
        "key_documents": mask.key_documents,
    }


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask | None, scale: float | None, p: float
) -> Tensor:
    """Call torch's function, with a matrix for a mask only where the shapes do not say it all."""
    T, S = q.shape[2], k.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if mask is not None and mask.by_shape and mask.causal and T == 1 and S > 0:
        k, v = (x[:, :, -(mask.window or S) :] for x in (k, v))  # one query: what it sees is left
        mask = None
    if mask is None or (mask.by_shape and not mask.causal):
        return scaled_dot_product_attention(q, k, v, dropout_p=p, scale=scale, enable_gqa=grouped)
    if mask.by_shape and T == S and (mask.window is None or mask.window >= T):
        return scaled_dot_product_attention(
            q, k, v, dropout_p=p, is_causal=True, scale=scale, enable_gqa=grouped
        )
    visible = mask.dense(T, S, q.device)
    blind = ~visible.any(-1, keepdim=True)
    out = scaled_dot_product_attention(
        # What torch gives a query that sees nothing differs among its kernels, and can be NaN: let
        # it see everything, and take away the result.
        q, k, v, attn_mask=visible | blind, dropout_p=p, scale=scale, enable_gqa=grouped
    )  # fmt: skip
    return out.masked_fill(blind, 0.0)


BLOCK = 128
"""Queries that are multiplied with their keys at a time."""

SHORT = 256
"""Up to so many places, a training step may hold the weights of all queries and keys."""


def _half_sdpa_on_cpu(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask | None, scale: float | None, p: float
) -> Tensor:
    """Do what `_sdpa` does, whose backward takes up to four times as long there in half types.

    Short rows of a causal mask are a few products of matrices, for which a CPU has instructions in
    bfloat16 (and scores stay in its range). All else is computed in float32.
    """
    T, S = q.shape[2], k.shape[2]
    plain = mask is not None and mask.by_shape and mask.causal and (mask.window or T) >= T
    same = T == S and q.shape[1] == k.shape[1]
    if q.dtype == torch.bfloat16 and plain and same and T <= SHORT and not p:
        return _causal_by_blocks(q, k, v, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return _sdpa(q.float(), k.float(), v.float(), mask, scale, p).to(q.dtype)


def _causal_by_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return causal attention, some queries at a time, with the keys up to the last of them.

    Scores and weights are rounded to the type of q; softmax itself works in float32.
    """
    blocks = []
    for start in range(0, q.shape[2], BLOCK):
        queries = q[:, :, start : start + BLOCK] * scale
        end = start + queries.shape[2]
        scores = queries @ k[:, :, :end].mT
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(start + 1)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        blocks.append(weights @ v[:, :, :end])
    return torch.cat(blocks, 2)


class CausalSelfAttention(nn.Module):
    """Multi-head attention of a row over itself, each place seeing no later one.

    Attributes:
        qkv: makes all heads' queries, then keys, then values: ((H + 2 K) D, C).
        output: takes the heads' results, side by side, back to the width C.
    """

    def __init__(
        self,
        config: AttentionConfig,
        layer: int = 0,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        """Make a layer.

        Args:
            config: its shape.
            layer: its number in the model, which is its number in the cache.
            q_norm: applied to each query, (..., D), before it is turned (chapter 5 says why).
            k_norm: the same for keys.
        """
        super().__init__()
        self.config, self.layer = config, layer
        H, K, D = config.n_head, config.n_kv_head, config.d_head
        self.qkv = Linear(config.d_model, (H + 2 * K) * D, bias=config.bias)
        self.output = Linear(H * D, config.d_model, bias=config.output_bias)
        self.q_norm, self.k_norm = q_norm, k_norm
        self.rotary = None if config.rope is None else RotaryPositions(D, config.rope)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        *,
        positions: Int[Tensor, "*B T"] | None = None,
        document_ids: Int[Tensor, "B T"] | None = None,
        kv_cache: KVCache | None = None,
        rotation: Rotation | None = None,
        mask: AttentionMask | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return (B, T, C), or that and the weights, (B, H, T, S).

        Args:
            x: the row's vectors.
            positions: by how much RoPE turns each place, (B, T) or (T,); by default its place in
                the row, counted on from what the cache has.
            document_ids: places see only those of their own document.
            kv_cache: tokens read before; the new ones are written behind them, and whoever calls
                advances it.
            rotation: what RotaryPositions gives for `positions`, to compute it once for all layers.
            mask: who sees whom, to make it once for all layers: see `mask_for`.
            return_weights: also return the weights, for which the reference is used.

        Raises:
            ValueError: weights are wanted of another backend, or documents with a cache.
            CacheFullError: the cache has no room for T more tokens.
        """
        config, (B, T, _) = self.config, x.shape
        if return_weights and config.backend not in ("reference", "auto"):
            raise ValueError(
                f"backend={config.backend!r} makes no weights: use reference to look at them"
            )
        if mask is None:
            mask = mask_for(T, config.sliding_window, document_ids, kv_cache)
        q, k, v = self._heads(x)
        if self.rotary is not None:
            if rotation is None:
                rotation = self.rotary(places(T, x.device, positions, kv_cache))
            q, k = apply_rotary(q, rotation), apply_rotary(k, rotation)
        if kv_cache is not None:
            k, v = kv_cache.write(self.layer, k, v)
        p = config.dropout if self.training else 0.0
        if return_weights:
            out, weights = reference_attention(q, k, v, mask, dropout_p=p)
        else:
            out = attend(q, k, v, mask, dropout_p=p, backend=config.backend)
        y = self.output(out.transpose(1, 2).reshape(B, T, -1))
        return (y, weights) if return_weights else y

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, (B, H, T, D), keys and values, (B, K, T, D)."""
        H, K, D = self.config.n_head, self.config.n_kv_head, self.config.d_head
        heads = self.qkv(x).unflatten(-1, (H + 2 * K, D)).split((H, K, K), dim=2)
        q, k, v = (part.transpose(1, 2) for part in heads)
        q = q if self.q_norm is None else self.q_norm(q)
        k = k if self.k_norm is None else self.k_norm(k)
        return q, k, v


def mask_for(
    n_new: int,
    window: int | None = None,
    document_ids: Int[Tensor, "B T"] | None = None,
    kv_cache: KVCache | None = None,
) -> AttentionMask:
    """Return who sees whom when n_new tokens are read, behind those of a cache if there is one.

    Raises:
        ValueError: documents together with a cache, which keeps no documents apart.
    """
    if kv_cache is None:
        return AttentionMask(
            window=window, query_documents=document_ids, key_documents=document_ids
        )
    if document_ids is not None:
        raise ValueError(
            "document_ids cannot go with kv_cache: give each document a row of its own"
        )
    windows = [size for size in (window, kv_cache.window) if size is not None]
    return AttentionMask(
        window=min(windows, default=None),
        query_index=kv_cache.query_index(n_new),
        key_index=kv_cache.key_index(n_new),
    )


def places(
    n_new: int,
    device: torch.device | str,
    positions: Int[Tensor, "*B T"] | None = None,
    kv_cache: KVCache | None = None,
) -> Int[Tensor, "*B T"]:
    """Return positions if they are given, else the tokens' places in their rows."""
    if positions is not None:
        return positions
    if kv_cache is not None:
        return kv_cache.positions(n_new)
    return torch.arange(n_new, device=device)
