# Exported from chapters/02_training_data.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""From token shards to batches: shuffled, split among ranks, and resumed exactly."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from gptbook.arguments import checked_integer
from gptbook.shard_writing import write_shards
from gptbook.token_shards import Tokens, TokenShards

__all__ = ["Batch", "Loader", "TokenShards", "document_layout", "epoch_order", "write_shards"]

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens to train on: four int64 tensors of shape (B, T).

    Attributes:
        inputs: the tokens that the model reads.
        targets: at each position the token that comes next, which the model has to predict.
        positions: at each position its number in its document, or in the row if the document began
            before the row.
        document_ids: which of the row's documents it belongs to, 0, 1, ...; tokens of two documents
            should not see each other.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    document_ids: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            self.inputs.to(device),
            self.targets.to(device),
            self.positions.to(device),
            self.document_ids.to(device),
        )


def document_layout(inputs: Ids, end_of_text: int) -> tuple[Ids, Ids]:
    """Return positions and document ids, each (B, T), of rows of tokens, (B, T).

    A document begins with its end-of-text id, and a row begins one, too.
    """
    begins = inputs == end_of_text
    begins[:, 0] = True
    starts = np.flatnonzero(begins)  # in the rows laid end to end
    lengths = np.diff(starts, append=inputs.size)
    first_of_row = np.cumsum(begins.sum(axis=1)) - begins.sum(axis=1)
    numbers = np.arange(len(starts)) - first_of_row[starts // inputs.shape[1]]
    positions = np.arange(inputs.size) - np.repeat(starts, lengths)
    return positions.reshape(inputs.shape), np.repeat(numbers, lengths).reshape(inputs.shape)


def epoch_order(n: int, seed: int, epoch: int) -> Ids:
    """Return the numbers 0 to n - 1 in an order that looks random and depends on the rest alone.

    Each number is scrambled by a function that maps no two of them to the same value (SplitMix64;
    Steele, Lea and Flood, 2014), and the numbers are sorted by that. Unlike a library's shuffle it
    can be promised to stay the same in every version and on every machine.
    """
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    x = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(int.from_bytes(digest, "little"))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)))


def windows_of(tokens: Tokens, length: int) -> NDArray[Any]:
    """Return all windows of a shard as rows of a view, (n, length + 1): nothing is copied.

    Window i holds tokens[i * length : (i + 1) * length] and the one that follows, its last target.
    """
    if len(tokens) <= length:
        return np.empty((0, length + 1), tokens.dtype)
    return sliding_window_view(tokens, length + 1)[::length]


class Loader:
    """Batches from token shards, epoch after epoch; an iterator whose place can be saved.

    Each shard is cut into windows of context_length tokens, whose targets follow without a gap;
    what remains at a shard's end, less than a window, is left out. An epoch takes the windows of
    all shards in a shuffled order, `world_size * batch_size` of them a step, of which this rank
    gets its part. So the ranks' batches, one below the other, are the same batch for any world_size
    that divides it, and within an epoch no target comes twice.
    """

    def __init__(
        self,
        shards: TokenShards,
        batch_size: int,
        context_length: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        *,
        shuffle: bool = True,
        epochs: int | None = None,
        separate_documents: bool = True,
    ) -> None:
        """Prepare to read.

        Args:
            shards: the tokens.
            batch_size: rows of a batch on this rank, B.
            context_length: tokens of a row, T.
            seed: decides the order.
            rank: which part of each step's rows this loader gives.
            world_size: the number of ranks.
            shuffle: if false, every epoch takes the windows as they stand.
            epochs: where to stop; None goes on without end. Windows that do not fill an epoch's
                last step are left out, others each time if they are shuffled.
            separate_documents: if false, positions count through the row and document ids are 0, as
                if a row were one document.

        Raises:
            TypeError: an argument that must be an int is none.
            ValueError: an argument is out of range, or there are too few tokens for one step.
        """
        batch_size = checked_integer(batch_size, "batch_size", 1)
        context_length = checked_integer(context_length, "context_length", 1)
        world_size = checked_integer(world_size, "world_size", 1)
        rank = checked_integer(rank, "rank")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, but must be 0 to {world_size - 1} (world_size - 1)")
        self.shards = shards
        self.batch_size = batch_size
        self.context_length = context_length
        self.seed = checked_integer(seed, "seed")
        self.rank = rank
        self.world_size = world_size
        self.shuffle = bool(shuffle)
        self.epochs = None if epochs is None else checked_integer(epochs, "epochs", 0)
        self.separate_documents = bool(separate_documents)
        self._windows = [windows_of(shard.tokens, context_length) for shard in shards.shards]
        counts = [len(windows) for windows in self._windows]
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self.global_batch = batch_size * world_size
        self.steps_per_epoch = int(self._ends[-1]) // self.global_batch
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{shards.n_tokens:,} tokens make {self._ends[-1]} windows of context_length "
                f"{context_length}, fewer than the {self.global_batch} of one step (batch_size "
                f"{batch_size} times world_size {world_size}): lower one of them, or add text"
            )
        self._epoch, self._step = 0, 0  # of the next batch
        self._order = self._order_of(0)

    def _order_of(self, epoch: int) -> Ids:
        n = int(self._ends[-1])
        return epoch_order(n, self.seed, epoch) if self.shuffle else np.arange(n)

    def _go_to(self, epoch: int, step: int) -> None:
        if epoch != self._epoch and self.shuffle:
            self._order = self._order_of(epoch)
        self._epoch, self._step = epoch, step

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._step == self.steps_per_epoch:
            self._go_to(self._epoch + 1, 0)
        if self.epochs is not None and self._epoch >= self.epochs:
            raise StopIteration
        first = self._step * self.global_batch + self.rank * self.batch_size
        batch = self._read(self._order[first : first + self.batch_size])
        self._step += 1
        return batch

    def _read(self, windows: Ids) -> Batch:
        """Return the batch of these windows, (B,)."""
        shards = np.searchsorted(self._ends, windows, side="right")
        places = windows - self._begins[shards]
        shape = (self.batch_size, self.context_length)
        rows = np.empty((shape[0], shape[1] + 1), self._windows[0].dtype)
        for row, (shard, place) in enumerate(zip(shards.tolist(), places.tolist(), strict=True)):
            rows[row] = self._windows[shard][place]
        inputs, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
        if self.separate_documents:
            positions, document_ids = map(
                torch.from_numpy, document_layout(inputs, self.shards.end_of_text)
            )
        else:
            positions = torch.arange(self.context_length).repeat(self.batch_size, 1)
            document_ids = torch.zeros(shape, dtype=torch.int64)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets), positions, document_ids)

    # The place in the data

    def _settings(self) -> dict[str, Any]:
        """Return what has to be equal for a saved place to mean the same batches."""
        return {
            "seed": self.seed,
            "shuffle": self.shuffle,
            "context_length": self.context_length,
            "global_batch": self.global_batch,
            "separate_documents": self.separate_documents,
            "shards": self.shards.digest,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the next batch, and what it depends on: values that JSON can hold.

        All ranks have the same, so one copy is enough.
        """
        return {"version": 1, "epoch": self._epoch, "step": self._step, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the loader that gave this state stood.

        The number of ranks may be another one, if batch_size times world_size is the same.

        Raises:
            ValueError: state is not a loader's, or was taken with other tokens or settings, named
                in the message; nothing is changed then.
        """
        place = {"version", "epoch", "step"}
        if set(state) != place | set(self._settings()) or state["version"] != 1:
            raise ValueError(f"state is not what Loader.state_dict returns: {dict(state)!r:.200}")
        for name, wanted in self._settings().items():
            if state[name] != wanted:
                raise ValueError(f"cannot continue: {self._difference(name, state[name], wanted)}")
        epoch, step = state["epoch"], state["step"]
        if type(epoch) is not int or type(step) is not int:
            raise ValueError(f"state holds epoch {epoch!r} and step {step!r}, which must be ints")
        if epoch < 0 or not 0 <= step <= self.steps_per_epoch:
            raise ValueError(
                f"state is at epoch {epoch}, step {step} of {self.steps_per_epoch}: it is damaged"
            )
        self._go_to(epoch, step)

    def _difference(self, name: str, found: object, wanted: object) -> str:
        if name == "shards":
            return f"the state belongs to other token shards than those in {self.shards.folder}"
        if name == "global_batch":
            return (
                f"a step of the state had {found} rows and one of this loader has {wanted} "
                f"(batch_size {self.batch_size} times world_size {self.world_size}): choose a "
                "batch_size that makes them equal"
            )
        return f"the state has {name} {found!r} and this loader {wanted!r}"
