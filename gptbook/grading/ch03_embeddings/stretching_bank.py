"""Exercise 3.4: wrong and other right ways to stretch rotary positions."""

from gptbook.grading.ch03_embeddings.common import READY_MADE, SECTIONS
from gptbook.grading.ch03_embeddings.stretching import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

STRETCHING, BEYOND, ROTARY = SECTIONS["stretching"], SECTIONS["beyond"], SECTIONS["rotary"]

LINEAR = "return frequencies / factor\n"
NTK = "base = base * factor ** (d_head / (d_head - 2))"
TURNS = "turns = original_context_length / (2 * math.pi * times)"
PAIR = "return d_head * math.log(turns) / (2 * math.log(base))"
LOW = "low = max(math.floor(pair_that_turns(beta_fast)), 0)"
HIGH = "high = min(math.ceil(pair_that_turns(beta_slow)), d_head - 1)"
SHARE = "share = ((torch.arange(d_head // 2) - low) / (high - low)).clamp(0, 1)"
BLEND = "return share * frequencies / factor + (1 - share) * frequencies"

MISTAKES = (
    Mistake(
        "Interpolation multiplies",
        "You make every pair faster by the factor. A text that is longer must take the same angles "
        "as before, so the hands turn slower: divide.",
        STRETCHING,
        1,
        edited(REFERENCE, (LINEAR, LINEAR.replace("/", "*"))),
    ),
    Mistake(
        "Interpolation divides the base",
        "A smaller base makes the slow pairs faster and leaves the fastest as it is. Position "
        "interpolation divides every frequency by the factor.",
        STRETCHING,
        1,
        edited(REFERENCE, (LINEAR, "return (base / factor) ** -exponents\n")),
    ),
    Mistake(
        "The base times the factor",
        "With base * factor the slowest pair becomes slower by a little less than the factor. The "
        "exponent D/(D-2) makes up for the exponent (D-2)/D that this pair has.",
        STRETCHING,
        2,
        edited(REFERENCE, (NTK, "base = base * factor")),
    ),
    Mistake(
        "The exponent of NTK is upside down",
        "You raise the factor to (D-2)/D, which is the slowest pair's own exponent. To undo it, "
        "take its inverse, D/(D-2).",
        STRETCHING,
        2,
        edited(REFERENCE, (NTK, "base = base * factor ** ((d_head - 2) / d_head)")),
    ),
    Mistake(
        "The power of the whole base",
        "You raise base * factor to D/(D-2), so the frequencies change even for a factor of 1. "
        "Only the factor is raised.",
        STRETCHING,
        3,
        edited(REFERENCE, (NTK, "base = (base * factor) ** (d_head / (d_head - 2))")),
    ),
    Mistake(
        "NTK divides the frequencies as well",
        "The base is larger, and then you divide by the factor, too, which slows the pairs down "
        "twice. The larger base is all there is to it.",
        STRETCHING,
        2,
        edited(
            REFERENCE,
            ('    if kind == "ntk":\n        return frequencies\n', ""),
            ('if kind == "linear":', 'if kind in ("linear", "ntk"):'),
        ),
    ),
    Mistake(
        "The ramp is the wrong way round",
        "You slow down the pairs that turn often and keep the slow ones. Fast pairs have been all "
        "the way round in training, so they are the ones to keep.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            (
                BLEND,
                BLEND.replace("share * freq", "(1 - share) * freq", 1).replace(
                    "+ (1 - share)", "+ share"
                ),
            ),
        ),
    ),
    Mistake(
        "beta_fast and beta_slow are exchanged",
        "The ramp begins where pairs turn beta_slow times and ends where they turn beta_fast "
        "times, so it runs backwards. Fast pairs have small numbers: beta_fast gives the low end.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            (LOW, LOW.replace("beta_fast", "beta_slow")),
            (HIGH, HIGH.replace("beta_slow", "beta_fast")),
        ),
    ),
    Mistake(
        "A turn without 2 pi",
        "You count radians as turns, so the ramp is many pairs late. One turn is 2 pi radians: "
        "divide the length by 2 pi times the number of turns.",
        STRETCHING,
        6,
        edited(REFERENCE, (TURNS, TURNS.replace("2 * math.pi * ", ""))),
    ),
    Mistake(
        "The ramp of the longer text",
        "You count turns in the stretched length. What a pair has seen in training is its turns in "
        "the original length.",
        BEYOND,
        6,
        edited(REFERENCE, (TURNS, TURNS.replace("= original", "= factor * original"))),
    ),
    Mistake(
        "The ramp counts numbers instead of pairs",
        "The formula gives the index of a pair, and you compare it with 0, 2, 4, and so on, or "
        "leave out its 2. Both ends and the ramp count pairs from 0 to D/2 - 1.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            (SHARE, SHARE.replace("torch.arange(d_head // 2)", "torch.arange(0, d_head, 2)")),
        ),
    ),
    Mistake(
        "The ends of the ramp are not rounded",
        "Your ramp begins and ends between two pairs. The low end is rounded down, and the high "
        "end up.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            ("math.floor(pair_that_turns(beta_fast))", "pair_that_turns(beta_fast)"),
            ("math.ceil(pair_that_turns(beta_slow))", "pair_that_turns(beta_slow)"),
        ),
    ),
    Mistake(
        "Both ends are rounded down",
        "`int` and `//` round down, and so the ramp ends a pair early. Use `math.ceil` for the "
        "high end.",
        STRETCHING,
        6,
        edited(REFERENCE, ("math.ceil(", "math.floor(")),
    ),
    Mistake(
        "The ramp is not clamped",
        "Before and behind the ramp its straight line goes on, below 0 and above 1. Clamp the "
        "share to the range from 0 to 1.",
        STRETCHING,
        6,
        edited(REFERENCE, (SHARE, SHARE.replace(".clamp(0, 1)", ""))),
    ),
    Mistake(
        "Wavelengths are blended",
        "You mix the lengths of a turn and not the frequencies, which gives other numbers within "
        "the ramp. Mix frequencies.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            (BLEND, "return 1 / (share * factor / frequencies + (1 - share) / frequencies)"),
        ),
    ),
    Mistake(
        "The slow pairs get the larger base",
        "You blend with NTK's frequencies. YaRN divides the slow pairs' frequencies by the factor, "
        "as position interpolation does.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            (
                BLEND,
                "wider = base * factor ** (d_head / (d_head - 2))\n"
                "    return share * wider**-exponents + (1 - share) * frequencies",
            ),
        ),
    ),
    Mistake(
        "The attention factor is in the frequencies",
        "0.1 ln(factor) + 1 scales queries and keys, that is, cosines and sines. It has no place "
        "in a frequency.",
        STRETCHING,
        6,
        edited(
            REFERENCE,
            (BLEND, f"{BLEND.replace('return ', 'return (')}) * (0.1 * math.log(factor) + 1)"),
        ),
    ),
    Mistake(
        "The ends are always 32 and 1",
        "The arguments beta_fast and beta_slow are not used. They are what the reader of a model's "
        "configuration passes.",
        STRETCHING,
        3,
        edited(
            REFERENCE,
            ("pair_that_turns(beta_fast)", "pair_that_turns(32.0)"),
            ("pair_that_turns(beta_slow)", "pair_that_turns(1.0)"),
        ),
    ),
    Mistake(
        "The low end is not cut off at 0",
        "With a short original length the ramp begins before the first pair, and its slope is "
        "another. Take 0 where the low end is negative.",
        STRETCHING,
        2,
        edited(REFERENCE, (LOW, "low = math.floor(pair_that_turns(beta_fast))")),
    ),
    Mistake(
        "The high end is cut off at the last pair",
        "You cut the ramp off at D/2 - 1, so it becomes too steep. The limit is D - 1, as in the "
        "authors' code, although there are only D/2 pairs.",
        STRETCHING,
        2,
        edited(REFERENCE, ("d_head - 1)\n", "d_head // 2 - 1)\n")),
    ),
    Mistake(
        "The high end is not cut off",
        "A slow base and a long text put the high end beyond D - 1. Take D - 1 there.",
        STRETCHING,
        2,
        edited(REFERENCE, (HIGH, "high = math.ceil(pair_that_turns(beta_slow))")),
    ),
)

STYLES = {
    "as in transformers": """
import math
import torch


def stretched_frequencies(
    kind, d_head, base, factor, original_context_length, beta_fast=32.0, beta_slow=1.0
):
    dim = d_head

    def find_correction_dim(num_rotations):
        return (dim * math.log(original_context_length / (num_rotations * 2 * math.pi))) / (
            2 * math.log(base)
        )

    def linear_ramp_factor(low, high, size):
        if low == high:
            high += 0.001
        return torch.clamp((torch.arange(size, dtype=torch.float32) - low) / (high - low), 0, 1)

    if kind == "ntk":
        base = base * factor ** (dim / (dim - 2))
    pos_freqs = base ** (torch.arange(0, dim, 2).float() / dim)
    if kind == "ntk":
        return 1.0 / pos_freqs
    if kind == "linear":
        return 1.0 / (factor * pos_freqs)
    low = max(math.floor(find_correction_dim(beta_fast)), 0)
    high = min(math.ceil(find_correction_dim(beta_slow)), dim - 1)
    keep = 1 - linear_ramp_factor(low, high, dim // 2)
    return 1.0 / (factor * pos_freqs) * (1 - keep) + 1.0 / pos_freqs * keep
""",
    "pair by pair": """
import math
import torch


def stretched_frequencies(
    kind, d_head, base, factor, original_context_length, beta_fast=32.0, beta_slow=1.0
):
    def index(beta):
        return math.log(original_context_length / 2 / math.pi / beta, base) * d_head / 2

    if kind == "yarn":
        low = max(0, math.floor(index(beta_fast)))
        high = min(d_head - 1, math.ceil(index(beta_slow)))
    out = []
    for i in range(d_head // 2):
        w = 1 / base ** (2 * i / d_head)
        if kind == "linear":
            w /= factor
        elif kind == "ntk":
            w /= factor ** (2 * i / (d_head - 2))
        elif i >= high:
            w /= factor
        elif i > low:
            r = (i - low) / (high - low)
            w *= 1 - r + r / factor
        out.append(w)
    return torch.tensor(out)
""",
    "logarithms": """
import numpy as np
import torch


def stretched_frequencies(
    kind, d_head, base, factor, original_context_length, beta_fast=32.0, beta_slow=1.0
):
    pairs = np.arange(d_head // 2)
    logs = -np.log(base) * pairs / (d_head / 2)
    if kind == "linear":
        logs = logs - np.log(factor)
    elif kind == "ntk":
        logs = logs - np.log(factor) * np.linspace(0, 1, d_head // 2)
    else:
        per_pair = np.log(base) * 2 / d_head
        a = np.floor(np.log(original_context_length / (2 * np.pi * beta_fast)) / per_pair)
        b = np.ceil(np.log(original_context_length / (2 * np.pi * beta_slow)) / per_pair)
        share = np.interp(pairs, [max(a, 0), min(b, d_head - 1)], [0, 1])
        logs = logs + np.log1p(share * (1 / factor - 1))
    return torch.from_numpy(np.exp(logs))
""",
}

ADAPTER = """
import math

import torch


def replacement(d_head, config):
    scaling = config.scaling
    plain = stretched_frequencies("linear", d_head, config.base, 1.0, 1).float()
    if scaling is None:
        return plain, 1.0
    if scaling.kind == "llama3":
        turns = scaling.original_context_length * plain / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * keep + plain / scaling.factor * (1 - keep), 1.0
    frequencies = stretched_frequencies(
        scaling.kind,
        d_head,
        config.base,
        scaling.factor,
        scaling.original_context_length or 1,
        scaling.beta_fast,
        scaling.beta_slow,
    )
    attention_factor = 1.0
    if scaling.kind == "yarn":
        attention_factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
    return torch.as_tensor(frequencies).float(), attention_factor
"""

PART = Part(
    "stretched_frequencies",
    CHECKS,
    REFERENCE,
    MISTAKES,
    STYLES,
    Forbidden(READY_MADE),
    replaces="gptbook.positions:rope_frequencies",
    adapter=ADAPTER,
    preload=PRELOAD,
)
