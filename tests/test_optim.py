"""Optimizers against torch's own, what decays, and clipping."""

import copy
import math
import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gptbook import optim
from gptbook.config import GPTConfig
from gptbook.model import GPT
from gptbook.optim import (
    SGD,
    Adam,
    AdamW,
    Muon,
    clip_grad_norm,
    decay_groups,
    gradient_norm,
    orthogonalize,
    sort_parameters,
)

SHAPES = ((7, 5), (5, 7), (33,), (1, 1), (2, 3, 4), (128, 64))
Make = Callable[[list[nn.Parameter]], Optimizer]


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fresh random numbers in each test; a failure shows the seed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed = {seed}")
    torch.manual_seed(seed)
    return seed


def numbers(stream: int) -> torch.Generator:
    """Return a generator of the test's numbers, the same for the same stream."""
    return torch.Generator().manual_seed(torch.initial_seed() + stream)


def parameters(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[nn.Parameter]:
    generator = numbers(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(step: int, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> Iterator[Tensor]:
    """Yield gradients of very different sizes, the third of them 0 in some steps."""
    generator = numbers(1 + step)
    for place, shape in enumerate(shapes):
        scale = 10.0 ** (place - 3) * (place != 2 or step % 3 > 0)
        yield scale * torch.randn(shape, generator=generator)


def trained(
    make: Make, n_steps: int = 20, shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> list[Tensor]:
    values = parameters(shapes)
    optimizer = make(values)
    for step in range(n_steps):
        for place, (parameter, grad) in enumerate(
            zip(values, gradients(step, shapes), strict=True)
        ):
            parameter.grad = None if (step + place) % 7 == 6 else grad  # some have none
        optimizer.step()
    return [value.detach() for value in values]


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


# --- equal to torch's, to the bit ---


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
)
def test_sgd_has_the_bits_of_torch(settings: dict[str, Any]) -> None:
    ours = trained(lambda p: SGD(p, lr=0.01, **settings))
    theirs = trained(lambda p: torch.optim.SGD(p, lr=0.01, foreach=False, **settings))
    assert largest_difference(ours, theirs) == 0


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_has_the_bits_of_torch(weight_decay: float) -> None:
    ours = trained(lambda p: Adam(p, lr=0.01, weight_decay=weight_decay))
    theirs = trained(
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=weight_decay, foreach=False)
    )
    assert largest_difference(ours, theirs) == 0


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_has_the_bits_of_torch(weight_decay: float) -> None:
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": weight_decay, "betas": (0.9, 0.95)}
    ours = trained(lambda p: AdamW(p, backend="loop", **settings))
    theirs = trained(lambda p: torch.optim.AdamW(p, foreach=False, **settings))
    assert largest_difference(ours, theirs) == 0


# Twenty steps of 0.01 move a number by at most 0.2, and numbers are up to 4: rounding the last bit
# of 4 (5e-7) at each step gives up to 1e-5; measured were 5e-7.
@pytest.mark.parametrize("backend", ["foreach", "fused", "auto"])
def test_fast_adamw_equals_its_slow_twin(backend: Any) -> None:
    slow = trained(lambda p: AdamW(p, lr=0.01, backend="loop"))
    fast = trained(lambda p: AdamW(p, lr=0.01, backend=backend))
    assert largest_difference(slow, fast) < 3e-6


def test_adamw_decays_apart_from_the_gradient() -> None:
    """With no gradient to speak of, a weight shrinks by exactly (1 - lr decay) a step."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdamW([weight], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        weight.grad = torch.zeros(2)
        optimizer.step()
    assert torch.allclose(weight.detach(), torch.tensor([1.0, -2.0]) * 0.95**3)


def test_first_step_of_adam_is_the_learning_rate_whatever_the_gradient() -> None:
    for size in (1e-4, 1.0, 1e4):
        weight = nn.Parameter(torch.zeros(1))
        weight.grad = torch.full((1,), size)
        Adam([weight], lr=0.25).step()
        assert weight.item() == pytest.approx(-0.25, rel=2e-4)  # eps / 1e-4 is 1e-4


@pytest.mark.parametrize(
    ("first", "then"), [("torch", "loop"), ("loop", "torch"), ("fused", "loop")]
)
def test_states_can_be_exchanged(first: str, then: str) -> None:
    """Ten steps with one and ten with another are twenty with either."""

    def make(name: str, values: list[nn.Parameter]) -> Optimizer:
        settings: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
        if name == "torch":
            return torch.optim.AdamW(values, foreach=False, **settings)
        return AdamW(values, backend=name, **settings)  # type: ignore[arg-type]

    def run(names: list[str]) -> list[Tensor]:
        values = parameters()
        state: dict[str, Any] | None = None
        for part, name in enumerate(names):
            optimizer = make(name, values)
            if state is not None:
                for old, new in zip(
                    state["param_groups"], optimizer.state_dict()["param_groups"], strict=True
                ):
                    old.update({key: new[key] for key in new if key not in old})
                optimizer.load_state_dict(state)
            for step in range(10):
                for parameter, grad in zip(values, gradients(10 * part + step), strict=True):
                    parameter.grad = grad
                optimizer.step()
            state = copy.deepcopy(optimizer.state_dict())
        return [value.detach() for value in values]

    assert largest_difference(run([first, then]), run(["loop", "loop"])) < 3e-6


# --- Muon ---


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64), (1, 8)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    stretched = u @ torch.diag(torch.logspace(0, -1.5, len(s))) @ v
    result = orthogonalize(stretched)
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() <= values.max() < 1.3
    core = u.mT @ result @ v.mT  # diagonal: the directions stay as they are
    assert (core - torch.diag(core.diag())).abs().max() < 1e-4


def test_a_stack_is_orthogonalized_as_its_matrices_are() -> None:
    stack = torch.randn(5, 12, 20)
    alone = torch.stack([orthogonalize(matrix) for matrix in stack])
    assert torch.allclose(orthogonalize(stack), alone, atol=1e-5)
    assert orthogonalize(torch.zeros(3, 4)).abs().max() == 0


MATRICES = ((24, 8), (8, 24), (24, 8), (16, 16))


def test_muon_agrees_with_torch() -> None:
    """In bfloat16, where torch computes; both round in it, which is 0.4 % of a number."""
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    ours = trained(lambda p: Muon(p, dtype=torch.bfloat16, **settings), 5, MATRICES)
    theirs = trained(
        lambda p: torch.optim.Muon(p, adjust_lr_fn="match_rms_adamw", **settings), 5, MATRICES
    )
    moved = largest_difference(ours, [p.detach() for p in parameters(MATRICES)])
    assert largest_difference(ours, theirs) < 0.03 * moved


def test_fast_muon_equals_its_slow_twin() -> None:
    slow = trained(lambda p: Muon(p, lr=0.01, backend="loop"), 10, MATRICES)
    fast = trained(lambda p: Muon(p, lr=0.01), 10, MATRICES)
    assert largest_difference(slow, fast) < 1e-5


def test_split_matrices_are_orthogonalized_apart() -> None:
    whole = nn.Parameter(torch.zeros(12, 6))
    parts = [nn.Parameter(torch.zeros(n, 6)) for n in (6, 4, 2)]
    grad = torch.randn(12, 6)
    whole.grad = grad
    for part, piece in zip(parts, torch.split(grad, [6, 4, 2]), strict=True):
        part.grad = piece
    Muon([{"params": [whole], "split": (6, 4, 2)}], lr=0.1).step()
    Muon(parts, lr=0.1).step()
    assert torch.allclose(whole.detach(), torch.cat([p.detach() for p in parts]), atol=1e-6)


# --- groups ---


def config(**changes: Any) -> GPTConfig:
    return GPTConfig(
        **{
            "vocab_size": 11,
            "context_length": 8,
            "n_layer": 2,
            "n_head": 2,
            "d_model": 8,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("tied", "positions", "norm"),
    list(product([True, False], ["learned", "rope"], ["layernorm", "rmsnorm"])),
)
def test_every_parameter_is_in_one_group(tied: bool, positions: Any, norm: Any) -> None:
    model = GPT(config(tied=tied, positions=positions, norm=norm, bias=norm == "layernorm"))
    groups = decay_groups(model, 0.1)
    named = {name: group["weight_decay"] for group in groups for name, _ in group["params"]}
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    decayed = {name for name, decay in named.items() if decay}
    ends = ("qkv.weight", "output.weight", "up.weight", "down.weight")
    assert decayed == {name for name in named if name.endswith(ends)}
    with_tables = decay_groups(model, 0.1, decay_tables=True)
    also = {name for name, _ in with_tables[0]["params"]} - decayed
    tables = {"tokens.weight"} | ({"unembedding.weight"} if not tied else set())
    assert also == tables | ({"learned_positions.weight"} if positions == "learned" else set())
    AdamW(groups)  # torch takes groups of named parameters


def test_frozen_parameters_are_in_no_group() -> None:
    model = GPT(config())
    model.tokens.weight.requires_grad_(False)
    assert "tokens.weight" not in {name for kind in sort_parameters(model) for name, _ in kind}


# --- clipping ---


def with_gradients(*grads: list[float]) -> list[nn.Parameter]:
    values = [nn.Parameter(torch.zeros(len(grad))) for grad in grads]
    for value, grad in zip(values, grads, strict=True):
        value.grad = torch.tensor(grad)
    return values


def test_clipping_scales_all_by_one_factor() -> None:
    values = with_gradients([3.0], [0.0, 4.0])
    assert clip_grad_norm(values, 1.0) == 5
    assert torch.allclose(
        torch.cat([v.grad for v in values if v.grad is not None]), torch.tensor([0.6, 0.0, 0.8])
    )
    assert gradient_norm(values) == pytest.approx(1)


@pytest.mark.parametrize("max_norm", [5.0, 7.0, math.inf])
def test_clipping_never_scales_up(max_norm: float) -> None:
    values = with_gradients([3.0], [0.0, 4.0])
    assert clip_grad_norm(values, max_norm) == 5
    assert [v.grad.tolist() for v in values if v.grad is not None] == [[3.0], [0.0, 4.0]]


def test_clipping_equals_torch() -> None:
    for max_norm in (0.1, 3.0, 1e9):
        ours, theirs = parameters(), parameters()
        for values in (ours, theirs):
            for value, grad in zip(values, gradients(1), strict=True):
                value.grad = grad
        norm = clip_grad_norm(ours, max_norm)
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(theirs, max_norm)), rel=1e-6)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.grad is not None
            assert torch.allclose(mine.grad, other.grad, rtol=1e-5, atol=0)  # type: ignore[arg-type]


def test_clipping_reports_what_is_not_finite_and_takes_nothing() -> None:
    assert math.isnan(clip_grad_norm(with_gradients([math.nan], [1.0]), 1.0))
    assert math.isinf(clip_grad_norm(with_gradients([math.inf], [1.0]), 1.0))
    assert clip_grad_norm([nn.Parameter(torch.zeros(2))], 1.0) == 0
    assert clip_grad_norm(with_gradients([0.0]), 1.0) == 0
    half = nn.Parameter(torch.zeros(70000, dtype=torch.bfloat16))
    half.grad = torch.ones_like(half)
    assert clip_grad_norm([half], math.inf) == pytest.approx(math.sqrt(70000))


# --- clear errors ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: SGD(p, lr=-1.0), "lr must be at least 0"),
        (lambda p: SGD(p, lr=1.0, momentum=1.0), "momentum must be at least 0 and below 1"),
        (lambda p: SGD(p, lr=1.0, nesterov=True), "momentum is 0"),
        (lambda p: Adam(p, betas=(0.9, 1.5)), "betas must be"),
        (lambda p: AdamW(p, eps=-1.0), "eps must be"),
        (lambda p: AdamW(p, weight_decay=math.nan), "weight_decay must be"),
        (lambda p: Muon(p), "Muon is for matrices, got a parameter of shape"),
        (lambda p: Muon([{"params": p[:1], "split": (3, 3)}]), "split is .3, 3., 6 rows, but"),
        (lambda p: clip_grad_norm(p, 0.0), "max_norm must be above 0"),
    ],
)
def test_errors_name_what_is_wrong(make: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(parameters())


def test_where_nobody_looks_at_the_norm_short_gradients_keep_their_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU looking at the norm would wait, so the factor itself must stop at 1."""

    class Elsewhere(Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda")

    measured = optim.gradient_norm
    monkeypatch.setattr(optim, "gradient_norm", lambda ps: measured(ps).as_subclass(Elsewhere))
    weight = nn.Parameter(torch.zeros(5))
    weight.grad = torch.randn(5)
    before = weight.grad.clone()
    optim.clip_grad_norm([weight], 2.0 * before.norm().item())
    assert torch.equal(weight.grad, before)
    optim.clip_grad_norm([weight], 0.5 * before.norm().item())
    torch.testing.assert_close(weight.grad, 0.5 * before)
