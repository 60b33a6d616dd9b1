# Exported from chapters/03_embeddings.md, chapters/05_blocks.md. Edit the cells there and run `make
# export`, or edit this file and run `python -m book.tools.export --back`.
"""The layers that a transformer is built of."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, layer_norm, linear, relu, rms_norm, silu

from gptbook.arguments import checked_integer
from gptbook.linear import Linear

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


class LayerNorm(nn.Module):
    """Bring each vector to mean 0 and variance 1, then stretch and shift it by learned numbers.

    (x - mean) / sqrt(variance + eps) * weight + bias, over the last axis. The variance is that of
    the C numbers themselves: divided by C, not by C - 1.

    Source: Ba, Kiros and Hinton (2016).

    Attributes:
        weight: (C,), ones at first.
        bias: (C,), zeros at first, or None.
    """

    def __init__(self, width: int, eps: float = 1e-5, bias: bool = True) -> None:
        """Normalize vectors of width numbers."""
        super().__init__()
        self.width = checked_integer(width, "width", 1)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.width))
        self.bias = nn.Parameter(torch.zeros(self.width)) if bias else None

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return f"{self.width}, eps={self.eps}, bias={self.bias is not None}"

    def forward(self, x: Float[Tensor, "*places C"]) -> Float[Tensor, "*places C"]:
        """Return each vector normalized; statistics of half types are computed in float32."""
        return layer_norm(x, (self.width,), self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Divide each vector by the root of its mean square, then stretch it by learned numbers.

    x / sqrt(mean(x^2) + eps) * weight, over the last axis, eps inside the root. Half types are
    normalized in float32 and rounded before they are stretched, as Llama does. The result has x's
    dtype, whatever that of the weight is.

    Source: Zhang and Sennrich (2019).

    Attributes:
        weight: (C,), ones at first.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        """Normalize vectors of width numbers."""
        super().__init__()
        self.width = checked_integer(width, "width", 1)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.width))

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return f"{self.width}, eps={self.eps}"

    def forward(self, x: Float[Tensor, "*places C"]) -> Float[Tensor, "*places C"]:
        """Return each vector normalized."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normalized = rms_norm(wide, (self.width,), eps=self.eps).to(x.dtype)
        return (self.weight * normalized).to(x.dtype)


def gelu_tanh(x: Float[Tensor, "*places"]) -> Float[Tensor, "*places"]:
    """Return GPT-2's GELU, a close approximation: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    Source: Hendrycks and Gimpel (2016).
    """
    return gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}
"""The functions that an MLP may have between its matrices, by name."""


class MLP(nn.Module):
    """Two matrices with an activation between them, applied to each place alone.

    Source: Vaswani et al. (2017), section 3.3.

    Attributes:
        up: linear, C to F.
        down: linear, F to C.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "gelu_tanh", bias: bool = True
    ) -> None:
        """Make the matrices; `activation` is one of ACTIVATIONS.

        Raises:
            ValueError: there is no such activation.
        """
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)} (for "
                "'swiglu' there is the class SwiGLU)"
            )
        self.activation = activation
        self.up = Linear(d_model, d_ff, bias=bias)
        self.down = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*places C"]) -> Float[Tensor, "*places C"]:
        """Return what the layer adds at each place."""
        added: Tensor = self.down(ACTIVATIONS[self.activation](self.up(x)))
        return added


class SwiGLU(nn.Module):
    """An MLP whose hidden numbers are multiplied by gates: down(silu(gate(x)) * up(x)).

    Source: Shazeer (2020), without biases as in Llama unless asked for.

    Attributes:
        gate_up: linear, C to 2 F: the F rows of the gate, then the F rows of up.
        down: linear, F to C.
    """

    def __init__(self, d_model: int, d_ff: int, bias: bool = False) -> None:
        """Make the matrices, the gate's and up's in one, so that x is read once."""
        super().__init__()
        self.gate_up = Linear(d_model, 2 * d_ff, bias=bias)
        self.down = Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*places C"]) -> Float[Tensor, "*places C"]:
        """Return what the layer adds at each place."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        added: Tensor = self.down(silu(gate) * up)
        return added
