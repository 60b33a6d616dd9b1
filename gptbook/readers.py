# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Read rows of tokens with a model: all again at each call, with a cache, or without end."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gptbook.kv_cache import KVCache, RollingKVCache
from gptbook.model import GPT


class Evaluating:
    """A context in which a model is in evaluation mode; afterwards each part is as before."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.modes = [(part, part.training) for part in model.modules()]

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        for part, training in self.modes:
            part.training = training


def make_cache(model: GPT, n_rows: int, capacity: int, *, rolling: bool = False) -> KVCache:
    """Return an empty cache for a model's rows."""
    config, weight = model.config, model.tokens.weight
    kind = RollingKVCache if rolling else KVCache
    return kind(
        config.n_layer, n_rows, config.n_kv_head, config.d_head, capacity,
        dtype=weight.dtype, device=weight.device,
    )  # fmt: skip


def select_rows(cache: KVCache, rows: Sequence[int]) -> KVCache:
    """Return a cache with copies of these rows, in this order; one may come several times."""
    selected = copy.copy(cache)
    selected.keys, selected.values = cache.keys[:, rows], cache.values[:, rows]
    selected.lengths = tuple(cache.lengths[row] for row in rows)
    return selected


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return rows of ids as a tensor, (B, T), with zeros behind the shorter ones."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


@torch.no_grad()
def last_logits(
    model: GPT, rows: Sequence[Sequence[int]], cache: KVCache | None = None
) -> Float[Tensor, "B V"]:
    """Read rows of any lengths, behind what a cache holds, and return the logits that follow each.

    The filler of shorter rows stands behind their ends, where none of their places sees it, and
    the cache does not count it.
    """
    lengths = [len(row) for row in rows]
    ids = right_padded(rows, model.tokens.weight.device)
    hidden = model.hidden_states(ids, kv_cache=cache)
    if cache is not None:
        cache.advance(lengths)
    ends = torch.tensor(lengths, device=hidden.device) - 1
    return model.unembed(hidden[torch.arange(len(rows), device=hidden.device), ends])


class Reader:
    """Reads rows that grow, and gives the logits of each next token; all again at each call.

    The slow twin of `CachedReader`. A row that would be longer than the model's context keeps its
    last three quarters: see "Past the context".
    """

    def __init__(self, model: GPT, n_rows: int) -> None:
        self.model = model
        self.windows: list[list[int]] = [[] for _ in range(n_rows)]  # what the model sees

    def read(self, new: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add new ids to each row, and return the logits of the next."""
        self._append(new)
        return last_logits(self.model, self.windows)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one may come several times."""
        self.windows = [list(self.windows[row]) for row in rows]

    def _append(self, new: Sequence[Sequence[int]]) -> bool:
        """Add new ids to the windows, and return whether one of them had to slide."""
        limit = self.model.config.context_length
        slid = False
        for window, ids in zip(self.windows, new, strict=True):
            window += ids
            if len(window) > limit:
                slid = True
                del window[: -max(1, limit * 3 // 4)]
        return slid


class CachedReader(Reader):
    """Reads each token once, and keeps its keys and values."""

    def __init__(self, model: GPT, n_rows: int, capacity: int) -> None:
        """Prepare for rows of at most capacity tokens."""
        super().__init__(model, n_rows)
        self.capacity = min(capacity, model.config.context_length)
        self.cache = make_cache(model, n_rows, self.capacity)

    def read(self, new: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add new ids to each row, and return the logits of the next."""
        if self._append(new):  # places have changed, and with them all keys and values
            self.cache = make_cache(self.model, len(new), self.capacity)
            return last_logits(self.model, self.windows, self.cache)
        return last_logits(self.model, new, self.cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one may come several times."""
        super().keep(rows)
        self.cache = select_rows(self.cache, rows)


class RollingReader(Reader):
    """Reads without end, for models with a sliding window and without learned positions.

    It forgets what the model could not see anyway. Its slow twin, cached=False, reads all again.
    """

    def __init__(self, model: GPT, n_rows: int, *, cached: bool = True) -> None:
        super().__init__(model, n_rows)
        self.cached = cached
        self.cache = self._empty_cache(n_rows)

    @staticmethod
    def can_serve(model: GPT) -> bool:
        """Return whether the model has a window that it can look through without end."""
        config = model.config
        endless = config.positions in ("rope", "none")
        return (config.sliding_window or config.context_length) < config.context_length and endless

    def read(self, new: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add new ids to each row, as many at a time as the model reads; return the next logits."""
        if not self.cached:
            new = self.windows = [[*old, *ids] for old, ids in zip(self.windows, new, strict=True)]
            self.cache = self._empty_cache(len(new))
        piece = self.model.config.context_length
        starts = range(0, max(map(len, new)), piece)
        found = [
            last_logits(self.model, [row[start : start + piece] for row in new], self.cache)
            for start in starts
        ]
        ends = [(len(row) - 1) // piece for row in new]
        return torch.stack([found[end][row] for row, end in enumerate(ends)])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one may come several times."""
        super().keep(rows)
        self.cache = select_rows(self.cache, rows)

    def _empty_cache(self, n_rows: int) -> KVCache:
        window = self.model.config.sliding_window
        assert window is not None
        return make_cache(self.model, n_rows, window, rolling=True)
