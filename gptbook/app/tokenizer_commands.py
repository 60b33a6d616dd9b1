"""``gptbook tokenizer``: train a tokenizer, and turn text into ids and back."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptbook.tokenizer import BPETokenizer

Subparsers = (
    argparse._SubParsersAction
)  # argparse has no public name for what add_subparsers returns

CHARACTERS_PER_CHUNK = 1 << 16
TOKENIZER_HELP = "a file written by `gptbook tokenizer train`, or the name gpt2"


def add_commands(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add ``tokenizer train|encode|decode`` to the command line."""
    tokenizer = commands.add_parser("tokenizer", help="train a tokenizer; encode and decode text")
    actions = tokenizer.add_subparsers(dest="action", metavar="ACTION", required=True)

    train = actions.add_parser("train", help="learn a byte-pair vocabulary from text files")
    train.add_argument("sources", nargs="+", type=Path, metavar="FILE", help="UTF-8 text")
    train.add_argument("--vocab-size", type=int, default=8192, metavar="N", help="default: 8192")
    train.add_argument(
        "--special-token",
        action="append",
        default=[],
        metavar="TOKEN",
        help="such as '<|endoftext|>'; repeat for more",
    )
    train.add_argument("--output", type=Path, required=True, metavar="FILE", help="where to save")
    train.set_defaults(run=run_train)

    encode = actions.add_parser("encode", help="print the ids of a text, or of standard input")
    encode.add_argument("text", nargs="?", help="default: read standard input as a stream")
    encode.add_argument("--tokenizer", required=True, metavar="FILE", help=TOKENIZER_HELP)
    encode.add_argument(
        "--allow-special", action="store_true", help="special tokens in the text count"
    )
    encode.add_argument(
        "--pieces", action="store_true", help="print each token's text beside its id"
    )
    encode.set_defaults(run=run_encode)

    decode = actions.add_parser("decode", help="print the text of ids, or of ids on standard input")
    decode.add_argument("ids", nargs="*", type=int, metavar="ID")
    decode.add_argument("--tokenizer", required=True, metavar="FILE", help=TOKENIZER_HELP)
    decode.set_defaults(run=run_decode)


def load_tokenizer(name: str) -> "BPETokenizer":
    """Return GPT-2's tokenizer for the name ``gpt2``, else the one saved in the file ``name``."""
    from gptbook.tokenizer import BPETokenizer

    if name == "gpt2":
        return BPETokenizer.from_tiktoken(name)
    return BPETokenizer.load(Path(name))


def run_train(arguments: argparse.Namespace) -> None:
    """Train on the files, save, and say what came out."""
    from gptbook.tokenizer import train_bpe

    output: Path = arguments.output
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise ValueError(f"--output {output}: name a file in a folder that exists")
    started = time.perf_counter()
    tokenizer = train_bpe(
        arguments.sources,
        vocab_size=arguments.vocab_size,
        special_tokens=arguments.special_token,
    )
    tokenizer.save(arguments.output)
    size = sum(path.stat().st_size for path in arguments.sources)
    seconds = time.perf_counter() - started
    print(f"{len(tokenizer.vocab):,} tokens from {size / 1e6:.2f} MB in {seconds:.2f} s")
    if len(tokenizer.vocab) < arguments.vocab_size:
        print(f"Fewer than the {arguments.vocab_size:,} asked for: no pair was left to merge.")
    print(f"Saved {arguments.output}")


def standard_input() -> Iterator[str]:
    """Yield standard input in chunks, so that it need not fit in memory."""
    while chunk := sys.stdin.read(CHARACTERS_PER_CHUNK):
        yield chunk


def run_encode(arguments: argparse.Namespace) -> None:
    """Print ids on one line, or one token a line with its text."""
    tokenizer = load_tokenizer(arguments.tokenizer)
    chunks = standard_input() if arguments.text is None else [arguments.text]
    ids = tokenizer.encode_stream(chunks, "all" if arguments.allow_special else "none")
    if arguments.pieces:
        for token_id in ids:
            print(f"{token_id:>8} {tokenizer.decode_bytes([token_id])!r}")
        return
    separator = ""
    for token_id in ids:
        print(f"{separator}{token_id}", end="")
        separator = " "
    print()


def run_decode(arguments: argparse.Namespace) -> None:
    """Print the text of the ids, one after the other."""
    tokenizer = load_tokenizer(arguments.tokenizer)
    ids = arguments.ids or (int(word) for line in sys.stdin for word in line.split())
    for text in tokenizer.decode_stream(ids):
        print(text, end="")
    print()
