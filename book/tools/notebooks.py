"""Sources (chapters/*.md, solutions/*.md) and the executed notebooks made of them.

An executed notebook is its source with outputs, under book/notebooks/, in one canonical form: the
same source and outputs give the same bytes. Its metadata names the source and the hash of its
inputs: the code cells, every file of the package that they import, directly or not, and the
recorded runs that they read. Markdown, tags and captions are no inputs: they change the page, not
the outputs.
"""

import ast
import hashlib
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from nbformat import NotebookNode

from book.tools.project import chapter_paths, relative, solution_paths

FORMAT = 1
"""Part of every hash: raise it when the executor's way of storing outputs changes."""

RECORDED_RUN = re.compile(r"""recorded_run\(["'](\w+)["']\)""")

LANGUAGE_INFO = {"name": "python", "pygments_lexer": "ipython3"}


@dataclass(frozen=True)
class Source:
    """One chapter or solution as written: its file and its cells without outputs."""

    root: Path
    path: Path
    notebook: NotebookNode

    @property
    def name(self) -> str:
        """The source as messages and metadata name it, such as "chapters/01_tokenizer.md"."""
        return relative(self.path, self.root)

    @property
    def stored_path(self) -> Path:
        """Where its executed notebook lies."""
        return notebooks_folder(self.root) / Path(self.name).with_suffix(".ipynb")

    @property
    def code(self) -> list[str]:
        """The sources of its code cells."""
        return [cell.source for cell in code_cells(self.notebook)]

    @cached_property
    def inputs(self) -> str:
        """The SHA-256 of its code cells, of the package's files, and of the runs that they read."""
        modules = [*imported_files(self.root, self.code), *recorded_runs(self.root, self.code)]
        inputs = {
            "format": FORMAT,
            "cells": self.code,
            "modules": {
                relative(path, self.root): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in modules
            },
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def line(self, number: int) -> int:
        """Return the line of the file at which code cell `number` (from 1) begins."""
        tokens = MarkdownIt("commonmark").parse(self.path.read_text(encoding="utf-8"))
        cells = [t for t in tokens if t.type == "fence" and t.info.startswith("{code-cell}")]
        position = cells[number - 1].map
        assert position is not None  # a fence is a block, and blocks have positions
        return position[0] + 1


def notebooks_folder(root: Path) -> Path:
    """Return the folder of the executed notebooks."""
    return root / "book" / "notebooks"


def source_paths(root: Path) -> list[Path]:
    """Return the files that are executed: the chapters, then the solutions."""
    return chapter_paths(root) + solution_paths(root)


def read_source(root: Path, path: Path) -> Source:
    """Read a jupytext MyST file."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst")
    return Source(root, path, notebook)


def read_stored(source: Source) -> NotebookNode | None:
    """Return the source's executed notebook, or None where none is stored.

    Raises:
        ValueError: if the file is not a notebook.
    """
    if not source.stored_path.is_file():
        return None
    try:
        notebook: NotebookNode = nbformat.read(  # type: ignore[no-untyped-call]
            source.stored_path, as_version=4
        )
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError) as error:
        name = relative(source.stored_path, source.root)
        raise ValueError(f"{name} is not a notebook ({error}): run `make execute`") from error
    return notebook


def leftover_notebooks(root: Path) -> list[Path]:
    """Return the executed notebooks whose source is gone."""
    expected = {
        notebooks_folder(root) / path.relative_to(root).with_suffix(".ipynb")
        for path in source_paths(root)
    }
    return sorted(set(notebooks_folder(root).rglob("*.ipynb")) - expected)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the notebook's code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook: NotebookNode) -> list[list[NotebookNode]]:
    """Return the outputs of each code cell."""
    return [cell.outputs for cell in code_cells(notebook)]


# ---- the hash of what a notebook's outputs depend on ----


def imported_files(root: Path, cells: Iterable[str]) -> list[Path]:
    """Return the files of gptbook that the cells import, directly or through other files of it.

    Found from the syntax tree, inside functions too; an import by a computed name is not seen.
    """
    transform = TransformerManager().transform_cell  # type: ignore[no-untyped-call]
    waiting = {name for cell in cells for name in _imported_names(transform(cell), package="")}
    found: set[Path] = set()
    while waiting:
        for path in set(_module_files(root, waiting.pop())) - found:
            found.add(path)
            package = ".".join(path.parent.relative_to(root).parts)
            waiting |= set(_imported_names(path.read_text(encoding="utf-8"), package))
    return sorted(found)


def recorded_runs(root: Path, code: Iterable[str]) -> list[Path]:
    """Return the files of the recorded runs that the code names in calls of `recorded_run`."""
    names = {name for source in code for name in RECORDED_RUN.findall(source)}
    paths = [root / "book" / "results" / f"{name}.json" for name in sorted(names)]
    return [path for path in paths if path.is_file()]


def _imported_names(code: str, package: str) -> Iterator[str]:
    """Yield the dotted names of gptbook that Python code inside `package` imports."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # the kernel names the error better, and such a cell imports nothing
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "gptbook")


def _module_files(root: Path, name: str) -> Iterator[Path]:
    """Yield the files that importing a dotted name runs: its packages' and its own."""
    folder = root
    for part in name.split("."):
        folder = folder / part
        for path in (folder / "__init__.py", folder.with_suffix(".py")):
            if path.is_file():
                yield path


# ---- the canonical form ----


def assemble(
    source: Source, outputs: Sequence[Sequence[NotebookNode]], python: str
) -> NotebookNode:
    """Return the executed notebook: the source's cells with one list of outputs per code cell.

    python is the version that ran them: some cells read the texts that come with it.
    """
    metadata = {k: v for k, v in source.notebook.metadata.items() if k != "jupytext"}
    metadata["language_info"] = LANGUAGE_INFO
    metadata["gptbook"] = {"source": source.name, "inputs": source.inputs, "python": python}
    remaining = iter(zip(range(1, len(outputs) + 1), outputs, strict=True))
    identifiers = _identifiers(source.notebook.cells)
    cells = []
    for cell, identifier in zip(source.notebook.cells, identifiers, strict=True):
        shown = {"id": identifier, "metadata": cell.metadata, "source": cell.source}
        if cell.cell_type == "code":
            number, cell_outputs = next(remaining)
            shown |= {"execution_count": number, "outputs": _normalized(cell_outputs, number)}
        cells.append({"cell_type": cell.cell_type, **shown})
    fields = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    notebook: NotebookNode = nbformat.from_dict(fields)  # type: ignore[no-untyped-call]
    return notebook


def notebook_text(notebook: NotebookNode) -> str:
    """Return the bytes of a notebook's file, as text."""
    text = nbformat.writes(notebook, version=4)  # type: ignore[no-untyped-call]
    return str(text).rstrip("\n") + "\n"


def _identifiers(cells: Iterable[NotebookNode]) -> list[str]:
    """Return an id for each cell, made from what it holds, so that it moves with the cell."""
    seen: Counter[str] = Counter()
    identifiers = []
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        identifiers.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return identifiers


def _normalized(outputs: Iterable[NotebookNode], number: int) -> list[dict[str, Any]]:
    """Return outputs without what changes from run to run.

    Neighboring streams are merged, standard output first: when a kernel flushes, and which of the
    two first, is chance.
    """
    result: list[dict[str, Any]] = []
    streams: dict[str, dict[str, Any]] = {}
    for output in outputs:
        if output.output_type == "stream":
            stream = {"output_type": "stream", "name": output.name, "text": ""}
            streams.setdefault(output.name, stream)["text"] += output.text
            continue
        result += [streams[name] for name in sorted(streams, reverse=True)]
        streams = {}
        fields = dict(output)
        if output.output_type == "execute_result":
            fields["execution_count"] = number
        result.append(fields)
    return result + [streams[name] for name in sorted(streams, reverse=True)]


# ---- what is wrong with a stored notebook ----


def problems(source: Source) -> list[str]:
    """Say what is wrong with the source's stored notebook, each with what to do; [] if nothing."""
    if not source.code or "kernelspec" not in source.notebook.metadata:
        return [
            f"{source.name}: it has no code cells or no kernel. Give it a full jupytext header, "
            "and begin its cells with ```{code-cell} ipython3."
        ]
    try:
        stored = read_stored(source)
    except ValueError as error:
        return [str(error)]
    if stored is None:
        return [f"{source.name}: it was never executed. Run `make execute`."]
    found = [*_input_problems(source, stored), *_output_problems(source, stored)]
    found = found or [*_hash_problems(source, stored)]
    if not found and _text_differs(source, stored):
        found = ["its notebook is not in the form that the executor writes. Run `make execute`."]
    return [f"{source.name}: {problem}" for problem in found]


def is_current(source: Source, stored: NotebookNode) -> bool:
    """Say whether the stored outputs belong to the source and to the package as they are now."""
    same_code = [cell.source for cell in code_cells(stored)] == source.code
    same_inputs = same_code and not any(_hash_problems(source, stored))
    return same_inputs and not any(_output_problems(source, stored))


def _hash_problems(source: Source, stored: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the recorded source and hash, where the cells' code is the same."""
    recorded = stored.metadata.get("gptbook", {})
    if recorded.get("source") != source.name:
        yield f"its notebook was made from {recorded.get('source')}. Run `make execute`."
    if recorded.get("inputs") != source.inputs:
        yield "modules or runs that it reads changed after it was executed. Run `make execute`."


def _input_problems(source: Source, stored: NotebookNode) -> Iterator[str]:
    """Yield the first difference between the inputs of the source and of the stored notebook."""
    pairs = zip_longest(source.notebook.cells, stored.cells)
    for number, (ours, theirs) in enumerate(pairs, start=1):
        if theirs is None:
            yield f"cell {number} ({_excerpt(ours)}) is not in its notebook. Run `make execute`."
        elif ours is None:
            yield f"its notebook has a further cell ({_excerpt(theirs)}). Run `make execute`."
        elif any(ours[key] != theirs[key] for key in ("cell_type", "source", "metadata")):
            yield f"cell {number} ({_excerpt(ours)}) differs in its notebook. Run `make execute`."
        else:
            continue
        return


def _excerpt(cell: NotebookNode) -> str:
    """Return a few words by which an author finds a cell."""
    first_line = (cell.source.strip().splitlines() or [""])[0]
    return f"{cell.cell_type}, {textwrap.shorten(first_line, 40)!r}"


def _output_problems(source: Source, stored: NotebookNode) -> Iterator[str]:
    """Yield code cells that did not run, ran out of order, or failed."""
    for number, cell in enumerate(code_cells(stored), start=1):
        if cell.execution_count is None:
            yield f"code cell {number} was never run. Run `make execute`."
        elif cell.execution_count != number:
            yield (
                f"code cell {number} has execution count {cell.execution_count}: the cells did "
                "not run once each, in order. Run `make execute`."
            )
        for output in cell.outputs:
            if output.output_type == "error":
                yield (
                    f"code cell {number} failed with {output.ename}: {output.evalue}. Fix it, or "
                    "catch the error in the cell and print it; then run `make execute`."
                )


def stored_python(stored: NotebookNode) -> str:
    """Return the version of Python that made the stored outputs."""
    return str(stored.metadata.get("gptbook", {}).get("python"))


def _text_differs(source: Source, stored: NotebookNode) -> bool:
    """Say whether the stored file differs from its canonical form."""
    expected = notebook_text(assemble(source, outputs_of(stored), stored_python(stored)))
    return source.stored_path.read_bytes() != expected.encode()
