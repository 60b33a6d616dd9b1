"""Draw the losses of runs from their metrics files."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptbook.app.notebook import figure_style
from gptbook.tracking import METRICS_NAME, read_metrics

Series = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Run:
    """What a plot shows of a run; losses in bits per byte if bits is true, else nats per token."""

    name: str
    training: Series
    held_out: Series
    floor: float | None
    bits: bool


def read_run(folder: Path, x: str) -> Run:
    """Return a run's losses against steps, tokens or seconds.

    Raises:
        FileNotFoundError: the folder holds no metrics.
    """
    lines = read_metrics(folder / METRICS_NAME)
    if not lines:
        raise FileNotFoundError(
            f"{folder / METRICS_NAME}: no metrics; give the --out folder of gptbook train"
        )
    key = "step" if x == "steps" else x
    places: dict[int, float] = {line["step"]: line[key] for line in lines if key in line}
    measured = [line for line in lines if line.get("held_out_loss") and line.get("bits_per_byte")]
    bits = bool(measured)
    # A tokenizer's nats per token become bits per byte by one factor for the whole text.
    factor = measured[-1]["bits_per_byte"] / measured[-1]["held_out_loss"] if bits else 1.0
    losses = [line for line in lines if line.get("loss") is not None]
    training = [places[line["step"]] for line in losses], [factor * line["loss"] for line in losses]
    held_out = (
        [places[line["step"]] for line in measured if line["step"] in places],
        [line["bits_per_byte"] for line in measured if line["step"] in places],
    )
    return Run(folder.name, training, held_out, known_floor(folder) if bits else None, bits)


def known_floor(folder: Path) -> float | None:
    """Return the floor of a run's held-out text, where it is known."""
    path = folder / "data" / "data.json"
    floor = json.loads(path.read_text("utf-8")).get("floor") if path.exists() else None
    return None if floor is None else float(floor)


def plot_runs(folders: Sequence[Path], out: Path, *, x: str = "steps") -> None:
    """Draw runs on one axis into a file: training losses thin, held-out ones thick.

    Raises:
        FileNotFoundError: a folder holds no metrics.
        ImportError: matplotlib is not installed.
        ValueError: out's suffix is no image's, or some runs were measured in bits per byte and
            others not.
    """
    if out.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"{out}: the plot is an .svg, .png or .pdf file")
    runs = [read_run(folder, x) for folder in folders]
    if len({run.bits for run in runs}) > 1:
        names = ", ".join(run.name for run in runs if not run.bits)
        raise ValueError(f"{names}: no held-out loss yet, so its losses are in another unit")
    try:
        importlib.import_module("matplotlib").use("agg")
    except ImportError as error:
        raise ImportError("gptbook plot needs matplotlib: pip install matplotlib") from error
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure_style()
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for number, run in enumerate(runs):
        draw_run(axes, run, f"C{number % 6}", show_floor=run.floor not in floors(runs[:number]))
    axes.set(xlabel=x, ylabel="bits per byte" if runs[0].bits else "nats per token")
    figure.savefig(out, bbox_inches="tight", facecolor="white")
    pyplot.close(figure)


def floors(runs: Sequence[Run]) -> list[float | None]:
    """Return the floors that are drawn already, and None, which is not drawn at all."""
    return [None, *(run.floor for run in runs)]


def draw_run(axes: Any, run: Run, color: str, *, show_floor: bool) -> None:
    """Draw one run: its name stands at the end of its line."""
    axes.plot(*run.training, color=color, lw=0.8, alpha=0.5)
    if run.held_out[0]:
        axes.plot(*run.held_out, color=color, marker="o", ms=3)
    places, values = run.held_out if run.held_out[0] else run.training
    label = f" {run.name} {values[-1]:.3f}"
    axes.annotate(label, (places[-1], values[-1]), color=color, va="center")
    if show_floor:
        axes.axhline(run.floor, color="0.4", ls="--", lw=1)
        place = (run.training[0][0], run.floor)
        axes.annotate(f"floor {run.floor:.3f}", place, color="0.4", va="bottom")
