"""Writing with GPT-2 small beside transformers' generate: one row and eight, in several types.

    make bench                              # with the others; appends to book/results/
    .venv/bin/python -m tests.benchmarks.bench_generation [--quick] [--rounds 1] [--threads 2]

All have the same random weights, get the same prompts of 64 tokens, and write 128 greedily; in
float32 they must write the same. Each contender is a process of its own. "compiled" is what
transformers compiles itself: a static cache, and torch.compile for the steps behind the prompt;
"gptbook compiled" is compile_for_decoding, which is for one row. The limit of a step is the time in
which the machine reads the matrices once, at the rate at which it sums a large array, measured
before and after each text. One more process multiplies one row and eight with all matrices of the
model, in the ways that PyTorch has for it. Linux only: memory is what the kernel says (VmHWM, set
back after the model is made). About fourteen minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from tqdm import tqdm

from gptbook.compiled_decoder import compile_for_decoding, one_row_product
from gptbook.config import GPTConfig
from gptbook.decoder import (
    MATRICES,
    MatrixType,
    onednn_linear,
    onednn_packed,
    prepare_for_decoding,
)
from gptbook.generation import GenerationConfig, generate
from gptbook.model import GPT
from tests.benchmarks.bench_model import MEGABYTE, resident, shape, their_model
from tests.benchmarks.bench_tokenizer import append_run, commit, processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results" / "bench_generation.json"
PEER, COMPILED, PLAIN = "transformers", "transformers, compiled", "gptbook"
PREPARED: dict[str, MatrixType] = {f"gptbook, {kind}": kind for kind in MATRICES}
STREAMED: dict[str, MatrixType] = {f"gptbook compiled, {kind}": kind for kind in MATRICES}
CONTENDERS = (PEER, COMPILED, PLAIN, *PREPARED, *STREAMED)
EXACT = (PEER, COMPILED, PLAIN, "gptbook, float32", "gptbook compiled, float32")
"""Those that compute in float32, and so must write the same."""
BATCHES = (1, 8)
PRODUCTS = "products"
FULL = {"prompt": 64, "new": 128, "tries": 4, "array": 1 << 27}
QUICK = {"prompt": 8, "new": 4, "tries": 1, "array": 1 << 20}

Write = Callable[[int], list[list[int]]]


# --- one contender, in a process of its own ---


def rates(n_numbers: int) -> tuple[float, float]:
    """Return GB/s of reading a float32 array, by summing it, and of copying it, both ways."""
    source = torch.ones(n_numbers)
    target = torch.empty_like(source)
    read = best_seconds(source.sum, 5)[0]
    copied = best_seconds(lambda: target.copy_(source), 3)[0]
    return source.nbytes / read / 1e9, 2 * source.nbytes / copied / 1e9


def best_seconds(call: Callable[[], Any], n_times: int) -> tuple[float, Any]:
    """Return the shortest time of a call, and what it returned."""
    seconds, result = float("inf"), None
    for _ in range(n_times):
        started = time.perf_counter()
        result = call()
        seconds = min(seconds, time.perf_counter() - started)
    return seconds, result


def matrix_parameters(config: GPTConfig) -> int:
    """Return the numbers in the matrices that each step multiplies with."""
    model = GPT(config, seed=None).to("meta")
    blocks = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    return blocks + model.output_weight.numel()


def their_write(model: Any, ids: Tensor, compiled: bool) -> Write:
    """Return what lets transformers write."""
    settings: dict[str, Any] = {}
    if compiled:
        from transformers import CompileConfig

        compile_config = CompileConfig(fullgraph=False)
        # Else it compiles on a GPU only.
        compile_config._compile_all_devices = True  # type: ignore[assignment]
        settings = {"cache_implementation": "static", "compile_config": compile_config}

    def write(n_new: int) -> list[list[int]]:
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, do_sample=False,
            pad_token_id=0, eos_token_id=None, **settings,
        )  # fmt: skip
        new: list[list[int]] = written[:, ids.shape[1] :].tolist()
        return new

    return write


def our_write(model: GPT, ids: Tensor) -> Write:
    """Return what lets this package write."""
    return lambda n_new: (
        generate(model, ids.tolist(), GenerationConfig(max_new_tokens=n_new, temperature=0)).ids
    )


def make_writer(contender: str, config: GPTConfig, ids: Tensor) -> Write:
    """Return what writes behind ids."""
    model = GPT(config, seed=0).eval()
    if contender in (PEER, COMPILED):
        return their_write(their_model(model).eval(), ids, contender == COMPILED)
    if contender in PREPARED:
        model = prepare_for_decoding(model, PREPARED[contender], batch_size=len(ids))
    if contender in STREAMED:
        model = compile_for_decoding(model, STREAMED[contender])
    return our_write(model, ids)


def measure(contender: str, n_threads: int, quick: bool) -> list[dict[str, Any]]:
    """Return a row for each batch size, measured here and now."""
    if contender == PRODUCTS:
        return products(n_threads, quick)
    torch.set_num_threads(n_threads)
    batches = BATCHES[:1] if contender in STREAMED else BATCHES
    return [measure_batch(contender, n_rows, quick) for n_rows in batches]


def measure_batch(contender: str, n_rows: int, quick: bool) -> dict[str, Any]:
    """Return times, rates and memory, and what was written."""
    plan, config = (QUICK if quick else FULL), shape(quick)
    generator = torch.Generator().manual_seed(n_rows)
    ids = torch.randint(config.vocab_size, (n_rows, plan["prompt"]), generator=generator)
    if contender in (PEER, COMPILED):
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    libraries = resident("VmRSS")
    started = time.perf_counter()
    write = make_writer(contender, config, ids)
    made = time.perf_counter()
    write(plan["new"])  # warms up, and compiles
    ready = time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    first, _ = best_seconds(lambda: write(1), 3)
    written = write(plan["new"])
    peak = resident("VmHWM")
    steps, (*reads, copied) = [], rates(plan["array"])
    for _ in range(plan["tries"]):  # the rate changes from second to second, so both in turn
        whole, _ = best_seconds(lambda: write(plan["new"]), 1)
        steps.append((whole - first) / (plan["new"] - 1))
        reads.append(rates(plan["array"])[0])
    around = [(before + after) / 2 for before, after in pairwise(reads)]
    n_bytes = matrix_parameters(config) * torch_bytes(contender)
    shares = [n_bytes / read / 1e9 / step for read, step in zip(around, steps, strict=True)]
    step, read = min(steps), statistics.median(around)
    return {
        "what": contender,
        "rows": n_rows,
        "first token ms": 1e3 * first,
        "step ms": 1e3 * step,
        "tokens/s": n_rows * plan["new"] / (first + step * (plan["new"] - 1)),
        "weights MB": n_bytes / MEGABYTE,
        "read GB/s": read,
        "copy GB/s": copied,
        "limit ms": n_bytes / read / 1e6,
        "share of the limit": statistics.median(shares),
        "peak MB": peak / MEGABYTE,
        "peak above libraries MB": (peak - libraries) / MEGABYTE,
        "making s": made - started,
        "first call s": ready - made,
        "ids": written,
    }


def torch_bytes(contender: str) -> int:
    """Return the bytes of a number in a contender's matrices."""
    kind: torch.dtype = getattr(torch, (PREPARED | STREAMED).get(contender, "float32"))
    return kind.itemsize


# --- products alone ---


def product_forms() -> dict[str, Callable[[Tensor], Callable[[Tensor], Tensor]]]:
    """Return what makes of a matrix a function that multiplies rows with it, by name."""

    def prepared(kind: MatrixType) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
        return lambda weight: MATRICES[kind](weight, None, 1)

    def packed(weight: Tensor) -> Callable[[Tensor], Tensor]:
        stored = onednn_packed(weight, 8)
        return lambda x: onednn_linear(x, stored)

    compiled = torch.compile(one_row_product, dynamic=False)

    def streamed(kind: torch.dtype) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
        def form(weight: Tensor) -> Callable[[Tensor], Tensor]:
            stored = weight.to(kind)
            return lambda x: compiled(x[0], stored)

        return form

    return {
        "float32, linear": lambda weight: lambda x: linear(x, weight),
        "float32, oneDNN": prepared("float32"),
        "float32, oneDNN packed": packed,
        "bfloat16, linear": lambda weight: lambda x: linear(x.bfloat16(), weight),
        "bfloat16, oneDNN": prepared("bfloat16"),
        "float16, FBGEMM": prepared("float16"),
        "int8": prepared("int8"),
        "float32, compiled": streamed(torch.float32),
        "float16, compiled": streamed(torch.float16),
        "int8, compiled": streamed(torch.int8),
    }


def products(n_threads: int, quick: bool) -> list[dict[str, Any]]:
    """Return how fast one row and eight are multiplied with all matrices of the model."""
    torch.set_num_threads(n_threads)
    model = GPT(shape(quick), seed=0)
    weights = [p.detach() for p in model.blocks.parameters() if p.ndim == 2]
    weights.append(model.output_weight.detach())
    plan, rows = (QUICK if quick else FULL), []
    torch._dynamo.config.recompile_limit = 64  # one for each shape and type
    for name, form in product_forms().items():
        one_row = "compiled" in name
        if one_row and quick:
            continue
        kind: torch.dtype = getattr(torch, name.partition(",")[0])
        ready = [form(w.bfloat16() if name == "bfloat16, linear" else w) for w in weights]
        n_bytes = sum(w.numel() for w in weights) * kind.itemsize
        for n_rows in BATCHES[:1] if one_row else BATCHES:
            inputs = [torch.randn(n_rows, w.shape[1]) for w in weights]

            def multiply(pairs: list[Any]) -> None:
                for product, x in pairs:
                    product(x)

            with torch.no_grad():
                pairs = list(zip(ready, inputs, strict=True))
                seconds, _ = best_seconds(partial(multiply, pairs), 8)
            rows.append(
                {"what": name, "rows": n_rows, "ms": 1e3 * seconds, "GB/s": n_bytes / seconds / 1e9}
            )
    read = rates(plan["array"])[0]
    return [row | {"read GB/s": read} for row in rows]


# --- all of them ---


def in_a_process(contender: str, n_threads: int, quick: bool) -> list[dict[str, Any]]:
    """Return what `measure` says in a new process, which finds nothing compiled."""
    if quick:
        return measure(contender, n_threads, quick)
    command = [sys.executable, "-m", "tests.benchmarks.bench_generation", "--contender", contender]
    command += ["--threads", str(n_threads), "--new", str(FULL["new"])]
    threads = {"OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
    with tempfile.TemporaryDirectory() as fresh:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **threads, "TORCHINDUCTOR_CACHE_DIR": fresh},
            stdout=subprocess.PIPE,
            check=True,
        )
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def medians(
    contenders: Sequence[str], n_rounds: int, n_threads: int, quick: bool
) -> list[dict[str, Any]]:
    """Return a row for each contender and batch size: medians, and comparisons with the peer.

    Raises:
        ValueError: contenders in float32 have written different tokens.
    """
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    turns = [contender for _ in range(n_rounds) for contender in contenders]
    for contender in tqdm(turns, unit="process"):
        for row in in_a_process(contender, n_threads, quick):
            found.setdefault((row["rows"], contender), []).append(row)
    rows = []
    for (n_rows, contender), measured in sorted(
        found.items(), key=lambda item: (item[0][0], contenders.index(item[0][1]))
    ):
        peer = found[n_rows, PEER]
        numbers = [key for key in measured[0] if key not in ("what", "rows", "ids")]
        row = {"what": contender, "rows": n_rows}
        row |= {key: statistics.median(one[key] for one in measured) for key in numbers}
        theirs = statistics.median(one["tokens/s"] for one in peer)
        row["times as fast"] = row["tokens/s"] / theirs
        row["same tokens"] = agreement(measured[0]["ids"], peer[0]["ids"])
        if contender in EXACT and row["same tokens"] < 1:
            raise ValueError(f"{contender} wrote other tokens than {PEER}, with {n_rows} rows")
        rows.append(row)
    return rows


def agreement(rows: list[list[int]], others: list[list[int]]) -> float:
    """Return the share of places with the same token."""
    pairs = [pair for a, b in zip(rows, others, strict=True) for pair in zip(a, b, strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and unless --quick append them to book/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is stored")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--uncompiled", action="store_true", help="leave out what is compiled")
    parser.add_argument("--new", type=int, default=FULL["new"], help="tokens to write")
    parser.add_argument(
        "--contender", choices=(*CONTENDERS, PRODUCTS), help="one measurement, as JSON"
    )
    arguments = parser.parse_args(argv)
    FULL["new"] = arguments.new
    if arguments.contender:
        print(json.dumps(measure(arguments.contender, arguments.threads, arguments.quick)))
        return 0
    left_out = (COMPILED, *STREAMED) if arguments.quick or arguments.uncompiled else ()
    contenders = [name for name in CONTENDERS if name not in left_out]
    rows = medians(contenders, arguments.rounds, arguments.threads, arguments.quick)
    alone = in_a_process(PRODUCTS, arguments.threads, arguments.quick)
    for row in (*rows, *alone):
        print(f"{row['what']}, rows: {row['rows']}")
        for key, value in row.items():
            if key not in ("what", "rows"):
                print(f"  {key:28} {value:10.3f}")
    if not arguments.quick:
        append_run(RESULTS, provenance(arguments.rounds, arguments.threads, rows, alone))
    return 0


def provenance(
    n_rounds: int, n_threads: int, rows: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a run as it is stored."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m tests.benchmarks.bench_generation --rounds {n_rounds}",
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "cores_used": n_threads,
            "python": sys.version.split()[0],
        },
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "what": f"GPT-2 small, random weights, 64 tokens given, {FULL['new']} written, greedy",
        "rounds": n_rounds,
        "rows": rounded(rows),
        "products": rounded(alone),
    }


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with four decimals."""
    return [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
