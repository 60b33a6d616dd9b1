"""Read the chapters' code cells, know the line each stands on, and put changed ones back."""

import ast
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupytext.myst import MystMetadataParsingError, myst_to_notebook
from nbformat.validator import NotebookValidationError

from book.tools.project import chapter_paths, relative

_FENCE = re.compile(r" {0,3}(?P<marks>`{3,}|~{3,})(?P<info>.*)")
_NESTED_CELL = re.compile(r"[ \t>]*(`{3,}|~{3,})\{code-cell\}")
_LOOSE_TAGS = re.compile(r":?tags:\s*[^\[\s]")
# Magics hide in these places: a line that starts with one, or the right side of an assignment.
_MAGIC_LINE = re.compile(r"\s*([%!?]|[\w.]+\?+\s*$)")
_MAGIC_VALUE = re.compile(r"\s*[\w, ]+=\s*[%!]")


class ExportError(ValueError):
    """The chapters and the package cannot be carried into each other; says where and why."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Cell:
    """A code cell of a chapter; a whole module is taken apart as a cell with the number 0."""

    chapter: str  # "chapters/01_tokenizer.md"
    number: int  # counts the chapter's code cells from 1, as Jupyter does when it runs them
    fence: int  # the line in the chapter of the opening fence, from 1
    line: int  # the line in the chapter of the first line of the source, from 1
    source: str  # without a newline at its end
    module: str  # "gptbook/tokenizer.py", or "" for a cell that is not exported

    def where(self, line: int = 1) -> str:
        """Return how a message names a line of the source, counted from 1."""
        place = f"{self.chapter}:{self.line + line - 1}"
        return f"{place}: cell {self.number}" if self.number else place

    @property
    def lines(self) -> list[str]:
        """The lines of the source."""
        return self.source.split("\n") if self.source else []


@dataclass(frozen=True)
class Chapter:
    """A chapter: its name ("chapters/01_tokenizer.md"), its text, and its code cells."""

    name: str
    text: str
    cells: tuple[Cell, ...]


def read_chapters(root: Path) -> list[Chapter]:
    """Return the chapters below root in book order.

    Raises:
        ExportError: a cell cannot be read exactly, or its export metadata is wrong.
    """
    chapters, problems = [], []
    for path in chapter_paths(root):
        try:
            chapters.append(parse_chapter(relative(path, root), path.read_bytes().decode("utf-8")))
        except ExportError as error:
            problems += error.problems
    if problems:
        raise ExportError(problems)
    return chapters


def parse_chapter(name: str, text: str) -> Chapter:
    """Return the chapter that text holds; raises ExportError as `read_chapters` does."""
    if "\r" in text:
        raise ExportError([f"{name}: has carriage returns; save it with Unix line ends"])
    lines = text.split("\n")
    try:
        notebook = myst_to_notebook(text, add_source_map=True)
    except MystMetadataParsingError as error:
        raise ExportError([f"{name}: {error}"]) from error
    except NotebookValidationError as error:
        line = next((n for n, each in enumerate(lines, start=1) if _LOOSE_TAGS.match(each)), 1)
        what = f"{str(error).splitlines()[0]}; write tags as a list, such as `:tags: [export]`"
        raise ExportError([f"{name}:{line}: {what}"]) from error
    cells: list[Cell] = []
    problems: list[str] = []
    for node, start in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
        if node.cell_type == "code":
            cell = _locate(name, len(cells) + 1, lines, start, node.source)
            module, found = _export_target(node.metadata)
            problems += [f"{cell.where()}: {problem}" for problem in found]
            cells.append(Cell(name, cell.number, cell.fence, cell.line, cell.source, module))
    problems += _nested_cells(name, lines, cells)
    if problems:
        raise ExportError(problems)
    return Chapter(name, text, tuple(cells))


def _locate(name: str, number: int, lines: list[str], start: int, source: str) -> Cell:
    """Return the cell whose opening fence is line `start` (from 1) and whose source is given."""
    close = _closing_fence(lines, start)
    found = Cell(name, number, start, close - len(source.split("\n")) + 1, source, "")
    if not source:
        found = Cell(name, number, start, close + 1, source, "")
    exact = close < len(lines) and lines[found.line - 1 : close] == found.lines
    if not exact or lines[start - 1].startswith(" "):
        raise ExportError(
            [
                f"{name}:{start}: cell {number}: jupytext does not read this cell as it is written."
                " Close its fence, start it at the left margin, end it without a blank line, and"
                " write unusual line ends (form feed, U+0085, U+2028, U+2029) as escapes"
            ]
        )
    return found


def _closing_fence(lines: list[str], start: int) -> int:
    """Return the index of the line that closes the fence opened on line `start` (from 1)."""
    opening = _FENCE.fullmatch(lines[start - 1])
    marks = opening["marks"] if opening else "```"
    for index in range(start, len(lines)):
        closing = _FENCE.fullmatch(lines[index])
        if closing and closing["marks"].startswith(marks) and not closing["info"].strip():
            return index
    return len(lines)


def _export_target(metadata: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the module that a cell's metadata export it to ("" for none), and what is wrong."""
    module = metadata.get("module")
    if "export" not in metadata.get("tags", []):
        if module is None:
            return "", []
        return "", [f"names module {module!r} without the tag `export`; add `:tags: [export]`"]
    if module is None:
        return "", ["has the tag `export` without a module; add `:module: gptbook/NAME.py`"]
    if not _is_module_path(module):
        return "", [
            f"exports to {module!r}; write gptbook/NAME.py with a plain lower-case NAME,"
            " not __init__ and not in gptbook/app/ or gptbook/grading/, which are ordinary code"
        ]
    return str(module), []


def _is_module_path(module: object) -> bool:
    """Whether module is the path of a file that cells may be exported to."""
    if not isinstance(module, str) or not module.startswith("gptbook/"):
        return False
    names = module.removeprefix("gptbook/").removesuffix(".py").split("/")
    return (
        module.endswith(".py")
        and names[0] not in ("app", "grading")
        and all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
        and not any(keyword.iskeyword(name) for name in names)
    )


def _nested_cells(name: str, lines: list[str], cells: list[Cell]) -> Iterator[str]:
    """Yield a problem for each code cell inside another block: no notebook would show it."""
    inside = {n for cell in cells for n in range(cell.fence, cell.line + len(cell.lines))}
    for number, line in enumerate(lines, start=1):
        if number not in inside and _NESTED_CELL.match(line):
            yield (
                f"{name}:{number}: this code cell is nested in a list or another block, so no"
                " notebook has it; start it at the left margin, outside any other fence"
            )


def replace_sources(chapter: Chapter, sources: Mapping[int, str | None]) -> str:
    """Return the chapter's text with new sources for the cells numbered in `sources`.

    None removes a cell, its fences and the blank lines below it.
    """
    lines = chapter.text.split("\n")
    for cell in reversed(chapter.cells):
        if cell.number not in sources:
            continue
        source = sources[cell.number]
        close = cell.line - 1 + len(cell.lines)
        if source is None:
            while close + 1 < len(lines) - 1 and not lines[close + 1]:
                close += 1
            del lines[cell.fence - 1 : close + 1]
            continue
        marks = _fence_marks(lines[cell.fence - 1], source)
        lines[close] = marks
        lines[cell.line - 1 : close] = source.split("\n")
        opening = lines[cell.fence - 1]
        lines[cell.fence - 1] = marks + opening.lstrip(marks[0])
    return "\n".join(lines)


def _fence_marks(opening: str, source: str) -> str:
    """Return fence marks as long as opening's, or longer where source holds such marks itself."""
    mark, length = opening[0], len(opening) - len(opening.lstrip(opening[0]))
    runs = re.findall(rf"^\s*({re.escape(mark)}+)", source, flags=re.MULTILINE)
    return mark * max([length, *(len(run) + 1 for run in runs)])


def parse_source(cell: Cell) -> ast.Module:
    """Return the syntax tree of a cell.

    Raises:
        ExportError: it is not Python, or it holds an IPython magic.
    """
    try:
        tree = ast.parse(cell.source)
        compile(cell.source, cell.chapter, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        text = cell.lines[line - 1] if line <= len(cell.lines) else ""
        what = f"syntax error: {getattr(error, 'msg', error)}"
        if is_magic(text):
            what = f"`{text.strip()}` is a magic, which a module cannot hold; use a plain cell"
        raise ExportError([f"{cell.where(line)}: {what}"]) from error
    return tree


def is_magic(line: str) -> bool:
    """Whether a line that is not Python is an IPython magic, shell or help line."""
    return bool(_MAGIC_LINE.match(line) or _MAGIC_VALUE.match(line))


def parse_plain_source(cell: Cell) -> ast.Module:
    """Return the syntax tree of any cell, with its magics taken out; raises as `parse_source`."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        pass
    lines = cell.lines
    if lines[0].startswith("%%") and not re.match(r"%%(time|timeit|capture|prun)\b", lines[0]):
        return ast.Module(body=[], type_ignores=[])  # another language
    plain = [re.sub(r"\S.*", "pass", line) if is_magic(line) else line for line in lines]
    try:
        return ast.parse("\n".join(plain))
    except SyntaxError as error:
        where = cell.where(error.lineno or 1)
        raise ExportError([f"{where}: syntax error: {error.msg}"]) from error
