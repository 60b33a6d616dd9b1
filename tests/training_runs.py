"""What the tests of training share: a tiny run, and processes that start fast and may be killed."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptbook.config import GPTConfig
from gptbook.tracking import METRICS_NAME
from gptbook.train_config import DataConfig, GuardConfig, OptimConfig, ScheduleConfig, TrainConfig

DATA = DataConfig("tinyworld", n_documents=40, kind="story", vocab_size=300)
PATIENCE = 300
"""Seconds after which a process that should take one is given up: a busy machine needs some."""


def tiny_config(**changes: Any) -> TrainConfig:
    """Return a run of a second, with all that has a state: dropout, two optimizers, a guard."""
    model = GPTConfig(
        vocab_size=300,
        context_length=16,
        n_layer=2,
        n_head=2,
        d_model=16,
        norm="rmsnorm",
        mlp="swiglu",
        positions="rope",
        bias=False,
        dropout=0.1,
    )
    settings: dict[str, Any] = {
        "model": model,
        "data": DATA,
        "steps": 24,
        "batch_size": 4,
        "micro_batch_size": 2,
        "optim": OptimConfig("muon", lr=1e-2, muon_lr=1e-2),
        "schedule": ScheduleConfig("stable-decay", warmup_steps=4, decay_steps=8, floor=0.0),
        "guard": GuardConfig("skip", spike=5.0, window=5),
        "log_every": 1,
        "eval_every": 12,
        "checkpoint_every": 1,
        "device": "cpu",
        "precision": "float32",
    }
    return TrainConfig(**{**settings, **changes})


def run_tiny(config: TrainConfig, data: Path, folder: Path) -> None:
    """Prepare, resume and run; the target of a process."""
    import torch

    from gptbook.trainer import Trainer, World
    from gptbook.training_data import prepare

    torch.set_num_threads(1)
    world = World.from_environment("cpu")
    trainer = Trainer(config, prepare(config.data, data), folder, world=world)
    trainer.resume()
    trainer.run()


def run_until_signal(config: TrainConfig, data: Path, folder: Path, sent: Path) -> None:
    """Run as `run_tiny`, but stand still at step 3 until there is a file `sent`.

    However late the process that sends a signal comes to it, the run has not ended by then. When
    the file is there the signal is pending, so that it is received before the next step.
    """
    import torch

    from gptbook.trainer import Trainer
    from gptbook.training_data import prepare

    def stand_still(trainer: Any, metrics: dict[str, float]) -> None:
        while trainer.step == 3 and not sent.exists():
            time.sleep(0.001)

    torch.set_num_threads(1)
    Trainer(config, prepare(config.data, data), folder, observe=stand_still).run()


# A server that has imported torch forks each process, which so begins at once.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training_runs", "gptbook.trainer"])


def start(target: Callable[..., None], *arguments: Any) -> Any:
    """Start a process that calls target; the caller joins it."""
    process = _context.Process(target=target, args=arguments)
    process.start()
    return process


def finish(target: Callable[..., None], *arguments: Any) -> None:
    """Call target in a process and wait for it; it must end well."""
    process = start(target, *arguments)
    process.join(PATIENCE)
    assert process.exitcode == 0


def wait_for_step(folder: Path, step: int, process: Any) -> None:
    """Return when a run has logged a step, or has ended."""
    path = folder / METRICS_NAME
    while process.is_alive():
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.001)


def metrics_without_times(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def files_of_last_checkpoint(folder: Path) -> dict[str, bytes]:
    newest = max(os.listdir(folder / "checkpoints"))
    path = folder / "checkpoints" / newest
    return {
        name: (path / name).read_bytes() for name in sorted(os.listdir(path)) if "state" not in name
    }
