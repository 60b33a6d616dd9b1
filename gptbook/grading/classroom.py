"""Grading a folder of submissions: in parallel, resumable, one bad file never stopping the rest.

The folder that it writes holds, for each submission, ``results/ID/results.json`` in Gradescope's
form; and for all of them ``scores.csv`` (a row a submission) and ``checks.csv`` (a row a check: how
many passed, and which mistakes were recognized).
"""

import csv
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gptbook import __version__
from gptbook.grading.gradescope import failure_to_gradescope, to_gradescope
from gptbook.grading.report import Report
from gptbook.grading.service import Request, ServiceError, grade_elsewhere
from gptbook.grading.submission import SUFFIXES, read_submission

_CHAPTER = re.compile(r"(\d\d)_")


@dataclass(frozen=True)
class Entry:
    """Who a submission is from, and its files, of which there should be one."""

    student: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Graded:
    """What became of a submission: a report, or the reason why there is none."""

    student: str
    report: Report | None
    problem: str = ""


@dataclass(frozen=True)
class Course:
    """How a folder is graded.

    Attributes:
        chapter: number of the chapter; None to tell it from each file's name (``01_...``).
        seed: the same inputs for everyone.
        output: the folder that is written.
        jobs: how many submissions are graded at a time.
    """

    chapter: int | None
    seed: int
    output: Path
    jobs: int


def find_submissions(folder: Path) -> list[Entry]:
    """Submissions of a folder: a file for each student, or a folder with one for each.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no submission.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"no folder {folder}")
    found: dict[str, list[Path]] = {}
    for path in _notebooks(folder):
        found.setdefault(path.stem, []).append(path)
    for own in sorted(path for path in folder.iterdir() if path.is_dir()):
        if files := _notebooks(own):
            found.setdefault(own.name, []).extend(files)
    if not found:
        raise ValueError(f"{folder} holds no file that ends in {', '.join(SUFFIXES)}")
    return [Entry(student, tuple(paths)) for student, paths in sorted(found.items())]


def _notebooks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())


def grade_all(folder: Path, course: Course) -> list[Graded]:
    """Grade all submissions of a folder and write the results.

    A submission whose stored result is of the same file, seed and version is not graded again.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no submission.
    """
    entries = find_submissions(folder)
    with ThreadPoolExecutor(course.jobs) as pool:
        work = pool.map(lambda entry: _grade_or_load(entry, course), entries)
        graded = list(tqdm(work, total=len(entries), unit="submission"))
    _write_scores(course.output / "scores.csv", graded)
    _write_checks(course.output / "checks.csv", graded)
    return graded


def _grade_or_load(entry: Entry, course: Course) -> Graded:
    folder = course.output / "results" / entry.student
    key = _key(entry, course)
    stored = _load(folder / "report.json", key)
    if stored is not None:
        return Graded(entry.student, stored)
    start = time.monotonic()
    graded = _grade(entry, course)
    seconds = time.monotonic() - start
    folder.mkdir(parents=True, exist_ok=True)
    if graded.report is None:
        results = failure_to_gradescope(graded.problem, seconds)
    else:
        results = to_gradescope(graded.report, seconds)
        _write_json(folder / "report.json", {"key": key, "report": graded.report.to_dict()})
    _write_json(folder / "results.json", results)
    return graded


def _key(entry: Entry, course: Course) -> str:
    """What a result depends on; a result of another key is graded again."""
    digest = hashlib.sha256()
    for path in entry.paths:
        try:
            digest.update(path.read_bytes())
        except OSError as error:  # grading will say so, and stop nobody else's
            digest.update(str(error).encode())
    return f"{__version__}/{course.chapter}/{course.seed}/{digest.hexdigest()}"


def _load(path: Path, key: str) -> Report | None:
    """A stored report of the same key; None for another, or one that was cut off in writing."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return Report.from_dict(data["report"]) if data["key"] == key else None


def _grade(entry: Entry, course: Course) -> Graded:
    try:
        path = _only(entry.paths)
        number = course.chapter or _chapter_in(path)
        submission = read_submission(path)
        request = Request(number, None, course.seed, submission, workers=1)
        return Graded(entry.student, grade_elsewhere(request))
    except (ValueError, OSError, ServiceError) as error:
        return Graded(entry.student, None, str(error))


def _only(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise ValueError(f"{len(paths)} submissions ({names}): leave one")
    return paths[0]


def _chapter_in(path: Path) -> int:
    match = _CHAPTER.match(path.name)
    if not match:
        raise ValueError(f"{path.name} does not begin with a chapter's number: use --chapter")
    return int(match[1])


def _write_scores(path: Path, graded: Sequence[Graded]) -> None:
    """A row a submission; one that could not be graded has no score but a problem."""
    names = sorted(
        {item.name for one in graded if one.report for item in one.report.exercises},
        key=lambda name: [int(number) for number in name.split(".")],
    )
    rows: list[dict[str, Any]] = []
    for one in graded:
        row: dict[str, Any] = {"student": one.student, "problem": one.problem}
        if one.report:
            row |= {item.name: item.score for item in one.report.exercises}
            row |= {"score": one.report.score, "points": one.report.points}
        rows.append(row)
    _write_csv(path, ["student", "score", "points", *names, "problem"], rows)


def _write_checks(path: Path, graded: Iterable[Graded]) -> None:
    """A row a check: how many passed, failed and were not run, and the mistakes by frequency."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    mistakes: dict[tuple[str, str, str], Counter[str]] = {}
    for check in (check for one in graded if one.report for check in one.report.checks):
        key = check.exercise, check.function, check.name
        counts.setdefault(key, Counter())[check.status] += 1
        if check.mistake:
            mistakes.setdefault(key, Counter())[check.mistake] += 1
    rows = [
        {
            **dict(zip(("exercise", "function", "check"), key, strict=True)),
            **{name: count[name] for name in ("passed", "failed", "blocked")},
            "mistakes": "; ".join(
                f"{name}: {number}" for name, number in mistakes.get(key, Counter()).most_common()
            ),
        }
        for key, count in counts.items()
    ]
    columns = ["exercise", "function", "check", "passed", "failed", "blocked", "mistakes"]
    _write_csv(path, columns, rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write in one step, so that a run which is cut off leaves no half a file."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf-8")
    part.replace(path)
