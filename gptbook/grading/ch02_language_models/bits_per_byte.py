"""Exercise 2.1: from log-probabilities to bits per byte."""

import math
import random
from collections.abc import Sequence
from typing import Any

from gptbook.grading.ch02_language_models.common import (
    CLOSE,
    READY_MADE,
    SECTIONS,
    all_alike,
    cut,
    is_close,
    is_number,
)
from gptbook.grading.compare import show
from gptbook.grading.exercise import (
    Args,
    Check,
    Draw,
    Kind,
    Mistake,
    Part,
    edited,
    oracle,
    source_of,
)

Document = list[tuple[bytes, float]]


def bits_per_byte(documents: Sequence[Sequence[tuple[bytes, float]]]) -> float:
    """Return all nats over all bytes, in bits."""
    nats, n_bytes = 0.0, 0
    for document in documents:
        for token, log_prob in document:
            nats -= log_prob
            n_bytes += len(token)
    if n_bytes == 0:
        raise ValueError("no bytes, so bits per byte have no meaning")
    return nats / n_bytes / math.log(2)


# --- inputs ---

ASCII = "the cat sat, on 3 mats "
BEYOND = "éñüßשж€語ไ한👋🎉"


def draw_log_prob(stream: random.Random) -> float:
    """A log-probability in nats, from likely to very unlikely."""
    return -stream.uniform(0.2, 7.0)


def draw_document(stream: random.Random, letters: str, size: int, longest: int = 4) -> Document:
    """Some characters as tokens of up to so many bytes, each with a log-probability."""
    data = "".join(stream.choices(letters, k=size)).encode("utf-8")
    return [(token, draw_log_prob(stream)) for token in cut(stream, data, longest)]


def draw_one(stream: random.Random) -> list[Args]:
    """One document of ASCII text."""
    return [([draw_document(stream, ASCII, stream.randint(6, 14))],) for _ in range(6)]


def draw_uniform(stream: random.Random) -> list[Args]:
    """Bytes that are tokens, each as likely as one of 2, 4, ... 256."""
    return [
        ([[(bytes([stream.randrange(97, 123)]), -bits * math.log(2)) for _ in range(size)]],)
        for bits, size in ((8, stream.randint(3, 6)), (stream.randint(1, 7), 1))
    ]


def draw_cuts(stream: random.Random) -> list[Args]:
    """The same tokens as one document, and cut into several of different length."""
    cases: list[Args] = []
    for _ in range(4):
        tokens = [*draw_document(stream, ASCII, 16), (b"ing", -0.1)]
        middle = stream.randint(1, 3)
        cases.append((([tokens],), ([tokens[:middle], tokens[middle:]],)))
    return cases


def draw_many(stream: random.Random) -> list[Args]:
    """Documents of very different length."""
    return [
        ([draw_document(stream, ASCII, size) for size in stream.sample([2, 5, 11, 23], 3)],)
        for _ in range(5)
    ]


def draw_beyond_ascii(stream: random.Random) -> list[Args]:
    """Characters of several bytes, whole and cut anywhere; several complete ones in a token."""
    cases: list[Args] = []
    for longest in (1, 2, 3, 9):
        document = draw_document(stream, BEYOND, 6, longest)
        whole = "".join(stream.choices(BEYOND, k=2)).encode("utf-8")
        cases.append(([[*document, (whole, draw_log_prob(stream)), (b"ok", -1.0)]],))
    return cases


def draw_ended(stream: random.Random) -> list[Args]:
    """One document with the token that ends it."""
    return [
        ([[*draw_document(stream, ASCII, stream.randint(3, 9)), (b"", draw_log_prob(stream))]],)
        for _ in range(5)
    ]


def draw_impossible(stream: random.Random) -> list[Args]:
    """A token that the model took for impossible, and tokens that it was sure of."""
    document = draw_document(stream, ASCII, 8)
    document[stream.randrange(len(document))] = b"xy", -math.inf
    return [([document],), ([[(b"ab", 0.0), (b"c", 0.0)]],)]


def draw_nothing(_: random.Random) -> list[Args]:
    """No byte at all, in three ways."""
    return [([],), ([[]],), ([[], [(b"", -1.5)]],)]


def legal(documents: list[Document]) -> bool:
    """Whether there is a byte, and no probability is above 1."""
    pairs = [pair for document in documents for pair in document if len(pair) == 2]
    return any(token for token, _ in pairs) and all(log_prob <= 0 for _, log_prob in pairs)


# --- verdicts ---


def is_the_exponent(args: Args, value: Any) -> str | None:
    """Where every byte has the probability 2**-k, a byte costs k bits."""
    log_prob = args[0][0][0][1]
    bits = round(-log_prob / math.log(2))
    if is_close(bits, value):
        return None
    return f"gives {show(value)}, expected {bits} where every byte has the probability 1/{2**bits}"


def raises_value_error(_: Args, value: tuple[str, Any]) -> str | None:
    """For the probe `attempt`."""
    how, what = value
    if how == "returned":
        return f"gives {show(what)}, expected ValueError, since there is no byte"
    return None if "ValueError" in what else f"raises {what[0]}, expected ValueError"


FORM = "returns a float"
UNIFORM = "a byte of probability 1/2**k costs k bits"
CUTS = "where documents are cut makes no difference"
ONE = "one document"
MANY = "documents of different length"
BEYOND_ASCII = "characters of several bytes"
ENDED = "the end of text is paid for"
IMPOSSIBLE = "probabilities of zero and one"
NOTHING = "no bytes are an error"


def _oracle(name: str, draw: Draw, hint: int) -> Check:
    return oracle(name, 1, draw, bits_per_byte, CLOSE, needs=(FORM,), legal=legal, hint=hint)


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_one, is_number, pure=True),
    Check(UNIFORM, Kind.PROPERTY, 1, draw_uniform, is_the_exponent, (FORM,), hint=2),
    Check(
        CUTS,
        Kind.PROPERTY,
        1,
        draw_cuts,
        lambda _, value: all_alike(("for one document", "for its two halves"), value),
        (FORM,),
        "call_each",
        hint=3,
    ),
    _oracle(ONE, draw_one, 1),
    _oracle(MANY, draw_many, 3),
    _oracle(BEYOND_ASCII, draw_beyond_ascii, 3),
    _oracle(ENDED, draw_ended, 4),
    _oracle(IMPOSSIBLE, draw_impossible, 4),
    Check(NOTHING, Kind.BEHAVIOR, 1, draw_nothing, raises_value_error, (), "attempt", hint=4),
)

REFERENCE = source_of(bits_per_byte)

LIKELIHOOD, BITS = SECTIONS["likelihood"], SECTIONS["bits"]
LAST_LINE = "return nats / n_bytes / math.log(2)"

MISTAKES = (
    Mistake(
        "The mean of the documents' means",
        "Each document gets the same weight, so that a byte of a short one counts more than a byte "
        "of a long one. Add up all nats and all bytes first, and divide once.",
        BITS,
        2,
        """
import math


def bits_per_byte(documents):
    means = []
    for document in documents:
        n_bytes = sum(len(token) for token, _ in document)
        if n_bytes:
            means.append(-sum(log_prob for _, log_prob in document) / n_bytes)
    if not means:
        raise ValueError("no bytes")
    return sum(means) / len(means) / math.log(2)
""",
    ),
    Mistake(
        "The mean of the tokens' means",
        "You turn each token into bits per byte and average those, so a token of one byte weighs "
        "as much as a token of ten. Add up all nats and all bytes first, and divide once.",
        BITS,
        4,
        """
import math


def bits_per_byte(documents):
    pairs = [pair for document in documents for pair in document if pair[0]]
    if not pairs:
        raise ValueError("no bytes")
    rates = [-log_prob / len(token) / math.log(2) for token, log_prob in pairs]
    return sum(rates) / len(rates)
""",
    ),
    Mistake(
        "Nats are given for bits",
        "The log-probabilities are natural logarithms, so their sum is in nats. Divide by ln 2 to "
        "have bits.",
        LIKELIHOOD,
        5,
        edited(REFERENCE, (LAST_LINE, "return nats / n_bytes")),
    ),
    Mistake(
        "Multiplied by ln 2",
        "A nat is more than a bit: one nat is 1/ln 2, about 1.44 bits. Divide by ln 2 and do not "
        "multiply.",
        LIKELIHOOD,
        5,
        edited(REFERENCE, ("/ math.log(2)", "* math.log(2)")),
    ),
    Mistake(
        "Divided by ln 10",
        "`log10` counts decimal digits. One nat is 1/ln 2 bits, so divide by ln 2.",
        LIKELIHOOD,
        5,
        edited(REFERENCE, ("math.log(2)", "math.log(10)")),
    ),
    Mistake(
        "Bits per token",
        "You divide by the number of tokens, so a tokenizer with longer tokens seems to make a "
        "worse model. Divide by the bytes that the tokens stand for.",
        BITS,
        4,
        edited(REFERENCE, ("n_bytes += len(token)", 'n_bytes += token != b""')),
    ),
    Mistake(
        "Bits per character",
        "A character outside of ASCII has two to four bytes, and you count it once. Count the "
        "bytes, which every tokenizer agrees on.",
        BITS,
        1,
        edited(
            REFERENCE,
            (
                "            n_bytes += len(token)\n",
                '        data = b"".join(token for token, _ in document)\n'
                '        n_bytes += len(data.decode("utf-8"))\n',
            ),
        ),
    ),
    Mistake(
        "Each token is decoded to count it",
        "A token may end within a character, and then its text has a U+FFFD for what is broken. "
        "Take the length of the bytes and decode nothing.",
        BITS,
        1,
        edited(REFERENCE, ("len(token)", 'len(token.decode("utf-8", errors="replace"))')),
    ),
    Mistake(
        "The end of text is free",
        "You leave out the tokens without bytes, so the model does not pay for saying where the "
        "text ends. Add their nats as well; only their bytes are zero.",
        BITS,
        1,
        edited(
            REFERENCE,
            (
                "            nats -= log_prob\n",
                "            if not token:\n"
                "                continue\n"
                "            nats -= log_prob\n",
            ),
        ),
    ),
    Mistake(
        "The end of text counts as a byte",
        "The token that ends a document is no part of its text, but you count a byte for it. Add "
        "its nats, and the length of its bytes, which is zero.",
        BITS,
        2,
        edited(REFERENCE, ("n_bytes += len(token)", "n_bytes += max(len(token), 1)")),
    ),
    Mistake(
        "The sign is forgotten",
        "Log-probabilities are negative or zero, and so is your answer. Bits are what the model "
        "pays: the negative of the sum.",
        LIKELIHOOD,
        6,
        edited(REFERENCE, ("nats -= log_prob", "nats += log_prob")),
    ),
    Mistake(
        "A perplexity in place of bits",
        "You raise e to the mean, which is how many choices the model hesitates between. Bits per "
        "byte is the mean itself, over ln 2.",
        SECTIONS["perplexity"],
        6,
        edited(REFERENCE, (LAST_LINE, "return math.exp(nats / n_bytes)")),
    ),
    Mistake(
        "Probabilities are averaged before the logarithm",
        "The logarithm of a mean is not the mean of logarithms: a single token of probability zero "
        "would hardly matter. Add log-probabilities, which multiplies the probabilities.",
        LIKELIHOOD,
        5,
        """
import math


def bits_per_byte(documents):
    pairs = [pair for document in documents for pair in document]
    n_bytes = sum(len(token) for token, _ in pairs)
    if n_bytes == 0:
        raise ValueError("no bytes")
    mean = sum(math.exp(log_prob) for _, log_prob in pairs) / len(pairs)
    return -math.log2(mean) * len(pairs) / n_bytes
""",
    ),
    Mistake(
        "A probability of zero is mended",
        "You replace a log-probability of minus infinity by something finite, which hides that the "
        "model called the text impossible. Let the answer be infinite.",
        LIKELIHOOD,
        1,
        edited(REFERENCE, ("nats -= log_prob", "nats -= max(log_prob, math.log(1e-10))")),
    ),
    Mistake(
        "Impossible tokens are left out",
        "Tokens with a log-probability of minus infinity are skipped, so the model is not charged "
        "for its worst errors. Let the answer be infinite.",
        LIKELIHOOD,
        1,
        edited(
            REFERENCE,
            ("nats -= log_prob", "nats -= log_prob if math.isfinite(log_prob) else 0.0"),
        ),
    ),
    Mistake(
        "No bytes give zero",
        "Zero bits per byte would be a perfect model, and here nothing was measured. Raise "
        "ValueError.",
        BITS,
        1,
        edited(
            REFERENCE,
            ('raise ValueError("no bytes, so bits per byte have no meaning")', "return 0.0"),
        ),
    ),
    Mistake(
        "No bytes end in ZeroDivisionError",
        "The division fails on its own, with a message that does not say what is wrong with the "
        "argument. Check for it and raise ValueError.",
        BITS,
        1,
        edited(
            REFERENCE,
            (
                "    if n_bytes == 0:\n"
                '        raise ValueError("no bytes, so bits per byte have no meaning")\n',
                "",
            ),
        ),
    ),
)

STYLES = {
    "numpy": """
import numpy as np


def bits_per_byte(documents):
    pairs = [pair for document in documents for pair in document]
    n_bytes = np.sum([len(token) for token, _ in pairs], dtype=np.int64)
    if n_bytes == 0:
        raise ValueError("empty")
    return float(np.sum([-log_prob / np.log(2.0) for _, log_prob in pairs]) / n_bytes)
""",
    "base 2 from the start, float32": """
import numpy as np


def bits_per_byte(documents):
    costs, sizes = [], []
    for document in documents:
        for token, log_prob in document:
            costs.append(np.float32(-log_prob) * np.float32(np.log2(np.e)))
            sizes.append(len(token))
    if not sum(sizes):
        raise ValueError("empty")
    return np.sum(np.array(costs, dtype=np.float32)) / np.float32(sum(sizes))
""",
    "weighted means": """
import math


def bits_per_byte(documents):
    text = [b"".join(token for token, _ in document) for document in documents]
    total = len(b"".join(text))
    if total == 0:
        raise ValueError("empty")
    result = 0.0
    for document, data in zip(documents, text):
        bits = math.fsum(-log_prob for _, log_prob in document) / math.log(2)
        result += bits / max(len(data), 1) * (max(len(data), 1) / total)
    return result
""",
    "recursive": """
import math


def totals(documents):
    if not documents:
        return 0.0, 0
    nats, size = totals(documents[1:])
    return nats - sum(p for _, p in documents[0]), size + sum(len(t) for t, _ in documents[0])


def bits_per_byte(documents):
    nats, size = totals(documents)
    if size < 1:
        raise ValueError(f"{size} bytes")
    return nats / (size * math.log(2))
""",
}

PART = Part("bits_per_byte", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
