"""Parameters, FLOPs and bytes from a configuration equal what torch counts in the model."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from gptbook.config import PRESETS, GPTConfig, gpt2, llama3_8b, preset
from gptbook.flops import (
    activation_bytes,
    approximate_parameters,
    count_parameters,
    forward_flops,
    kv_cache_bytes,
    mean_visible_keys,
    training_flops,
)
from gptbook.kv_cache import KVCache
from gptbook.model import GPT

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "context_length": 48,
    "n_layer": 3,
    "n_head": 4,
    "d_model": 64,
}
LLAMA: dict[str, Any] = {"norm": "rmsnorm", "mlp": "swiglu", "positions": "rope", "bias": False}
KINDS: list[dict[str, Any]] = [
    {},
    {"mlp": "relu", "positions": "none"},
    {"mlp": "gelu", "norm_position": "post", "positions": "sinusoidal"},
    {"tied": False, "n_kv_head": 2, "d_head": 24},
    {"bias": False, "attention_bias": True, "output_bias": False},
    LLAMA,
    LLAMA | {"n_kv_head": 1, "qk_norm": True, "d_ff": 100},
    LLAMA | {"tied": False, "sliding_window": 7, "norm_position": "post"},
]


@pytest.mark.parametrize("change", KINDS)
def test_parameters_equal_the_models(change: dict[str, Any]) -> None:
    config = GPTConfig(**SMALL, **change)
    model, counted = GPT(config), count_parameters(config)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert counted.total == sum(sizes.values())
    parts = {"attention.": counted.attention, "mlp.": counted.mlp, "norm": counted.norms}
    for name, wanted in parts.items():
        of_part = {key for key in sizes if name in key}
        if name == "attention.":
            of_part = {key for key in of_part if "_norm" not in key}
        assert sum(sizes[key] for key in of_part) == wanted, name
    tables = counted.token_embedding + counted.position_embedding + counted.unembedding
    assert counted.non_embedding == counted.total - tables


@pytest.mark.parametrize("name", PRESETS)
def test_presets_on_the_meta_device(name: str) -> None:
    """GPT-3 is built without memory; a tied matrix is one parameter."""
    with torch.device("meta"):
        model = GPT(preset(name))
    assert sum(p.numel() for p in model.parameters()) == count_parameters(preset(name)).total
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt3-175b", 174_604_259_328),
        ("llama3-8b", 8_030_261_248),
        ("qwen3-0.6b", 596_049_920),
    ],
)
def test_published_sizes(name: str, wanted: int) -> None:
    """Those of the checkpoints on Hugging Face; GPT-3's is its formula."""
    assert count_parameters(preset(name)).total == wanted


def test_gpt2_by_hand() -> None:
    c = 768
    block = 12 * c * c + 13 * c
    assert count_parameters(gpt2()).total == 50257 * c + 1024 * c + 12 * block + 2 * c
    assert approximate_parameters(gpt2()) == 12 * 12 * c * c


def total_flops(config: GPTConfig, ids: Tensor) -> tuple[int, int]:
    """FLOPs of forward, and of forward and backward, as torch counts them."""
    with FlopCounterMode(display=False) as forward:
        out = GPT(config)(ids)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    count = forward.get_total_flops()
    return count, count + backward.get_total_flops()


@pytest.mark.parametrize("change", KINDS)
def test_flops_equal_torchs_count(change: dict[str, Any]) -> None:
    """The reference computes every score, also those that the mask then hides."""
    config = GPTConfig(**SMALL, **change, backend="reference")
    forward, both = total_flops(config, torch.randint(300, (2, 48)))
    assert forward == 96 * forward_flops(config, 48, dense=True).total
    assert both == 96 * training_flops(config, 48, dense=True)


def test_visible_keys_by_counting() -> None:
    for n_tokens in (1, 2, 7, 30):
        for window in (None, 1, 3, 30, 99):
            wanted = sum(min(t + 1, window or t + 1) for t in range(n_tokens)) / n_tokens
            assert mean_visible_keys(n_tokens, window) == pytest.approx(wanted)


def test_masked_attention_costs_half() -> None:
    config = gpt2()
    half, full = forward_flops(config), forward_flops(config, dense=True)
    assert half.scores / full.scores == pytest.approx(0.5, rel=1e-2)
    assert half.total - half.scores == full.total - full.scores
    weights = count_parameters(config)
    matrices = weights.non_embedding + weights.token_embedding
    assert half.total - half.scores == pytest.approx(2 * matrices, rel=2e-3)  # biases, norms


def kept_bytes(model: GPT, ids: Tensor) -> int:
    """Bytes of what forward and loss keep for backward, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # holds the tensors, so that no address comes twice

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        loss = cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    assert loss.requires_grad
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize("change", [change for change in KINDS if "sliding_window" not in change])
def test_activation_bytes(change: dict[str, Any]) -> None:
    """Within 2 %: ids, targets, and the rotation's tables are not counted."""
    config, ids = GPTConfig(**SMALL, **change), torch.randint(300, (4, 48))
    expected = activation_bytes(config, 48, bytes_per_number=4).total
    assert kept_bytes(GPT(config), ids) / ids.numel() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("change", [{}, LLAMA | {"n_kv_head": 2}])
def test_activation_bytes_with_weights(change: dict[str, Any]) -> None:
    """Within 15 %: with the reference some copies are made, and some are not."""
    config = GPTConfig(**SMALL, **change, backend="reference")
    expected = activation_bytes(config, 48, bytes_per_number=4, dense=True).total
    measured = kept_bytes(GPT(config), torch.randint(300, (4, 48))) / (4 * 48)
    assert measured == pytest.approx(expected, rel=0.15)


def test_cache_bytes_equal_the_caches() -> None:
    config = llama3_8b()
    with torch.device("meta"):
        cache = KVCache(32, 2, 8, 128, 100, dtype=torch.bfloat16, device="meta")
    assert kv_cache_bytes(config, 100, batch_size=2) == cache.n_bytes
    assert kv_cache_bytes(config, 1) == 131_072
    window = replace(config, sliding_window=10)
    assert kv_cache_bytes(window, 100) == kv_cache_bytes(config, 10)


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="n_tokens must be at least 1"):
        forward_flops(gpt2(), 0)
    with pytest.raises(TypeError, match="n_tokens must be an int"):
        activation_bytes(gpt2(), 1.5)  # type: ignore[arg-type]
