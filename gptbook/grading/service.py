"""Grades in a fresh process: ``python -m gptbook.grading.service``, JSON in and JSON out.

A notebook's kernel may have any state: a default dtype that was changed, a library's function that
was replaced. So :func:`gptbook.grading.notebook.grade` does not grade in it, and ``grade-all`` puts
each submission into a process of its own, so that no bad one stops the rest.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gptbook.grading.chapters import answer_files, load_chapter
from gptbook.grading.engine import DEFAULT_WORKERS, grade_submission
from gptbook.grading.part_grader import Setting
from gptbook.grading.report import Report
from gptbook.grading.submission import Submission


class ServiceError(RuntimeError):
    """The process that grades ended without a report, and said why."""


@dataclass(frozen=True)
class Request:
    """What to grade.

    Attributes:
        chapter: its number.
        only: one exercise, or None for all of the chapter.
        seed: from which inputs are drawn.
        submission: where the functions are.
        names: the name that a function has in the submission, where it is another one than the
            exercise asks for.
        workers: how many exercises are graded at a time.
    """

    chapter: int
    only: str | None
    seed: int
    submission: Submission
    names: Mapping[str, str] = field(default_factory=dict)
    workers: int = DEFAULT_WORKERS


def grade_here(request: Request) -> Report:
    """Grade in this process.

    Raises:
        ValueError: there is no such chapter or exercise.
        RunnerError: processes to grade in cannot be started.
    """
    chapter = load_chapter(request.chapter)
    exercises = chapter.select(request.only)
    folders = [Path.cwd(), *(Path(folder) for folder in request.submission.search_path)]
    setting = Setting(request.seed, answer_files(*folders))
    return grade_submission(exercises, request.submission, setting, request.names, request.workers)


def grade_elsewhere(request: Request) -> Report:
    """Grade in a process of its own.

    Raises:
        ServiceError: it ended without a report.
    """
    process = subprocess.run(
        [sys.executable, "-P", "-m", "gptbook.grading.service"],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        check=False,
    )
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise ServiceError(last[0])
    return Report.from_dict(json.loads(process.stdout))


def _request(data: Mapping[str, Any]) -> Request:
    parts = data["submission"]
    submission = Submission(parts["label"], tuple(parts["cells"]), tuple(parts["search_path"]))
    return Request(**{**data, "submission": submission})


def main() -> int:
    """Read a request from standard input, write the report to standard output."""
    request = _request(json.load(sys.stdin))
    try:
        report = grade_here(request)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(report.to_dict(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
