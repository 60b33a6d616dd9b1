"""Titles and hints of the exercises: generated from solutions/ by book/tools/exercises.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Statement:
    """What a solutions page says about an exercise, as far as the grader needs it.

    Attributes:
        title: as in its heading.
        points: as in its heading.
        hints: the ladder, first to last.
    """

    title: str
    points: int
    hints: tuple[str, ...]


def load_statements(source: str) -> dict[str, Statement]:
    """Statements by the exercise's number.

    Args:
        source: name of the solutions page without suffix, such as ``"01_tokenizer"``.

    Raises:
        ValueError: the generated file is missing.
    """
    path = files(__name__) / f"{source}.json"
    if not path.is_file():
        raise ValueError(f"no statements of {source}: run python -m book.tools.exercises")
    data: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Statement(item["title"], item["points"], tuple(item["hints"]))
        for name, item in data.items()
    }
