"""Exercise 7.4: stop strings and characters that come in pieces: its mistakes and styles."""

from gptbook.grading.ch07_generation.common import BOOK, SECTIONS
from gptbook.grading.ch07_generation.stopping import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden

STOP, STREAM = SECTIONS["stop"], SECTIONS["stream"]

HELD = "return max((n for n in sizes if any(s.startswith(data[-n:]) for s in stops)), default=0)"
SIZES = "sizes = range(1, len(data) + 1)"
DECODER = 'decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")'
START = 'held = b""\n'
ADD = "held += piece"
FOUND = "found = [held.find(end) for end in ends if end in held]"
YIELD_FOUND = "yield decoder.decode(held[: min(found)], final=True)\n            return"
CERTAIN = "certain = len(held) - held_back(held, ends)"
YIELD = "yield decoder.decode(held[:certain])"
LOOP = "for piece in pieces:"
LAST = "\n    yield decoder.decode(held, final=True)"

MISTAKES = (
    Mistake(
        "Each piece is decoded alone",
        "Where a character is cut you show a � for each of its parts. Let the first bytes wait for "
        "the others: `codecs.getincrementaldecoder`.",
        STOP,
        4,
        edited(REFERENCE, (YIELD, "yield decoder.decode(held[:certain], final=True)")),
        hint=1,
    ),
    Mistake(
        "Each piece is searched alone",
        "A stop string that is cut by the border of two tokens is in neither of them. Search what "
        "is held back and the new bytes together.",
        STOP,
        8,
        edited(REFERENCE, (CERTAIN, "certain = len(held)")),
        hint=2,
    ),
    Mistake(
        "The beginning of the stop string is shown",
        "You find the stop string, but its beginning has been shown by then. Hold back bytes that "
        "may become one.",
        STOP,
        7,
        edited(
            REFERENCE,
            (START, 'held, shown = b"", 0\n'),
            (
                YIELD_FOUND,
                "yield decoder.decode(held[shown : max(min(found), shown)], final=True)\n"
                "            return",
            ),
            (CERTAIN, "certain, shown, before = len(held), len(held), shown"),
            (YIELD, "yield decoder.decode(held[before:certain])"),
            ("held = held[certain:]", "pass"),
            (LAST, '\n    yield decoder.decode(b"", final=True)'),
        ),
        hint=3,
    ),
    Mistake(
        "As much is held back as a stop string is long",
        "You always keep the last bytes, whether a stop string can begin there or not, and the "
        "text is late. Hold back only what is the beginning of one.",
        STOP,
        2,
        edited(REFERENCE, (HELD, "return min(len(data), max(map(len, stops), default=1) - 1)")),
    ),
    Mistake(
        "Too little is held back",
        "Of the beginnings that fit you take the shortest, and the longer one is shown. The "
        "longest must wait.",
        STOP,
        3,
        edited(REFERENCE, (HELD, HELD.replace("max(", "min("))),
    ),
    Mistake(
        "Only one stop string is watched",
        "You hold back beginnings of the first stop string only, so that the others are found in "
        "one piece or not at all. Any of them may be coming.",
        STOP,
        3,
        edited(REFERENCE, ("for s in stops)), default", "for s in stops[:1])), default")),
        hint=3,
    ),
    Mistake(
        "A new beginning is missed",
        "When what is held back does not go on as expected, you let all of it go, but a stop "
        "string may have begun inside of it. Look for the longest end that is a beginning again.",
        STOP,
        3,
        edited(
            REFERENCE,
            (
                CERTAIN,
                "certain = len(held)\n"
                "        kept, start = kept_before, 0\n"
                "        if kept and any(end.startswith(held) for end in ends):\n"
                "            certain = 0\n"
                "        elif kept:\n"
                "            start = kept + 1\n"
                "        if certain:\n"
                "            certain -= held_back(held[start:], ends)\n"
                "        kept_before = len(held) - certain",
            ),
            (START, 'held, kept_before = b"", 0\n'),
        ),
        hint=3,
    ),
    Mistake(
        "The first in the list wins",
        "Of several stop strings you take the one that is listed first. The one that comes first "
        "in the text ends it.",
        STOP,
        1,
        edited(REFERENCE, ("held[: min(found)]", "held[: found[0]]")),
    ),
    Mistake(
        "The stop string is shown",
        "You end behind the stop string, and it is a part of your text. The text ends before it.",
        STOP,
        5,
        edited(
            REFERENCE,
            (
                "held[: min(found)]",
                "held[: min(found) + max(len(e) for e in ends if held.find(e) == min(found))]",
            ),
        ),
        hint=2,
    ),
    Mistake(
        "The stop string is cut out",
        "You leave out the stop string and go on behind it. Nothing comes after it.",
        STOP,
        6,
        edited(
            REFERENCE,
            (
                YIELD_FOUND,
                "for end in ends:\n                held = held.replace(end, b'')",
            ),
        ),
        hint=2,
    ),
    Mistake(
        "The rest of the piece is shown",
        "A token may go on behind the stop string, and you show that rest. All of it goes.",
        STOP,
        3,
        edited(
            REFERENCE,
            (
                YIELD_FOUND,
                "size = max(len(e) for e in ends if held.startswith(e, min(found)))\n"
                "            rest = held[min(found) + size :]\n"
                "            yield decoder.decode(held[: min(found)] + rest, final=True)\n"
                "            return",
            ),
        ),
        hint=2,
    ),
    Mistake(
        "The stop string must be the end",
        "You look whether the text ends with a stop string, but a token may go on behind it. "
        "Search for it anywhere.",
        STOP,
        3,
        edited(
            REFERENCE,
            (FOUND, "found = [held.find(end) for end in ends if held.endswith(end)]"),
        ),
        hint=2,
    ),
    Mistake(
        "What was held back is lost",
        "When the pieces end you still hold the beginning of a stop string that never came. Then "
        "it is text: yield it.",
        STOP,
        2,
        edited(REFERENCE, (LAST, "")),
    ),
    Mistake(
        "Half a character is dropped",
        'With `errors="ignore"` bytes that are no character vanish, and nobody sees that there '
        'was something. Put � in their place: `errors="replace"`.',
        STOP,
        1,
        edited(REFERENCE, (DECODER, DECODER.replace("replace", "ignore"))),
    ),
    Mistake(
        "Bytes that are no character are an error",
        "A model may write any bytes, and your stream ends with a UnicodeDecodeError. Put � in the "
        "place of what is no character.",
        STOP,
        1,
        edited(REFERENCE, (DECODER, DECODER.replace("replace", "strict"))),
    ),
    Mistake(
        "Everything comes at the end",
        "You read all pieces before you yield anything, so that nobody sees the text while it is "
        "written. Yield what is certain after each piece.",
        STREAM,
        3,
        edited(REFERENCE, (LOOP, 'for piece in [b"".join(pieces)]:')),
        hint=3,
    ),
    Mistake(
        "It reads on behind the stop string",
        "The text has ended, but you go on to take pieces, for each of which a model has to run. "
        "Return at once.",
        STOP,
        1,
        edited(
            REFERENCE,
            (
                YIELD_FOUND,
                YIELD_FOUND.replace(
                    "return", "for _ in pieces:\n                pass\n            return"
                ),
            ),
        ),
    ),
)

STYLES = {
    "byte by byte": """
import codecs


def stream_text(pieces, stops):
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    stops = [s.encode("utf-8") for s in stops]
    tail = bytearray()
    for piece in pieces:
        for byte in piece:
            tail.append(byte)
            for s in stops:
                if tail.endswith(s):
                    yield decode(bytes(tail[: len(tail) - len(s)]), True)
                    return
            keep = 0
            for s in stops:
                for n in range(min(len(s) - 1, len(tail)), 0, -1):
                    if tail.endswith(s[:n]):
                        keep = max(keep, n)
                        break
            text = decode(bytes(tail[: len(tail) - keep]))
            del tail[: len(tail) - keep]
            if text:
                yield text
    text = decode(bytes(tail), True)
    if text:
        yield text
""",
    "characters first, then stop strings": """
import codecs


def stream_text(pieces, stops):
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    waiting = ""

    def steps():
        for piece in pieces:
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)

    for text in steps():
        waiting += text
        places = [i for i in (waiting.find(s) for s in stops) if i != -1]
        if places:
            yield waiting[: min(places)]
            return
        n = len(waiting)
        while n and not any(s.startswith(waiting[len(waiting) - n :]) for s in stops):
            n -= 1
        yield waiting[: len(waiting) - n]
        waiting = waiting[len(waiting) - n :]
    yield waiting
""",
    "all that was read is kept": """
class Output:
    def __init__(self, stops):
        self.stops, self.data, self.shown = [s.encode() for s in stops], b"", 0

    def certain(self, last):
        places = [self.data.find(s) for s in self.stops]
        places = [p for p in places if p >= 0]
        if places:
            return self.data[: min(places)], True
        if last:
            return self.data, True
        for start in range(len(self.data)):
            if any(s.startswith(self.data[start:]) for s in self.stops):
                return self.data[:start], False
        return self.data, False

    def new(self, last=False):
        data, over = self.certain(last)
        text = data.decode("utf-8", errors="replace")
        if not over:
            while text.endswith("\\ufffd"):
                text = text[:-1]
        out, self.shown = text[self.shown :], max(self.shown, len(text))
        return out, over


def stream_text(pieces, stops):
    output = Output(stops)
    for piece in pieces:
        output.data += piece
        text, over = output.new()
        yield text
        if over:
            return
    yield output.new(last=True)[0]
""",
}

PART = Part("stream_text", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=("numpy",))
