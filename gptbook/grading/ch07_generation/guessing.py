"""Exercise 7.5: speculative decoding that keeps the distribution: its checks.

Some checks count what comes in many calls. If a category has the probability p and
comes in a share s of n calls, then n KL(s, p), where KL is the divergence of the two coins, is t or
more with a probability of at most 2 exp(-t) (Chernoff's bound). So where it is above
ln(2 k / FALSE_ALARM) in one of k categories, the function is wrong, or something happened that has
the probability FALSE_ALARM.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, source_of

FALSE_ALARM = 1e-9
"""The probability that a case which counts fails a right function, at most."""


def pick(weights: list[float], numbers: random.Random) -> int:
    """Draw an id with a probability proportional to its weight."""
    dart = numbers.random() * sum(weights)
    for token, weight in enumerate(weights):
        dart -= weight
        if dart < 0:
            return token
    return max(range(len(weights)), key=lambda i: weights[i])  # the dart hit the end of the line


def verify_guesses(
    target: list[list[float]], draft: list[list[float]], guesses: list[int], seed: int
) -> list[int]:
    """Return the guesses that are accepted, and one token more."""
    numbers = random.Random(seed)
    tokens: list[int] = []
    for place, guess in enumerate(guesses):
        p, q = target[place], draft[place]
        if numbers.random() * q[guess] < p[guess]:
            tokens.append(guess)
            continue
        missing = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
        tokens.append(pick(missing, numbers))
        return tokens
    tokens.append(pick(target[len(guesses)], numbers))
    return tokens


# --- inputs: target (N + 1 rows), draft (N rows), guesses; the probe adds seeds ---

Row = list[float]


def seeds(stream: random.Random, count: int) -> range:
    """Seeds from a random one on."""
    first = stream.randrange(10**6)
    return range(first, first + count)


def draw_row(stream: random.Random, size: int) -> Row:
    """Probabilities of 0.05 or more, with two digits."""
    counts = [1] * size
    for _ in range(20 - size):
        counts[stream.randrange(size)] += 1
    if len(set(counts)) == 1:
        return draw_row(stream, size)
    return [count / 20 for count in counts]


def unlikely(stream: random.Random, row: Row) -> int:
    """An id that is not the most probable, but possible."""
    return stream.choice([i for i, share in enumerate(row) if 0 < share < max(row)])


def one_hot(size: int, token: int) -> Row:
    """All probability on one id."""
    return [float(i == token) for i in range(size)]


def placed(stream: random.Random, *rows: Sequence[float]) -> tuple[list[Row], list[int]]:
    """Rows with their ids in another order, the same for all, and where each id has gone."""
    order = stream.sample(range(len(rows[0])), len(rows[0]))
    return [[row[i] for i in order] for row in rows], [order.index(i) for i in range(len(order))]


def draw_forms(stream: random.Random) -> list[Args]:
    """Calls, each of them twice: no guess, one and three."""
    cases: list[Args] = []
    for n_guesses in (0, 1, 3):
        calls = []
        for seed in seeds(stream, 12):
            target = [draw_row(stream, 5) for _ in range(n_guesses + 1)]
            draft = [draw_row(stream, 5) for _ in range(n_guesses)]
            guesses = [stream.randrange(5) for _ in range(n_guesses)]
            calls += [(target, draft, guesses, seed)] * 2
        cases.append(tuple(calls))
    return cases


def draw_agreed(stream: random.Random) -> list[Args]:
    """Draft and target are the same, and only one token can follow."""
    cases: list[Args] = []
    for n_guesses in (1, 2, 4):
        rows = [draw_row(stream, 5) for _ in range(n_guesses)]
        guesses = [unlikely(stream, row) for row in rows]
        last = one_hot(5, stream.choice([i for i in range(5) if i != guesses[-1]]))
        cases.append((seeds(stream, 60), [*rows, last], rows, guesses))
    return cases


def draw_rejected(stream: random.Random) -> list[Args]:
    """Guesses that are accepted, one that is impossible, and others; what follows it is certain."""
    cases: list[Args] = []
    for place in (0, 1, 2):
        draft = [draw_row(stream, 5) for _ in range(3)]
        guesses = [unlikely(stream, row) for row in draft]
        right = stream.choice([i for i in range(5) if i != guesses[place]])
        target = [*draft, draw_row(stream, 5)]
        target[place] = one_hot(5, right)
        cases.append((seeds(stream, 60), target, draft, guesses))
    return cases


def draw_shares(stream: random.Random) -> list[Args]:
    """Guesses that are accepted with a probability of 3/5, 1, 1/2 and 1."""
    likely, dear = [0.3, 0.1, 0.5, 0.1], [0.5, 0.3, 0.1, 0.1]
    low, high = [0.2, 0.5, 0.2, 0.1], [0.4, 0.1, 0.2, 0.3]
    (p, q), where = placed(stream, likely, dear)
    (p2, q2), where2 = placed(stream, low, high)
    agreed, last = draw_row(stream, 4), draw_row(stream, 4)
    guesses = [where[0], where[2], where2[0], stream.randrange(4)]
    return [(seeds(stream, 1000), [p, p, p2, agreed, last], [q, q, q2, agreed], guesses)]


def draw_replaced(stream: random.Random) -> list[Args]:
    """A guess that is rejected half of the time; its place is taken by two others."""
    rows = ((0.3, 0.35, 0.25, 0.1), (0.6, 0.1, 0.2, 0.1))
    (p, q), where = placed(stream, *rows)
    second, last = draw_row(stream, 4), draw_row(stream, 4)
    guesses = [where[0], stream.randrange(4)]
    return [(seeds(stream, 1500), [p, second, last], [q, second], guesses)]


def draw_bonus(stream: random.Random) -> list[Args]:
    """Guesses that are always accepted, and a distribution of its own behind them."""
    last = [0.05, 0.15, 0.6, 0.2]
    (p, behind), _ = placed(stream, [0.55, 0.3, 0.05, 0.1], last)
    alone, _ = placed(stream, last)
    guesses = [unlikely(stream, p), unlikely(stream, p)]
    return [
        (seeds(stream, 250), [p, p, behind], [p, p], guesses),
        (seeds(stream, 250), alone, [], []),
    ]


def draw_guessed(stream: random.Random) -> list[Args]:
    """Guesses that are drawn from the draft."""
    (p, q), _ = placed(stream, (0.7, 0.1, 0.1, 0.1), (0.05, 0.1, 0.1, 0.75))
    last = draw_row(stream, 4)
    drawn = stream.choices(range(4), q, k=800)
    first = stream.randrange(10**6)
    return [tuple(([p, last], [q], [guess], first + n) for n, guess in enumerate(drawn))]


# --- verdicts ---


def is_tokens(value: Any, n_guesses: int, size: int) -> str | None:
    """A list of 1 to N + 1 ids."""
    if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
        return f"gives {show(value)}, expected a list of ints"
    if not 1 <= len(value) <= n_guesses + 1:
        return f"gives {show(value)} for {n_guesses} guesses, expected 1 to {n_guesses + 1} tokens"
    wrong = [token for token in value if not 0 <= token < size]
    return f"gives the id {wrong[0]}, expected 0 to {size - 1}" if wrong else None


def has_the_form(args: Args, value: Any) -> str | None:
    """Lists of ids, the same for the same seed."""
    for (target, _, guesses, _), tokens in zip(args, value, strict=True):
        problem = is_tokens(tokens, len(guesses), len(target[0]))
        if problem:
            return problem
    for first, second in zip(value[::2], value[1::2], strict=True):
        if list(first) != list(second):
            return f"gives {first} and {second} for the same arguments, expected the same"
    return None


def is_always(expected: Callable[[Args], list[int]]) -> Callable[[Args, Any], str | None]:
    """A verdict where only one answer is possible, whatever the seed."""

    def verify(args: Args, value: Any) -> str | None:
        wanted = expected(args)
        for seed, tokens in zip(args[0], value, strict=True):
            if tokens != wanted:
                return f"gives {show(tokens)} with seed {seed}, expected {wanted} with every seed"
        return None

    return verify


def all_accepted(args: Args) -> list[int]:
    """The guesses, and the one that can follow."""
    _, target, _, guesses = args
    return [*guesses, target[-1].index(1.0)]


def one_rejected(args: Args) -> list[int]:
    """The guesses before the impossible one, and what takes its place."""
    _, target, _, guesses = args
    place = next(i for i, row in enumerate(target) if 1.0 in row)
    return [*guesses[:place], target[place].index(1.0)]


def is_off(counts: Mapping[Any, int], chances: Mapping[Any, float]) -> tuple[Any, int] | None:
    """The category that comes too often or too rarely, and how often it came."""
    total = sum(counts.values())
    bound = math.log(2 * max(len(chances), 2) / FALSE_ALARM)
    for category in {**chances, **counts}:
        share, chance = counts.get(category, 0) / total, chances.get(category, 0.0)
        if total * divergence(share, chance) > bound:
            return category, counts.get(category, 0)
    return None


def divergence(share: float, chance: float) -> float:
    """The Kullback-Leibler divergence of a coin's shares from another coin's chances, in nats."""
    found = 0.0
    for s, c in ((share, chance), (1 - share, 1 - chance)):
        if s > 0:
            found += s * math.log(s / c) if c > 1e-12 else math.inf
    return found


def n_accepted(tokens: Any, guesses: Sequence[int]) -> int:
    """How many guesses were accepted: all but one of the tokens, or all the guesses alone."""
    return len(guesses) if list(tokens) == list(guesses) else len(tokens) - 1


def shares_are_right(args: Args, value: Any) -> str | None:
    """How often how many guesses are accepted."""
    _, target, draft, guesses = args
    chances, so_far = {}, 1.0
    for place, guess in enumerate(guesses):
        accepted = min(1.0, target[place][guess] / draft[place][guess])
        chances[place] = so_far * (1 - accepted)
        so_far *= accepted
    chances[len(guesses)] = so_far
    counts = Counter(n_accepted(tokens, guesses) for tokens in value)
    found = is_off(counts, chances)
    if found is None:
        return None
    n, count = found
    return (
        f"accepts {n} of {len(guesses)} guesses in {count:,} of {len(value):,} calls, expected "
        f"about {chances.get(n, 0.0) * len(value):,.0f}"
    )


def replacement_is_right(args: Args, value: Any) -> str | None:
    """What comes in the place of a rejected guess."""
    _, (p, *_), (q, _), (guess, _) = args
    rejected = [tokens[0] for tokens in value if len(tokens) == 1]
    if not rejected:
        return f"never rejects the guess {guess}, where p = {p[guess]} and q = {q[guess]}"
    missing = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    chances = {token: weight / sum(missing) for token, weight in enumerate(missing)}
    found = is_off(Counter(rejected), chances)
    if found is None:
        return None
    return (
        f"puts {found[0]} in the place of a rejected guess {found[1]:,} times in "
        f"{len(rejected):,}, expected about {chances.get(found[0], 0.0) * len(rejected):,.0f} "
        f"(p = {p}, q = {q})"
    )


def bonus_is_right(args: Args, value: Any) -> str | None:
    """What follows guesses that are all accepted."""
    _, target, _, guesses = args
    short = [tokens for tokens in value if len(tokens) != len(guesses) + 1]
    if short:
        return f"gives {show(short[0])}, expected the guesses {guesses} and one token more"
    chances = dict(enumerate(target[-1]))
    found = is_off(Counter(tokens[-1] for tokens in value), chances)
    if found is None:
        return None
    return (
        f"puts {found[0]} behind the guesses {found[1]:,} times in {len(value):,}, expected about "
        f"{chances.get(found[0], 0.0) * len(value):,.0f}"
    )


def first_is_right(args: Args, value: Any) -> str | None:
    """The first token, where the guesses come from the draft."""
    (p, _), (q,), _, _ = args[0]
    found = is_off(Counter(tokens[0] for tokens in value), dict(enumerate(p)))
    if found is None:
        return None
    token, count = found
    return (
        f"makes {token} the first token in {count:,} of {len(value):,} calls with guesses drawn "
        f"from q = {q}, expected about {p[token] * len(value):,.0f}, as p = {p}"
    )


def same_counts(a: Any, b: Any) -> bool:
    """Whether two functions give the same tokens about equally often.

    A difference of two counts has a standard deviation of at most the root of their sum.
    """
    one, two = (Counter(map(tuple, values)) for values in (a, b))
    return all(abs(one[key] - two[key]) <= 6 * math.sqrt(one[key] + two[key]) for key in one | two)


FORM = "returns a list of ids, the same for the same seed"
AGREED = "where p = q, all guesses are accepted, and one token more"
REJECTED = "ends at the first guess that is rejected, with another token"
SHARES = "accepts with probability min(1, p / q)"
REPLACED = "puts what p has and q has not in its place"
BONUS = "the token behind the guesses comes from the last p"
GUESSED = "keeps the distribution p when guesses come from q"

_many = partial(Check, probe="repeat", same=same_counts)

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, probe="call_each", pure=True, hint=1),
    _many(AGREED, Kind.PROPERTY, 2, draw_agreed, is_always(all_accepted), hint=4),
    _many(REJECTED, Kind.PROPERTY, 2, draw_rejected, is_always(one_rejected), hint=3),
    _many(SHARES, Kind.ORACLE, 3, draw_shares, shares_are_right, hint=2),
    _many(REPLACED, Kind.ORACLE, 2, draw_replaced, replacement_is_right, hint=3),
    _many(BONUS, Kind.ORACLE, 1, draw_bonus, bonus_is_right, hint=4),
    Check(
        GUESSED,
        Kind.ORACLE,
        2,
        draw_guessed,
        first_is_right,
        probe="call_each",
        same=same_counts,
        hint=3,
    ),
)

REFERENCE = source_of(verify_guesses)
