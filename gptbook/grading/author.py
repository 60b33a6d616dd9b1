"""The rules that an exercise must meet, checked: ``gptbook author-check 1``.

The book's solution and every other correct style get full marks on many seeds, a stub and a
function that returns nothing get none, and each mistake of the bank loses exactly the points that
it declares and is called by its own name.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gptbook.grading.chapter_run import chapter_headings
from gptbook.grading.chapters import answer_files
from gptbook.grading.engine import part_graders
from gptbook.grading.exercise import Chapter, Exercise, Part
from gptbook.grading.part_grader import PartGrader, Setting, run_ahead
from gptbook.grading.report import CheckResult
from gptbook.grading.runner import Runner
from gptbook.grading.submission import Submission, read_submission

MISTAKES_WANTED = 8
STYLES_WANTED = 3
HINTS_WANTED = range(3, 6)
SOLUTION_SEEDS = 20
OTHER_SEEDS = 2

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


@dataclass(frozen=True)
class Trial:
    """Something to grade, and what must come out.

    Attributes:
        title: what it is, for messages.
        exercise: what it is graded on.
        part: the part that it is about.
        source: the whole submission.
        seeds: how many seeds are tried.
        loss: points of the part that it loses; None for all of them.
        mistake: the name by which it must be called; None where it must be called by none.
    """

    title: str
    exercise: Exercise
    part: Part
    source: str
    seeds: int
    loss: int | None
    mistake: str | None = None


def rules_broken(exercise: Exercise, sections: Sequence[str] | None = None) -> Iterator[str]:
    """Say which rules an exercise's declaration breaks, before anything is run.

    Args:
        exercise: the exercise.
        sections: the chapter's headings; None where the chapter is not at hand.
    """
    if len(exercise.hints) not in HINTS_WANTED:
        yield f"{exercise.name}: {len(exercise.hints)} hints, wanted 3 to 5"
    bank = [mistake for part in exercise.parts for mistake in part.mistakes]
    if len(bank) < MISTAKES_WANTED:
        yield f"{exercise.name}: {len(bank)} mistakes, wanted {MISTAKES_WANTED} or more"
    if len({mistake.name for mistake in bank}) < len(bank):
        yield f"{exercise.name}: two mistakes have one name"
    for part in exercise.parts:
        if len(part.styles) < STYLES_WANTED:
            yield f"{exercise.name} {part.function}: {len(part.styles)} other styles, wanted 3"
    for mistake in bank:
        sentences = len(_SENTENCE_END.findall(mistake.explanation))
        if sentences != 2:
            yield f"{exercise.name} {mistake.name!r}: {sentences} sentences explain it, wanted 2"
        if sections is not None and mistake.section not in sections:
            yield f"{exercise.name} {mistake.name!r}: no section {mistake.section!r} in the chapter"


def trials(exercise: Exercise, solution: str | None, seeds: int) -> Iterator[Trial]:
    """All that must be graded to know an exercise by.

    Args:
        exercise: the exercise.
        solution: source of the book's solution; None for the references alone.
        seeds: how many seeds correct solutions are tried on.
    """
    references = "\n\n".join(part.reference for part in exercise.parts)
    for part in exercise.parts:
        few = min(seeds, OTHER_SEEDS)
        yield Trial("the reference", exercise, part, references, few if solution else seeds, 0)
        if solution is not None:
            yield Trial("the solution", exercise, part, solution, seeds, 0)
        for name, source in part.styles.items():
            yield Trial(f"style {name!r}", exercise, part, source, few, 0)
        for name, body in (("a stub", "raise NotImplementedError"), ("nothing", "return None")):
            source = f"def {part.function}(*args, **kwargs):\n    {body}\n"
            yield Trial(name, exercise, part, source, few, None)
        for mistake in part.mistakes:
            title = f"mistake {mistake.name!r}"
            source = mistake.source
            yield Trial(title, exercise, part, source, few, mistake.loss, mistake.name)


def failures(trial: Trial, seed: int, grader: PartGrader) -> Iterator[str]:
    """Run a trial on a seed; say what came out otherwise than it must.

    Args:
        trial: what to grade.
        seed: the grader's, for messages.
        grader: of the trial's part; trials on one seed may share it, and what it knows of the bank.
    """
    wanted = trial.part.points if trial.loss is None else trial.loss
    where = f"{trial.exercise.name} {trial.part.function}, seed {seed}: {trial.title}"
    rows = grader.grade(Submission(trial.title, (trial.source,)), trial.part.function)
    lost = sum(row.points - row.score for row in rows)
    if lost != wanted:
        yield f"{where} loses {lost} points, wanted {wanted}{_why(rows)}"
    names = {row.mistake for row in rows if row.mistake}
    if names != ({trial.mistake} if trial.mistake else set()):
        called = ", ".join(sorted(names)) or "nothing"
        yield f"{where} is called {called}{_why(rows)}"


def exercise_problems(
    exercise: Exercise,
    solution: str | None,
    seeds: int,
    sections: Sequence[str] | None = None,
    forbidden_files: tuple[str, ...] = (),
) -> list[str]:
    """Check one exercise against all rules; see :func:`author_check`."""
    todo = list(trials(exercise, solution, seeds))
    with Runner(preload_of(exercise)) as runner:
        return [
            *rules_broken(exercise, sections),
            *run_trials(exercise, todo, seeds, runner, forbidden_files),
        ]


def preload_of(exercise: Exercise) -> tuple[str, ...]:
    """The modules that an exercise's runner has loaded from the start."""
    return tuple(sorted({name for part in exercise.parts for name in part.preload}))


def run_trials(
    exercise: Exercise,
    todo: Sequence[Trial],
    seeds: int,
    runner: Runner,
    forbidden_files: tuple[str, ...] = (),
) -> Iterator[str]:
    """Run trials, each on its own number of seeds or on fewer; say what came out wrongly."""
    graders = [
        part_graders(exercise, Setting(seed, forbidden_files), runner) for seed in range(seeds)
    ]
    for trial in todo:
        part = exercise.parts.index(trial.part)
        chosen = [of_seed[part] for of_seed in graders[: trial.seeds]]
        if trial.loss == 0:
            run_ahead(chosen, Submission(trial.title, (trial.source,)), trial.part.function)
        for seed, grader in enumerate(chosen):
            yield from failures(trial, seed, grader)


def author_check(
    chapter: Chapter,
    book: Path,
    only: str | None = None,
    seeds: int = SOLUTION_SEEDS,
    workers: int = 2,
) -> list[str]:
    """Check a chapter's exercises against all rules; print a line for each one that is done.

    Args:
        chapter: the chapter.
        book: the folder that has chapters/ and solutions/.
        only: one exercise's number; None for all.
        seeds: how many seeds correct solutions are tried on.
        workers: how many exercises are checked at a time.

    Returns:
        What is wrong, a line each; empty where all is well.

    Raises:
        FileNotFoundError: the chapter or its solutions are not in the folder.
    """
    solution = "\n\n".join(read_submission(book / "solutions" / f"{chapter.source}.md").cells)
    sections = chapter_headings(book / "chapters", chapter.number)

    def check_one(exercise: Exercise) -> list[str]:
        problems = exercise_problems(exercise, solution, seeds, sections, answer_files(book))
        print(f"{exercise.name} {exercise.title}: {len(problems)} problems", flush=True)
        return problems

    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(check_one, chapter.select(only))
        return [problem for problems in found for problem in problems]


def _why(rows: Sequence[CheckResult]) -> str:
    failed = [f"\n    {row.name}: {row.message}" for row in rows if row.message]
    return "".join(failed)
