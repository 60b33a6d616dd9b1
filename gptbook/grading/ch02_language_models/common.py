"""What the exercises of chapter 2 share: headings, shortcuts, tolerances, verdicts."""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from gptbook.grading.compare import rounding, show
from gptbook.grading.exercise import Args
from gptbook.grading.shortcuts import Forbidden

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "likelihood": "One number for a model",
        "bits": "One number for a model",
        "perplexity": "One number for a model",
        "tokenizers": "The same model, three perplexities",
        "floor": "The floor",
        "counting": "Counting",
        "boundaries": "How sparse counts are",
        "smoothing": "Smoothing",
        "packing": "Rows with borders",
        "targets": "The loss that is too good",
        "epochs": "Order, ranks, and starting again",
    }
)
"""Headings by what they are about; the last three are of the page on training data."""

READY_MADE = Forbidden(
    modules=(
        "gptbook.ngram",
        "gptbook.ngram_counts",
        "gptbook.evals",
        "gptbook.data",
        "gptbook.token_shards",
        "gptbook.shard_writing",
        "gptbook.corpora",
        "gptbook.tinyworld",
        "nltk",
        "kenlm",
        "evaluate",
        "transformers",
    )
)

# Also a reader who computes in float32 is right; each mistake is wrong by more than 1 in 1,000.
CLOSE = rounding("float32", 200)


def is_number(_: Args, value: object) -> str | None:
    """The form of an answer that is one number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return f"gives {show(value)}, expected a float"
    return None


def is_close(expected: float, got: Any) -> bool:
    """Whether a number is the expected one but for rounding."""
    if not isinstance(got, int | float | np.number):
        return False
    return bool(expected == got or abs(expected - got) <= CLOSE.allowed(expected))


def all_alike(ways: tuple[str, str], value: list[Any]) -> str | None:
    """For the probe `call_each`: the first call's answer is every call's answer."""
    for other in value[1:]:
        if not is_close(value[0], other):
            return f"gives {show(value[0])} {ways[0]} and {show(other)} {ways[1]}"
    return None


def cut(stream: random.Random, data: bytes, longest: int) -> list[bytes]:
    """Bytes as tokens of random length, of which at least one has two bytes or more."""
    tokens: list[bytes] = []
    while data:
        size = stream.randint(1, longest) if tokens else longest
        tokens.append(data[:size])
        data = data[size:]
    return tokens
