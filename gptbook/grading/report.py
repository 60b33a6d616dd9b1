"""What grading found: dataclasses, their JSON form, and a table as text."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

_MESSAGE_WIDTH = 96


class Status(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class CheckResult:
    """One row of the table.

    Attributes:
        exercise: number of the exercise, such as ``"1.2"``.
        function: the function that was called.
        name: the check's name.
        kind: the check's kind.
        points: what it is worth.
        score: what it got.
        status: see :class:`Status`.
        message: why it failed or was blocked; empty where it passed.
        mistake: the name of the mistake of the bank that was recognized, if one was.
        hint: the step of the hint ladder that helps; None where none does.
    """

    exercise: str
    function: str
    name: str
    kind: str
    points: int
    score: int
    status: Status
    message: str = ""
    mistake: str | None = None
    hint: int | None = 1


@dataclass(frozen=True)
class ExerciseReport:
    """The rows of one exercise.

    Attributes:
        name: number of the exercise.
        title: its title.
        checks: one result for each check, in order.
        hints: the whole ladder.
    """

    name: str
    title: str
    checks: tuple[CheckResult, ...]
    hints: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """What the exercise is worth."""
        return sum(check.points for check in self.checks)

    @property
    def score(self) -> int:
        """What it got."""
        return sum(check.score for check in self.checks)

    @property
    def messages(self) -> tuple[str, ...]:
        """The checks' messages for a table; why one was not run is left out below the same."""
        above = ("", *(check.message for check in self.checks))
        return tuple(
            "" if check.status is Status.BLOCKED and check.message == other else check.message
            for check, other in zip(self.checks, above, strict=False)
        )

    @property
    def hint(self) -> str | None:
        """The hint for the first check that failed, with its place on the ladder."""
        failed = [check for check in self.checks if check.status is Status.FAILED]
        step = failed[0].hint if failed else None
        if step is None or not self.hints:
            return None
        return f"{self.hints[step - 1]} (hint {step} of {len(self.hints)})"


@dataclass(frozen=True)
class Report:
    """What grading a submission found.

    Attributes:
        label: the submission.
        seed: from which all inputs were drawn; the same seed gives the same inputs.
        exercises: a report for each.
        summary: points of the whole chapter where they are known, for the last line.
    """

    label: str
    seed: int
    exercises: tuple[ExerciseReport, ...]
    summary: str = ""

    @property
    def points(self) -> int:
        """What all exercises together are worth."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def score(self) -> int:
        """What they got."""
        return sum(exercise.score for exercise in self.exercises)

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """The rows of all exercises."""
        return tuple(check for exercise in self.exercises for check in exercise.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON's types."""
        return {
            "label": self.label,
            "seed": self.seed,
            "score": self.score,
            "points": self.points,
            "exercises": [
                {
                    "name": exercise.name,
                    "title": exercise.title,
                    "score": exercise.score,
                    "points": exercise.points,
                    "hint": exercise.hint,
                    "hints": list(exercise.hints),
                }
                for exercise in self.exercises
            ],
            "checks": [asdict(check) for check in self.checks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a report from :meth:`to_dict`."""
        rows = [CheckResult(**{**row, "status": Status(row["status"])}) for row in data["checks"]]
        exercises = (
            ExerciseReport(
                item["name"],
                item["title"],
                tuple(row for row in rows if row.exercise == item["name"]),
                tuple(item["hints"]),
            )
            for item in data["exercises"]
        )
        return cls(data["label"], data["seed"], tuple(exercises))

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """The report as a table for a terminal."""
        blocks = ["\n".join(_exercise_lines(exercise)) for exercise in self.exercises]
        total = f"{self.label}: {self.score} of {self.points} points (seed {self.seed})"
        return "\n\n".join([*blocks, "\n".join(filter(None, [total, self.summary]))])

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        from gptbook.grading.html import to_html  # html.py needs this module's classes

        return to_html(self)


_MARKS = {Status.PASSED: "ok", Status.FAILED: "FAILED", Status.BLOCKED: "blocked"}


def _exercise_lines(exercise: ExerciseReport) -> Sequence[str]:
    lines = [f"{exercise.name} {exercise.title}: {exercise.score} of {exercise.points} points"]
    width = max((len(check.name) for check in exercise.checks), default=0)
    for check, message in zip(exercise.checks, exercise.messages, strict=True):
        points = f"{check.score}/{check.points}"
        lines.append(f"  {_MARKS[check.status]:<8}{check.name:<{width}}  {points:>6}")
        lines += _wrapped(message)
    if exercise.hint:
        lines += _wrapped(f"Hint: {exercise.hint}")
    return lines


def _wrapped(text: str) -> list[str]:
    indent = " " * 10
    return textwrap.wrap(
        text, _MESSAGE_WIDTH, initial_indent=indent, subsequent_indent=indent, tabsize=4
    )
