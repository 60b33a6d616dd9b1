"""Exercise 3.4: frequencies of rotary positions for texts longer than those trained on: checks."""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch03_embeddings.common import is_float_tensor
from gptbook.grading.exercise import Args, Check, Draw, Kind, source_of


def stretched_frequencies(
    kind: str,
    d_head: int,
    base: float,
    factor: float,
    original_context_length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> Tensor:
    """Return each pair's frequency, (D/2,), for texts that are `factor` times longer."""
    exponents = torch.arange(0, d_head, 2, dtype=torch.float64) / d_head
    if kind == "ntk":
        base = base * factor ** (d_head / (d_head - 2))
    frequencies = base**-exponents
    if kind == "ntk":
        return frequencies
    if kind == "linear":
        return frequencies / factor

    def pair_that_turns(times: float) -> float:
        turns = original_context_length / (2 * math.pi * times)
        return d_head * math.log(turns) / (2 * math.log(base))

    low = max(math.floor(pair_that_turns(beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(beta_slow)), d_head - 1)
    share = ((torch.arange(d_head // 2) - low) / (high - low)).clamp(0, 1)
    return share * frequencies / factor + (1 - share) * frequencies


# --- inputs ---

KINDS = ("linear", "ntk", "yarn")
Setting = tuple[int, float, float, int, float, float]


def ramp_ends(setting: Setting) -> tuple[float, float]:
    """The pairs that turn beta_fast and beta_slow times, before rounding."""
    d_head, base, _, length, fast, slow = setting
    ends = [math.log(length / (2 * math.pi * beta)) / math.log(base) for beta in (fast, slow)]
    return d_head / 2 * ends[0], d_head / 2 * ends[1]


def is_clear(setting: Setting) -> bool:
    """Whether rounding the ramp's ends is not a matter of the last digit, and it goes upwards."""
    first, last = ramp_ends(setting)
    sure = all(0.02 < end % 1 < 0.98 for end in (first, last))
    return sure and max(first, 0) + 1.2 < min(last, setting[0] - 1)


def draw_setting(
    stream: random.Random, wanted: Callable[[float, float, int], bool], usual: bool
) -> Setting:
    """A model's settings for whose ramp something holds; it is asked with ends and D."""
    while True:
        setting = (
            stream.choice((32, 64) if usual else (8, 12, 16)),
            round(10 ** stream.uniform(*((3.9, 4.8) if usual else (1.2, 3.0))), 1),
            stream.choice((2.5, 4.0, 8.0)),
            stream.randint(2000, 5000) if usual else stream.choice((96, 150, 700, 5000)),
            32.0 if usual else stream.choice((32.0, 200.0)),
            1.0 if usual else stream.choice((1.0, 2.5)),
        )
        if is_clear(setting) and wanted(*ramp_ends(setting), setting[0]):
            return setting


def inside(first: float, last: float, d_head: int) -> bool:
    """Whether the ramp has pairs before it and behind it, so that nothing is cut off."""
    return first > 1 and last < d_head / 2 - 2


def draw_kind(*kinds: str) -> Draw:
    """Usual settings for the kinds."""

    def draw(stream: random.Random) -> list[Args]:
        settings = [draw_setting(stream, inside, usual=True)[:4] for _ in range(3)]
        return [(kind, *setting) for setting in settings for kind in kinds]

    return draw


def draw_factor_one(stream: random.Random) -> list[Args]:
    """Texts that are not longer at all."""
    d_head, base, _, length, *_ = draw_setting(stream, inside, usual=True)
    return [(kind, d_head, base, 1.0, length) for kind in KINDS]


def draw_betas(stream: random.Random) -> list[Args]:
    """Other ends of the ramp, still within the pairs."""
    cases: list[Args] = []
    for fast, slow in ((16.0, 2.0), (64.0, 1.5), (24.0, 0.7)):
        while True:
            setting = (*draw_setting(stream, inside, usual=True)[:4], fast, slow)
            ends = ramp_ends(setting)
            usual = ramp_ends((*setting[:4], 32.0, 1.0))
            moved = math.floor(ends[0]) != math.floor(usual[0]) or math.ceil(ends[1]) != math.ceil(
                usual[1]
            )
            if is_clear(setting) and inside(*ends, setting[0]) and moved:
                break
        cases.append(("yarn", *setting))
    return cases


def draw_ends(stream: random.Random) -> list[Args]:
    """Ramps that begin before the first pair, or end behind the last one, or behind number D."""

    def begins_early(first: float, last: float, d_head: int) -> bool:
        return first < -0.1 and 1.5 < last < d_head / 2 - 1

    def ends_late(first: float, last: float, d_head: int) -> bool:
        return 0 < first < d_head / 2 - 2 and d_head / 2 < last < d_head - 2

    def ends_behind_all(first: float, last: float, d_head: int) -> bool:
        return 0 < first < d_head / 2 - 2 and last > d_head

    wanted = (begins_early, begins_early, ends_late, ends_late, ends_behind_all)
    return [("yarn", *draw_setting(stream, which, usual=False)) for which in wanted]


def legal(
    kind: str,
    d_head: int,
    base: float,
    factor: float,
    original_context_length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> bool:
    """Whether the arguments are those of a model whose ramp is a ramp."""
    if kind not in KINDS or d_head < 4 or d_head % 2 or factor < 1 or base < 10:
        return False
    if not original_context_length > 40 * beta_slow > 0 or beta_fast <= beta_slow:
        return False
    return is_clear((d_head, base, factor, original_context_length, beta_fast, beta_slow))


# --- verdicts ---

# Each frequency for itself: the slowest ones are a millionth of the fastest, and they are what is
# stretched. In float32 a power of the base is right to some 1e-6.
RELATIVE = 1e-5


def ratios_differ(expected: Tensor, got: Tensor) -> int | None:
    """The first number that is not the expected one; None where all are."""
    close = (got.double() - expected.double()).abs() <= RELATIVE * expected.double().abs()
    return None if bool(close.all()) else int((~close).nonzero()[0])


def same_frequencies(a: Any, b: Any) -> bool:
    """Whether two answers are the same frequencies, NaN and infinity included."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    return a.shape == b.shape and torch.allclose(
        a.double(), b.double(), rtol=RELATIVE, atol=0.0, equal_nan=True
    )


def has_the_form(args: Args, value: Any) -> str | None:
    """A frequency for each pair."""
    return is_float_tensor(value, (args[1] // 2,))


def are_expected(args: Args, value: Any) -> str | None:
    """Every frequency, whatever its size."""
    expected = stretched_frequencies(*args)
    problem = has_the_form(args, value)
    pair = None if problem else ratios_differ(expected, value)
    if pair is None:
        return problem
    slower = args[2] ** (-2 * pair / args[1]) / expected[pair].item()
    return (
        f"gives pair {pair} the frequency {value[pair].item():.6g}, expected "
        f"{expected[pair].item():.6g}, which is {slower:.4g} times slower than before"
    )


FORM = "returns a frequency for each pair"
UNCHANGED = "a factor of 1 changes nothing"
LINEAR = "linear: position interpolation"
NTK = "ntk: a larger base"
YARN = "yarn: only what turns slowly"
BETAS = "yarn: other ends of the ramp"
ENDS = "yarn: a ramp that is cut off"


def _check(
    name: str,
    kind: Kind,
    points: int,
    draw: Draw,
    hint: int,
    verify: Callable[[Args, Any], str | None] = are_expected,
) -> Check:
    needs = (FORM,) if name != FORM else ()
    return Check(
        name, kind, points, draw, verify, needs, legal=legal, same=same_frequencies, hint=hint
    )


CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_kind(*KINDS), 1, has_the_form),
    _check(UNCHANGED, Kind.PROPERTY, 1, draw_factor_one, 1),
    _check(LINEAR, Kind.ORACLE, 1, draw_kind("linear"), 1),
    _check(NTK, Kind.ORACLE, 2, draw_kind("ntk"), 2),
    _check(YARN, Kind.ORACLE, 3, draw_kind("yarn"), 3),
    _check(BETAS, Kind.ORACLE, 1, draw_betas, 3),
    _check(ENDS, Kind.ORACLE, 2, draw_ends, 4),
)

REFERENCE = source_of(stretched_frequencies)
