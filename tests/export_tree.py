"""Small books for the tests of the exporter: trees with chapters written from lists of cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.small_book import HEADER

PYPROJECT = """\
[project]
name = "gptbook"
version = "0.1.0"

[tool.ruff]
line-length = 100
target-version = "py311"
"""

CellSpec = tuple[str, str]  # the module, or "" for a plain cell, and the source


def cell_text(module: str, source: str, *, block_options: bool = False) -> str:
    """Return a code cell as a chapter has it."""
    fence = "`````" if "```" in source else "```"
    options = ""
    if module and block_options:
        options = f"---\ntags: [export]\nmodule: {module}\n---\n"
    elif module:
        options = f":tags: [export]\n:module: {module}\n\n"
    return f"{fence}{{code-cell}} ipython3\n{options}{source}\n{fence}\n"


def write_chapter(root: Path, name: str, cells: Sequence[CellSpec]) -> Path:
    """Write chapters/NAME.md: a sentence before each cell, every second cell with a --- block."""
    parts = [f"{HEADER}\n# A chapter\n"]
    for index, (module, source) in enumerate(cells):
        parts.append(f"\nHere is cell {index + 1}, with `f`.\n\n")
        parts.append(cell_text(module, source, block_options=index % 2 == 1))
    path = root / "chapters" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(parts), encoding="utf-8")
    return path


def make_book(root: Path, chapters: Mapping[str, Sequence[CellSpec]]) -> Path:
    """Make a tree with the chapters, and with a package that has ordinary code; return root."""
    (root / "pyproject.toml").write_text(PYPROJECT)
    for folder in ("app", "grading"):
        (root / "gptbook" / folder).mkdir(parents=True)
        (root / "gptbook" / folder / "__init__.py").write_text(f'"""The {folder}."""\n')
    (root / "gptbook" / "__init__.py").write_text('"""A package."""\n\n__version__ = "1"\n')
    for name, cells in chapters.items():
        write_chapter(root, name, cells)
    return root


def snapshot(root: Path) -> dict[str, bytes]:
    """Return every file of the chapters and the package, to see that nothing was written."""
    files = [*(root / "chapters").rglob("*"), *(root / "gptbook").rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}
