"""Make exercises/ from solutions/: the same pages with stubs in place of solutions.

    python -m book.tools.exercises [--check]

A solutions page has a title such as `# Solutions: the tokenizer`. An exercise begins with a heading
such as `## 1.1 Training (10 points)`; its hints are dropdowns named `Hint 1`, `Hint 2` and so on;
cells tagged `solution` hold what a reader is to find. Of a code cell with that tag the graded
functions stay, as stubs that raise NotImplementedError; a Markdown cell with it goes. Titles,
points and hints are also written to gptbook/grading/statements/, where the installed package finds
them.
"""

import argparse
import ast
import copy
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from book.tools.project import ROOT, relative, solution_paths, write_if_changed

TITLE = re.compile(r"^# Solutions: ", re.MULTILINE)
HEADING = re.compile(r"^## (\d+\.\d+) (.+) \((\d+) points?\)$", re.MULTILINE)
HINT = re.compile(r"^```\{dropdown\} Hint (\d+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GRADE_CALL = re.compile(r'^grade\("\d+\.\d+", (.+?)\)$', re.MULTILINE)
STUB = "raise NotImplementedError"


class ExerciseError(ValueError):
    """A solutions page that is not of the form that exercises are made from."""


def exercise_notebook(notebook: NotebookNode, graded: set[str]) -> NotebookNode:
    """Return a copy of a solutions notebook with stubs in place of solutions.

    Args:
        notebook: the solutions.
        graded: names of the functions that a reader writes.

    Raises:
        ExerciseError: a solution cell defines none of them.
    """
    made = copy.deepcopy(notebook)
    cells = []
    for cell in made.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            cell.source = TITLE.sub("# Exercises: ", cell.source, count=1)
        elif "solution" in tags:
            cell.source = stub(cell.source, graded)
            cell.metadata.tags = [tag for tag in tags if tag != "solution"]
        if "solution" not in tags or cell.cell_type == "code":
            cells.append(cell)
    made.cells = cells
    return made


def stub(source: str, graded: set[str]) -> str:
    """Return the graded functions of a cell without their bodies, and the imports they need.

    Raises:
        ExerciseError: there is none.
    """
    tree = ast.parse(source)
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in graded
    ]
    if not functions:
        raise ExerciseError(f"a solution cell defines no graded function: {source[:60]!r}")
    needed = {
        name.id
        for function in functions
        for part in (function.args, function.returns)
        if part is not None
        for name in ast.walk(part)
        if isinstance(name, ast.Name)
    }
    imports = [line for node in tree.body for line in _import_of(node, needed)]
    bodies = [_signature(source, function) for function in functions]
    return "\n\n\n".join((["\n".join(imports)] if imports else []) + bodies)


def _import_of(node: ast.stmt, needed: set[str]) -> Iterator[str]:
    """An import statement, less the names that are not needed."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        node.names = [item for item in node.names if (item.asname or item.name) in needed]
        if node.names:
            yield ast.unparse(node)


def _signature(source: str, function: ast.FunctionDef) -> str:
    """A function's lines up to the end of its docstring, and a statement that raises."""
    first = function.body[0]
    if ast.get_docstring(function) is None or first.end_lineno is None:
        raise ExerciseError(f"{function.name} has no docstring to leave in its stub")
    lines = source.splitlines()[function.lineno - 1 : first.end_lineno]
    return "\n".join([*lines, f"    {STUB}"])


def statements(notebook: NotebookNode) -> dict[str, dict[str, Any]]:
    """Return title, points and hints of each exercise by its number.

    Raises:
        ExerciseError: hints are not numbered from 1, or stand before the first exercise.
    """
    found: dict[str, dict[str, Any]] = {}
    current: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        marks = [*HEADING.finditer(cell.source), *HINT.finditer(cell.source)]
        for mark in sorted(marks, key=lambda mark: mark.start()):
            if mark.re is HEADING:
                current = {"title": mark[2], "points": int(mark[3]), "hints": []}
                found[mark[1]] = current
            elif not current or int(mark[1]) != len(current["hints"]) + 1:
                raise ExerciseError(f"Hint {mark[1]} is out of place")
            else:
                current["hints"].append(" ".join(mark[2].split()))
    return found


def graded_functions(notebook: NotebookNode) -> set[str]:
    """Return the names that the notebook's `grade` calls pass."""
    calls = [
        call
        for cell in notebook.cells
        if cell.cell_type == "code"
        for call in GRADE_CALL.findall(cell.source)
    ]
    return {name.strip() for call in calls for name in call.split(",")}


def outputs(root: Path, source: Path) -> dict[Path, str]:
    """Return the text of every file that is made from a solutions page, by its path.

    Raises:
        ExerciseError: the message names the file.
    """
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="md:myst")
    try:
        data = json.dumps(statements(notebook), indent=2, ensure_ascii=False) + "\n"
        made = exercise_notebook(notebook, graded_functions(notebook))
    except (ExerciseError, SyntaxError) as error:
        raise ExerciseError(f"{relative(source, root)}: {error}") from error
    text: str = jupytext.writes(made, fmt="md:myst")
    note = f"# Generated from {relative(source, root)} by book.tools.exercises: edit that file.\n"
    return {
        root / "exercises" / source.name: text.replace("---\n", f"---\n{note}", 1),
        root / "gptbook" / "grading" / "statements" / f"{source.stem}.json": data,
    }


def leftovers(root: Path) -> list[Path]:
    """Return generated files whose source is gone."""
    stems = {path.stem for path in solution_paths(root)}
    made = [
        *(root / "exercises").glob("*.md"),
        *(root / "gptbook" / "grading" / "statements").glob("*.json"),
    ]
    return sorted(path for path in made if path.stem not in stems)


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is out of date, or with --check say what is; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.exercises", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    arguments = parser.parse_args(argv)
    try:
        return _check(ROOT) if arguments.check else _write(ROOT)
    except ExerciseError as error:
        print(f"exercises: {error}", file=sys.stderr)
        return 1


def _write(root: Path) -> int:
    for source in solution_paths(root):
        for path, text in outputs(root, source).items():
            word = "wrote" if write_if_changed(path, text) else "current:"
            print(f"exercises: {word} {relative(path, root)}")
    for path in leftovers(root):
        path.unlink()
        print(f"exercises: removed {relative(path, root)}, which has no source any more")
    return 0


def _check(root: Path) -> int:
    stale = [
        relative(path, root)
        for source in solution_paths(root)
        for path, text in outputs(root, source).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    stale += [relative(path, root) for path in leftovers(root)]
    for name in stale:
        print(f"exercises: {name} is out of date: run python -m book.tools.exercises")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
