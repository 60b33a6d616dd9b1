"""Remember what the exporter wrote, to tell an edit in a module from one in its chapters.

The record lies in _build/export/. On a fresh clone there is none; there git's last commit tells
what the modules were.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from book.tools.project import write_if_changed


def remember(root: Path, texts: Mapping[str, str]) -> None:
    """Record that the modules ("gptbook/tokenizer.py") agree with the chapters as they are now."""
    for module, text in texts.items():
        write_if_changed(_record_path(root, module), text)


def known_texts(root: Path, module: str) -> list[str]:
    """Return the texts that a module is known to have had when it agreed with the chapters."""
    texts = []
    if _record_path(root, module).is_file():
        texts.append(_record_path(root, module).read_bytes().decode("utf-8"))
    committed = _committed_text(root, module)
    return texts if committed is None else [*texts, committed]


def _record_path(root: Path, module: str) -> Path:
    """Return where the last export of a module is kept."""
    return root / "_build" / "export" / module


def _committed_text(root: Path, path: str) -> str | None:
    """Return path as git's last commit has it, or None where there is no such thing."""
    command = ["git", "show", f"HEAD:./{path}"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.decode("utf-8") if done.returncode == 0 else None
