"""Exercise 2.4: the entropy rate of a Markov source whose transitions are known."""

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbook.grading.ch02_language_models.common import READY_MADE, SECTIONS, is_number
from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Draw, Kind, Mistake, Part, edited, source_of

Matrix = NDArray[np.float64]


def entropy_rate(transition: NDArray[np.float64]) -> float:
    """Return the bits per step of a Markov chain: its rows' entropies, weighted by time spent."""
    n = len(transition)
    # The shares satisfy share @ transition == share; one equation is redundant, so the last one
    # is replaced by the one that makes them sum to one.
    equations = transition.T - np.eye(n)
    equations[-1] = 1.0
    share = np.linalg.solve(equations, np.eye(n)[-1])
    positive = np.where(transition > 0, transition, 1.0)
    row_entropy = -(transition * np.log2(positive)).sum(axis=1)
    return float(share @ row_entropy)


# --- inputs ---


def draw_row(stream: random.Random, size: int, sharpness: float) -> list[float]:
    """Positive probabilities that sum to one; the sharper, the less alike."""
    weights = [stream.uniform(0.1, 1.0) ** sharpness for _ in range(size)]
    return [weight / sum(weights) for weight in weights]


def draw_matrix(stream: random.Random, size: int) -> Matrix:
    """Transitions without zeros, which forget their start at once; rows of unlike entropy.

    Every state is reached from every other with 0.2 / size or more, so what is left of the start
    after 1,000 steps is below rounding.
    """
    sharpness = [stream.choice([0.5, 6.0]) for _ in range(size - 2)]
    rows = np.array([draw_row(stream, size, power) for power in (0.2, 9.0, *sharpness)])
    matrix: Matrix = 0.8 * rows + 0.2 / size
    return matrix


def shuffled(stream: random.Random, matrix: Matrix) -> Matrix:
    """The same chain with its states in another order."""
    order = stream.sample(range(len(matrix)), len(matrix))
    return matrix[np.ix_(order, order)]


def draw_any(stream: random.Random) -> list[Args]:
    """Chains of two to seven states without zeros."""
    return [(shuffled(stream, draw_matrix(stream, size)),) for size in (2, 3, 3, 4, 5, 7)]


def draw_memoryless(stream: random.Random) -> list[Args]:
    """Chains whose rows are alike: what comes next does not depend on the state."""
    return [(np.array([draw_row(stream, size, 2.0)] * size),) for size in (2, 3, 5)]


def draw_renamed(stream: random.Random) -> list[Args]:
    """A chain beside itself with its states in other orders; one of the chains is slow."""
    matrix = draw_matrix(stream, 4)
    ((slow,), _) = draw_slow(stream)
    return [
        ((matrix,), (np.roll(matrix, 1, axis=(0, 1)),), (shuffled(stream, matrix),)),
        ((slow,), (slow[::-1, ::-1].copy(),)),
    ]


def draw_zeros(stream: random.Random) -> list[Args]:
    """Chains in which some steps are impossible; they can stay where they are."""
    cases: list[Args] = []
    for size in (3, 4, 5, 6):
        matrix = draw_matrix(stream, size)
        for state in range(size):
            matrix[state, (state + 2) % size] = 0.0
        cases.append((shuffled(stream, matrix / matrix.sum(axis=1, keepdims=True)),))
    return cases


def draw_periodic(stream: random.Random) -> list[Args]:
    """Chains that go round through groups of states of unequal size."""
    cases: list[Args] = []
    for sizes in ((1, 3), (2, 4), (1, 2, 4)):
        n, starts = sum(sizes), np.cumsum((0, *sizes))
        matrix = np.zeros((n, n))
        for group in range(len(sizes)):
            after = (group + 1) % len(sizes)
            for state in range(starts[group], starts[group + 1]):
                row = draw_row(stream, sizes[after], 1.0)
                matrix[state, starts[after] : starts[after + 1]] = row
        cases.append((shuffled(stream, matrix),))
    return cases


def draw_slow(stream: random.Random) -> list[Args]:
    """Two groups of states, one nearly certain and one not, that are left in 1 of 10,000 steps."""
    cases: list[Args] = []
    for size, share in ((4, 0.2), (5, 0.8)):
        matrix = np.zeros((size, size))
        for state in range(size):
            group = range(2) if state < 2 else range(2, size)
            other = range(2, size) if state < 2 else range(2)
            leave = 1e-4 * (1 - share if state < 2 else share)
            row = draw_row(stream, len(group), 9.0 if state < 2 else 0.2)
            if state < 2:
                row = [0.95, 0.05] if state == 0 else [0.9, 0.1]
            matrix[state, group] = (1 - leave) * np.array(row)
            matrix[state, other] = leave / len(other)
        cases.append((matrix,))
    return cases


def draw_edges(stream: random.Random) -> list[Args]:
    """One state, a cycle without choice, and states that are left for good."""
    ring = np.roll(np.eye(stream.randint(2, 5)), 1, axis=1)
    left = np.zeros((4, 4))
    left[1:, 1:] = draw_matrix(stream, 3)
    left[0] = [0.5, 0.2, 0.2, 0.1]
    return [(np.ones((1, 1)),), (ring,), (left,)]


# --- verdicts ---

# The rows and shares of these chains are known to about 1e-12, slow ones included; 1e-6 leaves
# room for iterations that stop early. Rates that are not zero are above 0.01 bits.
RELATIVE, FLOOR = 1e-6, 1e-7


def near(expected: float, got: Any) -> bool:
    """Whether a rate is the expected one."""
    if not isinstance(got, int | float | np.number):
        return False
    return bool(abs(expected - got) <= RELATIVE * abs(expected) + FLOOR)


def is_expected(args: Args, value: Any) -> str | None:
    """The rate is the reference's."""
    expected = entropy_rate(*args)
    return None if near(expected, value) else f"gives {show(value)} bits, expected {expected:.7g}"


def is_the_rows_entropy(args: Args, value: Any) -> str | None:
    """Where all rows are alike, their entropy is the rate."""
    row = args[0][0]
    expected = float(-(row * np.log2(row)).sum())
    if near(expected, value):
        return None
    return (
        f"gives {show(value)} bits, expected the entropy of its rows, {expected:.7g}, "
        "since they are alike"
    )


def is_unmoved(_: Args, value: list[Any]) -> str | None:
    """For the probe `call_each`: the order of the states makes no difference."""
    for other in value[1:]:
        if not near(value[0], other):
            return (
                f"gives {show(value[0])} bits for a chain and {show(other)} for the same chain "
                "with its states numbered otherwise"
            )
    return None


def same_rate(a: Any, b: Any) -> bool:
    """Whether two answers are the same rate, or the same list of rates; NaN is NaN."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same_rate(x, y) for x, y in zip(a, b, strict=True))
    if not isinstance(a, int | float | np.number):
        return bool(type(a) is type(b))
    both_nan = a != a and isinstance(b, float | np.number) and b != b
    return bool(both_nan or near(float(a), b))


def legal(transition: Matrix) -> bool:
    """Whether rows are distributions and the chain settles in one way."""
    shape = np.shape(transition)
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0] or (transition < 0).any():
        return False
    if np.abs(transition.sum(axis=1) - 1).max() > 1e-9:
        return False
    rank = int(np.linalg.matrix_rank(transition.T - np.eye(len(transition))))
    return bool(rank == shape[0] - 1)


FORM = "returns a float"
MEMORYLESS = "rows that are alike"
RENAMED = "the numbering of states makes no difference"
ANY = "chains without zeros"
ZEROS = "steps that are impossible"
PERIODIC = "chains that go round"
SLOW = "chains that seldom change their ways"
EDGES = "one state, no choice, states left for good"


def _oracle(name: str, points: int, draw: Draw, hint: int) -> Check:
    return Check(
        name,
        Kind.ORACLE,
        points,
        draw,
        is_expected,
        needs=(FORM,),
        legal=legal,
        same=same_rate,
        hint=hint,
    )


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_any, is_number, pure=True, same=same_rate),
    Check(
        MEMORYLESS,
        Kind.PROPERTY,
        1,
        draw_memoryless,
        is_the_rows_entropy,
        needs=(FORM,),
        same=same_rate,
        hint=2,
    ),
    Check(
        RENAMED,
        Kind.PROPERTY,
        1,
        draw_renamed,
        is_unmoved,
        needs=(FORM,),
        probe="call_each",
        same=same_rate,
        hint=3,
    ),
    _oracle(ANY, 2, draw_any, 1),
    _oracle(ZEROS, 1, draw_zeros, 2),
    _oracle(PERIODIC, 2, draw_periodic, 4),
    _oracle(SLOW, 1, draw_slow, 4),
    _oracle(EDGES, 1, draw_edges, 4),
)

REFERENCE = source_of(entropy_rate)

FLOOR_SECTION, LIKELIHOOD = SECTIONS["floor"], SECTIONS["likelihood"]
SOLVE = "share = np.linalg.solve(equations, np.eye(n)[-1])"
ROWS = "row_entropy = -(transition * np.log2(positive)).sum(axis=1)"
ANSWER = "return float(share @ row_entropy)"

MISTAKES = (
    Mistake(
        "All states weigh the same",
        "The rows' entropies are averaged as if the chain were in each state equally often; the "
        "right eigenvector of the matrix, which is constant, leads there too. Weight them with the "
        "stationary distribution, the left eigenvector.",
        FLOOR_SECTION,
        7,
        edited(REFERENCE, (SOLVE, "share = np.full(n, 1 / n)")),
    ),
    Mistake(
        "The entropy of the stationary distribution",
        "This is what a model pays that does not look at the state at all. Take each row's "
        "entropy, which is what remains when the state is known, and weight those.",
        FLOOR_SECTION,
        7,
        edited(
            REFERENCE,
            (
                ANSWER,
                "share = share[share > 1e-12]\n    return float(-(share * np.log2(share)).sum())",
            ),
        ),
    ),
    Mistake(
        "The entropy of pairs",
        "The pairs of neighbors hold the state and the step, and you count both. Subtract the "
        "entropy of the state, which is known, or weight the rows' entropies.",
        FLOOR_SECTION,
        8,
        edited(
            REFERENCE,
            (
                ANSWER,
                "joint = share[:, None] * transition\n    joint = joint[joint > 1e-12]\n"
                "    return float(-(joint * np.log2(joint)).sum())",
            ),
        ),
    ),
    Mistake(
        "The rate is in nats",
        "`np.log` is the natural logarithm, so your number is in nats. Use `np.log2`, or divide by "
        "ln 2.",
        LIKELIHOOD,
        8,
        edited(REFERENCE, ("np.log2(", "np.log(")),
    ),
    Mistake(
        "Zero times minus infinity",
        "The logarithm of an impossible step is minus infinity, and times zero that is NaN. Such a "
        "step costs nothing: leave it out of the sum.",
        FLOOR_SECTION,
        4,
        edited(
            REFERENCE,
            ("    positive = np.where(transition > 0, transition, 1.0)\n", ""),
            ("np.log2(positive)", "np.log2(transition)"),
        ),
    ),
    Mistake(
        "Impossible steps are an error",
        "`math.log2` of zero raises ValueError. A step that cannot happen costs nothing: leave it "
        "out of the sum.",
        FLOOR_SECTION,
        4,
        edited(
            REFERENCE,
            ("import numpy as np", "import math\n\nimport numpy as np"),
            ("    positive = np.where(transition > 0, transition, 1.0)\n", ""),
            (ROWS, "row_entropy = [-sum(p * math.log2(p) for p in row) for row in transition]"),
        ),
    ),
    Mistake(
        "Entropies of columns",
        "Row i holds the next state's probabilities after i, and you add up along columns, which "
        "are no distributions. Sum over axis 1.",
        FLOOR_SECTION,
        8,
        edited(REFERENCE, ("sum(axis=1)", "sum(axis=0)")),
    ),
    Mistake(
        "The eigenvector is not normalized",
        "An eigenvector comes with length one, and shares must sum to one. Divide it by its sum.",
        FLOOR_SECTION,
        8,
        edited(REFERENCE, (SOLVE, f"{SOLVE}\n    share /= np.linalg.norm(share)")),
    ),
    Mistake(
        "The shares are not made to sum to one",
        "Without that equation the system has zero as a solution, and you get it. Replace one "
        "equation, or add one, that says that the shares sum to one.",
        FLOOR_SECTION,
        8,
        edited(
            REFERENCE,
            ("    equations[-1] = 1.0\n", ""),
            (SOLVE, "share = np.linalg.lstsq(equations, np.zeros(n), rcond=None)[0]"),
        ),
    ),
    Mistake(
        "Walks from the first state and stops",
        "After a fixed number of steps a chain that goes round is still in one of its groups, and "
        "one that seldom changes has not left the first. Solve for the shares.",
        FLOOR_SECTION,
        4,
        edited(REFERENCE, (SOLVE, "share = np.linalg.matrix_power(transition, 1000)[0]")),
    ),
    Mistake(
        "Walks from equal shares and stops",
        "Starting from equal shares helps neither a chain that goes round through groups of "
        "unequal size nor one that is slow. Solve for the shares.",
        FLOOR_SECTION,
        3,
        edited(
            REFERENCE,
            (SOLVE, "share = np.full(n, 1 / n) @ np.linalg.matrix_power(transition, 1000)"),
        ),
    ),
    Mistake(
        "The sign is forgotten",
        "Logarithms of probabilities are negative, and an entropy is not. Take the negative of the "
        "sum.",
        LIKELIHOOD,
        8,
        edited(REFERENCE, ("= -(transition", "= (transition")),
    ),
    Mistake(
        "The mean over the next states",
        "Within a row the costs are weighted by the probabilities already, and you divide by their "
        "number once more. Sum them.",
        FLOOR_SECTION,
        8,
        edited(REFERENCE, ("sum(axis=1)", "mean(axis=1)")),
    ),
    Mistake(
        "The logarithms are not weighted",
        "The costs of all next states are added up, however rare they are. Multiply each by its "
        "probability.",
        FLOOR_SECTION,
        8,
        edited(REFERENCE, ("-(transition * np.log2", "-(np.log2")),
    ),
    Mistake(
        "The rate is divided by its largest value",
        "You give a share of log2 of the number of states, which is between zero and one. What is "
        "asked is the rate itself, in bits.",
        FLOOR_SECTION,
        8,
        edited(
            REFERENCE,
            ("float(share @ row_entropy)", "float(share @ row_entropy / np.log2(max(n, 2)))"),
        ),
    ),
)

STYLES = {
    "eigenvector": """
import numpy as np


def entropy_rate(transition):
    values, vectors = np.linalg.eig(np.asarray(transition).T)
    share = vectors[:, np.argmin(abs(values - 1))].real
    share = share / share.sum()
    logs = np.zeros_like(transition)
    np.log2(transition, where=transition > 0, out=logs)
    return -np.einsum("i,ij,ij->", share, transition, logs)
""",
    "elimination in plain Python": """
import math


def entropy_rate(transition):
    p = [[float(x) for x in row] for row in transition]
    n = len(p)
    rows = [[p[j][i] - (i == j) for j in range(n)] + [0.0] for i in range(n)]
    rows[0] = [1.0] * (n + 1)
    for i in range(n):
        best = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[best] = rows[best], rows[i]
        for r in range(n):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i])]
    share = [rows[i][n] / rows[i][i] for i in range(n)]
    entropies = [sum(-x * math.log2(x) for x in row if x > 0) for row in p]
    return sum(a * b for a, b in zip(share, entropies))
""",
    "lazy chain squared": """
import numpy as np


def entropy_rate(transition):
    power = (transition + np.eye(len(transition))) / 2
    for _ in range(40):
        power = power @ power
        power /= power.sum(axis=1, keepdims=True)
    p = np.clip(transition, 1e-300, None)
    return np.sum(power[0][:, None] * -transition * np.log2(p))
""",
    "least squares": """
import numpy as np


def entropy_rate(transition):
    n = transition.shape[0]
    system = np.vstack([np.eye(n) - transition.T, np.ones(n)])
    share = np.linalg.lstsq(system, np.append(np.zeros(n), 1), rcond=None)[0]
    total = 0.0
    for i in range(n):
        row = transition[i][transition[i] > 0]
        total += share[i] * float(-(row @ np.log2(row)))
    return total
""",
    "small number inside the logarithm": """
import numpy as np


def entropy_rate(transition):
    n = len(transition)
    system = np.vstack([transition.T - np.eye(n), np.ones(n)])
    share = np.linalg.pinv(system)[:, -1]
    return float(-(share @ (transition * np.log2(transition + 1e-12)).sum(1)))
""",
}

PART = Part("entropy_rate", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
