"""How fast attention is, and how much memory it takes, beside its peers and the machine's limit.

    make bench                              # with the others; appends to book/results/
    .venv/bin/python -m tests.benchmarks.bench_attention [--quick] [--rounds 3] [--gpu]

On the CPU whole layers are compared, forward and backward, on one row of T tokens: ours with each
backend, torch.nn.MultiheadAttention, and Hugging Face's GPT-2 attention with its two
implementations. Each measurement is a process of its own, so that its peak memory is its own, and
the cases take turns in every round. Useful work counts the causal half of the scores only, which is
why a layer that skips the other half can come closer to the rate of a matrix product, measured in
the same run. With --gpu it is the bare functions: bfloat16, CUDA events, fresh random data in
rotated buffers.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gptbook.attention import AttentionMask, CausalSelfAttention, attend
from gptbook.config import AttentionConfig, Backend
from tests.benchmarks.bench_tokenizer import append_run, commit, processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results" / "bench_attention.json"
C, H = 256, 4
LENGTHS = (128, 512, 2048, 8192)
OURS = ("reference", "sdpa", "tiled")
BACKENDS: tuple[Backend, ...] = ("sdpa", "flash")  # those measured on a GPU
PEERS = (
    "torch.nn.MultiheadAttention",
    "GPT-2 in transformers, eager",
    "GPT-2 in transformers, sdpa",
)
MATRIX = "matrix product"
SECONDS = 0.3  # that a measurement repeats for, at least

Step = Callable[[], object]
Measure = Callable[[str, int, float], tuple[float, float]]


def our_layer(backend: str, n_tokens: int) -> Step:
    """Return a forward and backward pass of our layer."""
    config = AttentionConfig(d_model=C, n_head=H, bias=True, backend=backend)  # type: ignore[arg-type]
    return pass_of(CausalSelfAttention(config), n_tokens)


def torch_layer(n_tokens: int) -> Step:
    """Return a forward and backward pass of torch's module."""
    layer = nn.MultiheadAttention(C, H, batch_first=True)
    late = nn.Transformer.generate_square_subsequent_mask(n_tokens)

    def forward(x: Tensor) -> Tensor:
        out: Tensor = layer(x, x, x, attn_mask=late, is_causal=True, need_weights=False)[0]
        return out

    return pass_of(forward, n_tokens)


def huggingface_layer(implementation: str, n_tokens: int) -> Step:
    """Return a forward and backward pass of transformers' GPT-2 attention."""
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    config = GPT2Config(
        n_embd=C,
        n_head=H,
        n_positions=n_tokens,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )
    config._attn_implementation = implementation
    layer = GPT2Attention(config, layer_idx=0)
    mask = None
    if implementation == "eager":  # as the model hands it in
        mask = torch.full((n_tokens, n_tokens), torch.finfo(torch.float32).min).triu(1)[None, None]
    return pass_of(lambda x: layer(x, attention_mask=mask)[0], n_tokens)


def pass_of(forward: Callable[[Tensor], Tensor], n_tokens: int) -> Step:
    """Return a forward and backward pass on one row of random vectors."""
    x = torch.randn(1, n_tokens, C, requires_grad=True)

    def step() -> None:
        forward(x).sum().backward()

    return step


def matrix_step() -> Step:
    """Return a product of two square matrices of 1,024, the yardstick."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: a @ b


def make_step(case: str, n_tokens: int) -> Step:
    """Return the work of a case."""
    if case == MATRIX:
        return matrix_step()
    if case in OURS:
        return our_layer(case, n_tokens)
    if case == PEERS[0]:
        return torch_layer(n_tokens)
    return huggingface_layer(case.rpartition(" ")[2], n_tokens)


def flops(case: str, n_tokens: int) -> int:
    """Return the useful FLOPs of a forward and a backward pass, which is twice the forward."""
    if case == MATRIX:
        return 2 * 1024**3
    return 3 * (8 * n_tokens * C**2 + 2 * n_tokens**2 * C)


def measured(case: str, n_tokens: int, seconds: float) -> tuple[float, float]:
    """Return the median seconds of a step, and by how many MB it raised the peak memory."""
    step = make_step(case, n_tokens)
    Path("/proc/self/clear_refs").write_text("5")  # what Linux calls the peak is now what is used
    before = memory_mb("VmRSS")
    step()
    megabytes = memory_mb("VmHWM") - before
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times), megabytes


def memory_mb(kind: str) -> float:
    """Return MB that this process uses ("VmRSS"), or the most that it used ("VmHWM"), on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{kind}:"))
    return int(kilobytes) * 1024 / 1e6


def in_own_process(case: str, n_tokens: int, seconds: float) -> tuple[float, float]:
    """Return what `measured` gives in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (case, n_tokens, seconds))


def cpu_rows(
    lengths: Sequence[int], n_rounds: int, seconds: float, measure: Measure
) -> list[dict[str, Any]]:
    """Measure every case at every length, in turn, and return the medians of the rounds."""
    cases = [(MATRIX, 0), *((case, T) for T in lengths for case in (*OURS, *PEERS))]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(n_rounds):
        for case in tqdm(cases, unit="case"):
            found[case].append(measure(*case, seconds))
    rows = []
    for (name, T), pairs in found.items():
        took = statistics.median(pair[0] for pair in pairs)
        rows.append(
            {
                "case": name,
                "T": T,
                "ms": round(1e3 * took, 3),
                "peak_mb": round(statistics.median(pair[1] for pair in pairs), 1),
                "gflops": round(flops(name, T) / took / 1e9, 1),
            }
        )
    return rows


# On a GPU


def gpu_rows(n_rounds: int) -> Iterator[dict[str, Any]]:
    """Yield rates of sdpa and flash, forward and backward, for heads of 64 and 128."""
    peak = gpu_matrix_rate()
    yield {"case": MATRIX, "tflops": round(peak / 1e12, 1)}
    for D in (64, 128):
        for T in (2048, 4096, 8192, 16384):
            for backend in BACKENDS:
                took = statistics.median(gpu_seconds(backend, T, D) for _ in range(n_rounds))
                heads, rows = 2048 // D, max(1, 16384 // T)
                # Forward: two products; backward: five, of which one is made again.
                work = 3.5 * rows * heads * 2 * T * T * D
                yield {
                    "case": backend,
                    "T": T,
                    "D": D,
                    "ms": round(1e3 * took, 3),
                    "tflops": round(work / took / 1e12, 1),
                    "of_matrix_rate": round(work / took / peak, 3),
                }


def gpu_seconds(backend: Backend, n_tokens: int, d_head: int, n_steps: int = 20) -> float:
    """Return the seconds of one causal forward and backward pass in bfloat16."""
    size = (max(1, 16384 // n_tokens), 2048 // d_head, n_tokens, d_head)
    buffers = [
        [torch.randn(size, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in "qkv"]
        for _ in range(3)
    ]
    grad = torch.randn(size, device="cuda", dtype=torch.bfloat16)

    def step(index: int) -> None:
        q, k, v = buffers[index % 3]
        out = attend(q, k, v, AttentionMask(), backend=backend)
        torch.autograd.grad(out, (q, k, v), grad)

    return cuda_seconds(step, n_steps)


def gpu_matrix_rate() -> float:
    """Return the FLOP/s of a product of two bfloat16 matrices of 8,192."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / cuda_seconds(lambda _: a @ b, 20)


def cuda_seconds(step: Callable[[int], object], n_steps: int) -> float:
    """Return the mean seconds of a step by CUDA events, after a warm-up."""
    for index in range(5):
        step(index)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for index in range(n_steps):
        step(index)
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / n_steps


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and unless --quick append them to book/results/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test in one process; nothing is stored"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true", help="measure the kernel on a GPU")
    arguments = parser.parse_args(argv)
    if arguments.gpu and not torch.cuda.is_available():
        parser.error("--gpu: torch finds no GPU here")
    if arguments.gpu:
        rows = list(gpu_rows(arguments.rounds))
    elif arguments.quick:
        rows = cpu_rows(LENGTHS[:1], 1, 0.0, measured)
    else:
        rows = cpu_rows(LENGTHS, arguments.rounds, SECONDS, in_own_process)
    show(rows)
    if not arguments.quick:
        append_run(RESULTS, provenance(arguments, rows))
    return 0


def provenance(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a run as it is stored."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m tests.benchmarks.bench_attention" + " --gpu" * arguments.gpu,
        "commit": commit(),
        "machine": {
            "processor": torch.cuda.get_device_name() if arguments.gpu else processor(),
            "threads": torch.get_num_threads(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "shape": {"d_model": C, "n_head": H, "batch": 1} if not arguments.gpu else None,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "rounds": arguments.rounds,
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
