# Exported from chapters/04_kv_cache.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Products with a matrix, the bulk of a model's time, by the faster library on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MIN_NUMBERS = 1 << 18
"""Numbers in a matrix from which oneDNN is faster (measured on an EPYC)."""

ONEDNN: Any = (
    torch.ops.mkldnn._linear_pointwise
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else None
)
"""Torch's private operation that calls oneDNN, if this build of torch has it."""


def onednn_serves(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether `linear` gives these to oneDNN; whatever is odd about them is torch's to say.

    They must be plain tensors of float32 on the CPU, the matrix large, and nobody be looking at
    torch's operations: autocast, torch.compile, torch.func, or a mode such as FlopCounterMode.
    """
    if torch.compiler.is_compiling() or ONEDNN is None or not torch.backends.mkldnn.enabled:
        return False
    operands = (x, weight) if bias is None else (x, weight, bias)
    return (
        weight.numel() >= MIN_NUMBERS
        and x.numel() > 0
        and weight.ndim == 2
        and x.shape[-1:] == weight.shape[1:]
        and (bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous()))
        and all(type(one) in (Tensor, nn.Parameter) for one in operands)
        and all(one.is_cpu and one.dtype == torch.float32 for one in operands)
        and all(one.layout == torch.strided for one in operands)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
    )


class OneDNNLinear(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN, for x of two dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product, (N, D)."""
        ctx.save_for_backward(x, weight)
        y: Tensor = ONEDNN(x, weight, bias, "none", [], "")
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, which can be differentiated again."""
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            linear(upstream, weight.T) if wants_x else None,
            upstream.T @ x if wants_weight else None,  # its operands suit MKL as they lie
            upstream.sum(0) if wants_bias else None,
        )


def linear(
    x: Float[Tensor, "*places C"],
    weight: Float[Tensor, "D C"],
    bias: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, "*places D"]:
    """Return x @ weight.T + bias, as `torch.nn.functional.linear`, its slow twin, does.

    The sums are made in another order, so that results differ by rounding.
    """
    if not onednn_serves(x, weight, bias):
        return torch.nn.functional.linear(x, weight, bias)
    apply: Callable[..., Tensor] = OneDNNLinear.apply
    return apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """torch's layer, computed by `linear`: the same parameters under the same names."""

    def forward(self, x: Float[Tensor, "*places C"]) -> Float[Tensor, "*places D"]:
        """Return the product at each place."""
        return linear(x, self.weight, self.bias)
