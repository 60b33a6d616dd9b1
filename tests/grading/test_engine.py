"""Grading as a whole, on two toy exercises."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from gptbook.grading.author import (
    Trial,
    exercise_problems,
    failures,
    rules_broken,
    run_trials,
    trials,
)
from gptbook.grading.engine import grade_exercise, grade_submission, part_graders
from gptbook.grading.exercise import Check, Exercise, Kind, Part
from gptbook.grading.outcomes import Outcome, Returned
from gptbook.grading.part_grader import Setting
from gptbook.grading.program import slice_program
from gptbook.grading.report import ExerciseReport, Status
from gptbook.grading.runner import Job, Runner
from gptbook.grading.shortcuts import Forbidden, files_of
from gptbook.grading.submission import Submission
from tests.grading.toys import (
    MEAN,
    MEAN_MISTAKES,
    RUNNING_MEAN,
    SHIFT,
    SOFTMAX,
    SOFTMAX_EXERCISE,
    code,
)

EXERCISES = (MEAN, SOFTMAX_EXERCISE)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as started:
        yield started


def grade(exercise: Exercise, runner: Runner, *cells: str, seed: int = 3) -> ExerciseReport:
    return grade_exercise(exercise, Submission("test", cells), Setting(seed), runner)


@pytest.mark.parametrize(
    "trial",
    [trial for exercise in EXERCISES for trial in trials(exercise, None, seeds=2)],
    ids=lambda trial: f"{trial.exercise.name} {trial.title}",
)
def test_each_source_loses_what_it_must_and_is_called_by_its_name(
    trial: Trial, runner: Runner
) -> None:
    for seed in range(2):
        graders = part_graders(trial.exercise, Setting(seed), runner)
        grader = graders[trial.exercise.parts.index(trial.part)]
        assert list(failures(trial, seed, grader)) == []


def test_a_function_that_is_wrong_in_its_own_way_gets_the_smallest_counterexample(
    runner: Runner,
) -> None:
    source = code(
        """
        def running_mean(values, width):
            means = []
            for i in range(len(values)):
                window = values[max(0, i + 1 - width) : i + 1]
                means.append(0.0 if len(window) > 3 else sum(window) / len(window))
            return means
        """
    )
    (row,) = [row for row in grade(MEAN, runner, source).checks if row.kind == "oracle"]
    assert row.status is Status.FAILED
    assert row.mistake is None
    assert row.message.startswith("`running_mean([0, 0, 0, ")
    assert "item 3 is 0.0, expected" in row.message


def test_what_is_kept_from_call_to_call_is_said(runner: Runner) -> None:
    source = code(
        """
        def running_mean(values, width, means=[]):
            for i in range(len(values)):
                window = values[max(0, i + 1 - width) : i + 1]
                means.append(sum(window) / len(window))
            return means
        """
    )
    rows = grade(MEAN, runner, source).checks
    failed = [row.message for row in rows if row.status is Status.FAILED]
    assert failed
    assert all("keeps something from call to call" in message for message in failed)


def test_the_hint_follows_the_mistake_that_is_named(runner: Runner) -> None:
    (part,) = MEAN.parts
    named = tuple(replace(mistake, hint=4) for mistake in part.mistakes)
    told = replace(MEAN, parts=(replace(part, mistakes=named),), hints=("1", "2", "3", "4"))
    for mistake in named:
        rows = grade(told, runner, mistake.source).checks
        assert {row.hint for row in rows if row.mistake} == {4}


def test_sets_have_the_same_order_in_every_run() -> None:
    seen = set()
    for _ in range(3):
        with Runner() as own:
            job = Job(slice_program(["def f(): return hash('a')"], "f"), [()])
            (outcome,) = own.run(job)
        assert isinstance(outcome, Returned)
        seen.add(outcome.value)
    assert len(seen) == 1


def test_a_slip_gets_no_hint_about_the_method(runner: Runner) -> None:
    for source in (
        "def running_mean(values, width):\n    return sum(valuse) / width",
        "def running_mean(values, width):\n    while True: pass",
        "def running_mean(values, width:\n    pass",
    ):
        report = grade(MEAN, runner, source)
        assert report.score == 0
        assert report.hint is None, source


def test_a_failed_gate_blocks_what_needs_it_and_says_so(runner: Runner) -> None:
    rows = grade(MEAN, runner, "def running_mean(values, width): return tuple(values)").checks
    assert [row.status for row in rows] == ["failed", "blocked", "blocked", "blocked"]
    assert rows[1].message == "needs “returns a list of floats” first"


def test_a_stub_is_said_to_be_unsolved(runner: Runner) -> None:
    report = grade(MEAN, runner, "def running_mean(values, width):\n    raise NotImplementedError")
    assert report.score == 0
    assert report.checks[0].message == "not solved yet: it raises NotImplementedError"
    assert {row.message for row in report.checks[1:]} == {"not solved yet"}


def test_later_parts_run_on_the_reference_of_earlier_ones(runner: Runner) -> None:
    report = grade(SOFTMAX_EXERCISE, runner, "def shift(x, axis): return x * 0", SOFTMAX)
    assert [row.status for row in report.checks] == ["failed", "passed", "passed"]


def test_a_function_may_have_another_name(runner: Runner) -> None:
    source = RUNNING_MEAN.replace("running_mean", "mine")
    submission = Submission("test", (source,))
    report = grade_exercise(MEAN, submission, Setting(1), runner, {"running_mean": "mine"})
    assert report.score == report.points


@pytest.mark.parametrize(
    "source",
    [
        "from statistics import mean\ndef running_mean(values, width): return [mean(values)]",
        "import numpy as np\ndef running_mean(v, w): return np.convolve(v, [1 / w] * w)",
        "def running_mean(v, w): return v.rolling(w)",
    ],
)
def test_a_shortcut_is_reported_as_such(runner: Runner, source: str) -> None:
    report = grade(MEAN, runner, source)
    assert report.score == 0
    assert "a shortcut past" in report.checks[0].message


def test_reading_the_matching_module_is_reported(runner: Runner) -> None:
    (path,) = files_of(["gptbook.grading.growth"])
    part = replace(MEAN.parts[0], forbidden=Forbidden(modules=("gptbook.grading.growth",)))
    source = f"def running_mean(values, width): return open({path!r}).read()"
    report = grade(replace(MEAN, parts=(part,)), runner, source)
    assert "growth.py, which has the answer" in report.checks[0].message
    assert report.score == 0


HOSTILE_ON_ONE_CHECK = {
    "loop": "while True: pass",
    "exit": "import os; os._exit(0)",
    "crash": "import ctypes; ctypes.string_at(0)",
    "thread": "import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()",
    "patch": "import json; json.dumps = print",
    "nan": "return [float('nan')] * len(values)",
}


@pytest.mark.parametrize("name", HOSTILE_ON_ONE_CHECK)
def test_hostile_code_costs_only_its_own_check(runner: Runner, name: str) -> None:
    """The contract's check has four values; the code is hostile on an input of no values only."""
    act = HOSTILE_ON_ONE_CHECK[name]
    when = "len(values) == 2000" if name == "never" else "values == [4]"
    source = f"{RUNNING_MEAN}\nown = running_mean\n\n" + code(
        f"""
        def graded(values, width):
            if {when}:
                {act}
            return own(values, width)
        """
    )
    submission = Submission("test", (source,))
    report = grade_exercise(MEAN, submission, Setting(1), runner, {"running_mean": "graded"})
    rows = {row.name: row for row in report.checks}
    assert rows["returns a list of floats"].status is Status.PASSED
    assert rows["means of the last values"].status is Status.FAILED
    assert rows["means of the last values"].mistake is None
    assert rows["means of the last values"].message


def test_the_same_seed_gives_the_same_inputs_and_another_seed_others(runner: Runner) -> None:
    source = RUNNING_MEAN.replace("min(i + 1, width)", "(i + 1 if values[i] > 90 else width)")
    messages = [
        grade(MEAN, runner, source, seed=seed).checks[2].message for seed in (1, 1, 2, 3, 4)
    ]
    assert messages[0] == messages[1]


def test_two_mistakes_that_both_match_are_not_named(runner: Runner) -> None:
    twin = replace(MEAN_MISTAKES[0], name="A twin")
    part = replace(MEAN.parts[0], mistakes=(MEAN_MISTAKES[0], twin))
    report = grade(replace(MEAN, parts=(part,)), runner, twin.source)
    assert report.checks[2].status is Status.FAILED
    assert report.checks[2].mistake is None
    assert "expected" in report.checks[2].message


def test_a_mistake_that_fails_what_the_reader_passed_is_not_named(runner: Runner) -> None:
    """The reader divides by the width too, but not where there are only two values."""
    start = Check("the first mean", Kind.PROPERTY, 1, lambda _: [([3, 5], 2)], _first_is_own)
    long = replace(MEAN.parts[0].checks[2], draw=lambda _: [([4, 1, 7, 9], 3)], needs=())
    part = Part("running_mean", (start, long), RUNNING_MEAN, MEAN_MISTAKES[:1])
    exercise = Exercise("0.3", "Vetoed", (part,))
    width = "(min(i + 1, width) if len(values) == 2 else width)"
    report = grade(exercise, runner, RUNNING_MEAN.replace("min(i + 1, width)", width))
    assert [row.status for row in report.checks] == ["passed", "failed"]
    assert report.checks[1].mistake is None
    assert grade(exercise, runner, MEAN_MISTAKES[0].source).checks[1].mistake is not None


def _first_is_own(args: tuple[object, ...], value: list[float]) -> str | None:
    return None if value[0] == 3.0 else f"begins with {value[0]}, expected 3.0"


def test_a_check_whose_judge_stumbles_over_a_strange_value_fails(runner: Runner) -> None:
    source = "def softmax(x, axis): return {'a': 1}"
    report = grade(SOFTMAX_EXERCISE, runner, source, SHIFT)
    assert report.checks[1].status is Status.FAILED
    assert "wrong kind" in report.checks[1].message


def test_exercises_are_graded_side_by_side() -> None:
    report = grade_submission(
        EXERCISES, Submission("all", (RUNNING_MEAN, SHIFT, SOFTMAX)), Setting(5), workers=2
    )
    assert report.score == report.points == 11
    assert [exercise.name for exercise in report.exercises] == ["0.1", "0.2"]


def test_the_reference_is_not_what_is_graded(runner: Runner) -> None:
    """A grader that ran its own reference would give this full marks."""
    report = grade(SOFTMAX_EXERCISE, runner, SHIFT, "def softmax(x, axis): return x")
    assert report.score == 1


def test_checks_in_the_wrong_order_or_with_unknown_needs_cannot_be_declared() -> None:
    contract, one_each, *_ = MEAN.parts[0].checks
    with pytest.raises(ValueError, match="kinds be in order"):
        Part("f", (replace(one_each, needs=()), contract), "")
    with pytest.raises(ValueError, match="needs"):
        Part("f", (one_each,), "")


def test_the_authors_rules_name_what_is_missing() -> None:
    problems = "\n".join(rules_broken(MEAN, sections=["Windows"]))
    assert "4 mistakes, wanted 8" in problems
    assert "2 other styles" in problems
    assert "no section 'Running sums'" in problems


def test_the_author_is_told_of_a_mistake_that_gives_right_answers() -> None:
    right = replace(MEAN_MISTAKES[0], source=RUNNING_MEAN)
    part = replace(MEAN.parts[0], mistakes=(right,), styles={})
    problems = exercise_problems(replace(MEAN, parts=(part,)), None, seeds=1)
    assert any("loses 0 points, wanted 5" in problem for problem in problems)
    assert any("is called nothing" in problem for problem in problems)


def test_several_seeds_of_a_right_function_take_one_process_for_each_check(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing function takes one for each seed, as a reader's does; what is measured, always."""
    jobs: list[int] = []
    run = Runner.run

    def counted(self: Runner, job: Job) -> list[Outcome]:
        jobs.append(len(job.cases))
        return run(self, job)

    monkeypatch.setattr(Runner, "run", counted)
    raises = RUNNING_MEAN.replace("total, means = 0.0, []", "total, means = 1 / (width - 2), []")
    for source, loss, expected in (
        (RUNNING_MEAN, 0, [3 * 1, 3 * 10, 3 * 10, 1, 1, 1]),
        (raises, None, [3 * 1, 3 * 10, 3 * 10, *(3 * [1])]),
    ):
        jobs.clear()
        trial = Trial("it", MEAN, MEAN.parts[0], source, 3, 0)
        problems = list(run_trials(MEAN, [trial], 3, runner))
        assert jobs[: len(expected)] == expected
        assert bool(problems) is (loss is None)


def test_an_array_that_was_never_written_is_a_failure_not_a_pass(runner: Runner) -> None:
    source = "import numpy as np\ndef softmax(x, axis): return np.full_like(x, np.nan)"
    report = grade(SOFTMAX_EXERCISE, runner, SHIFT, source)
    assert [row.score for row in report.checks] == [1, 0, 0]
    assert np.isnan(float("nan"))
