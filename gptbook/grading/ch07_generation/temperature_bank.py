"""Exercise 7.1: temperature and its limits: its mistakes and styles."""

from gptbook.grading.ch07_generation.common import BOOK, SECTIONS
from gptbook.grading.ch07_generation.temperature import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

TEMPERATURE, CHOICE = SECTIONS["temperature"], SECTIONS["choice"]

REFUSE = "if not temperature >= 0:"
WIDE = "z = logits.to(torch.promote_types(logits.dtype, torch.float32))"
IF_ZERO = "if temperature == 0:"
BEST = "best = z.argmax(dim=-1, keepdim=True)"
ONE = "return torch.zeros_like(z).scatter(-1, best, 1.0)"
BELOW = "below = z - z.amax(dim=-1, keepdim=True)"
ENDLESS = "scaled = torch.where(z == -math.inf, z, 0.0)"
SCALED = "scaled = below.double() / temperature"
IF_ENDLESS = "if temperature == math.inf:"
RESULT = "return torch.softmax(scaled, dim=-1).to(z.dtype)"

MISTAKES = (
    Mistake(
        "Zero is divided by",
        "At temperature 0 you divide by zero, and the largest logit, which is zero after the "
        "subtraction, becomes NaN. Zero is a rule of its own: all probability to the best id.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (IF_ZERO, "if temperature is None:")),
    ),
    Mistake(
        "Zero is made a small number",
        "Instead of zero you take a small temperature, and then equal logits share the "
        "probability. A greedy choice is one id, the lowest of the equal ones.",
        TEMPERATURE,
        1,
        edited(
            REFERENCE,
            (IF_ZERO, "temperature = max(temperature, 1e-300)\n    if temperature == 0:"),
        ),
        hint=2,
    ),
    Mistake(
        "Zero is refused",
        "You raise an error at temperature 0, which is what everyone sets who wants a greedy "
        "choice. Refuse what is below zero only, and treat zero on its own.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (REFUSE, "if not temperature > 0:")),
    ),
    Mistake(
        "At zero, all that are equal get probability 1",
        "Where two logits are the largest, you mark both, and the row sums to 2. One id is "
        "chosen, the lowest.",
        CHOICE,
        1,
        edited(REFERENCE, (ONE, "return (z == z.amax(dim=-1, keepdim=True)).to(z.dtype)")),
    ),
    Mistake(
        "At zero, ties go to the highest id",
        "Among equal logits you take the last one, as an ascending sort leaves it. The lower id "
        "comes first, everywhere in this book.",
        CHOICE,
        1,
        edited(REFERENCE, (BEST, "best = z.argsort(dim=-1, stable=True)[..., -1:]")),
    ),
    Mistake(
        "One best id for all rows",
        "`argmax()` without `dim` looks at the whole tensor as if it were one row. Each row has "
        "a best id of its own.",
        CHOICE,
        2,
        edited(
            REFERENCE,
            (BEST, "best = (z.argmax() % z.shape[-1]).expand(*z.shape[:-1], 1)"),
        ),
    ),
    Mistake(
        "The logits are multiplied",
        "You multiply by the temperature, so that a high one sharpens. Divide: with a high "
        "temperature differences become small.",
        TEMPERATURE,
        8,
        edited(REFERENCE, (SCALED, "scaled = torch.where(below == 0, 0.0, below * temperature)")),
        hint=1,
    ),
    Mistake(
        "The probabilities are divided",
        "Dividing probabilities by a number and making them sum to 1 again changes nothing. The "
        "temperature divides the logits, before the softmax.",
        TEMPERATURE,
        8,
        edited(
            REFERENCE,
            (IF_ENDLESS, "if False:"),
            (SCALED, "scaled = below"),
        ),
        hint=1,
    ),
    Mistake(
        "A power of the probabilities",
        "p to the power of 1/T is the same as dividing logits, but only on paper: of the smallest "
        "probabilities a zero is left, and all powers may be zero. Stay with the logits.",
        TEMPERATURE,
        5,
        edited(
            REFERENCE,
            (SCALED, "scaled = below"),
            (ENDLESS, "scaled = below"),
            (
                RESULT,
                "powers = torch.softmax(scaled, dim=-1) ** (1 / temperature)\n"
                "    return powers / powers.sum(dim=-1, keepdim=True)",
            ),
        ),
    ),
    Mistake(
        "The quotient overflows",
        "A logit of 3 divided by 1e-38 is infinite in float32, and infinity minus infinity is "
        "NaN. Subtract the largest logit of the row first.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (SCALED, "scaled = z / temperature")),
    ),
    Mistake(
        "A temperature that float32 rounds to zero",
        "You divide in float32, where 1e-50 is zero, and zero by zero is NaN. Divide in float64, "
        "or by no less than `torch.finfo(torch.float32).tiny`.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (SCALED, "scaled = below / temperature")),
    ),
    Mistake(
        "Small temperatures count as zero",
        "Below some bound you take the greedy choice, but logits that are exactly equal share the "
        "probability at every temperature above 0. Only 0 itself is greedy.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (IF_ZERO, "if temperature < 1e-5:")),
    ),
    Mistake(
        "-inf divided by infinity",
        "At an infinite temperature all quotients are zero but those of ids at -inf, which are "
        "NaN and spoil the row. Treat infinity on its own: the possible ids share alike.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (IF_ENDLESS, "if False:")),
    ),
    Mistake(
        "Infinity revives the impossible",
        "At an infinite temperature you share among all ids, also those at -inf. No temperature "
        "makes them possible.",
        TEMPERATURE,
        2,
        edited(REFERENCE, (ENDLESS, "scaled = torch.zeros_like(z)")),
    ),
    Mistake(
        "Computed in 16 bits",
        "A logit in bfloat16 has three digits, and so has all that you compute from it. Convert "
        "to float32 first.",
        CHOICE,
        1,
        edited(
            REFERENCE,
            (WIDE, "z = logits"),
            (SCALED, f"{SCALED}\n        scaled = scaled.to(z.dtype)"),
        ),
    ),
    Mistake(
        "Softmax over the wrong axis",
        "Your probabilities sum to 1 down the columns. The vocabulary is the last axis, whatever "
        "stands before it.",
        CHOICE,
        8,
        edited(REFERENCE, (RESULT, RESULT.replace("dim=-1", "dim=0"))),
        hint=1,
    ),
    Mistake(
        "The logits are changed in place",
        "`to` gives the same tensor where nothing has to be converted, and what you then subtract "
        "in place is missing from the caller's logits. Make a new tensor.",
        TEMPERATURE,
        1,
        edited(REFERENCE, (BELOW, "below = z.sub_(z.amax(dim=-1, keepdim=True))")),
    ),
    Mistake(
        "NaN slips through",
        "`temperature < 0` is false for NaN, so that you go on and give NaN. Ask for what is "
        "right, `not temperature >= 0`.",
        TEMPERATURE,
        1,
        edited(REFERENCE, (REFUSE, "if temperature < 0:")),
    ),
)

STYLES = {
    "log-probabilities, and tiny as the least": """
import torch


def at_temperature(logits, temperature):
    if not temperature >= 0:
        raise ValueError("temperature")
    z = logits if logits.dtype == torch.float64 else logits.float()
    if temperature == 0:
        best = torch.max(z, dim=-1).values.unsqueeze(-1)
        first = (z == best).to(torch.uint8).argmax(-1)
        return torch.nn.functional.one_hot(first, z.shape[-1]).to(z.dtype)
    z = z - z.max(-1, keepdim=True).values
    if temperature == float("inf"):
        z = torch.where(torch.isinf(z), z, torch.zeros_like(z))
    else:
        z = z / max(temperature, torch.finfo(z.dtype).tiny)
    return z.log_softmax(-1).exp()
""",
    "a mask of what is possible": """
import math
import torch


def at_temperature(logits, temperature):
    if math.isnan(temperature) or temperature < 0:
        raise ValueError(f"bad temperature {temperature}")
    out_type = torch.float64 if logits.dtype == torch.float64 else torch.float32
    z = logits.double()
    possible = torch.isfinite(z)
    if temperature == 0:
        out = torch.zeros_like(z)
        out.scatter_(-1, torch.argmax(z, -1, keepdim=True), 1)
        return out.to(out_type)
    weights = torch.exp((z - z.amax(-1, keepdim=True)) / temperature)
    weights = torch.where(possible, weights, 0.0)
    return (weights / weights.sum(-1, keepdim=True)).to(out_type)
""",
    "row by row in plain Python": """
import math
import torch


def at_temperature(logits, temperature):
    if not (temperature >= 0):
        raise ValueError("no temperature")

    def one(row):
        top = max(row)
        if temperature == 0:
            return [1.0 if i == row.index(top) else 0.0 for i in range(len(row))]
        shares = []
        for z in row:
            if z == -math.inf:
                shares.append(0.0)
            elif z == top or temperature == math.inf:
                shares.append(1.0)
            else:
                shares.append(math.exp((z - top) / temperature))
        return [s / sum(shares) for s in shares]

    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    rows = [one(row) for row in logits.reshape(-1, logits.shape[-1]).tolist()]
    return torch.tensor(rows, dtype=dtype).view(logits.shape)
""",
}

PART = Part("at_temperature", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=PRELOAD)
