"""Exercise 3.2: wrong and other right matrices of an offset."""

from gptbook.grading.ch03_embeddings.common import READY_MADE, SECTIONS
from gptbook.grading.ch03_embeddings.offset_rotation import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

SINUSOIDS, CLOCK = SECTIONS["sinusoids"], SECTIONS["clock"]

ANGLE = "angle = offset * base ** (-i / d_model)"
FIRST = "matrix[i, i], matrix[i, i + 1] = cos, sin"
SECOND = "matrix[i + 1, i], matrix[i + 1, i + 1] = -sin, cos"
WAVES = "cos, sin = math.cos(angle), math.sin(angle)"

MISTAKES = (
    Mistake(
        "Turns the wrong way",
        "This is the rotation of pairs (cos, sin), and it moves a pair (sin, cos) back by the "
        "offset. Use sin(a + b) = sin a cos b + cos a sin b for the first row: the minus sign "
        "belongs in the second.",
        CLOCK,
        8,
        edited(REFERENCE, (FIRST, FIRST.replace("sin", "-sin")), ("= -sin, cos", "= sin, cos")),
    ),
    Mistake(
        "All sines first, then all cosines",
        "Your matrix pairs number i with number i + C/2. This encoding is interleaved: its pairs "
        "are (0, 1), (2, 3) and so on.",
        SINUSOIDS,
        8,
        edited(
            REFERENCE,
            (
                FIRST,
                "a, b = i // 2, (i + d_model) // 2\n        matrix[a, a], matrix[a, b] = cos, sin",
            ),
            (SECOND, "matrix[b, a], matrix[b, b] = -sin, cos"),
        ),
    ),
    Mistake(
        "Half of the exponent",
        "You count pairs with i and divide i by C, so the slowest pair is a hundred times too "
        "fast. The exponent is 2i/C: it goes from 0 nearly to 1.",
        SINUSOIDS,
        8,
        edited(REFERENCE, (ANGLE, ANGLE.replace("-i / d_model", "-(i // 2) / d_model"))),
    ),
    Mistake(
        "Twice the exponent",
        "`i` runs in steps of two already, and you double it once more, or divide by C/2. The "
        "exponent is 0, 2/C, 4/C and so on, below 1.",
        SINUSOIDS,
        8,
        edited(REFERENCE, (ANGLE, ANGLE.replace("-i / d_model", "-2 * i / d_model"))),
    ),
    Mistake(
        "The exponent has the wrong sign",
        "Your angles grow with the number of the pair. A position is *divided* by base^(2i/C).",
        SINUSOIDS,
        8,
        edited(REFERENCE, (ANGLE, ANGLE.replace("-i / d_model", "i / d_model"))),
    ),
    Mistake(
        "Frequencies from the second one on",
        "You count pairs from 1, so the fastest hand is missing. The first pair turns by the "
        "offset itself: base^0 is 1.",
        SINUSOIDS,
        8,
        edited(REFERENCE, (ANGLE, ANGLE.replace("-i / d_model", "-(i + 2) / d_model"))),
    ),
    Mistake(
        "Sine and cosine of a pair turn at different speeds",
        "Every number has a frequency of its own, and then a pair is no hand of a clock and cannot "
        "be turned. Numbers 2i and 2i + 1 share one.",
        CLOCK,
        9,
        edited(
            REFERENCE,
            (
                SECOND,
                "other = offset * base ** (-(i + 1) / d_model)\n"
                "        sin, cos = math.sin(other), math.cos(other)\n"
                f"        {SECOND}",
            ),
        ),
    ),
    Mistake(
        "No minus sign",
        "Both sines are positive, so the matrix is no rotation and lengths change. "
        "cos(a + b) = cos a cos b - sin a sin b.",
        CLOCK,
        9,
        edited(REFERENCE, ("= -sin, cos", "= sin, cos")),
    ),
    Mistake(
        "Sine and cosine are exchanged",
        "With an angle of 0 a rotation is the identity, and its diagonal holds cosines. Yours "
        "holds sines.",
        CLOCK,
        10,
        edited(REFERENCE, (WAVES, "sin, cos = math.cos(angle), math.sin(angle)")),
    ),
    Mistake(
        "Angles in degrees",
        "You convert the angles, as if a step were a degree. The fastest hand turns by one radian "
        "a step, and `sin` and `cos` take radians.",
        CLOCK,
        8,
        edited(REFERENCE, (WAVES, "angle = math.radians(angle)\n        " + WAVES)),
    ),
    Mistake(
        "The base is always 10,000",
        "The argument `base` is not used. Compute the frequencies from it.",
        SINUSOIDS,
        1,
        edited(REFERENCE, ("offset * base **", "offset * 10000.0 **")),
    ),
    Mistake(
        "One step whatever the offset",
        "The matrix is that of one step. Multiply each pair's frequency by the offset.",
        CLOCK,
        10,
        edited(REFERENCE, ("offset * base", "base")),
    ),
    Mistake(
        "The offset's size without its sign",
        "You take the matrix's power by multiplying it |offset| times, or take `abs`, so a step "
        "back becomes one ahead. The sine changes its sign with the angle.",
        CLOCK,
        2,
        edited(REFERENCE, ("offset * base", "abs(offset) * base")),
    ),
    Mistake(
        "Angles in single precision",
        "A float32 has seven digits, so an angle of some 100,000 radians is off by hundredths. "
        "Make frequencies and angles in float64, not only the result.",
        CLOCK,
        2,
        edited(
            REFERENCE,
            (
                ANGLE,
                "exponent = torch.tensor(-i / d_model, dtype=torch.float32)\n"
                "        angle = float(torch.tensor(float(offset)) * base**exponent)",
            ),
        ),
    ),
    Mistake(
        "The matrix has the default dtype",
        "`torch.zeros` and `torch.tensor` make float32. Pass `dtype=torch.float64`.",
        CLOCK,
        2,
        edited(REFERENCE, (", dtype=torch.float64", "")),
    ),
)

STYLES = {
    "blocks": """
import torch


def offset_matrix(d_model, offset, base=10000.0):
    frequencies = base ** -(torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    c, s = torch.cos(offset * frequencies), torch.sin(offset * frequencies)
    blocks = torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], -2)
    return torch.block_diag(*blocks)
""",
    "two diagonals": """
import math
import torch


def offset_matrix(d_model, offset, base=10000.0):
    i = torch.arange(d_model, dtype=torch.double) // 2
    angle = offset * torch.exp(-math.log(base) * 2 * i / d_model)
    sines = torch.sin(angle)[:-1]
    sines[1::2] = 0
    return torch.diag(angle.cos()) + torch.diag(sines, 1) - torch.diag(sines, -1)
""",
    "a power of one step": """
import torch


def offset_matrix(d_model, offset, base=10000.0):
    turns = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(d_model // 2):
        turns[2 * i, 2 * i + 1] = base ** (-2 * i / d_model)
    step = torch.matrix_exp(turns - turns.T)
    return torch.linalg.matrix_power(step if offset >= 0 else step.T, abs(offset))
""",
    "numpy and complex numbers": """
import numpy as np
import torch


def offset_matrix(d_model, offset, base=10000.0):
    hands = np.exp(1j * offset / base ** (np.arange(0, d_model, 2) / d_model))
    out = np.zeros((d_model, d_model))
    even = np.arange(0, d_model, 2)
    out[even, even] = out[even + 1, even + 1] = hands.real
    out[even, even + 1], out[even + 1, even] = hands.imag, -hands.imag
    return torch.from_numpy(out)
""",
}

PART = Part(
    "offset_matrix",
    CHECKS,
    REFERENCE,
    MISTAKES,
    STYLES,
    Forbidden(READY_MADE),
    preload=PRELOAD,
)
