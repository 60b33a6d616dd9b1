"""What a run will cost, before it is started: sizes, FLOPs, memory, time."""

import time
from collections.abc import Iterator

import torch

from gptbook.data import Batch
from gptbook.device import autocast, choose_device, choose_dtype, matmul_rate, wait_for
from gptbook.flops import activation_bytes, count_parameters, training_flops
from gptbook.model import GPT
from gptbook.train_config import TrainConfig
from gptbook.trainer import MANY_TOKENS, batch_loss

TRIAL_SECONDS = 1.0
"""About so long a trial of forward and backward may take."""


def plan_lines(config: TrainConfig) -> Iterator[str]:
    """Yield what a run costs, a line at a time."""
    count = count_parameters(config.model)
    tokens = config.batch_size * config.context_length
    flops = training_flops(config.model, config.context_length) * tokens
    yield f"parameters   {count.total:,} ({count.non_embedding:,} without embeddings)"
    yield f"tokens       {tokens:,} a step, {config.steps * tokens:,} in {config.steps:,} steps"
    yield f"FLOPs        {flops:.3g} a step, {config.steps * flops:.3g} in all"
    rows = config.micro_batch_size or config.batch_size
    yield "memory       " + memory(config, rows)
    seconds, rate = trial(config)
    total = config.steps * seconds
    yield f"time         {seconds:.3g} s a step, {spoken_time(total)} in all, on this machine alone"
    yield f"speed        {tokens / seconds:,.0f} tokens/s, {flops / seconds / rate:.0%} MFU"
    yield "without torch.compile, evaluation and checkpoints"


def memory(config: TrainConfig, rows: int) -> str:
    """Return the bytes of weights, gradients, moments and activations in words."""
    model, n = config.model, count_parameters(config.model)
    moments = 8 * n.total
    if config.optim.name == "muon":
        moments -= 4 * (n.attention + n.mlp)  # one number for each of a matrix, not two
    width = 2 if config.precision == "bfloat16" else 4
    per_token = activation_bytes(model, config.context_length, bytes_per_number=width)
    kept = per_token.total
    if config.recompute:
        inside = kept - per_token.logits
        kept = per_token.logits + width * model.n_layer * model.d_model + inside / model.n_layer
    activations = kept * rows * config.context_length
    total = 8 * n.total + moments + activations
    parts = {
        "weights": 4 * n.total,
        "gradients": 4 * n.total,
        "optimizer": moments,
        "activations": activations,
    }
    words = ", ".join(f"{name} {spoken_bytes(size)}" for name, size in parts.items())
    return f"{spoken_bytes(total)}: {words}"


def trial(config: TrainConfig) -> tuple[float, float]:
    """Return the seconds of a step, from a trial of a few rows, and the machine's FLOP/s."""
    device = choose_device(config.device)
    dtype = choose_dtype(config.precision, device)
    rate = matmul_rate(device, dtype)
    row_flops = training_flops(config.model, config.context_length) * config.context_length
    most = config.micro_batch_size or config.batch_size
    rows = max(1, min(most, int(TRIAL_SECONDS * rate / 2 / row_flops)))
    model = GPT(config.model).to(device)
    shape = (rows, config.context_length)
    ids = torch.randint(config.model.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    place = torch.arange(config.context_length).expand(shape)
    batch = Batch(ids, ids, place, torch.zeros_like(ids)).to(device)
    separate, many = config.data.separate_documents, config.model.vocab_size >= MANY_TOKENS
    best = float("inf")
    for _ in range(3):
        wait_for(device)
        started = time.perf_counter()
        with autocast(device, dtype):
            loss, _ = batch_loss(model, batch, 1.0, separate=separate, chunked=many)
        torch.autograd.backward(loss)
        wait_for(device)
        best = min(best, time.perf_counter() - started)
        model.zero_grad()
        if best > TRIAL_SECONDS:
            break
    return best * config.batch_size / rows, rate


def spoken_bytes(size: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def spoken_time(seconds: float) -> str:
    """Return a time with a unit that suits it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
