"""Loss at each position, far past the trained length, for five ways to tell positions.

Chapter 3 ("Rotary positions") plots what this writes to book/results/position_extrapolation.json.
It is a recorded run because five models take minutes to train. From the repository root:

    python tests/benchmarks/position_extrapolation.py

The models and their training are the cells of chapters/03_rotary_positions.md that are tagged
`little-model`: the chapter trains one of them for seconds, this trains each for longer. Then the
rotary one is scaled in several ways and measured again, as it is and after a few more steps.
"""

import argparse
import copy
import itertools
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jupytext
import torch

from gptbook.config import RopeConfig, RopeScaling
from gptbook.positions import RotaryPositions, alibi_bias, apply_rotary

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "chapters" / "03_rotary_positions.md"
RESULT = ROOT / "book" / "results" / "position_extrapolation.json"
KINDS = ("learned", "sinusoidal", "rope", "alibi", "none")
N_DOCUMENTS = 10_000
ROWS = 8
HELD_OUT_ROWS = 120
TUNING_STEPS = 40
SEED = 0


def chapter_code() -> dict[str, Any]:
    """Return the names that the chapter's cells tagged `little-model` define."""
    names: dict[str, Any] = {  # what the chapter's own cells export
        "RopeConfig": RopeConfig,
        "RotaryPositions": RotaryPositions,
        "alibi_bias": alibi_bias,
        "apply_rotary": apply_rotary,
    }
    for cell in jupytext.read(CHAPTER).cells:
        if "little-model" in cell.metadata.get("tags", ()):
            exec(cell.source, names)
    return names


def commit() -> str:
    """Return the commit of the working tree, marked when the tree differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def scalings(trained: int, factor: float) -> dict[str, RopeScaling | None]:
    """Return the ways to scale, by name."""
    return {
        "unscaled": None,
        "linear": RopeScaling("linear", factor),
        "ntk": RopeScaling("ntk", factor),
        "yarn": RopeScaling("yarn", factor, trained),
        "llama3": RopeScaling("llama3", factor, trained),
    }


def measure(steps: int) -> dict[str, Any]:
    """Train the five models, scale the rotary one, and return the loss at each place of each."""
    code = chapter_code()
    trained, longest = code["TRAINED"], code["LONGEST"]
    stream, held_out, floor = code["tinyworld_streams"](N_DOCUMENTS, seed=SEED)
    vocab_size = int(stream.max()) + 1

    def losses(model: torch.nn.Module) -> list[float]:
        values = code["loss_by_place"](model, held_out, longest, HELD_OUT_ROWS).tolist()
        return [round(value, 4) for value in values]

    by_kind, seconds, models = {}, {}, {}
    for kind in KINDS:
        torch.manual_seed(SEED)
        models[kind] = code["LittleModel"](vocab_size, kind, longest)
        started = time.perf_counter()
        code["train"](models[kind], stream, steps, ROWS, trained, seed=SEED)
        seconds[kind] = round(time.perf_counter() - started, 1)
        by_kind[kind] = losses(models[kind])
        report(kind, by_kind[kind], trained, seconds[kind])
    scaled: dict[str, dict[str, list[float]]] = {"before": {}, "after": {}}
    for name, scaling in scalings(trained, longest / trained).items():
        model = copy.deepcopy(models["rope"])
        model.rotary = RotaryPositions(model.rotary.d_head, RopeConfig(scaling=scaling))
        scaled["before"][name] = losses(model)
        code["train"](model, stream, TUNING_STEPS, 2, longest, lr=2e-3, seed=SEED + 1)
        scaled["after"][name] = losses(model)
        report(f"{name}, before", scaled["before"][name], trained, 0)
        report(f"{name}, after", scaled["after"][name], trained, 0)
    return {
        "floor": floor,
        "train_tokens": len(stream),
        "parameters": sum(p.numel() for p in models["rope"].parameters()),
        "train_seconds": seconds,
        "by_kind": by_kind,
        "scaled": scaled,
    }


def report(name: str, losses: Sequence[float], trained: int, seconds: float) -> None:
    """Print the mean losses of stretches of places."""
    edges = [0, 8, trained // 2, trained, trained * 5 // 4, trained * 2, trained * 4, len(losses)]
    pairs = itertools.pairwise(edges)
    means = " ".join(f"{sum(losses[a:b]) / (b - a):.3f}" for a, b in pairs)
    print(f"{name:18} {seconds:6.1f} s  {means}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="of each model; default: 4000")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"default: {RESULT}")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    result = {
        "command": "python tests/benchmarks/position_extrapolation.py",
        "config": {
            "steps": arguments.steps,
            "rows": ROWS,
            "documents": N_DOCUMENTS,
            "held_out_rows": HELD_OUT_ROWS,
            "tuning_steps": TUNING_STEPS,
        },
        "seed": SEED,
        "commit": commit(),
        "device": f"CPU, {platform.machine()}, one thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "gptbook": version("gptbook"),
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    result |= measure(arguments.steps)
    arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
