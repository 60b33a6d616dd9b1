"""The chat model that the book trains itself, once, and keeps in the cache."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gptbook.app.models import LoadedModel, load_run

if TYPE_CHECKING:
    from tqdm import tqdm

    from gptbook.train_config import TrainConfig
    from gptbook.trainer import Trainer

VERSION = 2
"""Part of the folder's name: a later version of the recipe trains anew."""

CONTEXT_LENGTH = 256
"""At least so many tokens, for a few questions and answers."""


def chat_config() -> "TrainConfig":
    """Return the preset tinyworld-cpu for conversations, with two thirds of its steps.

    That leaves room in two minutes of two cores for preparing the data.
    """
    from gptbook.train_config import train_preset

    preset = train_preset("tinyworld-cpu")
    context_length = max(CONTEXT_LENGTH, preset.context_length)
    schedule = preset.schedule
    return replace(
        preset,
        model=replace(preset.model, context_length=context_length),
        context_length=context_length,
        batch_size=max(1, preset.batch_size * preset.context_length // context_length),
        data=replace(preset.data, kind="chat", validation=0.01),
        steps=preset.steps * 2 // 3,
        schedule=replace(schedule, decay_steps=schedule.decay_steps * 2 // 3),
        log_every=5,
        eval_every=0,
        eval_stride=None,
        checkpoint_every=100,
        keep_checkpoints=1,
        precision="float32",
        device="cpu",
    )


def chat_folder() -> Path:
    """Return where the chat model is kept."""
    from gptbook.corpora import cache_folder

    return cache_folder() / "models" / f"tinyworld-chat-{VERSION}"


def is_trained(folder: Path, config: "TrainConfig") -> bool:
    """Return whether the folder holds the finished run."""
    from gptbook.checkpoint import checkpoint_paths

    return bool(checkpoint_paths(folder / "checkpoints")) and (
        checkpoint_paths(folder / "checkpoints")[-1].name == f"step-{config.steps:08d}"
    )


def chat_model() -> LoadedModel:
    """Return the chat model, trained before or now.

    Raises:
        KeyboardInterrupt: Ctrl-C while it trains. It is saved, and the next call goes on there.
        OSError: the cache cannot be written.
    """
    from gptbook.download import locked

    folder, config = chat_folder(), chat_config()
    if not is_trained(folder, config):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):  # a second program waits, and finds it trained
            if not is_trained(folder, config):
                train_chat_model(folder, config)
    return load_run(folder)


def train_chat_model(folder: Path, config: "TrainConfig") -> None:
    """Train it, with a bar on stderr, from where an earlier try was stopped."""
    from tqdm import tqdm

    from gptbook.trainer import Trainer
    from gptbook.training_data import prepare

    print(
        "There is no chat model yet: training one on TinyWorld's conversations.\n"
        f"About two minutes, once; it is kept in {folder}",
        file=sys.stderr,
    )
    data = prepare(config.data, folder / "data", say=lambda text: print(text, file=sys.stderr))
    with tqdm(total=config.steps, unit=" steps", file=sys.stderr, dynamic_ncols=True) as bar:
        trainer = Trainer(config, data, folder, observe=lambda t, m: show(bar, t, m))
        trainer.resume()
        bar.update(trainer.step)
        result = trainer.run()
    if result.stopped_by is not None:
        print("stopped and saved; the next time it goes on from here", file=sys.stderr)
        raise KeyboardInterrupt


def show(bar: "tqdm[NoReturn]", trainer: "Trainer", metrics: dict[str, float]) -> None:
    """Move the bar to where the run stands."""
    if "loss" in metrics:
        bar.set_postfix_str(f"loss {metrics['loss']:.2f}", refresh=False)
    bar.update(trainer.step - bar.n)
