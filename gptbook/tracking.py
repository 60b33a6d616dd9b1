# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""What a run leaves behind: a manifest of all that it depended on, and lines of metrics."""

from __future__ import annotations

import importlib
import json
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Protocol

from gptbook.shard_writing import write_whole

MANIFEST_NAME = "manifest.json"
METRICS_NAME = "metrics.jsonl"
PACKAGES = ("gptbook", "torch", "numpy", "safetensors")


def code_state() -> dict[str, Any] | None:
    """Return the git commit of this package's code and whether files changed since, or None."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(folder))
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None  # installed without git, or without its history


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def write_manifest(
    folder: Path, config: Mapping[str, Any], *, data: Mapping[str, Any], device: str
) -> None:
    """Write manifest.json: the configuration, its seed included, the data's hashes, the code.

    A run that is resumed keeps its first manifest and adds to its list of starts.
    """
    path = folder / MANIFEST_NAME
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_state(),
        "versions": package_versions(),
        "machine": {"device": device, "system": platform.platform()},
    }
    old: list[Any] = read_manifest(folder)["starts"] if path.exists() else []
    manifest = {"config": dict(config), "data": dict(data), "starts": [*old, start]}
    write_whole(path, json.dumps(manifest, indent=1).encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a run.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it is damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no manifest, so {folder} is no run; give the --out folder of gptbook train"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and the run goes on") from error
    if not isinstance(manifest, dict) or "config" not in manifest or "starts" not in manifest:
        raise ValueError(f"{path} is no manifest of a run")
    return manifest


class Sink(Protocol):
    """Where metrics go."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    def close(self) -> None:
        """Finish."""


class JsonLines:
    """Metrics in a file, an object a line: {"step": 10, "loss": 3.2, ...}.

    Lines are written whole, and each at once. Numbers that JSON has not, NaN and infinities, are
    written as null.
    """

    def __init__(self, path: Path, after_step: int = 0) -> None:
        """Go on behind step after_step: what stands there of later ones is dropped."""
        kept = [line for line in read_metrics(path) if line["step"] <= after_step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file: IO[str] = open(path, "a", encoding="utf-8")  # noqa: SIM115 (until close)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line."""
        numbers = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file; a last one that was cut off is left out.

    Raises:
        ValueError: another line is no metrics.
    """
    if not path.exists():
        return []
    lines = path.read_text("utf-8").split("\n")
    found = []
    for number, text in enumerate(lines[:-1], start=1):  # behind the last newline: cut off
        try:
            line = json.loads(text)
            found.append({**line, "step": int(line["step"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: no metrics: {text[:80]!r}") from error
    return found


class TensorBoard:
    """Metrics for TensorBoard, in the run's folder."""

    def __init__(self, folder: Path) -> None:
        try:
            module = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise ImportError("the sink tensorboard needs: pip install tensorboard") from error
        self._writer = module.SummaryWriter(str(folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish."""
        self._writer.close()


class Wandb:
    """Metrics for Weights & Biases."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            module = importlib.import_module("wandb")
        except ImportError as error:
            raise ImportError("the sink wandb needs: pip install wandb") from error
        self._run = module.init(dir=str(folder), name=folder.name, config=dict(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish."""
        self._run.finish()


def open_sinks(
    names: Iterable[str], folder: Path, config: Mapping[str, Any], after_step: int = 0
) -> list[Sink]:
    """Return the metrics file of a run, and the sinks of these names.

    Raises:
        ValueError: a name is unknown.
        ImportError: a sink's package is not installed.
    """
    sinks: list[Sink] = []
    for name in names:
        match name:
            case "tensorboard":
                sinks.append(TensorBoard(folder))
            case "wandb":
                sinks.append(Wandb(folder, config))
            case _:
                raise ValueError(f"sinks holds {name!r}; there are tensorboard and wandb")
    return [JsonLines(folder / METRICS_NAME, after_step), *sinks]
