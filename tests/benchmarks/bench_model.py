"""One training step of GPT-2 small, loss and gradients, beside transformers' GPT2LMHeadModel.

    make bench                              # with the others; appends to book/results/
    .venv/bin/python -m tests.benchmarks.bench_model [--quick] [--rounds 5] [--threads 2]

Both models have the same weights and get the same tokens, in float32, in training mode without
dropout, without torch.compile, and with torch's scaled_dot_product_attention; the losses must
agree. Ours is measured with the plain loss and with the chunked one. Times are taken in one process
that holds all three and lets each take a step in turn, so that what else goes on in the machine
hits all of them; the fastest of the rounds counts, and the medians stand beside. Memory is measured
with each in a process of its own. Linux only: it is what the kernel says (VmHWM, set back by
/proc/self/clear_refs after the model is made), so that it counts all of the process. The machine's
own limit is the rate of one large matrix product, measured in each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gptbook.config import GPTConfig, preset
from gptbook.flops import training_flops
from gptbook.interop import huggingface_views
from gptbook.interop_config import config_to_huggingface
from gptbook.losses import IGNORE, cross_entropy, linear_cross_entropy
from gptbook.model import GPT
from tests.benchmarks.bench_tokenizer import append_run, commit, processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results" / "bench_model.json"
PEER = "transformers"
CONTENDERS = (PEER, "gptbook, plain loss", "gptbook, chunked loss")
TIMES = "times"
FULL = {"batch_size": 4, "length": 256}
QUICK = {"batch_size": 2, "length": 16}
MEGABYTE = 1e6

Step = Callable[[], Tensor]


# --- one measurement, in a process of its own ---


def shape(quick: bool) -> GPTConfig:
    """Return the model's configuration."""
    if not quick:
        return preset("gpt2")
    small = preset("gpt2")
    return replace(
        small, vocab_size=5003, n_layer=2, n_head=2, d_model=32, d_head=16, n_kv_head=2, d_ff=128
    )


def their_model(model: GPT) -> nn.Module:
    """Return transformers' model with the same weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    values = config_to_huggingface(model.config) | {"attn_implementation": "sdpa"}
    values |= {"bos_token_id": None, "eos_token_id": None}
    theirs: nn.Module = GPT2LMHeadModel(GPT2Config(**values))
    views = huggingface_views(dict(model.named_parameters()), model.config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(views[name])
    return theirs


def make_step(contender: str, config: GPTConfig, ids: Tensor) -> tuple[nn.Module, Step]:
    """Return a model, and what computes its loss on ids."""
    ours = GPT(config, seed=0).train()
    targets = torch.full_like(ids, IGNORE)
    targets[:, :-1] = ids[:, 1:]
    if contender == PEER:
        theirs = their_model(ours).train()
        return theirs, lambda: theirs(ids, labels=ids, use_cache=False).loss
    if "chunked" in contender:
        return ours, lambda: linear_cross_entropy(
            ours.hidden_states(ids), ours.output_weight, targets
        )[0]
    return ours, lambda: cross_entropy(ours(ids), targets)[0]


def resident(field: str) -> int:
    """Return bytes of memory by the kernel's count: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def matrix_rate() -> float:
    """Return GFLOP/s of one large product in float32."""
    a, b = torch.randn(1024, 3072), torch.randn(3072, 3072)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * a.numel() * 3072 / best / 1e9


def tokens(plan: dict[str, int], config: GPTConfig) -> Tensor:
    """Return the ids of a step."""
    generator = torch.Generator().manual_seed(0)
    size = (plan["batch_size"], plan["length"])
    return torch.randint(config.vocab_size, size, generator=generator)


def seconds_of(model: nn.Module, step: Step) -> float:
    """Return how long a loss and its gradients take, which begin at None and end there."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    step().backward()
    done = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return done


def measure_times(n_rounds: int, n_threads: int, quick: bool) -> dict[str, list[float]]:
    """Return the seconds of each contender's steps, taken in turn, and the matrix rates."""
    torch.set_num_threads(n_threads)
    plan, config = (QUICK if quick else FULL), shape(quick)
    ids = tokens(plan, config)
    steps = {contender: make_step(contender, config, ids) for contender in CONTENDERS}
    for model, step in steps.values():  # to warm up
        seconds_of(model, step)
    found: dict[str, list[float]] = {name: [] for name in (*CONTENDERS, "matrix GFLOP/s")}
    for number in range(n_rounds):
        first = number % len(CONTENDERS)
        for contender in (*CONTENDERS[first:], *CONTENDERS[:first]):
            found[contender].append(seconds_of(*steps[contender]))
        found["matrix GFLOP/s"].append(matrix_rate())
    return found


def measure_memory(contender: str, n_threads: int, quick: bool) -> dict[str, float]:
    """Return the loss of a step, and megabytes, measured here and now."""
    torch.set_num_threads(n_threads)
    plan, config = (QUICK if quick else FULL), shape(quick)
    ids = tokens(plan, config)
    if contender == PEER:
        from transformers import GPT2LMHeadModel  # noqa: F401 - a library, not the model
    libraries = resident("VmRSS")
    model, step = make_step(contender, config, ids)
    with_model = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        loss = step()
        loss.backward()
    peak = resident("VmHWM")
    parameters = sum(4 * parameter.numel() for parameter in model.parameters())
    return {
        "loss": loss.item(),
        "peak MB": peak / MEGABYTE,
        "peak above libraries MB": (peak - libraries) / MEGABYTE,
        "peak above the model MB": (peak - with_model) / MEGABYTE,
        "parameters MB": parameters / MEGABYTE,
    }


# --- all of them ---


def in_a_process(contender: str, n_rounds: int, n_threads: int, quick: bool) -> dict[str, Any]:
    """Return what a measurement says in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_model", "--contender", contender]
    command += ["--rounds", str(n_rounds), "--threads", str(n_threads)]
    threads = {"OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])],
        cwd=ROOT,
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measured_rows(n_rounds: int, n_threads: int, quick: bool) -> list[dict[str, Any]]:
    """Return a row for each contender: its best and median step, memory, ratios to the peer.

    Raises:
        ValueError: the losses differ, so that the contenders do not compute the same.
    """
    processes = {
        name: in_a_process(name, n_rounds, n_threads, quick)
        for name in tqdm((*CONTENDERS, TIMES), unit="process")
    }
    times = processes.pop(TIMES)
    losses = {name: memory["loss"] for name, memory in processes.items()}
    if max(losses.values()) - min(losses.values()) > 1e-5 * max(losses.values()):
        raise ValueError(f"the losses differ: {losses}")
    plan = QUICK if quick else FULL
    n_tokens = plan["batch_size"] * plan["length"]
    flops = training_flops(shape(quick), plan["length"]) * n_tokens
    rate = max(times["matrix GFLOP/s"])
    rows: list[dict[str, Any]] = []
    for name, memory in processes.items():
        row: dict[str, Any] = {"what": name, "seconds": min(times[name])}
        row |= {"seconds, median": statistics.median(times[name]), **memory}
        row |= {"matrix GFLOP/s": rate, "tokens/s": n_tokens / row["seconds"]}
        row["share of the matrix rate"] = flops / row["seconds"] / 1e9 / rate
        rows.append(row)
    peer = rows[0]
    for row in rows:
        row["times as fast"] = peer["seconds"] / row["seconds"]
        for key in ("peak MB", "peak above libraries MB", "peak above the model MB"):
            row[f"{key}, share of the peer's"] = row[key] / peer[key]
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and unless --quick append them to book/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is stored")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--contender", choices=(*CONTENDERS, TIMES), help="one measurement, as JSON"
    )
    arguments = parser.parse_args(argv)
    n_rounds, n_threads, quick = arguments.rounds, arguments.threads, arguments.quick
    if quick:
        n_rounds = 1
    if arguments.contender == TIMES:
        print(json.dumps(measure_times(n_rounds, n_threads, quick)))
        return 0
    if arguments.contender:
        print(json.dumps(measure_memory(arguments.contender, n_threads, quick)))
        return 0
    rows = measured_rows(n_rounds, n_threads, quick)
    for row in rows:
        print(row["what"])
        for key, value in row.items():
            if key != "what":
                print(f"  {key:48} {value:10.3f}")
    if not quick:
        append_run(RESULTS, provenance(n_rounds, n_threads, rows))
    return 0


def provenance(n_rounds: int, n_threads: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a run as it is stored."""
    rounded = [{k: round(v, 4) if k != "what" else v for k, v in row.items()} for row in rows]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m tests.benchmarks.bench_model --rounds {n_rounds}",
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "cores_used": n_threads,
            "python": sys.version.split()[0],
        },
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "what": "GPT-2 small, batch 4 of 256 tokens, float32, loss and gradients, no optimizer",
        "rounds": n_rounds,
        "rows": rounded,
    }


if __name__ == "__main__":
    sys.exit(main())
