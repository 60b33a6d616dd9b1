"""Grades one function: runs its checks, names its mistake, words what it did wrong."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Mistake, Part
from gptbook.grading.identify import Identifier
from gptbook.grading.outcomes import NotReached, Outcome, Raised, Returned, Stopped, describe
from gptbook.grading.program import Program, ProgramError, slice_program
from gptbook.grading.report import CheckResult, Status
from gptbook.grading.runner import Job, Runner
from gptbook.grading.shortcuts import files_of, find_shortcuts
from gptbook.grading.shrink import shrink
from gptbook.grading.submission import Submission

_ARGUMENT_CHARACTERS = 70
_CALL_CHARACTERS = 160
_SEVERAL_CALLS = ("call_each", "measure", "repeat", "carry", "in_turn", "resumed", "saved_over")


@dataclass(frozen=True)
class Setting:
    """What grading needs besides the exercises and the submission.

    Attributes:
        seed: from which all inputs are drawn.
        forbidden_files: files and folders that have the answers.
    """

    seed: int
    forbidden_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The first case on which a check failed, what came out, and what is wrong with it."""

    case: int
    outcome: Outcome
    problem: str


class PartGrader:
    """Grades one part of an exercise.

    Args:
        exercise: the exercise's number.
        part: what to grade.
        provided: reference sources for the parts before it.
        setting: the seed, and what may not be read.
        runner: where the reader's code runs.
    """

    def __init__(
        self,
        exercise: str,
        part: Part,
        provided: Mapping[str, str],
        setting: Setting,
        runner: Runner,
    ) -> None:
        self._exercise = exercise
        self._part = part
        self._provided = dict(provided)
        self._setting = setting
        self._runner = runner
        self._forbidden_files = (*setting.forbidden_files, *files_of(part.forbidden.modules))
        self._cases: dict[str, list[Args]] = {}
        self._bank: dict[tuple[str, str], list[Outcome]] = {}
        self._known: dict[tuple[str, str], list[Outcome]] = {}

    def grade(self, submission: Submission, name: str) -> list[CheckResult]:
        """Grade the function that has a name in a submission."""
        try:
            program = self._slice(submission, name)
        except ProgramError as error:
            return self._nothing_to_run(str(error))
        shortcuts = find_shortcuts(program.source, self._part.forbidden)
        if shortcuts:
            used = ", ".join(shortcut.lstrip(".") for shortcut in shortcuts)
            return self._nothing_to_run(f"uses {used}, a shortcut past what this exercise asks for")
        return self._run_checks(program)

    def _slice(self, submission: Submission, name: str) -> Program:
        return slice_program(submission.cells, name, self._provided, submission.search_path)

    def _nothing_to_run(self, reason: str) -> list[CheckResult]:
        first, *others = self._part.checks
        return [
            replace(self._result(first, Status.FAILED, reason), hint=None),
            *(self._result(check, Status.BLOCKED, "see above") for check in others),
        ]

    def _run_checks(self, program: Program) -> list[CheckResult]:
        results: dict[str, CheckResult] = {}
        observed: dict[str, tuple[Check, Sequence[Outcome]]] = {}
        failures: dict[str, Failure] = {}
        hopeless = ""
        for check in self._part.checks:
            reason = hopeless or _blocked(check, results)
            if reason:
                results[check.name] = self._result(check, Status.BLOCKED, reason)
                continue
            outcomes, failure = self._try(check, program)
            observed[check.name] = check, outcomes
            results[check.name] = self._result(check, Status.FAILED if failure else Status.PASSED)
            if failure:
                failures[check.name] = failure
                hopeless = _hopeless(failure.outcome)
        self._explain_all(program, observed, failures, results)
        return list(results.values())

    def _try(self, check: Check, program: Program) -> tuple[list[Outcome], Failure | None]:
        outcomes: list[Outcome] = []
        failure = None
        for _ in range(check.attempts):
            outcomes = self._outcomes(check, program)
            failure = judge(check, self._draw(check), outcomes)
            if failure is None:
                break
        return outcomes, failure

    def _draw(self, check: Check) -> list[Args]:
        """The check's cases: the same ones for the reader and for the bank."""
        if check.name not in self._cases:
            names = (self._setting.seed, self._exercise, self._part.function, check.name)
            stream = random.Random("/".join(str(name) for name in names))
            self._cases[check.name] = list(check.draw(stream))
        return self._cases[check.name]

    def _outcomes(self, check: Check, program: Program) -> list[Outcome]:
        """What a program does on a check's cases; remembered, but for what is measured.

        An author's check runs each mistake as a reader's function and as one of the bank.
        """
        key = program.source, check.name
        if check.attempts > 1 or key not in self._known:
            self._known[key] = self._observe(check, program, self._draw(check))
        return self._known[key]

    def _observe(self, check: Check, program: Program, cases: Sequence[Args]) -> list[Outcome]:
        job = Job(
            program,
            cases,
            check.probe,
            check.limits,
            self._part.forbidden.modules,
            self._forbidden_files,
        )
        return self._runner.run(job)

    def _observe_mistake(self, mistake: Mistake, check: Check) -> list[Outcome]:
        key = mistake.name, check.name
        if key not in self._bank:
            wrong = Submission(mistake.name, (mistake.source,))
            program = self._slice(wrong, self._part.function)
            self._bank[key] = self._outcomes(check, program)
        return self._bank[key]

    def _passes(self, check: Check, outcomes: Sequence[Outcome]) -> bool:
        return judge(check, self._draw(check), outcomes) is None

    def _explain_all(
        self,
        program: Program,
        observed: Mapping[str, tuple[Check, Sequence[Outcome]]],
        failures: Mapping[str, Failure],
        results: dict[str, CheckResult],
    ) -> None:
        """Fill in the messages of the checks that failed."""
        passed = frozenset(observed) - frozenset(failures)
        identifier = Identifier(
            self._part.mistakes, observed, passed, self._observe_mistake, self._passes
        )
        told: set[str] = set()
        for name, failure in failures.items():
            check = observed[name][0]
            mistake = None if _untold(failure.outcome) else identifier.name(check)
            if mistake is None:
                message = self._counterexample(check, program, failure)
            elif mistake.name in told:
                message = f"The same mistake: {mistake.name}."
            else:
                message = f"{mistake.name}. {mistake.explanation} See “{mistake.section}”."
                told.add(mistake.name)
            found = mistake.name if mistake else None
            hint = _hint(check, mistake, failure.outcome)
            results[name] = replace(results[name], message=message, mistake=found, hint=hint)

    def _counterexample(self, check: Check, program: Program, failure: Failure) -> str:
        """Word a failure on the smallest input that is found to fail in the same way."""
        args = self._draw(check)[failure.case]
        if getattr(failure.outcome, "loading", False):
            return f"the code that {program.target} needs {failure.problem}"
        if failure.case > 0 and isinstance(failure.outcome, Returned | Raised):
            alone = self._observe(check, program, [args])
            if judge(check, [args], alone) is None:
                return (
                    f"is right on its first call, and wrong on a later one: {program.target} keeps "
                    "something from call to call, such as a default argument that is a list or a "
                    "variable outside of the function"
                )
        if check.legal is not None and isinstance(failure.outcome, Returned | Raised):
            args, failure = self._shrink(check, check.legal, program, args, failure)
        if isinstance(failure.outcome, Raised) and failure.outcome.type_name == _STUB:
            return "not solved yet: it raises NotImplementedError"
        return f"{_call_text(check, program.target, args)} {failure.problem}"

    def _shrink(
        self, check: Check, legal: Any, program: Program, args: Args, failure: Failure
    ) -> tuple[Args, Failure]:
        smallest = failure

        def first_failure(candidates: list[Args]) -> int | None:
            nonlocal smallest
            outcomes = self._observe(check, program, candidates)
            for index, outcome in enumerate(outcomes):
                found = judge(check, candidates[index : index + 1], [outcome])
                if found is not None and _alike(found.outcome, failure.outcome):
                    smallest = found
                    return index
            return None

        return shrink(args, legal, first_failure), smallest

    def _result(self, check: Check, status: Status, message: str = "") -> CheckResult:
        score = check.points if status is Status.PASSED else 0
        return CheckResult(
            self._exercise,
            self._part.function,
            check.name,
            str(check.kind),
            check.points,
            score,
            status,
            message,
            hint=check.hint,
        )


def run_ahead(graders: Sequence[PartGrader], submission: Submission, name: str) -> None:
    """Run a function that should be right on several seeds' cases, in one process for each check.

    The graders, of one part, remember the values. Where anything else comes back, and for what is
    measured, nothing is remembered, and each seed's cases are run in a process of their own.
    """
    part = graders[0]._part
    try:
        program = graders[0]._slice(submission, name)
    except ProgramError:
        return
    for check in part.checks:
        draws = [grader._draw(check) for grader in graders]
        if check.attempts > 1 or len(draws) == 1:
            continue
        together = graders[0]._observe(check, program, [case for draw in draws for case in draw])
        if all(isinstance(outcome, Returned) for outcome in together):
            outcomes = iter(together)
            for grader, draw in zip(graders, draws, strict=True):
                found = list(itertools.islice(outcomes, len(draw)))
                grader._known[program.source, check.name] = found


_STUB = "NotImplementedError"


def judge(check: Check, cases: Sequence[Args], outcomes: Sequence[Outcome]) -> Failure | None:
    """Find the first case that fails a check.

    Returns:
        None where all pass.
    """
    for case, (args, outcome) in enumerate(zip(cases, outcomes, strict=True)):
        problem = _problem(check, args, outcome)
        if problem:
            return Failure(case, outcome, problem)
    return None


def _problem(check: Check, args: Args, outcome: Outcome) -> str | None:
    match outcome:
        case Returned():
            if check.pure and outcome.changed:
                return f"changes its argument {outcome.changed[0] + 1}, which is its caller's"
            return _verify(check, args, outcome.value)
        case NotReached():
            return None  # the case that ended the process is the one to report
        case _:
            return describe(outcome, check.limits)


def _verify(check: Check, args: Args, value: Any) -> str | None:
    try:
        return check.verify(args, value)
    except Exception as error:  # noqa: BLE001 - the value may be anything at all
        return f"gives {show(value)}, which is of the wrong kind ({type(error).__name__}: {error})"


def _blocked(check: Check, results: Mapping[str, CheckResult]) -> str:
    failed = [name for name in check.needs if results[name].status is not Status.PASSED]
    return f"needs “{failed[0]}” first" if failed else ""


def _hopeless(outcome: Outcome) -> str:
    """Why no further check can pass after this outcome, if so."""
    if isinstance(outcome, Raised) and outcome.type_name == _STUB:
        return "not solved yet"
    if isinstance(outcome, Raised | Stopped) and outcome.loading:
        return "the code around the function fails"
    return ""


def _untold(outcome: Outcome) -> bool:
    """Whether it is clear without the bank what happened."""
    return bool(_hopeless(outcome))


_NOT_ABOUT_THE_METHOD = ("NameError", "UnboundLocalError", "SyntaxError", "ImportError")


def _hint(check: Check, mistake: Mistake | None, outcome: Outcome) -> int | None:
    """The hint for a failed check; none for a slip that has nothing to do with the method."""
    if mistake is not None:
        return mistake.hint or check.hint
    slip = isinstance(outcome, Raised) and outcome.type_name in _NOT_ABOUT_THE_METHOD
    return None if slip or isinstance(outcome, Stopped) else check.hint


def _alike(a: Outcome, b: Outcome) -> bool:
    """Whether two failures are of one kind, so that shrinking stays with the reader's mistake."""
    if isinstance(a, Raised) and isinstance(b, Raised):
        return a.type_name == b.type_name
    return type(a) is type(b)


def _call_text(check: Check, function: str, args: Args) -> str:
    if check.probe in _SEVERAL_CALLS:
        return f"`{function}`"
    shown = [show(arg, _ARGUMENT_CHARACTERS) for arg in args]
    if check.probe in ("interleave", "drain"):
        shown[0] = f"iter({shown[0]})"
    text = ", ".join(shown)
    return f"`{function}({text})`" if len(text) <= _CALL_CHARACTERS else f"`{function}`"
