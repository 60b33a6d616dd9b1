"""``gptbook world``: write documents of the synthetic world to standard output."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptbook.tinyworld import Document

Subparsers = (
    argparse._SubParsersAction
)  # argparse has no public name for what add_subparsers returns

KIND_HELP = (
    "story (default), facts, questions, arithmetic, lists, summary, chat, preferences, mixed"
)
SEPARATOR = "<|endoftext|>\n"


def add_commands(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add ``world`` to the command line."""
    world = commands.add_parser(
        "world",
        help="write documents of the synthetic world",
        description="Write documents of TinyWorld, a line with <|endoftext|> after each.",
    )
    world.add_argument("--docs", type=int, default=10, metavar="N", help="default: 10")
    world.add_argument("--seed", type=int, default=0, metavar="N", help="of the world; default: 0")
    world.add_argument("--kind", default="story", metavar="KIND", help=KIND_HELP)
    world.add_argument("--dialect", default="hill", metavar="NAME", help="hill (default) or shore")
    world.add_argument(
        "--start", type=int, default=0, metavar="N", help="number of the first document; default: 0"
    )
    world.add_argument(
        "--jsonl",
        action="store_true",
        help="a JSON object a line: kind, index, text, logprob (nats) and mentions",
    )
    world.set_defaults(run=run_world)


def run_world(arguments: argparse.Namespace) -> None:
    """Write the documents."""
    from gptbook.tinyworld import TinyWorld

    if arguments.docs < 0:
        raise ValueError(f"--docs {arguments.docs}: ask for 0 or more documents")
    world = TinyWorld(seed=arguments.seed, dialect=arguments.dialect)
    for document in world.documents(arguments.docs, arguments.kind, arguments.start):
        if arguments.jsonl:
            sys.stdout.write(as_json(document) + "\n")
        else:
            sys.stdout.write(document.text + SEPARATOR)


def as_json(document: "Document") -> str:
    """Return a document as one line of JSON."""
    return json.dumps(
        {
            "kind": document.kind,
            "index": document.index,
            "text": document.text,
            "logprob": document.logprob,
            "mentions": [list(mention) for mention in document.mentions],
        }
    )
