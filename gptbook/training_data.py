# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""From a data configuration to token shards on disk, prepared once and checked when found again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptbook import corpora
from gptbook.corpora import Splits
from gptbook.download import locked
from gptbook.evals import bits_per_byte
from gptbook.shard_writing import write_shards, write_whole
from gptbook.tinyworld import TinyWorld
from gptbook.token_shards import END_OF_TEXT, TokenShards
from gptbook.tokenizer import BPETokenizer, train_bpe
from gptbook.train_config import DataConfig

DATA_NAME = "data.json"
BPE_DOCUMENTS = 5000
"""So many documents teach a tokenizer enough."""


@dataclass(frozen=True)
class TrainingData:
    """Tokens to train on and tokens held out.

    Attributes:
        train: what to train on.
        validation: what is held out.
        tokenizer: made them.
        vocab_size: what the model's has to be, at least.
        validation_bytes: of the held-out texts in UTF-8, for bits per byte.
        floor: bits per byte of the held-out texts under what made them, where that is known.
    """

    train: TokenShards
    validation: TokenShards
    tokenizer: BPETokenizer
    vocab_size: int
    validation_bytes: int
    floor: float | None

    def summary(self) -> dict[str, Any]:
        """Return sizes and hashes, for a run's manifest."""
        return {
            "train": {"tokens": self.train.n_tokens, "sha256": self.train.digest},
            "validation": {"tokens": self.validation.n_tokens, "sha256": self.validation.digest},
            "tokenizer": self.train.tokenizer_fingerprint,
        }


def split_texts(config: DataConfig) -> Splits:
    """Return the texts of a configuration, loaded or downloaded, and split.

    With split "tail" the documents are joined by blank lines, and the end of that is held out.
    """
    named = {"n_documents": config.n_documents, "kind": config.kind}
    options = {name: value for name, value in named.items() if value is not None}
    corpus = corpora.load(config.corpus, **options)
    if config.split == "documents":
        return corpus.splits(config.validation)
    whole = "\n\n".join(corpus.documents)
    cut = int((1 - config.validation) * len(whole))
    return Splits([whole[:cut]], [whole[cut:]])


def character_tokenizer(texts: Sequence[str]) -> BPETokenizer:
    """Return a tokenizer with an id for each character of texts, in order, then end-of-text.

    The bytes that do not occur get the ids behind, so that a model needs none of them.

    Raises:
        ValueError: a character is not ASCII, so that its bytes are several.
    """
    characters = sorted(set().union(*texts))
    if characters[-1:] > ["\x7f"]:
        raise ValueError(
            f"tokenizer 'characters' is for ASCII, and the text holds {characters[-1]!r}: choose "
            "'bpe'"
        )
    rest = [bytes([byte]) for byte in range(256) if chr(byte) not in characters]
    tokens = [character.encode() for character in characters]
    vocab = dict(enumerate([*tokens, END_OF_TEXT.encode(), *rest]))
    return BPETokenizer(vocab, [], {END_OF_TEXT: len(tokens)})


def make_tokenizer(config: DataConfig, splits: Splits) -> tuple[BPETokenizer, int]:
    """Return the tokenizer of a configuration, and how many ids a model needs."""
    match config.tokenizer:
        case "characters":
            tokenizer = character_tokenizer([*splits.train, *splits.validation])
            return tokenizer, tokenizer.special_tokens[END_OF_TEXT] + 1
        case "gpt2":
            tokenizer = BPETokenizer.from_tiktoken("gpt2")
        case _:
            assert config.vocab_size is not None
            texts = splits.train[:BPE_DOCUMENTS]
            tokenizer = train_bpe(texts, config.vocab_size, special_tokens=[END_OF_TEXT])
    return tokenizer, tokenizer.vocab_size


def prepare(
    config: DataConfig, folder: Path, *, say: Callable[[str], None] = lambda text: None
) -> TrainingData:
    """Return the data of a configuration, from the folder, or prepared there if it is not yet.

    Args:
        config: which data.
        folder: where shards and tokenizer are kept; made if it is not there.
        say: is told what takes long.

    Raises:
        ValueError: the folder holds other data, or damaged data.
        OSError: a download failed, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not (folder / DATA_NAME).exists():
            write_data(config, folder, say)
        return open_data(config, folder)


def write_data(config: DataConfig, folder: Path, say: Callable[[str], None]) -> None:
    """Load texts, encode them, and write what `open_data` opens."""
    say(f"loading {config.corpus}")
    splits = split_texts(config)
    tokenizer, vocab_size = make_tokenizer(config, splits)
    tokenizer.save(folder / "tokenizer.json")
    say(f"encoding {len(splits.train):,} documents")
    write_shards(splits.train, tokenizer, folder / "train", overwrite=True)
    held_out = splits.validation[:]
    write_shards(held_out, tokenizer, folder / "validation", overwrite=True)
    n_bytes = sum(len(text.encode()) for text in held_out)
    floor = None
    if config.corpus == "tinyworld":
        world = TinyWorld()
        floor = bits_per_byte(-sum(world.logprob(text) for text in held_out), n_bytes)
    content = {"config": asdict(config), "vocab_size": vocab_size}
    content |= {"validation_bytes": n_bytes, "floor": floor}
    write_whole(folder / DATA_NAME, json.dumps(content, indent=1).encode())


def open_data(config: DataConfig, folder: Path) -> TrainingData:
    """Return the data that a folder holds.

    Raises:
        ValueError: it holds other data, or damaged data.
    """
    path = folder / DATA_NAME
    try:
        content = json.loads(path.read_bytes())
        found = DataConfig(**content["config"])
        numbers = [content[name] for name in ("vocab_size", "validation_bytes", "floor")]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete {folder}") from error
    if found != config:
        differ = [k for k, v in asdict(config).items() if v != getattr(found, k)]
        raise ValueError(
            f"{folder} holds data with other settings of {', '.join(differ)}: choose another "
            "folder, or delete it"
        )
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    train = TokenShards(folder / "train", tokenizer)
    validation = TokenShards(folder / "validation", tokenizer)
    return TrainingData(train, validation, tokenizer, *numbers)
