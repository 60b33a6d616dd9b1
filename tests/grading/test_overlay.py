"""A reader's function in place of the book's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptbook.grading.ch01_tokenizer.fast_training_bank import PART
from gptbook.grading.ch01_tokenizer.streams import PART as STREAMS
from gptbook.grading.exercise import Part
from gptbook.grading.overlay import OverlayError, adopt, drop, load_adopted
from gptbook.grading.submission import Submission

MINE = Submission(
    "mine.md",
    (
        "from itertools import pairwise\nLIMIT = 2",
        "unrelated = 1 / 0",
        "def learn_merges(piece_counts, n_merges):\n"
        "    pairs = [pair for piece in piece_counts for pair in pairwise(piece)]\n"
        "    return [(bytes([a]), bytes([b])) for a, b in sorted(set(pairs))[:LIMIT]]",
    ),
)
USE = """
from pathlib import Path
from gptbook.grading import use_mine
use_mine(Path({path!r}))
from gptbook.tokenizer import train_bpe
print([tuple(map(bytes.decode, merge)) for merge in train_bpe(["dcba"], vocab_size=300).merges])
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_runs_on_the_adopted_function_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    adopt(path, "1.5", (PART,), MINE)
    result = python(USE.format(path=str(path)))
    assert result.stdout.splitlines() == [
        "Yours: gptbook.bpe_training.learn_merges (exercise 1.5, mine.md)",
        "[('b', 'a'), ('c', 'b')]",
    ], result.stderr


def test_only_what_the_function_needs_is_kept_and_the_newest_wins(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    adopt(path, "1.5", (PART,), Submission("old.md", ("def learn_merges(a, b): return []",)))
    adopt(path, "1.5", (PART,), MINE)
    (item,) = load_adopted(path)
    assert item.label == "mine.md"
    assert "pairwise" in item.source
    assert "unrelated" not in item.source


def test_a_method_is_replaced_through_an_adapter(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    mine = (
        "def decode_stream(ids, vocab):\n    for i in ids:\n        yield f'<{vocab[i].decode()}>'"
    )
    adopt(path, "1.4", (STREAMS,), Submission("mine.py", (mine,)))
    result = python(
        USE.format(path=str(path)) + "tokenizer = train_bpe(['abab'], vocab_size=257)\n"
        "print(list(tokenizer.decode_stream(tokenizer.encode('abaab'))))"
    )
    said, _, streamed = result.stdout.splitlines()
    assert said.startswith("Yours: gptbook.tokenizer.BPETokenizer.decode_stream"), result.stderr
    assert streamed == "['<ab>', '<a>', '<ab>']"


def test_what_is_dropped_is_the_books_again(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    adopt(path, "1.5", (PART,), MINE)
    with pytest.raises(ValueError, match=r"nothing is adopted for exercise 1\.4"):
        drop(path, "1.4")
    drop(path, "1.5")
    assert load_adopted(path) == []


def test_too_late_is_said(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    adopt(path, "1.5", (PART,), MINE)
    result = python("import gptbook.tokenizer\n" + USE.format(path=str(path)))
    assert "gptbook.bpe_training is loaded already: call use_mine() first" in result.stderr


def test_nothing_adopted_is_said(tmp_path: Path) -> None:
    result = python(USE.format(path=str(tmp_path / "none.json")))
    assert result.stdout.startswith("No function is adopted yet")
    assert result.returncode == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 2, "adopted": [{}]}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "adopted.json"
    path.write_text(text)
    with pytest.raises(OverlayError):
        load_adopted(path)
    with pytest.raises(OverlayError):
        adopt(path, "1.5", (PART,), MINE)
    assert path.read_text() == text


def test_a_name_that_left_the_book_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "adopted.json"
    adopt(path, "1.5", (PART,), MINE)
    data = json.loads(path.read_text())
    data["adopted"][0]["replaces"] = "gptbook.bpe_training:gone"
    path.write_text(json.dumps(data))
    assert "gone is no longer in the book" in python(USE.format(path=str(path))).stderr


def test_what_later_chapters_do_not_use_is_not_adopted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not use"):
        adopt(tmp_path / "a.json", "1.1", (Part("f", PART.checks, ""),), MINE)
