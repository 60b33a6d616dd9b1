# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Where to compute and how precisely, what the machine can do at best, and its random numbers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; "auto" is a GPU if torch sees one, and otherwise the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device is {name!r}, which torch does not know: try cpu or cuda"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but torch sees no GPU: set it to cpu or auto")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of matrix products: "float32", "bfloat16", or "auto".

    "auto" is bfloat16 on a GPU or a CPU that has instructions for it, and float32 elsewhere.

    Raises:
        ValueError: precision is another one.
    """
    match precision:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "auto":
            on_gpu = device.type == "cuda"
            able = torch.cuda.is_bf16_supported() if on_gpu else cpu_multiplies_bfloat16()
            return torch.bfloat16 if able else torch.float32
    raise ValueError(f"precision is {precision!r}; choose auto, float32 or bfloat16")


def cpu_multiplies_bfloat16() -> bool:
    """Return whether this processor has instructions for products in bfloat16, as Linux tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Return a context in which matrix products are computed in dtype; weights stay as they are."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


# --- random numbers ---


def set_seed(seed: int) -> None:
    """Seed torch's random numbers, on the CPU and on every GPU."""
    torch.manual_seed(seed)


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's random numbers: "cpu", and "cuda" for the current GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Continue with the random numbers from where they stood when state was taken."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


# --- the machine's limits ---


@dataclass(frozen=True)
class Limits:
    """What a device can do at best.

    Attributes:
        flops: floating-point operations a second in matrix products.
        bytes_per_second: read from or written to its memory.
        source: where the numbers are from.
    """

    flops: float
    bytes_per_second: float
    source: Literal["data sheet", "measured"]


DATA_SHEETS: dict[str, tuple[float, float]] = {
    "H200": (989e12, 4.8e12),
    "H100 PCIe": (756e12, 2.0e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-80GB": (312e12, 2.039e12),
    "A100": (312e12, 1.555e12),
    "L4": (121e12, 0.3e12),
    "A10": (125e12, 0.6e12),
    "RTX 4090": (165e12, 1.008e12),
    "RTX 3090": (71e12, 0.936e12),
}
"""Dense bfloat16 FLOP/s and memory bytes/s that NVIDIA states, by a part of torch's name for the
GPU; the first that fits counts."""


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Return what a device can do: from its data sheet for a known GPU in bfloat16, or measured."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, (flops, rate) in DATA_SHEETS.items():
            if part in name:
                return Limits(flops, rate, "data sheet")
    return Limits(matmul_rate(device, dtype), copy_rate(device), "measured")


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Return the FLOP/s of the product of two matrices of size by size, the best of several."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / best_seconds(lambda: torch.mm(a, b, out=out), device)


def copy_rate(device: torch.device) -> float:
    """Return the bytes a second, read and written, of copying 64 MB."""
    source = torch.ones(1 << 24, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / best_seconds(lambda: target.copy_(source), device)


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(call: Callable[[], object], device: torch.device, seconds: float = 0.2) -> float:
    """Return the shortest time that a call takes, tried for so long and at least three times."""
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        wait_for(device)
        started = time.perf_counter()
        call()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times)
