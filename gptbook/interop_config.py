# Exported from chapters/05_pretrained.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Hugging Face's config.json, and the GPTConfig that means the same: both ways.

Dropout is no part of what a model computes once it is trained, so it is written, and not read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptbook.config import GPTConfig, RopeConfig, RopeScaling

ACTIVATION_NAMES = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
"""Their names of the activations in GPT-2's MLP, and ours. Of two for one, the first is written."""


@dataclass(frozen=True)
class FamilyConfig:
    """How one family's config.json and GPTConfig go together.

    Attributes:
        model_type: the family's name in Hugging Face.
        architecture: the name of its class there.
        keys: their keys, and which of our fields holds the same value.
        defaults: what they take for a key that a file lacks. The others it must have.
        fixed: keys that, if a file has them, must have these values: our model knows no others.
        ours: our fields that are the same throughout the family.
    """

    model_type: str
    architecture: str
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    ours: Mapping[str, Any]


GPT2_CONFIG = FamilyConfig(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    keys={
        "vocab_size": "vocab_size",
        "n_positions": "context_length",
        "n_layer": "n_layer",
        "n_head": "n_head",
        "n_embd": "d_model",
        "n_inner": "d_ff",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied",
    },
    defaults={"n_inner": None, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    ours={
        "norm": "layernorm",
        "norm_position": "pre",
        "positions": "learned",
        "bias": True,
        "attention_bias": True,
        "output_bias": True,
        "qk_norm": False,
        "sliding_window": None,
    },
)

LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_kv_head",
    "head_dim": "d_head",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tied",
    "attention_bias": "attention_bias",
    "mlp_bias": "bias",
}

LLAMA_OURS = {
    "norm": "rmsnorm",
    "norm_position": "pre",
    "mlp": "swiglu",
    "positions": "rope",
}

LLAMA_CONFIG = FamilyConfig(
    model_type="llama",
    architecture="LlamaForCausalLM",
    keys=LLAMA_KEYS,
    defaults={
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
    },
    fixed={"hidden_act": "silu"},
    ours={**LLAMA_OURS, "qk_norm": False, "sliding_window": None},
)

QWEN3_CONFIG = FamilyConfig(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    keys={key: name for key, name in LLAMA_KEYS.items() if key != "mlp_bias"},
    defaults={
        "num_key_value_heads": 32,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
    },
    fixed={"hidden_act": "silu"},
    ours={**LLAMA_OURS, "qk_norm": True, "bias": False},
)

FAMILY_CONFIGS = {family.model_type: family for family in (GPT2_CONFIG, LLAMA_CONFIG, QWEN3_CONFIG)}


def family_config(values: Mapping[str, Any]) -> FamilyConfig:
    """Return the family that a config.json says it is of.

    Raises:
        ValueError: we do not know it.
    """
    model_type = values.get("model_type")
    if model_type not in FAMILY_CONFIGS:
        known = ", ".join(FAMILY_CONFIGS)
        raise ValueError(f"model_type is {model_type!r}, and this book reads {known}")
    return FAMILY_CONFIGS[model_type]


def config_from_huggingface(values: Mapping[str, Any]) -> GPTConfig:
    """Return the configuration that a config.json, read as a dict, describes.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: the family is unknown, keys are missing, or a setting is one that our model does
            not have; all of those are named.
    """
    family = family_config(values)
    given = {**family.defaults, **values}
    problems = [f"{key} is missing" for key in family.keys if key not in given]
    fixed = {**family.fixed, "quantization_config": None, "partial_rotary_factor": 1.0}
    problems += [
        f"{key} is {values[key]!r}, and only {value!r} can be read"
        for key, value in fixed.items()
        if key in values and values[key] != value
    ]
    if problems:
        raise ValueError(f"config.json ({family.model_type}): {'; '.join(problems)}")
    ours = {name: given[key] for key, name in family.keys.items()}
    if family is GPT2_CONFIG:
        return GPTConfig(**family.ours, **ours, mlp=activation_from_huggingface(values))
    ours["rope"] = rope_from_huggingface(values)
    ours["output_bias"] = ours["attention_bias"]
    if family is QWEN3_CONFIG:
        ours["sliding_window"] = window_from_huggingface(values, ours["n_layer"])
    return GPTConfig(**family.ours, **ours)


def activation_from_huggingface(values: Mapping[str, Any]) -> Any:
    """Return our name of GPT-2's activation, or raise ValueError."""
    name = values.get("activation_function", "gelu_new")
    if name not in ACTIVATION_NAMES:
        known = ", ".join(ACTIVATION_NAMES)
        raise ValueError(f"config.json: activation_function is {name!r}; known are {known}")
    return ACTIVATION_NAMES[name]


def window_from_huggingface(values: Mapping[str, Any], n_layer: int) -> int | None:
    """Return the sliding window that all layers have, or None; raise ValueError if some have one.

    Qwen3 may have it in the layers from max_window_layers on, or in those that layer_types names.
    """
    window = values.get("sliding_window", 4096) if values.get("use_sliding_window") else None
    kinds = values.get("layer_types") or [
        "sliding_attention" if layer >= values.get("max_window_layers", 28) else "full_attention"
        for layer in range(n_layer)
    ]
    slides = {kind == "sliding_attention" for kind in kinds}
    if window is None or slides == {False}:
        return None
    if slides != {True}:
        raise ValueError(
            "config.json: some layers have a sliding window and some do not, and our model has one "
            "for all or none"
        )
    return int(window)


def rope_from_huggingface(values: Mapping[str, Any]) -> RopeConfig:
    """Return the rotary positions that a config.json describes.

    transformers 5 writes them under rope_parameters, earlier versions as rope_theta and
    rope_scaling.

    Raises:
        ValueError: a kind of scaling, or a setting of it, that we do not have.
    """
    rope = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
    base = float(rope.pop("rope_theta", values.get("rope_theta", 10000.0)))
    old_kind = rope.pop("type", "default")
    kind = rope.pop("rope_type", old_kind)
    rope = {key: value for key, value in rope.items() if value is not None}
    if rope.get("partial_rotary_factor", 1.0) == 1.0:
        rope.pop("partial_rotary_factor", None)
    length = rope.pop("original_max_position_embeddings", values["max_position_embeddings"])
    if kind == "yarn":
        take_yarn_settings(rope, values["max_position_embeddings"] / length)
    known = {
        "default": set(),
        "linear": {"factor"},
        "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
        "yarn": {"factor", "beta_fast", "beta_slow", "attention_factor"},
    }
    if kind not in known or (unknown := set(rope) - known[kind]):
        what = f"{kind!r}" if kind not in known else f"{kind!r} with {sorted(unknown)}"
        raise ValueError(
            f"config.json: rotary positions scaled by {what}; known: {', '.join(known)}"
        )
    if kind == "default":
        return RopeConfig(base)
    rope = {key: float(value) for key, value in rope.items()}
    return RopeConfig(base, RopeScaling(kind, original_context_length=length, **rope))


def take_yarn_settings(rope: dict[str, Any], default_factor: float) -> None:
    """Replace what some files say in another way: no factor, two mscales, truncate as it is."""
    rope.setdefault("factor", default_factor)
    if rope.get("truncate") is True:
        rope.pop("truncate")
    over, under = rope.pop("mscale", None), rope.pop("mscale_all_dim", None)
    if over and under and "attention_factor" not in rope:
        factor = math.log(max(rope["factor"], 1))
        rope["attention_factor"] = (0.1 * over * factor + 1) / (0.1 * under * factor + 1)


def config_to_huggingface(config: GPTConfig) -> dict[str, Any]:
    """Return the config.json, as a dict, of the first family that can hold this configuration.

    Rotary positions are written the old way, which all versions of transformers read.

    Raises:
        ValueError: no family can; for each it says why.
    """
    reasons = []
    for family in FAMILY_CONFIGS.values():
        against = obstacles(config, family)
        if not against:
            return config_for_family(config, family)
        reasons.append(f"{family.model_type} ({'; '.join(against)})")
    raise ValueError(f"Hugging Face has no model like this one. Not {', not '.join(reasons)}.")


def obstacles(config: GPTConfig, family: FamilyConfig) -> list[str]:
    """Return what this configuration has that no model of the family has."""
    wanted = dict(family.ours)
    if family is GPT2_CONFIG:
        wanted |= {"n_kv_head": config.n_head, "d_head": config.d_model / config.n_head}
        known = set(ACTIVATION_NAMES.values())
        wanted["mlp"] = config.mlp if config.mlp in known else " or ".join(sorted(known))
    else:
        wanted["output_bias"] = config.attention_bias
    if family is LLAMA_CONFIG and config.d_model % config.n_head:
        return [f"d_model={config.d_model} is no multiple of n_head={config.n_head}"]
    return [
        f"{name} is {getattr(config, name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if getattr(config, name) != value
    ]


def config_for_family(config: GPTConfig, family: FamilyConfig) -> dict[str, Any]:
    """Return the config.json of a configuration that the family can hold."""
    values = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **family.fixed,
        **{key: getattr(config, name) for key, name in family.keys.items()},
    }
    if family is GPT2_CONFIG:
        names = {ours: theirs for theirs, ours in reversed(ACTIVATION_NAMES.items())}
        values["activation_function"] = names[config.mlp]
        return values | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout)
    values["attention_dropout"] = config.dropout
    values |= rope_to_huggingface(config.rope or RopeConfig(), config.d_head)
    if family is QWEN3_CONFIG:
        slides = config.sliding_window is not None
        values |= {
            "use_sliding_window": slides,
            "sliding_window": config.sliding_window,
            "max_window_layers": 0 if slides else config.n_layer,
        }
    return values


def rope_to_huggingface(rope: RopeConfig, d_head: int) -> dict[str, Any]:
    """Return rope_theta and rope_scaling. The kind "ntk" is nothing but a larger base."""
    scaling = rope.scaling
    if scaling is None:
        return {"rope_theta": rope.base, "rope_scaling": None}
    if scaling.kind == "ntk":
        base = rope.base * scaling.factor ** (d_head / (d_head - 2))
        return {"rope_theta": base, "rope_scaling": None}
    names = {
        "linear": (),
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "yarn": ("beta_fast", "beta_slow", "attention_factor"),
    }[scaling.kind]
    settings: dict[str, Any] = {"rope_type": scaling.kind, "factor": float(scaling.factor)}
    settings |= {name: getattr(scaling, name) for name in names}
    if scaling.kind != "linear":
        settings["original_max_position_embeddings"] = scaling.original_context_length
    settings = {key: value for key, value in settings.items() if value is not None}
    return {"rope_theta": rope.base, "rope_scaling": settings}
