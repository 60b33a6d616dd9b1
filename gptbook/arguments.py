# Exported from chapters/02_language_models.md, chapters/04_attention.md. Edit the cells there and
# run `make export`, or edit this file and run `python -m book.tools.export --back`.
"""Checks of arguments that several modules share."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def checked_integer(value: object, name: str, least: int | None = None) -> int:
    """Return value as an int, or raise TypeError or ValueError if it is none or below `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_share(value: float, name: str) -> None:
    """Raise ValueError unless value is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless q, (B, H, T, D), and k and v, (B, K, S, D), go together."""
    shapes = f"q has shape {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(f"q, k and v must have four axes, (B, heads, places, D): {shapes}")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"k and v must have the same shape, and B and D of q: {shapes}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"the heads of q must be a multiple of those of k: {shapes}")
    kinds = {(x.dtype, x.device) for x in (q, k, v)}
    if len(kinds) > 1:
        listed = ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
        raise ValueError(f"q, k and v must have one dtype and device, got {listed}")
