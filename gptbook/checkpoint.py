# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Checkpoints: whole or not there, checked when they are read, and enough to continue exactly.

A checkpoint is a folder step-00000100 with model.safetensors, the weights; training.safetensors,
what the optimizers and the random numbers remember; and state.json, all else and the SHA-256 of the
other two. It is written beside its place and moved there when all of it is on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from gptbook.shard_writing import sync_folder

WEIGHTS_NAME = "model.safetensors"
TRAINING_NAME = "training.safetensors"
STATE_NAME = "state.json"
FORMAT, VERSION = "gptbook-checkpoint", 1
FOLDER_NAME = re.compile(r"step-(\d{8,})")

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls torch's types."""


class CheckpointError(ValueError):
    """A folder that is no whole checkpoint of ours."""


# --- writing ---


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file to the disk; return its size and SHA-256.

    The format: 8 bytes with the length of the header, the header in JSON, the numbers. It is
    written here one tensor at a time, so that no second copy of a model has to fit in memory, and
    so that a full disk is the system's own error.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        shape, dtype = list(tensor.shape), DTYPE_NAMES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text]
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for part in chain(start, map(bytes_of, tensors.values())):
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": 8 + len(text) + end, "sha256": digest.hexdigest()}


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's numbers as bytes, without a copy if it is on the CPU and contiguous."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def checksum(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all of state.json but its checksum."""
    rest = {key: value for key, value in state.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint into a folder of them; then remove all but the last `keep`.

    Args:
        folder: made if it is not there.
        step: its number.
        weights: the model's.
        training: further tensors.
        state: what JSON can hold.
        keep: at least 1.

    Raises:
        OSError: it cannot be written. Nothing of it is left then, and the ones before it are whole.
    """
    path = folder / f"step-{step:08d}"
    partial = folder / f".{path.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        partial.mkdir()
        files = {
            WEIGHTS_NAME: write_tensors(partial / WEIGHTS_NAME, weights),
            TRAINING_NAME: write_tensors(partial / TRAINING_NAME, training),
        }
        content = {"format": FORMAT, "version": VERSION, "step": step, "files": files}
        content["state"] = dict(state)
        content["sha256"] = checksum(content)
        with open(partial / STATE_NAME, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(partial)
        if path.exists():  # from a run that was resumed before this step
            shutil.rmtree(path)
        os.replace(partial, path)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise not_saved(error, path) from error
    for old in checkpoint_paths(folder)[:-keep]:
        if old != path:
            shutil.rmtree(old)
    return path


def not_saved(error: OSError, path: Path) -> OSError:
    """Return the error for a checkpoint that could not be written."""
    steps = [old.name for old in checkpoint_paths(path.parent) if old != path]
    left = f"the last good one is {steps[-1]}" if steps else "there is none before it"
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = f"the disk is full ({shutil.disk_usage(path.parent).free:,} bytes free)"
    return OSError(error.errno, f"the checkpoint was not saved: {why}; {left}", str(path))


def remove_partial(folder: Path) -> None:
    """Remove what a save that was killed left."""
    for path in folder.glob(".step-*.partial"):
        shutil.rmtree(path)


# --- reading ---


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; see `save_checkpoint`."""

    path: Path
    step: int
    weights: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest last."""
    found = [path for path in folder.glob("step-*") if FOLDER_NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def read_state(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, checked.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or not ours.
    """
    file = path / STATE_NAME
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is no checkpoint: it has no {STATE_NAME}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of gptbook: {STATE_NAME} is not ours")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {content.get('version')} and this gptbook reads {VERSION}"
        )
    if content.get("sha256") != checksum(content):
        raise CheckpointError(f"{file} is damaged: its checksum is wrong")
    return content


def check_file(path: Path, wanted: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless a file has this size and SHA-256."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    size = path.stat().st_size
    if size != wanted["bytes"]:
        raise CheckpointError(
            f"{path} is truncated or foreign: it has {size:,} bytes, and should have "
            f"{wanted['bytes']:,}"
        )
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted["sha256"]:
        raise CheckpointError(f"{path} is damaged or foreign: its SHA-256 is {found}")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, all of it on the CPU, after every byte of it was checked.

    Raises:
        CheckpointError: it is truncated, damaged, of another version, or not ours.
    """
    content = read_state(path)
    for name, wanted in content["files"].items():
        check_file(path / name, wanted)
    weights, training = load_file(path / WEIGHTS_NAME), load_file(path / TRAINING_NAME)
    return Checkpoint(path, content["step"], weights, training, content["state"])


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None if there is none at all.

    A broken one is named in a warning, and the one before it is tried.

    Raises:
        CheckpointError: there are checkpoints, and all of them are broken.
    """
    paths = checkpoint_paths(folder)
    problems = []
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"no checkpoint in {folder} is whole: {'; '.join(problems)}")
    return None


# --- what an optimizer remembers ---


def pack_optimizer(optimizer: Optimizer, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors, their names beginning with prefix, and the rest."""
    whole = optimizer.state_dict()
    tensors = {
        f"{prefix}.{number}.{name}": value
        for number, state in whole["state"].items()
        for name, value in state.items()
    }
    return tensors, {"param_groups": whole["param_groups"]}


def unpack_optimizer(
    optimizer: Optimizer, prefix: str, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Give an optimizer the state that `pack_optimizer` took from one like it.

    The tensors become the optimizer's own, which it will change.

    Raises:
        ValueError: it has other groups or parameters; nothing is changed then.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            number, _, key = name.removeprefix(prefix + ".").partition(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": as_tuples(rest["param_groups"])})


def as_tuples(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return groups as they were before JSON made lists of the tuples in them."""
    lists = ("params", "param_names")
    return [
        {k: tuple(v) if isinstance(v, list) and k not in lists else v for k, v in group.items()}
        for group in groups
    ]
