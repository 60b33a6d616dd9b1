# Exported from chapters/03_embeddings.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""The layers that a transformer is built of."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from gptbook.arguments import checked_integer

EMBEDDING_STD = 0.02
"""Standard deviation of embeddings before training (Radford et al. 2018, GPT-1)."""


def check_rows(indexes: Tensor, name: str, n_rows: int, limit: str, remedy: str) -> None:
    """Raise unless all indexes are rows of a table that has n_rows of them, named by `limit`.

    The values are read on the CPU and outside torch.compile only. Elsewhere looking at them would
    make the program wait for the device, or break the compiled graph.

    Raises:
        TypeError: indexes do not hold ints.
        ValueError: one of them is below 0 or at least n_rows.
    """
    if indexes.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must hold int64 or int32, got {indexes.dtype}")
    if indexes.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = (indexes < 0) | (indexes >= n_rows)
    if bool(wrong.any()):
        place = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"{name} holds {int(indexes[place])} at {list(place)}, but must be 0 to {n_rows - 1} "
            f"({limit} is {n_rows}): {remedy}"
        )


class TokenEmbedding(nn.Module):
    """A table with one learned vector for each id, used to read tokens and to predict them.

    Attributes:
        weight: the table, (V, C), drawn from a normal distribution with EMBEDDING_STD.
    """

    def __init__(self, vocab_size: int, d_model: int) -> None:
        """Make a table of vocab_size vectors of d_model numbers."""
        super().__init__()
        self.vocab_size = checked_integer(vocab_size, "vocab_size", 1)
        self.d_model = checked_integer(d_model, "d_model", 1)
        self.weight = nn.Parameter(torch.empty(self.vocab_size, self.d_model))
        nn.init.normal_(self.weight, std=EMBEDDING_STD)

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"vocab_size={self.vocab_size}, d_model={self.d_model}"

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return the vector of each id.

        Raises:
            TypeError: ids do not hold int64 or int32.
            ValueError: an id is outside the vocabulary (on the CPU, outside torch.compile).
        """
        remedy = "encode the text with the tokenizer that the model was made for"
        check_rows(ids, "ids", self.vocab_size, "vocab_size", remedy)
        return embedding(ids, self.weight)

    def logits(self, hidden: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """Return the dot product of each hidden vector with each id's vector (tied weights).

        Source: Press and Wolf (2017).
        """
        return linear(hidden, self.weight)


class LearnedPositions(nn.Module):
    """A table with one learned vector for each position; there is none past context_length.

    Attributes:
        weight: the table, (context_length, C), drawn from a normal distribution with EMBEDDING_STD.
    """

    def __init__(self, context_length: int, d_model: int) -> None:
        """Make a table of context_length vectors of d_model numbers."""
        super().__init__()
        self.context_length = checked_integer(context_length, "context_length", 1)
        self.d_model = checked_integer(d_model, "d_model", 1)
        self.weight = nn.Parameter(torch.empty(self.context_length, self.d_model))
        nn.init.normal_(self.weight, std=EMBEDDING_STD)

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"context_length={self.context_length}, d_model={self.d_model}"

    def forward(self, positions: Int[Tensor, "*B T"]) -> Float[Tensor, "*B T C"]:
        """Return the vector of each position, to be added to those of the tokens.

        Raises:
            TypeError: positions do not hold int64 or int32.
            ValueError: a position is not in the table (on the CPU, outside torch.compile).
        """
        remedy = "shorten the text, or train a model with a larger context_length"
        check_rows(positions, "positions", self.context_length, "context_length", remedy)
        return embedding(positions, self.weight)
