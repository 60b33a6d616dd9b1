"""Hugging Face checkpoints both ways: equal to transformers' own models, or refused whole."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptbook import interop
from gptbook.config import PRESETS, GPTConfig, RopeConfig, RopeScaling, preset
from gptbook.interop import (
    BUFFERS,
    from_pretrained,
    huggingface_views,
    load_huggingface,
    save_huggingface,
)
from gptbook.interop_config import config_from_huggingface, config_to_huggingface
from gptbook.model import GPT

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

V, T = 61, 30
TOLERANCE = 1e-5  # float32 sums in another order gave at most 1e-6 here; a wrong model, over 1e-3

GPT2 = {"model_type": "gpt2", "vocab_size": V, "n_positions": 48, "n_layer": 2}
GPT2 |= {"n_embd": 24, "n_head": 3, "bos_token_id": None, "eos_token_id": None}
LLAMA = {"model_type": "llama", "vocab_size": V, "max_position_embeddings": 96}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 24}
LLAMA |= {"intermediate_size": 40, "bos_token_id": None, "eos_token_id": None}
QWEN3 = LLAMA | {"model_type": "qwen3", "head_dim": 10, "num_key_value_heads": None}
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 1e5, "factor": 4.0, "low_freq_factor": 1.0}
LLAMA3_ROPE |= {"high_freq_factor": 3.0, "original_max_position_embeddings": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
BIASES = {"attention_bias": True, "mlp_bias": True}

MODELS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2 untied, odd widths": GPT2
    | {"tie_word_embeddings": False, "n_inner": 35, "n_embd": 21, "layer_norm_epsilon": 1e-3},
    "gpt2 exact gelu": GPT2 | {"activation_function": "gelu", "n_layer": 1},
    "gpt2 relu": GPT2 | {"activation_function": "relu", "n_head": 1},
    "llama": LLAMA,
    "llama grouped, tied": LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama biases, heads wider": LLAMA | BIASES | {"head_dim": 14, "num_key_value_heads": 1},
    "llama 3.1": LLAMA | {"rope_parameters": LLAMA3_ROPE, "rms_norm_eps": 1e-3},
    "llama linear, old keys": LLAMA
    | {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
    "llama yarn": LLAMA | {"rope_scaling": YARN | {"beta_fast": 8, "beta_slow": 2}},
    "qwen3": QWEN3,
    "qwen3 grouped, tied": QWEN3 | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3 biases": QWEN3 | {"attention_bias": True, "hidden_size": 22},
    "qwen3 window": QWEN3
    | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    "qwen3 yarn": QWEN3 | {"rope_scaling": YARN | {"attention_factor": 1.3}, "rope_theta": 1e6},
    "qwen3 yarn, scales": QWEN3
    | {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2, "truncate": True}},
}


def scatter(model: torch.nn.Module, seed: int) -> None:
    """Move all parameters, biases and norms too, far enough from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.empty(parameter.shape).normal_(0.0, 0.25, generator=generator)
            parameter.add_(noise)


def their_model(name: str) -> Any:
    values = MODELS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**values)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    scatter(model, 1)
    return model


def our_model(config: GPTConfig, seed: int = 2) -> GPT:
    model = GPT(config, seed=seed).eval()
    scatter(model, seed)
    return model


def tokens(seed: int = 3) -> Tensor:
    return torch.randint(V, (2, T), generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, theirs: Tensor, floor: float = 0.0) -> None:
    bound = TOLERANCE * float(theirs.detach().abs().max()) + floor
    assert float((ours - theirs).detach().abs().max()) <= bound


def assert_same_model(ours: GPT, theirs: Any) -> None:
    """Logits, loss and the gradients of all parameters agree."""
    ids = tokens()
    logits = ours(ids)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    result = theirs(ids, labels=ids)
    result.loss.backward()
    assert_close(logits, result.logits)
    assert_close(loss, result.loss)
    grads = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    views = huggingface_views(grads, ours.config)
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    assert set(views) == set(expected)
    largest = max(float(grad.abs().max()) for grad in expected.values())
    for name, grad in expected.items():  # some, such as those of keys' biases, are 0 but for noise
        assert_close(views[name], grad, floor=1e-6 * largest)


def greedy(model: GPT, ids: Tensor, n_new: int) -> Tensor:
    with torch.no_grad():
        for _ in range(n_new):
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_theirs_is_the_same_here(name: str, tmp_path: Path) -> None:
    theirs = their_model(name)
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(tmp_path)
    assert not ours.training
    assert_same_model(ours, theirs)
    prompt = tokens()[:, :6]
    written = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert greedy(ours, prompt, 20).tolist() == written.tolist()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_ours_is_the_same_there(name: str, tmp_path: Path) -> None:
    config = config_from_huggingface(their_model(name).config.to_dict())
    ours = our_model(config)
    save_huggingface(ours, tmp_path / "model", max_shard_size=20_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert_same_model(ours, theirs)
    assert from_pretrained(tmp_path / "model").config == config


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_their_shards_are_read(name: str, tmp_path: Path) -> None:
    theirs = their_model(name)
    theirs.save_pretrained(tmp_path, max_shard_size="12KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    with torch.no_grad():
        assert_close(from_pretrained(tmp_path)(tokens()), theirs(tokens()).logits)


# --- names and configurations ---


@pytest.mark.parametrize("name", PRESETS)
def test_the_tables_name_every_parameter_once(name: str) -> None:
    config = preset(name)
    with torch.device("meta"):
        model = GPT(config, seed=None)
    views = huggingface_views(dict(model.named_parameters()), config)
    assert sum(v.numel() for v in views.values()) == sum(p.numel() for p in model.parameters())
    assert config_from_huggingface(json.loads(json.dumps(config_to_huggingface(config)))) == config


def test_views_share_the_numbers() -> None:
    model = our_model(config_from_huggingface(GPT2))
    views = huggingface_views(dict(model.named_parameters()), model.config)
    with torch.no_grad():
        views["transformer.h.1.attn.c_attn.weight"].fill_(7)
    assert model.get_parameter("blocks.1.attention.qkv.weight").eq(7).all()


def test_ntk_is_written_as_a_larger_base(tmp_path: Path) -> None:
    scaled = RopeConfig(1000.0, RopeScaling("ntk", 3.0))
    ours = our_model(replace(config_from_huggingface(LLAMA), rope=scaled))
    save_huggingface(ours, tmp_path / "model")
    again = from_pretrained(tmp_path / "model")
    assert again.config.rope is not None
    assert again.config.rope.scaling is None
    with torch.no_grad():
        assert_close(again(tokens()), ours(tokens()))


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"norm": "rmsnorm"}, ["gpt2 (norm is 'rmsnorm'", "llama (mlp is", "qwen3"]),
        ({"norm_position": "post"}, ["norm_position is 'post' instead of 'pre'"]),
        ({"bias": False}, ["bias is False instead of True"]),
        ({"n_kv_head": 1}, ["n_kv_head is 1 instead of 3"]),
        ({"sliding_window": 4}, ["sliding_window is 4 instead of None"]),
        ({"positions": "none"}, ["positions is 'none' instead of 'learned'"]),
    ],
)
def test_what_they_do_not_have_is_not_written(
    changes: dict[str, Any], reasons: list[str], tmp_path: Path
) -> None:
    config = GPTConfig(vocab_size=V, context_length=8, n_layer=1, n_head=3, d_model=24)
    model = GPT(replace(config, **changes))
    with pytest.raises(ValueError, match="no model like this") as caught:
        save_huggingface(model, tmp_path / "model")
    assert all(reason in str(caught.value) for reason in reasons)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, "'bert', and this book reads gpt2, llama, qwen3"),
        ({"model_type": "llama"}, "vocab_size is missing; max_position_embeddings is missing"),
        (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is True, and only"),
        (GPT2 | {"activation_function": "silu"}, "'silu'; known are gelu_new"),
        (LLAMA | {"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu'"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        (LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "scaled by 'dynamic'"),
        (LLAMA | {"rope_scaling": YARN | {"truncate": False}}, r"'yarn' with \['truncate'\]"),
        (LLAMA | {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial"),
        (
            QWEN3 | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
            "some layers have a sliding window",
        ),
    ],
)
def test_a_configuration_that_we_do_not_have_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_huggingface(values)


def test_windows_that_no_layer_has_are_none() -> None:
    off = QWEN3 | {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 0}
    beyond = QWEN3 | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
    assert config_from_huggingface(off).sliding_window is None
    assert config_from_huggingface(beyond).sliding_window is None


# --- files that are not as they should be ---


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_huggingface(our_model(config_from_huggingface(LLAMA)), tmp_path / "model")


def edited(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def assert_refused(folder: Path, *messages: str, error: type[Exception] = ValueError) -> None:
    """Both readers refuse, say why, and the model that was to be changed is as before."""
    model = our_model(config_from_huggingface(LLAMA), seed=5)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(error) as caught:
        load_huggingface(model, folder)
    assert all(map(torch.equal, before, model.parameters()))
    for message in messages:
        assert message in str(caught.value)
    with pytest.raises(error):
        from_pretrained(folder)


def test_all_faults_are_listed_at_once(checkpoint: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.2.input_layernorm.weight"] = torch.ones(24)
        tensors["model.layers.0.self_attn.q_proj.weight"] = torch.ones(24, 23)
        tensors["lm_head.weight"] = torch.ones(V, 24, dtype=torch.int8)

    edited(checkpoint, edit)
    assert_refused(
        checkpoint,
        "missing: model.norm.weight [24]",
        "missing: model.layers.1.mlp.up_proj.weight [40, 24]",
        "surplus: model.layers.2.input_layernorm.weight [24]",
        "misshapen: model.layers.0.self_attn.q_proj.weight [24, 23], wanted [24, 24]",
        "type I8: lm_head.weight",
    )


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_file_that_was_cut_off_is_refused(checkpoint: Path, keep: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(checkpoint, "cut off, or no safetensors file", str(path))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = our_model(config_from_huggingface(LLAMA))
    folder = save_huggingface(model, tmp_path / "model", max_shard_size=10_000)
    lost = "model-00002-of-"
    next(folder.glob(f"{lost}*")).unlink()
    assert_refused(
        folder, lost, "which model.safetensors.index.json names", error=FileNotFoundError
    )


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "../other.safetensors"}}', "elsewhere: ../other.safetensors"),
        ('{"weight_map": {"a": 3}}', "no weight_map"),
        ("[]", "must hold an object, and holds a list"),
        ("{", "is not JSON"),
    ],
)
def test_a_damaged_index_is_refused(checkpoint: Path, index: str, message: str) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint.parent / "other.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text(index)
    assert_refused(checkpoint, message)


def test_a_pickle_is_not_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({}, checkpoint / "pytorch_model.bin")
    assert_refused(checkpoint, "unpickling one can run any program", error=FileNotFoundError)


def test_a_tensor_stored_twice_is_refused(tmp_path: Path) -> None:
    model = our_model(config_from_huggingface(LLAMA))
    folder = save_huggingface(model, tmp_path / "model", max_shard_size=10_000)
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    save_file({**load_file(second), **load_file(first)}, second)
    assert_refused(folder, "twice: model.embed_tokens.weight")


def test_the_matrix_of_the_logits_may_be_stored_beside_the_embedding_if_tied(
    tmp_path: Path,
) -> None:
    config = config_from_huggingface(GPT2)
    model = our_model(config)
    folder = save_huggingface(model, tmp_path / "model")
    name = "transformer.wte.weight"
    edited(folder, lambda t: t.update({"lm_head.weight": t[name].clone()}))
    assert torch.equal(from_pretrained(folder)(tokens()), model(tokens()))
    edited(folder, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from transformer\.wte\.weight"):
        from_pretrained(folder)


def test_old_files_are_read(tmp_path: Path) -> None:
    """The published GPT-2 has no "transformer." before its names, and masks among its tensors."""
    model = our_model(config_from_huggingface(GPT2))
    folder = save_huggingface(model, tmp_path / "model")

    def edit(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 48, 48, dtype=torch.uint8)
        tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)

    edited(folder, edit)
    assert torch.equal(from_pretrained(folder)(tokens()), model(tokens()))
    assert from_pretrained(folder).tokens.weight.dtype == torch.float32
    frequencies = ("model.layers.11.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
    assert all(map(BUFFERS.fullmatch, frequencies))
    assert not BUFFERS.fullmatch("h.0.attn.c_attn.bias")


# --- types ---


def test_numbers_keep_their_type_unless_another_is_asked_for(tmp_path: Path) -> None:
    model = our_model(config_from_huggingface(QWEN3))
    folder = save_huggingface(model, tmp_path / "half", dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    half, wide = from_pretrained(folder), from_pretrained(folder, dtype=torch.float64)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    rounded = model.to(torch.bfloat16)
    for ours in (half, wide):
        assert all(
            map(torch.equal, ours.parameters(), rounded.to(ours.tokens.weight.dtype).parameters())
        )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.dtype == torch.bfloat16
    edited(folder, lambda t: t.update({"model.norm.weight": t["model.norm.weight"].half()}))
    assert {p.dtype for p in from_pretrained(folder).parameters()} == {torch.float32}


def test_ids_dropout_and_backend_are_passed_on(tmp_path: Path) -> None:
    model = our_model(config_from_huggingface(GPT2))
    folder = save_huggingface(model, tmp_path / "model", bos_token_id=4, eos_token_id=5)
    values = json.loads((folder / "config.json").read_text())
    assert (values["bos_token_id"], values["eos_token_id"]) == (4, 5)
    config = from_pretrained(folder, dropout=0.2, backend="reference").config
    assert (config.dropout, config.backend) == (0.2, "reference")


# --- a folder appears whole or not at all ---


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = our_model(config_from_huggingface(LLAMA))
    written: list[Path] = []

    def full_disk(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        save_file(tensors, path, **options)
        assert not (tmp_path / "new" / "model").exists()

    monkeypatch.setattr(interop, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_huggingface(model, tmp_path / "new" / "model", max_shard_size=10_000)
    assert len(written) == 2
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_with_files_is_left_alone(checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with pytest.raises(FileExistsError, match="is not empty"):
        save_huggingface(our_model(config_from_huggingface(GPT2)), checkpoint)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model"]


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = save_huggingface(our_model(config_from_huggingface(GPT2)), "empty")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


# --- names on the Hub ---


def test_a_name_is_asked_of_the_hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert not any(pattern.endswith((".bin", "*")) for pattern in allow_patterns)
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    from_pretrained("someone/some-model.v2", revision="main")
    assert asked == [("someone/some-model.v2", "main")]


def test_a_name_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, **_: Any) -> str:
        raise FileNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing is no folder.*no connection"):
        from_pretrained("nobody/nothing")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        from_pretrained("./nothing/here")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'gptbook\[interop\]'"):
        from_pretrained("gpt2")
