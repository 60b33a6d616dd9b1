"""What the tests of every kind of TinyWorld's documents have in common."""

import math
import random
import secrets
from collections.abc import Callable

from gptbook.tinyworld import TinyWorld

# A test that compares up to ten counts with their expectations fails by chance at most once in a
# million runs.
COUNT_CHANCE = 1e-7


def fresh_seed() -> int:
    """Return a seed that differs from run to run; it is printed, and pytest shows it on failure."""
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    return seed


def assert_count(count: int, n: int, p: float) -> None:
    """Assert that a count is one that n draws with probability p give, but for 1 in 10^7.

    By Chernoff's bound, which holds for every n and p: a count as far off as this one, on its side,
    has at most the probability exp(-n D), where D is the divergence of the two Bernoulli
    distributions. A normal approximation would give rare facts false alarms ten times too often.
    """
    share = count / n
    divergence = sum(q * math.log(q / r) for q, r in ((share, p), (1 - share, 1 - p)) if q > 0)
    sigmas = (count - n * p) / math.sqrt(n * p * (1 - p))
    assert 2 * math.exp(-n * divergence) > COUNT_CHANCE, (
        f"{count} of {n}, expected {n * p:.1f}: {sigmas:.1f} sigma off"
    )


def check_logprob(world: TinyWorld, kind: str, n: int, start: int) -> None:
    """Assert that n documents score exactly what was recorded when they were made."""
    for document in world.documents(n, kind, start):
        assert document.text.isascii()
        assert document.text.endswith("\n")
        assert math.isclose(
            world.logprob(document.text, kind), document.logprob, rel_tol=1e-12
        )  # the same terms; a different order would differ in the last bits


def check_corruption(world: TinyWorld, kind: str, n: int, rng: random.Random) -> None:
    """Assert that damaged documents have probability zero."""
    for document in world.documents(n, kind, rng.randrange(10**6)):
        text = document.text
        at = rng.randrange(len(text))
        damaged = [
            text[:at] + "~" + text[at:],
            text[:at] + "~" + text[at + 1 :],
            text[:at],
            text + text[0],
            text + text,
            "~" + text,
        ]
        for other in damaged:
            assert world.logprob(other, kind) == -math.inf, other


def check_next_characters(world: TinyWorld, kind: str, n: int, rng: random.Random) -> None:
    """Assert that the probabilities of what may follow a prefix sum to one."""
    for document in world.documents(n, kind, rng.randrange(10**6)):
        prefix = document.text[: rng.randrange(len(document.text))]
        before = world.prefix_logprob(prefix, kind)
        characters = [chr(code) for code in range(128)]
        after = [math.exp(world.prefix_logprob(prefix + c, kind) - before) for c in characters]
        assert math.isclose(sum(after), 1, rel_tol=1e-9), (prefix, sum(after))


def raises_value_error(function: Callable[[], object], words: str) -> bool:
    """Return whether a call raises ValueError with these words in its message."""
    try:
        function()
    except ValueError as error:
        return words in str(error)
    return False
