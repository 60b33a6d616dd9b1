"""Exercise 6.3: warm-up and cosine, at their boundaries: its checks."""

import math
import random
from functools import partial
from itertools import pairwise
from typing import Any

from gptbook.grading import compare
from gptbook.grading.ch06_training.common import number_problem
from gptbook.grading.compare import Tolerance
from gptbook.grading.exercise import Args, Check, Kind, Verify, source_of


def learning_rate(
    step: int, max_lr: float, warmup_steps: int, total_steps: int, min_lr: float
) -> float:
    """Return the rate of a step: a linear warm-up, then half a cosine down to min_lr."""
    if step >= total_steps:
        return min_lr
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))


# --- inputs: step, max_lr, warmup_steps, total_steps, min_lr ---


def rates(stream: random.Random) -> tuple[float, float]:
    """The highest and the lowest rate, which is not 0."""
    highest = stream.uniform(0.1, 1.0)
    return highest, highest * stream.uniform(0.1, 0.3)


def calls(stream: random.Random, warmup: int, total: int, steps: Any) -> Args:
    """A call for each of some steps of one schedule."""
    highest, lowest = rates(stream)
    return tuple((step, highest, warmup, total, lowest) for step in steps)


def draw_forms(stream: random.Random) -> list[Args]:
    """Somewhere in each part."""
    return [calls(stream, 5, 20, (2, 12, 25))]


def draw_rise(stream: random.Random) -> list[Args]:
    """All steps of a warm-up, and the first one behind it."""
    warmup = stream.randint(3, 6)
    return [calls(stream, warmup, warmup + 20, range(warmup + 1))]


def draw_fall(stream: random.Random) -> list[Args]:
    """All steps from the end of the warm-up on, beyond the end."""
    warmup = stream.randint(3, 6)
    return [calls(stream, warmup, warmup + 10, range(warmup, warmup + 25))]


def draw_warmup(stream: random.Random) -> list[Args]:
    """Step 0 and others of the warm-up; a warm-up of one step."""
    warmup = stream.randint(4, 9)
    return [
        calls(stream, warmup, warmup + 20, (0, 1, warmup // 2, warmup - 1)),
        calls(stream, 1, 12, (0,)),
    ]


def draw_top(stream: random.Random) -> list[Args]:
    """The first step behind the warm-up, which has the highest rate."""
    warmup = stream.randint(3, 9)
    return [calls(stream, warmup, warmup + 20, (warmup,))]


def draw_cosine(stream: random.Random) -> list[Args]:
    """Steps of the fall: the first one behind the top, the middle, others."""
    warmup, half = stream.randint(3, 9), stream.randint(5, 9)
    steps = (warmup + 1, warmup + half // 2, warmup + half, warmup + half + 2)
    return [calls(stream, warmup, warmup + 2 * half, steps)]


def draw_end(stream: random.Random) -> list[Args]:
    """The last step, the one behind it, and later ones."""
    warmup = stream.randint(3, 6)
    total = warmup + stream.randint(5, 12)
    steps = (total - 1, total, total + 1, total + stream.randint(3, 9), 3 * total)
    return [calls(stream, warmup, total, steps)]


def draw_missing(stream: random.Random) -> list[Args]:
    """No warm-up, also where there is one step only; nothing but warm-up."""
    warmup = stream.randint(3, 6)
    return [
        calls(stream, 0, 10, (0, 1, 5)),
        calls(stream, 0, 1, (0, 1)),
        calls(stream, warmup, warmup, (0, warmup - 1, warmup, warmup + 3)),
    ]


# --- verdicts ---

CLOSE = Tolerance(1e-5, "float32 would do: a rate is no more exact than that")


def exact_rate(step: int, max_lr: float, warmup: int, total: int, min_lr: float) -> float:
    """The rate, from the squared cosine of half the angle."""
    if step >= total:
        return min_lr
    if step < warmup:
        return max_lr * (step + 1) / (warmup + 1)
    share = math.cos(math.pi / 2 * (step - warmup) / (total - warmup)) ** 2
    return share * max_lr + (1 - share) * min_lr


def place(args: Any) -> str:
    """Which step of which schedule a call is about, in words."""
    step, highest, warmup, total, lowest = args
    return (
        f"for step {step} of {total}, {warmup} of them warm-up, between {highest:.4g} and "
        f"{lowest:.4g}"
    )


def numbers_problem(args: Args, value: Any) -> str | None:
    """Whether the answers are numbers."""
    for one, got in zip(args, value, strict=True):
        problem = number_problem(got, "a number")
        if problem:
            return f"{problem} {place(one)}"
    return None


def first_wrong(args: Args, value: Any) -> str | None:
    """The first step whose rate is wrong."""
    problem = numbers_problem(args, value)
    if problem:
        return problem
    for one, got in zip(args, value, strict=True):
        expected = exact_rate(*one)
        if compare.difference(expected, float(got), CLOSE):
            return f"gives {float(got):.6g} {place(one)}; expected {expected:.6g}"
    return None


def monotone(sign: int, what: str) -> Verify:
    """A verdict that the rates rise, or fall, and stay within the two rates."""

    def verify(args: Args, value: Any) -> str | None:
        problem = numbers_problem(args, value)
        if problem:
            return problem
        got = [float(item) for item in value]
        slack = 1e-6 * args[0][1]
        for one, (before, after) in zip(args[1:], pairwise(got), strict=True):
            if not sign * (after - before) >= -slack:
                return f"gives {after:.6g} after {before:.6g} {place(one)}: the rate is to {what}"
        for one, rate in zip(args, got, strict=True):
            if not 0 < rate <= one[1] + slack:
                return f"gives {rate:.6g} {place(one)}: no step may be wasted on a rate of zero"
        return None

    return verify


def same_rates(a: Any, b: Any) -> bool:
    """Whether two functions gave the same rates."""
    return compare.same([float(x) for x in a], [float(x) for x in b], CLOSE)


FORM = "returns a number"
RISE = "rises in the warm-up, from above zero"
FALL = "never rises again after it"
WARMUP = "the rates of the warm-up, step 0 among them"
TOP = "step `warmup_steps` has the highest rate"
COSINE = "half a cosine between the two rates"
END = "the last step, and those behind it"
MISSING = "no warm-up at all; nothing but warm-up"

_check = partial(Check, probe="call_each", same=same_rates)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, numbers_problem),
    _check(RISE, Kind.PROPERTY, 1, draw_rise, monotone(1, "rise in the warm-up"), hint=1),
    _check(FALL, Kind.PROPERTY, 1, draw_fall, monotone(-1, "fall, and then stay"), hint=4),
    _check(WARMUP, Kind.ORACLE, 2, draw_warmup, first_wrong, hint=1),
    _check(TOP, Kind.ORACLE, 1, draw_top, first_wrong, hint=2),
    _check(COSINE, Kind.ORACLE, 2, draw_cosine, first_wrong, hint=3),
    _check(END, Kind.ORACLE, 2, draw_end, first_wrong, hint=4),
    _check(MISSING, Kind.ORACLE, 2, draw_missing, first_wrong, hint=4),
)

REFERENCE = source_of(learning_rate)
