"""Build the package's modules from the chapters' exported cells, or say why they cannot be."""

import ast
import difflib
import io
import json
import subprocess
import sys
import tempfile
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped]

from book.tools.export_parse import Cell, Chapter, ExportError
from book.tools.export_rules import Parts, bindings, check_module, check_shared_names, split

HEADER_MARK = "# Exported from chapters/"
# Undefined names, also in __all__; locals before their assignment; type-only imports used at run
# time. Ruff knows Python's scopes: comprehensions, classes, string annotations and the rest.
_NAME_RULES = "F821,F822,F823,TC004"


@dataclass(frozen=True)
class Draft:
    """A module before its imports are sorted: its lines, and where each comes from."""

    lines: tuple[str, ...]
    origins: tuple[str, ...]  # "chapters/01_tokenizer.md:57: cell 4" for each line

    @property
    def text(self) -> str:
        """The lines as a file."""
        return "\n".join(self.lines) + "\n"


def build_modules(root: Path, chapters: Sequence[Chapter]) -> dict[str, str]:
    """Return the text of each module ("gptbook/tokenizer.py") that the chapters export.

    root's pyproject.toml configures the formatting.

    Raises:
        ExportError: a cell holds what cannot be exported, each problem with its line.
    """
    modules = split_modules(chapters)
    every_part = [part for parts in modules.values() for part in parts]
    problems = [p for module, parts in modules.items() for p in check_module(module, parts)]
    problems += check_shared_names(every_part)
    problems += _unformatted(root, [part.cell for part in every_part])
    if problems:
        raise ExportError(problems)
    drafts = {module: draft(module, parts) for module, parts in modules.items()}
    problems = _undefined_names(root, modules)
    if problems:
        raise ExportError(problems)
    texts = format_modules(root, {module: d.text for module, d in drafts.items()})
    for module, parts in modules.items():
        _verify(module, parts, texts[module])
    return texts


def split_modules(chapters: Sequence[Chapter]) -> dict[str, list[Parts]]:
    """Return each module's cells, in book order and taken apart.

    Raises:
        ExportError: cells that are not Python, or not to be taken apart.
    """
    modules: dict[str, list[Parts]] = {}
    problems: list[str] = []
    for cell in (cell for chapter in chapters for cell in chapter.cells if cell.module):
        try:
            modules.setdefault(cell.module, []).append(split(cell))
        except ExportError as error:
            problems += error.problems
    if problems:
        raise ExportError(problems)
    return modules


def header(chapters: Iterable[str]) -> str:
    """Return the comment that begins a module exported from the chapters."""
    names = ", ".join(dict.fromkeys(chapters))
    return textwrap.fill(
        f"Exported from {names}. Edit the cells there and run `make export`, or edit this file and"
        " run `python -m book.tools.export --back`.",
        width=100,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def draft(module: str, parts: Sequence[Parts]) -> Draft:
    """Join a module's cells: header, docstring, imports by kind, then the bodies in order."""
    lines: list[tuple[str, str]] = []

    def add(text: str, cell: Cell, line: int) -> None:
        lines.extend((part, cell.where(line + i)) for i, part in enumerate(text.split("\n")))

    first = parts[0].cell
    add(header(part.cell.chapter for part in parts), first, 1)
    if parts[0].docstring:
        add(parts[0].docstring, first, 1)
    add("", first, 1)
    seen: set[tuple[str, str]] = set()
    for kind in ("future", "plain", "typing", "version"):
        found = [(part.cell, i) for part in parts for i in part.imports if i.kind == kind]
        if kind == "typing" and found:
            add("if TYPE_CHECKING:", found[0][0], found[0][1].line - 1)
        for cell, each in found:
            if (kind, each.text) not in seen:
                seen.add((kind, each.text))
                add(textwrap.indent(each.text, "    " * (kind == "typing")), cell, each.line)
    for part in parts:
        if part.body:
            add("\n", part.cell, part.body_line)
            add(part.body, part.cell, part.body_line)
    return Draft(tuple(line for line, _ in lines), tuple(origin for _, origin in lines))


def body_text(parts: Iterable[Parts]) -> str:
    """Return what follows a module's imports: its cells' bodies, byte for byte."""
    bodies = [part.body for part in parts if part.body]
    return "\n\n\n".join(bodies) + "\n" if bodies else ""


def _verify(module: str, parts: Sequence[Parts], text: str) -> None:
    """Raise ExportError unless text holds all that the cells hold, in their order."""
    cells = ", ".join(part.cell.where() for part in parts)
    body = body_text(parts)
    tree = ast.parse(text)
    imports = [node for part in parts for i in part.imports for node in [i.node]]
    statements = [node for part in parts for node in part.statements]
    kept = tree.body[len(tree.body) - len(statements) :] if statements else []
    head = tree.body[: len(tree.body) - len(statements)]
    if not text.endswith(body) or [ast.dump(n) for n in kept] != [ast.dump(n) for n in statements]:
        raise ExportError([f"{module}: ruff changes what these cells hold once joined: {cells}"])
    if _bindings(head) != _bindings(imports):
        raise ExportError([f"{module}: sorting the imports of these cells changes them: {cells}"])
    comments = {c for part in parts for i in part.imports for c in _comments(i.text)}
    if not comments <= set(_comments(text.removesuffix(body))):
        raise ExportError([f"{module}: sorting loses a comment on an import of: {cells}"])


def _bindings(nodes: Iterable[ast.stmt]) -> set[tuple[str, str]]:
    """Return what the imports among the nodes bind, those inside an `if` included."""
    imports = (n for node in nodes for n in ast.walk(node))
    return {
        bound
        for node in imports
        if isinstance(node, ast.Import | ast.ImportFrom)
        for bound in bindings(node)
    }


def _comments(text: str) -> Iterator[str]:
    """Yield the comments of Python text."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from (f"#{comment}".rstrip() for comment in token.string.split("#")[1:])


def _undefined_names(root: Path, modules: Mapping[str, Sequence[Parts]]) -> list[str]:
    """Return a problem for each name that a module uses and has not, as of any of its chapters."""
    drafts: dict[str, Draft] = {}
    for module, parts in modules.items():
        for chapter in dict.fromkeys(part.cell.chapter for part in parts):
            known = [part for part in parts if part.cell.chapter <= chapter]
            drafts[f"{Path(chapter).stem}/{module}"] = draft(module, known)
    found = _lint(root, {path: d.text for path, d in drafts.items()})
    problems = []
    for path, line, message in found:
        module = path.partition("/")[2]
        problems.append(
            f"{drafts[path].origins[line - 1]}: {message} in {module}; define it in an earlier cell"
            f" of {module}, or import it in this cell"
        )
    return list(dict.fromkeys(problems))


def format_sources(root: Path, sources: Sequence[str]) -> list[str]:
    """Return each Python source as `ruff format` writes it, without a newline at its end."""
    files = {f"cell_{index}.py": f"{source}\n" for index, source in enumerate(sources)}
    formatted = _with_ruff(root, files, [["format", "--quiet"]])
    return [formatted[path].removesuffix("\n") for path in files]


def format_modules(root: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Return each module's text with its imports sorted, and formatted."""
    return _with_ruff(
        root, texts, [["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]]
    )


def _unformatted(root: Path, cells: Sequence[Cell]) -> list[str]:
    """Return a problem, with the difference, for each cell that `ruff format` would change."""
    problems = []
    for cell, after in zip(cells, format_sources(root, [c.source for c in cells]), strict=True):
        before, lines = cell.lines, after.split("\n")
        if lines != before and cell.source.strip():
            first = next(
                (i for i, (a, b) in enumerate(zip(before, lines, strict=False)) if a != b),
                min(len(before), len(lines) - 1),
            )
            diff = "\n".join(list(difflib.unified_diff(before, lines, lineterm="", n=1))[2:])
            problems.append(
                f"{cell.where(first + 1)}: is not formatted, so the module would differ from what"
                f" the chapter shows; run `python -m book.tools.export --format`:\n{diff}"
            )
    return problems


def _lint(root: Path, texts: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """Return (path, line, message) for each name in the texts that is used wrongly."""
    with tempfile.TemporaryDirectory() as name:
        folder = _write_all(Path(name), texts)
        target = f"py{sys.version_info.major}{sys.version_info.minor}"
        arguments = ["check", "--isolated", "--ignore-noqa", "--exit-zero"]
        arguments += ["--target-version", target]
        arguments += ["--select", _NAME_RULES, "--output-format", "json", "."]
        found: list[dict[str, Any]] = json.loads(_ruff(folder, arguments))
        return [
            (
                Path(each["filename"]).resolve().relative_to(folder).as_posix(),
                each["location"]["row"],
                each["message"].split("\n")[0].rstrip("."),
            )
            for each in found
        ]


def _with_ruff(
    root: Path, texts: Mapping[str, str], commands: Iterable[Sequence[str]]
) -> dict[str, str]:
    """Return the texts after ruff's commands, configured by root's pyproject.toml."""
    with tempfile.TemporaryDirectory() as name:
        folder = _write_all(Path(name), {"gptbook/__init__.py": "", **texts})
        for command in commands:
            _ruff(folder, [*command, "--config", str(root.resolve() / "pyproject.toml"), "."])
        return {path: (folder / path).read_text(encoding="utf-8") for path in texts}


def _write_all(folder: Path, texts: Mapping[str, str]) -> Path:
    """Write the texts below folder; return its path without links."""
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder.resolve()


def _ruff(folder: Path, arguments: Sequence[str]) -> str:
    """Run ruff in folder and return what it prints; raises ExportError if it fails."""
    command = [find_ruff_bin(), *arguments, "--no-cache"]  # 20 times faster than `-m ruff`
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError([f"{' '.join(command)} failed: {done.stdout}{done.stderr}".strip()])
    return done.stdout
