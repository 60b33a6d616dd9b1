"""Exercise 6.3: warm-up and cosine: its mistakes and styles."""

from gptbook.grading.ch06_training.common import BOOK, SECTIONS
from gptbook.grading.ch06_training.schedule import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden

WARM = SECTIONS["schedule"]

BEYOND = "    if step >= total_steps:\n        return min_lr\n"
IF_WARM = "if step < warmup_steps:"
RISE = "return max_lr * (step + 1) / (warmup_steps + 1)"
DONE = "done = (step - warmup_steps) / (total_steps - warmup_steps)"
FALL = "return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))"

MISTAKES = (
    Mistake(
        "Step 0 has the rate zero",
        "You count steps of the warm-up from 0, so that the first one changes nothing. Step 0 is "
        "the first of warmup_steps + 1 equal parts.",
        WARM,
        5,
        edited(REFERENCE, (RISE, "return max_lr * step / warmup_steps")),
        hint=1,
    ),
    Mistake(
        "The top is reached one step early",
        "You divide by warmup_steps, so that the last step of the warm-up has the highest rate "
        "already. Divide by warmup_steps + 1: the first step behind it has the highest.",
        WARM,
        4,
        edited(REFERENCE, (RISE, RISE.replace("(warmup_steps + 1)", "warmup_steps"))),
        hint=1,
    ),
    Mistake(
        "The warm-up begins at min_lr",
        "You rise from min_lr, which is where the cosine ends. The warm-up rises from 0, in equal "
        "parts of max_lr.",
        WARM,
        4,
        edited(
            REFERENCE,
            (RISE, "return min_lr + (max_lr - min_lr) * (step + 1) / (warmup_steps + 1)"),
        ),
        hint=1,
    ),
    Mistake(
        "The cosine counts from step 0",
        "Your cosine has already fallen during the warm-up, so that the rate jumps at its end. "
        "Count the cosine's steps from warmup_steps.",
        WARM,
        5,
        edited(REFERENCE, (DONE, "done = step / total_steps")),
        hint=3,
    ),
    Mistake(
        "The warm-up multiplies the cosine",
        "You multiply a cosine over the whole run by the warm-up's factor, so that max_lr is never "
        "reached. One follows the other.",
        WARM,
        9,
        edited(
            REFERENCE,
            (f"    {IF_WARM}\n        {RISE}\n    {DONE}\n", "    done = step / total_steps\n"),
            (
                FALL,
                "rate = min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))\n"
                "    return rate * min(1.0, (step + 1) / (warmup_steps + 1))",
            ),
        ),
        hint=3,
    ),
    Mistake(
        "The end is reached one step early",
        "Your last step, total_steps - 1, has the rate min_lr already. It would be reached at "
        "total_steps, one behind the last: divide by total_steps - warmup_steps.",
        WARM,
        6,
        edited(
            REFERENCE, (DONE, "done = (step - warmup_steps) / (total_steps - 1 - warmup_steps)")
        ),
        hint=3,
    ),
    Mistake(
        "The rate rises again behind the end",
        "A cosine goes on, and from total_steps on it rises. Return min_lr there.",
        WARM,
        3,
        edited(
            REFERENCE,
            (BEYOND, "    if warmup_steps == total_steps <= step:\n        return min_lr\n"),
        ),
        hint=4,
    ),
    Mistake(
        "Zero behind the end",
        "You return 0 from total_steps on. The rate stays at min_lr.",
        WARM,
        5,
        edited(REFERENCE, (BEYOND, BEYOND.replace("min_lr", "0.0"))),
        hint=4,
    ),
    Mistake(
        "min_lr is added on top",
        "You add min_lr to a cosine that begins at max_lr, so that the top is higher than max_lr. "
        "The cosine spans the difference, max_lr - min_lr.",
        WARM,
        9,
        edited(REFERENCE, (FALL, FALL.replace("(max_lr - min_lr)", "max_lr"))),
        hint=3,
    ),
    Mistake(
        "min_lr is forgotten",
        "Your cosine falls to zero and then jumps up to min_lr. It falls from max_lr to min_lr.",
        WARM,
        7,
        edited(REFERENCE, (FALL, "return max_lr * 0.5 * (1 + math.cos(math.pi * done))")),
        hint=3,
    ),
    Mistake(
        "min_lr cuts the cosine off",
        "Your cosine goes to zero and is stopped at min_lr, which it reaches long before the end. "
        "Stretch it between max_lr and min_lr.",
        WARM,
        6,
        edited(
            REFERENCE,
            (FALL, "return max(min_lr, max_lr * 0.5 * (1 + math.cos(math.pi * done)))"),
        ),
        hint=3,
    ),
    Mistake(
        "A whole period of the cosine",
        "Your angle goes to 2 pi, so that the rate falls and rises again. Half a period, from 0 to "
        "pi, leads from 1 to -1.",
        WARM,
        7,
        edited(REFERENCE, (FALL, FALL.replace("math.pi * done", "2 * math.pi * done"))),
        hint=3,
    ),
    Mistake(
        "A quarter of a cosine",
        "Your angle goes to pi / 2 only, so that the fall begins slowly and ends steeply. Half a "
        "cosine ends as flat as it begins.",
        WARM,
        6,
        edited(
            REFERENCE,
            (FALL, "return min_lr + (max_lr - min_lr) * math.cos(0.5 * math.pi * done)"),
        ),
        hint=3,
    ),
    Mistake(
        "A straight line down",
        "You fall by the same amount in each step. A cosine falls slowly at first, fast in the "
        "middle, and slowly at the end.",
        WARM,
        6,
        edited(REFERENCE, (FALL, "return min_lr + (max_lr - min_lr) * (1 - done)")),
        hint=3,
    ),
    Mistake(
        "Divides by an empty fall",
        "You divide by total_steps - warmup_steps before you know that a step lies between them. "
        "If all steps are warm-up, there is nothing to divide by.",
        WARM,
        2,
        edited(
            REFERENCE,
            (BEYOND, f"    {DONE}\n{BEYOND}"),
            (f"    {DONE}\n    {FALL}", f"    {FALL}"),
        ),
        hint=4,
    ),
    Mistake(
        "The top is held one step too long",
        "You count the step behind the warm-up as its last, and begin the cosine one step later. "
        "At warmup_steps the cosine begins, and it has fallen a little in the next step.",
        WARM,
        6,
        edited(
            REFERENCE,
            (IF_WARM, "if step <= warmup_steps:"),
            (DONE, "done = (step - 1 - warmup_steps) / (total_steps - warmup_steps)"),
        ),
        hint=2,
    ),
)

STYLES = {
    "a squared cosine, with numpy": """
import numpy as np


def learning_rate(step, max_lr, warmup_steps, total_steps, min_lr):
    if step < min(warmup_steps, total_steps):
        return max_lr * (step + 1) / (warmup_steps + 1)
    if step >= total_steps:
        return min_lr
    angle = 0.5 * np.pi * (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * np.cos(angle) ** 2
""",
    "interpolated": """
import math


def learning_rate(step, max_lr, warmup_steps, total_steps, min_lr):
    def between(a, b, share):
        return a + (b - a) * share

    if step >= total_steps:
        rate = min_lr
    elif step <= warmup_steps:
        rate = between(0.0, max_lr, (step + 1) / (warmup_steps + 1))
    else:
        left = (total_steps - step) / (total_steps - warmup_steps)
        rate = between(min_lr, max_lr, (1 - math.cos(math.pi * left)) / 2)
    return rate
""",
    "a list of all rates": """
import math


def learning_rate(step, max_lr, warmup_steps, total_steps, min_lr):
    rates = [max_lr / (warmup_steps + 1) * n for n in range(1, warmup_steps + 1)]
    n_fall = total_steps - warmup_steps
    for n in range(n_fall):
        rates.append((max_lr + min_lr) / 2 + (max_lr - min_lr) / 2 * math.cos(math.pi * n / n_fall))
    return (rates + [min_lr])[min(step, total_steps)]
""",
}

FORBIDDEN = Forbidden((*BOOK, "torch.optim.lr_scheduler"), ("torch.optim.lr_scheduler",))

PART = Part("learning_rate", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN)
