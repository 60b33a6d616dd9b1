"""Exercise 5.4: the exact number of a model's parameters: its mistakes and styles."""

from gptbook.grading.ch05_blocks.common import BOOK, SECTIONS
from gptbook.grading.ch05_blocks.parameters import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

COUNT, TIED, MLP = SECTIONS["count"], SECTIONS["tied"], SECTIONS["mlp"]
NORM, ORDER = SECTIONS["norm"], SECTIONS["order"]

LINEAR = "return n_in * n_out + (n_out if bias else 0)"
IF_TIED = '    if not config["tied"]:\n        total += config["vocab_size"] * width\n'
IF_LEARNED = (
    '    if config["positions"] == "learned":\n        total += config["context_length"] * width\n'
)
NORM_BIAS = 'if config["norm"] == "layernorm" and bias:'
QKV = "linear(width, (n_head + 2 * n_kv_head) * d_head)"
OUTPUT = "linear(n_head * d_head, width)"
QK = "attention += 2 * d_head"
GATE = '    if config["mlp"] == "swiglu":\n        mlp += linear(width, d_ff)\n'
TOTAL = 'total = config["n_layer"] * (attention + mlp + 2 * norm) + norm'

MISTAKES = (
    Mistake(
        "The tied table counts twice",
        "You count a matrix for the logits always. Where `tied` is True it is the table of the "
        "embedding, the same numbers used twice, and they count once.",
        TIED,
        4,
        edited(REFERENCE, (IF_TIED, IF_TIED.replace('if not config["tied"]', "if True"))),
    ),
    Mistake(
        "An untied model has no matrix of its own for the logits",
        "You count the table of the embedding only, as for a tied model. Where `tied` is False, a "
        "second one of the same shape makes the logits.",
        TIED,
        3,
        edited(REFERENCE, (IF_TIED, "")),
    ),
    Mistake(
        "The logits have a bias",
        "The matrix that makes the logits has no bias in any of these models, whatever `bias` "
        "says. Count V times C for it.",
        COUNT,
        2,
        edited(
            REFERENCE,
            (
                IF_TIED,
                '    if not config["tied"]:\n'
                '        total += linear(width, config["vocab_size"])\n',
            ),
        ),
    ),
    Mistake(
        "Rotary positions have a table",
        "You count context_length times C for every model. Rotary positions turn queries and keys "
        "by angles that are computed, and nothing of it is learned.",
        COUNT,
        2,
        edited(
            REFERENCE,
            (IF_LEARNED, '    total += config["context_length"] * width\n'),
        ),
    ),
    Mistake(
        "The table of positions is forgotten",
        "Learned positions are a table with a row for each place. Add context_length times C.",
        COUNT,
        2,
        edited(REFERENCE, (IF_LEARNED, "")),
    ),
    Mistake(
        "As many heads of keys as of queries",
        "You count n_head for queries, keys and values. Keys and values have n_kv_head heads each.",
        COUNT,
        2,
        edited(REFERENCE, (QKV, "linear(width, 3 * n_head * d_head)")),
    ),
    Mistake(
        "A head is d_model / n_head wide",
        "You compute the width of a head, and `d_head` says it. In Qwen3 the heads together are "
        "wider than the model.",
        COUNT,
        2,
        edited(
            REFERENCE,
            (
                'width, d_head, d_ff = config["d_model"], config["d_head"]',
                'width, d_head, d_ff = config["d_model"], config["d_model"] // config["n_head"]',
            ),
        ),
    ),
    Mistake(
        "The output projection is square",
        "It leads from all heads, n_head times d_head numbers, back to d_model. The two are the "
        "same only where d_head is d_model / n_head.",
        COUNT,
        2,
        edited(REFERENCE, (OUTPUT, "linear(width, width)")),
    ),
    Mistake(
        "The gate of SwiGLU is forgotten",
        "You count two matrices for every MLP. SwiGLU has a third one, whose result is multiplied "
        "by that of the first.",
        MLP,
        2,
        edited(REFERENCE, (GATE, "")),
    ),
    Mistake(
        "d_ff is four times d_model",
        "It is in GPT-2, and `d_ff` says what it is elsewhere. Use it.",
        MLP,
        2,
        edited(REFERENCE, (', config["d_ff"]', ', 4 * config["d_model"]')),
    ),
    Mistake(
        "The biases of linear layers are forgotten",
        "You count matrices only. Where `bias` is True, each of the linear layers has a number for "
        "each of its outputs as well.",
        COUNT,
        6,
        edited(REFERENCE, (LINEAR, "return n_in * n_out")),
    ),
    Mistake(
        "LayerNorm has no bias",
        "You count its weight only. Where `bias` is True, a LayerNorm also shifts, by another C "
        "numbers.",
        NORM,
        3,
        edited(REFERENCE, (NORM_BIAS, "if False:")),
    ),
    Mistake(
        "RMSNorm has a bias",
        "You count 2 C for every norm where `bias` is True. RMSNorm has a weight only.",
        NORM,
        1,
        edited(REFERENCE, (NORM_BIAS, "if bias:")),
    ),
    Mistake(
        "The final norm is forgotten",
        "You count two norms for each layer. One more stands behind the last layer.",
        ORDER,
        4,
        edited(REFERENCE, (TOTAL, TOTAL.removesuffix(" + norm"))),
    ),
    Mistake(
        "A norm for each head",
        "All query heads of a layer share one norm, and all key heads another. Each has d_head "
        "weights.",
        COUNT,
        2,
        edited(REFERENCE, (QK, "attention += (n_head + n_kv_head) * d_head")),
    ),
)

STYLES = {
    "a helper and a copy": REFERENCE.replace("def count_parameters(", "def total(")
    + """

def count_parameters(config):
    return int(total(dict(config)))
""",
    "a list of shapes": """
from math import prod


def count_parameters(config):
    c = config
    C, F, V = c["d_model"], c["d_ff"], c["vocab_size"]
    q, kv = c["n_head"] * c["d_head"], c["n_kv_head"] * c["d_head"]
    with_bias = c["bias"]

    def layer(rows, columns):
        return [(rows, columns), (rows,)] if with_bias else [(rows, columns)]

    def norm():
        return [(C,), (C,)] if c["norm"] == "layernorm" and with_bias else [(C,)]

    shapes = [(V, C)]
    if c["positions"] == "learned":
        shapes.append((c["context_length"], C))
    for _ in range(c["n_layer"]):
        shapes += norm() + layer(q, C) + layer(kv, C) + layer(kv, C) + layer(C, q)
        shapes += [(c["d_head"],)] * 2 if c["qk_norm"] else []
        shapes += norm() + layer(F, C) + layer(C, F)
        shapes += layer(F, C) if c["mlp"] == "swiglu" else []
    shapes += norm()
    if not c["tied"]:
        shapes.append((V, C))
    return sum(map(prod, shapes))
""",
    "one expression": """
def count_parameters(config):
    V, S, L, H, K, C, D, F = (
        config[name]
        for name in (
            "vocab_size", "context_length", "n_layer", "n_head", "n_kv_head", "d_model", "d_head",
            "d_ff",
        )
    )
    b = int(config["bias"])
    n_up = 1 + (config["mlp"] == "swiglu")
    norm = C * (2 if b and config["norm"] == "layernorm" else 1)
    return (
        V * C * (2 - config["tied"])
        + S * C * (config["positions"] == "learned")
        + L * ((C + b) * (H + 2 * K) * D + H * D * C + b * C)
        + L * (n_up * (C + b) * F + F * C + b * C)
        + L * 2 * D * config["qk_norm"]
        + (2 * L + 1) * norm
    )
""",
}

FORBIDDEN = Forbidden(BOOK)

PART = Part("count_parameters", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=PRELOAD)
