"""GPTConfig: what it derives, what it refuses, and dicts both ways; the presets."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from gptbook.config import (
    PRESETS,
    GPTConfig,
    RopeConfig,
    RopeScaling,
    default_d_ff,
    gpt2,
    preset,
)

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "context_length": 16,
    "n_layer": 2,
    "n_head": 4,
    "d_model": 32,
}


def test_what_is_left_out_is_derived_and_stored() -> None:
    config = GPTConfig(**SMALL)
    assert (config.n_kv_head, config.d_head, config.d_ff) == (4, 8, 128)
    assert config.attention_bias is config.output_bias is config.bias is True
    assert config.rope is None
    with pytest.raises(FrozenInstanceError):
        config.n_layer = 3  # type: ignore[misc]


def test_rope_gets_its_settings() -> None:
    assert GPTConfig(**SMALL, positions="rope").rope == RopeConfig()
    own = RopeConfig(base=500.0)
    assert GPTConfig(**SMALL, positions="rope", rope=own).attention().rope == own


def test_biases_of_attention_can_differ() -> None:
    """Qwen2: a bias for queries, keys and values, and none anywhere else."""
    config = GPTConfig(**SMALL, bias=False, attention_bias=True, output_bias=False)
    assert config.attention().bias is True
    assert config.attention().output_bias is False
    assert GPTConfig(**SMALL, bias=False, attention_bias=True).output_bias is True


@pytest.mark.parametrize(("width", "wanted"), [(128, 384), (384, 1024), (768, 2048), (64, 192)])
def test_swiglu_has_eight_thirds_in_multiples_of_64(width: int, wanted: int) -> None:
    assert default_d_ff(width, "swiglu") == wanted
    assert default_d_ff(width, "gelu") == 4 * width


def test_attention_gets_every_setting() -> None:
    attention = GPTConfig(
        **SMALL, n_kv_head=2, d_head=6, dropout=0.25, sliding_window=3, backend="reference"
    ).attention()
    assert (attention.n_kv_head, attention.d_head, attention.dropout) == (2, 6, 0.25)
    assert (attention.sliding_window, attention.backend) == (3, "reference")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"n_layer": 0}, ValueError, "n_layer must be at least 1, got 0"),
        ({"vocab_size": 50.0}, TypeError, "vocab_size must be an int, got 50.0"),
        ({"n_head": True}, TypeError, "n_head must be an int"),
        ({"n_head": 5}, ValueError, "n_head"),
        ({"n_kv_head": 3}, ValueError, "n_kv_head"),
        ({"d_ff": 0}, ValueError, "d_ff must be at least 1"),
        ({"norm": "batchnorm"}, ValueError, "norm is 'batchnorm'; choose one of 'layernorm', 'rms"),
        ({"norm_position": "middle"}, ValueError, "'pre', 'post'"),
        ({"mlp": "gelu_new"}, ValueError, "'gelu_tanh'"),
        ({"positions": "alibi"}, ValueError, "positions is 'alibi'"),
        ({"norm_eps": 0}, ValueError, "norm_eps"),
        ({"bias": "false"}, TypeError, "bias must be True or False, got 'false'"),
        ({"tied": 1}, TypeError, "tied must be True or False"),
        ({"attention_bias": "no"}, TypeError, "attention_bias"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"sliding_window": 0}, ValueError, "sliding_window"),
        ({"backend": "cuda"}, ValueError, "backend"),
        ({"rope": RopeConfig()}, ValueError, "positions is 'learned': leave rope out"),
        ({"positions": "rope", "rope": {"base": 1e4}}, TypeError, "rope must be a RopeConfig"),
        ({"positions": "rope", "d_head": 7}, ValueError, "d_head"),
        ({"positions": "sinusoidal", "d_model": 33, "d_head": 8}, ValueError, "d_model must be"),
    ],
)
def test_refuses(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message.replace("(", r"\(")):
        GPTConfig(**(SMALL | change))


def test_dicts_go_both_ways_through_json() -> None:
    scaling = RopeScaling("yarn", 4.0, original_context_length=16)
    every = [preset(name) for name in PRESETS]
    every.append(GPTConfig(**SMALL, positions="rope", rope=RopeConfig(1e6, scaling)))
    for config in every:
        assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_keys_are_all_named() -> None:
    wrong = {"vocab_sise": 50, "n_layers": 2, "zebra": 1, "n_head": 4}
    with pytest.raises(ValueError, match="configuration") as caught:
        GPTConfig.from_dict(wrong)
    message = str(caught.value)
    assert "unknown key 'vocab_sise' (did you mean 'vocab_size'?)" in message
    assert "unknown key 'n_layers' (did you mean 'n_layer'?)" in message
    assert "unknown key 'zebra';" in message
    for name in ("vocab_size", "context_length", "n_layer", "d_model"):
        assert f"missing key '{name}'" in message
    assert "missing key 'n_head'" not in message


def test_nested_keys_are_checked_too() -> None:
    with pytest.raises(ValueError, match=r"rope: unknown key 'bass' \(did you mean 'base'\?\)"):
        GPTConfig.from_dict(SMALL | {"positions": "rope", "rope": {"bass": 1e4}})
    scaling = {"kind": "linear"}
    with pytest.raises(ValueError, match="rope's scaling: missing key 'factor'"):
        GPTConfig.from_dict(SMALL | {"positions": "rope", "rope": {"scaling": scaling}})
    with pytest.raises(TypeError, match="rope must be a mapping"):
        GPTConfig.from_dict(SMALL | {"positions": "rope", "rope": 1e4})
    with pytest.raises(TypeError, match="must be a mapping"):
        GPTConfig.from_dict([1])  # type: ignore[arg-type]


def test_presets_by_name() -> None:
    assert preset("gpt2") == gpt2()
    assert preset("gpt2-medium").d_model == 1024
    assert replace(preset("gpt2"), dropout=0.1).dropout == 0.1
    with pytest.raises(ValueError, match="did you mean 'gpt2-medium'"):
        preset("gpt2_medium")
    with pytest.raises(ValueError, match="no preset 'mamba'; choose one of gpt2, "):
        preset("mamba")


def test_neither_config_nor_flops_needs_torch() -> None:
    code = "import sys, gptbook.config, gptbook.flops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
