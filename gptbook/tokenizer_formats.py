# Exported from chapters/01_tokenizer.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""What a tokenizer looks like on disk and to other libraries."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken


FILE_FORMAT = "gptbook-tokenizer"
FILE_VERSION = 1
TIKTOKEN_GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
)
"""GPT2_PATTERN as tiktoken writes it, with possessive quantifiers; both cut every text alike."""

FILE_KEYS = {"format", "version", "pattern", "special_tokens", "vocab", "merges", "sha256"}


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a crash leaves the old file or the new one, never half of it."""
    path = path.resolve()  # of a link, the target is replaced
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such directory for {path.name}; make it first")
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # not there any more if all went well


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all of a tokenizer file but its checksum."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def write_tokenizer_file(
    path: Path,
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Mapping[str, int],
    pattern: str,
) -> None:
    """Write the four things that make a tokenizer as JSON: bytes in hexadecimal, merges as ids."""
    ids = {token: token_id for token_id, token in vocab.items()}
    content = {
        "format": FILE_FORMAT,
        "version": FILE_VERSION,
        "pattern": pattern,
        "special_tokens": dict(special_tokens),
        "vocab": {str(token_id): token.hex() for token_id, token in vocab.items()},
        "merges": [[ids[left], ids[right]] for left, right in merges],
    }
    write_atomically(path, json.dumps({**content, "sha256": checksum(content)}))


def read_tokenizer_file(path: Path) -> dict[str, Any]:
    """Read what `write_tokenizer_file` wrote: vocab, merges, special_tokens and pattern.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, edited, of another version, or not ours.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such tokenizer file; make one with save()") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise ValueError(f"{path} is truncated or no tokenizer file: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FILE_FORMAT:
        raise ValueError(f"{path} is no tokenizer file of gptbook: its format is not {FILE_FORMAT}")
    if content.get("version") != FILE_VERSION:
        raise ValueError(
            f"{path} has version {content.get('version')!r} and this gptbook reads version "
            f"{FILE_VERSION}: train again, or use the gptbook that wrote it"
        )
    if set(content) != FILE_KEYS or content["sha256"] != checksum(content):
        raise ValueError(
            f"{path} was changed after it was saved: its checksum is wrong; save again"
        )
    try:
        vocab = {int(i): bytes.fromhex(token) for i, token in content["vocab"].items()}
        return {
            "vocab": vocab,
            "merges": [(vocab[left], vocab[right]) for left, right in content["merges"]],
            "special_tokens": dict(content["special_tokens"]),
            "pattern": content["pattern"],
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no tokenizer file of gptbook: {error!r}; save again"
        ) from error


def tiktoken_encoding(name: str) -> "tiktoken.Encoding":
    """Return tiktoken's encoding of that name, from its cache or the network.

    Raises:
        ValueError: tiktoken has none of that name.
        OSError: its vocabulary is neither in tiktoken's cache nor to be had.
    """
    import tiktoken

    if name not in tiktoken.list_encoding_names():
        raise ValueError(
            f"no tiktoken encoding {name!r}; there are {tiktoken.list_encoding_names()}"
        )
    try:
        return tiktoken.get_encoding(name)
    except OSError as error:
        raise OSError(
            f"the vocabulary of {name!r} is not in tiktoken's cache and could not be downloaded "
            f"({type(error).__name__}): connect to the network once, or set TIKTOKEN_CACHE_DIR to "
            "a folder that has it"
        ) from error


def byte_letters() -> list[str]:
    """Return the visible character that stands for each byte in GPT-2's and Hugging Face's files.

    Printable Latin-1 characters stand for themselves; the other 68 bytes take the code points from
    256 on, in order, so that a space becomes "Ġ" (Radford et al., 2019, encoder.py).
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), 256),
    }
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def huggingface_json(
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Mapping[str, int],
    pattern: str,
) -> dict[str, Any]:
    """Return what Hugging Face's tokenizer.json holds for the same tokenizer."""
    letters = byte_letters()
    special_ids = set(special_tokens.values())

    def spell(token: bytes) -> str:
        return "".join(map(letters.__getitem__, token))

    added_token = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    for token in special_tokens:
        if not token.isascii() and set(token) <= set(letters):
            raise ValueError(
                f"special token {token!r} is spelled with the letters that stand for bytes in "
                "Hugging Face's files, which would read it as other text: choose another one"
            )
    model_vocab = {spell(token): i for i, token in vocab.items() if i not in special_ids}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, **added_token}
            for token, i in sorted(special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**model_vocab, **special_tokens},
            "merges": [[spell(left), spell(right)] for left, right in merges],
        },
    }
