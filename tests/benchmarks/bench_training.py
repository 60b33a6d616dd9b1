"""Training on Shakespeare's characters beside the plain loop, and the rate of a middle-sized model.

    .venv/bin/python -m tests.benchmarks.bench_training
        [--quick] [--seeds 3] [--long-seeds 3] [--threads 2] [--parts quality,speed,middle]

Needs Tiny Shakespeare in the cache (GPTBOOK_CACHE) or downloads it. Three parts:

1. quality: for each seed in turn the plain loop (nanoGPT's recipe, `plain_loop.py`), the preset
   shakespeare-char-cpu, and the preset with as many steps as its time has room for: seconds
   of training, and the loss on all of the last tenth of the file. The preset alone takes --seeds
   seeds, the two long runs --long-seeds of them;
2. speed: tokens per second of both loops at the recipe's model and batch, in turns;
3. middle: 6 layers, width 384, context 256, batch 8: the share of the machine's own matrix rate,
   measured beside it, in float32 and bfloat16, eager and compiled.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gptbook import corpora
from gptbook.config import GPTConfig
from gptbook.device import matmul_rate
from gptbook.optim import clip_grad_norm
from gptbook.train_config import (
    DataConfig,
    OptimConfig,
    Precision,
    ScheduleConfig,
    TrainConfig,
    shakespeare_char_cpu,
)
from gptbook.trainer import Trainer
from gptbook.training_data import TrainingData, prepare
from tests.benchmarks.bench_tokenizer import append_run, commit, processor
from tests.benchmarks.plain_loop import Recipe, train_plainly

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RESULTS = ROOT / "book" / "results" / "bench_training.json"


def recipe_model() -> GPTConfig:
    """Return the plain loop's model as one of ours."""
    return GPTConfig(
        vocab_size=66, context_length=64, n_layer=4, n_head=4, d_model=128, mlp="gelu", bias=False
    )


def middle_model() -> GPTConfig:
    """Return the model whose rate the third part measures."""
    return GPTConfig(
        vocab_size=66, context_length=256, n_layer=6, n_head=6, d_model=384, mlp="gelu", bias=False
    )


def seconds_of_steps(trainer: Trainer, n_steps: int) -> float:
    """Train for some steps, without anything around them, and return the seconds."""
    trainer.model.train()
    started = time.perf_counter()
    for _ in range(n_steps):
        trainer.backward(next(trainer.loader))
        clip_grad_norm(trainer.parameters, trainer.config.optim.clip)
        trainer.update()
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()
        trainer.step += 1
    return time.perf_counter() - started


def train_ours(config: TrainConfig, data: TrainingData) -> dict[str, float]:
    """Run a configuration and return the loss on held-out text and the seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, data, Path(folder))
        result = trainer.run()
    assert result.held_out is not None
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return {
        "held_out_loss": result.held_out.mean,
        "seconds": trainer.seconds,
        "tokens_per_second": trainer.tokens / trainer.seconds,
        "parameters": float(parameters),
    }


def longer(config: TrainConfig, n_steps: int) -> TrainConfig:
    """Return a run of more steps whose schedule keeps its proportions."""
    decay_steps = int(config.schedule.decay_steps / config.steps * n_steps)
    warmup_steps = min(config.schedule.warmup_steps, n_steps - decay_steps)
    schedule = replace(config.schedule, warmup_steps=warmup_steps, decay_steps=decay_steps)
    return replace(config, steps=n_steps, schedule=schedule)


def quality(data: TrainingData, seeds: int, long_seeds: int, scale: float) -> list[dict[str, Any]]:
    """Return losses and seconds of the plain loop and of ours, for each seed."""
    text = "\n\n".join(corpora.load("tiny_shakespeare").documents)
    preset = replace(shakespeare_char_cpu(), checkpoint_every=0, eval_every=0)
    preset = longer(preset, max(2, int(scale * preset.steps)))
    recipe = Recipe(steps=max(2, int(scale * Recipe.steps)))
    rows = []
    for seed in tqdm(range(max(seeds, long_seeds)), unit="seed"):
        found = {}
        if seed < long_seeds:
            found["plain loop"] = train_plainly(text, seed, recipe)
        if seed < seeds:
            found["preset"] = train_ours(replace(preset, seed=seed), data)
        if seed < min(seeds, long_seeds):
            times = found["plain loop"]["seconds"] / found["preset"]["seconds"]
            steps = int(0.85 * preset.steps * times)  # the machine may slow down meanwhile
            as_long = longer(replace(preset, seed=seed), steps)
            found["preset, as long"] = train_ours(as_long, data)
        rows += [{"what": name, "seed": seed, **values} for name, values in found.items()]
    return rows


def speed(
    data: TrainingData, rounds: int, n_steps: int, compiled: bool = True
) -> list[dict[str, Any]]:
    """Return tokens per second of both loops at the recipe's model and batch."""
    text = "\n\n".join(corpora.load("tiny_shakespeare").documents)
    config = TrainConfig(
        model=recipe_model(),
        data=data_config(),
        steps=10**6,
        batch_size=Recipe.batch,
        optim=OptimConfig(lr=1e-3, beta2=0.99),
        schedule=ScheduleConfig("cosine", warmup_steps=100),
        precision="float32",
    )
    kinds = [(p, c) for c in ((False, True) if compiled else (False,)) for p in PRECISIONS]
    loops = {
        f"ours, {precision}, {'compiled' if fused else 'eager'}": Trainer(
            replace(config, precision=precision, compile=fused), data, Path("unused")
        )
        for precision, fused in kinds
    }
    tokens = n_steps * Recipe.batch * Recipe.block
    found: dict[str, list[float]] = {"plain loop": []}
    for trainer in loops.values():
        seconds_of_steps(trainer, 3)
    for _ in tqdm(range(rounds), unit="round"):
        plain = train_plainly(text[:200_000], 0, Recipe(steps=n_steps))
        found["plain loop"].append(plain["tokens_per_second"])
        for name, trainer in loops.items():
            rate = tokens / seconds_of_steps(trainer, n_steps)
            found.setdefault(name, []).append(rate)
    return [
        {"what": f"recipe's model and batch, {name}", "tokens_per_second": statistics.median(rates)}
        for name, rates in found.items()
    ]


def middle(data: TrainingData, rounds: int, compiled: bool = True) -> list[dict[str, Any]]:
    """Return the share of the machine's matrix rate that the middle-sized model reaches."""
    rows = []
    for precision, dtype in PRECISIONS.items():
        for fused in (False, True) if compiled else (False,):
            config = TrainConfig(
                model=middle_model(),
                data=data_config(),
                steps=10**6,
                batch_size=8,
                precision=precision,
                compile=fused,
            )
            trainer = Trainer(config, data, Path("unused"))
            seconds_of_steps(trainer, 1)
            shares = []
            for _ in range(rounds):
                limit = matmul_rate(trainer.device, dtype)
                rate = 2 * trainer.flops_per_step() / seconds_of_steps(trainer, 2)
                shares.append(rate / limit)
            name = f"6 layers, width 384, {precision}, {'compiled' if fused else 'eager'}"
            rows.append({"what": name, "share_of_matrix_rate": statistics.median(shares)})
    return rows


def data_config() -> DataConfig:
    """Return the preset's data."""
    return shakespeare_char_cpu().data


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and unless --quick append to book/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test, eager only; nothing is stored"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--long-seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--parts", default="quality,speed,middle", help="which of quality, speed and middle"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    parts = arguments.parts.split(",")
    quick: bool = arguments.quick
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(data_config(), Path(folder))
        if "quality" in parts:
            rows += quality(
                data,
                1 if quick else arguments.seeds,
                1 if quick else arguments.long_seeds,
                0.002 if quick else 1.0,
            )
        rounds = 1 if quick else arguments.rounds
        if "speed" in parts:
            rows += speed(data, rounds, 2 if quick else 40, compiled=not quick)
        if "middle" in parts:
            rows += middle(data, rounds, compiled=not quick)
    for row in rows:
        numbers = {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}
        print(f"{row['what']:45} {numbers}")
    if not quick:
        append_run(RESULTS, provenance(arguments.threads, rows))
    return 0


def provenance(threads: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a run as it is stored."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m tests.benchmarks.bench_training",
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "threads": threads,
            "python": sys.version.split()[0],
        },
        "versions": {"torch": torch.__version__},
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
