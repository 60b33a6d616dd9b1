# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""The trainer: one loop that can be read from top to bottom, stopped anywhere, and continued.

Its state is all that a step depends on: weights, optimizers, the place in the data, random numbers,
the guard's memory. `state` collects it, `resume` restores it, and a step after the one is, bit for
bit on the same machine, a step after the other.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from gptbook.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    pack_optimizer,
    save_checkpoint,
    unpack_optimizer,
    write_tensors,
)
from gptbook.data import Batch, Loader
from gptbook.device import (
    autocast,
    choose_device,
    choose_dtype,
    random_state,
    set_random_state,
    set_seed,
)
from gptbook.flops import training_flops
from gptbook.losses import IGNORE, cross_entropy, linear_cross_entropy
from gptbook.model import GPT
from gptbook.optim import clip_grad_norm, make_optimizers
from gptbook.run_guard import DivergedError, Guard, StopSignals
from gptbook.schedules import learning_rate_factor
from gptbook.tracking import Sink, open_sinks, write_manifest
from gptbook.train_config import TrainConfig
from gptbook.training_data import TrainingData
from gptbook.validation import HeldOutLoss, held_out_batches, held_out_loss

# --- several processes ---


@dataclass(frozen=True)
class World:
    """The processes of a run; each computes its rows of a batch. torchrun starts them.

    Attributes:
        rank: this process's number.
        size: how many there are.
        local_rank: its number on its machine, and that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, device: str = "auto") -> World:
        """Return what torchrun says in the environment, and meet the other processes."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        local_rank = int(os.environ["LOCAL_RANK"])
        on_gpu = choose_device(device).type == "cuda"
        if on_gpu:
            torch.cuda.set_device(local_rank)
        dist.init_process_group("nccl" if on_gpu else "gloo")
        return cls(int(os.environ["RANK"]), size, local_rank)

    def sum(self, value: float, device: torch.device) -> float:
        """Return the sum of all processes' values."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum of all processes'."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        totals = torch.split(flat, [grad.numel() for grad in grads])
        for grad, total in zip(grads, totals, strict=True):
            grad.copy_(total.view_as(grad))

    def gather(self, value: Any) -> list[Any]:
        """Return all processes' values, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


# --- the loss of a batch ---

MANY_TOKENS = 4096
"""From this vocabulary on logits are made in chunks, unless they are compiled."""


def batch_loss(
    model: GPT, batch: Batch, denominator: float, *, separate: bool, chunked: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a batch, its sum of nats divided by denominator, and what it is made of.

    Args:
        model: the model.
        batch: inputs and targets.
        denominator: the number of targets of the whole step, of which batch may be a part.
        separate: whether documents are kept apart.
        chunked: whether logits are made some at a time.
    """
    layout = (batch.positions, None, batch.document_ids) if separate else ()
    hidden = model.hidden_states(batch.inputs, *layout)
    if chunked:
        return linear_cross_entropy(
            hidden, model.output_weight, batch.targets, denominator=denominator
        )
    logits = nn.functional.linear(hidden, model.output_weight)
    return cross_entropy(logits, batch.targets, denominator=denominator)


def micro_batches(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Yield the rows of a batch, size at a time; None: all at once."""
    size = size or len(batch.inputs)
    for start in range(0, len(batch.inputs), size):
        rows = slice(start, start + size)
        yield Batch(*(tensor[rows] for tensor in vars(batch).values()))


def recompute_blocks(model: GPT) -> None:
    """Let each block keep only its input for backward, and compute the rest again then.

    Source: Chen et al. (2016).
    """
    for block in model.blocks:
        forward = functools.partial(recomputed, block.forward, use_reentrant=False)
        block.forward = forward


# --- the trainer ---

MAY_CHANGE = {
    "steps", "schedule", "guard", "micro_batch_size", "device", "compile", "recompute", "log_every",
    "eval_every", "eval_stride", "checkpoint_every", "keep_checkpoints", "sinks",
}  # fmt: skip
"""What may be another when a run is resumed; all else would make it another run."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        step: updates made.
        held_out: the last measurement, if one was made.
        stopped_by: the signal that ended it, or None if it is finished.
    """

    step: int
    held_out: HeldOutLoss | None
    stopped_by: int | None


class Trainer:
    """A model, what trains it, and the loop; see `run`.

    Attributes:
        config: the run's configuration.
        data: the tokens.
        folder: where checkpoints, metrics and manifest go.
        world: the processes.
        device: where it computes.
        model: the model.
        optimizers: one, or Muon and AdamW.
        loader: gives this process's rows of each step.
        step: updates made so far.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        folder: Path,
        *,
        world: World | None = None,
        observe: Callable[[Trainer, dict[str, float]], None] = lambda trainer, metrics: None,
    ) -> None:
        """Make a run at its beginning.

        Args:
            config: the configuration.
            data: the tokens.
            folder: where results go; made if it is not there.
            world: the processes; None: this one alone.
            observe: called with the trainer and the metrics whenever some are logged.

        Raises:
            ValueError: numbers in the configuration do not go with the data or the processes.
        """
        self.config, self.data, self.folder = config, data, folder
        self.world = world or World()
        self.observe = observe
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.precision, self.device)
        self._check()
        set_seed(config.seed + 1_000_003 * self.world.rank)  # of dropout
        self.model = GPT(config.model, seed=config.seed).to(self.device)
        if config.recompute:
            recompute_blocks(self.model)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizers = make_optimizers(self.model, config.optim, self.dtype)
        self._rates = [group["lr"] for o in self.optimizers for group in o.param_groups]
        self.loader = Loader(
            data.train,
            config.batch_size // self.world.size,
            config.context_length,
            config.seed,
            self.world.rank,
            self.world.size,
            separate_documents=config.data.separate_documents,
        )
        self.guard = Guard(config.guard)
        self.loss = self._make_loss()
        self.step = 0
        self.seconds = 0.0  # of training, in all its parts
        self.held_out: HeldOutLoss | None = None
        self._sinks: list[Sink] = []

    def _check(self) -> None:
        config = self.config
        if config.model.vocab_size < self.data.vocab_size:
            raise ValueError(
                f"model.vocab_size is {config.model.vocab_size}, but the data has ids up to "
                f"{self.data.vocab_size - 1}: set it to {self.data.vocab_size} or more"
            )
        if config.batch_size % self.world.size:
            raise ValueError(
                f"batch_size is {config.batch_size}, no multiple of the {self.world.size} processes"
            )

    def _make_loss(self) -> Callable[[Batch, float], tuple[Tensor, dict[str, Tensor]]]:
        config = self.config
        settings = {
            "separate": config.data.separate_documents,
            "chunked": config.model.vocab_size >= MANY_TOKENS and not config.compile,
        }
        loss = torch.compile(batch_loss) if config.compile else batch_loss

        def call(batch: Batch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
            with autocast(self.device, self.dtype):
                return loss(self.model, batch, denominator, **settings)

        return call

    # The loop

    def run(self) -> RunResult:
        """Train from where the run stands to its end, or until a signal asks to stop.

        Raises:
            DivergedError: the guard's policy stops the run. The batch is saved in "refused", and
                the checkpoints before it stand.
            OSError: a checkpoint cannot be written. The ones before it are whole.
        """
        config = self.config
        self._begin()
        self.model.train()
        with StopSignals() as signals:
            while self.step < config.steps:
                started = time.perf_counter()
                batch = next(self.loader)
                loss = self.backward(batch)
                norm = float(clip_grad_norm(self.parameters, config.optim.clip))
                if problem := self.guard.problem(loss, norm):
                    self._refuse(batch, problem)
                else:
                    self.update()
                self._zero_grad()
                self.step += 1
                self.seconds += time.perf_counter() - started
                self._report(loss, norm)
                stop = self.world.sum(float(signals.received is not None), self.device) > 0
                if self._is_due(config.eval_every):
                    self.evaluate()
                if stop or self._is_due(config.checkpoint_every):
                    self.save()
                if stop:
                    break
        finished = self.step == config.steps
        for sink in self._sinks:
            sink.close()
        return RunResult(self.step, self.held_out, None if finished else signals.received or 0)

    def backward(self, batch: Batch) -> float:
        """Set the gradients of the mean loss over all targets of a step; return that loss.

        The step is this process's batch and those of the others. However it is cut, into processes
        or micro-batches, each target weighs the same.
        """
        tokens = self.world.sum(float((batch.targets != IGNORE).sum()), self.device)
        nats = torch.zeros((), device=self.device)
        for part in micro_batches(batch, self.config.micro_batch_size):
            loss, metrics = self.loss(part.to(self.device), max(tokens, 1.0))
            torch.autograd.backward(loss)
            nats += metrics["nats"]
        self.world.sum_gradients(self.parameters)
        return self.world.sum(float(nats), self.device) / max(tokens, 1.0)

    def update(self) -> None:
        """Change the weights by their gradients, at the learning rate of this step."""
        config = self.config
        factor = learning_rate_factor(config.schedule, self.step, config.steps)
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * factor
        for optimizer in self.optimizers:
            optimizer.step()

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def _refuse(self, batch: Batch, problem: str) -> None:
        """Save a batch that gave a bad loss or gradient; raise if the run is to stop for it."""
        folder = self.folder / "refused"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{self.step:08d}-rank-{self.world.rank}.safetensors"
        write_tensors(path, vars(batch))
        if not self.guard.may_skip():
            raise DivergedError(
                f"step {self.step}: {problem}; its batch is in {path}. Resume with a lower "
                "learning rate or a longer warm-up, or skip such batches with guard.policy=skip"
            )

    # What it says

    def _begin(self) -> None:
        if self.world.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            values = self.config.to_dict()
            device = (
                f"{self.device}, {self.world.size} processes, {torch.get_num_threads()} threads"
            )
            write_manifest(self.folder, values, data=self.data.summary(), device=device)
            self._sinks = open_sinks(self.config.sinks, self.folder, values, self.step)

    def _is_due(self, every: int) -> bool:
        return self.step == self.config.steps or (every > 0 and self.step % every == 0)

    def _report(self, loss: float, norm: float) -> None:
        if self.step % self.config.log_every and not self._is_due(0):
            return
        groups = self.optimizers[0].param_groups
        metrics = {"loss": loss, "grad_norm": norm, "lr": groups[0]["lr"]}
        self._log({**metrics, "tokens": self.tokens, "seconds": self.seconds})

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.config.batch_size * self.config.context_length

    def flops_per_step(self) -> float:
        """Return the FLOPs of a step's matrix products, on all processes together."""
        config = self.config
        per_token = training_flops(config.model, config.context_length)
        return per_token * config.batch_size * config.context_length

    def _log(self, metrics: dict[str, float]) -> None:
        for sink in self._sinks:
            sink.log(self.step, metrics)
        if self.world.rank == 0:
            self.observe(self, metrics)

    def evaluate(self) -> HeldOutLoss:
        """Measure the loss on all held-out tokens, log it, and return it."""
        config = self.config
        batches = held_out_batches(
            self.data.validation,
            config.micro_batch_size or config.batch_size // self.world.size,
            config.context_length,
            config.eval_stride,
            separate_documents=config.data.separate_documents,
        )
        share = (batch for i, batch in enumerate(batches) if i % self.world.size == self.world.rank)
        self.model.eval()
        found = held_out_loss(lambda batch: self.loss(batch, 1.0), share, self.device)
        self.model.train()
        nats = self.world.sum(found.nats, self.device)
        tokens = round(self.world.sum(float(found.tokens), self.device))
        self.held_out = HeldOutLoss(nats, tokens)
        bits = self.held_out.bits_per_byte(self.data.validation_bytes)
        self._log({"held_out_loss": self.held_out.mean, "bits_per_byte": bits})
        return self.held_out

    # Save and resume

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def save(self) -> None:
        """Write a checkpoint of all that the next step depends on."""
        random = self.world.gather(random_state())
        if self.world.rank == 0:
            training: dict[str, Tensor] = {}
            optimizers = []
            for number, optimizer in enumerate(self.optimizers):
                tensors, rest = pack_optimizer(optimizer, f"optimizer.{number}")
                training |= tensors
                optimizers.append(rest)
            for rank, state in enumerate(random):
                training |= {f"random.{rank}.{name}": value for name, value in state.items()}
            state = {
                "config": self.config.to_dict(),
                "loader": self.loader.state_dict(),
                "guard": self.guard.state_dict(),
                "optimizers": optimizers,
                "seconds": self.seconds,
                "held_out": self.held_out,
            }
            weights = self.model.state_dict()
            keep = self.config.keep_checkpoints
            save_checkpoint(self.checkpoints, self.step, weights, training, state, keep=keep)
        self.world.wait()

    def resume(self) -> bool:
        """Continue from the newest checkpoint that is whole; return whether there was one.

        Raises:
            ValueError: it belongs to another run, or none is whole.
        """
        found = latest_checkpoint(self.checkpoints)
        if found is not None:
            self._check_same_run(found)
            self._restore(found)
        return found is not None

    def _check_same_run(self, found: Checkpoint) -> None:
        old, new = found.state["config"], self.config.to_dict()
        differ = [name for name in new if old.get(name) != new[name] and name not in MAY_CHANGE]
        if differ:
            raise ValueError(
                f"{found.path} belongs to a run with other settings of {', '.join(differ)}: choose "
                "another folder, or the same settings"
            )

    def _restore(self, found: Checkpoint) -> None:
        self.loader.load_state_dict(found.state["loader"])
        self.model.load_state_dict(found.weights)
        for number, optimizer in enumerate(self.optimizers):
            rest = found.state["optimizers"][number]
            unpack_optimizer(optimizer, f"optimizer.{number}", found.training, rest)
        self.guard.load_state_dict(found.state["guard"])
        prefix = f"random.{self.world.rank}."
        random = {
            name.removeprefix(prefix): value
            for name, value in found.training.items()
            if name.startswith(prefix)
        }
        if random:  # with more processes than before, the new ones begin with their seeds
            set_random_state(random)
        self.step, self.seconds = found.step, found.state["seconds"]
        held_out = found.state["held_out"]
        self.held_out = None if held_out is None else HeldOutLoss(*held_out)
