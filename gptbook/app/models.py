"""What ``--model`` names: a run of ``gptbook train``, a checkpoint, or a pretrained model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptbook.model import GPT
    from gptbook.tokenizer import BPETokenizer

TOKENIZER_NAME = "tokenizer.json"
GPT2_VOCABULARY = 50257
CHAT_KINDS = ("chat", "mixed", "preferences")
"""Kinds of TinyWorld's documents in which people talk to an assistant."""


@dataclass(frozen=True)
class LoadedModel:
    """A model and what goes with it.

    Attributes:
        model: in evaluation mode, on the CPU.
        tokenizer: its tokenizer.
        speaks_markup: whether it was trained on TinyWorld's conversations.
    """

    model: "GPT"
    tokenizer: "BPETokenizer"
    speaks_markup: bool = False


def load_model(name: str) -> LoadedModel:
    """Return the model of a name.

    Args:
        name: the folder of a run, of one of its checkpoints, or of a Hugging Face model with our
            tokenizer.json (without one, GPT-2's vocabulary has to fit); or a name on the Hub.

    Raises:
        FileNotFoundError: there is nothing of that name, or a part is missing.
        ValueError: what is there is damaged.
    """
    folder = Path(name)
    if (folder / "state.json").exists():  # a checkpoint: DIR/checkpoints/step-00000100
        return load_run(folder.parent.parent, folder)
    if (folder / "checkpoints").exists():
        return load_run(folder)
    from gptbook.interop import from_pretrained

    model = from_pretrained(name)
    return LoadedModel(model, tokenizer_of(folder, model.config.vocab_size))


def load_run(folder: Path, checkpoint: Path | None = None) -> LoadedModel:
    """Return the model of a run, from a checkpoint or the newest that is whole."""
    from gptbook.checkpoint import latest_checkpoint, load_checkpoint
    from gptbook.model import GPT
    from gptbook.tokenizer import BPETokenizer
    from gptbook.train_config import TrainConfig

    found = load_checkpoint(checkpoint) if checkpoint else latest_checkpoint(folder / "checkpoints")
    if found is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet: let the run get to one")
    config = TrainConfig.from_dict(found.state["config"])
    model = GPT(config.model, seed=None)
    model.load_state_dict(found.weights)
    tokenizer = BPETokenizer.load(folder / "data" / TOKENIZER_NAME)
    return LoadedModel(model.eval(), tokenizer, config.data.kind in CHAT_KINDS)


def tokenizer_of(folder: Path, vocab_size: int) -> "BPETokenizer":
    """Return the tokenizer in a folder, or GPT-2's if the vocabulary is as large.

    Raises:
        FileNotFoundError: neither.
    """
    from gptbook.tokenizer import BPETokenizer

    if vocab_size == GPT2_VOCABULARY:
        return BPETokenizer.from_tiktoken("gpt2")
    if (folder / TOKENIZER_NAME).exists():
        return BPETokenizer.load(folder / TOKENIZER_NAME)
    raise FileNotFoundError(
        f"{folder} has no {TOKENIZER_NAME} that BPETokenizer.save wrote, and its vocabulary of "
        f"{vocab_size:,} is not GPT-2's: put one there"
    )
