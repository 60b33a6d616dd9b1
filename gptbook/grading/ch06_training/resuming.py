"""Exercise 6.5: a run that continues as if nothing had happened: its checks."""

import os
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from gptbook.grading import compare
from gptbook.grading.compare import Tolerance, show
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import normal
from gptbook.grading.training_probes import CHECKPOINT


class Loader:
    """Gives the numbers of two rows at a time; shuffles all rows before each pass."""

    def __init__(self, n_rows: int, shuffle: bool) -> None:
        self.random = random.Random(1)
        self.shuffle = shuffle
        self.order = list(range(n_rows))
        self.place = 0

    def next_rows(self) -> list[int]:
        """Return the next two numbers."""
        if self.place == 0 and self.shuffle:
            self.random.shuffle(self.order)
        rows = self.order[self.place : self.place + 2]
        self.place = (self.place + 2) % len(self.order)
        return rows


class Run:
    """A small training run, at its beginning."""

    def __init__(self, data: Tensor, settings: dict[str, Any]) -> None:
        torch.manual_seed(settings["seed"])
        np.random.seed(settings["seed"])
        self.data, self.settings = data, settings
        width, warmup_steps = data.shape[1], settings["warmup_steps"]
        self.model = nn.Sequential(
            nn.Linear(width, 6), nn.Tanh(), nn.Dropout(settings["dropout"]), nn.Linear(6, width)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.schedule = LambdaLR(self.optimizer, lambda n: min(1.0, (n + 1) / (warmup_steps + 1)))
        self.loader = Loader(len(data), settings["shuffle"])
        self.step = 0

    def train_step(self) -> None:
        """Make one step: the model learns to take noise out of rows."""
        rows = self.data[self.loader.next_rows()]
        noise = torch.from_numpy(np.random.normal(size=rows.shape)).float()
        denoised = self.model(rows + self.settings["noise"] * noise)
        self.model.zero_grad()
        (denoised - rows).pow(2).mean().backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1

    def weights(self) -> Tensor:
        """Return a copy of all weights, end to end."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def save_run(run: Run, path: str) -> None:
    """Write all that the next step depends on; the file is whole at every moment."""
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "step": run.step,
        "order": run.loader.order,
        "place": run.loader.place,
        "shuffling": run.loader.random.getstate(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
    }
    partial_path = path + ".partial"
    with open(partial_path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial_path, path)


def load_run(run: Run, path: str) -> None:
    """Put a run where the one that was saved stood."""
    state = torch.load(path, weights_only=False)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.step = state["step"]
    run.loader.order = state["order"]
    run.loader.place = state["place"]
    run.loader.random.setstate(state["shuffling"])
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])


def train(data: Tensor, settings: dict[str, Any], path: str, until: int) -> Tensor:
    """Train from where the file at path stands, or from the beginning, until a step; save."""
    run = Run(data, settings)
    if os.path.exists(path):
        load_run(run, path)
    while run.step < until:
        run.train_step()
    save_run(run, path)
    return run.weights()


# --- inputs: data, settings, then plans: at which steps to stop ---

N_ROWS = 8
PASS = N_ROWS // 2
PLAIN = {"dropout": 0.0, "noise": 0.0, "warmup_steps": 0, "shuffle": False}
ALL = {"dropout": 0.5, "noise": 0.5, "warmup_steps": 6, "shuffle": True}


def case(stream: random.Random, settings: dict[str, Any], *rest: Any) -> Args:
    """Data, settings with a seed, and the plans."""
    return normal(stream, N_ROWS, 3), {**settings, "seed": stream.randrange(1000)}, *rest


def draw_whole(stream: random.Random) -> list[Args]:
    """One run, without a stop."""
    return [case(stream, ALL, (stream.randint(5, 7),))]


def draw_states(stream: random.Random) -> list[Args]:
    """Model, optimizer and warm-up; a stop in the warm-up, at the end of a pass."""
    return [case(stream, {**PLAIN, "warmup_steps": 6}, (2 * PASS,), (PASS, 2 * PASS))]


def draw_loader(stream: random.Random) -> list[Args]:
    """Shuffled passes; a stop in the first, a call with nothing to do, a stop in the second."""
    stop, until = stream.randint(1, PASS - 1), 2 * PASS + 1
    plans = (until,), (stop, stop, PASS + stop, until)
    return [case(stream, {**PLAIN, "shuffle": True}, *plans)]


def draw_random(stream: random.Random) -> list[Args]:
    """Dropout, and noise; a stop at the end of a pass."""
    plans = (PASS + 2,), (PASS, PASS + 2)
    return [case(stream, {**PLAIN, name: 0.5}, *plans) for name in ("dropout", "noise")]


def draw_over(stream: random.Random) -> list[Args]:
    """A run that continues with the same file."""
    return [case(stream, PLAIN, 2, stream.randint(3, 5))]


# --- verdicts ---

STEADY = Tolerance(
    1e-3, "the same steps with the same libraries; only the order of sums may differ"
)


def reference_weights(data: Tensor, settings: dict[str, Any], until: int) -> Tensor:
    """The weights of a run without a stop; random numbers here stay as they are."""
    before = torch.get_rng_state(), np.random.get_state()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return train(data, settings, str(Path(folder) / CHECKPOINT), until)
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])


def weights_problem(value: Any) -> str | None:
    """Whether something is a run's weights, as a predicate."""
    n_weights = 3 * 6 + 6 + 6 * 3 + 3
    if not isinstance(value, Tensor) or value.shape != (n_weights,):
        return f"gives {show(value)}, expected run.weights(), {n_weights} numbers"
    return None


def has_the_form(args: Args, value: Any) -> str | None:
    """The weights, after as many steps as were asked for, and one file."""
    ((weights, made, files),) = value[0]
    (until,) = args[2]
    problem = weights_problem(weights)
    if problem:
        return problem
    if made != until:
        return f"makes {made} steps, expected {until}"
    if files != [CHECKPOINT]:
        return (
            f"leaves the files {files}, expected nothing but {CHECKPOINT!r}, the path it was given"
        )
    data, settings, _ = args
    off = compare.difference(reference_weights(data, dict(settings), until), weights, STEADY)
    return off and f"gives other weights than a run that is not stopped: {off}"


def continues_exactly(args: Args, value: Any) -> str | None:
    """The same bits as without stops, and no step twice."""
    _, settings, *plans = args
    (whole, _, _) = value[0][-1]
    for plan, rows in zip(plans, value, strict=True):
        before = 0
        for until, (weights, made, _) in zip(plan, rows, strict=True):
            problem = weights_problem(weights)
            if problem:
                return problem
            if made != until - before:
                return (
                    f"makes {made} steps when it continues at step {before} until {until}; "
                    f"expected {until - before}"
                )
            before = until
        if not torch.equal(rows[-1][0], whole):
            furthest = (rows[-1][0] - whole).abs().max().item()
            stops = ", ".join(str(stop) for stop in plan[:-1])
            return (
                f"with a stop behind step {stops} ends with other weights than without one, by "
                f"up to {furthest:.3g}; {in_words(settings)}"
            )
    return None


def in_words(settings: dict[str, Any]) -> str:
    """What a run has that needs remembering."""
    parts = {
        "shuffled rows": settings["shuffle"],
        "dropout": settings["dropout"],
        "noise": settings["noise"],
        "a warm-up": settings["warmup_steps"],
    }
    found = [name for name, there in parts.items() if there]
    return f"this run has {', '.join(found) or 'only a model and an optimizer'}"


def is_whole_at_every_moment(args: Args, value: Any) -> str | None:
    """The new file takes the place of the old one in one step."""
    weights, file = value
    problem = weights_problem(weights)
    if problem:
        return problem
    if not file["whole"]:
        return (
            "writes into the checkpoint that is there: killed meanwhile, it leaves half of a new "
            "one and nothing of the old one"
        )
    if file["gone"]:
        return "takes the old checkpoint away before the new one is in its place"
    if not file["new"]:
        return "leaves the old checkpoint as it was, though it has trained on"
    return None


def same_runs(a: Any, b: Any) -> bool:
    """Whether two functions gave the same weights with as many steps, and left the same files."""
    for one, other in zip(a, b, strict=True):
        for (x, made, files), (y, made_too, files_too) in zip(one, other, strict=True):
            if made != made_too or files != files_too or not compare.same(x, y, STEADY):
                return False
    return True


def same_file(a: Any, b: Any) -> bool:
    """Whether two functions did the same to the file."""
    return bool(a[1] == b[1])


FORM = "a run without a stop: its weights, and one file"
STATES = "continues: model, optimizer and schedule"
LOADER = "continues: the loader, stopped several times"
RANDOM = "continues: random numbers of torch and of numpy"
OVER = "a checkpoint is whole at every moment"

_check = partial(Check, probe="resumed", same=same_runs)
_continues = partial(_check, verify=continues_exactly)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 2, draw_whole, has_the_form, pure=True),
    _continues(STATES, Kind.BEHAVIOR, 3, draw_states, hint=2),
    _continues(LOADER, Kind.BEHAVIOR, 3, draw_loader, hint=3),
    _continues(RANDOM, Kind.BEHAVIOR, 4, draw_random, hint=4),
    _check(
        OVER,
        Kind.BEHAVIOR,
        1,
        draw_over,
        is_whole_at_every_moment,
        hint=5,
        probe="saved_over",
        same=same_file,
    ),
)

REFERENCE = source_of(train)
