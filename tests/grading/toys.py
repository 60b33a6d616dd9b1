"""Two toy exercises for the engine's tests: a running mean, and a softmax."""

import random
import textwrap

import numpy as np
from numpy.typing import NDArray

from gptbook.grading.compare import rounding
from gptbook.grading.exercise import Args, Check, Exercise, Kind, Mistake, Part, growth, oracle
from gptbook.grading.limits import Limits
from gptbook.grading.shortcuts import Forbidden

QUICK = Limits(cpu_seconds=1, wall_seconds=3.0)


def code(text: str) -> str:
    return textwrap.dedent(text).strip() + "\n"


RUNNING_MEAN = code(
    """
    def running_mean(values, width):
        total, means = 0.0, []
        for i, value in enumerate(values):
            total += value - (values[i - width] if i >= width else 0)
            means.append(total / min(i + 1, width))
        return means
    """
)


def mean_by_hand(values: list[int], width: int) -> list[float]:
    windows = [values[max(0, i + 1 - width) : i + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def draw_means(stream: random.Random) -> list[Args]:
    cases: list[Args] = [([], 3), ([4], 1)]
    for _ in range(8):
        size = stream.randint(5, 30)
        cases.append(([stream.randint(-99, 99) for _ in range(size)], stream.randint(2, 6)))
    return cases


def legal_mean(values: list[int], width: int) -> bool:
    return width >= 1 and all(isinstance(value, int) for value in values)


def is_list_of_floats(args: Args, value: object) -> str | None:
    if not isinstance(value, list) or not all(isinstance(item, float) for item in value):
        return f"gives {value!r}, expected a list of floats"
    return None


def has_one_each(args: Args, value: list[float]) -> str | None:
    size = len(args[0])
    return None if len(value) == size else f"gives {len(value)} means for {size} values"


def draw_long(stream: random.Random, size: int) -> Args:
    return [stream.randint(-99, 99) for _ in range(size)], size // 2


MEAN_CHECKS = (
    Check(
        "returns a list of floats",
        Kind.CONTRACT,
        1,
        lambda stream: [([1, 2, 3, 4], 2)],
        is_list_of_floats,
        pure=True,
        limits=QUICK,
    ),
    Check(
        "one mean for each value",
        Kind.PROPERTY,
        1,
        draw_means,
        has_one_each,
        needs=("returns a list of floats",),
        legal=legal_mean,
        limits=QUICK,
    ),
    oracle(
        "means of the last values",
        3,
        draw_means,
        mean_by_hand,
        rounding("float64", 100),
        needs=("returns a list of floats",),
        legal=legal_mean,
        limits=QUICK,
        hint=2,
    ),
    growth(
        "time grows like the number of values",
        2,
        draw_long,
        (250, 500, 1000, 2000),
        1.5,
        needs=("means of the last values",),
        hint=3,
    ),
)

MEAN_MISTAKES = (
    Mistake(
        "Divides by the width at the start",
        "The first windows hold fewer values than the width. Divide by how many there are.",
        "Windows",
        3 + 2,
        RUNNING_MEAN.replace("min(i + 1, width)", "width"),
    ),
    Mistake(
        "Only full windows",
        "Means of windows that are not full are left out. Give one for each value.",
        "Windows",
        1 + 3 + 2,
        code(
            """
            def running_mean(values, width):
                last = len(values) - width + 1
                return [sum(values[i : i + width]) / width for i in range(last)]
            """
        ),
    ),
    Mistake(
        "Adds each window anew",
        "Each mean adds up its whole window, so the work grows like the square. Keep a sum.",
        "Running sums",
        2,
        code(
            """
            def running_mean(values, width):
                windows = [values[max(0, i + 1 - width) : i + 1] for i in range(len(values))]
                return [sum(window) / len(window) for window in windows]
            """
        ),
    ),
    Mistake(
        "Takes values away from the caller's list",
        "Popping from the list changes it for the caller too. Work on a copy.",
        "Windows",
        1 + 1 + 3 + 2,
        code(
            """
            def running_mean(values, width):
                means, window = [], []
                while values:
                    window = (window + [values.pop(0)])[-width:]
                    means.append(sum(window) / len(window))
                return means
            """
        ),
    ),
)

MEAN = Exercise(
    "0.1",
    "A running mean",
    (
        Part(
            "running_mean",
            MEAN_CHECKS,
            RUNNING_MEAN,
            MEAN_MISTAKES,
            {
                "numpy": code(
                    """
                    import numpy as np

                    def running_mean(values, width):
                        sums = np.concatenate([[0.0], np.cumsum(values)])
                        end = np.arange(1, len(values) + 1)
                        start = np.maximum(0, end - width)
                        return ((sums[end] - sums[start]) / (end - start)).tolist()
                    """
                ),
                "deque": code(
                    """
                    from collections import deque

                    def running_mean(values, width):
                        window, total, means = deque(), 0, []
                        for value in values:
                            window.append(value)
                            total += value
                            if len(window) > width:
                                total -= window.popleft()
                            means.append(total / len(window))
                        return means
                    """
                ),
            },
            Forbidden(modules=("statistics",), calls=("numpy.convolve", ".rolling")),
        ),
    ),
    ("Which values are in the i-th window?", "How many are there at first?", "Keep a sum."),
)

SHIFT = code(
    """
    import numpy as np

    def shift(x, axis):
        return x - x.max(axis=axis, keepdims=True)
    """
)
SOFTMAX = code(
    """
    import numpy as np

    def softmax(x, axis):
        weights = np.exp(shift(x, axis))
        return weights / weights.sum(axis=axis, keepdims=True)
    """
)


def softmax_by_hand(x: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    result: NDArray[np.float64] = weights / weights.sum(axis=axis, keepdims=True)
    return result


def shift_by_hand(x: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    result: NDArray[np.float64] = x - x.max(axis=axis, keepdims=True)
    return result


def draw_logits(stream: random.Random) -> list[Args]:
    draw = np.random.default_rng(stream.getrandbits(64))
    return [(draw.normal(size=(3, 5)) * 10.0**power, power % 2) for power in range(4)]


def sums_to_one(args: Args, value: NDArray[np.float64]) -> str | None:
    sums = value.sum(axis=args[1])
    if np.abs(sums - 1).max() < 1e-9:
        return None
    return f"sums to {sums.ravel()[0]:.3g} along axis {args[1]}, expected 1"


SOFTMAX_EXERCISE = Exercise(
    "0.2",
    "A softmax",
    (
        Part(
            "shift",
            (oracle("takes the largest away", 1, draw_logits, shift_by_hand),),
            SHIFT,
        ),
        Part(
            "softmax",
            (
                Check("sums to one", Kind.PROPERTY, 1, draw_logits, sums_to_one),
                oracle(
                    "equals the formula", 2, draw_logits, softmax_by_hand, rounding("float64", 20)
                ),
            ),
            SOFTMAX,
            (
                Mistake(
                    "Ignores the axis",
                    "It sums along the last axis always. Sum along the one that is given.",
                    "Softmax",
                    3,
                    SOFTMAX.replace("axis=axis", "axis=-1"),
                ),
                Mistake(
                    "Forgets to divide",
                    "The weights are positive but do not sum to one. Divide by their sum.",
                    "Softmax",
                    3,
                    SOFTMAX.replace(" / weights.sum(axis=axis, keepdims=True)", ""),
                ),
            ),
        ),
    ),
)
