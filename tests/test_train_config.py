"""Configurations of runs: strict, whole, and changed by name."""

import json
import subprocess
import sys
from typing import Any

import pytest

from gptbook.config import RopeConfig
from gptbook.train_config import TRAIN_PRESETS, DataConfig, TrainConfig, train_preset
from tests.training_runs import tiny_config


@pytest.mark.parametrize("name", TRAIN_PRESETS)
def test_presets_are_whole_and_survive_json(name: str) -> None:
    config = train_preset(name)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.with_overrides([]) == config
    hash(config)


def test_overrides_change_what_they_name() -> None:
    config = tiny_config().with_overrides(
        ["optim.lr=3e-4", "steps = 30", "compile=true", "micro_batch_size=none", "device=cpu",
         "sinks=['tensorboard']", "guard.spike=2", "model.rope={'base': 500.0}"]
    )  # fmt: skip
    assert (config.optim.lr, config.steps, config.compile) == (3e-4, 30, True)
    assert (config.micro_batch_size, config.sinks) == (None, ("tensorboard",))
    assert config.guard.spike == 2.0
    assert isinstance(config.guard.spike, float)
    assert config.model.rope == RopeConfig(base=500.0)
    assert config.optim.muon_lr == tiny_config().optim.muon_lr


def test_overrides_derive_anew_what_was_derived() -> None:
    config = tiny_config()
    wider = config.with_overrides(["model.d_model=128", "model.n_head=4"])
    assert (wider.model.d_head, wider.model.d_ff, wider.model.n_kv_head) == (32, 384, 4)
    given = config.with_overrides(["model.d_ff=100"]).with_overrides(["model.d_model=128"])
    assert given.model.d_ff == 100
    assert config.with_overrides(["model.context_length=32"]).context_length == 32
    assert config.with_overrides(["context_length=8"]).model.context_length == 16
    kept = config.with_overrides(["context_length=8"]).with_overrides(["model.context_length=32"])
    assert kept.context_length == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lrr=1", "there is no setting 'optim.lrr'; did you mean optim.lr"),
        ("model.nhead=1", "did you mean model.n_head"),
        ("lr=1", "there is no setting 'lr'"),
        ("zzz=1", "there is no setting 'zzz': .*optim.lr, "),
        ("optim=1", "there is no setting 'optim'"),
        ("steps", "'steps' sets nothing: write NAME=VALUE"),
        ("optim.lr=fast", "lr must be a number, got 'fast'"),
        ("optim.lr=-1", "lr must be finite and at least 0, got -1"),
        ("optim.beta2=1", "beta2 must be below 1"),
        ("optim.clip=0", "clip must be above 0"),
        ("optim.name=adam", "optim.name is 'adam'; choose one of 'adamw', 'muon'"),
        ("steps=1.5", "steps must be an int, got 1.5"),
        ("steps=0", "steps must be at least 1"),
        ("steps=10", "are 12 together, but steps is 10"),
        ("compile=yes", "compile must be True or False, got 'yes'"),
        ("precision=half", "precision is 'half'; choose one of"),
        ("context_length=17", "context_length is 17, but model.context_length is 16"),
        ("eval_stride=17", "eval_stride is 17, but a row has context_length 16"),
        ("data.vocab_size=400", "model.vocab_size is 300, but data.vocab_size is 400"),
        ("data.tokenizer=gpt2", "tokenizer is 'gpt2' and vocab_size 300"),
        ("data.corpus=tinystories", "n_documents and kind are for tinyworld"),
        ("data.validation=1", "validation is a share above 0 and below 1"),
        ("guard.policy=hope", "policy is 'hope'; choose one of 'stop', 'skip'"),
        ("schedule.floor=2", "floor is a factor"),
        ("model.n_head=3", "d_model=16 is no multiple of n_head=3"),
    ],
)
def test_errors_name_what_is_wrong(setting: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny_config().with_overrides([setting])


def test_from_dict_is_strict() -> None:
    values: dict[str, Any] = tiny_config().to_dict()
    with pytest.raises(ValueError, match=r"unknown key 'step' \(did you mean 'steps'\?\)"):
        TrainConfig.from_dict({**values, "step": 3})
    with pytest.raises(ValueError, match="optim: unknown key 'rate'"):
        TrainConfig.from_dict({**values, "optim": {"rate": 1}})
    with pytest.raises(ValueError, match="missing key 'model'; missing key 'data'"):
        TrainConfig.from_dict({"steps": 1, "batch_size": 1})
    assert TrainConfig.from_dict({k: values[k] for k in ("model", "data", "steps", "batch_size")})


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ValueError, match=r"no preset 'tinyworld'; .* did you mean 'tinyworld-cpu'"):
        train_preset("tinyworld")


def test_a_tokenizer_of_its_own_needs_no_size() -> None:
    with pytest.raises(ValueError, match="'bpe' needs one"):
        DataConfig("tinyworld")


def test_configurations_need_no_torch() -> None:
    code = "import sys, gptbook.train_config, gptbook.tracking; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
