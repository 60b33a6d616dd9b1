"""What the exercises of chapter 6 share: headings, shortcuts, tensors, verdicts."""

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.compare import show
from gptbook.grading.tensors import PRELOAD, difference

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "slope": "Down the slope",
        "adam": "Momentum, and a step for each number",
        "decay": "What decay decays",
        "schedule": "Warm up, then cool down",
        "clip": "When gradients explode",
        "loop": "The loop",
        "accumulation": "Accumulation",
        "half": "Half the bits",
        "die": "Where a run can die",
        "exact": "Bit for bit",
    }
)
"""Headings of the chapter's three pages by what they are about."""

WITH_OPTIMIZERS = (*PRELOAD, "torch._dynamo", "torch.utils.serialization.config")
"""What the first optimizer and the first `torch.save` import, a second in each process."""

BOOK = (
    "gptbook.optim",
    "gptbook.schedules",
    "gptbook.losses",
    "gptbook.checkpoint",
    "gptbook.trainer",
    "transformers",
    "accelerate",
    "lightning",
    "pytorch_lightning",
)
"""Modules that have the answers."""


def number_problem(value: Any, what: str) -> str | None:
    """Whether a value is a number, of Python or in a tensor of one, as a predicate."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"gives {show(value)}, expected {what}"
    return None


def tensors_problem(
    expected: Sequence[Tensor | None], got: Any, what: str, after: str = ""
) -> str | None:
    """Where one of several tensors is not what it should be, as a predicate."""
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        if want is None and have is None:
            continue
        problem = difference(want, have)
        if problem:
            return problem.replace("gives", f"gives as {what} {index}{after}", 1)
    return None


def bits_changed(before: Tensor, after: Tensor) -> bool:
    """Whether two tensors differ in a bit; NaN is NaN."""
    return not torch.equal(before.nan_to_num(1234.5), after.nan_to_num(1234.5))


def batch_of(stream: random.Random, vocab_size: int, *shape: int) -> Tensor:
    """Ids from 0 to vocab_size - 1."""
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    return torch.randint(0, vocab_size, shape, generator=generator)
