"""The prepared model: the logits of the plain one, its slow twin, in each type and family."""

import inspect
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from gptbook import decoder
from gptbook.config import GPTConfig
from gptbook.decoder import (
    MatrixType,
    prepare_for_decoding,
    quantized_rows,
)
from gptbook.generation import GenerationConfig, generate, stream
from gptbook.kv_cache import CacheFullError, KVCache
from gptbook.model import GPT
from gptbook.readers import make_cache

torch.set_num_threads(1)
BASE = GPTConfig(vocab_size=101, context_length=40, n_layer=2, n_head=4, d_model=32)
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {"norm": "rmsnorm", "mlp": "swiglu", "positions": "rope", "bias": False,
              "n_kv_head": 2, "tied": False},
    "qwen": {"norm": "rmsnorm", "mlp": "swiglu", "positions": "rope", "bias": False,
             "attention_bias": True, "output_bias": False, "qk_norm": True, "n_kv_head": 1,
             "d_head": 16},
    "transformer": {"norm_position": "post", "positions": "sinusoidal", "mlp": "relu"},
    "window": {"positions": "none", "sliding_window": 5},
}  # fmt: skip
TOLERANCES: dict[MatrixType, float] = {
    # Of the largest logit. Sums of the same numbers in another order: some 1e-7 each, seen 3e-7.
    "float32": 3e-6,
    # Weights are rounded to 11 bits, so each by up to 2.4e-4 of itself; seen 3e-4 in all.
    "float16": 2e-3,
    # Weights, and rows and results of each product, to 8 bits, 2e-3; seen 5e-3.
    "bfloat16": 3e-2,
    # The same for rows and results, and weights to 1/254 of the largest in a row; seen 8e-3.
    "int8": 4e-2,
}


def model_of(family: str) -> GPT:
    """Return a model with large weights, and biases that are not 0."""
    model = GPT(replace(BASE, **FAMILIES[family]), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data *= 4
        else:
            weight.data += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


@torch.no_grad()
def steps(model: GPT, lengths: list[int], n_steps: int = 4) -> list[Tensor]:
    """Return the logits of a prompt for each row, of these lengths, and of tokens behind it."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(101, (len(lengths), max(lengths) + n_steps), generator=generator)
    cache = make_cache(model, len(lengths), 40)
    found = [model(ids[:, : max(lengths)], kv_cache=cache)]
    found = [torch.stack([rows[n - 1] for rows, n in zip(found[0], lengths, strict=True)])]
    cache.advance(lengths)
    for step in range(n_steps):
        found.append(model(ids[:, max(lengths) + step, None], kv_cache=cache)[:, 0])
        cache.advance(1)
    return found


@pytest.mark.parametrize("weights", TOLERANCES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [[7], [1], [5, 5, 5], [3, 6]])
def test_the_logits_are_those_of_the_plain_model(
    family: str, weights: MatrixType, lengths: list[int]
) -> None:
    model = model_of(family)
    fast = prepare_for_decoding(model, weights, batch_size=len(lengths))
    for ours, plain in zip(steps(fast, lengths), steps(model, lengths), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - plain).abs().max() < TOLERANCES[weights] * plain.abs().max()


def test_all_types_are_tested() -> None:
    assert tuple(TOLERANCES) == get_args(MatrixType) == tuple(decoder.MATRICES)


def test_float32_for_one_row_copies_nothing() -> None:
    model = model_of("gpt2")
    fast = prepare_for_decoding(model)
    ours = {p.data_ptr() for p in fast.parameters()}
    assert ours == {p.data_ptr() for p in model.parameters()}
    assert fast.bytes_per_token == 4 * (2 * 12 * 32 * 32 + 101 * 32)
    assert prepare_for_decoding(model, "int8").bytes_per_token == 2 * 12 * 32 * 32 + 101 * 32


def test_one_token_a_row_takes_the_short_path(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = prepare_for_decoding(model_of("gpt2"), batch_size=3)
    taken: list[int] = []
    short = decoder.decode_block

    def noted(block: Any, x: Tensor, *rest: Any) -> Tensor:
        taken.append(len(x))
        return short(block, x, *rest)

    monkeypatch.setattr(decoder, "decode_block", noted)
    steps(fast, [5, 5, 5], n_steps=2)
    assert taken == [3] * 4
    steps(fast, [5, 3], n_steps=2)  # rows of different lengths need a mask
    assert taken == [3] * 4


def test_generate_and_stream_write_the_same_tokens() -> None:
    model = model_of("qwen")
    fast = prepare_for_decoding(model, batch_size=2)
    for config in (
        GenerationConfig(max_new_tokens=20, temperature=0),
        GenerationConfig(max_new_tokens=60, temperature=0.8, top_k=20, overflow="slide"),
    ):
        prompts = [[3, 4, 5], [6, 7, 8]]
        assert generate(fast, prompts, config).ids == generate(model, prompts, config).ids
    assert not fast.training
    assert "model" in inspect.signature(stream).parameters


def test_a_full_cache_raises_as_ever() -> None:
    fast = prepare_for_decoding(model_of("gpt2"))
    cache = KVCache(2, 1, 4, 8, 3)
    fast(torch.tensor([[1, 2, 3]]), kv_cache=cache)
    cache.advance(3)
    with pytest.raises(CacheFullError):
        fast(torch.tensor([[4]]), kv_cache=cache)
    with pytest.raises(ValueError, match="vocab_size"):
        fast(torch.tensor([[101]]))


def test_a_cache_for_another_batch_or_model_is_named() -> None:
    fast = prepare_for_decoding(model_of("gpt2"))
    for sizes in ((2, 3, 4, 8), (2, 1, 2, 8), (3, 1, 4, 8), (2, 1, 4, 16)):
        cache = KVCache(*sizes, capacity=5)

        def read(cache: KVCache = cache) -> None:
            fast(torch.tensor([[1]]), kv_cache=cache)
            cache.advance(1)

        with pytest.raises(ValueError, match=r"must have shape|layer|n_new"):
            read()
        assert cache.lengths == (0,) * sizes[1]


def test_int8_is_off_by_half_a_step_at_most() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 30, generator=generator)
    weight[3] = 0
    integers, scale = quantized_rows(weight)
    assert integers.dtype == torch.int8
    off = (integers * scale.float()[:, None] - weight).abs().amax(1)
    # The largest may lie a quarter of a step above 127, since the scale is rounded to bfloat16.
    assert (off <= 0.501 * scale.float()).all()
    assert not integers[3].any()


def test_what_cannot_be_prepared_is_said() -> None:
    model = model_of("gpt2")
    with pytest.raises(ValueError, match="batch_size"):
        prepare_for_decoding(model, batch_size=0)
    with pytest.raises(TypeError, match="before prepare_for_decoding"):
        prepare_for_decoding(model).double()
    with pytest.raises(ValueError, match=r"tokens.weight is torch.float64 on cpu"):
        prepare_for_decoding(model.double())


def test_float16_without_its_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = type("Engines", (), {"supported_engines": ["none"]})
    monkeypatch.setattr(torch.backends, "quantized", engines)
    with pytest.raises(ValueError, match="FBGEMM"):
        prepare_for_decoding(model_of("gpt2"), "float16")


def test_without_onednn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "ONEDNN", None)
    with pytest.raises(ValueError, match="oneDNN"):
        prepare_for_decoding(model_of("gpt2"))
