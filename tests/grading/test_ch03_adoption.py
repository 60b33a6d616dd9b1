"""A reader's frequencies of exercise 3.4 can stand for the book's."""

from typing import Any

import pytest
import torch

from gptbook.config import RopeConfig, RopeScaling
from gptbook.grading.ch03_embeddings.stretching_bank import PART
from gptbook.positions import rope_frequencies

SCALINGS = {
    "none": None,
    "linear": RopeScaling("linear", 4.0),
    "ntk": RopeScaling("ntk", 4.0),
    "yarn": RopeScaling("yarn", 8.0, 2048),
    "yarn with its own settings": RopeScaling(
        "yarn", 8.0, 2048, beta_fast=16.0, beta_slow=2.0, attention_factor=1.5
    ),
    "llama3": RopeScaling("llama3", 8.0, 8192),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_the_adapter_gives_what_the_book_gives(name: str) -> None:
    assert PART.replaces == f"{rope_frequencies.__module__}:{rope_frequencies.__name__}"
    namespace: dict[str, Any] = {}
    exec(PART.reference, namespace)
    exec(PART.adapter, namespace)
    config = RopeConfig(50_000.0, SCALINGS[name])
    expected, expected_factor = rope_frequencies(64, config)
    got, factor = namespace["replacement"](64, config)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    # Computed in float64 here and in float32 there: some 1e-6 of a frequency, whatever its size.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)
    assert factor == pytest.approx(expected_factor)
