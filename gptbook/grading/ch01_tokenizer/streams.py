"""Exercise 1.4: decoding a stream in which characters are split."""

import codecs
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gptbook.grading.ch01_tokenizer.training import READY_MADE
from gptbook.grading.compare import show
from gptbook.grading.exercise import (
    Args,
    Check,
    Draw,
    Kind,
    Mistake,
    Part,
    Verify,
    edited,
    source_of,
)

DECODING = "Decoding, when bytes are not text"
BYTES = "Text is already numbers"

Yielded = list[tuple[int, Any]]


def decode_stream(ids: Iterable[int], vocab: Mapping[int, bytes]) -> Iterator[str]:
    """Yield text as soon as its bytes are complete, with U+FFFD for what is broken."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token_id in ids:
        text = decoder.decode(vocab[token_id])
        if text:
            yield text
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


# --- inputs: the probe takes the ids and, beside them, the vocabulary ---

ASCII = "the cat sat, on 3 mats"
TWO = "éñüßøπжש"
THREE = "€語ไ한★"
FOUR = "👋🎉🦜𝄞"


def cut(stream: random.Random, data: bytes, longest: int) -> Args:
    """Bytes as a vocabulary of pieces and the ids that stand for them."""
    pieces: list[bytes] = []
    while data:
        size = stream.randint(1, longest)
        pieces.append(data[:size])
        data = data[size:]
    numbers = {piece: 1000 + index for index, piece in enumerate(dict.fromkeys(pieces))}
    return [numbers[piece] for piece in pieces], {n: piece for piece, n in numbers.items()}


def draw_text(stream: random.Random, letters: str) -> bytes:
    """A few letters, as UTF-8."""
    return "".join(stream.choice(letters) for _ in range(stream.randint(4, 9))).encode("utf-8")


def draw_ascii(stream: random.Random) -> list[Args]:
    """Text in which nothing can be split, and none."""
    return [cut(stream, draw_text(stream, ASCII), 3) for _ in range(4)] + [([], {})]


def draw_split(stream: random.Random) -> list[Args]:
    """Characters of two, three and four bytes, cut anywhere."""
    cases = []
    for letters in (TWO, THREE, FOUR):
        cases += [cut(stream, draw_text(stream, letters), 3) for _ in range(3)]
        cases.append(cut(stream, draw_text(stream, letters), 1))
    return cases


def draw_cut_off(stream: random.Random) -> list[Args]:
    """A stream that ends within a character."""
    cases = []
    for letters in (TWO, THREE, FOUR):
        data = stream.choice(letters).encode("utf-8")
        cases.append(cut(stream, b"ok " + data[:-1], 2))
        cases.append(cut(stream, draw_text(stream, letters) + data[:1], 2))
    return cases


def draw_broken(stream: random.Random) -> list[Args]:
    """Bytes that belong to no character, with text after them."""
    cases = []
    for _ in range(3):
        for bad in (b"\xff", b"\x80", b"\xc3(", b"\xf0\x9f\x91 ", b"\xe2\x82"):
            data = draw_text(stream, TWO) + bad + draw_text(stream, ASCII) + b"!!"
            cases.append(cut(stream, data, 2))
    return cases


def draw_replaced(stream: random.Random) -> list[Args]:
    """U+FFFD as a character of the text, and in the place of a byte that begins nothing."""
    words = draw_text(stream, ASCII)
    genuine = words + "\N{REPLACEMENT CHARACTER}".encode() + words
    broken = words + stream.choice([b"\xff", b"\xc0", b"\x80"]) + words
    return [cut(stream, data, longest) for data in (genuine, broken) for longest in (1, 3)]


def legal(ids: list[int], vocab: Mapping[int, bytes]) -> bool:
    """Whether every id stands for some bytes."""
    return all(token_id in vocab for token_id in ids) and all(vocab.values())


# --- verdicts ---


def data_of(args: Args) -> bytes:
    """All bytes of the stream."""
    ids, vocab = args
    return b"".join(vocab[token_id] for token_id in ids)


def yields_texts(_: Args, value: Yielded) -> str | None:
    """The form of the answer."""
    if not isinstance(value, list):
        return f"gives {show(value)}, expected a generator: a function with `yield` in it"
    wrong = [text for _, text in value if not isinstance(text, str)]
    return f"yields {show(wrong[0])}, expected str" if wrong else None


def yields_no_empty_text(_: Args, value: Yielded) -> str | None:
    """Nothing is yielded while nothing is complete."""
    empty = [taken for taken, text in value if text == ""]
    return f"yields an empty string after token {empty[0]}" if empty else None


def equals_the_whole(args: Args, value: Yielded) -> str | None:
    """The pieces joined are the text of all bytes."""
    joined = "".join(text for _, text in value)
    expected = data_of(args).decode("utf-8", errors="replace")
    if joined == expected:
        return None
    return f"yields {joined!r} in all, expected {expected!r} ({show(data_of(args))})"


def is_prompt(args: Args, value: Yielded) -> str | None:
    """After each token, all that was complete by then has been yielded."""
    ids, vocab = args
    for taken in range(1, len(ids)):
        complete = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(
            b"".join(vocab[token_id] for token_id in ids[:taken])
        )
        got = "".join(text for count, text in value if count <= taken)
        if not got.startswith(complete) and complete.startswith(got):
            return f"has yielded {got!r} after token {taken}, when {complete!r} was certain"
    return equals_the_whole(args, value)


FORM = "yields strings"
SPLIT = "characters cut anywhere"
CUT_OFF = "a stream that ends within a character"
BROKEN = "bytes that belong to no character"
PROMPT = "yields each character when it is complete"
GOES_ON = "does not wait after a U+FFFD or a broken byte"
QUIET = "yields nothing while it waits"


def _check(name: str, kind: Kind, points: int, draw: Draw, verify: Verify, hint: int) -> Check:
    needs = () if kind is Kind.CONTRACT else (FORM,)
    return Check(name, kind, points, draw, verify, needs, "interleave", legal=legal, hint=hint)


CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_ascii, yields_texts, 1),
    _check(SPLIT, Kind.ORACLE, 1, draw_split, equals_the_whole, 2),
    _check(CUT_OFF, Kind.ORACLE, 1, draw_cut_off, equals_the_whole, 4),
    _check(BROKEN, Kind.ORACLE, 1, draw_broken, equals_the_whole, 4),
    _check(PROMPT, Kind.BEHAVIOR, 3, draw_split, is_prompt, 3),
    _check(GOES_ON, Kind.BEHAVIOR, 2, draw_replaced, is_prompt, 3),
    _check(QUIET, Kind.BEHAVIOR, 1, draw_split, yields_no_empty_text, 3),
)

REFERENCE = source_of(decode_stream)

BUFFERED = """
def decode_stream(ids, vocab):
    waiting = b""
    for token_id in ids:
        waiting += vocab[token_id]
        try:
            text = waiting.decode("utf-8")
        except UnicodeDecodeError:
            continue
        waiting = b""
        if text:
            yield text
    if waiting:
        yield waiting.decode("utf-8", errors="replace")
"""

MISTAKES = (
    Mistake(
        "Each token is decoded alone",
        "A character that is split over two tokens becomes two U+FFFD. Keep the bytes of an "
        "unfinished character until the rest comes.",
        DECODING,
        8,
        """
def decode_stream(ids, vocab):
    for token_id in ids:
        yield vocab[token_id].decode("utf-8", errors="replace")
""",
    ),
    Mistake(
        "Broken bytes are dropped",
        "With errors='ignore' what is broken disappears, and the reader never learns of it. Use "
        "errors='replace', which writes U+FFFD.",
        DECODING,
        4,
        edited(REFERENCE, ('errors="replace"', 'errors="ignore"')),
    ),
    Mistake(
        "Nothing comes before the end",
        "All tokens are collected, decoded and yielded at once: right, and no stream. Yield what "
        "is complete after each token.",
        DECODING,
        5,
        """
def decode_stream(ids, vocab):
    text = b"".join(vocab[token_id] for token_id in ids).decode("utf-8", errors="replace")
    if text:
        yield text
""",
    ),
    Mistake(
        "All ids are read before the first text comes",
        "You collect the texts in a list, or the ids with `list(ids)`, so a reader waits for the "
        "whole stream. Write `yield` inside the loop over the ids.",
        DECODING,
        5,
        edited(
            REFERENCE,
            ("def decode_stream(", "def as_it_should_be("),
        )
        + "\n\ndef decode_stream(ids, vocab):\n"
        "    return list(as_it_should_be(ids, vocab))\n",
    ),
    Mistake(
        "Each token is decoded alone, and what is broken dropped",
        "A character that is split over two tokens disappears, because neither half is valid. Keep "
        "the bytes of an unfinished character until the rest comes.",
        DECODING,
        8,
        """
def decode_stream(ids, vocab):
    for token_id in ids:
        text = vocab[token_id].decode("utf-8", errors="ignore")
        if text:
            yield text
""",
    ),
    Mistake(
        "The end is forgotten",
        "Bytes that still wait when the stream ends are lost. After the loop, decode what is left "
        "with errors='replace'.",
        DECODING,
        1,
        edited(
            REFERENCE,
            (
                '    rest = decoder.decode(b"", final=True)\n    if rest:\n        yield rest\n',
                "",
            ),
        ),
    ),
    Mistake(
        "Waits while the text ends in U+FFFD",
        "U+FFFD at the end may be a broken byte or a character of the text, and then nothing is "
        "missing. Look at the bytes: only the start of a character is worth waiting for.",
        DECODING,
        5,
        """
def decode_stream(ids, vocab):
    waiting = b""
    for token_id in ids:
        waiting += vocab[token_id]
        text = waiting.decode("utf-8", errors="replace")
        if not text.endswith("\\ufffd"):
            waiting = b""
            yield text
    if waiting:
        yield waiting.decode("utf-8", errors="replace")
""",
    ),
    Mistake(
        "A broken byte is an error",
        "Decoding is strict, so one bad byte ends the stream with UnicodeDecodeError. A model may "
        "emit any bytes: use errors='replace'.",
        DECODING,
        4,
        edited(REFERENCE, ('errors="replace"', 'errors="strict"')),
    ),
    Mistake(
        "Waiting bytes are thrown away",
        "When the bytes cannot be decoded yet you start again with none, so the character never "
        "completes. Keep them for the next token.",
        DECODING,
        8,
        edited(
            BUFFERED,
            (
                '        except UnicodeDecodeError:\n            continue\n        waiting = b""\n',
                '        except UnicodeDecodeError:\n            text = ""\n'
                '        waiting = b""\n',
            ),
        ),
    ),
    Mistake(
        "Waits until everything decodes",
        "You decode all that waits or nothing of it, so a broken byte, or the first byte of the "
        "next character, holds up what is complete. Tell complete, unfinished and broken apart.",
        DECODING,
        5,
        BUFFERED,
    ),
    Mistake(
        "Every byte is a character",
        "`chr` of each byte is Latin-1, which agrees with UTF-8 below 128 only. Decode the bytes "
        "as UTF-8.",
        BYTES,
        8,
        """
def decode_stream(ids, vocab):
    for token_id in ids:
        yield "".join(chr(byte) for byte in vocab[token_id])
""",
    ),
    Mistake(
        "Empty strings are yielded while waiting",
        "Each empty string is a message with nothing in it for whoever reads the stream. Yield "
        "only when there is text.",
        DECODING,
        1,
        edited(REFERENCE, ("        if text:\n            yield text\n", "        yield text\n")),
    ),
    Mistake(
        "Three bytes are always held back",
        "Since a character has at most four bytes you keep the last three, even if they are "
        "complete. Keep only the start of an unfinished character.",
        DECODING,
        5,
        """
def decode_stream(ids, vocab):
    data, done = b"", 0
    for token_id in ids:
        data += vocab[token_id]
        text = data[:-3].decode("utf-8", errors="ignore")
        if len(text) > done and data.decode("utf-8", errors="replace").startswith(text):
            yield text[done:]
            done = len(text)
    text = data.decode("utf-8", errors="replace")
    if text[done:]:
        yield text[done:]
""",
    ),
    Mistake(
        "Characters have two bytes at most",
        "Bytes wait for one more byte, which is enough for é and too little for € and 👋. The "
        "first byte says how many follow.",
        BYTES,
        8,
        """
def decode_stream(ids, vocab):
    waiting = b""
    for token_id in ids:
        waiting += vocab[token_id]
        keep = 1 if waiting and waiting[-1] >= 0xC0 else 0
        ready, waiting = waiting[: len(waiting) - keep], waiting[len(waiting) - keep :]
        if ready:
            yield ready.decode("utf-8", errors="replace")
    if waiting:
        yield waiting.decode("utf-8", errors="replace")
""",
    ),
)

STYLES = {
    "state of UnicodeDecodeError": """
def decode_stream(ids, vocab):
    waiting = b""
    for token_id in ids:
        waiting += vocab[token_id]
        text = ""
        while waiting:
            try:
                text += waiting.decode("utf-8")
                waiting = b""
            except UnicodeDecodeError as error:
                text += waiting[: error.start].decode("utf-8")
                waiting = waiting[error.start :]
                if error.reason == "unexpected end of data":
                    break
                text += "\\ufffd"
                waiting = waiting[error.end - error.start :]
        if text:
            yield text
    if waiting:
        yield waiting.decode("utf-8", "replace")
""",
    "hold back by hand": """
LOWEST_SECOND = {0xE0: 0xA0, 0xF0: 0x90}
HIGHEST_SECOND = {0xED: 0x9F, 0xF4: 0x8F}


def unfinished(data):
    for size in range(1, min(3, len(data)) + 1):
        first = data[-size]
        if first >= 0xC0 or first < 0x80:
            whole = 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2
            if not 0xC2 <= first <= 0xF4 or size >= whole:
                return 0
            second = data[1 - size] if size > 1 else LOWEST_SECOND.get(first, 0x80)
            low, high = LOWEST_SECOND.get(first, 0x80), HIGHEST_SECOND.get(first, 0xBF)
            return size if low <= second <= high else 0
    return 0


def decode_stream(ids, vocab):
    buffer = bytearray()
    for token in ids:
        buffer += vocab[token]
        keep = unfinished(bytes(buffer))
        ready = bytes(buffer[: len(buffer) - keep])
        del buffer[: len(ready)]
        if ready:
            yield ready.decode("utf-8", errors="replace")
    if buffer:
        yield bytes(buffer).decode("utf-8", errors="replace")
""",
    "recursive": """
import codecs


def decode_stream(ids, vocab):
    return step(iter(ids), vocab, codecs.getincrementaldecoder("utf8")("replace"))


def step(ids, vocab, decoder):
    for token in ids:
        text = decoder.decode(vocab[token])
        yield from [text] if text else []
        yield from step(ids, vocab, decoder)
        return
    text = decoder.decode(b"", True)
    yield from [text] if text else []
""",
    "library": """
import codecs


def decode_stream(ids, vocab):
    chunks = (vocab[i] for i in ids)
    return (text for text in codecs.iterdecode(chunks, "utf-8", errors="replace") if text)
""",
}

ADAPTER = "def replacement(self, ids):\n    return decode_stream(ids, self.vocab)\n"

PART = Part(
    "decode_stream",
    CHECKS,
    REFERENCE,
    MISTAKES,
    STYLES,
    READY_MADE,
    replaces="gptbook.tokenizer:BPETokenizer.decode_stream",
    adapter=ADAPTER,
)
