"""Exercise 1.3: special tokens in text from users."""

import random
from collections.abc import Mapping, Set

from gptbook.grading.ch01_tokenizer.encoding import is_list_of_ints
from gptbook.grading.ch01_tokenizer.training import READY_MADE
from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, Mistake, Part, edited, oracle, source_of

SPECIAL = "Special tokens"
BYTES = "Text is already numbers"

END, USER, SYSTEM = "<|endoftext|>", "<|user|>", "<|system|>"
TOKENS = {END: 256, USER: 257, SYSTEM: 258}
NAMES = ("a", "end", "user", "tool")


def encode_with_special(
    text: str, special_tokens: Mapping[str, int], allowed: Set[str]
) -> list[int]:
    """Encode text as bytes, and the allowed special tokens as their ids, the longest first."""
    unknown = sorted(set(allowed) - set(special_tokens))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no special token")
    longest_first = sorted(allowed, key=len, reverse=True)
    ids: list[int] = []
    place = 0
    while place < len(text):
        token = next((item for item in longest_first if text.startswith(item, place)), None)
        if token is None:
            ids += text[place].encode("utf-8")
            place += 1
        else:
            ids.append(special_tokens[token])
            place += len(token)
    return ids


# --- inputs ---


def draw_words(stream: random.Random) -> str:
    """Words with pieces of special tokens among them; ASCII, the rest has its own check."""
    words = ["the", " end", " ne", "!", "\n", " <|", "|>", " of", "a+b", "<|endof", "text|>"]
    return "".join(stream.choice(words) for _ in range(stream.randint(1, 5)))


def draw_small(_: random.Random) -> list[Args]:
    """A few small cases."""
    return [("hi", TOKENS, set()), (f"hi{END}", TOKENS, {END}), ("", TOKENS, {END, USER})]


def draw_from_users(stream: random.Random) -> list[Args]:
    """Spellings of special tokens where none is allowed: they are text."""
    return [
        (draw_words(stream) + stream.choice(list(TOKENS)) + draw_words(stream), TOKENS, set())
        for _ in range(8)
    ]


def draw_plain(stream: random.Random) -> list[Args]:
    """Text without a special token, allowed or not."""
    texts = ["", "é", "👋 Naïve", "endoftext", *(draw_words(stream) + "ñ" for _ in range(4))]
    return [(text, TOKENS, set(TOKENS)) for text in texts]


def draw_allowed(stream: random.Random) -> list[Args]:
    """One special token, at the start, inside and at the end."""
    cases: list[Args] = []
    for _ in range(3):
        token = stream.choice(list(TOKENS))
        text = draw_words(stream)
        places = [token + text, text + token, text + token + text, token]
        cases += [(place, TOKENS, set(TOKENS)) for place in places]
    return cases


def draw_repeated(stream: random.Random) -> list[Args]:
    """The same special token several times, also without text between."""
    cases: list[Args] = []
    for _ in range(4):
        token = stream.choice(list(TOKENS))
        text = draw_words(stream)
        cases.append((text + token + text + token, TOKENS, {token}))
        cases.append((token + token + text, TOKENS, {token}))
    return cases


def draw_mixed(stream: random.Random) -> list[Args]:
    """Some special tokens allowed and others not, in one text."""
    cases: list[Args] = []
    for _ in range(8):
        allowed, other = stream.sample(list(TOKENS), 2)
        text = draw_words(stream)
        cases.append((f"{other}{text}{allowed}{text}{other}", TOKENS, {allowed}))
    return cases


def draw_nested(stream: random.Random) -> list[Args]:
    """Special tokens of which one begins another, in either order of their ids.

    Whoever tries them in the order of a set is right by chance, here once in 65,536 times.
    """
    cases: list[Args] = []
    pairs = [
        [f"<|{stream.choice(NAMES)}{n}|>" for n in stream.sample(range(99), 2)] for _ in range(15)
    ]
    for short, more in [*pairs, ["~", "~"]]:
        tokens = dict(zip(stream.sample([short, short + more], 2), (300, 301), strict=True))
        words = draw_words(stream).replace("<|", "")
        cases.append((words + short + more + words + short, tokens, set(tokens)))
    return cases


def draw_unknown(stream: random.Random) -> list[Args]:
    """Names that are no special tokens, alone and beside one that is."""
    name = stream.choice(["<|pad|>", "<|endoftext", "all"])
    return [("hi", TOKENS, {name}), (f"hi{END}", TOKENS, {END, name})]


# --- verdicts ---


def raises_value_error(_: Args, value: tuple[str, object]) -> str | None:
    """For the probe `attempt`."""
    how, what = value
    if how == "returned":
        return f"gives {show(what)}, expected ValueError for a name that is no special token"
    if "ValueError" not in list(what if isinstance(what, list) else []):
        return f"raises {what[0] if isinstance(what, list) else what}, expected ValueError"
    return None


FORM = "returns a list of int"
USERS = "what is not allowed is text"
PLAIN = "text without special tokens is its bytes"
ONE = "an allowed token is its id"
AGAIN = "tokens that stand several times"
MIXED = "some allowed, others not"
LONGEST = "the longest of two that fit"
UNKNOWN = "an unknown name is an error"


def legal(text: str, special_tokens: Mapping[str, int], allowed: Set[str]) -> bool:
    """Whether the names are those of the usual special tokens."""
    return dict(special_tokens) == TOKENS and allowed <= set(TOKENS)


def legal_nested(text: str, special_tokens: Mapping[str, int], allowed: Set[str]) -> bool:
    """Whether there are two special tokens, both allowed, of which one begins the other."""
    if len(special_tokens) != 2 or set(allowed) != set(special_tokens):
        return False
    short, long = sorted(special_tokens, key=len)
    ids = sorted(special_tokens.values())
    nested = (short, long) == ("~", "~~") or (
        short.endswith("|>") and long.startswith(short + "<|")
    )
    return nested and ids == [300, 301]


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_small, is_list_of_ints, pure=True),
    Check(
        UNKNOWN,
        Kind.CONTRACT,
        1,
        draw_unknown,
        raises_value_error,
        (FORM,),
        probe="attempt",
        hint=2,
    ),
    oracle(PLAIN, 1, draw_plain, encode_with_special, needs=(FORM,), legal=legal),
    oracle(USERS, 3, draw_from_users, encode_with_special, needs=(FORM,), legal=legal),
    oracle(ONE, 1, draw_allowed, encode_with_special, needs=(FORM,), legal=legal, hint=2),
    oracle(AGAIN, 1, draw_repeated, encode_with_special, needs=(FORM,), legal=legal, hint=2),
    oracle(MIXED, 1, draw_mixed, encode_with_special, needs=(FORM,), legal=legal, hint=2),
    oracle(LONGEST, 1, draw_nested, encode_with_special, needs=(FORM,), legal=legal_nested, hint=3),
)

REFERENCE = source_of(encode_with_special)

WITH_RE = """
import re


def encode_with_special(text, special_tokens, allowed):
    if not set(allowed) <= set(special_tokens):
        raise ValueError("unknown special token")
    names = sorted(allowed, key=len, reverse=True)
    if not names:
        return list(text.encode("utf-8"))
    ids = []
    for part in re.split("(" + "|".join(re.escape(name) for name in names) + ")", text):
        if part in names:
            ids.append(special_tokens[part])
        else:
            ids.extend(part.encode("utf-8"))
    return ids
"""

MISTAKES = (
    Mistake(
        "Special tokens count wherever they stand",
        "You look for all special tokens and ignore `allowed`, so whoever types one of them "
        "controls the model. Look only for those that the caller allows.",
        SPECIAL,
        4,
        edited(
            WITH_RE,
            ("names = sorted(allowed,", "names = sorted(special_tokens,"),
        ),
    ),
    Mistake(
        "Special tokens are always text",
        "The ids of special tokens are never used, so nothing can end a document. Give an allowed "
        "token its id.",
        SPECIAL,
        4,
        edited(WITH_RE, ("    if not names:\n", "    if True:\n")),
    ),
    Mistake(
        "The spelling is used as a pattern",
        "In a regular expression `|` means “or”, so `<|user|>` also finds `<`, `user` and `>`. "
        "Escape each spelling with `re.escape`.",
        SPECIAL,
        4,
        edited(
            WITH_RE,
            ("re.escape(name) for name in names", "name for name in names"),
            (
                "        if part in names:\n            ids.append(special_tokens[part])\n"
                '        else:\n            ids.extend(part.encode("utf-8"))\n',
                "        if part in names:\n            ids.append(special_tokens[part])\n"
                '        elif part:\n            ids.extend(part.encode("utf-8"))\n',
            ),
        ),
    ),
    Mistake(
        "The shorter of two tokens wins",
        "Where one special token begins another, the shorter one is found first. Try the longest "
        "first.",
        SPECIAL,
        1,
        edited(WITH_RE, (", key=len, reverse=True", ", key=len")),
    ),
    Mistake(
        "Tokens are tried in the order of a set",
        "A set has no order of its own, so which of two tokens that fit is found is a matter of "
        "chance. Sort them, the longest first.",
        SPECIAL,
        1,
        edited(WITH_RE, ("sorted(allowed, key=len, reverse=True)", "list(allowed)")),
    ),
    Mistake(
        "Splitting drops what it splits at",
        "`re.split` without a group leaves the special tokens out of its result, so their ids are "
        "lost. Put the pattern into parentheses.",
        SPECIAL,
        4,
        edited(
            WITH_RE,
            ('"(" + "|".join(', '"|".join('),
            (' for name in names) + ")", text)', " for name in names), text)"),
        ),
        hint=2,
    ),
    Mistake(
        "Only the first special token is found",
        "After one special token the rest of the text is taken as it is. Go on looking after it.",
        SPECIAL,
        2,
        edited(WITH_RE, (", text):", ", text, maxsplit=1):")),
    ),
    Mistake(
        "What is not allowed raises an error",
        "A user may write anything, so a spelling that is not allowed is no error. Encode it as "
        "text.",
        SPECIAL,
        4,
        edited(
            WITH_RE,
            (
                "    names = sorted",
                "    for name in set(special_tokens) - set(allowed):\n"
                "        if name in text:\n"
                "            raise ValueError(f'{name} is not allowed here')\n"
                "    names = sorted",
            ),
        ),
    ),
    Mistake(
        "What is not allowed is left out",
        "Spellings that are not allowed vanish, so a text about special tokens loses its words. "
        "Encode them as text.",
        SPECIAL,
        4,
        edited(
            WITH_RE,
            (
                "    names = sorted",
                "    for name in set(special_tokens) - set(allowed):\n"
                "        text = text.replace(name, '')\n"
                "    names = sorted",
            ),
        ),
    ),
    Mistake(
        "A name that does not exist is ignored",
        "A misspelled name in `allowed` has no effect, and nobody notices that documents never "
        "end. Raise ValueError and say which name it is.",
        SPECIAL,
        1,
        edited(
            WITH_RE,
            (
                "    if not set(allowed) <= set(special_tokens):\n"
                '        raise ValueError("unknown special token")\n',
                "    allowed = set(allowed) & set(special_tokens)\n",
            ),
        ),
    ),
    Mistake(
        "A name that does not exist raises KeyError",
        "Looking the name up in the dictionary fails, if at all, with an error that does not say "
        "what is wrong. Check the names first and raise ValueError.",
        SPECIAL,
        1,
        edited(
            WITH_RE,
            (
                "    if not set(allowed) <= set(special_tokens):\n"
                '        raise ValueError("unknown special token")\n',
                "    for name in allowed:\n        special_tokens[name]\n",
            ),
        ),
    ),
    Mistake(
        "Text after the last special token is lost",
        "The loop ends at the last special token, and what follows it is never encoded. Encode the "
        "rest too.",
        SPECIAL,
        4,
        edited(
            REFERENCE,
            (
                "    while place < len(text):\n",
                "    if allowed:\n"
                "        ends = [text.rfind(t) + len(t) for t in allowed if t in text]\n"
                "        text = text[: max(ends, default=0)]\n"
                "    while place < len(text):\n",
            ),
        ),
    ),
    Mistake(
        "Code points in place of bytes",
        "`ord` gives a character's code point, which is its byte only below 128. Encode the text "
        "as UTF-8.",
        BYTES,
        1,
        edited(REFERENCE, ('ids += text[place].encode("utf-8")', "ids.append(ord(text[place]))")),
    ),
)

STYLES = {
    "regular expression": WITH_RE,
    "recursive": """
def encode_with_special(text, special_tokens, allowed):
    for name in allowed:
        if name not in special_tokens:
            raise ValueError(f"no special token {name!r}")
    hits = [(text.find(name), -len(name), name) for name in allowed if name in text]
    if not hits:
        return list(text.encode())
    place, _, name = min(hits)
    before, after = text[:place], text[place + len(name) :]
    return [*before.encode(), special_tokens[name],
            *encode_with_special(after, special_tokens, allowed)]
""",
    "partition": """
def encode_with_special(text, special_tokens, allowed):
    missing = [name for name in allowed if name not in special_tokens]
    if missing:
        raise ValueError(f"unknown: {missing}")
    parts = [text]
    for name in sorted(allowed, key=lambda name: -len(name)):
        new_parts = []
        for part in parts:
            if not isinstance(part, str):
                new_parts.append(part)
                continue
            while name in part:
                head, _, part = part.partition(name)
                new_parts += [head, special_tokens[name]]
            new_parts.append(part)
        parts = new_parts
    return [i for p in parts for i in (p.encode() if isinstance(p, str) else [p])]
""",
}

PART = Part("encode_with_special", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
