"""``gptbook train`` and ``gptbook plot``: train a model by a preset, and draw how runs went."""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptbook.app.train_progress import Progress
    from gptbook.train_config import TrainConfig
    from gptbook.trainer import RunResult, Trainer, World
    from gptbook.training_data import TrainingData

Subparsers = (
    argparse._SubParsersAction
)  # argparse has no public name for what add_subparsers returns


def add_commands(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add ``train`` and ``plot`` to the command line."""
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model by a preset, some of whose settings you may change. Under "
        "torchrun, with -m gptbook.app, each process computes a part of every batch.",
    )
    train.add_argument(
        "--preset", metavar="NAME", help="tinyworld-cpu, shakespeare-char-cpu, python-cpu, ..."
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="change a setting, such as optim.lr=3e-4; may be repeated",
    )
    train.add_argument("--out", type=Path, metavar="DIR", help="default: runs/PRESET")
    train.add_argument(
        "--resume",
        action="store_true",
        help="continue what is in --out, from its last whole checkpoint",
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="say how large the model is, what the run costs and how long it takes, and end",
    )
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(run=run_train)

    plot = commands.add_parser(
        "plot",
        help="draw the losses of runs",
        description="Draw the losses of one run, or of several on one axis.",
    )
    plot.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    plot.add_argument(
        "--out", type=Path, metavar="FILE", help=".svg, .png or .pdf; default: loss.svg in RUN"
    )
    plot.add_argument(
        "--x", choices=("steps", "tokens", "seconds"), default="steps", help="default: steps"
    )
    plot.set_defaults(run=run_plot)


# --- train ---


def run_train(arguments: argparse.Namespace) -> None:
    """Train, or say what it would cost."""
    folder: Path = arguments.out or Path("runs") / (arguments.preset or "")
    config = configuration(arguments, folder)
    if arguments.dry_run:
        from gptbook.app.train_plan import plan_lines

        print("\n".join(plan_lines(config)))
        return
    from gptbook.checkpoint import checkpoint_paths

    if not arguments.resume and checkpoint_paths(folder / "checkpoints"):
        raise FileExistsError(
            f"{folder} holds checkpoints of a run: add --resume to continue it, or choose another "
            "--out"
        )
    result = train(config, folder, resume=arguments.resume, quiet=arguments.quiet)
    if result.stopped_by is not None:
        print(f"stopped at step {result.step} and saved; --resume continues", file=sys.stderr)
        sys.exit(128 + (result.stopped_by or signal.SIGTERM))


def configuration(arguments: argparse.Namespace, folder: Path) -> "TrainConfig":
    """Return the configuration that the arguments ask for.

    Raises:
        ValueError: there is neither a preset nor a run to resume, or a name is unknown.
    """
    from gptbook.tracking import read_manifest
    from gptbook.train_config import TRAIN_PRESETS, TrainConfig, train_preset

    if arguments.preset is not None:
        config = train_preset(arguments.preset)
    elif arguments.resume and arguments.out is not None:
        config = TrainConfig.from_dict(read_manifest(folder)["config"])
    else:
        raise ValueError(
            f"which run? Give --preset NAME ({', '.join(TRAIN_PRESETS)}), or --resume --out DIR"
        )
    return config.with_overrides(arguments.settings)


def train(config: "TrainConfig", folder: Path, *, resume: bool, quiet: bool) -> "RunResult":
    """Prepare the data, train, and say how it goes."""
    from gptbook.app.train_progress import Progress
    from gptbook.trainer import Trainer, World

    world = World.from_environment(config.device)
    data = prepared(config, folder, world)
    with Progress(config, folder, data.floor, quiet=quiet) as progress:
        trainer = Trainer(config, data, folder, world=world, observe=progress.observe)
        begin(trainer, progress, resume=resume)
        return trainer.run()


def prepared(config: "TrainConfig", folder: Path, world: "World") -> "TrainingData":
    """Return the run's data, prepared by the first process."""
    from gptbook.training_data import prepare

    if world.rank == 0:
        prepare(config.data, folder / "data", say=lambda text: print(text, flush=True))
    world.wait()
    return prepare(config.data, folder / "data")


def begin(trainer: "Trainer", progress: "Progress", *, resume: bool) -> None:
    """Resume if asked to, and say where the run stands."""
    if resume and trainer.resume() and trainer.world.rank == 0:
        print(f"continuing behind step {trainer.step:,} of {trainer.config.steps:,}", flush=True)
    progress.start(trainer)


# --- plot ---


def run_plot(arguments: argparse.Namespace) -> None:
    """Draw the runs and say where."""
    from gptbook.app.run_plot import plot_runs

    runs: list[Path] = arguments.runs
    out: Path = arguments.out or (runs[0] if len(runs) == 1 else Path()) / "loss.svg"
    plot_runs(runs, out, x=arguments.x)
    print(out)
