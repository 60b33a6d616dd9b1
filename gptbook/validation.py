# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""The loss on held-out tokens: every one of them, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gptbook.arguments import checked_integer
from gptbook.data import Batch, Ids, document_layout
from gptbook.losses import IGNORE
from gptbook.token_shards import TokenShards

SummedLoss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]
"""What gives (loss, {"nats": sum over the targets that count, "tokens": their number}) of a batch,
as the functions of `gptbook.losses` do."""


class HeldOutLoss(NamedTuple):
    """The loss of held-out tokens.

    Attributes:
        nats: the sum.
        tokens: how many.
    """

    nats: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    def bits_per_byte(self, n_bytes: int) -> float:
        """Return bits for each byte of the text that the tokens spell."""
        return self.nats / math.log(2) / n_bytes


def held_out_rows(
    shards: TokenShards, context_length: int, stride: int | None = None
) -> Iterator[tuple[Ids, Ids]]:
    """Yield inputs and targets, (context_length,) each, so that every target counts in one row.

    Rows begin `stride` tokens apart; targets that counted in the row before are IGNORE, and so is
    what a shard's last row has too much. With a stride below context_length each token but the
    first ones is predicted from at least context_length - stride others.

    Raises:
        ValueError: stride is not 1 to context_length.
    """
    stride = context_length if stride is None else checked_integer(stride, "stride", 1)
    if stride > context_length:
        raise ValueError(f"stride is {stride}, but must be 1 to {context_length}, context_length")
    for shard in shards.shards:
        tokens, counted = shard.tokens.astype(np.int64), 0
        for start in range(0, len(tokens) - 1, stride):
            piece = tokens[start : start + context_length + 1]
            inputs = np.full(context_length, shards.end_of_text, np.int64)
            targets = np.full(context_length, IGNORE, np.int64)
            inputs[: len(piece) - 1] = piece[:-1]
            targets[counted - start : len(piece) - 1] = piece[1 + counted - start :]
            counted = start + len(piece) - 1
            yield inputs, targets
            if counted == len(tokens) - 1:
                break


def held_out_batches(
    shards: TokenShards,
    batch_size: int,
    context_length: int,
    stride: int | None = None,
    *,
    separate_documents: bool = True,
) -> Iterator[Batch]:
    """Yield batches of `held_out_rows`, all of the same shape; the last is filled with IGNORE."""
    rows: list[tuple[Ids, Ids]] = []
    empty = np.full(context_length, shards.end_of_text), np.full(context_length, IGNORE)
    for row in held_out_rows(shards, context_length, stride):
        rows.append(row)
        if len(rows) == batch_size:
            yield as_batch(rows, shards.end_of_text, separate_documents)
            rows = []
    if rows:
        rows += [empty] * (batch_size - len(rows))
        yield as_batch(rows, shards.end_of_text, separate_documents)


def as_batch(rows: list[tuple[Ids, Ids]], end_of_text: int, separate_documents: bool) -> Batch:
    """Return rows as a batch, with positions and documents as the loader gives them."""
    inputs, targets = (np.stack(column) for column in zip(*rows, strict=True))
    if separate_documents:
        positions, document_ids = document_layout(inputs, end_of_text)
    else:
        positions = np.tile(np.arange(inputs.shape[1]), (len(inputs), 1))
        document_ids = np.zeros_like(inputs)
    return Batch(*(torch.from_numpy(a) for a in (inputs, targets, positions, document_ids)))


@torch.no_grad()
def held_out_loss(
    loss: SummedLoss, batches: Iterator[Batch], device: torch.device | str = "cpu"
) -> HeldOutLoss:
    """Return the summed loss of all batches; put the model in evaluation mode before."""
    nats, tokens = torch.zeros((), dtype=torch.float64, device=device), 0
    for batch in batches:
        _, metrics = loss(batch.to(device))
        nats += metrics["nats"]
        tokens += int((batch.targets != IGNORE).sum())
    return HeldOutLoss(float(nats), tokens)
