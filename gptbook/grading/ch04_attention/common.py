"""What the exercises of chapter 4 share: headings, shortcuts, tolerances, tensors, verdicts."""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gptbook.grading import compare
from gptbook.grading.compare import Tolerance, rounding, show
from gptbook.grading.exercise import Verify
from gptbook.grading.shortcuts import Forbidden

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "dictionary": "A dictionary that blurs",
        "scale": "Why the scores are scaled",
        "mask": "Who may see whom",
        "blind": "A row with nothing to see",
        "heads": "Many heads",
        "groups": "Fewer keys than queries",
        "window": "A window, and documents side by side",
        "cost": "What it costs",
        "online": "Softmax in one pass",
        "tiles": "Tiles",
        "backward": "Backward without the matrix",
        "cache": "Read once, kept",
        "layer": "The whole layer",
    }
)
"""Headings of the chapter's three pages by what they are about."""

PRELOAD = ("numpy", "torch")

BOOK = (
    "gptbook.attention",
    "gptbook.flash_attention",
    "gptbook.kernels",
    "gptbook.kernels.flash_attention",
    "gptbook.kv_cache",
    "gptbook.model",
    "flash_attn",
    "transformers",
    "xformers",
)
LAYER = (
    "torch.nn.MultiheadAttention",
    "torch.nn.functional.multi_head_attention_forward",
    "torch.nn.TransformerEncoderLayer",
)
SDPA = (".scaled_dot_product_attention", "torch.nn.functional.scaled_dot_product_attention")

BY_HAND = Forbidden(BOOK, (*LAYER, *SDPA))
"""Where attention itself is the exercise."""

FROM_PARTS = Forbidden(BOOK, LAYER)
"""Where `scaled_dot_product_attention` is a part that one may use."""

# Sums of a few products of numbers near 1, an exponential and a division: errors of some 1e-6. Each
# mistake is wrong by more than 1 in 1,000 of the largest number.
FLOAT32 = rounding("float32", 200)

# Weights from exp(score - logsumexp), which is right too, inherit the rounding of such a score.
COARSE = Tolerance(2e-3, "a score near 5,000 has an error of 1 in 4,000 in float32, times 8")


def normal(stream: random.Random, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers in float32."""
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    return torch.randn(shape, generator=generator) * scale


def whole(stream: random.Random, low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers from low to high as float32, whose products and sums are exact."""
    generator = torch.Generator().manual_seed(stream.getrandbits(62))
    return torch.randint(low, high + 1, shape, generator=generator).float()


def some(stream: random.Random, *shape: int) -> Tensor:
    """A mask in which each row has True somewhere, and, where it can, False somewhere."""
    mask = normal(stream, *shape) > 0
    seen, hidden = stream.sample(range(shape[-1]), 2) if shape[-1] > 1 else (0, None)
    mask[..., seen] = True
    if hidden is not None:
        mask[..., hidden] = False
    return mask


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
        return f"gives {value.dtype}{what}, expected {like.dtype}, the dtype of the input"
    return None


def like_argument(index: int) -> Verify:
    """A verdict that the answer has the shape and dtype of an argument."""
    return lambda args, value: form_problem(value, args[index])


def moved(before: Tensor, after: Tensor) -> Tensor:
    """Which numbers differ by more than rounding, or are NaN."""
    allowed = FLOAT32.allowed(before.detach().numpy())
    return ~((before.double() - after.double()).abs() <= allowed)
