"""The compiled decoder: the logits of the plain model, one compilation for all lengths."""

import json
import mmap
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor

from gptbook import compiled_decoder
from gptbook.compiled_decoder import (
    CompiledGPT,
    compile_for_decoding,
    in_huge_pages,
    one_row_product,
)
from gptbook.config import GPTConfig
from gptbook.decoder import MATRICES
from gptbook.model import GPT
from tests.test_decoder import FAMILIES, TOLERANCES

ROOT = Path(__file__).resolve().parents[1]
COMPILERS = ("c++", "g++", "clang++")


def cases(backend: str, *families: str) -> list[dict[str, Any]]:
    """Return what tests/compiled_cases.py prints."""
    command = [sys.executable, "-m", "tests.compiled_cases", backend, *families]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: list[dict[str, Any]], families: list[str]) -> None:
    """Check all families in all types; the tolerances are those of the prepared model."""
    assert [(one["family"], one["weights"]) for one in found] == [
        (family, weights) for family in families for weights in MATRICES
    ]
    for one in found:
        assert one["error"] < TOLERANCES[one["weights"]], one
        assert one["weights"] != "float32" or one["same"], one
        size = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}[one["weights"]]
        assert one["bytes"] == found[0]["bytes"] // 4 * size or one["family"] != families[0]


def test_what_is_compiled_computes_what_the_model_does() -> None:
    """All that is not the C++ compiler's, whatever the length of a row, compiled once."""
    check(cases("aot_eager"), list(FAMILIES))


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
def test_with_the_c_plus_plus_compiler() -> None:
    check(cases("inductor", "qwen"), ["qwen"])


def test_the_product_of_one_row_for_any_number_of_rows_of_the_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 4, 5, 8, 11, 64):
        weight = torch.randn(n, 7, generator=generator)
        x = torch.randn(7, generator=generator)
        # Sums of seven numbers of about 1, each off by 6e-8 of itself at most.
        torch.testing.assert_close(one_row_product(x, weight), weight @ x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("huge", [True, False])
def test_tensors_are_copied_one_behind_the_other(
    huge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not huge:
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    tensors = [
        torch.randn(3, 5), torch.randn(700, 800).bfloat16(), torch.randn(5).half(),
        torch.randint(-127, 128, (7, 3), dtype=torch.int8), torch.randn(1),
    ]  # fmt: skip
    copies = in_huge_pages(tensors)
    for tensor, copy in zip(tensors, copies, strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)
        assert copy.data_ptr() != tensor.data_ptr()
        assert not huge or copy.data_ptr() % compiled_decoder.ALIGNMENT == 0
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        starts = [copy.data_ptr() for copy in copies]
        ends = [copy.data_ptr() + copy.nbytes for copy in copies]
        assert starts[0] % compiled_decoder.HUGE_PAGE == 0
        gaps = [start - end for start, end in zip(starts[1:], ends, strict=False)]
        assert all(0 <= gap < compiled_decoder.ALIGNMENT for gap in gaps)
    del tensors[1:]
    copies[0].fill_(7)
    assert not (tensors[0] == 7).any()


def in_vain(x: Tensor) -> Tensor:
    """Be compiled where there is no compiler; no function of the package, for jaxtyping's sake."""
    return x.sin() + 1


def test_what_cannot_be_compiled_is_said() -> None:
    model = GPT(GPTConfig(vocab_size=11, context_length=4, n_layer=1, n_head=1, d_model=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/compiler"))
        patch.setattr(
            CompiledGPT, "compile_now", lambda self: torch.compile(in_vain)(torch.ones(2))
        )
        with pytest.raises(OSError, match=r"C\+\+ compiler .*No working C\+\+ compiler"):
            compile_for_decoding(model)
    with pytest.raises(ValueError, match=r"tokens.weight is torch.float64 on cpu"):
        compile_for_decoding(model.double())
