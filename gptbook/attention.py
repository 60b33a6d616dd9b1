# Exported from chapters/04_attention.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Attention: who may see whom, the reference, the choice of a backend, and the layer.

Shapes: B batch, H heads of queries, K heads of keys and values, T places of queries, S places of
keys, D width of a head, C width of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import dropout


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

    def dense(
        self, n_queries: int, n_keys: int, device: torch.device | str
    ) -> Bool[Tensor, "B 1 T S"]:
        """Return the mask as a tensor, true where the query sees the key; B is 1 if rows agree."""
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
        ValueError: shapes that do not go together.
    """
    check_heads(q, k, v)
    (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
    half = q.dtype in (torch.float16, torch.bfloat16)
    kind = torch.float32 if half else q.dtype
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


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless q, (B, H, T, D), and k and v, (B, K, S, D), go together."""
    shapes = f"q has shape {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(f"q, k and v must have four axes, (B, heads, places, D): {shapes}")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"k and v must have the same shape, and B and D of q: {shapes}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"the heads of q must be a multiple of those of k: {shapes}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must have one dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
