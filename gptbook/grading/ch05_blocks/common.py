"""What the exercises of chapter 5 share: headings, shortcuts, tolerances, tensors, verdicts."""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gptbook.grading import compare
from gptbook.grading.compare import Tolerance, rounding, show

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "stream": "The residual stream",
        "norm": "Normalization",
        "mlp": "What the MLP computes",
        "order": "Before or after",
        "count": "Counting parameters",
        "tied": "One table for both ends, again",
        "names": "Names, both ways",
        "transposed": "Weights stored the other way round",
        "proof": "Is it the same model?",
    }
)
"""Headings of the chapter's three pages by what they are about."""

PRELOAD = ("numpy", "torch")

WITH_AUTOGRAD = (*PRELOAD, "torch.fx.experimental.symbolic_shapes")
"""What the first call of `torch.autograd.grad` imports, a quarter of a second in each process."""

BOOK = (
    "gptbook.layers",
    "gptbook.model",
    "gptbook.flops",
    "gptbook.interop",
    "transformers",
    "torchtune",
    "x_transformers",
    "liger_kernel",
)
"""Modules that have the answers."""

# Sums of a few products of numbers near 1, and a root: errors of some 1e-6. Each mistake is wrong
# by more than 1 in 1,000 of the largest number.
FLOAT32 = rounding("float32", 200)


def normal(stream: random.Random, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers."""
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def weights(stream: random.Random, *shape: int) -> Tensor:
    """Numbers from 0.5 to 2, each with a sign of its own: weights that cannot be overlooked."""
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    sizes = 0.5 + 1.5 * torch.rand(shape, generator=generator)
    return sizes * torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)


def vectors(stream: random.Random, *shape: int) -> Tensor:
    """Vectors whose mean is 0.5 to 1.5 and whose variance is 0.5 to 2, so that both matter."""
    drawn = normal(stream, *shape, dtype=torch.float64)
    drawn = drawn - drawn.mean(-1, keepdim=True)
    drawn = drawn / drawn.std(-1, correction=0, keepdim=True)
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    variance, mean = (0.5 + torch.rand(2, *shape[:-1], 1, generator=generator)).unbind()
    return (drawn * (1.2 * variance).sqrt() + mean).float()


def same(a: Any, b: Any) -> bool:
    """Whether two observed values are the same but for rounding."""
    return compare.same(a, b, FLOAT32)


def difference(expected: Any, value: Any, tolerance: Tolerance = FLOAT32) -> str | None:
    """A predicate that says where a value is wrong; None where it is right."""
    found = compare.difference(expected, value, tolerance)
    if found is None:
        return None
    whole_value = f"gives {show(value)}, expected {show(expected)}"
    return whole_value if found.startswith("is ") else f"gives a wrong value: {found}"


def form_problem(value: Any, like: Tensor, name: str = "") -> str | None:
    """Whether a value is a tensor of the shape and dtype of another, as a predicate."""
    what = f" as {name}" if name else ""
    if not isinstance(value, Tensor):
        return f"gives {show(value)}{what}, expected a tensor"
    if value.shape != like.shape:
        return f"gives shape {tuple(value.shape)}{what}, expected {tuple(like.shape)}"
    if value.dtype != like.dtype:
        return f"gives {value.dtype}{what}, expected {like.dtype}"
    return None
