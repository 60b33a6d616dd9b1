"""The gates on stored notebooks: each planted fault fails its gate, and a clean book passes all.

Three gates look at a book: `execute.check` (are the notebooks what the sources give?), `verify`
(do they give the stored outputs again?) and `prose.check` (does the prose quote what was
recorded?).
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from book.tools import execute, prose, verify
from book.tools.notebooks import source_paths
from tests.small_book import cell, edit_stored, stored_path, write_chapter, write_package

PROSE = "The mean is 2.41<!--=mean:.2f-->."
CELLS = (
    cell("from gptbook.app.notebook import record\nfrom gptbook.sums import total"),
    cell("print(total([1, 2]))"),
    cell("record(mean=2.4137)"),
)


@pytest.fixture(scope="module")
def clean_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small executed book, for copies to be damaged."""
    root = tmp_path_factory.mktemp("book")
    write_package(root)
    (root / "gptbook" / "sums.py").write_text("def total(xs):\n    return sum(xs)\n")
    write_chapter(root, PROSE, *CELLS)
    assert execute.run(root, source_paths(root)) == 0
    return root


@pytest.fixture
def book(clean_book: Path, tmp_path: Path) -> Path:
    """Return a copy of the small book that the test may damage."""
    return shutil.copytree(clean_book, tmp_path / "book")


def failing_gates(root: Path) -> dict[str, list[str]]:
    """Return what each gate but nbval's says, for those that say anything."""
    found = {"execute": execute.check(root), "prose": prose.check(root)}
    return {gate: problems for gate, problems in found.items() if problems}


def code(notebook: Any, number: int) -> Any:
    """Return a stored notebook's code cell."""
    return [c for c in notebook["cells"] if c["cell_type"] == "code"][number - 1]


def unrun(notebook: Any) -> None:
    code(notebook, 2).update(execution_count=None, outputs=[])


def swap_counts(notebook: Any) -> None:
    code(notebook, 1)["execution_count"], code(notebook, 2)["execution_count"] = 2, 1


def store_error(notebook: Any) -> None:
    code(notebook, 2)["outputs"] = [
        {"output_type": "error", "ename": "KeyError", "evalue": "'k'", "traceback": []}
    ]


def edit_markdown(notebook: Any) -> None:
    notebook["cells"][0]["source"] = ["The mean is 2.42<!--=mean:.2f-->."]


def edit_code(notebook: Any) -> None:
    code(notebook, 2)["source"] = ["print(total([2, 2]))"]


def stale_hash(notebook: Any) -> None:
    notebook["metadata"]["gptbook"]["inputs"] = "0" * 64


def drop_metadata(notebook: Any) -> None:
    del notebook["metadata"]["gptbook"]


def add_tag(notebook: Any) -> None:
    code(notebook, 2)["metadata"]["tags"] = ["nbval-ignore-output"]


def test_a_clean_book_passes_all_gates(clean_book: Path) -> None:
    assert failing_gates(clean_book) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unrun, "code cell 2 was never run"),
        (swap_counts, "execution count 2"),
        (store_error, "code cell 2 failed with KeyError: 'k'"),
        (edit_markdown, r"cell 1 \(markdown"),
        (edit_code, r"cell 3 \(code, 'print"),
        (stale_hash, "changed after it was executed"),
        (drop_metadata, "changed after it was executed"),
        (add_tag, r"cell 3 \(code"),
    ],
)
def test_a_damaged_notebook_fails_the_execution_gate(
    book: Path, change: Callable[[Any], None], message: str
) -> None:
    edit_stored(stored_path(book), change)
    failing = failing_gates(book)
    assert set(failing) == {"execute"}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(failing["execute"]))
    assert all("make execute" in problem for problem in failing["execute"])


def test_a_cell_added_to_the_source_fails_the_execution_gate(book: Path) -> None:
    write_chapter(book, PROSE, *CELLS, cell("print('new')"))
    failing = failing_gates(book)
    assert set(failing) == {"execute"}
    assert "is not in its notebook" in failing["execute"][0]


def test_a_changed_module_fails_the_execution_gate(book: Path) -> None:
    with (book / "gptbook" / "sums.py").open("a") as file:
        file.write("# a comment\n")
    failing = failing_gates(book)
    assert set(failing) == {"execute"}
    assert "changed after it was executed" in failing["execute"][0]


def test_a_chapter_never_executed_or_without_cells_fails_the_execution_gate(book: Path) -> None:
    write_chapter(book, cell("1"), name="chapters/02_new.md")
    (book / "chapters" / "03_plain.md").write_text("# No header\n\n```python\n1\n```\n")
    problems = execute.check(book)
    assert ["never executed" in problems[0], "no code cells" in problems[1]] == [True, True]
    assert len(problems) == 2


def test_a_wrong_number_fails_the_prose_gate(book: Path) -> None:
    write_chapter(book, PROSE.replace("2.41", "2.42"), *CELLS)
    assert execute.run(book, source_paths(book)) == 0  # gives the notebook the prose
    failing = failing_gates(book)
    assert set(failing) == {"prose"}
    assert "'2.42', but mean:.2f is '2.41'" in failing["prose"][0]


def test_nbval_sees_changed_skipped_and_random_outputs(
    book: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_chapter(book, cell("print('skipped')\n# NBVAL_SKIP"), name="chapters/02_skipped.md")
    write_chapter(book, cell("object()"), name="chapters/03_random.md")
    timed = cell("import time\nprint(time.time())", options=":tags: [nbval-ignore-output]\n\n")
    write_chapter(book, timed, name="chapters/04_timed.md")
    assert execute.run(book, source_paths(book)) == 0

    def change(notebook: Any) -> None:
        code(notebook, 2)["outputs"][0]["text"] = ["4\n"]

    edit_stored(stored_path(book), change)
    assert failing_gates(book) == {}
    problems = verify.verify(book, source_paths(book))
    assert [problem.split(" code")[0] for problem in problems] == [
        "chapters/01_small.md: 2 of 3",
        "chapters/02_skipped.md: 0 of 1",
        "chapters/03_random.md: 0 of 1",
    ]
    assert "reference_output" in capfd.readouterr().out


def test_nbval_accepts_a_clean_book_and_no_empty_one(clean_book: Path, tmp_path: Path) -> None:
    assert verify.verify(clean_book, source_paths(clean_book)) == []
    assert verify.verify(tmp_path, []) == ["there are no chapters: nothing was compared"]
    path = write_chapter(tmp_path, cell("1"))
    assert "never executed" in verify.verify(tmp_path, [path])[0]


def test_texts_of_another_python_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path)
    path = write_chapter(tmp_path, cell("print(3)", options=":tags: [python-text]\n\n"))
    assert execute.run(tmp_path, [path]) == 0

    def change(notebook: Any) -> None:
        code(notebook, 1)["outputs"][0]["text"] = ["4\n"]

    edit_stored(stored_path(tmp_path), change)
    assert "0 of 1" in verify.verify(tmp_path, [path])[0]

    def pretend(notebook: Any) -> None:
        notebook["metadata"]["gptbook"]["python"] = "3.0.0"

    edit_stored(stored_path(tmp_path), pretend)
    assert verify.verify(tmp_path, [path]) == []
    assert "outputs are of Python 3.0.0" in capsys.readouterr().out
