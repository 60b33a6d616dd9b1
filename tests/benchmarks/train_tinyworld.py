"""The preset tinyworld-cpu, recorded: its loss beside the floor, samples, what the gap is made of.

    .venv/bin/python -m tests.benchmarks.train_tinyworld [--quick] [--threads 2]

It prepares the preset's data, trains, and compares the model with the world token for token.
Chapter 6 draws the result and explains the comparison.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptbook.losses import IGNORE
from gptbook.model import GPT
from gptbook.tinyworld import TinyWorld
from gptbook.train_config import train_preset
from gptbook.trainer import Trainer
from gptbook.training_data import TrainingData, prepare
from gptbook.validation import held_out_batches
from tests.benchmarks.bench_tokenizer import append_run, commit, processor

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results" / "train_tinyworld.json"
QUICK = [
    "data.n_documents=60", "data.vocab_size=300", "data.validation=0.2", "model.vocab_size=300",
    "model.d_model=16", "model.n_layer=1", "steps=4", "batch_size=2", "eval_every=2",
    "schedule.warmup_steps=1", "schedule.decay_steps=2",
]  # fmt: skip


@torch.no_grad()
def sample(model: GPT, data: TrainingData, n_tokens: int) -> str:
    """Return the beginning of a story that the model tells, at temperature 0.7."""
    generator = torch.Generator().manual_seed(0)
    ids = [data.train.end_of_text]
    for _ in range(n_tokens):
        logits = model(torch.tensor([ids[-model.config.context_length :]]))[0, -1]
        ids.append(int(torch.multinomial((logits / 0.7).softmax(-1), 1, generator=generator)))
    return data.tokenizer.decode(ids[1:])


def true_nats(world: TinyWorld, data: TrainingData, story: list[int]) -> Tensor:
    """Return the surprisal of each token of a story, and of its end, under what made it."""
    beginnings = [data.tokenizer.decode(story[:i]) for i in range(len(story) + 1)]
    logs = [world.prefix_logprob(text) for text in beginnings] + [world.logprob(beginnings[-1])]
    return -torch.tensor(logs, dtype=torch.float64).diff()


@torch.no_grad()
def model_nats(trainer: Trainer) -> Tensor:
    """Return the same for all held-out tokens but the first, under the model."""
    config, found = trainer.config, []
    shards, rows = trainer.data.validation, config.batch_size
    for batch in held_out_batches(
        shards, rows, config.context_length, config.eval_stride, separate_documents=False
    ):
        logits = trainer.model(batch.inputs).flatten(0, 1)
        targets = batch.targets.flatten()
        nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        found.append(nats[targets != IGNORE])
    return torch.cat(found).double()


def stories_of(data: TrainingData) -> list[list[int]]:
    """Return the held-out stories as tokens, without the end-of-text before each."""
    ids = np.concatenate([shard.tokens for shard in data.validation.shards])
    borders = [*np.flatnonzero(ids == data.validation.end_of_text).tolist(), len(ids)]
    return [ids[a + 1 : b].tolist() for a, b in pairwise(borders)]


def gap_rows(trainer: Trainer) -> list[dict[str, Any]]:
    """Return what the gap to the floor is made of, by what the world had to choose."""
    data, world = trainer.data, TinyWorld()
    stories = stories_of(data)
    truth = torch.cat([true_nats(world, data, story) for story in stories])
    model = model_nats(trainer)
    truth = truth[: len(model)]  # the last story's end is not in the stream
    seen = [[t in story[:i] for i, t in enumerate(story)] + [False] for story in stories]
    before = torch.tensor([flag for flags in seen for flag in flags])[: len(model)]
    kinds = {
        "a choice": truth > 0.01,
        "no choice, was there before": (truth <= 0.01) & before,
        "no choice, is new": (truth <= 0.01) & ~before,
    }
    excess = model - truth
    return [
        {
            "what": name,
            "share_of_tokens": float(where.double().mean()),
            "truth": float(truth[where].mean()),
            "model": float(model[where].mean()),
            "share_of_gap": float(excess[where].sum() / excess.sum()),
        }
        for name, where in kinds.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print, and unless --quick append to book/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is stored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    settings = arguments.settings + (QUICK if arguments.quick else [])
    config = train_preset("tinyworld-cpu").with_overrides(["checkpoint_every=0", *settings])
    curve: list[dict[str, Any]] = []

    def observe(trainer: Trainer, metrics: dict[str, float]) -> None:
        if "bits_per_byte" in metrics:
            text = sample(trainer.model, trainer.data, 40)
            line = {"step": trainer.step, "tokens": trainer.tokens, "seconds": trainer.seconds}
            curve.append({**line, **metrics, "sample": text})
            print(
                f"step {trainer.step}, {trainer.seconds:.0f} s: {metrics}\n  {text!r}", flush=True
            )

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        data = prepare(config.data, Path(folder) / "data")
        preparation = time.perf_counter() - started
        trainer = Trainer(config, data, Path(folder) / "run", observe=observe)
        trainer.run()
        gap = gap_rows(trainer)
    print(f"{preparation:.0f} s of preparation, {trainer.seconds:.0f} s of training")
    assert data.floor is not None
    print(f"{curve[-1]['bits_per_byte'] - data.floor:.4f} bits per byte above the floor")
    for row in gap:
        print(row)
    if not arguments.quick:
        result: dict[str, Any] = {"seconds": trainer.seconds, "preparation_seconds": preparation}
        result |= {"tokens": trainer.tokens, "floor": data.floor, "curve": curve, "rows": gap}
        append_run(RESULTS, {**provenance(arguments.threads, config.to_dict()), **result})
    return 0


def provenance(threads: int, config: dict[str, Any]) -> dict[str, Any]:
    """Return what the result depended on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m tests.benchmarks.train_tinyworld",
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "threads": threads,
            "python": sys.version.split()[0],
        },
        "versions": {"torch": torch.__version__},
        "config": config,
        "seed": config["seed"],
    }


if __name__ == "__main__":
    sys.exit(main())
