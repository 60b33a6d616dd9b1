"""Grades a submission: its exercises side by side, their parts in turn."""

import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gptbook.grading.exercise import Exercise
from gptbook.grading.part_grader import PartGrader, Setting
from gptbook.grading.report import CheckResult, ExerciseReport, Report
from gptbook.grading.runner import Runner
from gptbook.grading.submission import Submission

DEFAULT_WORKERS = 2


def grade_submission(
    exercises: Sequence[Exercise],
    submission: Submission,
    setting: Setting,
    names: Mapping[str, str] | None = None,
    workers: int = DEFAULT_WORKERS,
) -> Report:
    """Grade exercises of a submission.

    Args:
        exercises: what to grade.
        submission: where the functions are.
        setting: the seed, and what may not be read.
        names: the name that a function has in the submission, where it is another one than the
            exercise asks for.
        workers: how many exercises are graded at a time.

    Raises:
        RunnerError: processes to grade in cannot be started.
    """
    preload = sorted({name for item in exercises for part in item.parts for name in part.preload})
    runners = [Runner(preload) for _ in range(max(1, min(workers, len(exercises))))]
    free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
    for runner in runners:
        free.put(runner)

    def grade_one(exercise: Exercise) -> ExerciseReport:
        runner = free.get()
        try:
            return grade_exercise(exercise, submission, setting, runner, names)
        finally:
            free.put(runner)

    with ThreadPoolExecutor(len(runners)) as pool:
        try:
            reports = tuple(pool.map(grade_one, exercises))
        finally:  # inside of the pool, which at Ctrl-C would wait for what still runs
            for runner in runners:
                runner.close()
    return Report(submission.label, setting.seed, reports)


def grade_exercise(
    exercise: Exercise,
    submission: Submission,
    setting: Setting,
    runner: Runner,
    names: Mapping[str, str] | None = None,
) -> ExerciseReport:
    """Grade all parts of one exercise."""
    results: list[CheckResult] = []
    for part, grader in zip(exercise.parts, part_graders(exercise, setting, runner), strict=True):
        name = (names or {}).get(part.function, part.function)
        results += grader.grade(submission, name)
    return ExerciseReport(exercise.name, exercise.title, tuple(results), exercise.hints)


def part_graders(exercise: Exercise, setting: Setting, runner: Runner) -> list[PartGrader]:
    """A grader for each part, which runs on the references of the parts before it."""
    provided: dict[str, str] = {}
    graders = []
    for part in exercise.parts:
        graders.append(PartGrader(exercise.name, part, provided, setting, runner))
        provided[part.function] = part.reference
    return graders
