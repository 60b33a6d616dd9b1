"""The entry point of the command line: parse, dispatch, and turn errors into exit codes."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from gptbook import __version__
from gptbook.app import generate_commands, tokenizer_commands, train_commands, world_commands
from gptbook.grading import commands as grading_commands

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="gptbook", description="Build GPT from bytes to ChatGPT: the book's package at work."
    )
    parser.add_argument("--version", action="version", version=f"gptbook {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    tokenizer_commands.add_commands(commands)
    world_commands.add_commands(commands)
    train_commands.add_commands(commands)
    generate_commands.add_commands(commands)
    grading_commands.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 1: the command failed and said why on stderr; 2: wrong usage; 130: interrupted.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w")):
        if getattr(sys, name) is None:  # closed by the caller
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 (stays open)
            setattr(sys, name, stream)
    arguments = build_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        # Python flushes stdout once more at exit; pointing it elsewhere keeps that quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except USER_ERRORS as error:
        print(f"gptbook: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gptbook: interrupted", file=sys.stderr)
        return 130
    return 0
