"""What the exercises of chapter 4 share: headings, shortcuts, tensors, verdicts."""

import random
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from gptbook.grading.compare import Tolerance
from gptbook.grading.exercise import Verify
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import FLOAT32, form_problem, normal

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

# Weights from exp(score - logsumexp), which is right too, inherit the rounding of such a score.
COARSE = Tolerance(2e-3, "a score near 5,000 has an error of 1 in 4,000 in float32, times 8")


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


def like_argument(index: int) -> Verify:
    """A verdict that the answer has the shape and dtype of an argument."""
    return lambda args, value: form_problem(value, args[index])


def moved(before: Tensor, after: Tensor) -> Tensor:
    """Which numbers differ by more than rounding, or are NaN."""
    allowed = FLOAT32.allowed(before.detach().numpy())
    return ~((before.double() - after.double()).abs() <= allowed)
