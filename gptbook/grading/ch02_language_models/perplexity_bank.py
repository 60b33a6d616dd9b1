"""Exercise 2.2: wrong and other right ways to compare perplexities."""

from gptbook.grading.ch02_language_models.common import READY_MADE, SECTIONS
from gptbook.grading.ch02_language_models.perplexity import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited

PERPLEXITY, TOKENIZERS = SECTIONS["perplexity"], SECTIONS["tokenizers"]
ROW = "rows.append((name, math.exp(nats / n_bytes), math.exp(nats / n_words)))"
FOR_EACH = """        nats = 0.0
        for perplexity, n_tokens in parts:
            if n_tokens > 0:
                nats += n_tokens * math.log(perplexity)
"""
TOKENS = "        total = sum(n_tokens for _, n_tokens in parts)\n"
COUNTED = "        parts = [(p, n) for p, n in parts if n > 0]\n"

MISTAKES = (
    Mistake(
        "Perplexities are averaged over tokens",
        "A perplexity is a geometric mean, and you combine the parts' by an arithmetic one, which "
        "is too large. Take logarithms, add up the nats of all parts, and raise e at the end.",
        PERPLEXITY,
        1,
        edited(
            REFERENCE,
            (
                FOR_EACH,
                COUNTED
                + TOKENS
                + "        mean = sum(n * p for p, n in parts) / total\n"
                + "        nats = total * math.log(mean)\n",
            ),
        ),
    ),
    Mistake(
        "Every part has the same weight",
        "You take the mean of the parts' logarithms whatever their length. Weight each with its "
        "number of tokens, which gives back the part's nats.",
        PERPLEXITY,
        1,
        edited(
            REFERENCE,
            (
                FOR_EACH,
                COUNTED
                + TOKENS
                + "        nats = total * sum(math.log(p) for p, _ in parts) / len(parts)\n",
            ),
        ),
    ),
    Mistake(
        "The plain average of perplexities",
        "The parts' perplexities are averaged as they stand: the wrong mean, with the wrong "
        "weights. Turn each into nats for its tokens, and add those up.",
        PERPLEXITY,
        1,
        edited(
            REFERENCE,
            (
                FOR_EACH,
                COUNTED
                + TOKENS
                + "        nats = total * math.log(sum(p for p, _ in parts) / len(parts))\n",
            ),
        ),
    ),
    Mistake(
        "A perplexity is divided as if it were a cost",
        "You multiply the perplexity by tokens per byte, and that scales nats, not perplexities. "
        "Scale the logarithm, which raises the perplexity to a power.",
        TOKENIZERS,
        8,
        edited(
            REFERENCE,
            (
                ROW,
                TOKENS.strip() + "\n        per_token = math.exp(nats / total)\n"
                "        rows.append((name, per_token * total / n_bytes, "
                "per_token * total / n_words))",
            ),
        ),
    ),
    Mistake(
        "The exponent is upside down",
        "You raise to bytes per token, which makes the number per byte larger than the number per "
        "token. A byte is less than a token: the exponent is tokens per byte.",
        TOKENIZERS,
        8,
        edited(
            REFERENCE,
            (
                ROW,
                TOKENS.strip() + "\n        per_token = nats / total\n"
                "        rows.append((name, _exp(per_token * n_bytes / total), "
                "_exp(per_token * n_words / total)))",
            ),
            (
                "    n_bytes, n_words",
                "    _exp = lambda x: math.exp(x) if x < 700 else math.inf\n    n_bytes, n_words",
            ),
        ),
    ),
    Mistake(
        "Nothing is converted",
        "What you give is per token, so models whose tokens differ cannot be compared by it. "
        "Divide the nats by the bytes and the words of the text.",
        TOKENIZERS,
        8,
        edited(
            REFERENCE,
            (
                ROW,
                TOKENS.strip() + "\n        per_token = math.exp(nats / total)\n"
                "        rows.append((name, per_token, per_token))",
            ),
        ),
    ),
    Mistake(
        "The words are scaled, not raised",
        "You get the perplexity per word from the one per byte by multiplying with bytes per word. "
        "Nats scale like that, and a perplexity is raised to the power.",
        TOKENIZERS,
        4,
        edited(
            REFERENCE,
            (
                ROW,
                "per_byte = math.exp(nats / n_bytes)\n"
                "        rows.append((name, per_byte, per_byte * n_bytes / n_words))",
            ),
        ),
    ),
    Mistake(
        "Two raised to nats",
        "The logarithm has the base e and the power has the base 2, so the number is too small. "
        "Use `exp` with `log`, or `2 **` with `log2`.",
        PERPLEXITY,
        6,
        edited(REFERENCE, (ROW, ROW.replace("math.exp(nats", "2 ** (nats"))),
    ),
    Mistake(
        "Characters in place of bytes",
        "`len(text)` counts characters, and one outside of ASCII has two to four bytes. Encode the "
        "text and take the length of that.",
        SECTIONS["bits"],
        1,
        edited(REFERENCE, ('len(text.encode("utf-8"))', "len(text)")),
    ),
    Mistake(
        "Words are cut at single spaces",
        '`split(" ")` finds empty words between two spaces, and none at a line end. `split()` cuts '
        "at any run of white space.",
        TOKENIZERS,
        1,
        edited(REFERENCE, ("text.split()", 'text.split(" ")')),
    ),
    Mistake(
        "The spaces are not counted",
        "The bytes of the words are not the bytes of the text: the model pays for the spaces too. "
        "Divide by the length of the whole text in bytes.",
        TOKENIZERS,
        5,
        edited(REFERENCE, ("text.encode", '"".join(text.split()).encode')),
    ),
    Mistake(
        "Byte and word are exchanged",
        "The second item of a row is per byte and the third per word. Yours come the other way "
        "round.",
        TOKENIZERS,
        6,
        edited(
            REFERENCE,
            (ROW, "rows.append((name, math.exp(nats / n_words), math.exp(nats / n_bytes)))"),
        ),
    ),
    Mistake(
        "Sorted by perplexity per token",
        "The order is that of the reported numbers, in which longer tokens look worse. Sort by "
        "what you computed per byte.",
        TOKENIZERS,
        1,
        edited(
            REFERENCE,
            ("for name, parts in reports.items():", "for name, parts in by_token(reports):"),
            ("return sorted(rows, key=lambda row: row[1])", "return rows"),
        )
        + """

def by_token(reports):
    def mean(item):
        parts = [(p, n) for p, n in item[1] if n > 0]
        return sum(n * math.log(p) for p, n in parts) / sum(n for _, n in parts)

    return sorted(reports.items(), key=mean)
""",
    ),
    Mistake(
        "The worst is first",
        "A lower perplexity is better, and you sort from high to low. Leave out `reverse`.",
        PERPLEXITY,
        1,
        edited(REFERENCE, ("row[1])", "row[1], reverse=True)")),
    ),
    Mistake(
        "The rows are not sorted",
        "The models come in the order of the dictionary. Sort the rows by perplexity per byte.",
        TOKENIZERS,
        1,
        edited(REFERENCE, ("return sorted(rows, key=lambda row: row[1])", "return rows")),
    ),
    Mistake(
        "The product overflows",
        "You multiply one factor for each token, and with some hundreds of tokens that is more "
        "than a float can hold. Add up logarithms.",
        SECTIONS["likelihood"],
        1,
        edited(
            REFERENCE,
            ("nats = 0.0", "product = 1.0"),
            ("nats += n_tokens * math.log(perplexity)", "product *= perplexity**n_tokens"),
            (ROW, "rows.append((name, product ** (1 / n_bytes), product ** (1 / n_words)))"),
        ),
    ),
    Mistake(
        "A part without tokens spoils the sum",
        "Zero times NaN is NaN, so one empty part makes the whole answer NaN. Leave out parts "
        "without tokens.",
        PERPLEXITY,
        1,
        edited(REFERENCE, ("            if n_tokens > 0:\n    ", "")),
    ),
    Mistake(
        "Infinite perplexities are left out",
        "You keep finite perplexities only, so a model that called the text impossible is not "
        "charged for it. Leave out parts without tokens, and nothing else.",
        SECTIONS["likelihood"],
        1,
        edited(REFERENCE, ("if n_tokens > 0:", "if math.isfinite(perplexity):")),
    ),
)

STYLES = {
    "numpy": """
import numpy as np


def compare_models(text, reports):
    sizes = np.array([len(text.encode()), len(text.split())])
    table = []
    for name, parts in reports.items():
        perplexity, tokens = np.array(parts, dtype=float).T
        nats = (np.log(perplexity[tokens > 0]) * tokens[tokens > 0]).sum()
        table.append((name, *np.exp(nats / sizes)))
    order = np.argsort([row[1] for row in table])
    return [table[i] for i in order]
""",
    "bits": """
import math


def compare_models(text, reports):
    def bits(parts):
        return math.fsum(n * math.log2(p) for p, n in parts if n)

    def row(name):
        total = bits(reports[name])
        return name, 2 ** (total / len(bytes(text, "utf-8"))), 2 ** (total / len(text.split()))

    return list(map(row, sorted(reports, key=lambda name: bits(reports[name]))))
""",
    "powers": """
import re


def compare_models(text, reports):
    n_bytes, n_words = len(text.encode("utf-8")), len(re.findall(r"\\S+", text))
    rows = []
    for name, parts in reports.items():
        per_byte = per_word = 1.0
        for perplexity, n in parts:
            if n != 0:
                per_byte *= perplexity ** (n / n_bytes)
                per_word *= perplexity ** (n / n_words)
        rows.append((per_byte, name, per_word))
    rows.sort()
    return [(name, per_byte, per_word) for per_byte, name, per_word in rows]
""",
}

PART = Part("compare_models", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
