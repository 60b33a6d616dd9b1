# Exported from chapters/05_pretrained.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Cross-entropy over a large vocabulary: the plain one, and one that never holds all logits.

Both return the loss, the mean over the targets that count, and for the log the sum and the count
that it is made of. Those may be added over micro-batches and ranks, where means may not.

Shapes: N tokens (in any number of dimensions), C width of the model, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptbook.arguments import checked_integer
from gptbook.linear import linear

IGNORE = -100
"""The target of a token that does not count."""


def cross_entropy(
    logits: Float[Tensor, "*N V"],
    targets: Int[Tensor, "*N"],
    *,
    ignore_index: int = IGNORE,
    denominator: float | int | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the mean of -log p(target) in nats, and {"nats": their sum, "tokens": their number}.

    Args:
        logits: of any float type; half types are computed in float32.
        targets: ids.
        ignore_index: targets with this value do not count.
        denominator: what the sum is divided by; None: the number of targets that count. For a batch
            that is cut into micro-batches give the whole one's number to each, and the gradients
            add up to those of the whole. Where no target counts, the loss is 0, and so are the
            gradients.

    Raises:
        ValueError: shapes do not go together, or a target is no id (on the CPU).
    """
    flat, vocab_size = targets.reshape(-1), logits.shape[-1]
    check_targets(flat, vocab_size, ignore_index)
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nats = torch.nn.functional.cross_entropy(
        exact.reshape(-1, vocab_size), flat.long(), ignore_index=ignore_index, reduction="sum"
    )
    tokens = (flat != ignore_index).sum()
    loss = nats / (tokens.clamp(min=1) if denominator is None else denominator)
    return loss, {"nats": nats.detach(), "tokens": tokens}


def check_targets(targets: Tensor, vocab_size: int, ignore_index: int) -> None:
    """Raise ValueError if a target is neither an id nor ignore_index; on the CPU only.

    Elsewhere the check would make the program wait for the device, which has one of its own.
    """
    if not targets.is_cpu or torch.compiler.is_compiling():
        return
    wrong = ((targets < 0) | (targets >= vocab_size)) & (targets != ignore_index)
    if wrong.any():
        raise ValueError(
            f"targets holds {targets[wrong][0].item()}, but must hold ids from 0 to "
            f"{vocab_size - 1}, or {ignore_index} (ignore_index) for tokens that do not count"
        )


CHUNK_BYTES = {"cpu": 1 << 27}
"""Bytes of logits at a time by kind of device: on a CPU, a few hundred rows of GPT-2's."""

CHUNK_BYTES_ELSEWHERE = 1 << 28
"""The same on other devices: enough rows to keep a GPU busy."""

BLOCK = 4096
"""Rows of the logits' matrix that are multiplied at a time where results are converted."""


class Chunks(NamedTuple):
    """How the work is cut and in which types it is done.

    Attributes:
        tokens: tokens at a time.
        scale: what the sum of nats is multiplied by.
        dtype: the type of the matrix products' factors.
        total: the type of sums and of softmax, at least float32.
    """

    tokens: int
    scale: float
    dtype: torch.dtype
    total: torch.dtype


def logits_of(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits of hidden, (n, C), as (n, V) in dtype.

    Where that is not the type of the product, by blocks of the matrix: else the logits would be
    held in both types.
    """
    if hidden.dtype == dtype:
        return linear(hidden, weight)
    logits = hidden.new_empty((len(hidden), len(weight)), dtype=dtype)
    for columns, rows in zip(
        torch.split(logits, BLOCK, 1), torch.split(weight, BLOCK), strict=True
    ):
        columns.copy_(linear(hidden, rows))
    return logits


def nats_and_gradient_(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of nats of targets, (n, 1); logits become their gradients, p less 1 there."""
    largest = logits.amax(-1, keepdim=True)
    wanted = logits.gather(-1, targets)
    torch.softmax(logits, -1, out=logits)
    log_sums = largest - logits.amax(-1, keepdim=True).log()
    logits.scatter_add_(-1, targets, torch.full_like(wanted, -1.0))
    return (log_sums - wanted).sum()


def add_product(total: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Add scale * left @ right to total, which may be of a wider type; then some rows at a time."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
        return
    for part, rows in zip(torch.split(total, 2 * BLOCK), torch.split(left, 2 * BLOCK), strict=True):
        part.add_(rows @ right, alpha=scale)


def loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunks: Chunks, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the loss and its gradients for hidden and for weight, None where not wanted."""
    x, matrix = hidden.to(chunks.dtype), weight.to(chunks.dtype)
    loss = x.new_zeros((), dtype=chunks.total)
    gradients = [
        torch.zeros_like(tensor, dtype=chunks.total) if want else None
        for tensor, want in zip((x, matrix), wanted, strict=True)
    ]
    n_chunks = max(-(-len(x) // chunks.tokens), 1)
    n_rows = max(-(-len(x) // n_chunks), 1)  # chunks of equal size, without a small one at the end
    for start in range(0, len(x), n_rows):
        rows = slice(start, start + n_rows)
        logits = logits_of(x[rows], matrix, chunks.total)
        loss += nats_and_gradient_(logits, targets[rows, None])
        slope = logits.to(chunks.dtype)
        if gradients[0] is not None:
            gradients[0][rows].add_(linear(slope, matrix.T), alpha=chunks.scale)
        if gradients[1] is not None:
            add_product(gradients[1], slope.T, x[rows], chunks.scale)
        del logits, slope  # before the next ones take memory
    return loss * chunks.scale, gradients


class LinearCrossEntropy(torch.autograd.Function):
    """The loss of linear logits, with its gradients computed beside it and kept for backward.

    Backward hands them over, so that they are not held twice. If it is called again (retain_graph),
    they are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunks: Chunks, grad: bool
    ) -> Tensor:
        """Return the loss; grad says whether a backward pass may follow."""
        ctx.save_for_backward(hidden, weight, targets)
        ctx.chunks, ctx.wanted = chunks, [grad and needs for needs in ctx.needs_input_grad[:2]]
        loss, ctx.gradients = loss_and_gradients(hidden, weight, targets, chunks, ctx.wanted)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, times the one that comes from above."""
        inputs, gradients = ctx.saved_tensors, ctx.gradients
        if gradients is None:
            hidden, weight, targets = inputs
            _, gradients = loss_and_gradients(hidden, weight, targets, ctx.chunks, ctx.wanted)
        ctx.gradients = None
        if not (upstream.is_cpu and upstream.item() == 1):  # spares a pass over the matrix
            gradients = [None if g is None else g.mul_(upstream) for g in gradients]
        cast = [
            None if g is None else g.to(like.dtype)
            for g, like in zip(gradients, inputs[:2], strict=True)
        ]
        return *cast, None, None, None


def linear_cross_entropy(
    hidden: Float[Tensor, "*N C"],
    weight: Float[Tensor, "V C"],
    targets: Int[Tensor, "*N"],
    *,
    ignore_index: int = IGNORE,
    denominator: float | int | None = None,
    chunk_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return `cross_entropy(hidden @ weight.T, targets)` without ever holding all logits.

    At most chunk_tokens * V logits exist at a time. Gradients are computed along with the loss, if
    they will be needed, and held until backward: they are as large as hidden and weight, and in
    float32 if these are narrower. Tokens that do not count cost nothing. Under autocast the matrix
    products are done in its type. The call reads how many targets count, for which it waits for a
    GPU, and torch.compile breaks its graph: compile the model, and call this on what it returns.

    Args:
        hidden: what the logits are computed from.
        weight: the matrix, a row for each id.
        targets: ids.
        ignore_index: targets with this value do not count.
        denominator: what the sum is divided by; see `cross_entropy`.
        chunk_tokens: tokens at a time; None: as many as make CHUNK_BYTES of logits.

    Raises:
        TypeError: chunk_tokens is no int.
        ValueError: shapes or types do not go together, or a target is no id (on the CPU).
    """
    check_operands(hidden, weight, targets)
    kind, vocab_size = hidden.device.type, len(weight)
    labels, rows = targets.reshape(-1).long(), hidden.reshape(-1, hidden.shape[-1])
    check_targets(labels, vocab_size, ignore_index)
    counts = labels != ignore_index
    tokens = counts.sum()
    if (n_tokens := int(tokens)) < len(labels):
        rows, labels = rows[counts], labels[counts]
    divisor = float(max(n_tokens, 1) if denominator is None else denominator)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    if chunk_tokens is None:
        chunk_tokens = max(CHUNK_BYTES.get(kind, CHUNK_BYTES_ELSEWHERE) // (4 * vocab_size), 16)
    chunks = Chunks(
        tokens=checked_integer(chunk_tokens, "chunk_tokens", 1),
        scale=1 / divisor,
        dtype=dtype,
        total=torch.promote_types(dtype, torch.float32),
    )
    with torch.autocast(kind, enabled=False):
        apply: Callable[..., Tensor] = LinearCrossEntropy.apply
        loss = apply(rows, weight, labels, chunks, torch.is_grad_enabled())
    return loss, {"nats": loss.detach() * divisor, "tokens": tokens}


def check_operands(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    """Raise ValueError unless shapes and types go together."""
    shapes = f"hidden {list(hidden.shape)}, weight {list(weight.shape)}"
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[-1:]:
        raise ValueError(f"hidden must be (..., C) and weight (V, C), got {shapes}")
    if hidden.shape[:-1] != targets.shape:
        raise ValueError(f"targets must be {list(hidden.shape[:-1])}, got {list(targets.shape)}")
    is_cast = torch.is_autocast_enabled(hidden.device.type)
    if hidden.dtype != weight.dtype and not is_cast:
        raise ValueError(
            f"hidden is {hidden.dtype} and weight {weight.dtype}: convert one, or use autocast"
        )
