"""The chunked loss equals the plain one, forward and backward, and the plain one PyTorch's."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from gptbook import losses
from gptbook.losses import IGNORE, cross_entropy, linear_cross_entropy

C, V = 12, 37


def operands(
    *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, ignored: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states, (*shape, C), a matrix and targets, a share of which does not count."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, C, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, C, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(V, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < ignored] = IGNORE
    return hidden, weight, targets


def gradients(loss: Tensor, *inputs: Tensor, upstream: float = 1.0) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs, torch.tensor(upstream, dtype=loss.dtype)))


def assert_near(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    bound = tolerance * max(float(wanted.detach().abs().max()), 1e-30)
    assert float((got.detach() - wanted.detach()).abs().max()) <= bound


def assert_equals_plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, tolerance: float = 3e-6, **options: Any
) -> None:
    """Float32 sums in another order gave at most 6e-7 of the largest number here."""
    upstream = options.pop("upstream", 1.0)
    chunk = options.pop("chunk_tokens", None)
    wanted, plain_metrics = cross_entropy(hidden @ weight.T, targets, **options)
    got, metrics = linear_cross_entropy(hidden, weight, targets, chunk_tokens=chunk, **options)
    assert_near(got, wanted, tolerance)
    assert_near(metrics["nats"], plain_metrics["nats"], tolerance)
    assert metrics["tokens"] == plain_metrics["tokens"]
    for ours, plain in zip(
        gradients(got, hidden, weight, upstream=upstream),
        gradients(wanted, hidden, weight, upstream=upstream),
        strict=True,
    ):
        assert ours.dtype == plain.dtype
        assert_near(ours, plain, tolerance)


# --- the plain one ---


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_plain_is_torchs_mean(ignored: float) -> None:
    hidden, weight, targets = operands(3, 7, ignored=ignored)
    logits = hidden @ weight.T
    loss, metrics = cross_entropy(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected)
    assert int(metrics["tokens"]) == int((targets != IGNORE).sum())
    torch.testing.assert_close(metrics["nats"] / metrics["tokens"], expected.detach())
    assert not metrics["nats"].requires_grad


def test_plain_computes_half_types_in_float32() -> None:
    logits = (3 * torch.randn(5, V, generator=torch.Generator().manual_seed(0))).bfloat16()
    targets = torch.arange(5)
    loss, _ = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.float(), targets)[0])


# --- equal to it ---


@pytest.mark.parametrize("chunk_tokens", [1, 4, 21, 100, None])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_chunked_equals_plain(chunk_tokens: int | None, ignored: float) -> None:
    assert_equals_plain(*operands(3, 7, ignored=ignored), chunk_tokens=chunk_tokens)


def test_gradcheck() -> None:
    hidden, weight, targets = operands(6, dtype=torch.float64, ignored=0.3)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, weight, targets, chunk_tokens=4)[0]

    assert torch.autograd.gradcheck(loss, (hidden, weight))


def test_the_gradient_from_above_counts() -> None:
    assert_equals_plain(*operands(9), upstream=-2.5, chunk_tokens=4)
    hidden, weight, targets = operands(9)
    loss = sum(
        linear_cross_entropy(hidden[i : i + 3], weight, targets[i : i + 3])[0] for i in (0, 3)
    )
    plain = sum(cross_entropy(hidden[i : i + 3] @ weight.T, targets[i : i + 3])[0] for i in (0, 3))
    assert isinstance(loss, Tensor)
    assert isinstance(plain, Tensor)
    for ours, expected in zip(
        gradients(loss**2, hidden, weight), gradients(plain**2, hidden, weight), strict=True
    ):
        assert_near(ours, expected, 3e-6)


def test_a_matrix_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "BLOCK", 10)
    assert_equals_plain(*operands(9, ignored=0.2), chunk_tokens=4)
    assert_equals_plain(*operands(9, dtype=torch.bfloat16), chunk_tokens=4, tolerance=0.02)


def test_operands_that_are_not_contiguous() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(C, 4, 5, generator=generator).permute(2, 1, 0).requires_grad_()
    weight = torch.randn(C, V, generator=generator).T.requires_grad_()
    targets = torch.randint(V, (4, 5), generator=generator).T
    assert_equals_plain(hidden, weight, targets, chunk_tokens=3)


@pytest.mark.parametrize("scale", [1e3, 1e-8])
def test_extreme_logits(scale: float) -> None:
    """The probability of a target underflows at a distance of 104; its loss must not."""
    hidden, weight, targets = operands(9)
    far = (hidden.detach() * scale).requires_grad_()
    assert_equals_plain(far, weight, targets, chunk_tokens=4)
    assert math.isfinite(linear_cross_entropy(far, weight, targets)[0].item())


def test_tied_weights_get_both_gradients() -> None:
    _, weight, targets = operands(8)
    ids = torch.arange(8)
    plain = cross_entropy(weight[ids] @ weight.T, targets)[0]
    loss = linear_cross_entropy(weight[ids], weight, targets, chunk_tokens=3)[0]
    assert_near(gradients(loss, weight)[0], gradients(plain, weight)[0], 3e-6)


def test_int32_targets_and_another_ignored_value() -> None:
    hidden, weight, targets = operands(8)
    assert_equals_plain(hidden, weight, targets.int(), chunk_tokens=3)
    assert_equals_plain(hidden, weight, targets, ignore_index=int(targets[0]), chunk_tokens=3)


# --- what counts ---


def test_micro_batches_add_up_to_the_whole() -> None:
    hidden, weight, targets = operands(12, ignored=0.4)
    n_tokens = int((targets != IGNORE).sum())
    whole, _ = linear_cross_entropy(hidden, weight, targets)
    parts = [
        linear_cross_entropy(hidden[i : i + 5], weight, targets[i : i + 5], denominator=n_tokens)[0]
        for i in (0, 5, 10)
    ]
    total = torch.stack(parts).sum()
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(gradients(total, weight), gradients(whole, weight))


@pytest.mark.parametrize("n", [0, 4])
def test_where_nothing_counts_loss_and_gradients_are_zero(n: int) -> None:
    hidden, weight, _ = operands(n)
    targets = torch.full((n,), IGNORE)
    for loss, metrics in (
        cross_entropy(hidden @ weight.T, targets),
        linear_cross_entropy(hidden, weight, targets),
    ):
        assert loss.item() == 0
        assert metrics["tokens"] == 0
        assert all(not grad.any() for grad in gradients(loss, hidden, weight))


def test_hidden_states_that_do_not_count_are_not_looked_at() -> None:
    hidden, weight, targets = operands(6)
    targets[2] = IGNORE
    with torch.no_grad():
        hidden[2] = math.nan
    loss, _ = linear_cross_entropy(hidden, weight, targets)
    assert loss.isfinite()
    grad_hidden, grad_weight = gradients(loss, hidden, weight)
    assert not grad_hidden[2].any()
    assert grad_weight.isfinite().all()


# --- backward ---


def test_backward_twice() -> None:
    hidden, weight, targets = operands(7)
    loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_tokens=3)
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    kept = [grad.clone() for grad in first]
    second = torch.autograd.grad(loss, (hidden, weight), torch.tensor(3.0), retain_graph=True)
    third = torch.autograd.grad(loss, (hidden, weight))
    for before, grad, thrice, again in zip(kept, first, second, third, strict=True):
        assert torch.equal(before, grad)  # what was handed out is not used again
        assert torch.equal(before, again)
        torch.testing.assert_close(thrice, 3 * before)


def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def counted(total: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
        shapes.append(tuple(total.shape))
        total.addmm_(left, right, alpha=scale)

    monkeypatch.setattr(losses, "add_product", counted)
    hidden, weight, targets = operands(5)
    with torch.no_grad():
        linear_cross_entropy(hidden, weight, targets)
    assert shapes == []
    loss, _ = linear_cross_entropy(hidden, weight.detach(), targets)
    assert shapes == [(5, C)]
    expected = cross_entropy(hidden @ weight.detach().T, targets)[0]
    assert_near(gradients(loss, hidden)[0], gradients(expected, hidden)[0], 3e-6)
    linear_cross_entropy(hidden.detach(), weight, targets)
    assert shapes == [(5, C), (V, C)]


def test_there_is_no_second_derivative() -> None:
    hidden, weight, targets = operands(5)
    loss, _ = linear_cross_entropy(hidden, weight, targets)
    (grad,) = torch.autograd.grad(loss**2, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


# --- half types ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_close_to_float32(dtype: torch.dtype) -> None:
    """Rounding the logits to 8 bits moves them by up to 2^-9 of their size, here about 10."""
    hidden, weight, targets = operands(40, dtype=dtype)
    wide = [tensor.detach().float().requires_grad_() for tensor in (hidden, weight)]
    expected, _ = cross_entropy(wide[0] @ wide[1].T, targets)
    loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_tokens=8)
    assert loss.dtype == torch.float32
    assert_near(loss, expected, 0.01)
    grads = gradients(loss, hidden, weight)
    for grad, wanted in zip(grads, gradients(expected, *wide), strict=True):
        assert grad.dtype == dtype
        assert_near(grad.float(), wanted, 0.03)


def test_the_matrixs_gradient_is_summed_in_float32() -> None:
    """512 equal contributions, one a chunk: a sum in bfloat16 stops growing at the 256th."""
    hidden = torch.ones(512, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    loss, _ = linear_cross_entropy(
        hidden, weight, torch.zeros(512, dtype=torch.int64), denominator=1.0, chunk_tokens=1
    )
    assert gradients(loss, weight)[0].flatten().tolist() == [-256, 256]


def test_autocast() -> None:
    hidden, weight, targets = operands(30)
    with torch.autocast("cpu", torch.bfloat16):
        plain, _ = cross_entropy(torch.nn.functional.linear(hidden, weight), targets)
        loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_tokens=7)
        mixed, _ = linear_cross_entropy(hidden.bfloat16(), weight, targets, chunk_tokens=7)
    assert loss.dtype == torch.float32
    assert_near(loss, plain, 1e-5)
    assert_near(mixed, loss, 1e-6)
    for ours, wanted in zip(
        gradients(loss, hidden, weight), gradients(plain, hidden, weight), strict=True
    ):
        assert ours.dtype == torch.float32
        assert_near(ours, wanted, 0.02)


# --- refusals ---


@pytest.mark.parametrize("bad", [-1, V, V + 100])
def test_a_target_that_is_no_id_is_named(bad: int) -> None:
    hidden, weight, targets = operands(5)
    targets[3] = bad
    message = rf"targets holds {bad}, but must hold ids from 0 to {V - 1}, or -100"
    with pytest.raises(ValueError, match=message):
        cross_entropy(hidden @ weight.T, targets)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(hidden, weight, targets)


def test_types_that_differ_are_refused_without_autocast() -> None:
    hidden, weight, targets = operands(5)
    with pytest.raises(ValueError, match=r"hidden is torch\.bfloat16 and weight torch\.float32"):
        linear_cross_entropy(hidden.bfloat16(), weight, targets)


def test_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_tokens must be at least 1, got 0"):
        linear_cross_entropy(*operands(5), chunk_tokens=0)


def test_shapes_that_do_not_go_together() -> None:
    """In a process of its own: under pytest annotations are checked first."""
    code = """
import torch
from gptbook.losses import linear_cross_entropy
for hidden, weight, n in (((5, 3), (7, 4), 5), ((5, 3), (7, 3), 6), ((5, 3), (3,), 5)):
    try:
        linear_cross_entropy(torch.ones(hidden), torch.ones(weight), torch.zeros(n).long())
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "hidden must be (..., C) and weight (V, C), got hidden [5, 3], weight [7, 4]",
        "targets must be [5], got [6]",
        "hidden must be (..., C) and weight (V, C), got hidden [5, 3], weight [3]",
    ]


# --- memory ---

PEAK = """
import sys, torch
from pathlib import Path
from gptbook.losses import cross_entropy, linear_cross_entropy

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

def step(n_tokens, vocab_size):
    hidden = torch.randn(n_tokens, 16, requires_grad=True)
    weight = torch.full((vocab_size, 16), 0.01, requires_grad=True)
    targets = torch.zeros(n_tokens, dtype=torch.int64)
    if sys.argv[1] == "plain":
        loss, _ = cross_entropy(hidden @ weight.T, targets)
    else:
        loss, _ = linear_cross_entropy(hidden, weight, targets, chunk_tokens=32)
    loss.backward()

step(8, 100)
before = peak()
step(1024, 50257)
print((peak() - before) / (4 * 1024 * 50257))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_in_copies_of_the_logits() -> None:
    """The plain loss holds three copies; ours a thirty-second of one, and the small gradients."""
    copies = {
        name: float(
            subprocess.run(
                [sys.executable, "-c", PEAK, name], capture_output=True, text=True, check=True
            ).stdout
        )
        for name in ("plain", "chunked")
    }
    assert copies["plain"] > 2.5
    assert copies["chunked"] < 0.3
