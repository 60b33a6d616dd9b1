"""Running a chapter from the shell: ``gptbook run 7 --mine``."""

import re
import tempfile
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


def chapter_headings(folder: Path, number: int) -> list[str]:
    """Headings of all pages of a chapter.

    Raises:
        FileNotFoundError: the folder has none.
    """
    pages = find_notebook(folder, number)
    return [line for page in pages for line in headings(page.read_text(encoding="utf-8"))]


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
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = jupytext.read(path)
    if mine:
        first = nbformat.v4.new_code_cell(_USE_MINE)  # type: ignore[no-untyped-call]
        notebook.cells.insert(0, first)
    manager = AsyncKernelManager(
        kernel_name="python3",
        # No folder of kernel specifications: "python3" is then the Python that runs this.
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        transport="ipc",  # sockets that only this user can open
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        with tempfile.TemporaryDirectory(prefix="gptbook-run-") as sockets:
            manager.connection_file = str(Path(sockets) / "kernel.json")
            yield from _run_cells(client)
    except CellExecutionError as error:
        raise ValueError(f"a cell of {path} failed: {error.ename}: {error.evalue}") from error
    finally:
        output.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, output)  # type: ignore[no-untyped-call]


def _run_cells(client: Any) -> Iterator[str]:
    with client.setup_kernel():
        for index, cell in enumerate(client.nb.cells):
            if cell.cell_type == "code":
                client.execute_cell(cell, index)
                yield from filter(None, map(_text, cell.outputs))


def _text(output: Any) -> str:
    """What a terminal can show of an output; of a figure, nothing."""
    if output.output_type == "stream":
        return str(output.text).rstrip("\n")
    data = output.get("data", {})
    if any(form.startswith("image/") for form in data):
        return ""
    return str(data.get("text/plain", ""))
