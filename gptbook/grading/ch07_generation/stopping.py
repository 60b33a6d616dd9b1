"""Exercise 7.4: stop strings and characters that come in pieces: its checks."""

import codecs
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, source_of


def held_back(data: bytes, stops: Sequence[bytes]) -> int:
    """Return how many of the last bytes may be the beginning of a stop string."""
    sizes = range(1, len(data) + 1)
    return max((n for n in sizes if any(s.startswith(data[-n:]) for s in stops)), default=0)


def stream_text(pieces: Iterable[bytes], stops: list[str]) -> Iterator[str]:
    """Yield the text of pieces as soon as it is certain, up to the first stop string."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    ends = [stop.encode() for stop in stops]
    held = b""
    for piece in pieces:
        held += piece
        found = [held.find(end) for end in ends if end in held]
        if found:
            yield decoder.decode(held[: min(found)], final=True)
            return
        certain = len(held) - held_back(held, ends)
        yield decoder.decode(held[:certain])
        held = held[certain:]
    yield decoder.decode(held, final=True)


# --- inputs: pieces, stops ---

WORDS = ("no", "one", "went", "home", "then", "river", "hill", "a", "Tom", "said")
WIDE = ("é", "ß", "я", "語", "€", "😀", "🎈", "ñ")
MARKS = ("END", "User:", "<|im_end|>", "\n- ", "Q:", "[stop]")
WIDE_MARKS = ("»", "終わり", "🛑", "\nÜber:")
"""Stop strings that do not begin anew inside of themselves."""


def words(stream: random.Random, count: int, extra: Sequence[str] = ()) -> str:
    """Some words, which have no part of a mark but for a space."""
    return " ".join(stream.choice((*WORDS, *extra)) for _ in range(count))


def cut(stream: random.Random, data: bytes, longest: int) -> list[bytes]:
    """Cut bytes anywhere; some pieces are empty."""
    pieces = []
    while data:
        size = stream.randint(1, longest)
        pieces.append(data[:size])
        data = data[size:]
        if stream.random() < 0.1:
            pieces.append(b"")
    return pieces


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut bytes at these places."""
    ends = [0, *sorted(set(places)), len(data)]
    return [data[a:b] for a, b in pairwise(ends)]


def draw_plain(stream: random.Random) -> list[Args]:
    """Letters, and no stop strings; once stop strings that do not come."""
    texts = [words(stream, 5).encode() for _ in range(2)]
    return [(cut(stream, texts[0], 4), []), (cut(stream, texts[1], 4), ["###"]), ([], [])]


def draw_wide(stream: random.Random) -> list[Args]:
    """Characters of several bytes, also byte by byte."""
    texts = [words(stream, 6, WIDE) + stream.choice(WIDE) for _ in range(2)]
    return [(cut(stream, text.encode(), n), []) for text, n in zip(texts, (1, 3), strict=True)]


def stopped(stream: random.Random, mark: str) -> tuple[bytes, int]:
    """Words, a mark, and words; and where the mark begins."""
    before, behind = words(stream, 3) + " ", " " + words(stream, 3)
    return (before + mark + behind).encode(), len(before.encode())


def draw_stop(stream: random.Random) -> list[Args]:
    """A stop string in one piece with text around it, and cut in the middle, and in bytes."""
    cases: list[Args] = []
    for mark in stream.sample(MARKS, 3):
        data, start = stopped(stream, mark)
        middle = start + stream.randint(1, len(mark) - 1)
        cases.append((cut_at(data, [3, middle, start + len(mark) + 2]), [mark]))
        cases.append((cut_at(data, [start - 2, start + len(mark) + 2]), [mark]))
    data, _ = stopped(stream, "END")
    wide = stream.choice(WIDE_MARKS)
    cases.append((cut_at(data, range(1, len(data))), ["END"]))
    cases.append((cut(stream, stopped(stream, wide)[0], 1), [wide]))
    return cases


def draw_first(stream: random.Random) -> list[Args]:
    """Several stop strings; those that come first are not the first of the list."""
    cases: list[Args] = []
    for longest in (1, 3):
        listed = stream.sample(MARKS, 3)
        text = words(stream, 3) + listed[2] + " x " + listed[0] + " " + listed[1]
        cases.append((cut(stream, text.encode(), longest), listed))
        cases.append(([text.encode()], listed))
    return cases


def draw_restart(stream: random.Random) -> list[Args]:
    """Beginnings of a stop string that come to nothing, one inside of another."""
    cases: list[Args] = []
    for text, mark in (("xaaab y", "aab"), ("x\n-\n\n-END", "\n-END"), ("ababac z", "abac")):
        data = (words(stream, 2) + text + words(stream, 2)).encode()
        cases.append((cut(stream, data, 1), [mark]))
    data = (words(stream, 2) + " EN EEN ENE U Us # ## " + words(stream, 2) + " EEND").encode()
    return [*cases, (cut(stream, data, 2), ["END", "User:", "###"])]


def draw_flush(stream: random.Random) -> list[Args]:
    """The text ends with the beginning of a stop string."""
    return [
        (cut(stream, (words(stream, 3) + mark[: stream.randint(1, len(mark) - 1)]).encode(), 3),
         [mark, "~~"])
        for mark in stream.sample(MARKS, 3)
    ]  # fmt: skip


def draw_broken(stream: random.Random) -> list[Args]:
    """Bytes that are no character: in the middle, at the end, before a stop string."""
    text, half = words(stream, 2).encode(), stream.choice("語€😀").encode()[:2]
    return [
        ([text, half, b" and ", b"\xff", text], []),
        ([text, b"\x80", half], ["END"]),
        ([text, half, b"EN", b"D", text], ["END"]),
    ]


def draw_timely(stream: random.Random) -> list[Args]:
    """Text with beginnings of stop strings, characters of several bytes, and a stop string."""
    text = (
        words(stream, 2, WIDE) + " EN# ## " + stream.choice(WIDE) + "E U Us\n " + words(stream, 2)
    )
    stops = ["\n\n", "###", "User:", "END"]
    tails = (" END", "é\n")
    return [
        (cut(stream, (text + tail).encode(), n), stops)
        for tail, n in zip(tails, (1, 3), strict=True)
    ]


def draw_ended(stream: random.Random) -> list[Args]:
    """Much behind the stop string."""
    cases: list[Args] = []
    for mark in stream.sample(MARKS, 2):
        data, _ = stopped(stream, mark)
        cases.append((cut(stream, data + words(stream, 9).encode(), 1), [mark]))
    return cases


# --- verdicts ---


def first_stop(data: bytes, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins, if there is one."""
    return min((data.find(s.encode()) for s in stops if s.encode() in data), default=None)


def whole_text(args: Args) -> str:
    """All of the text."""
    pieces, stops = args
    data = b"".join(pieces)
    return data[: first_stop(data, stops)].decode("utf-8", errors="replace")


def needed(args: Args) -> int:
    """How many pieces have to be read."""
    pieces, stops = args
    for count in range(len(pieces)):
        if first_stop(b"".join(pieces[:count]), stops) is not None:
            return count
    return len(pieces)


def certain_text(args: Args, count: int) -> str:
    """The text that is certain after so many pieces."""
    data, ends = b"".join(args[0][:count]), [stop.encode() for stop in args[1]]
    stop = first_stop(data, args[1])
    if stop is not None:
        return data[:stop].decode()
    starts = [n for n in range(1, len(data) + 1) if any(s.startswith(data[-n:]) for s in ends)]
    certain = data[: len(data) - max(starts, default=0)]
    return codecs.getincrementaldecoder("utf-8")().decode(certain)


def yields_text(args: Args, value: Any) -> str | None:
    """Strings, and all of them together."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[0], list):
        return f"gives {show(value)}, expected an iterator of strings"
    wrong = [item for _, item in value[0] if not isinstance(item, str)]
    if wrong:
        return f"yields {show(wrong[0])}, expected strings"
    return None


def text_is_right(args: Args, value: Any) -> str | None:
    """What is yielded, as one text."""
    problem = yields_text(args, value)
    if problem:
        return problem
    text, expected = "".join(item for _, item in value[0]), whole_text(args)
    if text == expected:
        return None
    return f"yields the text {text!r}, expected {expected!r}"


def is_timely(args: Args, value: Any) -> str | None:
    """What has been yielded after each piece."""
    problem = yields_text(args, value)
    if problem:
        return problem
    for count in range(1, needed(args)):
        text = "".join(item for taken, item in value[0] if taken <= count)
        expected = certain_text(args, count)
        if text == expected:
            continue
        read = b"".join(args[0][:count])
        what = "too early" if len(text) > len(expected) else "too late"
        return (
            f"has yielded {text!r} when it has read {read!r}, expected {expected!r}: {what}, "
            "with the stop strings " + ", ".join(map(repr, args[1]))
        )
    return None


def ends_in_time(args: Args, value: Any) -> str | None:
    """How many pieces were taken."""
    problem = yields_text(args, value)
    if problem:
        return problem
    expected = needed(args)
    if value[1] == expected:
        return None
    return (
        f"takes {value[1]} of {len(args[0])} pieces, expected {expected}: the stop string is there"
    )


def same_text(a: Any, b: Any) -> bool:
    """Whether two answers have the same text."""
    return "".join(item for _, item in a[0]) == "".join(item for _, item in b[0])


def same_time(a: Any, b: Any) -> bool:
    """Whether two answers have the same text after each piece."""
    return by_time(a) == by_time(b)


def by_time(value: Any) -> dict[int, str]:
    """What was yielded after how many pieces."""
    found: dict[int, str] = {}
    for taken, item in value[0]:
        found[taken] = found.get(taken, "") + item
    return {taken: text for taken, text in found.items() if text}


def same_count(a: Any, b: Any) -> bool:
    """Whether two functions took as many pieces."""
    return bool(a[1] == b[1])


PLAIN = "yields all of a plain text as strings"
CHARACTERS = "characters that come in pieces"
STOP = "ends before a stop string, wherever it is cut"
FIRST = "the first one in the text ends it"
RESTART = "beginnings of a stop string that come to nothing"
FLUSH = "the end of the text is yielded, too"
BROKEN = "bytes that are no character"
TIMELY = "each character as soon as it is certain, and not before"
ENDED = "takes no piece behind the stop string"

_check = partial(Check, probe="drain", same=same_text)
_text = partial(_check, verify=text_is_right)

CHECKS = (
    _text(PLAIN, Kind.CONTRACT, 1, draw_plain),
    _text(CHARACTERS, Kind.ORACLE, 2, draw_wide, hint=1),
    _text(STOP, Kind.ORACLE, 2, draw_stop, hint=2),
    _text(FIRST, Kind.ORACLE, 1, draw_first, hint=2),
    _text(RESTART, Kind.ORACLE, 1, draw_restart, hint=3),
    _text(FLUSH, Kind.ORACLE, 1, draw_flush, hint=4),
    _text(BROKEN, Kind.ORACLE, 1, draw_broken, hint=4),
    _check(TIMELY, Kind.BEHAVIOR, 2, draw_timely, is_timely, same=same_time, hint=3),
    _check(ENDED, Kind.BEHAVIOR, 1, draw_ended, ends_in_time, same=same_count, hint=2),
)

REFERENCE = source_of(stream_text)
