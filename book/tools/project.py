"""What the tools share: where things lie, and what pyproject.toml says.

Every function takes the root of the tree it works on, so that a test can point a tool at a
temporary one; `ROOT` is the root of the tree that this file lies in.
"""

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def _project_table(root: Path) -> dict[str, Any]:
    """Return the [project] table of root/pyproject.toml."""
    with (root / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def package_version(root: Path) -> str:
    """Return the version of the package, such as "0.1.0"."""
    return str(_project_table(root)["version"])


def repository_url(root: Path) -> str:
    """Return the address of the repository, without a slash at its end."""
    return str(_project_table(root)["urls"]["Repository"]).rstrip("/")


def documentation_url(root: Path) -> str:
    """Return the address of the site, with one slash at its end."""
    return str(_project_table(root)["urls"]["Documentation"]).rstrip("/") + "/"


def chapter_paths(root: Path) -> list[Path]:
    """Return chapters/*.md in book order, which is the order of their file names."""
    return sorted((root / "chapters").glob("*.md"), key=lambda path: path.name)


def solution_paths(root: Path) -> list[Path]:
    """Return solutions/*.md in book order."""
    return sorted((root / "solutions").glob("*.md"), key=lambda path: path.name)


def relative(path: Path, root: Path) -> str:
    """Return path below root as messages and metadata name it: "chapters/01_tokenizer.md"."""
    return path.resolve().relative_to(root.resolve()).as_posix()


def write_if_changed(path: Path, text: str) -> bool:
    """Write text to path in one step, and only if path does not hold it; say whether it wrote.

    A reader sees the old file or the new one, never a part of it.
    """
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return True
