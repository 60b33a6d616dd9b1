"""Split MyST Markdown into the blocks that plain Markdown does not know.

Only as much of the syntax as the book uses is read: fences and directives (backticks, tildes,
colons), display math with a label, targets such as `(name)=`, and comments. All other lines are
text.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml

FENCE = re.compile(r"^(?P<indent> *)(?P<marker>`{3,}|~{3,}|:{3,})(?P<info>[^`]*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[a-zA-Z][\w:+.-]*)\}\s*(?P<argument>.*)$")
TARGET = re.compile(r"^\((?P<name>[^()\s]+)\)=\s*$")
MATH_END = re.compile(r"\$\$\s*(?:\((?P<label>[^()\s]+)\))?\s*$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):(?:\s+(?P<value>.*))?$")


class MystError(ValueError):
    """The text cannot be read or lowered; `line` says where, counted from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@contextmanager
def in_file(name: str) -> Iterator[None]:
    """Let every MystError raised inside begin with the file's name and the line."""
    try:
        yield
    except MystError as error:
        raise MystError(f"{name}:{error.line}: {error}", error.line) from error


@dataclass(frozen=True)
class Block:
    """A run of lines of one kind; `line` is the number of its first."""

    line: int


@dataclass(frozen=True)
class Text(Block):
    """Ordinary Markdown: paragraphs, headings, lists, tables."""

    text: str


@dataclass(frozen=True)
class Target(Block):
    """A label for what follows: `(name)=`."""

    name: str


@dataclass(frozen=True)
class Comment(Block):
    """A line that starts with a percent sign."""


@dataclass(frozen=True)
class Math(Block):
    """A display formula between double dollars, with or without a label."""

    body: str
    label: str | None
    indent: str


@dataclass(frozen=True)
class Fence(Block):
    """Literal code; `info` is what stands behind the marker."""

    info: str
    marker: str
    body: str
    indent: str


@dataclass(frozen=True)
class Directive(Block):
    """A MyST directive; `body_line` is the number of its body's first line."""

    name: str
    argument: str
    options: dict[str, str]
    body: str
    body_line: int
    indent: str = field(default="")


def parse_blocks(text: str, line: int = 1) -> Iterator[Block]:
    """Yield the blocks of a text whose first line has the number `line`.

    Raises:
        MystError: a fence or a formula is not closed.
    """
    lines = text.split("\n")
    plain: list[str] = []
    position = 0
    while position < len(lines):
        block, end = read_special(lines, position, line)
        if block is None:
            plain.append(lines[position])
        else:
            yield from flush(plain, line + position - len(plain))
            plain = []
            yield block
        position = end
    yield from flush(plain, line + position - len(plain))


def flush(plain: list[str], line: int) -> Iterator[Text]:
    """Yield the collected lines of text as one block, unless there are none."""
    if plain:
        yield Text(line, "\n".join(plain))


def read_special(lines: list[str], start: int, line: int) -> tuple[Block | None, int]:
    """Return the block that begins at lines[start], None if that is text, and where to go on."""
    first = lines[start]
    number = line + start
    if match := TARGET.match(first):
        return Target(number, match["name"]), start + 1
    if first.startswith("%"):
        return Comment(number), start + 1
    if first.lstrip(" ").startswith("$$"):
        return read_math(lines, start, number)
    if match := FENCE.match(first):
        return read_fence(lines, start, number, match)
    return None, start + 1


def read_math(lines: list[str], start: int, number: int) -> tuple[Math, int]:
    """Return the formula that begins at lines[start] and the position after it."""
    indent = " " * (len(lines[start]) - len(lines[start].lstrip(" ")))
    body: list[str] = []
    for position in range(start, len(lines)):
        current = lines[position].removeprefix(indent)
        if position == start:
            current = current.removeprefix("$$")
        if match := MATH_END.search(current):
            body.append(current[: match.start()])
            return Math(number, "\n".join(body).strip(), match["label"], indent), position + 1
        body.append(current)
    raise MystError("the formula that begins here with $$ is never closed", number)


def read_fence(
    lines: list[str], start: int, number: int, opening: re.Match[str]
) -> tuple[Block, int]:
    """Return the fence or directive that begins at lines[start] and the position after it."""
    indent, marker, info = opening["indent"], opening["marker"], opening["info"].strip()
    closing = re.compile(rf"^ *{re.escape(marker[0])}{{{len(marker)},}}\s*$")
    end = next((n for n in range(start + 1, len(lines)) if closing.match(lines[n])), None)
    if end is None:
        raise MystError(f"the fence {marker}{info} that begins here is never closed", number)
    body = [text.removeprefix(indent) for text in lines[start + 1 : end]]
    if match := DIRECTIVE.match(info):
        options, skipped = read_options(body, number + 1)
        return Directive(
            line=number,
            name=match["name"],
            argument=match["argument"].strip(),
            options=options,
            body="\n".join(body[skipped:]).strip("\n"),
            body_line=number + 1 + skipped + leading_blanks(body[skipped:]),
            indent=indent,
        ), end + 1
    return Fence(number, info, marker, "\n".join(body), indent), end + 1


def leading_blanks(lines: list[str]) -> int:
    """Return how many of the first lines are empty."""
    return next((n for n, text in enumerate(lines) if text.strip()), 0)


def read_options(body: list[str], number: int) -> tuple[dict[str, str], int]:
    """Return a directive's options, `:key: value` or YAML, and how many lines they take."""
    if body and body[0].strip() == "---":
        end = next((n for n in range(1, len(body)) if body[n].strip() == "---"), None)
        if end is None:
            raise MystError("the options that begin here with --- are never closed", number)
        values = yaml.safe_load("\n".join(body[1:end])) or {}
        return {str(key): str(value) for key, value in values.items()}, end + 1
    options: dict[str, str] = {}
    for taken, text in enumerate(body):
        match = OPTION.match(text)
        if match is None:
            return options, taken
        options[match["key"]] = match["value"] or ""
    return options, len(body)
