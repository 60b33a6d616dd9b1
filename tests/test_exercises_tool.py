"""exercises/ is made from solutions/, and is current."""

from pathlib import Path

import jupytext
import pytest

from book.tools import exercises
from book.tools.exercises import ExerciseError, exercise_notebook, statements, stub

PAGE = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Solutions: a page

## 9.1 Adding (3 points)

Add.

```{dropdown} Hint 1
Use `+`,
of course.
```

```{code-cell} ipython3
:tags: [solution]

from collections.abc import Iterable, Mapping
import math


def add(numbers: Iterable[float]) -> float:
    \"\"\"Add numbers.

    Exactly.
    \"\"\"
    return helper(numbers)


def helper(numbers):
    return math.fsum(numbers)
```

+++ {"tags": ["solution"]}

The secret.

```{code-cell} ipython3
grade("9.1", add)
```
"""


def test_the_pages_of_this_tree_are_current() -> None:
    assert exercises.main(["--check"]) == 0


def test_solutions_become_stubs_and_secrets_go() -> None:
    notebook = jupytext.reads(PAGE, fmt="md:myst")
    made = exercise_notebook(notebook, exercises.graded_functions(notebook))
    sources = [cell.source for cell in made.cells]
    assert sources[0].startswith("# Exercises: a page")
    assert sources[1] == (
        "from collections.abc import Iterable\n\n\n"
        "def add(numbers: Iterable[float]) -> float:\n"
        '    """Add numbers.\n\n    Exactly.\n    """\n'
        "    raise NotImplementedError"
    )
    assert not any("secret" in source or "fsum" in source for source in sources)
    assert all(cell.metadata.get("tags", []) == [] for cell in made.cells)
    assert "solution" in notebook.cells[1].metadata["tags"], "the source is untouched"


def test_titles_points_and_hints_are_found() -> None:
    notebook = jupytext.reads(PAGE, fmt="md:myst")
    assert statements(notebook) == {
        "9.1": {"title": "Adding", "points": 3, "hints": ["Use `+`, of course."]}
    }


def test_hints_out_of_order_are_refused() -> None:
    with pytest.raises(ExerciseError, match="Hint 2 is out of place"):
        statements(jupytext.reads(PAGE.replace("Hint 1", "Hint 2"), fmt="md:myst"))


def test_a_solution_without_docstring_or_function_is_refused() -> None:
    with pytest.raises(ExerciseError, match="no docstring"):
        stub("def f():\n    return 1", {"f"})
    with pytest.raises(ExerciseError, match="no graded function"):
        stub("x = 1", {"f"})


def test_check_says_what_is_stale_and_writing_cures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "09_page.md").write_text(PAGE)
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "08_gone.md").touch()
    monkeypatch.setattr(exercises, "ROOT", tmp_path)
    assert exercises.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert "exercises/09_page.md is out of date" in printed
    assert "exercises/08_gone.md is out of date" in printed
    assert exercises.main([]) == 0
    assert exercises.main(["--check"]) == 0
    assert not (tmp_path / "exercises" / "08_gone.md").exists()
    text = (tmp_path / "exercises" / "09_page.md").read_text()
    assert "# Generated from solutions/09_page.md" in text
    assert "raise NotImplementedError" in text
