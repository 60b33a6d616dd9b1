"""What the exercises of chapter 5 share: headings, shortcuts, tensors."""

import random
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from gptbook.grading.tensors import normal

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
