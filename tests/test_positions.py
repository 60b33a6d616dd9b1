"""Embeddings and positions against transformers, slow loops, and what their definitions imply."""

import copy
import math
import random
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gptbook.config import RopeConfig, RopeScaling
from gptbook.layers import EMBEDDING_STD, LearnedPositions, TokenEmbedding
from gptbook.positions import (
    RotaryPositions,
    Rotation,
    alibi_bias,
    alibi_slopes,
    apply_rotary,
    rope_frequencies,
    sinusoidal_positions,
)

EPS = torch.finfo(torch.float32).eps


@pytest.fixture
def draw(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.getrandbits(48))


def normal(draw: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=draw, dtype=dtype)


# --- Embeddings -----------------------------------------------------------------------------------


def test_lookup_is_a_one_hot_product_with_its_gradient(
    rng: random.Random, draw: torch.Generator
) -> None:
    vocab_size, d_model = rng.randint(5, 40), rng.randint(1, 9)
    layer = TokenEmbedding(vocab_size, d_model)
    ids = torch.randint(vocab_size - 1, (3, 11), generator=draw)  # the last id is never used
    weights = normal(draw, 3, 11, d_model)
    (layer(ids) * weights).sum().backward()
    table = layer.weight.detach().clone().requires_grad_()
    product = one_hot(ids, vocab_size).float() @ table
    (product * weights).sum().backward()
    assert torch.equal(layer(ids), product)
    assert layer.weight.grad is not None
    assert table.grad is not None
    # Up to 33 places add to one row, in another order: a few roundings of sums of that size.
    torch.testing.assert_close(layer.weight.grad, table.grad, rtol=1e-5, atol=33 * 4 * EPS)
    assert (layer.weight.grad[-1] == 0).all()


def test_output_uses_the_same_table(draw: torch.Generator) -> None:
    layer = TokenEmbedding(13, 6)
    hidden = normal(draw, 2, 5, 6)
    torch.testing.assert_close(layer.logits(hidden), hidden @ layer.weight.T)
    layer.logits(hidden).sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad != 0).all()  # as an output, every row has a gradient
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_tables_are_drawn_with_the_stated_deviation() -> None:
    for weight in (TokenEmbedding(500, 400).weight, LearnedPositions(500, 400).weight):
        # The deviation of n draws is off by 1/sqrt(2n) = 0.0016 of itself; ten times that.
        assert float(weight.detach().std()) == pytest.approx(EMBEDDING_STD, rel=0.016)


def test_learned_positions_are_rows(draw: torch.Generator) -> None:
    layer = LearnedPositions(9, 4)
    positions = torch.randint(9, (3, 7), generator=draw)
    assert torch.equal(layer(positions), layer.weight[positions])
    assert torch.equal(layer(positions[0]), layer.weight[positions[0]])
    assert torch.equal(layer(positions.int()), layer(positions))


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_ids_outside_the_table_are_named(wrong: int) -> None:
    ids = torch.tensor([[1, 2, 0], [3, wrong, wrong]])
    with pytest.raises(ValueError, match=rf"ids holds {wrong} at \[1, 1\].* 0 to 8 .vocab_size"):
        TokenEmbedding(9, 4)(ids)
    with pytest.raises(ValueError, match=rf"positions holds {wrong} at .*context_length is 9"):
        LearnedPositions(9, 4)(ids)
    assert TokenEmbedding(9, 4)(ids[:, :0]).shape == (2, 0, 4)  # no ids, none of them wrong


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_ids_that_are_no_ints(dtype: torch.dtype) -> None:
    ids = torch.zeros(1, 3, dtype=dtype)
    with pytest.raises(TypeError):
        TokenEmbedding(9, 4)(ids)
    with pytest.raises(TypeError):
        LearnedPositions(9, 4)(ids)
    with pytest.raises(TypeError):
        RotaryPositions(4, RopeConfig())(ids)


@pytest.mark.parametrize("make", [TokenEmbedding, LearnedPositions])
def test_sizes_that_are_none(make: Callable[[Any, Any], nn.Module]) -> None:
    for sizes in [(0, 4), (4, 0), (-1, 4)]:
        with pytest.raises(ValueError, match="must be at least 1"):
            make(*sizes)
    with pytest.raises(TypeError):
        make(True, 4)


# --- Sinusoidal -----------------------------------------------------------------------------------


def test_sinusoidal_against_a_slow_loop(rng: random.Random) -> None:
    d_model, base = 2 * rng.randint(1, 20), 10 ** rng.uniform(1, 5)
    positions = [0, 1, 2, rng.randint(3, 100), rng.randint(1000, 100_000), -7]
    fast = sinusoidal_positions(torch.tensor(positions), d_model, base)
    assert fast.dtype == torch.float32
    for position, row in zip(positions, fast.tolist(), strict=True):
        for i in range(d_model // 2):
            angle = position * base ** (-2 * i / d_model)
            # The angle is a float32 product of a float32 power: some roundings of its own size,
            # more for the power, whose exponent is rounded too.
            tolerance = 2 * EPS + 4 * EPS * abs(angle) * max(1, math.log(base))
            assert row[2 * i] == pytest.approx(math.sin(angle), abs=tolerance)
            assert row[2 * i + 1] == pytest.approx(math.cos(angle), abs=tolerance)


def test_sinusoidal_offset_is_a_rotation(rng: random.Random) -> None:
    d_model, k = 16, rng.randint(1, 30)
    t = torch.arange(50)
    here, there = sinusoidal_positions(t, d_model), sinusoidal_positions(t + k, d_model)
    step = sinusoidal_positions(torch.tensor(k), d_model)
    sin_k, cos_k = step[0::2], step[1::2]
    turned_sin = here[:, 0::2] * cos_k + here[:, 1::2] * sin_k
    turned_cos = here[:, 1::2] * cos_k - here[:, 0::2] * sin_k
    # Angles below 80, each a rounded product: 80 * EPS, on both sides, and some for the rest.
    torch.testing.assert_close(turned_sin, there[:, 0::2], rtol=0, atol=400 * EPS)
    torch.testing.assert_close(turned_cos, there[:, 1::2], rtol=0, atol=400 * EPS)


def test_sinusoidal_keeps_the_shape_of_positions() -> None:
    positions = torch.arange(24).reshape(2, 3, 4)
    many = sinusoidal_positions(positions, 6)
    assert many.shape == (2, 3, 4, 6)
    assert torch.equal(many.reshape(24, 6), sinusoidal_positions(torch.arange(24), 6))
    assert sinusoidal_positions(torch.tensor(3), 6).shape == (6,)


# --- RoPE's frequencies, against transformers -----------------------------------------------------


def from_transformers(
    kind: str, d_head: int, parameters: dict[str, Any], *, seq_len: int | None = None, trained: int
) -> tuple[Tensor, float]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = SimpleNamespace(
        head_dim=d_head,
        hidden_size=4 * d_head,
        num_attention_heads=4,
        max_position_embeddings=trained,
        rope_parameters=parameters,
        standardize_rope_params=lambda: None,
    )
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, seq_len=seq_len)
    return frequencies, factor


def random_case(rng: random.Random) -> tuple[int, float, float, int]:
    """Return a head size, a base, a factor and a trained length."""
    return (
        2 * rng.randint(2, 80),
        10 ** rng.uniform(2, 6.5),
        rng.choice([1, 1.5, 4.0, rng.uniform(1, 64)]),
        rng.choice([64, 512, 2048, 8192, 131_072]),
    )


# Both compute in float32; powers and the mixture of two frequencies may round differently.
RTOL = 8 * EPS


def test_linear_is_transformers(rng: random.Random) -> None:
    for _ in range(50):
        d_head, base, factor, trained = random_case(rng)
        theirs, _ = from_transformers(
            "linear", d_head, {"rope_theta": base, "factor": factor}, trained=trained
        )
        ours, scale = rope_frequencies(d_head, RopeConfig(base, RopeScaling("linear", factor)))
        torch.testing.assert_close(ours, theirs, rtol=RTOL, atol=0)
        assert scale == 1
        assert ours.dtype == torch.float32


def test_ntk_is_transformers_dynamic_at_the_length_that_needs_the_factor(
    rng: random.Random,
) -> None:
    """Their factor grows with the text: at factor 1, a text n times as long has n."""
    for _ in range(50):
        d_head, base, _, trained = random_case(rng)
        factor = rng.randint(1, 64)
        theirs, _ = from_transformers(
            "dynamic",
            d_head,
            {"rope_theta": base, "factor": 1.0},
            seq_len=factor * trained,
            trained=trained,
        )
        ours, scale = rope_frequencies(d_head, RopeConfig(base, RopeScaling("ntk", factor)))
        torch.testing.assert_close(ours, theirs, rtol=RTOL, atol=0)
        assert scale == 1
        by_hand = [
            (base * factor ** (d_head / (d_head - 2))) ** (-2 * i / d_head)
            for i in range(d_head // 2)
        ]
        # A power of a float32 exponent: its rounding times the logarithm of the base.
        tolerance = 4 * EPS * (1 + math.log(base * factor**2))
        assert ours.tolist() == pytest.approx(by_hand, rel=tolerance)
        plain, _ = rope_frequencies(d_head, RopeConfig(base))
        assert float(ours[0]) == 1  # the fastest pair stays,
        # and the slowest is slowed by exactly the factor
        assert float(plain[-1] / ours[-1]) == pytest.approx(factor, rel=2 * tolerance)


@pytest.mark.parametrize("explicit", [False, True])
def test_yarn_is_transformers(rng: random.Random, explicit: bool) -> None:
    for _ in range(100):
        d_head, base, factor, trained = random_case(rng)
        fast, slow = (rng.uniform(8, 64), rng.uniform(0.5, 4)) if explicit else (32.0, 1.0)
        attention_factor = rng.uniform(0.5, 2) if explicit else None
        scaling = RopeScaling(
            "yarn", factor, trained, fast, slow, attention_factor=attention_factor
        )
        if is_one_sided(d_head, base, scaling):
            continue  # documented: see the test below
        parameters = {
            "rope_theta": base,
            "factor": factor,
            "beta_fast": fast,
            "beta_slow": slow,
            "attention_factor": attention_factor,
            "original_max_position_embeddings": trained,
        }
        theirs, their_scale = from_transformers("yarn", d_head, parameters, trained=trained)
        ours, scale = rope_frequencies(d_head, RopeConfig(base, scaling))
        torch.testing.assert_close(ours, theirs, rtol=RTOL, atol=0)
        assert scale == pytest.approx(their_scale, rel=1e-12)


def is_one_sided(d_head: int, base: float, scaling: RopeScaling) -> bool:
    """Whether all pairs turn more than beta_fast times, or none as often as beta_slow."""
    trained = scaling.original_context_length
    assert trained is not None

    def index(times: float) -> float:
        return d_head * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))

    first, last = math.floor(index(scaling.beta_fast)), math.ceil(index(scaling.beta_slow))
    return last < 0 or first > d_head - 1


def test_yarn_where_all_pairs_are_on_one_side() -> None:
    plain, _ = rope_frequencies(16, RopeConfig())
    short, _ = rope_frequencies(16, RopeConfig(scaling=RopeScaling("yarn", 4.0, 1)))
    torch.testing.assert_close(short, plain / 4)  # nothing turns once within a token
    config = RopeConfig(4.0, RopeScaling("yarn", 4.0, 100_000))
    long, _ = rope_frequencies(16, config)
    torch.testing.assert_close(long, rope_frequencies(16, RopeConfig(4.0))[0])


def test_llama3_is_transformers(rng: random.Random) -> None:
    for _ in range(100):
        d_head, base, factor, trained = random_case(rng)
        low = rng.choice([1.0, rng.uniform(0.5, 2)])
        high = low + rng.choice([3.0, rng.uniform(0.5, 8)])
        parameters = {
            "rope_theta": base,
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": trained,
        }
        theirs, _ = from_transformers("llama3", d_head, parameters, trained=trained)
        scaling = RopeScaling("llama3", factor, trained, low_freq_factor=low, high_freq_factor=high)
        ours, scale = rope_frequencies(d_head, RopeConfig(base, scaling))
        # The share is a difference of turns over a difference of bounds: both amplify rounding.
        amplified = RTOL * (1 + factor) * (1 + high / (high - low))
        torch.testing.assert_close(ours, theirs, rtol=amplified, atol=0)
        assert scale == 1


# --- Turning --------------------------------------------------------------------------------------


def test_apply_rotary_is_transformers(rng: random.Random, draw: torch.Generator) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    d_head, base = 2 * rng.randint(1, 40), 10 ** rng.uniform(2, 6)
    config = LlamaConfig(
        hidden_size=2 * d_head,
        num_attention_heads=2,
        head_dim=d_head,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    q, k = normal(draw, 3, 4, 9, d_head), normal(draw, 3, 2, 9, d_head)
    positions = torch.randint(5000, (3, 9), generator=draw)
    cos, sin = LlamaRotaryEmbedding(config)(q, positions)
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    rotation = RotaryPositions(d_head, RopeConfig(base))(positions)
    assert torch.equal(rotation.cos, cos[..., : d_head // 2])  # the same bits
    assert torch.equal(rotation.sin, sin[..., : d_head // 2])
    for ours, expected in zip((q, k), theirs, strict=True):
        # The same two products and a sum; some machines fuse one product with the sum.
        torch.testing.assert_close(apply_rotary(ours, rotation), expected, rtol=0, atol=16 * EPS)


def double_rotation(positions: Tensor, d_head: int, base: float = 10000.0) -> Rotation:
    frequencies = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angles = positions[None, :, None].double() * frequencies
    return Rotation(angles.cos(), angles.sin())


def test_scores_depend_on_distance_alone(draw: torch.Generator, rng: random.Random) -> None:
    d_head, distance = 32, rng.randint(0, 500)
    q, k = normal(draw, 1, 1, 1, d_head).double(), normal(draw, 1, 1, 1, d_head).double()
    scores = []
    for m in (distance, distance + 17, 10_000, 1_000_000):
        turned_q = apply_rotary(q, double_rotation(torch.tensor([m]), d_head))
        turned_k = apply_rotary(k, double_rotation(torch.tensor([m - distance]), d_head))
        scores.append(float((turned_q * turned_k).sum()))
    # Angles up to 10^6 in float64 are right to 10^6 * 2e-16; times the vectors' lengths, times ten.
    size = float(q.norm() * k.norm())
    assert scores == pytest.approx([scores[0]] * 4, abs=size * 1e6 * 2.2e-16 * 10)


def test_turning_keeps_lengths_and_undoes(draw: torch.Generator) -> None:
    rotary = RotaryPositions(24, RopeConfig())
    x = normal(draw, 2, 3, 8, 24)
    positions = torch.randint(-3000, 3000, (2, 8), generator=draw)
    turned = apply_rotary(x, rotary(positions))
    # 24 squares are summed, each off by some roundings.
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=32 * EPS, atol=0)
    torch.testing.assert_close(apply_rotary(turned, rotary(-positions)), x, rtol=0, atol=32 * EPS)
    assert torch.equal(apply_rotary(x, rotary(torch.zeros(8, dtype=torch.int64))), x)


def test_positions_are_arbitrary(draw: torch.Generator) -> None:
    """Each place is turned by its own position, whatever stands beside it."""
    rotary = RotaryPositions(8, RopeConfig())
    x = normal(draw, 2, 3, 5, 8)
    positions = torch.tensor([[0, 0, 0, 1, 2], [3, 4, 0, 1, 2]])  # left padding; two documents
    turned = apply_rotary(x, rotary(positions))
    for b in range(2):
        for t in range(5):
            one = apply_rotary(x[b : b + 1, :, t : t + 1], rotary(positions[b, t : t + 1]))
            assert torch.equal(turned[b : b + 1, :, t : t + 1], one)
    shared = rotary(torch.arange(5))
    assert shared.cos.shape == (1, 5, 4)
    assert torch.equal(
        apply_rotary(x, shared), apply_rotary(x, rotary(torch.arange(5).expand(2, 5)))
    )


def test_half_types_are_turned_in_float32(draw: torch.Generator) -> None:
    x = normal(draw, 1, 2, 6, 16)
    rotation = RotaryPositions(16, RopeConfig())(torch.arange(1000, 1006))
    for dtype in (torch.bfloat16, torch.float16):
        turned = apply_rotary(x.to(dtype), rotation)
        assert turned.dtype == dtype
        assert torch.equal(turned, apply_rotary(x.to(dtype).float(), rotation).to(dtype))
    assert apply_rotary(x.double(), rotation).dtype == torch.float64


def test_yarn_scales_the_tables() -> None:
    scaling = RopeScaling("yarn", 4.0, 64, attention_factor=1.5)
    rotation = RotaryPositions(8, RopeConfig(scaling=scaling))(torch.arange(6))
    length = rotation.cos.square() + rotation.sin.square()
    torch.testing.assert_close(length, torch.full_like(length, 2.25))


def test_gradient_turns_back(draw: torch.Generator) -> None:
    x = normal(draw, 1, 2, 3, 6, dtype=torch.float64).requires_grad_()
    rotation = RotaryPositions(6, RopeConfig())(torch.tensor([5, 0, 2]))
    assert torch.autograd.gradcheck(lambda x: apply_rotary(x, rotation), (x,))


@pytest.mark.parametrize(
    "move",
    [
        lambda model: model.to(torch.bfloat16),
        lambda model: model.half(),
        lambda model: model.double(),
        lambda model: model.to("meta").to_empty(device="cpu"),
        copy.deepcopy,
    ],
)
def test_frequencies_stay_exact_when_a_model_is_converted(
    move: Callable[[nn.Module], nn.Module],
) -> None:
    rotary = RotaryPositions(16, RopeConfig(scaling=RopeScaling("linear", 3.0)))
    before = rotary.inv_freq.clone()
    model = nn.ModuleDict({"rotary": rotary, "linear": nn.Linear(2, 2)})
    after = move(model).get_submodule("rotary").inv_freq
    assert isinstance(after, Tensor)
    assert after.dtype == torch.float32
    assert torch.equal(after, before)
    assert "rotary.inv_freq" not in model.state_dict()


COMPILED = """
import torch
from gptbook.config import RopeConfig
from gptbook.layers import LearnedPositions, TokenEmbedding
from gptbook.positions import RotaryPositions, apply_rotary

rotary, table = RotaryPositions(8, RopeConfig()), TokenEmbedding(11, 8)
learned = LearnedPositions(16, 8)

def layers(ids, positions):
    x = (table(ids) + learned(positions))[:, None]
    return table.logits(apply_rotary(x, rotary(positions))[:, 0])

ids, positions = torch.randint(11, (2, 5)), torch.arange(5)
compiled = torch.compile(layers, fullgraph=True, backend="eager")
torch.testing.assert_close(compiled(ids, positions), layers(ids, positions))
"""


def test_no_graph_breaks_under_compile() -> None:
    """In a process of its own: the checks of shapes that conftest installs cannot be compiled."""
    result = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr


# --- ALiBi ----------------------------------------------------------------------------------------


def slow_slopes(n: int) -> list[float]:
    """The rule as the paper's authors wrote it in their code."""

    def of_a_power(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(n).is_integer():
        return of_a_power(n)
    closest = 2 ** math.floor(math.log2(n))
    return of_a_power(closest) + slow_slopes(2 * closest)[0::2][: n - closest]


def test_slopes_are_the_papers() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    for n_head in range(1, 70):
        slopes = alibi_slopes(n_head)
        assert slopes.shape == (n_head,)
        assert slopes.tolist() == pytest.approx(slow_slopes(n_head), rel=4 * EPS)


def test_alibi_bias_against_a_slow_loop(rng: random.Random) -> None:
    n_head = rng.randint(1, 12)
    queries = [rng.randint(0, 50) for _ in range(4)]
    keys = [rng.randint(0, 50) for _ in range(7)]
    bias = alibi_bias(n_head, torch.tensor(queries), torch.tensor(keys))
    assert bias.shape == (n_head, 4, 7)
    assert bias.dtype == torch.float32
    for h, slope in enumerate(slow_slopes(n_head)):
        for i, query in enumerate(queries):
            for j, key in enumerate(keys):
                assert float(bias[h, i, j]) == pytest.approx(-slope * abs(query - key), rel=8 * EPS)


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dynamic"}, "kind is 'dynamic'; choose one of linear, ntk, yarn, llama3"),
        ({"factor": 0.5}, "factor must be a finite number of at least 1, got 0.5"),
        ({"factor": math.inf}, "factor must be a finite number"),
        ({"factor": math.nan}, "factor must be a finite number"),
        ({"original_context_length": None}, "original_context_length is None"),
        ({"original_context_length": 0}, "original_context_length must be at least 1"),
        ({"beta_slow": 0.0}, "beta_slow must be finite and above 0"),
        ({"beta_fast": 1.0}, "beta_fast must be finite and above 1.0"),
        ({"low_freq_factor": -1.0}, "low_freq_factor must be finite and above 0"),
        ({"high_freq_factor": 1.0}, "high_freq_factor must be finite and above 1.0"),
        ({"attention_factor": 0.0}, "attention_factor must be finite and above 0"),
        ({"kind": "linear", "attention_factor": 1.0}, "kind 'linear' has none"),
    ],
)
def test_scalings_that_cannot_be(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"kind": "yarn", "factor": 2.0, "original_context_length": 64}
    RopeScaling(**good)
    with pytest.raises(ValueError, match=message):
        RopeScaling(**(good | change))


def test_rope_configs_that_cannot_be() -> None:
    for base in (-10000.0, 0.0, 1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="base must be"):
            RopeConfig(base)
        with pytest.raises(ValueError, match="base must be"):
            sinusoidal_positions(torch.arange(3), 4, base)
    with pytest.raises(TypeError, match="scaling must be a RopeScaling or None"):
        RopeConfig(scaling={"kind": "linear"})  # type: ignore[arg-type]
    for d_head in (7, 1, 0, -2):
        with pytest.raises(ValueError, match="d_head must be"):
            RotaryPositions(d_head, RopeConfig())
        with pytest.raises(ValueError, match="d_model must be"):
            sinusoidal_positions(torch.arange(3), d_head)
    with pytest.raises(ValueError, match="d_head must be above 2 for 'ntk'"):
        rope_frequencies(2, RopeConfig(scaling=RopeScaling("ntk", 2.0)))
    with pytest.raises(ValueError, match="n_head must be at least 1"):
        alibi_slopes(0)


def test_rotations_that_do_not_fit(draw: torch.Generator) -> None:
    rotary = RotaryPositions(8, RopeConfig())
    x = normal(draw, 2, 3, 5, 8)
    for rotation in (
        rotary(torch.arange(4)),  # another T
        rotary(torch.arange(15).reshape(3, 5)),  # another B
        RotaryPositions(6, RopeConfig())(torch.arange(5)),  # another D
    ):
        with pytest.raises(ValueError, match=r"rotation must have shape \(2 or 1, 5, 4\)"):
            apply_rotary(x, rotation)
    with pytest.raises(ValueError, match="rotation must have shape"):
        apply_rotary(x[..., :7], rotary(torch.arange(5)))
    with pytest.raises(ValueError, match="positions must have shape"):
        rotary(torch.zeros(1, 2, 3, dtype=torch.int64))
