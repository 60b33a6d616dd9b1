"""Reading a submission: a notebook in jupytext or .ipynb form, a module, or a live session."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gptbook.grading.shortcuts import is_inside

SUFFIXES = (".md", ".ipynb", ".py")


class SubmissionError(ValueError):
    """A submission that cannot be read."""


@dataclass(frozen=True)
class Submission:
    """Code cells in the order in which they run.

    Attributes:
        label: what to call it in messages, usually a file's name.
        cells: Python source of each code cell.
        search_path: folders whose modules the cells may import.
    """

    label: str
    cells: tuple[str, ...]
    search_path: tuple[str, ...] = ()


def read_submission(path: Path) -> Submission:
    """Read the code cells of a file.

    Args:
        path: a MyST notebook (``.md``), a Jupyter notebook (``.ipynb``) or a module (``.py``).

    Raises:
        FileNotFoundError: there is no such file.
        SubmissionError: its suffix is another one, or its content is not a notebook.
    """
    readers: dict[str, Callable[[str], list[str]]] = {
        ".md": _cells_of_myst,
        ".ipynb": _cells_of_ipynb,
        ".py": lambda text: [text],
    }
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix not in readers:
        raise SubmissionError(f"{path}: expected a file that ends in one of {', '.join(SUFFIXES)}")
    try:
        cells = readers[path.suffix](path.read_text(encoding="utf-8-sig"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SubmissionError(f"{path} cannot be read as {path.suffix}: {error}") from error
    return Submission(path.name, tuple(cells), (str(path.resolve().parent),))


def _cells_of_ipynb(text: str) -> list[str]:
    notebook = json.loads(text)
    if notebook.get("nbformat", 4) < 4:
        raise ValueError("it has the format of 2014; open it in Jupyter and save it")
    cells = notebook["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _cells_of_myst(text: str) -> list[str]:
    try:
        import jupytext  # only .md files need these two, and Colab lacks the first
        import nbformat
    except ModuleNotFoundError as error:
        raise SubmissionError("reading an .md notebook needs jupytext: pip install jupytext") from (
            error
        )

    try:
        notebook = jupytext.reads(text, fmt="md:myst")
    except nbformat.ValidationError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def from_function(function: Callable[..., Any]) -> tuple[Submission, str]:
    """Take a function out of a running session, with the source of all that it may need.

    Args:
        function: defined in a cell of this notebook, or in a module.

    Returns:
        The submission, and the top-level name under which the function is found in it.

    Raises:
        TypeError: it is not a function.
        SubmissionError: its source is not at the top level of a cell or module.
    """
    if not callable(function):
        raise TypeError(f"grade needs a function, got {type(function).__name__}")
    module, name = _home(function)
    if is_inside(module.__name__, "gptbook"):
        raise SubmissionError(
            f"{module.__name__}.{name} is the book's own; grade a function that you wrote"
        )
    cells = _session_cells()
    if cells and module.__name__ == "__main__":
        return Submission("this notebook", tuple(cells), (str(Path.cwd()),)), name
    path = getattr(module, "__file__", None)
    if path is None:
        raise SubmissionError(f"the source of {name} is not known here; put it into a file")
    return read_submission(Path(path)), name


def _home(function: Callable[..., Any]) -> tuple[ModuleType, str]:
    """The module that holds a function, and the name by which it does."""
    own_name = getattr(function, "__name__", "")
    for module_name in ("__main__", getattr(function, "__module__", None) or "__main__"):
        namespace = vars(sys.modules[module_name])
        if namespace.get(own_name) is function:
            return sys.modules[module_name], own_name
        for name, value in list(namespace.items()):
            if value is function and not name.startswith("_"):  # IPython's _ holds results
                return sys.modules[module_name], name
    raise SubmissionError(
        "grade needs a function that a cell of this notebook defines at its top level; "
        "write it with def and pass it by its name"
    )


def _session_cells() -> list[str]:
    """Cells that ran so far in this IPython session, as they were typed, in order."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return [str(cell) for cell in shell.history_manager.input_hist_raw] if shell else []
