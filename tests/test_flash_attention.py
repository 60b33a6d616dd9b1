"""Attention by tiles and by the Triton kernel, against the reference in float64."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gptbook.flash_attention import (
    HIDDEN,
    MIXED,
    VISIBLE,
    flash_obstacle,
    make_sight,
    tile_ranges,
    tiled_attention,
)
from tests.flash_cases import CAUSAL, SMALL, Case, documents, errors

ROOT = Path(__file__).resolve().parents[1]
TILES = [16, (24, 7), (7, 24), 256]
HALF = (torch.float16, torch.bfloat16)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def check(found: dict[str, tuple[float, float]], dtype: torch.dtype, headroom: float) -> None:
    """Compare errors with those of the reference computed in the same dtype.

    Both add the same numbers in another order, so each may be twice as far off as the other, and a
    lucky one may be exact: hence some units of the type's precision on top. `headroom` is how many.
    """
    eps = torch.finfo(dtype).eps
    for part, (error, plain) in found.items():
        assert error <= 2 * plain + headroom * eps, (
            f"{part}: {error / eps:.1f} eps, {plain / eps:.1f}"
        )


# Tiles in PyTorch


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_tiles_agree_with_the_reference(name: str, tile: Any) -> None:
    def attend(*inputs: Tensor, **rule: Any) -> Tensor:
        return tiled_attention(*inputs, tile=tile, **rule)

    # Sums of up to 71 terms of either sign: measured below 20 eps.
    check(errors(attend, SMALL[name], torch.float64), torch.float64, 64)


@pytest.mark.parametrize("seed", range(25))
def test_tiles_agree_on_random_shapes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    K, T, S = pick(1, 3), pick(1, 90), pick(1, 90)
    rule: dict[str, Any] = {"causal": bool(pick(0, 1))}
    if rule["causal"] and pick(0, 1):
        rule["window"] = pick(1, 40)
    if pick(0, 1):
        rule |= {
            "query_documents": documents(2, T, seed),
            "key_documents": documents(2, S, seed + 1),
        }
    case = Case(2, K * pick(1, 4), K, T, S, pick(1, 24), rule, strided=bool(pick(0, 1)))
    tile = (pick(1, 40), pick(1, 40))
    found = errors(
        lambda *x, **r: tiled_attention(*x, tile=tile, **r), case, torch.float64, seed=seed
    )
    check(found, torch.float64, 64)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", ["causal", "four heads on two, fewer keys", "window", "strided"])
def test_tiles_in_smaller_types(name: str, dtype: torch.dtype) -> None:
    # Half types are computed in float32, so only inputs and outputs are rounded, as in the
    # reference: delta comes from the rounded output, which costs up to two eps more.
    check(errors(tiled_attention, SMALL[name], dtype), dtype, 8 if dtype == torch.float32 else 2)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_gradients_of_every_ratio_of_heads(ratio: int) -> None:
    case = Case(1, 8, 8 // ratio, 40, 40, 8, CAUSAL)
    check(errors(tiled_attention, case, torch.float64), torch.float64, 64)


def test_gradcheck() -> None:
    q = torch.randn(1, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(1, 2, 7, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for rule in (CAUSAL, {"causal": True, "window": 2}, {"key_index": torch.tensor([[-1] * 7])}):
        assert torch.autograd.gradcheck(
            lambda *x, rule=rule: tiled_attention(*x, tile=(2, 3), **rule), (q, k, v)
        )


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient() -> None:
    q, k, v = (torch.randn(1, 2, n, 4, requires_grad=True) for n in (9, 5, 5))
    out = tiled_attention(q, k, v, causal=True, tile=4)  # queries 0 to 3 stand before all keys
    out.sum().backward()
    assert q.grad is not None
    assert out[:, :, :4].eq(0).all()
    assert q.grad[:, :, :4].eq(0).all()
    assert out[:, :, 4:].ne(0).all()


@pytest.mark.parametrize(("T", "S"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_do(T: int, S: int) -> None:
    q, k, v = (torch.randn(2, 2, n, 4, requires_grad=True) for n in (T, S, S))
    out = tiled_attention(q, k, v, causal=True)
    out.sum().backward()
    assert out.shape == (2, 2, T, 4)
    assert out.eq(0).all()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, and counts products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.mm)
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.n = max(self.n, x.numel())
        return out


def largest(q: Tensor, k: Tensor, tile: int, **rule: Any) -> Largest:
    """Return what a forward and a backward pass made."""
    q, k = q.requires_grad_(), k.requires_grad_()
    seen = Largest()
    with seen:
        tiled_attention(q, k, k, tile=tile, **rule).sum().backward()
    return seen


def test_no_table_is_ever_made() -> None:
    rule = CAUSAL | {"query_documents": documents(1, 600, 0), "key_documents": documents(1, 600, 0)}
    seen = largest(torch.randn(1, 2, 600, 8), torch.randn(1, 2, 600, 8), 64, **rule)
    assert seen.n == 2 * 600 * 8  # an input; a tile has 2 * 64 * 64 scores, a table 2 * 600 * 600


def test_keys_are_not_copied_for_their_queries() -> None:
    seen = largest(torch.randn(1, 8, 4, 8), torch.randn(1, 1, 600, 8), 64)
    assert seen.n == 600 * 8  # the keys; one copy for each head would be 8 times that


def test_hidden_tiles_are_skipped() -> None:
    q = torch.randn(1, 1, 640, 8)
    n = 2 + 5  # products for each tile, forward and backward
    assert largest(q, q, 64).products == 100 * n
    assert largest(q, q, 64, causal=True).products == 55 * n
    assert largest(q, q, 64, causal=True, window=65).products == 19 * n
    ids = torch.arange(640)[None] // 128
    both = {"query_documents": ids, "key_documents": ids}
    assert largest(q, q, 64, causal=True, **both).products == 15 * n


# Who sees whom


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("sizes", [(8, 8), (16, 5), (5, 16), (100, 100)], ids=str)
def test_kinds_and_ranges_never_claim_too_much(name: str, sizes: tuple[int, int]) -> None:
    case = SMALL[name]
    sight = make_sight(case.T, case.S, torch.device("cpu"), **case.rule)
    kinds = sight.kinds(*sizes)
    dense = sight.tile(slice(None), slice(None)).expand(len(kinds), -1, -1)
    for i in range(kinds.shape[1]):
        for j in range(kinds.shape[2]):
            rows, columns = (slice(n * s, (n + 1) * s) for n, s in zip((i, j), sizes, strict=True))
            tile = dense[:, rows, columns].flatten(1)
            assert not tile[kinds[:, i, j] == HIDDEN].any()
            assert tile[kinds[:, i, j] == VISIBLE].all()
    for by_keys in (False, True):
        turned = kinds.mT if by_keys else kinds
        place = torch.arange(turned.shape[2])
        begin, first, last, end = (
            x[..., None] for x in sight.ranges(*sizes, by_keys=by_keys).unbind(2)
        )
        assert ((begin <= first) & (first <= last) & (last <= end)).all()
        assert turned[(place < begin) | (place >= end)].eq(HIDDEN).all()
        assert turned[(place >= first) & (place < last)].eq(VISIBLE).all()


def test_ranges_by_hand() -> None:
    kinds = torch.tensor([[[0, 1, 2, 2, 1, 0], [2, 1, 2, 0, 0, 0], [0] * 6, [2] * 6]])
    assert (HIDDEN, MIXED, VISIBLE) == (0, 1, 2)
    rows = [[1, 2, 4, 5], [0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 6, 6]]
    assert tile_ranges(kinds)[0].tolist() == rows
    rows[1] = [0, 3, 3, 3]
    assert tile_ranges(kinds, mixed_first=True)[0].tolist() == rows


@pytest.mark.parametrize("T", [1, 31, 32, 64, 70])
@pytest.mark.parametrize("S", [1, 32, 64, 90])
@pytest.mark.parametrize("rule", [{}, CAUSAL, {"causal": True, "window": 5}], ids=str)
def test_stretches_that_are_left_out_are_empty(T: int, S: int, rule: dict[str, Any]) -> None:
    """The first version left out the tiles of a stretch of keys that has no wholly visible one.

    It did so only where T is a multiple of the tile, and the first tests had none.
    """
    pytest.importorskip("triton")
    from gptbook.kernels.flash_attention import Tiling, _stretches

    sight = make_sight(T, S, torch.device("cpu"), **rule)
    for by_keys in (False, True):
        lengths = sight.ranges(32, 16, by_keys=by_keys).diff(dim=2)
        first, last = _stretches(sight, Tiling(32, 16, 1, 1), by_keys=by_keys, by_shape=True)
        assert lengths[:, :, :first].eq(0).all()
        assert lengths[:, :, last:].eq(0).all()


def test_arguments_that_do_not_go_together() -> None:
    x = torch.randn(1, 2, 4, 8)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    calls: dict[str, Callable[[], Tensor]] = {
        "window must": lambda: tiled_attention(x, x, x, window=3),
        "at least 1": lambda: tiled_attention(x, x, x, causal=True, window=0),
        "both, or neither": lambda: tiled_attention(x, x, x, key_documents=ids),
        "must be a multiple": lambda: tiled_attention(x[:, :1], x, x),
        "one dtype": lambda: tiled_attention(x, x.double(), x.double()),
        "tile must": lambda: tiled_attention(x, x, x, tile=0),
    }
    for words, call in calls.items():
        with pytest.raises(ValueError, match=words):
            call()


# The kernel


def test_what_keeps_the_kernel_from_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    q = torch.randn(1, 1, 4, 16)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "runs on CUDA" in (flash_obstacle(q) or "")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert flash_obstacle(q) is None
    assert "float64" in (flash_obstacle(q.double()) or "")
    assert "257" in (flash_obstacle(q.new_empty(1, 1, 1, 257)) or "")
    assert "scale above 0" in (flash_obstacle(q, -1.0) or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed" in (flash_obstacle(q) or "")


def test_kernels_import_without_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from gptbook.kernels.flash_attention import flash_attention
x = torch.zeros(1, 1, 4, 16)
try:
    flash_attention(x, x, x)
except ValueError as error:
    print(error)
"""
    done = run([sys.executable, "-c", code])
    assert "Triton kernel" in done or "triton is not installed" in done


def run(command: list[str], **environment: str) -> str:
    """Return what a command printed."""
    variables = {n: x for n, x in os.environ.items() if n != "TRITON_INTERPRET"}
    done = subprocess.run(
        command, cwd=ROOT, env=variables | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def interpreted() -> Any:
    pytest.importorskip("triton")
    return json.loads(run([sys.executable, "-m", "tests.flash_cases"], TRITON_INTERPRET="1"))


@pytest.mark.parametrize("name", SMALL)
def test_kernel_in_the_interpreter(name: str, interpreted: Any) -> None:
    for dtype, found in interpreted[name].items():
        kind = getattr(torch, dtype)
        # float32: exp2 and log2 with a factor in place of exp and log, a few eps for scores of
        # some units; extreme scores of a thousand lose a digit more for each factor of ten. Half
        # types: weights and their gradients are float32 here, as they are in the reference.
        check(found, kind, 2 if kind in HALF else 400 if name == "extreme scores" else 16)


def test_kernels_compile_for_gpus_that_are_not_here() -> None:
    pytest.importorskip("triton")
    shared = json.loads(run([sys.executable, "-m", "tests.flash_compile"]))
    assert len(shared) == 12
    for name, n_bytes in shared.items():
        # What one program may take of a multiprocessor's shared memory: CUDA's programming guide.
        assert n_bytes <= (227 if "9.0" in name else 99) * 1024, name


GPU_CASES = SMALL | {
    "long": Case(1, 4, 2, 1000, 1000, 64, CAUSAL),
    "long, full tiles": Case(1, 4, 2, 1024, 1024, 64, CAUSAL),
    "wide, full tiles": Case(1, 2, 2, 1024, 1024, 128, CAUSAL),
    "wide": Case(1, 4, 1, 700, 900, 128, CAUSAL),
    "widest": Case(1, 2, 1, 300, 300, 256, CAUSAL),
    "packed": Case(
        2, 4, 2, 1024, 1024, 64,
        CAUSAL | {"query_documents": documents(2, 1024, 0), "key_documents": documents(2, 1024, 0)},
    ),
    "long window": Case(1, 2, 1, 2048, 2048, 128, {"causal": True, "window": 300}),
}  # fmt: skip


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", GPU_CASES)
def test_kernel_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    from gptbook.kernels.flash_attention import flash_attention

    # Half types: weights and score gradients are rounded before the second products, half an eps of
    # each, and one more for the result. float32 by three products of TF32: about 2 ** -21 each.
    headroom = 400 if name == "extreme scores" else 8 if dtype in HALF else 64
    check(errors(flash_attention, GPU_CASES[name], dtype, "cuda"), dtype, headroom)
