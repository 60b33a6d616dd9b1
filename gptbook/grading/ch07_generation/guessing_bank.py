"""Exercise 7.5: speculative decoding that keeps the distribution: its mistakes and styles."""

from gptbook.grading.ch07_generation.common import BOOK, SECTIONS
from gptbook.grading.ch07_generation.guessing import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

GUESS, PROOF = SECTIONS["guess"], SECTIONS["proof"]

NUMBERS = "numbers = random.Random(seed)"
ACCEPT = "if numbers.random() * q[guess] < p[guess]:"
MISSING = "missing = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]"
REPLACE = "tokens.append(pick(missing, numbers))\n        return tokens"
BONUS = "tokens.append(pick(target[len(guesses)], numbers))\n"
DART = "dart = numbers.random() * sum(weights)"

MISTAKES = (
    Mistake(
        "A rejected guess is drawn again from p",
        "What p shares with q has been handed out by the accepted guesses, so that drawing from p "
        "gives it twice. Draw from max(p - q, 0), scaled to sum to 1.",
        GUESS,
        4,
        edited(REFERENCE, (MISSING, "missing = p")),
    ),
    Mistake(
        "What is missing, with the wrong sign",
        "max(q - p, 0) is what the draft proposes too often. Missing is what p has and q has not, "
        "max(p - q, 0).",
        GUESS,
        6,
        edited(REFERENCE, (MISSING, MISSING.replace("a - b", "b - a"))),
        hint=3,
    ),
    Mistake(
        "What is missing, without a sign",
        "|p - q| counts also what the draft proposes too often. Cut below zero: max(p - q, 0).",
        GUESS,
        6,
        edited(REFERENCE, (MISSING, MISSING.replace("max(a - b, 0.0)", "abs(a - b)"))),
        hint=3,
    ),
    Mistake(
        "What is missing does not sum to 1",
        "You throw a dart between 0 and 1 at pieces that are shorter together, and what misses "
        "them goes to one id. Scale them, or the dart.",
        GUESS,
        2,
        edited(REFERENCE, (DART, "dart = numbers.random()")),
        hint=3,
    ),
    Mistake(
        "A guess is accepted only where p is at least q",
        "Where q is larger than p you always reject, though the id should come with probability p. "
        "Accept it sometimes, with probability p / q.",
        GUESS,
        5,
        edited(REFERENCE, (ACCEPT, "if q[guess] <= p[guess]:")),
    ),
    Mistake(
        "Accepted with probability q / p",
        "The ratio is upside down, so that you reject what the draft proposes too rarely. Accept "
        "with probability min(1, p / q).",
        GUESS,
        9,
        edited(REFERENCE, (ACCEPT, "if numbers.random() * p[guess] < q[guess]:")),
    ),
    Mistake(
        "Accepted with probability p",
        "You accept as if the guess had not been proposed with probability q. Divide by it: "
        "min(1, p / q).",
        GUESS,
        10,
        edited(REFERENCE, (ACCEPT, "if numbers.random() < p[guess]:")),
    ),
    Mistake(
        "A guess must be the most probable token",
        "You accept what a greedy choice would write, which keeps a greedy text and no other "
        "distribution. Accept with probability min(1, p / q).",
        PROOF,
        10,
        edited(REFERENCE, (ACCEPT, "if p[guess] == max(p):")),
    ),
    Mistake(
        "No token more where all are accepted",
        "The model has read the last guess, too, and has a distribution behind it. Draw one token "
        "more from it.",
        GUESS,
        3,
        edited(REFERENCE, (BONUS, "if not guesses:\n        " + BONUS)),
    ),
    Mistake(
        "The token more comes from a place too early",
        "You draw it from the distribution of the last guess, in whose place it does not stand. "
        "The next row of target belongs to it.",
        GUESS,
        3,
        edited(REFERENCE, (BONUS, BONUS.replace("len(guesses)", "max(len(guesses) - 1, 0)"))),
    ),
    Mistake(
        "The guesses behind a rejected one are looked at",
        "They were guessed behind a token that is not there. End with the one that takes the place "
        "of the rejected guess.",
        GUESS,
        7,
        edited(
            REFERENCE,
            (REPLACE, REPLACE.replace("        return tokens", "        continue")),
        ),
    ),
    Mistake(
        "The rejected guess stays",
        "You return the rejected guess, and behind it the token that should take its place. Only "
        "the latter is a part of the text.",
        GUESS,
        9,
        edited(REFERENCE, (REPLACE, f"tokens.append(guess)\n        {REPLACE}")),
    ),
    Mistake(
        "Nothing takes the place of a rejected guess",
        "You return what was accepted, which may be nothing at all. Each call of the model writes "
        "at least one token.",
        GUESS,
        10,
        edited(REFERENCE, (REPLACE, "return tokens")),
    ),
    Mistake(
        "One random number for all guesses",
        "You draw one number and compare it at each place, so that a guess behind an accepted one "
        "is accepted more often. Draw anew at each.",
        PROOF,
        3,
        edited(
            REFERENCE,
            (NUMBERS, f"{NUMBERS}\n    number = numbers.random()"),
            (ACCEPT, ACCEPT.replace("numbers.random()", "number")),
        ),
        hint=2,
    ),
    Mistake(
        "The number that rejected also draws",
        "A number that has led to a rejection is a large one, and the dart that you throw with it "
        "misses the first ids. Draw a number of its own for it.",
        PROOF,
        2,
        edited(
            REFERENCE,
            (ACCEPT, "number = numbers.random()\n        if number * q[guess] < p[guess]:"),
            (
                REPLACE,
                "numbers.random = lambda: number\n        " + REPLACE,
            ),
        ),
        hint=2,
    ),
    Mistake(
        "The seed is not used",
        "You draw from the generator that everyone shares, and the same call gives something else "
        "each time. Make a generator of your own from the seed.",
        PROOF,
        1,
        edited(REFERENCE, (NUMBERS, "numbers = random")),
    ),
)

STYLES = {
    "numpy": """
import numpy as np


def verify_guesses(target, draft, guesses, seed):
    rng = np.random.default_rng(seed)
    out = []
    for p, q, x in zip(np.array(target), np.array(draft), guesses):
        if rng.uniform() >= min(1.0, p[x] / q[x]):
            rest = np.clip(p - q, 0, None)
            return out + [int(rng.choice(len(p), p=rest / rest.sum()))]
        out.append(x)
    last = np.array(target[-1])
    return out + [int(rng.choice(len(last), p=last / last.sum()))]
""",
    "torch, with Gumbel noise": """
import torch


def verify_guesses(target, draft, guesses, seed):
    g = torch.Generator().manual_seed(seed)
    p = torch.tensor(target)

    def gumbel_draw(weights):
        u = torch.rand(weights.shape, generator=g)
        return int((weights.log() - torch.log(-torch.log(u))).argmax())

    if guesses:
        q = torch.tensor(draft)
        places = torch.arange(len(guesses))
        ratio = p[places, guesses] / q[places, guesses]
        refused = torch.rand(len(guesses), generator=g) > ratio
        if refused.any():
            n = int(refused.int().argmax())
            return guesses[:n] + [gumbel_draw(torch.relu(p[n] - q[n]))]
    return guesses + [gumbel_draw(p[len(guesses)])]
""",
    "rejected first, and choices": """
import random


def verify_guesses(target, draft, guesses, seed):
    rng = random.Random(seed)
    for n, guess in enumerate(guesses):
        surplus = 1 - target[n][guess] / draft[n][guess]
        if surplus > 0 and rng.random() < surplus:
            weights = [p - q if p > q else 0 for p, q in zip(target[n], draft[n])]
            return list(guesses[:n]) + rng.choices(range(len(weights)), weights)
    return list(guesses) + rng.choices(range(len(target[-1])), weights=target[-1])
""",
}

PART = Part("verify_guesses", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=PRELOAD)
