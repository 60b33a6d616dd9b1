"""Checkpoints: whole or not there, exact, and clear about what is wrong."""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from gptbook.checkpoint import (
    STATE_NAME,
    TRAINING_NAME,
    WEIGHTS_NAME,
    CheckpointError,
    checkpoint_paths,
    checksum,
    latest_checkpoint,
    load_checkpoint,
    pack_optimizer,
    save_checkpoint,
    unpack_optimizer,
    write_tensors,
)
from gptbook.optim import AdamW, Muon
from tests.training_runs import start

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(3, 5, generator=generator)
    found = {f"a.{i}": (9 * numbers).to(kind) for i, kind in enumerate(KINDS)}
    odd = {"turned": numbers.T, "one": torch.tensor(seed + 0.5), "none": torch.empty(0, 3)}
    return {**found, **odd, "bytes": torch.arange(5000).to(torch.uint8), "flags": numbers > 0}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    state = {"loader": {"epoch": step}, "value": 0.1 + step}
    return save_checkpoint(
        folder, step, tensors(step), {"moments": torch.ones(step)}, state, keep=keep
    )


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[k].dtype == theirs[k].dtype and torch.equal(ours[k], theirs[k]) for k in ours
    )


# --- writing ---


def test_the_format_is_that_of_safetensors(tmp_path: Path) -> None:
    about = write_tensors(tmp_path / "x.safetensors", tensors())
    assert same(safetensors.torch.load_file(tmp_path / "x.safetensors"), tensors())
    assert about["bytes"] == (tmp_path / "x.safetensors").stat().st_size
    write_tensors(tmp_path / "empty.safetensors", {})
    assert safetensors.torch.load_file(tmp_path / "empty.safetensors") == {}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    found = load_checkpoint(path)
    assert (found.step, found.path) == (3, path)
    assert same(found.weights, tensors(3))
    assert found.training["moments"].tolist() == [1, 1, 1]
    assert found.state == {"loader": {"epoch": 3}, "value": 3.1}
    assert sorted(os.listdir(path)) == [WEIGHTS_NAME, STATE_NAME, TRAINING_NAME]


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 100_000_000, 4):
        save(tmp_path, step, keep=3)
    assert [int(path.name[5:]) for path in checkpoint_paths(tmp_path)] == [4, 30, 100_000_000]
    (tmp_path / "step-notes").mkdir()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 100_000_000
    assert latest_checkpoint(tmp_path / "nothing") is None


def test_a_save_that_was_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    save(tmp_path, 1)
    partial = tmp_path / ".step-00000002.partial"
    shutil.copytree(tmp_path / "step-00000001", partial)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    save(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["step-00000001", "step-00000002"]


# --- reading what is broken ---


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    path.write_text('{"epoch": 3}')


def other_version(path: Path) -> None:
    content = {**json.loads(path.read_text()), "version": 2}
    path.write_text(json.dumps({**content, "sha256": checksum(content)}))


def other_step(path: Path) -> None:
    path.write_text(path.read_text().replace('"step": 2', '"step": 9'))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (WEIGHTS_NAME, cut, "model.safetensors is truncated or foreign: it has"),
        (WEIGHTS_NAME, flip, "model.safetensors is damaged or foreign: its SHA-256"),
        (WEIGHTS_NAME, foreign, "model.safetensors is truncated or foreign"),
        (WEIGHTS_NAME, Path.unlink, "model.safetensors is missing"),
        (TRAINING_NAME, cut, "training.safetensors is truncated"),
        (STATE_NAME, cut, "state.json is damaged"),
        (STATE_NAME, foreign, "no checkpoint of gptbook"),
        (STATE_NAME, Path.unlink, "it has no state.json"),
        (STATE_NAME, other_version, "has version 2 and this gptbook reads 1"),
        (STATE_NAME, other_step, "its checksum is wrong"),
    ],
)
def test_a_broken_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, name: str, damage: Any, message: str
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    damage(path / name)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    with pytest.warns(UserWarning, match=message):
        found = latest_checkpoint(tmp_path)
    assert found is not None
    assert same(found.weights, tensors(1))


def test_if_all_are_broken_that_is_an_error(tmp_path: Path) -> None:
    for step in (1, 2):
        cut(save(tmp_path, step) / WEIGHTS_NAME)
    with (
        pytest.warns(UserWarning, match="trying the checkpoint before it"),
        pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole: .*00002.*00001"),
    ):
        latest_checkpoint(tmp_path)


# --- a disk that is full ---


def save_with_small_files(folder: Path) -> None:
    """Save twice; the system lets no file grow beyond what the second needs."""
    save(folder, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        save(folder, 2)
    except OSError as error:
        (folder / "error").write_text(f"{error.errno} {error}")


def test_a_write_that_fails_leaves_the_last_good_one(tmp_path: Path) -> None:
    process = start(save_with_small_files, tmp_path)
    process.join(300)  # a busy machine may take a minute to import torch
    text = (tmp_path / "error").read_text()
    assert text.startswith(str(errno.EFBIG))
    assert (
        "the checkpoint was not saved: File too large; the last good one is step-00000001" in text
    )
    assert sorted(os.listdir(tmp_path)) == ["error", "step-00000001"]
    assert same(load_checkpoint(tmp_path / "step-00000001").weights, tensors(1))


ON_TMPFS = """
import sys
from pathlib import Path
from tests.test_checkpoint import save
folder = Path(sys.argv[1])
for step in range(1, 100):
    try:
        save(folder, step, keep=50)
    except OSError as error:
        print(error.errno, step, error)
        break
"""


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    """On a disk of 256 kB in a mount namespace; where there is none, EFBIG above has to do."""
    disk = f"mount -t tmpfs -o size=256k tmpfs {tmp_path}"
    script = f'{disk} && "$0" -c "$1" {tmp_path} && ls -A {tmp_path}'
    command = ["unshare", "-rm", "sh", "-c", script, sys.executable, ON_TMPFS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace: {done.stderr.strip()}")
    first, *names = done.stdout.splitlines()
    number, step, *_ = first.split()
    assert int(number) == errno.ENOSPC, done.stderr
    assert "the checkpoint was not saved: the disk is full" in first
    good = [f"step-{i:08d}" for i in range(1, int(step))]
    assert names == good
    assert f"the last good one is {good[-1]}" in first


# --- optimizers ---


def test_optimizers_are_packed_and_unpacked_exactly() -> None:
    torch.manual_seed(random.SystemRandom().randrange(2**32))

    def make() -> tuple[list[nn.Parameter], list[Any]]:
        values = [nn.Parameter(torch.randn(4, 3)) for _ in range(3)]
        groups: list[dict[str, Any]] = [
            {"params": [("b", values[1])], "weight_decay": 0.5},
            {"params": [("c", values[2])], "weight_decay": 0.0},
        ]
        return values, [Muon([{"params": [("a", values[0])], "split": (1, 3)}]), AdamW(groups)]

    def step(values: list[nn.Parameter], optimizers: list[Any]) -> None:
        for value in values:
            value.grad = value.detach().sin()
        for optimizer in optimizers:
            optimizer.step()

    values, optimizers = make()
    for _ in range(3):
        step(values, optimizers)
    others, theirs = make()
    for mine, other in zip(values, others, strict=True):
        other.data.copy_(mine)
    for old, new in zip(optimizers, theirs, strict=True):
        packed, rest = pack_optimizer(old, "x")
        packed = {name: tensor.clone() for name, tensor in packed.items()}
        unpack_optimizer(
            new, "x", {**packed, "y.0.step": torch.ones(())}, json.loads(json.dumps(rest))
        )
    step(values, optimizers)
    step(others, theirs)
    assert all(torch.equal(a, b) for a, b in zip(values, others, strict=True))
    with pytest.raises(ValueError, match="group"):
        unpack_optimizer(optimizers[0], "x", {}, pack_optimizer(optimizers[1], "x")[1])
