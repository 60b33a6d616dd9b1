"""Bytes per token against vocabulary size, up to 32,768 tokens, on three corpora.

Chapter 1 ("Choosing a vocabulary") plots what this writes to book/results/vocabulary_curve.json.
It is a recorded run because the third corpus, Tiny Shakespeare, is not on every machine, and the
second is too large for a chapter. From the repository root:

    python tests/benchmarks/vocabulary_curve.py --shakespeare PATH/input.txt

Each corpus is cut into blocks of 10,000 characters; every tenth block is held out. The tokenizer
is trained once, at the largest size: a smaller vocabulary is a prefix of it.
"""

import argparse
import json
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from pydoc_data.topics import topics

from gptbook.tokenizer import BPETokenizer, train_bpe

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "book" / "results" / "vocabulary_curve.json"
SIZES = tuple(2**k for k in range(8, 16))
BLOCK = 10_000  # characters
HELD_OUT_EVERY = 10


def python_reference() -> str:
    """Return pydoc's topics, each paragraph once: the topics repeat each other."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return "\n\n".join(dict.fromkeys(text.split("\n\n")))


def python_stdlib() -> str:
    """Return the standard library's sources without its tests (about 11 MB)."""
    library = Path(sysconfig.get_paths()["stdlib"])
    excluded = {"site-packages", "test", "tests", "idle_test", "pydoc_data"}
    paths = sorted(p for p in library.rglob("*.py") if not excluded & set(p.parts))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def split(text: str) -> tuple[str, str]:
    """Return the training part and the held-out part of text: every tenth block is held out."""
    blocks = [text[i : i + BLOCK] for i in range(0, len(text), BLOCK)]
    is_held_out = [i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 for i in range(len(blocks))]
    train = "".join(b for b, out in zip(blocks, is_held_out, strict=True) if not out)
    held_out = "".join(b for b, out in zip(blocks, is_held_out, strict=True) if out)
    return train, held_out


def prefix(tokenizer: BPETokenizer, vocab_size: int) -> BPETokenizer:
    """Return the tokenizer that training would have given had it stopped at vocab_size."""
    vocab = {i: tokenizer.vocab[i] for i in range(vocab_size)}
    return BPETokenizer.from_vocab_merges(vocab, tokenizer.merges[: vocab_size - 256])


def bytes_per_token(tokenizer: BPETokenizer, text: str) -> float:
    """Return the bytes of text over its tokens, rounded to what a plot can show."""
    return round(len(text.encode()) / len(tokenizer.encode(text)), 4)


def measure(name: str, text: str, sizes: Iterable[int]) -> dict[str, object]:
    """Train on one corpus and return its curve."""
    train, held_out = split(text)
    print(f"{name}: training on {len(train):,} characters", file=sys.stderr)
    started = time.perf_counter()
    largest = train_bpe([train], vocab_size=max(sizes))
    seconds = time.perf_counter() - started
    reached = [size for size in sizes if size <= len(largest.vocab)]
    tokenizers = [prefix(largest, size) for size in reached]
    return {
        "train_bytes": len(train.encode()),
        "held_out_bytes": len(held_out.encode()),
        "largest_vocab": len(largest.vocab),
        "train_seconds": round(seconds, 1),
        "vocab_size": reached,
        "train": [bytes_per_token(tokenizer, train) for tokenizer in tokenizers],
        "held_out": [bytes_per_token(tokenizer, held_out) for tokenizer in tokenizers],
    }


def commit() -> str:
    """Return the commit of the working tree, marked when the tree differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the three corpora and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shakespeare", type=Path, required=True, help="Tiny Shakespeare's text")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"default: {RESULT}")
    arguments = parser.parse_args(argv)
    corpora = {
        "Python reference": python_reference(),
        "Python standard library": python_stdlib(),
        "Tiny Shakespeare": arguments.shakespeare.read_text(encoding="utf-8"),
    }
    result = {
        "command": "python tests/benchmarks/vocabulary_curve.py --shakespeare PATH/input.txt",
        "config": {"sizes": SIZES, "block": BLOCK, "held_out_every": HELD_OUT_EVERY},
        "seed": None,  # nothing is drawn
        "commit": commit(),
        "device": f"CPU, {platform.machine()}",
        "versions": {"python": platform.python_version(), "gptbook": version("gptbook")},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "curves": {name: measure(name, text, SIZES) for name, text in corpora.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
