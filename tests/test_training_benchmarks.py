"""The benchmarks of training still run, and compare like with like."""

import subprocess
import sys
from pathlib import Path

import pytest

from gptbook.flops import count_parameters
from gptbook.train_config import TRAIN_PRESETS
from tests.benchmarks.bench_tokenizer import append_run, load_runs
from tests.benchmarks.bench_training import longer, recipe_model
from tests.benchmarks.plain_loop import PlainGPT, Recipe

ROOT = Path(__file__).resolve().parents[1]


def quick(name: str) -> list[str]:
    """Run a benchmark as `make bench` does, but quickly, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", "--quick", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.usefixtures("tiny_shakespeare")
def test_a_quick_run_measures_every_part() -> None:
    rows = dict(line.split("{") for line in quick("bench_training"))
    assert [name.strip() for name in rows] == [
        "plain loop",
        "preset",
        "preset, as long",
        "recipe's model and batch, plain loop",
        "recipe's model and batch, ours, float32, eager",
        "recipe's model and batch, ours, bfloat16, eager",
        "6 layers, width 384, float32, eager",
        "6 layers, width 384, bfloat16, eager",
    ]


def test_a_quick_run_on_tinyworld_takes_the_gap_apart() -> None:
    lines = quick("train_tinyworld")
    assert "bits per byte above the floor" in lines[-4]
    assert all(
        kind in line for kind, line in zip(("choice", "before", "new"), lines[-3:], strict=True)
    )


@pytest.mark.parametrize(
    "name", ["attention", "data", "generation", "model", "tokenizer", "training", "train_tinyworld"]
)
def test_a_run_can_be_added_to_those_recorded(name: str, tmp_path: Path) -> None:
    file = f"{name if name == 'train_tinyworld' else f'bench_{name}'}.json"
    copy = tmp_path / file
    copy.write_bytes((ROOT / "book" / "results" / file).read_bytes())
    runs = load_runs(copy)
    append_run(copy, runs[-1])
    assert load_runs(copy) == [*runs, runs[-1]]


def test_the_preset_has_no_more_parameters_than_the_recipe() -> None:
    plain = sum(p.numel() for p in PlainGPT(Recipe(), 65).parameters())
    ours = count_parameters(TRAIN_PRESETS["shakespeare-char-cpu"]().model).total
    assert abs(count_parameters(recipe_model()).total - plain) < 200  # end-of-text is an id of ours
    assert ours <= plain


def test_a_longer_run_keeps_the_schedule_in_proportion() -> None:
    preset = TRAIN_PRESETS["shakespeare-char-cpu"]()
    twice = longer(preset, 2 * preset.steps)
    assert twice.steps == 2 * preset.steps
    assert twice.schedule.decay_steps == 2 * preset.schedule.decay_steps
    longer(preset, 2)  # too short for the warm-up, which gives way
