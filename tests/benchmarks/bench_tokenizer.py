"""Our tokenizer beside its peers: training, encoding and decoding, on one thread.

    make bench                     # all of it, in .venv-bench; appends to book/results/
    ... bench_tokenizer.py --quick --peers tokenizers tiktoken   # a minute's smoke test
    ... bench_tokenizer.py --markdown                            # the table of the last run

Training compares gptbook, Hugging Face's tokenizers and rustbpe; encoding and decoding, with
GPT-2's vocabulary, compare gptbook, tiktoken and tokenizers. Every measurement is a process of its
own (``tokenizer_worker.py``) on one core. The libraries take turns, and the first to go
changes from round to round, so that a slow minute of the machine does not fall on one of them.
Each round also measures the machine: copying memory, and ``regex.findall`` with GPT-2's pattern,
which is what it costs to split the text with the regex library before a single pair is merged.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from tqdm import tqdm

from tests.benchmarks.tokenizer_worker import (
    CODECS,
    TRAINERS,
    Job,
    Measurement,
    write_vocabulary,
)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results" / "bench_tokenizer.json"
OURS = "gptbook"
PEERS = ("tokenizers", "tiktoken", "rustbpe")
MEGABYTE = 1_000_000
# Memory is taken from before the first phase to the end of this one.
PEAK_PHASE = {"train": "train", "encode": "encode, cold", "limits": None}
ONE_THREAD = {
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Plan:
    """What to measure: sizes of the standard library's sources, and whether English too."""

    training_bytes: tuple[int, ...]
    vocab_sizes: tuple[int, ...]
    encoding_bytes: int
    english: bool


FULL = Plan((500_000, 1_100_000, 10_000_000), (8192, 32768), 10_000_000, english=True)
QUICK = Plan((40_000,), (512,), 40_000, english=False)


@dataclass(frozen=True)
class Case:
    """One measurement to be taken in every round; ``corpus`` is the name that tables show."""

    corpus: str
    corpus_bytes: int
    job: Job


# --- Corpora -------------------------------------------------------------------------------------


def standard_library(size: int) -> list[str]:
    """Return whole sources of the standard library, without its tests, of ``size`` bytes in all.

    The files come in an order that is shuffled but always the same; the last is cut short.

    Raises:
        ValueError: if the standard library has fewer bytes.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    excluded = {"site-packages", "test", "tests", "idle_test", "pydoc_data"}
    folders = sorted(p for p in root.iterdir() if p.is_dir() and p.name not in excluded)
    nested = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    files = [
        file
        for file in (*sorted(root.glob("*.py")), *nested)
        if not excluded & set(file.relative_to(root).parts)
    ]
    random.Random(0).shuffle(files)
    texts: list[str] = []
    missing = size
    for file in files:
        data = file.read_bytes()[:missing]
        texts.append(data.decode("utf-8", "replace"))
        missing -= len(data)
        if missing == 0:
            return texts
    raise ValueError(f"the standard library in {root} has {missing:,} bytes fewer than {size:,}")


def encoding_corpora(plan: Plan, cache: Path | None) -> dict[str, list[str]]:
    """Return texts by name; Tiny Shakespeare only where ``cache`` has it."""
    size = plan.encoding_bytes
    corpora = {f"stdlib, {size / MEGABYTE:g} MB": standard_library(size)}
    if plan.english:
        corpora["pydoc topics"] = ["\n".join(topics.values())]
        shakespeare = cache / "tiny_shakespeare" / "input.txt" if cache else None
        if shakespeare and shakespeare.exists():
            corpora["Tiny Shakespeare"] = [shakespeare.read_text(encoding="utf-8")]
    return corpora


def cases(plan: Plan, peers: Sequence[str], cache: Path | None, scratch: Path) -> Iterator[Case]:
    """Write the corpora into ``scratch`` and yield what to measure on them, libraries together."""

    def write(name: str, texts: list[str]) -> tuple[Path, int]:
        path = scratch / f"{name}.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        return path, sum(len(text.encode()) for text in texts)

    for size in plan.training_bytes:
        name = f"stdlib, {size / MEGABYTE:g} MB"
        path, byte_count = write(f"train {size}", standard_library(size))
        for vocab_size in plan.vocab_sizes:
            for library in [name for name in TRAINERS if name in (OURS, *peers)]:
                yield Case(name, byte_count, Job("train", library, path, vocab_size))
    write_vocabulary(scratch)
    for name, texts in encoding_corpora(plan, cache).items():
        path, byte_count = write(f"encode {name}", texts)
        for library in [name for name in CODECS if name in (OURS, *peers)]:
            yield Case(name, byte_count, Job("encode", library, path, vocabulary=scratch))
        yield Case(name, byte_count, Job("limits", "", path))


# --- Measuring -----------------------------------------------------------------------------------


def run_worker(job: Job) -> Measurement:
    """Measure one job in a process of its own.

    Raises:
        RuntimeError: with the worker's error output, if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.tokenizer_worker"],
        input=json.dumps(asdict(job), default=str),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{job} failed with exit code {done.returncode}:\n{done.stderr}")
    return Measurement(**json.loads(done.stdout))


def in_turn(groups: Sequence[Sequence[Case]], round_index: int) -> Iterator[Case]:
    """Yield all cases; in each group another library is the first in each round."""
    for group in groups:
        first = round_index % len(group)
        yield from (*group[first:], *group[:first])


def grouped(all_cases: Iterable[Case]) -> list[list[Case]]:
    """Put together the cases that differ in the library alone."""
    groups: dict[tuple[str, str, int], list[Case]] = defaultdict(list)
    for case in all_cases:
        groups[case.job.task, case.corpus, case.job.vocab_size].append(case)
    return list(groups.values())


def measure_all(all_cases: Sequence[Case], rounds: int) -> dict[Case, list[Measurement]]:
    """Measure each case once in each round."""
    measured: dict[Case, list[Measurement]] = {case: [] for case in all_cases}
    groups = grouped(all_cases)
    with tqdm(total=rounds * len(measured), unit="run") as progress:
        for round_index in range(rounds):
            for case in in_turn(groups, round_index):
                progress.set_postfix_str(f"{case.job.task} {case.job.library} {case.corpus}")
                measured[case].append(run_worker(case.job))
                progress.update()
    return measured


# --- Results -------------------------------------------------------------------------------------


def rows_of(case: Case, measurements: Sequence[Measurement]) -> Iterator[dict[str, Any]]:
    """Yield one row for each phase, with the medians of the rounds.

    Raises:
        ValueError: if the rounds gave different results, so that their times say nothing.
    """
    facts = measurements[0].facts
    if any(measurement.facts != facts for measurement in measurements):
        raise ValueError(f"{case.job}: the rounds differ: {[m.facts for m in measurements]}")
    peaks = [m.peak_bytes for m in measurements if m.peak_bytes is not None]
    for phase in measurements[0].seconds:
        seconds = [measurement.seconds[phase] for measurement in measurements]
        median = statistics.median(seconds)
        yield {
            "phase": phase,
            "library": case.job.library or "limit",
            "corpus": case.corpus,
            "bytes": case.corpus_bytes,
            "vocab_size": case.job.vocab_size or None,
            "seconds": [round(value, 5) for value in seconds],
            "median_seconds": round(median, 5),
            "megabytes_per_second": round(case.corpus_bytes / median / MEGABYTE, 3)
            if phase != "load"  # which does not depend on the corpus
            else None,
            "peak_megabytes": round(statistics.median(peaks) / MEGABYTE, 1)
            if peaks and phase == PEAK_PHASE[case.job.task]
            else None,
            **facts,
        }


def check_same_ids(rows: Iterable[dict[str, Any]]) -> None:
    """Refuse a comparison of encoders that gave different ids.

    Raises:
        ValueError: if two libraries' ids differ on one corpus.
    """
    digests: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if "digest" in row:
            digests[row["corpus"]][row["library"]] = row["digest"]
    for corpus, by_library in digests.items():
        if len(set(by_library.values())) > 1:
            raise ValueError(f"the libraries encode {corpus} differently: {by_library}")


def processor() -> str:
    """Return the processor's name as Linux gives it, else as Python knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit of the working tree, marked when the tree differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def provenance(arguments: Sequence[str], peers: Sequence[str], rounds: int) -> dict[str, Any]:
    """Say when, where, and with what the run was made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "regex", *peers)},
        },
        "command": shlex.join(["python", "tests/benchmarks/bench_tokenizer.py", *arguments]),
        "commit": commit(),
        "threads": 1,
        "rounds": rounds,
    }


def load_runs(path: Path) -> list[dict[str, Any]]:
    """Return the recorded runs, oldest first; none if there is no file.

    Raises:
        ValueError: if the file holds anything but a list of runs.
    """
    if not path.exists():
        return []
    runs = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(runs, list) or not all(
        isinstance(run, dict) and "rows" in run for run in runs
    ):
        raise ValueError(f"{path} is not a list of runs: move it away, or name another --output")
    return runs


def append_run(path: Path, run: dict[str, Any]) -> None:
    """Add ``run`` to the list in the file, at once or not at all."""
    text = json.dumps([*load_runs(path), run], indent=1, ensure_ascii=False) + "\n"
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


# --- The table -----------------------------------------------------------------------------------


def table(run: dict[str, Any]) -> str:
    """Return the medians of ``run`` as a Markdown table.

    "times ours" is how many times as fast as gptbook a library is; the last column compares with
    ``regex.findall`` on the same corpus in the same run.
    """
    rows: list[dict[str, Any]] = run["rows"]
    places = [(row["phase"], row["corpus"], row["vocab_size"]) for row in rows]
    ours = {
        place: row["median_seconds"]
        for place, row in zip(places, rows, strict=True)
        if row["library"] == OURS
    }
    findall = {row["corpus"]: row["median_seconds"] for row in rows if row["library"] == "limit"}
    lines = [
        "| what | corpus | vocabulary | library | seconds | MB/s | times ours | peak MB "
        "| of `regex.findall` |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for place, row in sorted(zip(places, rows, strict=True), key=lambda pair: str(pair[0])):
        phase, corpus, vocab_size = place
        seconds = row["median_seconds"]
        speed, peak = row["megabytes_per_second"], row["peak_megabytes"]
        against_findall = speed is not None and place in ours and corpus in findall
        cells = [
            phase,
            corpus,
            f"{vocab_size:,}" if vocab_size else "",
            row["library"],
            f"{seconds:.3f}",
            "" if speed is None else f"{speed:.2f}",
            f"{ours[place] / seconds:.2f}" if place in ours else "",
            "" if peak is None else f"{peak:.0f}",
            f"{findall[corpus] / seconds:.2f}" if against_findall else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(run: dict[str, Any]) -> str:
    """Return the table with a line that says where its numbers come from."""
    machine = run["machine"]
    return (
        f"{table(run)}\n\n"
        f"Medians over {run['rounds']} round(s) on one core of {machine['cpu']} "
        f"({machine['cores']} cores), {run['date'][:10]}, commit {run['commit'][:12]}; "
        f"the machine copies {run['copy_gigabytes_per_second']:.1f} GB/s."
    )


# --- Command line --------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exit with 2 where it asks for the impossible."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="default: 3; with --quick 1")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="default: all")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS}; with --quick none")
    parser.add_argument("--quick", action="store_true", help="tiny corpora: does it still run?")
    parser.add_argument(
        "--cache",
        type=Path,
        default=os.environ.get("GPTBOOK_CACHE"),  # argparse turns the string into a Path
        help="where tiny_shakespeare/input.txt may be; default: $GPTBOOK_CACHE",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="measure nothing: print the last run in --output"
    )
    arguments = parser.parse_args(argv)
    if arguments.rounds is None:
        arguments.rounds = 1 if arguments.quick else 3
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}: at least one is needed")
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS
    if arguments.markdown and arguments.output is None:
        parser.error("--markdown with --quick needs --output: a quick run is not kept elsewhere")
    missing = [peer for peer in arguments.peers if importlib.util.find_spec(peer) is None]
    if missing and not arguments.markdown:
        parser.error(f"not installed here: {', '.join(missing)}; run `make bench`, or name --peers")
    return arguments


def run_benchmark(arguments: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """Measure everything and return the run."""
    run = provenance(argv, arguments.peers, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        plan = QUICK if arguments.quick else FULL
        all_cases = list(cases(plan, arguments.peers, arguments.cache, Path(scratch)))
        measured = measure_all(all_cases, arguments.rounds)
    copies = [m.copy_bytes_per_second for ms in measured.values() for m in ms]
    run["copy_gigabytes_per_second"] = round(
        statistics.median(value for value in copies if value > 0) / 1e9, 1
    )
    run["rows"] = [row for case, ms in measured.items() for row in rows_of(case, ms)]
    check_same_ids(run["rows"])
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, record and print; or print what was recorded."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    if arguments.markdown:
        runs = load_runs(arguments.output)
        if not runs:
            print(f"{arguments.output} has no run: make bench records one", file=sys.stderr)
            return 1
        print(summary(runs[-1]))
        return 0
    run = run_benchmark(arguments, argv)
    if arguments.output is not None:
        append_run(arguments.output, run)
        print(f"Appended to {arguments.output}", file=sys.stderr)
    print(summary(run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
