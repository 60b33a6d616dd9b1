"""A book of one chapter in a temporary tree, for the tests of the tools that run on books."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from book.tools.project import ROOT

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""


def cell(code: str, options: str = "") -> str:
    """Return a code cell as a chapter's source has it."""
    return f"```{{code-cell}} ipython3\n{options}{code}\n```\n"


def write_chapter(root: Path, *blocks: str, name: str = "chapters/01_small.md") -> Path:
    """Write a chapter of the given blocks (prose, or what `cell` returns) and return its path."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *blocks]), encoding="utf-8")
    return path


def write_package(root: Path) -> None:
    """Give the tree the parts of gptbook that a chapter needs to run."""
    for name in ("gptbook/__init__.py", "gptbook/app/notebook.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    (root / "gptbook" / "app" / "__init__.py").touch()


def stored_path(root: Path, name: str = "01_small") -> Path:
    """Return where the chapter's executed notebook lies."""
    return root / "book" / "notebooks" / "chapters" / f"{name}.ipynb"


def edit_stored(path: Path, change: Callable[[Any], object]) -> None:
    """Apply a change to a stored notebook's JSON, and write it in the executor's form."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
