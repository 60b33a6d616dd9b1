"""`linear` equals torch's function, and gives to oneDNN what it says it does and nothing else.

That it is no obstacle to torch.compile is tested with the model, in test_model.py.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gptbook import linear as module
from gptbook.linear import ONEDNN, Linear, linear, onednn_serves

plain = torch.nn.functional.linear
needs_onednn = pytest.mark.skipif(ONEDNN is None, reason="this build of torch has no oneDNN")


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small matrices go to oneDNN, so that tests are quick."""
    monkeypatch.setattr(module, "MIN_NUMBERS", 1)


def operands(
    *places: int, c: int = 24, d: int = 40, bias: bool = True, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(*places, c), (d, c), *([(d,)] if bias else [])]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def close(got: Tensor, wanted: Tensor) -> None:
    """Sums of some dozens of float32 in another order differ by a few units of the last place."""
    bound = 3e-6 * max(float(wanted.detach().abs().max()), 1e-30) if wanted.numel() else 0.0
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    torch.testing.assert_close(got, wanted, rtol=0, atol=bound)


def through(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Return the product, its gradients, and the gradients of a function of these."""
    y = function(*inputs)
    first = torch.autograd.grad((y * y.detach().cos()).sum(), inputs, create_graph=True)
    squares = torch.stack([(g * g).sum() for g in first if g.requires_grad])
    second = torch.autograd.grad(squares.sum(), inputs[:2])
    return [y, *first, *second]


# --- equal to torch's ---


@needs_onednn
@pytest.mark.parametrize(
    ("places", "bias"), list(product([(), (1,), (7,), (2, 5), (2, 1, 3)], [True, False]))
)
def test_the_product_and_its_derivatives_equal_torchs(places: tuple[int, ...], bias: bool) -> None:
    inputs = operands(*places, bias=bias)
    assert onednn_serves(inputs[0], inputs[1], inputs[2] if bias else None)
    for got, wanted in zip(through(linear, inputs), through(plain, inputs), strict=True):
        close(got, wanted)


@needs_onednn
def test_the_derivatives_are_those_of_the_product() -> None:
    """By differences of float32: steps of 0.01 in numbers of size 1 leave some 1e-4."""
    x, weight, bias = operands(3, c=4, d=5)
    y = linear(x, weight, bias).pow(2).sum()
    for tensor, grad in zip(
        (x, weight, bias), torch.autograd.grad(y, (x, weight, bias)), strict=True
    ):
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        ends = []
        for step in (0.01, -0.01):
            moved = [t + step * direction if t is tensor else t for t in (x, weight, bias)]
            ends.append(linear(*moved).pow(2).sum())
        torch.testing.assert_close(
            (ends[0] - ends[1]) / 0.02, (grad * direction).sum(), rtol=2e-3, atol=2e-2
        )


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.T.contiguous().T,
    "every other row": lambda t: torch.stack([t, -t], 1).flatten(0, 1)[::2],
    "every other column": lambda t: torch.stack([t, -t], -1).flatten(-2)[:, ::2],
    "from the middle": lambda t: torch.cat([-t, t, -t])[len(t) : 2 * len(t)],
    "one row for all": lambda t: t[:1].expand_as(t),
}


@needs_onednn
@pytest.mark.parametrize(("of_x", "of_weight"), list(product(VIEWS, VIEWS)))
def test_views(of_x: str, of_weight: str) -> None:
    x, weight, bias = operands(6)
    inputs = [VIEWS[of_x](x), VIEWS[of_weight](weight), bias]
    assert onednn_serves(*inputs)
    for got, wanted in zip(through(linear, inputs), through(plain, inputs), strict=True):
        close(got, wanted)


@needs_onednn
def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
        calls.append((len(x), len(weight)))
        assert ONEDNN is not None
        y: Tensor = ONEDNN(x, weight, *others)
        return y

    monkeypatch.setattr(module, "ONEDNN", counted)
    x, weight, bias = operands(6)
    linear(x.detach(), weight, bias).sum().backward()
    assert calls == [(6, 40)]  # the matrix's gradient is MKL's
    calls.clear()
    linear(x, weight.detach(), None).sum().backward()
    assert calls == [(6, 40), (6, 24)]
    calls.clear()
    with torch.no_grad():
        assert not linear(x, weight, bias).requires_grad
    assert calls == [(6, 40)]


# --- what is left to torch ---


@pytest.mark.parametrize("places", [(0,), (2, 0), (0, 3)])
def test_an_empty_batch(places: tuple[int, ...]) -> None:
    inputs = operands(*places)
    assert not onednn_serves(*inputs)
    y = linear(*inputs)
    assert y.shape == (*places, 40)
    y.sum().backward()
    assert inputs[1].grad is not None
    assert not inputs[1].grad.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype) -> None:
    inputs = operands(3, dtype=dtype)
    assert not onednn_serves(*inputs)
    assert torch.equal(linear(*inputs), plain(*inputs))


def test_a_device_without_numbers() -> None:
    x, weight, bias = (t.to("meta") for t in operands(3))
    assert not onednn_serves(x, weight, bias)
    assert linear(x, weight, bias).shape == (3, 40)


def test_small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = operands(3)
    monkeypatch.setattr(module, "MIN_NUMBERS", 24 * 40 + 1)
    assert not onednn_serves(*inputs)
    assert torch.equal(linear(*inputs), plain(*inputs))


def test_a_bias_with_gaps() -> None:
    """OneDNN would read the numbers between them."""
    x, weight, bias = operands(3)
    gaps = torch.stack([bias, -bias], -1).flatten()[::2]
    assert not onednn_serves(x, weight, gaps)
    close(linear(x, weight, gaps), plain(x, weight, bias))


def test_operands_that_do_not_go_together_get_torchs_error() -> None:
    x, weight, bias = operands(3)
    for wrong in ((x[:, 1:], weight, bias), (x, weight, bias[1:]), (x.double(), weight, bias)):
        assert not onednn_serves(*wrong)


def test_subclasses_sparse_tensors_and_a_switch() -> None:
    class Marked(Tensor):
        pass

    x, weight, bias = (t.detach() for t in operands(3))
    assert not onednn_serves(x.as_subclass(Marked), weight, bias)
    assert not onednn_serves(x, weight.to_sparse(), None)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not onednn_serves(x, weight, bias)
        assert torch.equal(linear(x, weight, bias), plain(x, weight, bias))


def test_without_the_private_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONEDNN", None)
    inputs = operands(3)
    assert torch.equal(linear(*inputs), plain(*inputs))


def test_autocast_decides() -> None:
    inputs = operands(3)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = linear(*inputs), plain(*inputs)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(got.sum(), inputs),
        torch.autograd.grad(wanted.sum(), inputs),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_functions_of_functions() -> None:
    x, weight, bias = (t.detach() for t in operands(3))
    along = torch.func.jvp(lambda one: linear(one, weight, bias), (x,), (x,))[1]
    close(along, x @ weight.T)
    close(torch.func.vmap(lambda row: linear(row, weight, bias))(x), plain(x, weight, bias))
    grad = torch.func.grad(lambda one: linear(x, one).sum())(weight)
    close(grad, x.sum(0).expand_as(weight))


def test_flops_are_counted() -> None:
    inputs = operands(3)
    with FlopCounterMode(display=False) as counter:
        linear(*inputs)
    assert counter.get_total_flops() == 2 * 3 * 24 * 40


# --- the layer ---


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_torchs_but_for_the_product(bias: bool) -> None:
    torch.manual_seed(0)
    ours = Linear(24, 40, bias=bias)
    torch.manual_seed(0)
    theirs = nn.Linear(24, 40, bias=bias)
    assert isinstance(ours, nn.Linear)
    assert repr(ours) == repr(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    x = torch.randn(2, 5, 24)
    close(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict())


@needs_onednn
def test_a_large_layer_uses_onednn_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    layer, x = Linear(512, 512), torch.randn(3, 512)
    assert onednn_serves(x, layer.weight, layer.bias)
    close(layer(x), plain(x, layer.weight, layer.bias))
    assert not onednn_serves(x[:, :64], Linear(64, 64).weight, None)
