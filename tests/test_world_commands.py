"""``gptbook world`` writes the documents that the package makes."""

import argparse
import json

import pytest

from gptbook.app.world_commands import KIND_HELP, add_commands
from gptbook.tinyworld import KINDS, TinyWorld


def run(*argv: str) -> None:
    """Run the command line with only this command."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["world", *argv])
    arguments.run(arguments)


def test_documents_are_written_with_separators(capsys: pytest.CaptureFixture[str]) -> None:
    run("--docs", "3", "--seed", "7", "--start", "5")
    documents = capsys.readouterr().out.split("<|endoftext|>\n")
    assert documents == [*(d.text for d in TinyWorld(seed=7).documents(3, start=5)), ""]


def test_json_lines_hold_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    run("--docs", "2", "--kind", "story", "--dialect", "shore", "--jsonl")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    world = TinyWorld(dialect="shore")
    for line, document in zip(lines, world.documents(2), strict=True):
        assert line["text"] == document.text
        assert line["logprob"] == document.logprob == world.logprob(line["text"])
        assert [tuple(m) for m in line["mentions"]] == list(document.mentions)
        assert (line["kind"], line["index"]) == ("story", document.index)


def test_nothing_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    run("--docs", "0")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--docs", "-1"), "--docs -1"),
        (("--kind", "poem"), "choose one of story, facts"),
        (("--dialect", "valley"), "hill, shore"),
        (("--start", "-2"), "numbered from 0"),
    ],
)
def test_wrong_arguments_are_refused(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(*argv)


def test_help_names_every_kind() -> None:
    assert KIND_HELP.replace(" (default)", "").split(", ") == list(KINDS)
