"""Running a chapter from the shell: ``gptbook run 7 --mine``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_USE_MINE = "from gptbook.grading import use_mine\n\nuse_mine()"
CELL_SECONDS = 600


def find_notebook(folder: Path, number: int) -> list[Path]:
    """The notebooks of a chapter in a folder, in book order.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(folder.glob(f"{number:02d}_*.md"))
    if not found:
        raise FileNotFoundError(
            f"no chapter {number} in {folder}: run this in a copy of the book, or say --folder"
        )
    return found


def headings(text: str) -> list[str]:
    """Headings of a chapter's source, outside of its code cells."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+\s+(.*?)\s*$", prose, flags=re.MULTILINE)


def run_notebook(path: Path, mine: bool, output: Path) -> Iterator[str]:
    """Execute a notebook and save it with its outputs; yield what its cells print.

    Args:
        path: the notebook in jupytext's MyST form.
        mine: use the reader's adopted functions in place of the book's.
        output: where the executed notebook goes.

    Raises:
        ValueError: a cell failed; the notebook is saved up to it.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = jupytext.read(path)
    if mine:
        first = nbformat.v4.new_code_cell(_USE_MINE)  # type: ignore[no-untyped-call]
        notebook.cells.insert(0, first)
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(path.parent)}}
    )
    try:
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    client.execute_cell(cell, index)
                    yield from (_text(item) for item in cell.outputs)
    except CellExecutionError as error:
        raise ValueError(f"a cell of {path} failed: {error.ename}: {error.evalue}") from error
    finally:
        output.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, output)  # type: ignore[no-untyped-call]


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text).rstrip("\n")
    return str(output.get("data", {}).get("text/plain", ""))
