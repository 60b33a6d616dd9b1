"""What the exercises of chapter 7 share: headings, shortcuts, logits."""

import random
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "choice": "From logits to a choice",
        "temperature": "Temperature",
        "tail": "Cutting the tail",
        "order": "One distribution, five filters",
        "decode": "Prefill and decode",
        "stop": "When to stop",
        "stream": "Text as it comes",
        "guess": "Guess ahead, check at once",
        "proof": "Why nothing changes",
    }
)
"""Headings of the chapter's three pages by what they are about."""

BOOK = (
    "gptbook.sampling",
    "gptbook.readers",
    "gptbook.text_stream",
    "gptbook.generation",
    "gptbook.beam_search",
    "gptbook.speculative",
    "gptbook.kv_cache",
    "transformers",
    "vllm",
)
"""Modules that have the answers."""


def shuffled(stream: random.Random, row: Tensor) -> Tensor:
    """A row of numbers in another order."""
    return row[stream.sample(range(len(row)), len(row))]


def distinct(stream: random.Random, size: int, apart: float, low: float = -3.0) -> Tensor:
    """Logits in a random order that are at least so far apart, from near a lowest one upwards."""
    steps = torch.tensor([apart * (1 + stream.random()) for _ in range(size)])
    return shuffled(stream, low + steps.cumsum(0))
