"""How an exercise is declared: its checks, its mistakes, its hints.

A chapter's module in this package has a function ``chapter()`` that returns a :class:`Chapter`.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from gptbook.grading.compare import EXACT, Tolerance, difference, same, show
from gptbook.grading.growth import growth_exponent
from gptbook.grading.limits import Limits
from gptbook.grading.program import slice_program
from gptbook.grading.shortcuts import Forbidden

Args = tuple[Any, ...]
Draw = Callable[[random.Random], Sequence[Args]]
Make = Callable[[random.Random, int], Args]
Verify = Callable[[Args, Any], str | None]
Same = Callable[[Any, Any], bool]

_SHORT = 70  # characters of a value that is shown whole


class Kind(StrEnum):
    """What a check looks at; checks of a part stand in this order."""

    CONTRACT = "contract"
    PROPERTY = "property"
    ORACLE = "oracle"
    BEHAVIOR = "behavior"


@dataclass(frozen=True)
class Check:
    """One row of the report: cases, and what must hold for each.

    Attributes:
        name: what a correct function does, in a few words.
        kind: see :class:`Kind`.
        points: what passing it is worth.
        draw: makes the cases, afresh from a random stream; each is the probe's arguments.
        verify: gets a case's arguments and the probe's value; None if right, else a predicate that
            says what is wrong, such as ``"returns 3, expected 4"``.
        needs: names of earlier checks of the part without which this one says nothing.
        probe: how the function is called; see :mod:`gptbook.grading.probes`.
        limits: what the isolated process may use for all cases together.
        legal: whether arguments are legal; where given, a failing case is shrunk within it.
        pure: the function must leave its arguments as they were.
        same: whether two values are the same answer, to tell which mistake gives the reader's.
        attempts: how often it may be tried before it counts as failed; more than 1 only for what
            is measured in seconds.
        hint: the step of the ladder that helps where this check fails, counted from 1.
    """

    name: str
    kind: Kind
    points: int
    draw: Draw
    verify: Verify
    needs: tuple[str, ...] = ()
    probe: str = "call"
    limits: Limits = field(default_factory=Limits)
    legal: Callable[..., bool] | None = None
    pure: bool = False
    same: Same = same
    attempts: int = 1
    hint: int = 1


@dataclass(frozen=True)
class Mistake:
    """A wrong solution that people really write.

    Attributes:
        name: a few words, as one would name it to a colleague.
        explanation: two sentences: what goes wrong, and what to do.
        section: the chapter's heading that explains it.
        loss: points it costs, of its part's points.
        source: the whole wrong solution.
        hint: the step of the ladder that helps; None for that of the check that failed.
    """

    name: str
    explanation: str
    section: str
    loss: int
    source: str
    hint: int | None = None


@dataclass(frozen=True)
class Part:
    """One function to write.

    Attributes:
        function: its name.
        checks: in the order of :class:`Kind`.
        reference: source of a correct function of that name; later parts run on it.
        mistakes: the bank.
        styles: other correct solutions by name, which must get full marks.
        forbidden: shortcuts.
        replaces: ``"module:name"`` of the book's function that a reader's one can stand in for.
        adapter: source of a function ``replacement`` that is put there and calls the reader's one,
            where the book's has other arguments; empty where it has the same.
        preload: modules that the isolated process has loaded from the start, so that no check waits
            for them; the guard looks at numpy.testing wherever numpy is used.
    """

    function: str
    checks: tuple[Check, ...]
    reference: str
    mistakes: tuple[Mistake, ...] = ()
    styles: Mapping[str, str] = field(default_factory=dict)
    forbidden: Forbidden = field(default_factory=Forbidden)
    replaces: str | None = None
    adapter: str = ""
    preload: tuple[str, ...] = ("numpy", "numpy.testing")

    def __post_init__(self) -> None:
        names: list[str] = []
        for check in self.checks:
            missing = [name for name in check.needs if name not in names]
            if missing:
                raise ValueError(f"{check.name!r} needs {missing}, which no check before it is")
            names.append(check.name)
        kinds = [list(Kind).index(check.kind) for check in self.checks]
        if len(set(names)) != len(names) or kinds != sorted(kinds):
            raise ValueError(f"checks of {self.function}: names must differ, kinds be in order")

    @property
    def points(self) -> int:
        """Points of all checks."""
        return sum(check.points for check in self.checks)


@dataclass(frozen=True)
class Exercise:
    """An exercise of one or more parts, ``name`` being its number, such as ``"1.2"``."""

    name: str
    title: str
    parts: tuple[Part, ...]
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named: list[Check | Mistake] = []
        for part in self.parts:
            named += [*part.checks, *part.mistakes]
        for item in named:
            if self.hints and item.hint is not None and not 1 <= item.hint <= len(self.hints):
                raise ValueError(f"{self.name}: {item.name!r} names hint {item.hint}, which is not")

    @property
    def points(self) -> int:
        """Points of all parts."""
        return sum(part.points for part in self.parts)


@dataclass(frozen=True)
class Chapter:
    """The exercises of a chapter, ``source`` being its file's name without suffix."""

    number: int
    source: str
    exercises: tuple[Exercise, ...]

    def select(self, only: str | None) -> tuple[Exercise, ...]:
        """All exercises, or the one of a name.

        Raises:
            ValueError: there is no such exercise.
        """
        if only is None:
            return self.exercises
        chosen = tuple(exercise for exercise in self.exercises if exercise.name == only)
        if not chosen:
            names = ", ".join(exercise.name for exercise in self.exercises)
            raise ValueError(f"chapter {self.number} has no exercise {only!r}; it has {names}")
        return chosen


def source_of(function: Callable[..., Any]) -> str:
    """Source of a function of a module, with all that it needs from the module's top level.

    Raises:
        ValueError: it needs this package, which the process that runs it must not have.
    """
    path = inspect.getsourcefile(function)
    if path is None:
        raise ValueError(f"{function.__name__} has no source file")
    name = function.__name__
    source = slice_program([Path(path).read_text(encoding="utf-8")], name).source
    if "gptbook.grading" in source:
        raise ValueError(f"{name} must stand on its own, but imports from gptbook.grading")
    return source


def edited(source: str, *changes: tuple[str, str]) -> str:
    """A source with pieces of it replaced: a wrong solution as its difference from a right one.

    Raises:
        ValueError: a piece does not occur exactly once, so the mistake is not what it was.
    """
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times, wanted once")
        source = source.replace(old, new)
    return source


def oracle(
    name: str,
    points: int,
    draw: Draw,
    reference: Callable[..., Any],
    tolerance: Tolerance = EXACT,
    **options: Any,
) -> Check:
    """A check against a reference on drawn inputs.

    Args:
        name: see :class:`Check`; so is ``options``.
        points: see :class:`Check`.
        draw: see :class:`Check`.
        reference: computes the expected value from a case's arguments, slowly and surely.
        tolerance: how far a number may be from the reference's.
    """

    def verify(args: Args, value: Any) -> str | None:
        expected = reference(*args)
        found = difference(expected, value, tolerance)
        return None if found is None else _against(expected, value, found)

    def equal(a: Any, b: Any) -> bool:
        return same(a, b, tolerance)

    return Check(name, Kind.ORACLE, points, draw, verify, same=equal, **options)


def growth(
    name: str,
    points: int,
    make: Make,
    sizes: Sequence[int],
    exponent: float,
    **options: Any,
) -> Check:
    """A check that processor time grows no faster than size to a power.

    Noise makes a measured exponent uncertain by about 0.3, so ask for a power halfway between what
    a good and a bad function need, with sizes that span a factor of 8 or more.

    Args:
        name: see :class:`Check`; so is ``options``.
        points: see :class:`Check`.
        make: draws a call's arguments of a size.
        sizes: increasing, at least three.
        exponent: the largest power that passes.
    """
    chosen = tuple(sizes)

    def draw(stream: random.Random) -> Iterator[Args]:
        yield ([make(stream, size) for size in chosen],)

    def verify(_: Args, seconds: Any) -> str | None:
        return _too_steep(chosen, seconds, exponent)

    def equal(a: Any, b: Any) -> bool:
        return bool(_too_steep(chosen, a, exponent)) == bool(_too_steep(chosen, b, exponent))

    return Check(
        name,
        Kind.BEHAVIOR,
        points,
        lambda stream: list(draw(stream)),
        verify,
        probe="measure",
        same=equal,
        attempts=3,
        **options,
    )


def _too_steep(sizes: Sequence[int], seconds: Any, exponent: float) -> str | None:
    if not isinstance(seconds, list) or not all(isinstance(item, float) for item in seconds):
        return "could not be measured"
    if len(seconds) < 2:
        return f"takes {seconds[0]:.1f} s at size {sizes[0]}, too long to go on"
    measured = growth_exponent(sizes[: len(seconds)], seconds)
    if measured <= exponent:
        return None
    last = len(seconds) - 1
    return (
        f"takes time that grows like size to the {measured:.1f}; to the {exponent:.1f} is allowed "
        f"({1000 * seconds[0]:.1f} ms at size {sizes[0]}, {1000 * seconds[last]:.0f} ms at "
        f"{sizes[last]})"
    )


def _against(expected: Any, value: Any, found: str) -> str:
    """Make a difference a predicate: the whole values where they are short, then the place."""
    whole = f"gives {show(value)}, expected {show(expected)}"
    if found.startswith("is "):
        return whole
    if len(show(value)) <= _SHORT and len(show(expected)) <= _SHORT:
        return f"{whole}: {found}"
    return f"gives a wrong value: {found}"
