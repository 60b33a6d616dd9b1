"""The benchmarks still run: a quick one on tiny corpora, its record, and its table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import bench_tokenizer
from tests.benchmarks.tokenizer_worker import Job

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("--quick", "--peers", "tokenizers", "tiktoken")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as `make bench` does."""
    return subprocess.run(
        [sys.executable, "tests/benchmarks/bench_tokenizer.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("gpt2_encoding")
def test_a_quick_run_is_recorded_and_printed(tmp_path: Path) -> None:
    output = tmp_path / "runs.json"
    output.write_text('[{"rows": []}]')
    done = bench(*QUICK, "--output", str(output))
    assert done.returncode == 0, done.stderr
    runs = json.loads(output.read_text(encoding="utf-8"))
    assert len(runs) == 2
    assert {"date", "machine", "versions", "command", "commit", "rounds", "rows"} <= set(runs[1])
    assert runs[1]["copy_gigabytes_per_second"] > 0
    measured = {(row["phase"], row["library"]) for row in runs[1]["rows"]}
    encoders = {"gptbook", "tokenizers", "tiktoken"}
    assert measured == {
        *(("train", library) for library in ("gptbook", "tokenizers")),
        *((p, e) for p in ("load", "encode, cold", "encode, warm", "decode") for e in encoders),
        ("regex.findall", "limit"),
    }
    assert all(row["median_seconds"] > 0 for row in runs[1]["rows"])
    printed = bench("--markdown", "--output", str(output))
    assert printed.stdout == done.stdout
    assert printed.stdout.count("\n| ") == len(runs[1]["rows"])


def test_encoders_that_differ_are_not_compared() -> None:
    rows = [{"library": name, "corpus": "c", "digest": name} for name in ("gptbook", "tiktoken")]
    with pytest.raises(ValueError, match="differently"):
        bench_tokenizer.check_same_ids(rows)
    bench_tokenizer.check_same_ids([{**row, "digest": "same"} for row in rows])


def test_another_library_begins_each_round() -> None:
    cases = [
        bench_tokenizer.Case("c", 1, Job("train", library, Path("c"), 512))
        for library in ("gptbook", "tokenizers", "rustbpe")
    ]
    groups = bench_tokenizer.grouped(cases)
    assert groups == [cases]
    orders = [list(bench_tokenizer.in_turn(groups, round_index)) for round_index in range(3)]
    assert [order[0] for order in orders] == cases
    assert all(set(order) == set(cases) for order in orders)


def test_the_corpus_has_the_size_asked_for() -> None:
    texts = bench_tokenizer.standard_library(123_456)
    assert texts == bench_tokenizer.standard_library(123_456)
    assert abs(sum(len(text.encode()) for text in texts) - 123_456) < 10  # a character cut
    with pytest.raises(ValueError, match="fewer than"):
        bench_tokenizer.standard_library(10**10)


def test_a_file_that_is_not_a_record_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"rows": 3}')
    with pytest.raises(ValueError, match=r"other\.json"):
        bench_tokenizer.append_run(path, {"rows": []})
    assert path.read_text() == '{"rows": 3}'


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--markdown", "--output", "nowhere.json"), 1, "make bench"),
        (("--markdown", "--quick"), 2, "--output"),
        (("--rounds", "0"), 2, "--rounds is 0"),
        (("--peers", "pickle"), 2, "invalid choice"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == code
    assert message in done.stderr


def test_a_missing_peer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        bench_tokenizer.parse(["--peers", "rustbpe"])
    assert "rustbpe; run `make bench`" in capsys.readouterr().err


def test_peers_are_those_of_the_requirements() -> None:
    requirements = (ROOT / "tests" / "benchmarks" / "requirements.txt").read_text()
    for package in (*bench_tokenizer.PEERS, "numpy", "psutil", "regex", "tqdm"):
        assert f"\n{package}==" in requirements


def test_the_data_benchmark_measures_everything() -> None:
    """In a process of its own, since it keeps to one core."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_data", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rates = {line[:45].strip(): float(line[45:]) for line in done.stdout.splitlines()}
    assert all(rate > 0 for rate in rates.values())
    for what in ("documents, story: MB/min", "5-gram, score: Mtokens/s", "machine, copy: GB/s"):
        assert what in rates


def test_the_attention_benchmark_measures_every_case() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_attention", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    rates = {line[0]: float(line[-1].split()[1]) for line in lines}
    assert len(rates) == 7
    assert {"case matrix product", "case reference", "case sdpa", "case tiled"} <= set(rates)
    assert all(rate > 0 for rate in rates.values())
