"""Exercises on torch tensors: mistakes that a published course's tests let through are named here.

Those are: a softmax that ignores its `dim`, gradients that are always rescaled, eps inside the
root, positions that are ignored, and a tolerance so wide that zeros pass.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gptbook.grading.author import failures, trials
from gptbook.grading.compare import Tolerance, difference, rounding
from gptbook.grading.engine import part_graders
from gptbook.grading.exercise import Args, Exercise, Mistake, Part, edited, oracle
from gptbook.grading.part_grader import Setting
from gptbook.grading.probes import carry, drain, gradients, repeat, streamed
from gptbook.grading.runner import Runner
from gptbook.grading.values import dumps, loads
from tests.grading.toys import code

FLOAT32 = rounding("float32", 200)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(("numpy", "torch")) as started:
        yield started


def draw(stream: random.Random, *shape: int, scale: float = 1.0) -> Any:
    numbers = np.random.default_rng(stream.getrandbits(64)).normal(size=shape)
    return torch.from_numpy(numbers * scale).float()


def mistake(name: str, loss: int, source: str) -> Mistake:
    return Mistake(name, "What goes wrong. What to do.", "Section", loss, source)


def exercise(
    function: str,
    draw_cases: Callable[[random.Random], list[Args]],
    reference: Callable[..., Any],
    source: str,
    mistakes: dict[str, str],
    styles: dict[str, str],
    probe: str = "call",
) -> Exercise:
    checks = (oracle("is right", 2, draw_cases, reference, FLOAT32, probe=probe),)
    bank = tuple(mistake(name, 2, code(wrong)) for name, wrong in mistakes.items())
    own = {name: code(text) for name, text in styles.items()}
    part = Part(function, checks, source, bank, own, preload=("numpy", "torch"))
    return Exercise("0.4", function, (part,))


SOFTMAX = code(
    """
    import torch

    def softmax(x, dim):
        weights = torch.exp(x - x.amax(dim, keepdim=True))
        return weights / weights.sum(dim, keepdim=True)
    """
)


def draw_softmax(stream: random.Random) -> list[Args]:
    cases: list[Args] = []
    for scale in (1.0, 5.0):
        x = draw(stream, 3, 4, 5, scale=scale)
        cases += [(x.transpose(0, 2).requires_grad_(), dim) for dim in (0, 1, -1)]
        cases.append((x[..., ::2].requires_grad_(), 1))
    return cases


def softmax64(x: Any, dim: int) -> Any:
    return gradients(
        lambda x, dim: torch.softmax(x, dim), x.detach().double().requires_grad_(), dim
    )


NORM = code(
    """
    import torch

    def norm(x, eps):
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    """
)


def draw_norm(stream: random.Random) -> list[Args]:
    """Of all sizes, so that eps counts in some."""
    return [(draw(stream, 2, 8, scale=10.0**-power), 1e-5) for power in range(5)]


CLIP = code(
    """
    import torch

    def clip(gradients, limit):
        norm = torch.sqrt(sum((g * g).sum() for g in gradients))
        scale = min(1.0, limit / float(norm)) if norm > 0 else 1.0
        return [g * scale for g in gradients]
    """
)


def draw_clip(stream: random.Random) -> list[Args]:
    """Some below the limit, some above."""
    scales = (0.01, 0.1, 10.0, 100.0)
    return [([draw(stream, 3, scale=s), draw(stream, 2, 2, scale=s)], 1.0) for s in scales]


def clip64(items: list[Any], limit: float) -> list[Any]:
    norm = float(torch.sqrt(sum((g.double() ** 2).sum() for g in items)))
    return [g.double() * min(1.0, limit / norm) for g in items]


EMBED = code(
    """
    import torch

    def embed(ids, table, places):
        return table[ids] + places[: ids.shape[-1]]
    """
)


def draw_embed(stream: random.Random) -> list[Args]:
    ids = [torch.tensor([stream.randrange(7) for _ in range(size)]) for size in (1, 2, 5)]
    return [(item, draw(stream, 7, 4), draw(stream, 6, 4)) for item in ids]


EXERCISES = {
    "softmax": exercise(
        "softmax",
        draw_softmax,
        softmax64,
        SOFTMAX,
        {
            "Ignores dim": SOFTMAX.replace("amax(dim", "amax(-1").replace("sum(dim", "sum(-1"),
            "No gradient": SOFTMAX.replace("x.amax", "x.detach().amax").replace(
                "torch.exp(x", "torch.exp(x.detach()"
            ),
            "Zeros": "import torch\ndef softmax(x, dim): return torch.zeros_like(x)",
            "Uniform": "import torch\ndef softmax(x, dim): return x * 0 + 1 / x.shape[dim]",
            "In the caller's dtype of half": SOFTMAX.replace("(x -", "(x.bfloat16() -"),
            "Overflows": SOFTMAX.replace(" - x.amax(dim, keepdim=True)", " * 1e2 / 1e2 + 80"),
        },
        {
            "library": "import torch\ndef softmax(x, dim): return torch.softmax(x, dim=dim)",
            "logsumexp": """
                import torch
                def softmax(x, dim): return torch.exp(x - torch.logsumexp(x, dim, keepdim=True))
                """,
            "loop": """
                import torch
                def softmax(x, dim):
                    rows = []
                    for row in x.movedim(dim, -1).reshape(-1, x.shape[dim]):
                        e = torch.exp(row - max(row.tolist()))
                        rows.append(e / sum(e))
                    shape = x.movedim(dim, -1).shape
                    return torch.stack(rows).reshape(shape).movedim(-1, dim)
                """,
            "einsum": """
                import torch
                def softmax(x, dim):
                    e = torch.exp(x - x.amax(dim, keepdim=True)).movedim(dim, -1)
                    return torch.einsum("...i,...->...i", e, 1 / e.sum(-1)).movedim(-1, dim)
                """,
        },
        probe="gradients",
    ),
    "norm": exercise(
        "norm",
        draw_norm,
        lambda x, eps: x.double() / torch.sqrt((x.double() ** 2).mean(-1, keepdim=True) + eps),
        NORM,
        {
            "eps outside of the root": edited(
                NORM, ("torch.sqrt(", "(torch.sqrt("), (" + eps)", ") + eps)")
            ),
            "No eps": edited(NORM, (" + eps", "")),
            "Zeros": "def norm(x, eps): return x * 0",
            "One norm for all rows": edited(NORM, ("mean(-1, keepdim=True)", "mean()")),
        },
        {
            "numpy": """
                import numpy as np, torch
                def norm(x, eps):
                    a = x.numpy()
                    return torch.from_numpy(a / np.sqrt((a * a).mean(-1, keepdims=True) + eps))
                """,
            "library": """
                import torch
                def norm(x, eps): return torch.nn.functional.rms_norm(x, x.shape[-1:], eps=eps)
                """,
            "rsqrt": """
                import torch
                def norm(x, eps):
                    return x * torch.rsqrt(torch.einsum("bi,bi->b", x, x)[:, None] / 8 + eps)
                """,
        },
    ),
    "clip": exercise(
        "clip",
        draw_clip,
        clip64,
        CLIP,
        {
            "Always rescales": edited(
                CLIP, ("min(1.0, limit / float(norm))", "limit / float(norm)")
            ),
            "Never rescales": edited(CLIP, ("g * scale", "g * 1")),
            "Clips each alone": """
                def clip(gradients, limit):
                    return [g * min(1.0, limit / float((g * g).sum() ** 0.5)) for g in gradients]
                """,
            "Clips each number": "def clip(g, limit): return [x.clamp(-limit, limit) for x in g]",
        },
        {
            "library": """
                import torch
                def clip(gradients, limit):
                    flat = torch.cat([g.reshape(-1) for g in gradients])
                    return [g / max(1.0, float(torch.linalg.norm(flat)) / limit) for g in gradients]
                """,
        },
    ),
    "embed": exercise(
        "embed",
        draw_embed,
        lambda ids, table, places: table[ids].double() + places[: len(ids)].double(),
        EMBED,
        {
            "Ignores positions": edited(EMBED, (" + places[: ids.shape[-1]]", "")),
            "The first position everywhere": edited(
                EMBED, ("places[: ids.shape[-1]]", "places[0]")
            ),
            "Positions by id": edited(EMBED, ("places[: ids.shape[-1]]", "places[ids % 6]")),
        },
        {
            "loop": """
                import torch
                def embed(ids, table, places):
                    return torch.stack([table[i] + places[t] for t, i in enumerate(ids.tolist())])
                """,
            "one-hot": """
                import torch
                def embed(ids, table, places):
                    hot = torch.nn.functional.one_hot(ids, 7).float()
                    return torch.einsum("tv,vd->td", hot, table) + places[torch.arange(len(ids))]
                """,
        },
    ),
}


@pytest.mark.parametrize("name", EXERCISES)
def test_styles_pass_and_each_mistake_is_caught_and_named(name: str, runner: Runner) -> None:
    found: list[str] = []
    for seed in range(2):
        (grader,) = part_graders(EXERCISES[name], Setting(seed), runner)
        for trial in trials(EXERCISES[name], None, seeds=2):
            found += failures(trial, seed, grader)
    assert found == []


def test_a_tolerance_so_wide_that_zeros_pass_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="relative"):
        Tolerance(1.0, "wide")
    for scale in (1e-9, 1.0, 1e9):
        wanted = torch.linspace(-1, 1, 5) * scale
        assert difference(wanted, torch.zeros(5), Tolerance(0.099, "the widest")) is not None


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool", "complex64"]
)
def test_a_tensor_comes_back_with_its_dtype_strides_and_gradient(dtype: str) -> None:
    plain = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
    for tensor in (plain, plain.transpose(0, 2), plain[:, ::2, 1:], plain[:, :1].expand(2, 3, 4)):
        for needs_grad in {False, tensor.is_floating_point()}:
            sent = tensor.detach().requires_grad_(needs_grad)
            back = loads(dumps(sent))
            assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
            assert back.is_contiguous() == tensor.is_contiguous()
            assert back.requires_grad is needs_grad
            assert torch.equal(back.detach(), tensor)


def test_a_tensor_that_is_not_plain_or_lies_is_no_answer_and_no_error() -> None:
    class Liar(torch.Tensor):
        def detach(self) -> Any:
            raise RuntimeError

    assert torch.equal(loads(dumps(torch.ones(2).as_subclass(Liar))), torch.ones(2))
    for tensor in (torch.ones(3, device="meta"), torch.eye(2).to_sparse()):
        assert "not plain" in repr(loads(dumps(tensor)))


def test_gradients_of_a_sum_of_one_are_not_all_zero() -> None:
    x = torch.randn(4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value, (gradient,) = gradients(torch.softmax, x, 0)
    assert value.sum().item() == pytest.approx(1)
    assert gradient.abs().max() > 1e-3
    assert gradients(lambda x: x.detach(), x)[1] == [None]


def test_a_stream_can_be_read_once_and_what_collects_it_is_seen() -> None:
    rows = [torch.ones(2, 3) for _ in range(50)]

    def running(scale: float, tiles: Any) -> Any:
        total = torch.zeros(3)
        for tile in tiles:
            total = total + scale * tile.sum(0)
        assert list(tiles) == []
        return total

    def collecting(scale: float, tiles: Any) -> Any:
        return scale * torch.cat(list(tiles)).sum(0)

    for function, largest in ((running, 3), (collecting, 300)):
        value, seen = streamed(function, 2.0, rows)
        assert torch.equal(value, torch.full((3,), 200.0))
        assert seen == largest


def test_a_small_view_of_a_large_tensor_counts_as_the_large_one() -> None:
    assert streamed(lambda tiles: torch.zeros(9, 9)[0, :1], []) == (torch.zeros(1), 81)


def test_carry_hands_on_the_state_and_counts_products() -> None:
    def read(matrix: Any, state: Any, item: int) -> tuple[Any, int]:
        rows = (state or 0) + item
        return torch.ones(rows, 3) @ matrix + rows, rows

    outputs, counts = carry(read, torch.ones(3, 2), [1, 2, 4])
    assert [len(output) for output in outputs] == [1, 3, 7]
    assert counts == [2, 6, 14]  # the sums are no products


def test_repeat_calls_with_each_seed() -> None:
    assert repeat(lambda a, b, seed: a + b + seed, range(5, 8), 10, 20) == [35, 36, 37]


def test_drain_says_how_many_items_were_taken() -> None:
    def until(items: Iterator[int], last: int) -> Iterator[int]:
        for item in items:
            yield 2 * item
            if item == last:
                return

    assert drain(until, [1, 2, 3, 4], 3) == ([(1, 2), (2, 4), (3, 6)], 3)
    assert drain(lambda items: 7, [1]) == 7
