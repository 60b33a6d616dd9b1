"""The grader's commands: grade, hint, adopt, adopted, run, grade-all, author-check.

What a command needs is imported when it runs, so that the command line starts fast.
"""

import argparse
import os
import re
import secrets
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptbook.grading.report import Report

Subparsers = argparse._SubParsersAction  # argparse has no public name for it


def add_commands(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add the grader's commands to the command line."""
    _add_grade(commands)
    _add_hint(commands)
    _add_adoption(commands)
    _add_run(commands)
    _add_grade_all(commands)
    _add_author_check(commands)


def _chapter(text: str) -> int:
    if re.fullmatch(r"\d+\.\d+", text):
        number = text.split(".")[0]
        raise argparse.ArgumentTypeError(f"{text} is an exercise: write {number} --only {text}")
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a chapter is named by its number, got {text!r}")
    return int(text)


def _add_grade(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    grade = commands.add_parser("grade", help="grade the exercises of one or more chapters")
    grade.add_argument(
        "chapters", type=_chapter, nargs="+", metavar="CHAPTER", help="its number, such as 1"
    )
    grade.add_argument("--only", metavar="EXERCISE", help="such as 1.2")
    grade.add_argument(
        "--path",
        type=Path,
        help="an .md, .ipynb or .py file, or a folder with a file for each chapter; "
        "default: exercises",
    )
    grade.add_argument("--seed", type=int, help="for the inputs; default: others each time")
    form = grade.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print the report as JSON; several as a list"
    )
    form.add_argument(
        "--html", action="store_true", help="print a chapter's report as an HTML page: > FILE"
    )
    grade.set_defaults(run=run_grade)


def _add_hint(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    hint = commands.add_parser("hint", help="print one of an exercise's hints")
    hint.add_argument("exercise", metavar="EXERCISE", help="such as 1.2")
    hint.add_argument("--step", type=int, default=1, metavar="N", help="default: 1")
    hint.set_defaults(run=run_hint)


def _add_adoption(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    take = commands.add_parser("adopt", help="use your function in later chapters")
    take.add_argument("exercise", metavar="EXERCISE", help="such as 1.2")
    take.add_argument("path", type=Path, metavar="FILE", help="an .md, .ipynb or .py file")
    take.set_defaults(run=run_adopt)
    adopted = commands.add_parser("adopted", help="list the functions that you adopted")
    adopted.add_argument("--drop", metavar="EXERCISE", help="use the book's function again")
    adopted.set_defaults(run=run_adopted)


def _add_run(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="run a chapter from its first cell to its last")
    run.add_argument("chapter", type=_chapter, metavar="CHAPTER")
    run.add_argument("--mine", action="store_true", help="with the functions that you adopted")
    run.add_argument("--folder", type=Path, default=Path("chapters"), help="default: chapters")
    run.add_argument(
        "--output",
        type=Path,
        default=Path("_build/run"),
        metavar="FOLDER",
        help="where the executed notebook goes; default: _build/run",
    )
    run.set_defaults(run=run_chapter)


def _add_grade_all(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    grade = commands.add_parser("grade-all", help="grade a folder of submissions")
    grade.add_argument("folder", type=Path, metavar="DIR", help="a file or folder a student")
    grade.add_argument("--chapter", type=int, help="default: told from the files' names (01_...)")
    grade.add_argument("--seed", type=int, default=0, help="the same inputs for all; default: 0")
    grade.add_argument("--output", type=Path, metavar="DIR", help="default: DIR-graded")
    grade.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="default: all cores")
    grade.set_defaults(run=run_grade_all)


def _add_author_check(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    check = commands.add_parser("author-check", help="check a chapter's exercises themselves")
    check.add_argument("chapter", type=_chapter, metavar="CHAPTER")
    check.add_argument("--only", metavar="EXERCISE", help="such as 1.2")
    check.add_argument("--seeds", type=int, help="default: as many as the tests try")
    check.add_argument("--book", type=Path, default=Path(), help="the book's folder; default: .")
    check.set_defaults(run=run_author_check)


def run_grade(arguments: argparse.Namespace) -> None:
    """Grade a file for each chapter and print the reports.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an option for one chapter was given with several.
    """
    from gptbook.grading.notebook import SEEDS
    from gptbook.grading.service import Request, grade_here
    from gptbook.grading.submission import read_submission

    numbers = arguments.chapters
    for name, given in (("--only", arguments.only), ("--html", arguments.html)):
        if given and len(numbers) > 1:
            raise ValueError(f"{name} is for one chapter, but {len(numbers)} were named")
    seed = secrets.randbelow(SEEDS) if arguments.seed is None else arguments.seed
    paths = [_answer_path(number, arguments) for number in numbers]  # all are there, or none is run
    requests = [
        Request(number, arguments.only, seed, read_submission(path))
        for number, path in zip(numbers, paths, strict=True)
    ]
    print(_rendered([grade_here(request) for request in requests], arguments))


def _answer_path(number: int, arguments: argparse.Namespace) -> Path:
    """Return the file with a chapter's answers."""
    from gptbook.grading.chapters import load_chapter

    chapter = load_chapter(number)
    path: Path = arguments.path or Path("exercises")
    if arguments.path is None or path.is_dir():
        path = path / f"{chapter.source}.md"
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}: run this in the book's folder, or say --path")
    elif len(arguments.chapters) > 1:
        raise ValueError(f"--path {path} is one file: several chapters need a folder with theirs")
    return path


def _rendered(reports: "list[Report]", arguments: argparse.Namespace) -> str:
    from gptbook.grading.html import to_page

    if arguments.json:
        texts = [report.to_json() for report in reports]
        return texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]"
    if arguments.html:
        return to_page(reports[0])
    return "\n\n".join(report.to_text() for report in reports)


def run_hint(arguments: argparse.Namespace) -> None:
    """Print a hint."""
    from gptbook.grading.chapters import chapter_of, load_chapter
    from gptbook.grading.notebook import hint_text

    print(textwrap.fill(hint_text(arguments.exercise, arguments.step), 88))
    (exercise,) = load_chapter(chapter_of(arguments.exercise)).select(arguments.exercise)
    if arguments.step < len(exercise.hints):
        print(f"(the next: gptbook hint {exercise.name} --step {arguments.step + 1})")


def run_adopt(arguments: argparse.Namespace) -> None:
    """Adopt a function that gets full marks.

    Raises:
        ValueError: it does not.
    """
    from gptbook.grading.chapters import chapter_of, load_chapter
    from gptbook.grading.notebook import SEEDS
    from gptbook.grading.overlay import adopt, overlay_file
    from gptbook.grading.service import Request, grade_here
    from gptbook.grading.submission import read_submission

    number = chapter_of(arguments.exercise)
    (exercise,) = load_chapter(number).select(arguments.exercise)
    submission = read_submission(arguments.path)
    seed = secrets.randbelow(SEEDS)
    report = grade_here(Request(number, exercise.name, seed, submission))
    if report.score < report.points:
        print(report.to_text())
        raise ValueError("only a function with full marks is adopted, or later chapters would fail")
    for item in adopt(overlay_file(), exercise.name, exercise.parts, submission):
        print(f"Adopted {item.function} in place of {item.replaces.replace(':', '.')}")
    print("Use it with: gptbook run CHAPTER --mine")


def run_adopted(arguments: argparse.Namespace) -> None:
    """List the adopted functions, less those of an exercise that is dropped."""
    from gptbook.grading.overlay import drop, load_adopted, overlay_file

    path = overlay_file()
    if arguments.drop:
        drop(path, arguments.drop)
    for item in load_adopted(path):
        print(f"{item.exercise:<6}{item.replaces.replace(':', '.')}  from {item.label}")
    print(f"(kept in {path})")


def run_chapter(arguments: argparse.Namespace) -> None:
    """Run a chapter's notebooks and print what they print."""
    from gptbook.grading.chapter_run import find_notebook, run_notebook

    for path in find_notebook(arguments.folder, arguments.chapter):
        output = arguments.output / f"{path.stem}.ipynb"
        for text in run_notebook(path, arguments.mine, output):
            print(text, flush=True)
        print(f"Saved {output}")


def run_grade_all(arguments: argparse.Namespace) -> None:
    """Grade a folder and say where the results are."""
    from gptbook.grading.classroom import Course, grade_all

    folder: Path = arguments.folder
    output = arguments.output or folder.with_name(f"{folder.resolve().name}-graded")
    course = Course(arguments.chapter, arguments.seed, output, arguments.jobs)
    graded = grade_all(folder, course)
    bad = [one for one in graded if one.report is None]
    for one in bad:
        print(f"not graded: {one.student}: {one.problem}", file=sys.stderr)
    print(f"{len(graded) - len(bad)} graded, {len(bad)} not; see {output / 'scores.csv'}")


def run_author_check(arguments: argparse.Namespace) -> None:
    """Check a chapter's exercises against the rules for exercises.

    Raises:
        ValueError: one of them breaks a rule.
    """
    from gptbook.grading.author import SOLUTION_SEEDS, author_check
    from gptbook.grading.chapters import load_chapter

    chapter = load_chapter(arguments.chapter)
    seeds = arguments.seeds or SOLUTION_SEEDS
    problems = author_check(chapter, arguments.book, arguments.only, seeds)
    for problem in problems:
        print(problem)
    if problems:
        raise ValueError(f"{len(problems)} problems in chapter {chapter.number}'s exercises")
    print("All rules are met.")
