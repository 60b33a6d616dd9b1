"""The whole model: its parts in order, causality, caches, documents, and what it refuses.

Tolerances: two ways of computing the same logits in float32 differ by sums in another order, some
1e-6 of the largest logit; `RTOL` leaves a factor of ten. Weights are drawn five times larger than
for training, so that attention is far from uniform and a mistake moves logits by their own size.
"""

import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm, scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel

from gptbook.config import GPTConfig, RopeConfig, RopeScaling
from gptbook.kv_cache import CacheFullError, KVCache, RollingKVCache
from gptbook.model import GPT, Block

RTOL = 1e-5
V, LENGTH = 61, 24
BASE: dict[str, Any] = {
    "vocab_size": V,
    "context_length": LENGTH,
    "n_layer": 3,
    "n_head": 4,
    "d_model": 32,
}
LLAMA: dict[str, Any] = {"norm": "rmsnorm", "mlp": "swiglu", "positions": "rope", "bias": False}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt1": {"norm_position": "post", "mlp": "gelu"},
    "vaswani": {"norm_position": "post", "mlp": "relu", "positions": "sinusoidal", "tied": False},
    "llama": LLAMA | {"n_kv_head": 2, "tied": False, "d_ff": 48},
    "llama31": LLAMA | {"rope": RopeConfig(500.0, RopeScaling("llama3", 8.0, 16)), "n_kv_head": 1},
    "qwen3": LLAMA | {"n_kv_head": 2, "d_head": 12, "qk_norm": True, "norm_eps": 1e-6},
    "qwen2": LLAMA | {"attention_bias": True, "output_bias": False},
    "mistral": LLAMA | {"sliding_window": 5, "n_kv_head": 2},
    "nowhere": {"positions": "none"},
    "plain": {"backend": "reference"},
}


@pytest.fixture
def seed() -> int:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed = {seed}")
    torch.manual_seed(seed)
    return seed


def make(kind: str, seed: int, **changes: Any) -> GPT:
    """A model in eval mode with weights of std 0.1 and random biases and norms."""
    model = GPT(GPTConfig(**(BASE | KINDS[kind] | changes))).eval()
    model.initialize(seed, std=0.1, scale_residual=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_ids(*shape: int) -> Tensor:
    return torch.randint(V, shape)


def close(got: Tensor, wanted: Tensor, rtol: float = RTOL) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= rtol * wanted.abs().max()


def empty_cache(model: GPT, n_rows: int, capacity: int = LENGTH, rolls: bool = False) -> KVCache:
    config, kind = model.config, RollingKVCache if rolls else KVCache
    return kind(config.n_layer, n_rows, config.n_kv_head, config.d_head, capacity)


# --- equal to what it is made of, and to its peer ---


def test_gpt2_step_by_step(seed: int) -> None:
    """Against functions of torch, without a layer of ours."""
    model, ids = make("gpt2", seed), random_ids(2, 9)
    p = dict(model.named_parameters())

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (32,), p[f"{name}.weight"], p[f"{name}.bias"])

    def apply(x: Tensor, name: str) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = p["tokens.weight"][ids] + p["learned_positions.weight"][:9]
    for i in range(3):
        qkv = apply(norm(x, f"blocks.{i}.attention_norm"), f"blocks.{i}.attention.qkv")
        q, k, v = (part.reshape(2, 9, 4, 8).transpose(1, 2) for part in qkv.split(32, dim=-1))
        heads = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + apply(heads.transpose(1, 2).reshape(2, 9, 32), f"blocks.{i}.attention.output")
        hidden = apply(norm(x, f"blocks.{i}.mlp_norm"), f"blocks.{i}.mlp.up")
        x = x + apply(gelu(hidden, approximate="tanh"), f"blocks.{i}.mlp.down")
    close(model(ids), norm(x, "norm") @ p["tokens.weight"].T)


def test_equals_transformers_gpt2(seed: int) -> None:
    """Logits and all gradients. test_interop compares every family."""
    config = GPT2Config(vocab_size=V, n_positions=LENGTH, n_layer=3, n_head=4, n_embd=32,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    theirs, ours = GPT2LMHeadModel(config).eval(), make("gpt2", seed)
    pairs = [("tokens", "wte"), ("learned_positions", "wpe"), ("norm", "ln_f")]
    for i in range(3):
        for a, b in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2"), ("mlp.up", "mlp.c_fc"),
                     ("attention.qkv", "attn.c_attn"), ("attention.output", "attn.c_proj"),
                     ("mlp.down", "mlp.c_proj")):  # fmt: skip
            pairs.append((f"blocks.{i}.{a}", f"h.{i}.{b}"))
    for a, b in pairs:
        for one, other in zip(
            ours.get_submodule(a).parameters(),
            theirs.transformer.get_submodule(b).parameters(),
            strict=True,
        ):
            other.data.copy_(one.data.T if "c_" in b and one.ndim == 2 else one.data)
    ids = random_ids(2, LENGTH)
    logits, wanted = ours(ids), theirs(ids).logits
    close(logits, wanted)
    for out in (logits, wanted):
        cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for a, b in pairs:
        mine = ours.get_submodule(a).weight.grad
        hers = theirs.transformer.get_submodule(b).weight.grad
        assert isinstance(mine, Tensor)
        assert isinstance(hers, Tensor)
        # Gradients are sums over all places, with cancellation.
        close(mine, hers.T if "c_" in b else hers, 1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "vaswani", "qwen3"])
def test_logits_are_the_hidden_states_times_the_output_weight(kind: str, seed: int) -> None:
    model, ids = make(kind, seed), random_ids(2, 7)
    hidden = model.hidden_states(ids)
    assert hidden.shape == (2, 7, 32)
    close(model(ids), hidden @ model.output_weight.T)
    assert (model.output_weight is model.tokens.weight) == model.config.tied


def test_post_norm_has_no_norm_behind_the_blocks(seed: int) -> None:
    model = make("gpt1", seed)
    hidden = model.hidden_states(random_ids(2, 5))
    last = model.blocks[-1].get_submodule("mlp_norm")
    assert isinstance(last.weight, Tensor)
    assert isinstance(last.bias, Tensor)
    normalized = (hidden - last.bias) / last.weight
    assert normalized.mean(-1).abs().max() < 1e-4
    assert (normalized.var(-1, correction=0) - 1).abs().max() < 1e-3


# --- causality, caches, documents ---


@pytest.mark.parametrize("kind", KINDS)
def test_no_logit_moves_with_a_later_token(kind: str, seed: int) -> None:
    """And every later one does, unless a window or a reach of n_layer windows says otherwise."""
    model, ids = make(kind, seed), random_ids(1, LENGTH)
    for place in (0, 7, LENGTH - 1):
        changed = ids.clone()
        changed[0, place] = (changed[0, place] + 1 + torch.randint(V - 1, ())) % V
        moved = ((model(changed) - model(ids)).abs().amax(-1) > 0)[0]
        assert not moved[:place].any()
        window = model.config.sliding_window
        reach = LENGTH if window is None else place + 3 * (window - 1) + 1
        assert moved[place:reach].all()
        assert not moved[reach:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_prefill_and_decode_equal_the_full_forward(kind: str, seed: int) -> None:
    model, ids = make(kind, seed), random_ids(3, LENGTH)
    cache, pieces = empty_cache(model, 3), []
    with torch.no_grad():
        for piece in ids.split([11, 1, 1, 4, 1, 6], dim=1):
            pieces.append(model(piece, kv_cache=cache))
            assert torch.equal(pieces[-1], model(piece, kv_cache=cache)), "not advanced: no change"
            cache.advance(piece.shape[1])
        close(torch.cat(pieces, 1), model(ids))


@pytest.mark.parametrize("kind", ["gpt2", "vaswani", "qwen3", "mistral"])
def test_rows_of_different_lengths_share_a_cache(kind: str, seed: int) -> None:
    """Prompts padded on the right, then decoded together, equal each alone."""
    model, ids, lengths = make(kind, seed), random_ids(3, 20), (4, 9, 1)
    cache = empty_cache(model, 3)
    with torch.no_grad():
        alone = model(ids)
        prompt = model(ids[:, :9], kv_cache=cache)
        cache.advance(lengths)
        for row, n in enumerate(lengths):
            close(prompt[row, :n], alone[row, :n])
        for step in range(5):
            places = [n + step for n in lengths]
            logits = model(ids[range(3), places][:, None], kv_cache=cache)
            cache.advance(1)
            close(logits[:, 0], alone[range(3), places])


def test_a_rolling_cache_reads_past_the_context(seed: int) -> None:
    model = make("mistral", seed)
    wide = GPT(replace(model.config, context_length=100)).eval()
    wide.load_state_dict(model.state_dict())
    ids, cache, pieces = random_ids(2, 100), empty_cache(model, 2, 5, rolls=True), []
    with torch.no_grad():
        for piece in ids.split([24, 1, 1, 14, 24, 24, 12], dim=1):
            pieces.append(model(piece, kv_cache=cache))
            cache.advance(piece.shape[1])
        close(torch.cat(pieces, 1), wide(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_equal_documents_alone(kind: str, seed: int) -> None:
    model, lengths = make(kind, seed), [7, 1, 12, 4]
    ids = random_ids(2, sum(lengths))
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths)).expand(2, -1)
    packed = model(ids, positions, document_ids=documents)
    alone = torch.cat([model(part) for part in ids.split(lengths, dim=1)], 1)
    close(packed, alone)
    assert (model(ids) - alone).abs().max() > 0.01  # so that the documents did make a difference


def test_positions_move_rope_by_distance_only(seed: int) -> None:
    model, ids = make("llama", seed), random_ids(2, 10)
    close(model(ids, torch.arange(10) + 1000), model(ids), 1e-4)  # angles of 1000 in float32
    assert (model(ids, 2 * torch.arange(10)) - model(ids)).abs().max() > 1e-3


def test_positions_choose_learned_rows(seed: int) -> None:
    model, ids = make("gpt2", seed), random_ids(2, 10)
    given = torch.arange(10).flip(0)
    x = model.embed(ids, given)
    assert model.learned_positions is not None
    close(x, model.tokens.weight[ids] + model.learned_positions.weight[given])


# --- first weights ---


def test_initialization(seed: int) -> None:
    model = GPT(GPTConfig(**BASE | {"d_model": 256, "n_layer": 8, "vocab_size": 1000}), seed=seed)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all()
        elif weight.ndim == 1:
            assert (weight == 1).all()
        else:
            writes = name.endswith(("attention.output.weight", "mlp.down.weight"))
            wanted = 0.02 / 4 if writes else 0.02
            # 6144 numbers at least: the standard error of their std is 0.9 %.
            assert weight.std().item() == pytest.approx(wanted, rel=0.06), name


def test_a_seed_means_the_same_weights_anywhere(seed: int) -> None:
    config = GPTConfig(**BASE)
    one, two, other = GPT(config, seed=seed), GPT(config, seed=seed), GPT(config, seed=seed + 1)
    half = GPT(config, seed=seed + 1).bfloat16()
    half.initialize(seed)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name])
        assert torch.equal(weight.bfloat16(), half.state_dict()[name])
    assert not torch.equal(one.tokens.weight, other.tokens.weight)


def test_drawing_weights_leaves_torchs_generator_alone() -> None:
    model = GPT(GPTConfig(**BASE))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    model.initialize(0)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt1"])
def test_first_loss_is_ln_v(kind: str, seed: int) -> None:
    """The sum of a logit's noise: its variance is below C 0.02^2 = 0.01, so is twice the excess.

    In a tied model the logit of the token just read adds as much. Which targets are drawn moves
    the mean of 192 losses by 0.01, too near to what is left of 0.05: so there are 1,536.
    """
    model = GPT(GPTConfig(**BASE | KINDS[kind]), seed=seed)
    ids, targets = random_ids(64, LENGTH), random_ids(64, LENGTH)
    loss = cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(torch.tensor(float(V)).log().item(), abs=0.05)


def test_meta_then_load(seed: int) -> None:
    """A model is built without memory, and given weights later."""
    wanted = make("qwen3", seed)
    with torch.device("meta"):
        empty = GPT(wanted.config)
    loaded = empty.to_empty(device="cpu").eval()
    loaded.load_state_dict(wanted.state_dict())
    ids = random_ids(2, 9)
    assert torch.equal(loaded(ids), wanted(ids))


def test_tied_weights_are_one_tensor_with_both_gradients(seed: int) -> None:
    tied = make("gpt2", seed)
    untied = GPT(replace(tied.config, tied=False)).eval()
    untied.load_state_dict(tied.state_dict() | {"unembedding.weight": tied.tokens.weight})
    ids = random_ids(2, 9)
    for model in (tied, untied):
        cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert untied.unembedding is not None
    grads = untied.tokens.weight.grad, untied.unembedding.weight.grad
    assert grads[0] is not None
    assert grads[1] is not None
    assert tied.tokens.weight.grad is not None
    close(tied.tokens.weight.grad, grads[0] + grads[1], 1e-5)
    assert "unembedding.weight" not in tied.state_dict()


def test_dropout_is_for_training_only(seed: int) -> None:
    model, ids = make("gpt2", seed, dropout=0.5), random_ids(2, 9)
    without = make("gpt2", seed)
    without.load_state_dict(model.state_dict())
    close(model(ids), without(ids))
    model.train()
    assert (model(ids) - model(ids)).abs().max() > 0


def test_dropout_reaches_what_it_should(seed: int) -> None:
    """With nearly all dropped, neither branches nor embedding reach the stream.

    Of 960 numbers each is kept with a chance of 2^-32 at most, the smallest that MKL can draw.
    """
    share = 1 - 1e-12
    block = Block(GPTConfig(**BASE, dropout=share)).train()
    x = torch.randn(2, 5, 32)
    assert torch.equal(block(x), x)
    model = GPT(GPTConfig(**BASE, dropout=share)).train()
    assert (model.embed(random_ids(2, 5), torch.arange(5)) == 0).all()


# --- errors ---


@pytest.mark.parametrize("kind", ["gpt2", "vaswani", "llama", "mistral", "nowhere"])
def test_a_row_longer_than_the_context(kind: str, seed: int) -> None:
    model = make(kind, seed)
    model(random_ids(1, LENGTH))
    with pytest.raises(ValueError, match=r"25 tokens a row, but the model reads 24 \(context_len"):
        model(random_ids(1, LENGTH + 1))
    cache = empty_cache(model, 1, capacity=100)
    with torch.no_grad():
        model(random_ids(1, 20), kv_cache=cache)
        cache.advance(20)
        with pytest.raises(ValueError, match=r"5 tokens a row behind 20 in the cache.* reads 24"):
            model(random_ids(1, 5), kv_cache=cache)
        assert cache.lengths == (20,)
        model(random_ids(1, 4), kv_cache=cache)


def test_learned_positions_end_even_with_a_rolling_cache(seed: int) -> None:
    model = make("gpt2", seed, sliding_window=5)
    cache = empty_cache(model, 1, 5, rolls=True)
    with torch.no_grad():
        model(random_ids(1, LENGTH), kv_cache=cache)
        cache.advance(LENGTH)
        with pytest.raises(ValueError, match="context_length"):
            model(random_ids(1, 1), kv_cache=cache)


def test_a_rolling_cache_wider_than_the_context_has_an_end(seed: int) -> None:
    model = make("llama", seed)
    cache = empty_cache(model, 1, LENGTH + 10, rolls=True)
    with torch.no_grad():
        model(random_ids(1, LENGTH), kv_cache=cache)
        cache.advance(LENGTH)
        with pytest.raises(ValueError, match="context_length"):
            model(random_ids(1, 1), kv_cache=cache)


def test_a_full_cache_says_so(seed: int) -> None:
    model = make("llama", seed)
    with torch.no_grad(), pytest.raises(CacheFullError, match="capacity"):
        model(random_ids(1, 9), kv_cache=empty_cache(model, 1, capacity=8))


def test_documents_do_not_go_with_a_cache(seed: int) -> None:
    model = make("llama", seed)
    with pytest.raises(ValueError, match="document_ids"):
        model(random_ids(1, 3), None, empty_cache(model, 1), torch.zeros(1, 3, dtype=torch.int64))


def test_an_unknown_id_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=f"ids holds {V} at"):
        make("gpt2", seed)(torch.tensor([[1, V]]))


def test_compiled_and_autocast_without_graph_breaks() -> None:
    """In a process of its own, because jaxtyping's checks are no part of the graph.

    fullgraph=True raises on a graph break. bfloat16 has 8 bits, so logits agree to a few 2^-8.
    """
    code = """
        import torch
        import gptbook.linear
        from gptbook.config import GPTConfig
        from gptbook.model import GPT

        gptbook.linear.MIN_NUMBERS = 1  # so that compiled it is torch's, and else oneDNN's
        base = dict(vocab_size=61, context_length=24, n_layer=2, n_head=4, d_model=32)
        llama = dict(norm="rmsnorm", mlp="swiglu", positions="rope", bias=False, n_kv_head=2)
        ids = torch.randint(61, (2, 24))
        documents = torch.arange(24).expand(2, -1) // 7
        for kind in ({}, llama | {"qk_norm": True}, llama | {"sliding_window": 5, "tied": False}):
            for half, extra in ((False, {}), (True, {"document_ids": documents})):
                torch._dynamo.reset()
                model = GPT(GPTConfig(**base, **kind))
                model.initialize(0, std=0.1)
                compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    out, wanted = compiled(ids, **extra), model(ids, **extra)
                assert out.dtype == (torch.bfloat16 if half else torch.float32)
                error = (out - wanted).abs().max() / wanted.abs().max()
                assert error <= (2**-5 if half else 1e-5), (kind, half, error)
                out.float().square().mean().backward()
                assert all(p.grad is not None for p in model.parameters())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]


def test_ids_need_two_axes() -> None:
    """Without jaxtyping's checks, as users run it."""
    code = """
        import torch
        from gptbook.config import tiny
        from gptbook.model import GPT
        GPT(tiny())(torch.tensor([1, 2, 3]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert "ValueError: ids must have shape (B, T), got (3,): ids[None]" in done.stderr


def test_autocast_stays_close_to_float32(seed: int) -> None:
    """bfloat16 rounds each product's factors to 2^-9; a few layers of that stay within 5 %."""
    for kind in ("gpt2", "qwen3", "mistral"):
        model, ids = make(kind, seed), random_ids(2, LENGTH)
        with torch.autocast("cpu", torch.bfloat16):
            close(model(ids).float(), model(ids.clone()).float())
            got = model(ids).float()
        close(got, model(ids), 0.05)


def test_half_precision_model(seed: int) -> None:
    for kind in ("gpt2", "vaswani", "qwen3", "llama31"):
        model, ids = make(kind, seed), random_ids(2, LENGTH)
        wanted = model(ids)
        got = model.bfloat16()(ids)
        assert got.dtype == torch.bfloat16
        close(got.float(), wanted, 0.1)


def test_gradients_reach_every_parameter(seed: int) -> None:
    for kind in KINDS:
        model = make(kind, seed)
        model(random_ids(2, LENGTH)).square().mean().backward()
        assert all(isinstance(m, nn.Module) for m in model.blocks)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, (kind, name)
