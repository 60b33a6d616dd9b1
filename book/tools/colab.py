"""Make the notebooks that Colab opens: book/colab/, from the sources, without outputs.

Colab and plain Jupyter show MyST as it is written, so it is lowered to Markdown first. A notebook
begins with its title, a link to its page and a cell that installs the package in the same version.

    python -m book.tools.colab [--check]
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

from book.tools.book_index import (
    NOTEBOOK_FOLDERS,
    BookIndex,
    Numbers,
    chapter_number,
    located_cells,
    read_index,
)
from book.tools.lowering import Lowering, leftovers
from book.tools.myst import MystError, in_file
from book.tools.notebooks import notebook_text
from book.tools.project import (
    ROOT,
    documentation_url,
    package_version,
    relative,
    repository_url,
    write_if_changed,
)

COLAB = "https://colab.research.google.com/github/"
HIDDEN = frozenset(["hide-cell", "hide-input", "remove-cell", "remove-input"])


def colab_folder_url(root: Path) -> str:
    """Return the address under which Colab opens what lies in book/colab/."""
    repository = repository_url(root).removeprefix("https://github.com/")
    return f"{COLAB}{repository}/blob/main/book/colab"


def wheel_name(root: Path) -> str:
    """Return the file name of the package's wheel."""
    return f"gptbook-{package_version(root)}-py3-none-any.whl"


def colab_notebooks(root: Path) -> dict[Path, str]:
    """Return the text of every notebook of book/colab/ by its path.

    Raises:
        MystError: the message names the file and the line.
    """
    index = read_index(root)
    notebooks = {}
    for folder in NOTEBOOK_FOLDERS:
        numbers = Numbers("")
        for path in sorted((root / folder).glob("*.md")):
            numbers = numbers.next_page(chapter_number(path) if folder == "chapters" else "")
            target = (root / "book" / "colab" / relative(path, root)).with_suffix(".ipynb")
            notebooks[target] = colab_notebook(root, path, index, numbers)
    return notebooks


def colab_notebook(root: Path, path: Path, index: BookIndex, numbers: Numbers) -> str:
    """Return the text of the notebook made from the source at path."""
    source = relative(path, root)
    lowering = Lowering(index, source.removesuffix(".md"), numbers)
    with in_file(source):
        cells = [*lowered_cells(root, path, lowering)]
        cells = [*opening_cells(root, lowering.page, cells[0]), *cells[1:]]
    for number, cell in enumerate(cells, start=1):
        cell["id"] = f"cell-{number}"
    fields = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "colab": {"provenance": [], "toc_visible": True},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": cells,
    }
    return notebook_text(nbformat.from_dict(fields))  # type: ignore[no-untyped-call]


def markdown_cell(source: str) -> dict[str, Any]:
    """Return a Markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code_cell(source: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a code cell without outputs."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": [],
        "source": source,
    }


def lowered_cells(root: Path, path: Path, lowering: Lowering) -> Iterator[dict[str, Any]]:
    """Yield the cells of the source at path; the caption of a figure follows its cell."""
    for cell, line in located_cells(root, path):
        if cell.cell_type == "markdown":
            if lowered := lowering.blocks(cell.source, line).strip("\n"):
                if raw := leftovers(lowered):
                    raise MystError(f"{raw[0]!r} would be left in Colab: lowering.py", line)
                yield markdown_cell(re.sub(r"\n{3,}", "\n\n", lowered))
            continue
        yield code_cell(shown_code(cell), shown_metadata(cell))
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure is not None:
            yield markdown_cell(lowering.figure_caption(figure.get("caption", ""), line))


def shown_code(cell: Any) -> str:
    """Return a cell's code; one that is exported says to where."""
    if "export" in cell.metadata.get("tags", []):
        return f"# This cell is a part of {cell.metadata['module']}.\n{cell.source}"
    return str(cell.source)


def shown_metadata(cell: Any) -> dict[str, Any]:
    """Return what Colab and Jupyter use of a cell's metadata: whether its code is folded."""
    if HIDDEN.isdisjoint(cell.metadata.get("tags", [])):
        return {}
    return {"cellView": "form", "jupyter": {"source_hidden": True}}


def opening_cells(root: Path, page: str, first: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the title, the cell that installs the package, and the rest of the first cell."""
    title, _, rest = first["source"].partition("\n")
    if first["cell_type"] != "markdown" or not title.startswith("# "):
        raise MystError("a notebook begins with its title: # Title", 1)
    site = documentation_url(root)
    read = (
        f"A page of [gptbook]({site}). Read it [with all outputs]({site}{page}.html), or run it "
        "here: the first cell installs the package."
    )
    install = f'%pip install -q "gptbook[interop,notebook] @ {site}wheels/{wheel_name(root)}"'
    cells = [markdown_cell(f"{title}\n\n{read}"), code_cell(install, {})]
    return [*cells, markdown_cell(rest.strip("\n"))] if rest.strip() else cells


def stale_paths(root: Path, notebooks: dict[Path, str]) -> list[Path]:
    """Return the notebooks of book/colab/ that have no source."""
    return sorted(set((root / "book" / "colab").rglob("*.ipynb")) - set(notebooks))


def write(root: Path) -> list[str]:
    """Bring book/colab/ up to date; return what was done, a line for each file that changed."""
    notebooks = colab_notebooks(root)
    done = [
        f"wrote {relative(path, root)}"
        for path, text in notebooks.items()
        if write_if_changed(path, text)
    ]
    for path in stale_paths(root, notebooks):
        path.unlink()
        done.append(f"removed {relative(path, root)}")
    return done


def problems(root: Path) -> list[str]:
    """Return what is not up to date in book/colab/, a sentence each."""
    notebooks = colab_notebooks(root)
    found = []
    for path, text in notebooks.items():
        if not path.is_file():
            found.append(f"{relative(path, root)} is missing")
        elif path.read_bytes() != text.encode("utf-8"):
            found.append(f"{relative(path, root)} differs from what its source gives")
    return found + [
        f"{relative(path, root)} has no source" for path in stale_paths(root, notebooks)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Write book/colab/, or with --check compare it with its sources."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.colab", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if not current")
    options = parser.parse_args(argv)
    try:
        lines = problems(ROOT) if options.check else write(ROOT)
    except MystError as error:
        print(f"The Colab notebooks were not made: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines) or "The Colab notebooks are current.")
    if options.check and lines:
        print("Run `python -m book.tools.colab` and commit book/colab/.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
