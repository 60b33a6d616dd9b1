"""Exercise 3.3: wrong and other right ways to turn queries and keys."""

from gptbook.grading.ch03_embeddings.common import READY_MADE, SECTIONS
from gptbook.grading.ch03_embeddings.rotary import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

ROTARY, POSITIONS, LAYOUT = SECTIONS["rotary"], SECTIONS["positions"], SECTIONS["layout"]

EXPONENTS = "torch.arange(0, d_head, 2, dtype=torch.float32) / d_head"
ANGLES = "angles = positions[..., None].float() * base**-exponents"
HEADS = """    if angles.ndim == 3:
        angles = angles[:, None]  # the same for all heads
"""
WAVES = "cos, sin = torch.cos(angles), torch.sin(angles)"
SPLIT = "first, second = x.float().chunk(2, dim=-1)"
TURN = "turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)"
RETURN = "return turned.to(x.dtype)"

MISTAKES = (
    Mistake(
        "Positions are ignored",
        "You count the places of the row with `arange(T)`. A token that is padded on the left, "
        "packed or decoded has another position, and you are told which.",
        POSITIONS,
        8,
        edited(REFERENCE, (ANGLES, ANGLES.replace("positions", "torch.arange(x.shape[2])"))),
    ),
    Mistake(
        "Positions relative to the row's first",
        "You subtract the first position. Queries and keys of different calls, as in cached "
        "decoding, then no longer know how far apart they are.",
        POSITIONS,
        8,
        edited(
            REFERENCE,
            (ANGLES, ANGLES.replace("positions[", "(positions - positions[..., :1])[")),
        ),
    ),
    Mistake(
        "The first row's positions for all rows",
        "You take `positions[0]`, so the other rows are turned by positions that are not theirs. "
        "Keep the axis B, and give it a second axis for the heads.",
        POSITIONS,
        3,
        edited(
            REFERENCE,
            (HEADS, "    if angles.ndim == 3:\n        angles = angles[0]\n"),
        ),
    ),
    Mistake(
        "A row's positions go to a head",
        "Angles of shape (B, T, D/2) meet (B, H, T, D/2) from the right, so B stands where H is: "
        "an error, or worse, none. Insert an axis for the heads with `[:, None]`.",
        POSITIONS,
        3,
        edited(REFERENCE, (HEADS, "")),
    ),
    Mistake(
        "A table of T rows",
        "You look angles up in a table that is as long as the row, and positions beyond it are out "
        "of range. Compute the angles from the positions.",
        POSITIONS,
        9,
        edited(
            REFERENCE,
            (
                ANGLES,
                "table = torch.arange(x.shape[2])[:, None] * base**-exponents\n"
                "    angles = table[torch.where(positions < 0, x.shape[2], positions)]",
            ),
        ),
    ),
    Mistake(
        "Negative positions read a table's end",
        "In a table of angles, row -3 is the third from the end. Compute the angles from the "
        "positions: they may be any whole numbers.",
        POSITIONS,
        6,
        edited(
            REFERENCE,
            (
                ANGLES,
                "table = torch.arange(int(positions.max()) + 1)[:, None] * base**-exponents\n"
                "    angles = table[positions]",
            ),
        ),
    ),
    Mistake(
        "Positions begin at 1",
        "You add one to every position. Scores do not mind, but keys in a cache that was filled by "
        "other code do.",
        POSITIONS,
        13,
        edited(REFERENCE, (ANGLES, ANGLES.replace("positions[", "(positions + 1)["))),
    ),
    Mistake(
        "The interleaved layout",
        "You turn the pairs (2i, 2i + 1), as the paper and Meta's code do. Here number i is paired "
        "with number i + D/2; weights trained for one layout are useless in the other.",
        LAYOUT,
        13,
        edited(
            REFERENCE,
            (SPLIT, "first, second = x.float()[..., ::2], x.float()[..., 1::2]"),
            (TURN, TURN.replace("torch.cat", "torch.stack") + ".flatten(-2)"),
        ),
    ),
    Mistake(
        "Two layouts are mixed",
        "You repeat each cosine for its neighbor, which belongs to pairs (2i, 2i + 1), and "
        "exchange halves, which belongs to pairs (i, i + D/2). For halves, write the D/2 cosines "
        "twice, one after another.",
        LAYOUT,
        14,
        edited(
            REFERENCE,
            (WAVES, "angles = angles.repeat_interleave(2, dim=-1)\n    " + WAVES),
            (
                TURN,
                "turned = x * cos + torch.cat((-second, first), dim=-1) * sin",
            ),
        ),
    ),
    Mistake(
        "Turns the wrong way",
        "The minus sign is in the second half, so every angle has the wrong sign. The first half "
        "is `first * cos - second * sin`.",
        ROTARY,
        13,
        edited(
            REFERENCE,
            (
                TURN,
                TURN.replace("cos - second", "cos + second").replace("cos + first", "cos - first"),
            ),
        ),
    ),
    Mistake(
        "No minus sign",
        "Both products are added, so this is no rotation, and vectors change their length. One of "
        "the two sines is subtracted.",
        ROTARY,
        14,
        edited(REFERENCE, ("cos - second", "cos + second")),
    ),
    Mistake(
        "The second half is turned with the new first half",
        "You write the first half into the tensor and then read it again for the second. Compute "
        "both halves from the old numbers.",
        ROTARY,
        14,
        edited(
            REFERENCE,
            ("(first * cos - second * sin, second", "(first := first * cos - second * sin, second"),
        ),
    ),
    Mistake(
        "The caller's tensor is turned",
        "You write into x, and whoever passed it has lost the old numbers. Make a new tensor, for "
        "example with `torch.cat`.",
        ROTARY,
        3,
        edited(
            REFERENCE,
            (RETURN, "x.copy_(turned)\n    return x"),
        ),
    ),
    Mistake(
        "Sine and cosine are exchanged",
        "At position 0 nothing may turn: cos 0 is 1 and stands with the number itself. Yours turns "
        "every vector by a quarter, and the wrong way round.",
        ROTARY,
        13,
        edited(REFERENCE, (WAVES, WAVES.replace("cos, sin =", "sin, cos ="))),
    ),
    Mistake(
        "Half of the exponent",
        "The exponents are i/D for the pairs i, so the slowest ones turn much too fast. They are "
        "2i/D, which goes from 0 nearly to 1.",
        ROTARY,
        13,
        edited(REFERENCE, (EXPONENTS, "torch.arange(d_head // 2, dtype=torch.float32) / d_head")),
    ),
    Mistake(
        "Twice the exponent",
        "`arange(0, D, 2)` has the 2 of 2i/D already, and you double it, or divide by D/2. The "
        "exponents stay below 1.",
        ROTARY,
        13,
        edited(REFERENCE, (EXPONENTS, EXPONENTS.replace("/ d_head", "/ (d_head // 2)"))),
    ),
    Mistake(
        "The exponent is not divided by D",
        "With base^(-2i) all pairs but the first stand still. The exponent is 2i/D.",
        ROTARY,
        13,
        edited(REFERENCE, (EXPONENTS, EXPONENTS.replace(" / d_head", ""))),
    ),
    Mistake(
        "The exponent has the wrong sign",
        "Your later pairs turn faster instead of slower. The frequency is 1 divided by "
        "base^(2i/D).",
        ROTARY,
        13,
        edited(REFERENCE, ("base**-exponents", "base**exponents")),
    ),
    Mistake(
        "The base is always 10,000",
        "The argument `base` is not used. Llama 3 has 500,000, and its weights need that.",
        ROTARY,
        1,
        edited(REFERENCE, ("base**-exponents", "10000.0**-exponents")),
    ),
    Mistake(
        "Angles in degrees",
        "You convert the angles, as if a step were a degree. The fastest pair turns by one radian "
        "a step.",
        ROTARY,
        13,
        edited(REFERENCE, (WAVES, "angles = torch.deg2rad(angles)\n    " + WAVES)),
    ),
    Mistake(
        "Angles in half precision",
        "bfloat16 has eight bits, so position 1001 becomes 1000 and the fastest pair is off by a "
        "radian. Make the angles in float32, whatever x is.",
        POSITIONS,
        2,
        edited(
            REFERENCE,
            (
                ANGLES,
                "angles = (positions[..., None].to(x.dtype) * (base**-exponents).to(x.dtype))",
            ),
        ),
    ),
    Mistake(
        "Half precision comes back as single",
        "A cosine in float32 times a number in bfloat16 is float32. Convert the result back to the "
        "dtype of x.",
        ROTARY,
        2,
        edited(REFERENCE, (RETURN, "return turned")),
    ),
    Mistake(
        "No gradient flows",
        "You compute under `no_grad`, which is for the tables of cosines, or from `x.detach()`. "
        "What belongs to x must be followed.",
        ROTARY,
        1,
        edited(REFERENCE, (SPLIT, SPLIT.replace("x.float", "x.detach().float"))),
    ),
    Mistake(
        "A view of what is not in order",
        "`view` needs numbers that lie in memory in this order, and heads cut from a wider tensor "
        "do not. Use `reshape`, or slices.",
        ROTARY,
        1,
        edited(
            REFERENCE,
            (SPLIT, "first, second = x.view(-1).float().view(*x.shape[:-1], 2, -1).unbind(-2)"),
        ),
    ),
)

STYLES = {
    "rotate_half in the dtype of x": """
import torch


def rotate_half(x):
    x1 = x[..., : x.shape[-1] // 2]
    x2 = x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


def rotate(x, positions, base=10000.0):
    dim = x.shape[-1]
    inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))
    if positions.ndim == 1:
        positions = positions[None]
    freqs = torch.einsum("bt,d->btd", positions.float(), inv_freq)
    emb = torch.cat((freqs, freqs), dim=-1)
    cos = emb.cos().unsqueeze(1).to(x.dtype)
    sin = emb.sin().unsqueeze(1).to(x.dtype)
    return (x * cos) + (rotate_half(x) * sin)
""",
    "complex numbers": """
import torch


def rotate(x, positions, base=10000.0):
    B, H, T, D = x.shape
    omega = torch.exp(-torch.log(torch.tensor(base)) * torch.arange(D // 2) * 2 / D)
    angles = positions.expand(B, T)[:, None, :, None] * omega
    z = torch.complex(x[..., : D // 2].float(), x[..., D // 2 :].float())
    z = z * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([z.real, z.imag], -1).type_as(x)
""",
    "a matrix for each place": """
import math
import torch


def rotate(x, positions, base=10000.0):
    B, H, T, D = x.shape
    rows = []
    for b in range(B):
        places = []
        for t in range(T):
            p = int(positions[t] if positions.dim() == 1 else positions[b, t])
            R = torch.zeros(D, D, dtype=torch.float64)
            for i in range(D // 2):
                c, s = (f(p * base ** (-2 * i / D)) for f in (math.cos, math.sin))
                j = i + D // 2
                R[i, i] = R[j, j] = c
                R[i, j], R[j, i] = -s, s
            places.append(x[b, :, t].double() @ R.T)
        rows.append(torch.stack(places, dim=1))
    return torch.stack(rows).to(x.dtype)
""",
    "written into a new tensor": """
import torch


def rotate(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    freq = torch.pow(base, -torch.arange(h, dtype=torch.float32) / h)
    angle = positions.reshape(-1, 1, x.shape[2], 1) * freq
    y = torch.empty_like(x)
    y[..., :h] = x[..., :h] * angle.cos() - x[..., h:] * angle.sin()
    y[..., h:] = x[..., h:] * angle.cos() + x[..., :h] * angle.sin()
    return y
""",
}

PART = Part(
    "rotate",
    CHECKS,
    REFERENCE,
    MISTAKES,
    STYLES,
    Forbidden(READY_MADE),
    preload=PRELOAD,
)
