"""Compares the numbers in the chapters' prose with the values that their cells recorded.

    python -m book.tools.prose [--check | --update]

A cell says `record(val_loss=2.4137, n=1234)`; the prose says

    a loss of 2.41<!--=val_loss:.2f--> after 1,234<!--=n:,--> steps

After `=` comes a recorded name, or arithmetic on recorded names (+ - * / // %, **, min, max, round,
abs), then, after a colon, a format as Python's format() takes it. A percentage may have a space
before its sign. Code and mathematics are quoted whole: `the cat`<!--=sample-->. A decimal number or
one with a thousands separator that a chapter was given, rather than computed, says so:
3.5<!--=given-->, or its paragraph cites a source.

`--check` reports every number that disagrees, and every such number without a comment. `--update`
rewrites the numbers in chapters/*.md, and the stored notebooks' prose.
"""

import argparse
import ast
import json
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from book.tools.execute import refresh
from book.tools.notebooks import Source, code_cells, is_current, read_source, read_stored
from book.tools.project import ROOT, chapter_paths, write_if_changed
from gptbook.app.notebook import RECORD_MIME, Scalar

Number = int | float

COMMENT = re.compile(r"<!--=(?P<body>[^\n]*?)-->")
ALMOST_COMMENT = re.compile(r"<!--\s*=")
GIVEN = "given"

QUOTED = re.compile(r"(?P<mark>`+|\$)(?P<text>[^`$\n]+)(?P=mark)$")
WORD = re.compile(r"(?P<text>(?!_)[\w.,+-]+(?<!_)(?: ?%)?)[*_]{0,3}$")
"""What stands right before a comment: a whole word, so that 12.41 is not taken for 2.41."""

NUMERAL = re.compile(r"[+-]?\d[\d,._]*(?:e[+-]?\d+)? ?%?")
UNQUOTED = re.compile(
    r"(?<![\w.,-])[+-]?"
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+)"  # 12,345 or 3.14
    r"(?![\d.]*\.\d)(?:e[+-]?\d+)?[\w%]*"  # no version such as 3.11.2
)
BEFORE_COMMENT = re.compile(r"[*_]{0,3}(?: ?%)?[*_]{0,3}<!--=")

FENCE = re.compile(
    r"^\s*(?P<mark>`{3,}|~{3,}|:{3,})\s*(?:\{(?P<directive>[^}]*)\})?(?P<rest>[^`]*)$"
)
NOT_PROSE = {"", "code", "code-block", "code-cell", "eval-rst", "literalinclude", "math", "raw"}
"""Fences whose body is not prose: code without a directive, and these directives."""

CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")
NOT_LINTED = (
    CODE_SPAN,
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"(?<!\\)\$(?:[^$\n]|\n(?!\s*\n))+?(?<!\\)\$"),
    re.compile(r"\]\([^)\n]*\)"),
    re.compile(r"<[^>\n]*>"),
    re.compile(r"https?://\S+"),
)

OPERATORS: Mapping[type[ast.AST], Callable[..., Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "abs": abs,
    "max": max,
    "min": min,
    "round": round,
}


class ProseError(ValueError):
    """A comment, a recorded value or the text before a comment is not as it must be."""


@dataclass(frozen=True)
class Quote:
    """A comment with the text right before it, and where that text stands in the file."""

    text: str
    start: int
    end: int
    body: str

    def agrees(self, expected: str) -> bool:
        """Say whether the text is the expected one, but for a space before a percent sign."""
        return self.text.replace(" %", "%") == expected

    def replacement(self, expected: str) -> str:
        """Return the text that is to stand there.

        Raises:
            ProseError: if a number is to replace what is no number.
        """
        if self.agrees(expected):
            return self.text
        if NUMERAL.fullmatch(expected) and not NUMERAL.fullmatch(self.text):
            raise ProseError(
                f"{self.text!r} is no number: write {expected} right before the comment"
            )
        if self.text.endswith(" %") and expected.endswith("%"):
            return expected.removesuffix("%") + " %"
        return expected


# ---- the parts of a file ----


def _blank(text: str) -> str:
    """Return spaces in place of the text, so that positions and lines stay."""
    return re.sub(r"[^\n]", " ", text)


def split_prose(text: str) -> tuple[str, str]:
    """Return the text twice with everything else blanked: where comments count, and plain prose.

    Comments count outside code: in prose, headings, and the options of directives and cells, such
    as captions. Plain prose is without headings and options.
    """
    counted, plain = [], []
    for line, kind in _classified(text.splitlines(keepends=True)):
        counted.append(line if kind != "code" else _blank(line))
        plain.append(line if kind == "prose" else _blank(line))
    return CODE_SPAN.sub(lambda m: _blank(m.group()), "".join(counted)), "".join(plain)


def _classified(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each line with its kind: "prose", "code", or "label" for headings and options."""
    open_fences: list[tuple[str, str]] = []  # the marks and directives that enclose the line
    options = ""  # "start" after a directive's first line, ":" or "---" within its options
    front_matter = bool(lines) and lines[0].rstrip() == "---"
    for number, line in enumerate(lines):
        if front_matter:
            front_matter = number == 0 or line.rstrip() != "---"
            yield line, "code"
            continue
        if options:
            kind, options = _option(line, options)
            if kind:
                yield line, kind
                continue
        mark, directive = open_fences[-1] if open_fences else ("", "prose")
        fence = FENCE.match(line)
        if mark and fence and _closes(fence, mark):
            open_fences.pop()
            yield line, "code"
        elif directive in NOT_PROSE:
            yield line, "code"
        elif fence:
            open_fences.append((fence["mark"], fence["directive"] or ""))
            options = "start" if fence["directive"] else ""
            yield line, "label"
        else:
            yield line, "label" if re.match(r"\s{0,3}#", line) else "prose"


def _closes(fence: re.Match[str], mark: str) -> bool:
    """Say whether a fence line ends the block that `mark` began."""
    return fence["mark"].startswith(mark) and not fence["directive"] and not fence["rest"].strip()


def _option(line: str, state: str) -> tuple[str, str]:
    """Return the kind of a line at the head of a directive, "" after its options, and the state."""
    stripped = line.strip()
    if state == "---":
        return "label", "" if stripped == "---" else "---"
    if state == "start" and stripped == "---":
        return "label", "---"
    if re.match(r":[\w-]+:", stripped):
        return "label", ":"
    return "", ""


def quotes(text: str) -> Iterator[Quote | tuple[int, str]]:
    """Yield each comment that names a value with the text before it, or its position and fault."""
    counted, _ = split_prose(text)
    for start in (match.start() for match in ALMOST_COMMENT.finditer(counted)):
        comment = COMMENT.match(text, start)
        if comment is None or not comment["body"].strip():
            yield start, "this comment cannot be read: write <!--=name:format-->, without spaces"
            continue
        before = text[text.rfind("\n", 0, start) + 1 : start]
        found = QUOTED.search(before) or WORD.search(before)
        if found is None:
            yield start, f"there is no number right before {comment.group()}"
            continue
        offset = start - len(before)
        span = (offset + found.start("text"), offset + found.end("text"))
        yield Quote(found["text"], *span, comment["body"].strip())


def unquoted_numbers(text: str) -> Iterator[tuple[int, str]]:
    """Yield the decimal numbers in prose, with their positions, that have no comment.

    Paragraphs that cite a source are left out: their numbers are the source's.
    """
    _, plain = split_prose(text)
    for pattern in NOT_LINTED:
        plain = pattern.sub(lambda match: _blank(match.group()), plain)
    for paragraph in re.finditer(r"(?:[^\n]*\S[^\n]*\n?)+", text):
        if "{cite" in paragraph.group():
            continue
        for number in UNQUOTED.finditer(plain, paragraph.start(), paragraph.end()):
            if not BEFORE_COMMENT.match(text, number.end()):
                yield number.start(), number.group()


# ---- recorded values ----


def recorded_values(source: Source) -> dict[str, Scalar]:
    """Return what the source's cells recorded when they were executed.

    Raises:
        ProseError: if nothing is stored, or a name was recorded twice.
    """
    stored = read_stored(source)
    if stored is None:
        raise ProseError("it was never executed: run `make execute`")
    values: dict[str, Scalar] = {}
    for number, cell in enumerate(code_cells(stored), start=1):
        for output in cell.outputs:
            new: dict[str, Scalar] = json.loads(output.get("data", {}).get(RECORD_MIME, "{}"))
            if twice := sorted(new.keys() & (values.keys() | {GIVEN})):
                raise ProseError(
                    f"code cell {number} records {', '.join(twice)}, which is taken: record each "
                    f"name once, and none as {GIVEN!r}"
                )
            values |= new
    return values


def expected_text(body: str, values: Mapping[str, Scalar]) -> str:
    """Return what must stand before the comment <!--=body-->.

    Raises:
        ProseError: if the expression or the format cannot be read, or names what is not recorded.
    """
    expression, _, spec = body.partition(":")
    try:
        value = _evaluate(ast.parse(expression.strip(), mode="eval").body, values)
        return format(value, spec)
    except (SyntaxError, ArithmeticError, TypeError) as error:
        raise ProseError(f"{expression!r} cannot be computed: {error}") from error
    except ProseError:
        raise
    except ValueError as error:
        raise ProseError(f"{spec!r} is no format for {expression!r}: {error}") from error


def _evaluate(node: ast.expr, values: Mapping[str, Scalar]) -> Scalar:
    """Return the value of a recorded name, or of arithmetic on recorded numbers."""
    match node:
        case ast.Name(id=name):
            if name not in values:
                known = ", ".join(sorted(values)) or "nothing"
                raise ProseError(f"{name!r} is not recorded in this chapter; recorded: {known}")
            return values[name]
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            operands = [_number(side, values) for side in (node.left, node.right)]
            return OPERATORS[type(op)](*operands)
        case ast.UnaryOp(op=op) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_number(node.operand, values))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_number(argument, values) for argument in node.args))
        case _:
            raise ProseError(
                f"{ast.unparse(node)!r} is not arithmetic on recorded names (+ - * / // % **, "
                f"{', '.join(FUNCTIONS)})"
            )


def _number(node: ast.expr, values: Mapping[str, Scalar]) -> Number:
    """Return the value of an operand, which must be a number."""
    value = _evaluate(node, values)
    if isinstance(value, str | bool):
        raise ProseError(f"{ast.unparse(node)} is {value!r}, not a number to compute with")
    return value


# ---- check and update ----


def check(root: Path) -> list[str]:
    """Say what is wrong with the numbers in the chapters' prose; [] if nothing is."""
    return [p for path in chapter_paths(root) for p in _chapter_problems(read_source(root, path))]


def _chapter_problems(source: Source) -> list[str]:
    """Return the chapter's problems in the order of its lines."""
    text = source.path.read_text(encoding="utf-8")
    found = [
        (
            position,
            f"{number} has no comment that says where it comes from: record it in a cell, cite its "
            "source in the paragraph, or write <!--=given--> after it",
        )
        for position, number in unquoted_numbers(text)
    ]
    try:
        values = recorded_values(source)
    except ValueError as error:
        return [f"{source.name}: {error}"]
    for quote in quotes(text):
        if isinstance(quote, tuple):
            found.append(quote)
        elif problem := _problem(quote, values):
            found.append((quote.start, problem))
    return [f"{source.name}:{_line(text, at)}: {problem}" for at, problem in sorted(found)]


def _line(text: str, position: int) -> int:
    """Return the number of the line that holds a position."""
    return text.count("\n", 0, position) + 1


def _problem(quote: Quote, values: Mapping[str, Scalar]) -> str:
    """Say what is wrong with one quoted number; "" if nothing is."""
    if quote.body == GIVEN:
        return ""
    try:
        expected = expected_text(quote.body, values)
    except ProseError as error:
        return str(error)
    if quote.agrees(expected):
        return ""
    return f"the prose says {quote.text!r}, but {quote.body} is {expected!r}: run with --update"


def update(root: Path) -> list[str]:
    """Write the recorded numbers into chapters/*.md and the stored notebooks.

    Returns what is still wrong then, as `check` does.
    """
    problems = []
    for path in chapter_paths(root):
        source = read_source(root, path)
        stored = read_stored(source)
        if stored is None or not is_current(source, stored):
            problems.append(f"{source.name}: its values are out of date: run `make execute` first")
            continue
        if write_if_changed(path, _updated(source)):
            refresh(read_source(root, path))
            print(f"{source.name}: numbers updated")
    return problems + check(root)


def _updated(source: Source) -> str:
    """Return the chapter's text with recorded numbers; what cannot be updated stays as it is."""
    text = source.path.read_text(encoding="utf-8")
    try:
        values = recorded_values(source)
    except ProseError:
        return text  # `check` says what is wrong
    for quote in reversed(list(quotes(text))):  # from the end, so that positions stay right
        if isinstance(quote, tuple) or quote.body == GIVEN:
            continue
        try:
            new = quote.replacement(expected_text(quote.body, values))
        except ProseError:
            continue  # `check` says what is wrong
        text = text[: quote.start] + new + text[quote.end :]
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.prose", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only compare (the default)")
    action.add_argument("--update", action="store_true", help="write the recorded numbers")
    found = update(ROOT) if parser.parse_args(argv).update else check(ROOT)
    print("\n".join(found) or "The numbers in the prose are those that the cells recorded.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
