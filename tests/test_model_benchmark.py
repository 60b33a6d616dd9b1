"""The benchmark of a training step still runs, and its contenders compute the same loss."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_quick_run_measures_everything() -> None:
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_model", "--quick", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = [line for line in lines if not line.startswith(" ")]
    assert names == ["transformers", "gptbook, plain loss", "gptbook, chunked loss"]
    values = [float(line.rsplit(maxsplit=1)[1]) for line in lines if line.startswith(" ")]
    assert all(value > 0 for value in values)
    assert len(values) % 3 == 0
