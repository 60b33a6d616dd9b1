"""Grading from a notebook, as IPython runs it, and from files in three forms."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from gptbook.grading.report import Report
from gptbook.grading.submission import SubmissionError, read_submission

SOLUTION = """\
def encode_piece(piece, merges):
    tokens = list(piece)
    for new, pair in enumerate(numbered(merges), start=256):
        place = 0
        while place < len(tokens) - 1:
            if (tokens[place], tokens[place + 1]) == pair:
                tokens[place : place + 2] = [new]
            place += 1
    return tokens
"""
HELPER = """\
def numbered(merges):
    ids = {bytes([byte]): byte for byte in range(256)}
    for new, (left, right) in enumerate(merges, start=256):
        yield ids[left], ids[right]
        ids[left + right] = new
"""
MYST = """\
---
kernelspec:
  display_name: Python 3
  name: python3
---

# Mine

```{code-cell} ipython3
%s
```

```{code-cell} ipython3
:tags: [mine]

%s
```
"""


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    started = InteractiveShell.instance()
    started.reset(new_session=True)  # type: ignore[no-untyped-call]
    yield started
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> object:
    result = shell.run_cell(cell, store_history=True)  # type: ignore[no-untyped-call]
    result.raise_error()
    return result.result


def test_a_cells_function_is_graded_with_its_helpers(shell: InteractiveShell) -> None:
    run(shell, "from gptbook.grading import grade, hint")
    run(shell, SOLUTION)
    run(shell, "%precision 3\nboom = 1 / 3")
    run(shell, HELPER)
    report = run(shell, 'grade("1.2", encode_piece, seed=4)')
    assert isinstance(report, Report)
    assert report.score == report.points == 8
    assert report.summary.startswith("Chapter 1 so far: 8 of 50 points; not graded yet: 1.1, 1.3")


def test_what_the_session_patched_does_not_reach_the_grader(shell: InteractiveShell) -> None:
    run(shell, "import json, numpy\nfrom gptbook.grading import grade")
    run(shell, "import gptbook.grading.compare as compare\ncompare.difference = print")
    try:
        run(shell, "def mine(piece, merges): return [0]")
        report = run(shell, 'grade("1.2", mine, seed=4)')
        assert isinstance(report, Report)
        assert report.score == 1, "a list of int, and all of it wrong"
    finally:
        run(shell, "import importlib; importlib.reload(compare)")


def test_a_function_that_cannot_be_found_is_refused_with_what_to_do(
    shell: InteractiveShell,
) -> None:
    run(shell, "from gptbook.grading import grade")
    for call in ('grade("1.2", lambda piece, merges: [])', 'grade("1.2", [].append)'):
        with pytest.raises(SubmissionError, match="write it with def"):
            run(shell, call)
    with pytest.raises(TypeError, match="needs a function"):
        run(shell, 'grade("1.2", 3)')
    with pytest.raises(ValueError, match=r"write grade\(\"1.2\", encode_piece\)"):
        run(shell, 'grade("1.2")')
    with pytest.raises(ValueError, match=r"has no exercise '1.9'"):
        run(shell, 'grade("1.9", print)')
    with pytest.raises(ValueError, match="named by a string"):
        run(shell, 'grade("one", print)')
    with pytest.raises(ValueError, match="named by a string"):
        run(shell, "grade(print)")
    run(shell, "import gptbook.bpe_training as theirs")
    with pytest.raises(SubmissionError, match="learn_merges is the book's own"):
        run(shell, 'grade("1.1", theirs.learn_merges)')


def test_hints_are_printed_one_at_a_time(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "from gptbook.grading import hint\nhint('1.2')\nhint('1.2', 2)")
    printed = capsys.readouterr().out
    assert "Hint 1 of 3: Turn" in printed
    assert "Hint 2 of 3" in printed
    with pytest.raises(ValueError, match="hints 1 to 3, got 4"):
        run(shell, "hint('1.2', 4)")


def test_three_forms_of_a_file_have_the_same_cells(tmp_path: Path) -> None:
    cells = [HELPER.rstrip("\n"), SOLUTION.rstrip("\n")]
    (tmp_path / "a.md").write_text(MYST % tuple(cells))
    (tmp_path / "a.py").write_text("\n\n".join(cells))
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    (tmp_path / "a.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": "# Mine"}, *code]})
    )
    assert read_submission(tmp_path / "a.md").cells == tuple(cells)
    assert read_submission(tmp_path / "a.ipynb").cells == tuple(cells)
    assert read_submission(tmp_path / "a.py").cells == ("\n\n".join(cells),)


@pytest.mark.parametrize(
    ("name", "text"), [("a.ipynb", "{"), ("a.ipynb", "[]"), ("a.ipynb", '{"cells": [{}]}')]
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SubmissionError, match=r"cannot be read as \.ipynb"):
        read_submission(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOLUTION, encoding="utf-8-sig")
    assert read_submission(tmp_path / "a.py").cells == (SOLUTION,)


def test_a_notebook_in_the_old_format_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    with pytest.raises(SubmissionError, match="open it in Jupyter and save it"):
        read_submission(tmp_path / "a.ipynb")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_submission(tmp_path / "none.md")
    (tmp_path / "a.txt").touch()
    with pytest.raises(SubmissionError, match=r"\.md, \.ipynb, \.py"):
        read_submission(tmp_path / "a.txt")
