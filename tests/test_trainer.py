"""The trainer: accumulation equals one batch, and a killed run ends as one that was not."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented there

from gptbook.app.main import main
from gptbook.checkpoint import checkpoint_paths, load_checkpoint
from gptbook.data import Batch
from gptbook.losses import IGNORE
from gptbook.run_guard import DivergedError, Guard
from gptbook.schedules import learning_rate_factor
from gptbook.token_shards import TokenShards
from gptbook.train_config import GuardConfig, OptimConfig, ScheduleConfig, TrainConfig
from gptbook.trainer import Trainer
from gptbook.training_data import TrainingData, prepare
from gptbook.validation import held_out_batches, held_out_loss, held_out_rows
from tests.training_runs import (
    DATA,
    PATIENCE,
    files_of_last_checkpoint,
    finish,
    metrics_without_times,
    run_tiny,
    run_until_signal,
    start,
    tiny_config,
    wait_for_step,
)

torch.set_num_threads(1)
SEED = random.SystemRandom().randrange(2**31)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Show the seed of the runs when a test fails."""
    print(f"seed = {SEED}")
    return SEED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    prepare(DATA, path)
    return path


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingData:
    return prepare(DATA, folder)


def gradients(trainer: Trainer) -> list[Tensor]:
    return [p.grad.clone() for p in trainer.parameters if p.grad is not None]


def still(**changes: Any) -> TrainConfig:
    """Return the tiny run without dropout, with weights and batches of a fresh seed."""
    config = tiny_config(**{"seed": SEED, **changes})
    return config.with_overrides(["model.dropout=0.0"])


def uneven(data: TrainingData, config: TrainConfig) -> Batch:
    """Return a batch whose rows have 1, 16, 0 and 5 targets that count."""
    batch = next(Trainer(config, data, Path("unused")).loader)
    targets = batch.targets.clone()
    targets[0, 1:] = IGNORE
    targets[2] = IGNORE
    targets[3, :11] = IGNORE
    return Batch(batch.inputs, targets, batch.positions, batch.document_ids)


# --- accumulation ---


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_accumulation_equals_one_batch(data: TrainingData, tmp_path: Path, size: int) -> None:
    whole = Trainer(still(micro_batch_size=None), data, tmp_path)
    parts = Trainer(still(micro_batch_size=size), data, tmp_path)
    batch = uneven(data, whole.config)
    assert whole.backward(batch) == pytest.approx(parts.backward(batch), rel=1e-6)
    # Sums in another order: a few times float32's 6e-8, relative to the largest gradient.
    largest = max(float(g.abs().max()) for g in gradients(whole))
    for a, b in zip(gradients(whole), gradients(parts), strict=True):
        assert (a - b).abs().max() < 2e-6 * largest


def test_a_mean_of_means_would_be_another_gradient(data: TrainingData, tmp_path: Path) -> None:
    """The test above can tell: rows weighted alike, whatever they hold, give something else."""
    trainer = Trainer(still(micro_batch_size=None), data, tmp_path)
    batch = uneven(data, trainer.config)
    trainer.backward(batch)
    right = gradients(trainer)
    trainer.model.zero_grad()
    for row in (0, 1, 3):
        part = Batch(*(tensor[row : row + 1] for tensor in vars(batch).values()))
        loss, metrics = trainer.loss(part, 1.0)
        torch.autograd.backward(loss / metrics["tokens"] / 3)
    largest = max(float(g.abs().max()) for g in right)
    differences = [(a - b).abs().max() for a, b in zip(gradients(trainer), right, strict=True)]
    assert max(differences) > 0.05 * largest


def test_a_batch_without_targets_changes_nothing(data: TrainingData, tmp_path: Path) -> None:
    trainer = Trainer(still(), data, tmp_path)
    batch = uneven(data, trainer.config)
    empty = torch.full_like(batch.targets, IGNORE)
    assert trainer.backward(Batch(batch.inputs, empty, batch.positions, batch.document_ids)) == 0
    assert all((grad == 0).all() for grad in gradients(trainer))


def test_recomputed_activations_give_the_same_bits(data: TrainingData, tmp_path: Path) -> None:
    """With dropout, whose random numbers have to be drawn again."""
    found = []
    for recompute in (False, True):
        trainer = Trainer(tiny_config(recompute=recompute), data, tmp_path)
        trainer.model.train()
        trainer.backward(uneven(data, trainer.config))
        found.append(gradients(trainer))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_bfloat16_is_close_to_float32(data: TrainingData, tmp_path: Path) -> None:
    losses: dict[str, float] = {}
    found: dict[str, list[Tensor]] = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(still(precision=precision), data, tmp_path)
        losses[precision] = trainer.backward(uneven(data, trainer.config))
        found[precision] = gradients(trainer)
        assert all(grad.dtype == torch.float32 for grad in found[precision])
    # The two losses may round to the same number; thousands of numbers do not.
    pairs = zip(found["float32"], found["bfloat16"], strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=1e-3)  # 8 bits: 4e-3 a number


# --- the run ---


def test_a_run_starts_at_ln_v_and_learns(data: TrainingData, tmp_path: Path) -> None:
    seen: list[float] = []
    config = still(steps=60, checkpoint_every=0, schedule=ScheduleConfig("cosine", warmup_steps=4))
    trainer = Trainer(
        config, data, tmp_path, observe=lambda _, m: seen.append(m["loss"]) if "loss" in m else None
    )
    result = trainer.run()
    assert result.step == len(seen) == 60
    assert seen[0] == pytest.approx(math.log(300), abs=0.1)
    assert result.held_out is not None
    assert result.held_out.mean < math.log(300) - 0.7
    assert [path.name for path in checkpoint_paths(tmp_path / "checkpoints")] == ["step-00000060"]


def test_the_rates_follow_the_schedule(data: TrainingData, tmp_path: Path) -> None:
    seen: list[float] = []
    config = tiny_config(checkpoint_every=0)
    trainer = Trainer(
        config, data, tmp_path, observe=lambda _, m: seen.append(m["lr"]) if "lr" in m else None
    )
    trainer.run()
    factors = [learning_rate_factor(config.schedule, step, 24) for step in range(24)]
    assert seen == [1e-2 * factor for factor in factors]
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [1e-2 * factors[-1]] * 2


# --- killed ---


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed")
    finish(run_tiny, tiny_config(), folder, path)
    return path


def check_same_end(run: Path, undisturbed: Path) -> None:
    assert files_of_last_checkpoint(run) == files_of_last_checkpoint(undisturbed)
    assert metrics_without_times(run) == metrics_without_times(undisturbed)


@pytest.mark.parametrize("checkpoint_every", [1, 5])
def test_killed_at_random_steps_it_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, undisturbed: Path, checkpoint_every: int
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    print(f"random.Random({seed})")
    config = tiny_config(checkpoint_every=checkpoint_every)
    kills = 0
    for _ in range(100):  # on a busy machine a run may end before it is killed
        process = start(run_tiny, config, folder, tmp_path)
        wait_for_step(tmp_path, rng.randint(1, 23), process)
        time.sleep(rng.random() * 0.02)
        process.kill()
        process.join(PATIENCE)
        kills += process.exitcode == -signal.SIGKILL
        if kills == 4:
            break
    assert kills == 4
    finish(run_tiny, config, folder, tmp_path)
    check_same_end(tmp_path, undisturbed)


def test_a_truncated_checkpoint_costs_only_its_steps(
    folder: Path, tmp_path: Path, undisturbed: Path
) -> None:
    finish(run_tiny, tiny_config(steps=24), folder, tmp_path)
    last = checkpoint_paths(tmp_path / "checkpoints")[-1]
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    finish(run_tiny, tiny_config(), folder, tmp_path)
    check_same_end(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_end(
    number: signal.Signals, folder: Path, tmp_path: Path, undisturbed: Path
) -> None:
    config = tiny_config(checkpoint_every=0)
    sent = tmp_path / "sent"
    process = start(run_until_signal, config, folder, tmp_path, sent)
    wait_for_step(tmp_path, 3, process)
    os.kill(process.pid, number)
    sent.touch()
    process.join(PATIENCE)
    assert process.exitcode == 0
    (saved,) = checkpoint_paths(tmp_path / "checkpoints")
    assert 3 <= load_checkpoint(saved).step < 24
    finish(run_tiny, config, folder, tmp_path)
    check_same_end(tmp_path, undisturbed)


# --- several processes ---


def run_rank(rank: int, port: int, config: TrainConfig, folder: Path, out: Path) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True",
    )  # fmt: skip
    run_tiny(config, folder, out)


def test_two_processes_equal_one(folder: Path, data: TrainingData, tmp_path: Path) -> None:
    config = still(steps=6, micro_batch_size=None, schedule=ScheduleConfig("constant"))
    config = config.with_overrides(["optim.name=adamw", "guard.spike=none"])
    # As with torchrun, who starts the processes has the place where they meet. Were it rank 0, a
    # port that is free now might be another's by the time that it listens there.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [start(run_rank, r, store.port, config, folder, tmp_path / "two") for r in range(2)]
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    Trainer(config, data, tmp_path / "one").run()
    one, two = (metrics_without_times(tmp_path / name) for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        # Six steps of Adam, which divides by small numbers, enlarge rounding from 1e-7.
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert {"held_out_loss", "bits_per_byte", "step"} == two[-1].keys()


# --- the guard ---


def test_the_guard_judges() -> None:
    guard = Guard(GuardConfig("skip", spike=1.0, window=3, max_skips=2))
    assert [guard.problem(loss, 1.0) for loss in (9.0, 2.0, 2.2)] == [None] * 3
    assert guard.problem(3.3, 1.0) == (
        "the loss is 3.300, more than 1 above 2.200, the median of the last 3 steps"
    )
    assert guard.problem(math.nan, 1.0) == "the loss is nan"
    assert guard.problem(2.0, math.inf) == "the norm of the gradients is inf"
    assert [guard.may_skip() for _ in range(3)] == [True, True, False]
    again = Guard(guard.config)
    again.load_state_dict(guard.state_dict())
    assert not again.may_skip()
    assert again.problem(3.3, 1.0) is not None
    assert again.problem(3.1, 1.0) is None
    assert again.may_skip()
    assert not Guard(GuardConfig("stop")).may_skip()


def poison(trainer: Trainer, metrics: dict[str, float]) -> None:
    if trainer.step == 3 and "loss" in metrics:
        with torch.no_grad():
            trainer.parameters[0][0, 0] = math.nan


@pytest.mark.parametrize(("policy", "last"), [("stop", 3), ("skip", 5)])
def test_a_loss_that_is_nan_stops_the_run_and_its_batch_is_saved(
    data: TrainingData, tmp_path: Path, policy: Any, last: int
) -> None:
    config = tiny_config(guard=GuardConfig(policy, max_skips=2), checkpoint_every=2)
    trainer = Trainer(config, data, tmp_path, observe=poison)
    with pytest.raises(DivergedError, match=f"step {last}: the loss is nan; its batch is in"):
        trainer.run()
    names = sorted(os.listdir(tmp_path / "refused"))
    assert names == [f"step-{s:08d}-rank-0.safetensors" for s in range(3, last + 1)]
    batch = safetensors.torch.load_file(tmp_path / "refused" / names[0])
    loader = Trainer(config, data, tmp_path).loader
    wanted = [next(loader) for _ in range(4)][3]
    assert all(torch.equal(batch[name], tensor) for name, tensor in vars(wanted).items())
    again = Trainer(config, data, tmp_path)
    assert again.resume()  # a good one is left


def test_a_batch_that_is_skipped_changes_nothing_but_the_place(
    data: TrainingData, tmp_path: Path
) -> None:
    config = tiny_config(guard=GuardConfig("skip", spike=0.0, window=1))
    before: list[Tensor] = []
    skipped: list[bool] = []

    def compare(trainer: Trainer, metrics: dict[str, float]) -> None:
        if "loss" in metrics:
            now = trainer.parameters[0].detach().clone()
            skipped.append(bool(before) and torch.equal(before[-1], now))
            before.append(now)

    trainer = Trainer(config, data, tmp_path, observe=compare)
    trainer.run()
    refused = {int(name[5:13]) for name in os.listdir(tmp_path / "refused")}
    assert refused == {step for step, flag in enumerate(skipped) if flag}
    assert 0 < len(refused) < 24


# --- held-out loss ---


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40))
def test_every_target_counts_once(folder: Path, length: int, stride: int) -> None:
    shards = TokenShards(folder / "validation")
    if stride > length:
        with pytest.raises(ValueError, match="stride is"):
            next(held_out_rows(shards, length, stride))
        return
    stream = [int(t) for shard in shards.shards for t in shard.tokens]
    counted: list[int] = []
    for inputs, targets in held_out_rows(shards, length, stride):
        places = (targets != IGNORE).nonzero()[0]
        for place in places.tolist():
            counted.append(int(targets[place]))
            at = len(counted)  # its place in the stream
            context = min(at, place + 1)
            assert inputs[place + 1 - context : place + 1].tolist() == stream[at - context : at]
            assert at <= length or place >= length - stride
    assert counted == stream[1:]


def test_held_out_loss_is_that_of_each_token(data: TrainingData, tmp_path: Path) -> None:
    trainer = Trainer(still(), data, tmp_path)
    stream = torch.tensor([int(t) for s in data.validation.shards for t in s.tokens])
    losses = []
    with torch.no_grad():
        for begin in range(0, len(stream) - 1, 16):
            row = stream[None, begin : begin + 17]
            logits = trainer.model(row[:, :-1])[0]
            losses += (-logits.log_softmax(-1)).gather(1, row[0, 1:, None]).flatten().tolist()
    batches = held_out_batches(data.validation, 3, 16, separate_documents=False)
    trainer = Trainer(still(data=DATA), data, tmp_path)
    found = held_out_loss(lambda batch: trainer.loss(batch, 1.0), batches)
    assert found.tokens == len(stream) - 1 == len(losses)
    assert found.nats == pytest.approx(sum(losses), rel=1e-5)
    assert found.bits_per_byte(100) == pytest.approx(sum(losses) / math.log(2) / 100, rel=1e-5)


# --- clear errors ---


def test_errors_name_both_values(data: TrainingData, tmp_path: Path) -> None:
    config = still()
    small = config.with_overrides(["model.vocab_size=299", "data.vocab_size=299"])
    with pytest.raises(
        ValueError, match=r"model.vocab_size is 299, but the data has ids up to 299"
    ):
        Trainer(small, data, tmp_path)
    with pytest.raises(ValueError, match="sees no GPU"):
        Trainer(config.with_overrides(["device=cuda"]), data, tmp_path)
    Trainer(still(steps=1, schedule=ScheduleConfig()), data, tmp_path).run()
    other = still(optim=OptimConfig(lr=0.1), seed=5)
    with pytest.raises(ValueError, match="a run with other settings of optim, seed: choose"):
        Trainer(other, data, tmp_path).resume()


def test_other_data_in_the_folder_is_an_error(folder: Path) -> None:
    other = still().with_overrides(["data.n_documents=41", "data.validation=0.2"]).data
    with pytest.raises(ValueError, match="other settings of n_documents, validation: choose"):
        prepare(other, folder)


# --- the command line ---


def test_the_command_stops_on_a_signal_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gptbook.app", "train", "--quiet"]
    sizes = ["n_layer=1", "d_model=16", "context_length=16", "vocab_size=300"]
    changes = [*(f"model.{size}" for size in sizes), "data.n_documents=30", "data.vocab_size=300"]
    changes += ["data.validation=0.2"]
    changes += ["steps=2000", "schedule.kind=constant", "schedule.decay_steps=0", "batch_size=2"]
    changes += ["schedule.warmup_steps=0", "log_every=1", "eval_every=0", "eval_stride=none"]
    arguments = [part for change in changes for part in ("--set", change)]
    out = ["--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--preset", "tinyworld-cpu", *arguments, *out],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    path = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (path.exists() and '"step": 4,' in path.read_text()):
        time.sleep(0.02)
    process.terminate()
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, stderr
    assert "and saved; --resume continues" in stderr
    (saved,) = checkpoint_paths(tmp_path / "checkpoints")
    step = load_checkpoint(saved).step
    done = subprocess.run(
        [*command, "--resume", *out, "--set", f"steps={step + 2}"],
        capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"continuing behind step {step:,} of {step + 2:,}" in done.stdout
    assert f"step {step + 2}: held out" in done.stdout.replace(",", "")
    assert "(floor 0." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "tinyworld"], "did you mean 'tinyworld-cpu'"),
        ([], "which run? Give --preset NAME (tinyworld-cpu"),
        (["--preset", "tinyworld-cpu", "--set", "optim.rate=1"], "there is no setting"),
        (["--resume", "--out", "{tmp}/none"], "no manifest, so"),
        (["--preset", "tinyworld-cpu", "--out", "{tmp}"], "holds checkpoints of a run: add"),
    ],
)
def test_the_command_fails_clearly(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert main(["train", *(text.format(tmp=tmp_path) for text in arguments)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("gptbook: error: ")
    assert captured.out == ""


def test_a_dry_run_says_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--set", "model.n_layer=1", "--set", "model.d_model=16", "--set", "batch_size=2"]
    assert main(["train", "--preset", "tinyworld-cpu", *sizes, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line.split()[0] for line in lines]
    assert words[:6] == ["parameters", "tokens", "FLOPs", "memory", "time", "speed"]
