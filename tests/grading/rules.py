"""What each exercise must meet, in pieces that a test run can spread over cores."""

import atexit
from functools import cache
from pathlib import Path

from gptbook.grading.author import SOLUTION_SEEDS, failures, rules_broken, trials
from gptbook.grading.chapter_run import chapter_headings
from gptbook.grading.chapters import answer_files, chapter_of, load_chapter
from gptbook.grading.engine import part_graders
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.part_grader import Setting
from gptbook.grading.runner import Runner
from gptbook.grading.statements import load_statements
from gptbook.grading.submission import read_submission

ROOT = Path(__file__).resolve().parents[2]
SOLUTION = "the solution"
BANK_SEEDS = 1
"""Seeds on which the bank is tried here; `gptbook author-check` tries more."""


def check_declaration(name: str) -> None:
    """Hints, mistakes and styles are as many as they must be, and the page has the same points."""
    chapter, exercise = _find(name)
    sections = chapter_headings(ROOT / "chapters", chapter.number)
    _assert_none(list(rules_broken(exercise, sections)))
    assert load_statements(chapter.source)[name].points == exercise.points


def check_solution(name: str) -> None:
    """The book's solution gets full marks on 20 seeds."""
    _assert_none(_problems(name, range(SOLUTION_SEEDS), solution=True))


def check_bank(name: str) -> None:
    """Styles get full marks, stubs none, and each mistake loses its points and is named."""
    _assert_none(_problems(name, range(BANK_SEEDS), solution=False))


def _assert_none(problems: list[str]) -> None:
    assert not problems, "\n".join(problems)


def _find(name: str) -> tuple[Chapter, Exercise]:
    chapter = load_chapter(chapter_of(name))
    (exercise,) = chapter.select(name)
    return chapter, exercise


def _problems(name: str, seeds: range, solution: bool) -> list[str]:
    chapter, exercise = _find(name)
    cells = read_submission(ROOT / "solutions" / f"{chapter.source}.md").cells
    todo = [
        trial
        for trial in trials(exercise, "\n\n".join(cells), SOLUTION_SEEDS)
        if (trial.title == SOLUTION) is solution
    ]
    assert todo
    found: list[str] = []
    runner = _runner(frozenset(item for part in exercise.parts for item in part.preload))
    for seed in seeds:
        graders = part_graders(exercise, Setting(seed, answer_files(ROOT)), runner)
        for trial in todo:
            grader = graders[exercise.parts.index(trial.part)]
            found += failures(trial, seed, grader)
    return found


@cache
def _runner(preload: frozenset[str]) -> Runner:
    """A runner for all exercises that load the same libraries, which takes seconds."""
    runner = Runner(sorted(preload))
    atexit.register(runner.close)
    return runner
