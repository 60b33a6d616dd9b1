"""How fast documents are made, n-grams counted and scored, and batches loaded, on one core.

    make bench                              # with the others; appends to book/results/
    .venv/bin/python -m tests.benchmarks.bench_data [--quick] [--rounds 5]

There is no peer here that does the same: the goals are 20 MB of documents a minute and 20 million
tokens a second from the page cache into batches. Each round also measures the machine's own limit,
the rate at which it copies memory. Medians of the rounds count.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gptbook.data import Loader
from gptbook.ngram import NGramModel
from gptbook.shard_writing import write_shards
from gptbook.tinyworld import KINDS, TinyWorld
from gptbook.tokenizer import train_bpe
from tests.benchmarks.bench_tokenizer import append_run, commit, processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results" / "bench_data.json"
SHAPES = ((64, 64), (16, 1024), (4, 4096))  # batch size, context length
TOKENS_A_MEASUREMENT = 2_000_000
VOCAB_SIZE = 1024


def document_rates(world: TinyWorld, n_documents: int) -> Iterator[tuple[str, float]]:
    """Yield MB a minute for each kind of document."""
    for kind in KINDS:
        world.document(0, kind)  # what is prepared once is not counted
        started = time.perf_counter()
        size = sum(len(document.text) for document in world.documents(n_documents, kind))
        yield f"documents, {kind}: MB/min", size / 1e6 / (time.perf_counter() - started) * 60


def loader_rates(folder: Path, n_tokens: int) -> Iterator[tuple[str, float]]:
    """Yield million tokens a second for each shape of batch, with document borders and without."""
    tokenizer = train_bpe(["a b c"], 257, special_tokens=["<|endoftext|>"])
    texts = ["".join(chr(97 + i % 26) for i in range(size)) for size in range(200, 1200)]
    shards = write_shards(texts * -(-n_tokens // 600_000), tokenizer, folder)
    for batch_size, length in SHAPES:
        for borders in (True, False):
            loader = Loader(shards, batch_size, length, seed=0, separate_documents=borders)
            steps = min(n_tokens, shards.n_tokens // 2) // (batch_size * length)
            started = time.perf_counter()
            for _ in islice(loader, steps):
                pass
            took = time.perf_counter() - started
            name = "with borders" if borders else "no borders"
            rate = steps * batch_size * length / 1e6 / took
            yield f"loader, {batch_size} x {length}, {name}: Mtokens/s", rate


def ngram_rates(n_tokens: int) -> Iterator[tuple[str, float]]:
    """Yield million tokens a second for fitting and scoring a trigram and a 5-gram model."""
    ids = np.random.default_rng(0).zipf(1.3, n_tokens) % VOCAB_SIZE
    for order in (3, 5):
        model = NGramModel(order, VOCAB_SIZE)
        started = time.perf_counter()
        model.fit(ids)
        yield f"{order}-gram, fit: Mtokens/s", n_tokens / 1e6 / (time.perf_counter() - started)
        started = time.perf_counter()
        model.score(ids)
        yield f"{order}-gram, score: Mtokens/s", n_tokens / 1e6 / (time.perf_counter() - started)


def copy_rate() -> float:
    """Return GB a second that this machine reads and writes in copying memory."""
    source, target = np.ones(1 << 23), np.empty(1 << 23)
    started = time.perf_counter()
    for _ in range(5):
        np.copyto(target, source)
    return 5 * 2 * source.nbytes / (time.perf_counter() - started) / 1e9


def one_round(n_documents: int, n_tokens: int) -> dict[str, float]:
    """Measure everything once."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "machine, copy: GB/s": copy_rate(),
            **dict(document_rates(TinyWorld(seed=0), n_documents)),
            **dict(loader_rates(Path(folder), n_tokens)),
            **dict(ngram_rates(n_tokens)),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and unless --quick append them to book/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is stored")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sizes = (20, 40_000) if arguments.quick else (1500, TOKENS_A_MEASUREMENT)
    n_rounds = 1 if arguments.quick else arguments.rounds
    rounds = [one_round(*sizes) for _ in tqdm(range(n_rounds), unit="round")]
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    for name, rate in medians.items():
        print(f"{name:45} {rate:8.1f}")
    if not arguments.quick:
        append_run(RESULTS, provenance(n_rounds, medians))
    return 0


def provenance(n_rounds: int, medians: dict[str, float]) -> dict[str, Any]:
    """Return a run as it is stored."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m tests.benchmarks.bench_data",
        "commit": commit(),
        "machine": {"processor": processor(), "cores_used": 1, "python": sys.version.split()[0]},
        "versions": {"numpy": np.__version__, "torch": torch.__version__},
        "rounds": n_rounds,
        "rows": [{"what": name, "median": round(rate, 2)} for name, rate in medians.items()],
    }


if __name__ == "__main__":
    sys.exit(main())
