"""What exercises about tensors share: what to load, draws, tolerance, verdicts as predicates."""

import random
from typing import Any

import torch
from torch import Tensor

from gptbook.grading import compare
from gptbook.grading.compare import Tolerance, rounding, show

PRELOAD = ("numpy", "torch")

WITH_AUTOGRAD = (*PRELOAD, "torch.fx.experimental.symbolic_shapes")
"""What the first call of `torch.autograd.grad` imports, a quarter of a second in each process."""

# A reader may compute in float32: sums of a few products of numbers near 1, a root or an
# exponential have errors of some 1e-6. Let each mistake be wrong by more than 1 in 1,000.
FLOAT32 = rounding("float32", 200)


def normal(
    stream: random.Random, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor of normally distributed numbers."""
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return drawn.to(dtype)


def same(a: Any, b: Any, tolerance: Tolerance = FLOAT32) -> bool:
    """Whether two observed values are the same but for rounding."""
    return compare.same(a, b, tolerance)


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
