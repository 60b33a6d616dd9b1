"""Which mistake of the bank explains what a reader's function did."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gptbook.grading.exercise import Check, Mistake
from gptbook.grading.outcomes import Outcome, Raised, Returned, StopKind, Stopped

Observe = Callable[[Mistake, Check], Sequence[Outcome]]
Passes = Callable[[Check, Sequence[Outcome]], bool]

_TELLING_STOPS = frozenset([StopKind.CPU, StopKind.WALL, StopKind.MEMORY])


def outcomes_agree(check: Check, a: Sequence[Outcome], b: Sequence[Outcome]) -> bool:
    """Whether two functions did the same on all cases of a check."""
    return len(a) == len(b) and all(_agree(check, one, two) for one, two in zip(a, b, strict=True))


def _agree(check: Check, a: Outcome, b: Outcome) -> bool:
    match a, b:
        case Returned(), Returned():
            return _same(check, a.value, b.value) and (not check.pure or a.changed == b.changed)
        case Raised(), Raised():
            return a.type_name == b.type_name and a.loading == b.loading
        case Stopped(), Stopped():
            return a.kind is b.kind
        case _:
            return type(a) is type(b)


def _same(check: Check, a: Any, b: Any) -> bool:
    try:
        return check.same(a, b)
    except Exception:  # noqa: BLE001 - a reader's value may be anything at all
        return False


class Identifier:
    """Names mistakes for one part's failed checks.

    A mistake is named for a check only if it is the one mistake that gives the reader's outcomes on
    all of the check's cases. Two more looks keep a name from being wrong: a mistake that fails a
    check which the reader passed is out; and where several are left, only one that agrees with the
    reader on every other check is named.

    Args:
        mistakes: the part's bank.
        reader: outcomes of the reader's function by check, of those that were run.
        passed: the checks among them that it passed.
        observe: outcomes of a mistake on a check's same cases.
        passes: whether outcomes pass a check.
    """

    def __init__(
        self,
        mistakes: Sequence[Mistake],
        reader: Mapping[str, tuple[Check, Sequence[Outcome]]],
        passed: frozenset[str],
        observe: Observe,
        passes: Passes,
    ) -> None:
        self._mistakes = mistakes
        self._reader = reader
        self._passed = passed
        self._observe = observe
        self._passes = passes

    def name(self, check: Check) -> Mistake | None:
        """The one mistake that explains a failed check, if there is exactly one."""
        outcomes = self._reader[check.name][1]
        if any(isinstance(item, Stopped) and item.kind not in _TELLING_STOPS for item in outcomes):
            return None
        pool = list(self._mistakes)
        if _is_measured(check):  # measuring takes long: only where all else agrees
            pool = [m for m in pool if self._agrees_on(m, self._others(check, measured=False))]
        pool = [mistake for mistake in pool if self._agrees(mistake, check)]
        pool = [mistake for mistake in pool if not self._contradicted(mistake)]
        for measured in (False, True):
            if len(pool) > 1:
                pool = [m for m in pool if self._agrees_on(m, self._others(check, measured))]
        return pool[0] if len(pool) == 1 else None

    def _agrees(self, mistake: Mistake, check: Check) -> bool:
        outcomes = self._reader[check.name][1]
        return outcomes_agree(check, outcomes, self._observe(mistake, check))

    def _agrees_on(self, mistake: Mistake, checks: Iterable[Check]) -> bool:
        return all(self._agrees(mistake, check) for check in checks)

    def _contradicted(self, mistake: Mistake) -> bool:
        return any(
            other.name in self._passed and not self._passes(other, self._observe(mistake, other))
            for other in self._others(None, measured=False)
        )

    def _others(self, check: Check | None, measured: bool) -> list[Check]:
        """The checks that were run on the reader's function, but for one."""
        checks = [other for other, _ in self._reader.values() if other is not check]
        return [other for other in checks if measured or not _is_measured(other)]


def _is_measured(check: Check) -> bool:
    return check.attempts > 1
