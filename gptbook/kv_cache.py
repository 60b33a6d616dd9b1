# Exported from chapters/04_kv_cache.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Keys and values of the tokens that a model has read, kept for the tokens to come.

A model writes the keys and values of T new tokens behind those that it has, reads all of them, and
whoever called the model then says how many of the new ones count: `advance`. Until then nothing has
happened: the same call again gives the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gptbook.arguments import checked_integer


class CacheFullError(ValueError):
    """More tokens than the cache has places for."""


class KVCache:
    """The keys and values of all layers, for rows that may have different lengths.

    Attributes:
        keys: (L, B, K, capacity, D) for L layers.
        values: the same.
        lengths: how many tokens each row has.
        window: None: all tokens of a row can be seen. (A rolling cache shows the last ones.)
    """

    window: int | None = None

    def __init__(
        self,
        n_layer: int,
        batch_size: int,
        n_kv_head: int,
        d_head: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make room for `capacity` tokens in each of `batch_size` rows.

        Raises:
            TypeError: a size is no int.
            ValueError: a size is below 1.
        """
        sizes = {
            "n_layer": n_layer,
            "batch_size": batch_size,
            "n_kv_head": n_kv_head,
            "capacity": capacity,
            "d_head": d_head,
        }
        shape = [checked_integer(size, name, 1) for name, size in sizes.items()]
        self.capacity = capacity
        # Zeros, because a place that nobody sees still enters a product: 0 times NaN is NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.lengths: tuple[int, ...] = (0,) * batch_size
        self._written = [0] * n_layer  # tokens that each layer wrote since the last advance

    @property
    def n_bytes(self) -> int:
        """Bytes of all keys and values, places not yet used included."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def even(self) -> bool:
        """Whether all rows have the same length."""
        return len(set(self.lengths)) == 1

    def positions(self, n_new: int) -> Int[Tensor, "B T"]:
        """Return the places of n_new more tokens in each row, (1, T) if all rows agree."""
        lengths = self.lengths[:1] if self.even else self.lengths
        starts = torch.tensor(lengths, device=self.keys.device)
        return starts[:, None] + torch.arange(n_new, device=self.keys.device)

    def query_index(self, n_new: int) -> Int[Tensor, "B T"] | None:
        """Return the places of n_new queries, or None where the shapes say them."""
        return None if self.even else self.positions(n_new)

    def key_index(self, n_new: int) -> Int[Tensor, "B S"] | None:
        """Return the places of the keys that `write` of n_new gives back; -1 for empty ones."""
        if self.even:
            return None
        places = torch.arange(max(self.lengths) + n_new, device=self.keys.device)
        ends = torch.tensor(self.lengths, device=self.keys.device)[:, None] + n_new
        return torch.where(places < ends, places, -1)

    def write(
        self, layer: int, k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"]
    ) -> tuple[Float[Tensor, "B K S D"], Float[Tensor, "B K S D"]]:
        """Write T new tokens of a layer behind the rows, and return all its keys and values.

        They are views, with S = the longest row + T. The rows count the new tokens from the next
        `advance` on; a second write before it takes the place of the first.

        Raises:
            CacheFullError: there is no room; nothing was changed.
            ValueError: tensors of another shape, dtype or device, or that want a gradient.
        """
        n_new = self._check(layer, k, v)
        longest, end = max(self.lengths), self._end(n_new)
        self._written[layer] = n_new
        for store, new in ((self.keys[layer], k), (self.values[layer], v)):
            if self.even:
                store[:, :, longest:end] = new
            else:
                rows = torch.arange(len(self.lengths), device=store.device)[:, None]
                store[rows, :, self.positions(n_new)] = new.transpose(1, 2)
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def room(self, n_new: int) -> tuple[Float[Tensor, "L B K S D"], Float[Tensor, "L B K S D"]]:
        """Return what `write` does, of all layers, for a caller who writes the last n_new places.

        Raises:
            CacheFullError: there is no room; nothing was changed.
            ValueError: the rows have different lengths, so that new places are not the last ones.
        """
        if not self.even:
            raise ValueError(f"the rows have different lengths, {self.lengths}: use write")
        end = self._end(n_new)
        self._written = [n_new] * len(self.keys)
        return self.keys[:, :, :, :end], self.values[:, :, :, :end]

    def _end(self, n_new: int) -> int:
        """Return the length of the longest row with n_new tokens more, if there is room."""
        longest = max(self.lengths)
        if longest + n_new > self.capacity:
            raise CacheFullError(
                f"the cache holds {self.capacity} tokens a row (capacity); the longest row has "
                f"{longest}, and {n_new} more do not fit: make a larger one, drop the oldest "
                "tokens and read the rest again, or use a RollingKVCache"
            )
        return longest + n_new

    def advance(self, n_new: int | Sequence[int]) -> None:
        """Count n_new more tokens in each row, or in row b n_new[b] of them.

        Rows of different lengths are read in one call with filler at their ends: advance by their
        own lengths, and the next write goes over the filler.

        Raises:
            ValueError: below 0, or more than a layer has written; nothing was changed.
        """
        counts = self._per_row(n_new, "n_new")
        for layer, n_written in enumerate(self._written):
            if max(counts) > n_written:
                raise ValueError(
                    f"n_new is {n_new}, but layer {layer} wrote {n_written} tokens since the last "
                    "advance"
                )
        self._written = [0] * len(self.keys)
        self.lengths = tuple(a + b for a, b in zip(self.lengths, counts, strict=True))

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Forget the newest tokens, so that the rows have these lengths.

        Raises:
            ValueError: below 0, or more than a row has.
        """
        wanted = self._per_row(lengths, "lengths")
        if any(new > old for new, old in zip(wanted, self.lengths, strict=True)):
            raise ValueError(f"lengths is {lengths}, more than the rows have: {self.lengths}")
        self.lengths, self._written = wanted, [0] * len(self.keys)

    def _per_row(self, value: int | Sequence[int], name: str) -> tuple[int, ...]:
        """Return one number for each row, or raise as the callers say."""
        n_rows = len(self.lengths)
        numbers = tuple(value) if isinstance(value, Sequence) else (value,) * n_rows
        if len(numbers) != n_rows:
            raise ValueError(f"{name} has {len(numbers)} numbers, but there are {n_rows} rows")
        return tuple(checked_integer(number, name, 0) for number in numbers)

    def _check(self, layer: int, k: Tensor, v: Tensor) -> int:
        """Return T, or raise ValueError unless k and v can be written."""
        n_layer, B, K, _, D = self.keys.shape
        if not 0 <= layer < n_layer:
            raise ValueError(f"layer must be 0 to {n_layer - 1}, got {layer}")
        for name, new in (("k", k), ("v", v)):
            if new.ndim != 4 or (*new.shape[:2], new.shape[3]) != (B, K, D):
                raise ValueError(f"{name} must have shape ({B}, {K}, T, {D}), got {(*new.shape,)}")
            if new.dtype != self.keys.dtype or new.device != self.keys.device:
                raise ValueError(
                    f"{name} is {new.dtype} on {new.device}, but the cache holds "
                    f"{self.keys.dtype} on {self.keys.device}: make it with the model's"
                )
            if new.requires_grad:
                raise ValueError("a cache passes no gradient: run under torch.no_grad()")
        if k.shape != v.shape:
            raise ValueError(f"k and v differ in shape: {tuple(k.shape)}, {tuple(v.shape)}")
        return k.shape[2]


class RollingKVCache(KVCache):
    """A cache that is never full: of each row it keeps the last `capacity` tokens.

    A query sees itself and the capacity - 1 tokens before it, so a model with a sliding window no
    longer than the capacity reads on without end, exactly; for any other model it is the choice to
    forget. The newest token stands at the end of the buffer, so no place is ever computed modulo.
    """

    def __init__(
        self,
        n_layer: int,
        batch_size: int,
        n_kv_head: int,
        d_head: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make room for the last `capacity` tokens in each of `batch_size` rows."""
        super().__init__(
            n_layer, batch_size, n_kv_head, d_head, capacity, dtype=dtype, device=device
        )
        self.window = capacity
        self._pending: dict[int, tuple[Tensor, Tensor]] = {}  # by layer, until advance

    def query_index(self, n_new: int) -> Int[Tensor, "B T"] | None:
        """Return the places of n_new queries, or None where the shapes say them."""
        return None if self._full_and_even() else self.positions(n_new)

    def key_index(self, n_new: int) -> Int[Tensor, "B S"] | None:
        """Return the places of the keys that `write` of n_new gives back; negative for empty."""
        if self._full_and_even():
            return None
        return self.positions(self.capacity + n_new) - self.capacity

    def write(
        self, layer: int, k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"]
    ) -> tuple[Float[Tensor, "B K S D"], Float[Tensor, "B K S D"]]:
        """Return the kept keys and values of a layer with T new ones behind: S = capacity + T.

        Raises:
            ValueError: tensors of another shape, dtype or device, or that want a gradient.
        """
        self._written[layer] = self._check(layer, k, v)
        self._pending[layer] = (k, v)
        return torch.cat((self.keys[layer], k), 2), torch.cat((self.values[layer], v), 2)

    def advance(self, n_new: int | Sequence[int]) -> None:
        """Count n_new more tokens in each row, or in row b n_new[b], and let the oldest go."""
        counts = self._per_row(n_new, "n_new")
        super().advance(counts)
        begins = torch.tensor(counts, device=self.keys.device)[:, None]
        kept = begins + torch.arange(self.capacity, device=self.keys.device)  # (B, capacity)
        rows = torch.arange(len(counts), device=self.keys.device)[:, None]
        for layer, (k, v) in self._pending.items():
            for store, new in ((self.keys[layer], k), (self.values[layer], v)):
                joined = torch.cat((store, new), 2).transpose(1, 2)
                store.copy_(joined[rows, kept].transpose(1, 2))
        self._pending = {}

    def room(self, n_new: int) -> tuple[Tensor, Tensor]:
        """Raise ValueError: new keys have no place of their own until `advance`."""
        raise ValueError("a RollingKVCache has no room behind its rows: use write")

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Raise ValueError: what rolled out of the cache cannot come back."""
        raise ValueError(
            "a RollingKVCache cannot be truncated, because tokens that it let go would have to "
            "come back: use a KVCache"
        )

    def _full_and_even(self) -> bool:
        """Whether no place is empty, and all rows have the same length."""
        return self.even and self.lengths[0] >= self.capacity
