"""The layer: against torch's and transformers' layers and loops, and what no input may change."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gptbook.attention import AttentionMask, CausalSelfAttention
from gptbook.config import AttentionConfig, RopeConfig
from gptbook.kv_cache import KVCache
from gptbook.positions import RotaryPositions
from tests.attention_cases import (
    BACKENDS,
    RUNS_FLASH,
    Case,
    assert_close,
    generator,
    oracle,
    random_documents,
)

EVERY_BACKEND = pytest.mark.parametrize("backend", BACKENDS)
ROPE = RopeConfig()
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"n_head": 4},
    "bias": {"n_head": 2, "bias": True},
    "bias of the output only": {"n_head": 2, "output_bias": True},
    "rope": {"n_head": 4, "rope": ROPE},
    "grouped": {"n_head": 6, "n_kv_head": 2, "d_head": 4, "rope": ROPE},
    "one key head": {"n_head": 4, "n_kv_head": 1, "bias": True, "output_bias": False},
    "wide heads": {"n_head": 3, "d_head": 16, "rope": RopeConfig(base=500.0)},
    "window": {"n_head": 4, "n_kv_head": 2, "rope": ROPE, "sliding_window": 3},
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)


def make_layer(rng: random.Random, **settings: Any) -> CausalSelfAttention:
    """Return a layer whose scores differ enough that attention is not nearly uniform."""
    torch.manual_seed(rng.getrandbits(32))
    layer = CausalSelfAttention(AttentionConfig(**{"d_model": 24} | settings))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.3)
    return layer.eval()


def vectors(rng: random.Random, batch: int, length: int, d_model: int = 24) -> Tensor:
    return torch.randn(batch, length, d_model, generator=generator(rng))


def weights_of(layer: CausalSelfAttention, x: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    y, weights = layer(x, return_weights=True, **arguments)
    assert isinstance(weights, Tensor)
    return y, weights


# --- The slow twin: loops in float64 --------------------------------------------------------------


def turn(x: np.ndarray, positions: np.ndarray, base: float) -> np.ndarray:
    """Multiply the pairs (i, i + D/2), taken as complex numbers, by e^(i position frequency)."""
    half = x.shape[-1] // 2
    turned = np.empty_like(x)
    for b, t in np.ndindex(x.shape[0], x.shape[2]):
        for i in range(half):
            angle = positions[b, t] * base ** (-2 * i / x.shape[-1])
            z = (x[b, :, t, i] + 1j * x[b, :, t, i + half]) * np.exp(1j * angle)
            turned[b, :, t, i], turned[b, :, t, i + half] = z.real, z.imag
    return turned


def slow_layer(
    layer: CausalSelfAttention, x: Tensor, mask: AttentionMask, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the layer's output and weights, from its parameters alone."""
    config, (batch, length, _) = layer.config, x.shape
    d_head, n_head, n_kv_head = config.d_head, config.n_head, config.n_kv_head
    slow = copy.deepcopy(layer).double()
    rows = slow.qkv(x.double())
    heads = [rows[..., i * d_head : (i + 1) * d_head] for i in range(n_head + 2 * n_kv_head)]
    ends = (0, n_head, n_head + n_kv_head, n_head + 2 * n_kv_head)
    q, k, v = (torch.stack(heads[a:b], 1) for a, b in pairwise(ends))
    q = q if slow.q_norm is None else slow.q_norm(q)
    k = k if slow.k_norm is None else slow.k_norm(k)
    if config.rope is not None:
        places = torch.arange(length) if positions is None else positions
        numbers = places.expand(batch, length).numpy()
        q, k = (
            torch.from_numpy(turn(part.detach().numpy(), numbers, config.rope.base))
            for part in (q, k)
        )
    case = Case(q.detach(), k.detach(), v.detach(), torch.zeros(q.shape).double(), mask)
    found = {name: torch.from_numpy(value) for name, value in oracle(case).values.items()}
    y = slow.output(torch.cat(list(found["out"].unbind(1)), -1))
    return y.detach(), found["weights"]


@EVERY_SHAPE
@EVERY_BACKEND
def test_equals_the_loops(backend: str, shape: str, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    mask = AttentionMask(window=layer.config.sliding_window)
    for length in (1, 2, rng.randint(3, 12)):
        x = vectors(rng, rng.randint(1, 3), length)
        assert_close(layer(x), slow_layer(layer, x, mask)[0])


@EVERY_SHAPE
@EVERY_BACKEND
def test_documents_and_any_positions_equal_the_loops(
    backend: str, shape: str, rng: random.Random
) -> None:
    """Positions far apart, backwards and negative; documents that come back."""
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    for batch, length in ((1, 5), (3, 9)):
        x, documents = vectors(rng, batch, length), random_documents(rng, batch, length)
        positions = torch.tensor([[rng.randint(-50, 500) for _ in range(length)]] * batch)
        positions += torch.arange(batch)[:, None]
        mask = AttentionMask(
            window=layer.config.sliding_window,
            query_documents=documents,
            key_documents=documents,
        )
        # Angles up to 500 are off by up to 500 eps / 2 in float32: 250 more roundings of a pair.
        y = layer(x, positions=positions, document_ids=documents)
        assert_close(y, slow_layer(layer, x, mask, positions)[0], roundings=64 + 250)


def test_norms_of_queries_and_keys_come_before_the_rotation(rng: random.Random) -> None:
    """With gains that differ within a pair, so that the order of norm and rotation shows."""
    config = AttentionConfig(d_model=24, n_head=4, n_kv_head=2, rope=ROPE)
    q_norm, k_norm = nn.RMSNorm(6, eps=1e-6), nn.RMSNorm(6, eps=1e-6)
    torch.manual_seed(rng.getrandbits(32))
    nn.init.uniform_(q_norm.weight, 0.2, 3)
    nn.init.uniform_(k_norm.weight, 0.2, 3)
    layer = CausalSelfAttention(config, q_norm=q_norm, k_norm=k_norm)
    x = vectors(rng, 2, 7)
    assert_close(layer(x), slow_layer(layer, x, AttentionMask())[0])
    assert {"q_norm.weight", "k_norm.weight"} <= set(layer.state_dict())


@EVERY_SHAPE
def test_return_weights_equals_the_loops(shape: str, rng: random.Random) -> None:
    x, documents = vectors(rng, 2, 9), random_documents(rng, 2, 9)
    for backend in ("auto", "reference"):
        layer = make_layer(rng, backend=backend, **SHAPES[shape])
        mask = AttentionMask(
            window=layer.config.sliding_window, query_documents=documents, key_documents=documents
        )
        y, weights = weights_of(layer, x, document_ids=documents)
        expected_y, expected = slow_layer(layer, x, mask)
        assert_close(y, expected_y)
        assert_close(weights, expected)
        assert_close(layer(x, document_ids=documents), y)
        assert ((weights == 0) == (expected == 0)).all()


# --- Peers ----------------------------------------------------------------------------------------


def assert_same_function(layer: nn.Module, peer: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Compare outputs and the input's gradient; the parameters have their gradients after it."""
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(inputs[0]), peer(inputs[1])]
    assert_close(outputs[0], outputs[1])
    gradient = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(1))
    for output in outputs:
        output.backward(gradient)
    ours, theirs = (leaf.grad for leaf in inputs)
    assert ours is not None
    assert theirs is not None
    assert_close(ours, theirs)


def gradients_of(*parameters: Tensor | None) -> Tensor:
    """Return the gradients of parameters, one below the other."""
    found = [p.grad for p in parameters if p is not None and p.grad is not None]
    assert len(found) == len(parameters)
    return torch.cat(found)


@EVERY_BACKEND
@pytest.mark.parametrize("bias", [False, True])
def test_equals_torch(backend: str, bias: bool, rng: random.Random) -> None:
    layer = make_layer(rng, n_head=4, bias=bias, backend=backend)
    peer = nn.MultiheadAttention(24, 4, bias=bias, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(layer.qkv.weight)
        peer.out_proj.weight.copy_(layer.output.weight)
        if bias:
            peer.in_proj_bias.copy_(layer.qkv.bias)
            peer.out_proj.bias.copy_(layer.output.bias)
    x = vectors(rng, 3, 10)
    hidden = torch.ones(10, 10, dtype=torch.bool).triu(1)
    assert_same_function(layer, lambda x: peer(x, x, x, attn_mask=hidden, need_weights=False)[0], x)
    assert_close(gradients_of(layer.qkv.weight), gradients_of(peer.in_proj_weight))
    assert_close(gradients_of(layer.output.weight), gradients_of(peer.out_proj.weight))
    if bias:
        assert_close(gradients_of(layer.qkv.bias), gradients_of(peer.in_proj_bias))
        assert_close(gradients_of(layer.output.bias), gradients_of(peer.out_proj.bias))
    with torch.no_grad():
        _, expected = peer(x, x, x, attn_mask=hidden, average_attn_weights=False)
    if backend in ("auto", "reference"):
        assert_close(weights_of(layer, x)[1], expected)


def hidden_scores(length: int) -> Tensor:
    """Return the mask that transformers' eager attention adds, (1, 1, T, T)."""
    return torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]


@EVERY_BACKEND
def test_equals_gpt2(backend: str, rng: random.Random) -> None:
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    layer = make_layer(rng, n_head=4, bias=True, backend=backend)
    config = GPT2Config(n_embd=24, n_head=4, attn_pdrop=0, resid_pdrop=0)
    config._attn_implementation = "eager"
    peer = GPT2Attention(config, layer_idx=0).eval()
    with torch.no_grad():  # Conv1D has its weight the other way round
        for ours, theirs in ((layer.qkv, peer.c_attn), (layer.output, peer.c_proj)):
            theirs.weight.copy_(ours.weight.T)
            theirs.bias.copy_(ours.bias)
    x = vectors(rng, 3, 10)
    assert_same_function(layer, lambda x: peer(x, attention_mask=hidden_scores(10))[0], x)
    for ours, theirs in ((layer.qkv, peer.c_attn), (layer.output, peer.c_proj)):
        assert_close(gradients_of(ours.weight), gradients_of(theirs.weight).T)
        assert_close(gradients_of(ours.bias), gradients_of(theirs.bias))


@EVERY_BACKEND
@pytest.mark.parametrize(("n_kv_head", "d_head"), [(6, 4), (2, 4), (1, 8), (3, 16)])
def test_equals_llama(backend: str, n_kv_head: int, d_head: int, rng: random.Random) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    base = rng.choice([10_000.0, 500.0])
    layer = make_layer(
        rng,
        n_head=6,
        n_kv_head=n_kv_head,
        d_head=d_head,
        rope=RopeConfig(base=base),
        backend=backend,
    )
    config = LlamaConfig(
        hidden_size=24,
        num_attention_heads=6,
        num_key_value_heads=n_kv_head,
        head_dim=d_head,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    config._attn_implementation = "eager"
    peer, rotary = LlamaAttention(config, layer_idx=0), LlamaRotaryEmbedding(config)
    projections = (peer.q_proj, peer.k_proj, peer.v_proj)
    sizes = [projection.weight.shape[0] for projection in projections]
    with torch.no_grad():
        for projection, part in zip(projections, layer.qkv.weight.split(sizes), strict=True):
            projection.weight.copy_(part)
        peer.o_proj.weight.copy_(layer.output.weight)
    x, positions = vectors(rng, 3, 10), torch.arange(10)[None]

    def forward(x: Tensor) -> Tensor:
        y: Tensor = peer(x, rotary(x, positions), attention_mask=hidden_scores(10))[0]
        return y

    assert_same_function(layer, forward, x)
    weights = [projection.weight for projection in projections]
    assert_close(gradients_of(layer.qkv.weight), gradients_of(*weights))
    assert_close(gradients_of(layer.output.weight), gradients_of(peer.o_proj.weight))


# --- The future -----------------------------------------------------------------------------------


@EVERY_SHAPE
@EVERY_BACKEND
def test_the_future_changes_nothing(backend: str, shape: str, rng: random.Random) -> None:
    """Not one bit of the outputs before a changed place, however large the change."""
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    x = vectors(rng, 2, 9)
    documents = torch.zeros(2, 9, dtype=torch.long)
    for arguments in ({}, {"document_ids": documents}):
        before = layer(x, **arguments)
        for t in range(1, 9):
            changed = x.clone()
            changed[:, t:] = 1e4 * vectors(rng, 2, 9 - t)
            after = layer(changed, **arguments)
            assert torch.equal(after[:, :t], before[:, :t]), t
            assert not torch.equal(after[:, t], before[:, t])


@EVERY_SHAPE
@EVERY_BACKEND
def test_no_gradient_flows_from_an_output_into_the_future(
    backend: str, shape: str, rng: random.Random
) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    x = vectors(rng, 2, 9).requires_grad_()
    y = layer(x)
    window = layer.config.sliding_window or 9
    for t in range(9):
        gradient = torch.zeros_like(y)
        gradient[0, t] = vectors(rng, 1, 1)[0, 0]
        (found,) = torch.autograd.grad(y, x, gradient, retain_graph=True)
        moved = found[0].abs().sum(-1) > 0
        assert moved.tolist() == [t - window < s <= t for s in range(9)]
        assert (found[1] == 0).all()


@EVERY_BACKEND
def test_rows_of_a_batch_do_not_touch(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES["grouped"])
    x = vectors(rng, 3, 6)
    together = layer(x)
    for b in range(3):
        assert_close(together[b : b + 1], layer(x[b : b + 1]))


# --- Heads, documents, windows, padding -----------------------------------------------------------


@EVERY_BACKEND
def test_heads_may_change_places(backend: str, rng: random.Random) -> None:
    """Permuting key heads, with the queries of each, and the output's columns: same function."""
    layer = make_layer(rng, backend=backend, **SHAPES["grouped"] | {"bias": True})
    other = copy.deepcopy(layer)
    n_head, n_kv_head, d_head = 6, 2, 4
    groups = [[2, 0, 1], [5, 3, 4]]  # queries change places within their group too
    key_heads = [1, 0]
    query_heads = [h for group in key_heads for h in groups[group]]
    blocks = [
        *query_heads,
        *(n_head + h for h in key_heads),
        *(n_head + n_kv_head + h for h in key_heads),
    ]
    rows = [block * d_head + i for block in blocks for i in range(d_head)]
    columns = [h * d_head + i for h in query_heads for i in range(d_head)]
    with torch.no_grad():
        other.qkv.weight.copy_(layer.qkv.weight[rows])
        other.qkv.bias.copy_(layer.qkv.bias[rows])
        other.output.weight.copy_(layer.output.weight[:, columns])
    x = vectors(rng, 2, 8)
    assert_close(other(x), layer(x))
    if backend in ("auto", "reference"):
        assert_close(weights_of(other, x)[1], weights_of(layer, x)[1][:, query_heads])


def packed(rng: random.Random, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return documents in one row, their ids, and positions that start again in each."""
    ids = [document for document, length in enumerate(lengths) for _ in range(length)]
    positions = [place for length in lengths for place in range(length)]
    return vectors(rng, 1, sum(lengths)), torch.tensor([ids]), torch.tensor([positions])


@EVERY_SHAPE
@EVERY_BACKEND
def test_packed_documents_equal_documents_alone(
    backend: str, shape: str, rng: random.Random
) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    lengths = [1, 5, 2, rng.randint(1, 6)]
    x, documents, positions = packed(rng, lengths)
    alone = torch.cat([layer(part) for part in x.split(lengths, 1)], 1)
    assert_close(layer(x, document_ids=documents, positions=positions), alone)
    # RoPE's scores depend on distances only, so positions may also run on.
    assert_close(layer(x, document_ids=documents), alone)


@EVERY_BACKEND
def test_documents_change_and_stop_gradients(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES["rope"])
    x, documents, _ = packed(rng, [3, 4])
    x.requires_grad_()
    layer(x, document_ids=documents)[:, 3:].sum().backward()
    assert x.grad is not None
    assert (x.grad[:, :3] == 0).all()
    assert (x.grad[:, 3:] != 0).any()


@EVERY_BACKEND
def test_left_padding_by_documents_and_positions(backend: str, rng: random.Random) -> None:
    """Prompts of different lengths that end together: each as if it were alone."""
    layer = make_layer(rng, backend=backend, **SHAPES["window"])
    n_padding = [0, 3, 5]
    x = vectors(rng, 3, 6)
    documents = torch.tensor([[-1] * n + [0] * (6 - n) for n in n_padding])
    positions = torch.tensor([[max(0, t - n) for t in range(6)] for n in n_padding])
    y = layer(x, document_ids=documents, positions=positions)
    for b, n in enumerate(n_padding):
        assert_close(y[b : b + 1, n:], layer(x[b : b + 1, n:]))


@pytest.mark.parametrize("window", [1, 2, 5, 9, 50])
@EVERY_BACKEND
def test_sliding_window_equals_a_dense_mask(backend: str, window: int, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, n_head=4, sliding_window=window)
    x = vectors(rng, 2, 9)
    q, k, v = (part.unflatten(-1, (4, 6)).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    visible = torch.ones(9, 9, dtype=torch.bool).tril() & ~torch.ones(9, 9).bool().tril(-window)
    scores = (q @ k.mT / 6**0.5).masked_fill(~visible, -torch.inf)
    expected = layer.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert_close(layer(x), expected)


@EVERY_BACKEND
def test_positions_of_one_row_serve_all(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES["rope"])
    x, positions = vectors(rng, 3, 6), torch.tensor([9, 2, 7, 7, 1, 3])
    expected = layer(x, positions=positions.expand(3, 6))
    assert torch.equal(layer(x, positions=positions), expected)
    assert not torch.allclose(layer(x), expected)


def test_positions_matter_by_their_differences_only(rng: random.Random) -> None:
    layer = make_layer(rng, **SHAPES["rope"])
    x = vectors(rng, 2, 6)
    # Angles up to 1000 are off by up to 1000 eps / 2.
    assert_close(layer(x, positions=torch.arange(6) + 1000), layer(x), roundings=64 + 500)
    assert not torch.allclose(layer(x, positions=torch.arange(6) * 2), layer(x), atol=1e-3)


@EVERY_BACKEND
def test_rotation_and_mask_may_be_computed_once(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES["window"])
    x, documents, positions = packed(rng, [2, 5, 3])
    expected = layer(x, document_ids=documents, positions=positions)
    rotation = RotaryPositions(layer.config.d_head, ROPE)(positions)
    mask = AttentionMask(window=3, query_documents=documents, key_documents=documents)
    assert torch.equal(layer(x, rotation=rotation, mask=mask), expected)
    # What is given beside them plays no part.
    other = {"positions": positions * 3, "document_ids": documents * 0}
    assert torch.equal(layer(x, rotation=rotation, mask=mask, **other), expected)


# --- Nothing else changes -------------------------------------------------------------------------


def state(layer: nn.Module) -> dict[str, Tensor]:
    tensors = {**layer.state_dict(), **dict(layer.named_buffers())}
    return {name: tensor.clone() for name, tensor in tensors.items()}


@EVERY_SHAPE
@EVERY_BACKEND
def test_forward_changes_neither_layer_nor_inputs(
    backend: str, shape: str, rng: random.Random
) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    x, documents, positions = packed(rng, [4, 3])
    tensors = (x, documents, positions)
    before, copies = state(layer), [tensor.clone() for tensor in tensors]
    attributes = set(vars(layer))
    first = layer(x, document_ids=documents, positions=positions)
    first.sum().backward()
    second = layer(x, document_ids=documents, positions=positions)
    assert torch.equal(first, second)
    assert set(vars(layer)) == attributes
    after = state(layer)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(map(torch.equal, tensors, copies))


def test_state_dict_holds_the_projections_only(rng: random.Random) -> None:
    layer = make_layer(rng, n_head=6, n_kv_head=2, d_head=4, bias=True, rope=ROPE)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        "qkv.weight": (40, 24),
        "qkv.bias": (40,),
        "output.weight": (24, 24),
        "output.bias": (24,),
    }
    plain = make_layer(rng, n_head=6, bias=True, output_bias=False)
    assert set(plain.state_dict()) == {"qkv.weight", "qkv.bias", "output.weight"}
    assert set(make_layer(rng, n_head=6).state_dict()) == {"qkv.weight", "output.weight"}


def test_a_config_is_filled_in_when_made() -> None:
    config = AttentionConfig(d_model=24, n_head=4, bias=True)
    assert (config.n_kv_head, config.d_head, config.output_bias) == (4, 6, True)
    assert replace(config, bias=False).output_bias is True
    given = AttentionConfig(d_model=24, n_head=5, n_kv_head=1, d_head=8, output_bias=True)
    assert (given.n_kv_head, given.d_head, given.bias, given.output_bias) == (1, 8, False, True)


# --- Dropout and types ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa"])
def test_dropout_is_of_training_only(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, n_head=4, dropout=0.5, backend=backend)
    plain = CausalSelfAttention(replace(layer.config, dropout=0.0))
    plain.load_state_dict(layer.state_dict())
    x = vectors(rng, 2, 9)
    assert torch.equal(layer(x), plain(x))
    layer.train()
    torch.manual_seed(seed := rng.getrandbits(32))
    first = layer(x)
    # All 2 * 4 * 45 weights fall alike in two calls with a chance of 2^-360.
    assert not torch.equal(first, layer(x))
    torch.manual_seed(seed)
    assert torch.equal(first, layer(x))


def test_dropout_in_training_is_refused_by_the_tiled_backend(rng: random.Random) -> None:
    layer = make_layer(rng, n_head=4, dropout=0.5, backend="tiled").train()
    with pytest.raises(ValueError, match="dropout"):
        layer(vectors(rng, 1, 3))


@EVERY_BACKEND
@pytest.mark.parametrize("shape", ["plain", "grouped", "window"])
def test_bfloat16(backend: str, shape: str, rng: random.Random) -> None:
    """Off by no more than 4 times what rounding weights and inputs alone changes, measured.

    The other roundings, of queries, keys, values, weights, heads and output, are six more of the
    same size.
    """
    layer = make_layer(rng, backend=backend, **SHAPES[shape])
    x = vectors(rng, 2, 12)
    low = copy.deepcopy(layer).bfloat16()
    found = low(x.bfloat16())
    assert found.dtype == torch.bfloat16
    exact = copy.deepcopy(low).float()(x.bfloat16().float())
    allowed = 4 * float((layer(x) - exact).square().mean().sqrt().detach())
    assert float((found.float() - exact).square().mean().sqrt().detach()) < allowed


@EVERY_BACKEND
def test_bfloat16_keeps_far_positions_apart(backend: str, rng: random.Random) -> None:
    """Positions and frequencies stay in float32 when the layer becomes bfloat16.

    In bfloat16 the frequencies would be off by up to 2^-9 of them: with the second of three, 0.05,
    by up to half a radian between places 5,000 apart. (Scores see only how far apart places are.)
    """
    layer = make_layer(rng, backend=backend, **SHAPES["rope"])
    x, positions = vectors(rng, 2, 12), torch.arange(12) * 5003
    low = copy.deepcopy(layer).bfloat16()
    exact = layer(x, positions=positions)
    error = float((low(x.bfloat16(), positions=positions).float() - exact).detach().std())
    near = float((low(x.bfloat16()).float() - layer(x)).detach().std())
    # As near as places close to 0 are. A wrong turn changes the output by as much as its own size.
    assert error < 3 * near


@EVERY_BACKEND
def test_autocast(backend: str, rng: random.Random) -> None:
    """Mixed precision: weights in float32, products in bfloat16, as near as a bfloat16 layer."""
    layer = make_layer(rng, backend=backend, **SHAPES["window"])
    x = vectors(rng, 2, 12)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    low = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    near = float((low.float() - exact).square().mean().sqrt().detach())
    assert float((found.float() - exact).square().mean().sqrt().detach()) < 2 * near
    found.float().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


# --- With a cache ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_weights_with_a_cache(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, backend=backend, **SHAPES["window"])
    x = vectors(rng, 2, 7)
    cache = KVCache(1, 2, 2, 6, capacity=7)
    with torch.no_grad():
        _, expected = weights_of(layer, x)
        layer(x[:, :4], kv_cache=cache)
        cache.advance(4)
        _, weights = weights_of(layer, x[:, 4:], kv_cache=cache)
    assert weights.shape == (2, 4, 3, 7)
    assert_close(weights, expected[:, :, 4:])


# --- What is refused ------------------------------------------------------------------------------


def configured(**settings: Any) -> Callable[[], object]:
    return lambda: AttentionConfig(**{"d_model": 24, "n_head": 4} | settings)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (configured(d_model=25), ["d_model", "25", "n_head", "4"]),
        (configured(d_model=0), ["d_model", "0"]),
        (configured(n_head=0), ["n_head", "0"]),
        (configured(n_head=-4), ["n_head", "-4"]),
        (configured(n_kv_head=3), ["n_head", "4", "n_kv_head", "3"]),
        (configured(n_kv_head=8), ["n_head", "4", "n_kv_head", "8"]),
        (configured(n_kv_head=0), ["n_kv_head", "0"]),
        (configured(d_head=0), ["d_head", "0"]),
        (configured(d_head=5, rope=ROPE), ["d_head", "5", "even"]),
        (configured(d_model=20, rope=ROPE), ["d_head", "5", "even"]),
        (configured(sliding_window=0), ["sliding_window", "0", "1"]),
        (configured(sliding_window=-2), ["sliding_window", "-2"]),
        (configured(backend="fast"), ["backend", "fast", "sdpa", "reference"]),
        (configured(backend=None), ["backend", "None", "auto"]),
        (configured(dropout=1.0), ["dropout", "1.0", "below 1"]),
        (configured(dropout=-0.1), ["dropout", "-0.1"]),
        (configured(dropout=float("nan")), ["dropout", "nan"]),
    ],
)
def test_config_errors_name_argument_value_and_remedy(
    act: Callable[[], object], words: list[str]
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        act()
    message = str(raised.value)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("backend", ["sdpa", "tiled", "flash"])
def test_weights_of_a_backend_that_makes_none_are_refused(backend: str, rng: random.Random) -> None:
    layer = make_layer(rng, n_head=4, backend=backend)
    with pytest.raises(ValueError, match=f"{backend}.*weights"):
        layer(vectors(rng, 1, 3), return_weights=True)


@pytest.mark.skipif(RUNS_FLASH, reason="the flash backend can serve here")
def test_flash_is_refused_where_it_cannot_run(rng: random.Random) -> None:
    layer = make_layer(rng, n_head=4, backend="flash")
    with pytest.raises(ValueError, match=r"(?i)flash.*(cuda|gpu|interpret)"):
        layer(vectors(rng, 1, 3))


def test_documents_with_a_cache_are_refused(rng: random.Random) -> None:
    """The cache does not know whose its keys are; `mask` can say it."""
    layer = make_layer(rng, n_head=4)
    cache = KVCache(1, 1, 4, 6, capacity=7)
    with pytest.raises(ValueError, match=r"document_ids.*kv_cache"), torch.no_grad():
        layer(vectors(rng, 1, 3), document_ids=torch.zeros(1, 3, dtype=torch.long), kv_cache=cache)
    assert cache.lengths == (0,)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (3,), (4, 3)])
def test_positions_of_another_shape_are_refused(shape: tuple[int, ...], rng: random.Random) -> None:
    layer, x = make_layer(rng, **SHAPES["rope"]), vectors(rng, 3, 4)
    with pytest.raises((ValueError, TypeError)):
        layer(x, positions=torch.zeros(shape, dtype=torch.long))
