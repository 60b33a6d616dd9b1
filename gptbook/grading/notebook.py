"""Grading from a notebook: ``grade("1.2", my_function)`` and ``hint("1.2")``."""

import secrets
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gptbook.grading.chapters import chapter_of, load_chapter
from gptbook.grading.report import Report
from gptbook.grading.service import Request, grade_elsewhere
from gptbook.grading.submission import Submission, from_function

SEEDS = 1_000_000
"""A seed that was not chosen is below this, so that it can be typed in again."""


class Session:
    """The scores that a notebook's reader got so far, for the line under the table."""

    def __init__(self) -> None:
        self._scores: dict[str, int] = {}

    def add(self, report: Report) -> str:
        """Note a report's scores; say what the chapter's are."""
        self._scores.update({item.name: item.score for item in report.exercises})
        number = chapter_of(report.exercises[0].name)
        chapter = load_chapter(number)
        score = sum(self._scores.get(item.name, 0) for item in chapter.exercises)
        points = sum(item.points for item in chapter.exercises)
        left = [item.name for item in chapter.exercises if item.name not in self._scores]
        rest = f"; not graded yet: {', '.join(left)}" if left else ""
        return f"Chapter {number} so far: {score} of {points} points{rest}"


_session = Session()


def grade(exercise: str, *functions: Callable[..., Any], seed: int | None = None) -> Report:
    """Grade one exercise's function, or its several functions in the exercise's order.

    Args:
        exercise: its number, such as ``"1.2"``.
        functions: functions that cells of this notebook define at their top level.
        seed: for the inputs; without one they are others each time.

    Returns:
        The report, which shows itself as a table.

    Raises:
        ValueError: there is no such exercise, or it has another number of functions.
        TypeError: what is given is not a function.
        SubmissionError: a function's source cannot be found.
    """
    number = chapter_of(exercise)
    (found,) = load_chapter(number).select(exercise)
    wanted = [part.function for part in found.parts]
    if len(functions) != len(wanted):
        raise ValueError(
            f"exercise {exercise} grades {len(wanted)} function(s), got {len(functions)}: write "
            f'grade("{exercise}", {", ".join(wanted)})'
        )
    taken = [from_function(function) for function in functions]
    cells = dict.fromkeys(cell for submission, _ in taken for cell in submission.cells)
    paths = dict.fromkeys(path for submission, _ in taken for path in submission.search_path)
    submission = taken[0][0]
    if any(other != submission for other, _ in taken):
        submission = Submission(submission.label, tuple(cells), tuple(paths))
    chosen = secrets.randbelow(SEEDS) if seed is None else seed
    names = dict(zip(wanted, (name for _, name in taken), strict=True))
    report = grade_elsewhere(Request(number, exercise, chosen, submission, names))
    return replace(report, summary=_session.add(report))


def hint(exercise: str, step: int = 1) -> None:
    """Print a step of an exercise's hint ladder.

    Args:
        exercise: its number, such as ``"1.2"``.
        step: counted from 1.

    Raises:
        ValueError: there is no such exercise or step.
    """
    print(textwrap.fill(hint_text(exercise, step), 88))


def hint_text(exercise: str, step: int) -> str:
    """A step of an exercise's hint ladder, with its place on it.

    Raises:
        ValueError: there is no such exercise or step.
    """
    (found,) = load_chapter(chapter_of(exercise)).select(exercise)
    if not 1 <= step <= len(found.hints):
        raise ValueError(f"exercise {exercise} has hints 1 to {len(found.hints)}, got {step}")
    return f"Hint {step} of {len(found.hints)}: {found.hints[step - 1]}"
