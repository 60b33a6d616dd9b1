"""The benchmark of writing still runs, and its contenders in float32 write the same tokens."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_quick_run_measures_everything() -> None:
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_generation", "--quick", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = [line for line in lines if not line.startswith(" ")]
    types = [f"gptbook, {name}" for name in ("float32", "float16", "bfloat16", "int8")]
    contenders = ["transformers", "gptbook", *types]  # compiling takes longer than a test may
    assert names[:12] == [f"{name}, rows: {rows}" for rows in (1, 8) for name in contenders]
    assert "float32, oneDNN packed, rows: 1" in names[12:]
    numbers = {line.rsplit(maxsplit=1)[0].strip() for line in lines if line.startswith(" ")}
    assert {"first token ms", "step ms", "share of the limit", "peak MB", "GB/s"} <= numbers
