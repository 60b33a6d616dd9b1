"""Carry edits made in the package's modules back into the chapters' cells.

A module's text after its imports is cut into its cells again. The statements that a cell had stay
in it, whatever their new text; a new one joins the cell of the statement above it; a cell that is
left without a statement is removed. A new import goes into the first cell that uses its name, or
into the first. Then the modules are built from the new cells, and unless that gives the edited
modules byte for byte, nothing is written.
"""

import ast
import difflib
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from book.tools.export_build import (
    HEADER_MARK,
    build_modules,
    format_modules,
    split_modules,
)
from book.tools.export_parse import (
    Cell,
    Chapter,
    ExportError,
    parse_chapter,
    read_chapters,
    replace_sources,
)
from book.tools.export_record import known_texts, remember
from book.tools.export_rules import Import, ImportKind, Parts, bindings, defined_names, split
from book.tools.project import write_if_changed

Atom = tuple[ImportKind, str]  # an import, mostly of one name: its kind, and its statement


def carry_back(root: Path) -> list[str]:
    """Carry the edits in root's modules into its chapters; return what was done, a line each.

    Raises:
        ExportError: it cannot be done exactly, and why; nothing is written then.
    """
    chapters = read_chapters(root)
    texts = build_modules(root, chapters)
    edited = _edited_modules(root, texts)
    if not edited:
        return ["no module was edited"]
    modules = split_modules(chapters)
    sources = _new_sources(root, {module: modules[module] for module in edited}, edited)
    new_chapters = [
        parse_chapter(chapter.name, replace_sources(chapter, sources.get(chapter.name, {})))
        for chapter in chapters
    ]
    rebuilt = _require_same(root, new_chapters, {**texts, **edited}, texts)
    done = []
    for old, new in zip(chapters, new_chapters, strict=True):
        if write_if_changed(root / new.name, new.text):
            done += list(_describe(old, sources[old.name]))
    for module in edited:  # its header may name fewer chapters now
        write_if_changed(root / module, rebuilt[module])
    remember(root, {module: rebuilt[module] for module in edited})
    return done


def _edited_modules(root: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the modules whose files differ from texts, or raise if that is no clear edit."""
    edited, problems = {}, []
    for module, text in texts.items():
        path = root / module
        if not path.is_file():
            problems.append(f"{module}: is missing; run `make export` to write it from its cells")
        elif path.read_bytes() != text.encode("utf-8"):
            edited[module] = path.read_bytes().decode("utf-8")
            if text not in known_texts(root, module):
                problems.append(
                    f"{module}: its cells were edited as well since the last export, so neither"
                    " side is the older; put your edit of the module aside, run `make export`, and"
                    " make the edit again"
                )
    if problems:
        raise ExportError(problems)
    for module, text in edited.items():
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise ExportError([f"{module}:{error.lineno}: syntax error: {error.msg}"]) from error
    return edited


def _new_sources(
    root: Path, modules: Mapping[str, Sequence[Parts]], edited: Mapping[str, str]
) -> dict[str, dict[int, str | None]]:
    """Return the new source of each changed cell, by chapter and number; None removes the cell."""
    for module, text in format_modules(root, edited).items():
        if text != edited[module]:
            raise ExportError(
                [
                    f"{module}: is not formatted; run `ruff check --select I --fix {module}` and"
                    f" `ruff format {module}` first:\n{_diff(edited[module], text)}"
                ]
            )
    sources: dict[str, dict[int, str | None]] = {}
    for module, parts in modules.items():
        for cell, source in _recut(root, module, parts, edited[module]):
            if source != cell.source:
                sources.setdefault(cell.chapter, {})[cell.number] = source
    return sources


def _require_same(
    root: Path, chapters: Sequence[Chapter], wanted: Mapping[str, str], before: Mapping[str, str]
) -> dict[str, str]:
    """Return what the chapters export; raise unless it is what is wanted.

    A module's header is the exporter's: it may still name the chapters that it named before.
    """
    try:
        rebuilt = build_modules(root, chapters)
    except ExportError as error:
        raise ExportError(
            ["the edited modules cannot be exported from cells; in the chapters they would be:"]
            + [f"  {problem}" for problem in error.problems]
        ) from error
    for module, text in wanted.items():
        new_header, new_body = _split_header(rebuilt.get(module, ""))
        header, body = _split_header(text)
        if body != new_body or header not in (new_header, _split_header(before[module])[0]):
            raise ExportError(
                [
                    f"{module}: no cells give this text exactly; for yours (-) they give (+):\n"
                    f"{_diff(text, rebuilt.get(module, ''))}"
                ]
            )
    return rebuilt


def _split_header(text: str) -> tuple[str, str]:
    """Return a module's header, which names the chapters that it comes from, and the rest."""
    header, end, rest = text.partition("--back`.\n")
    return (header, rest) if end and header.startswith(HEADER_MARK) else ("", text)


def _diff(before: str, after: str) -> str:
    """Return a short unified diff of two texts."""
    lines = difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm="", n=1)
    return "\n".join(list(lines)[2:40])


def _describe(chapter: Chapter, sources: Mapping[int, str | None]) -> Iterator[str]:
    """Yield a line for each cell that was changed or removed."""
    for number, source in sorted(sources.items()):
        what = "removed: nothing is left of it" if source is None else "changed"
        yield f"{chapter.cells[number - 1].where()}: {what}"


def _recut(
    root: Path, module: str, parts: Sequence[Parts], text: str
) -> Iterator[tuple[Cell, str | None]]:
    """Yield each cell of a module with the source that the module's new text gives it."""
    whole = _split_module(module, text)
    bodies = _cut_body(module, parts, whole)
    bodies |= {i: "" for i, part in enumerate(parts) if not part.body}
    if not any(bodies.values()):
        raise ExportError([f"{module}: nothing is left of it; remove its cells from the chapters"])
    kept, added = _deal_imports(parts, bodies, whole)
    for index, part in enumerate(parts):
        docstring = whole.docstring if index == min(bodies) else ""
        if index not in bodies:
            yield part.cell, None
            continue
        imports = [*kept[index], *added[index]]
        if not (docstring or imports or bodies[index]):
            yield part.cell, None
        elif docstring == part.docstring and imports == [(i.kind, i.text) for i in part.imports]:
            head = part.cell.lines[: part.body_line - 1]
            yield part.cell, "\n".join([*head, bodies[index]] if bodies[index] else head)
        else:
            yield part.cell, _join(root, docstring, imports, bodies[index])


def _split_module(module: str, text: str) -> Parts:
    """Take a module's text apart; its lines keep their numbers in messages."""
    lines = text.removesuffix("\n").split("\n")
    start = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return split(Cell(module, 0, 0, start + 1, "\n".join(lines[start:]), module))


def _cut_body(module: str, parts: Sequence[Parts], whole: Parts) -> dict[int, str]:
    """Return the new body of each cell, by its index, that keeps a statement."""
    owners = _owners(module, parts, whole)
    lines = whole.body.split("\n")
    _join_what_is_above(owners, parts, whole, lines)
    bodies, start = {}, 0
    for k, node in enumerate(whole.statements):
        if k + 1 == len(owners):
            bodies[owners[k]] = "\n".join(lines[start:])
        elif owners[k] != owners[k + 1]:
            cut = _cut_after(k, owners, parts, whole, lines)
            if cut is None:
                end = (node.end_lineno or 0) - whole.body_line + 1
                cells = [parts[owners[i]].cell.where() for i in (k, k + 1)]
                raise ExportError(
                    [
                        f"{whole.cell.where(whole.body_line + end)}: two blank lines must part what"
                        f" comes from {cells[0]} and from {cells[1]}"
                    ]
                )
            bodies[owners[k]] = "\n".join(lines[start : cut - 2])
            start = cut
    return bodies


def _join_what_is_above(
    owners: list[int], parts: Sequence[Parts], whole: Parts, lines: Sequence[str]
) -> None:
    """Give a new statement that took another one's turn to the cell that it stands close to.

    Nothing but its place says that it replaces a statement of the next cell, and where no two blank
    lines stand above it, it does not.
    """
    old = set(_keys(node for part in parts for node in part.statements))
    for k, key in enumerate(_keys(whole.statements)[1:]):
        new = key not in old and owners[k] != owners[k + 1]
        if new and _cut_after(k, owners, parts, whole, lines) is None:
            owners[k + 1] = owners[k]


def _cut_after(
    k: int, owners: Sequence[int], parts: Sequence[Parts], whole: Parts, lines: Sequence[str]
) -> int | None:
    """Return the index of the line at which the cell of statement k + 1 begins; see `_cut`."""
    end = (whole.statements[k].end_lineno or 0) - whole.body_line + 1
    next_start = _first_line(whole.statements[k + 1]) - whole.body_line
    return _cut(lines, end, next_start, parts[owners[k + 1]].body.split("\n")[0])


def _first_line(node: ast.stmt) -> int:
    """Return the line a statement begins on, its decorators included."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _cut(lines: Sequence[str], end: int, start: int, wanted: str) -> int | None:
    """Return the index where the next cell begins, between one statement's end and another's start.

    It follows exactly two blank lines; comments on both sides can leave several such places, of
    which the one before the line `wanted`, the cell's old first line, is the best.
    """
    places = [
        i
        for i in range(end + 2, start + 1)
        if lines[i] and not any(lines[i - 2 : i]) and lines[i - 3]
    ]
    return next((i for i in places if lines[i] == wanted), places[0] if places else None)


def _owners(module: str, parts: Sequence[Parts], whole: Parts) -> list[int]:
    """Return, for each statement of a module's new text, the index of the cell it belongs to."""
    old = [index for index, part in enumerate(parts) for _ in part.statements]
    old_keys = _keys(node for part in parts for node in part.statements)
    owners: list[int] = []
    matcher = difflib.SequenceMatcher(None, old_keys, _keys(whole.statements), autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal" or i2 - i1 == j2 - j1:
            owners += old[i1:i2]
        elif tag == "insert":
            owners += [owners[-1] if owners else old[0]] * (j2 - j1)
        elif tag == "replace":
            if old[i1] != old[i2 - 1]:
                cells = ", ".join(parts[i].cell.where() for i in dict.fromkeys(old[i1:i2]))
                where = whole.cell.where(whole.statements[j1].lineno)
                raise ExportError(
                    [
                        f"{where}: {j2 - j1} statements replace {i2 - i1} that come from several"
                        f" cells ({cells}), and it is not clear which go where; edit the chapter"
                    ]
                )
            owners += [old[i1]] * (j2 - j1)
    return owners


def _keys(statements: Iterable[ast.stmt]) -> list[str]:
    """Return what tells statements apart: their names, numbered where one repeats (overloads)."""
    names = [", ".join(defined_names(node)) or ast.unparse(node) for node in statements]
    counts: Counter[str] = Counter()
    keys = []
    for name in names:
        counts[name] += 1
        keys.append(f"{name} #{counts[name]}")
    return keys


def _atoms(imports: Iterable[Import]) -> list[Atom]:
    """Return the imports one name at a time."""
    atoms: list[Atom] = []
    for found in imports:
        match found.node:
            case ast.Import(names=names):
                atoms += [(found.kind, ast.unparse(ast.Import([alias]))) for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                each = [ast.ImportFrom(module, [alias], level) for alias in names]
                atoms += [(found.kind, ast.unparse(node)) for node in each]
            case _:
                atoms.append((found.kind, found.text))
    return atoms


def _restrict(imports: Iterable[Import], wanted: Collection[Atom]) -> list[Atom]:
    """Return the imports as written where all their names are wanted, and else those that are."""
    kept: list[Atom] = []
    for found in imports:
        atoms = _atoms([found])
        left = [atom for atom in atoms if atom in wanted]
        kept += [(found.kind, found.text)] if left == atoms else left
    return kept


def _deal_imports(
    parts: Sequence[Parts], bodies: Mapping[int, str], whole: Parts
) -> tuple[dict[int, list[Atom]], dict[int, list[Atom]]]:
    """Return, for each cell that stays, the imports it keeps and those it gets.

    A new one goes to the first cell that uses its name, or else to the first cell.
    """
    wanted = _atoms(whole.imports)
    kept = {i: _restrict(parts[i].imports, wanted) for i in bodies}
    _keep_comments(kept, whole)
    _keep_inner_comments(kept, parts, whole)
    present = {atom for i in bodies for atom in _atoms(parts[i].imports)}
    missing = [atom for atom in wanted if atom not in present]
    new: list[Atom] = []
    for found in whole.imports:
        atoms = [atom for atom in _atoms([found]) if atom in missing]
        commented = "#" in found.text and atoms == _atoms([found])
        new += [(found.kind, found.text)] if commented else atoms
    added: dict[int, list[Atom]] = {i: [] for i in bodies}
    for kind, text in sorted(new, key=lambda atom: atom[0] != "typing"):
        names = {name for node in ast.parse(text).body for name, _ in bindings(node)}
        users = [i for i in sorted(bodies) if names & _used(bodies[i], [*kept[i], *added[i]])]
        added[users[0] if users else min(bodies)].append((kind, text))
    return kept, added


def _keep_comments(kept: Mapping[int, list[Atom]], whole: Parts) -> None:
    """Give an import's comment a new home when the cell that had it is removed."""
    for found in whole.imports:
        atoms, text = _atoms([found]), (found.kind, found.text)
        if "#" not in found.text or len(atoms) > 1 or any(text in kept[i] for i in kept):
            continue
        for i in sorted(kept):
            if atoms[0] in kept[i]:
                kept[i][kept[i].index(atoms[0])] = text
                break


def _keep_inner_comments(
    kept: Mapping[int, list[Atom]], parts: Sequence[Parts], whole: Parts
) -> None:
    """Give a removed cell's commented import of several names to a cell that has one of them.

    The formatter merges it with the import that stands there, and the comment stays at its name.
    """
    wanted = {comment for found in whole.imports for comment in _comments(found.text)}
    there = {comment for atoms in kept.values() for _, text in atoms for comment in _comments(text)}
    for part in (part for i, part in enumerate(parts) if i not in kept):
        for found in part.imports:
            atoms, lost = set(_atoms([found])), (_comments(found.text) & wanted) - there
            home = next((i for i in sorted(kept) if atoms & _parsed_atoms(kept[i])), None)
            if len(atoms) > 1 and lost and atoms <= set(_atoms(whole.imports)) and home is not None:
                kept[home].append((found.kind, found.text))
                there |= lost


def _parsed_atoms(imports: Iterable[Atom]) -> set[Atom]:
    """Return imports as they stand in a cell one name at a time."""
    return {
        atom
        for kind, text in imports
        for atom in _atoms([Import(kind, text, 0, ast.parse(text).body[0])])
    }


def _comments(text: str) -> set[str]:
    """Return the comments in an import statement, which has no other place for a number sign."""
    return {line.partition("#")[2] for line in text.split("\n") if "#" in line}


def _used(body: str, imports: Iterable[Atom]) -> set[str]:
    """Return the names that a cell uses, TYPE_CHECKING for its imports included."""
    names = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    return names | {"TYPE_CHECKING" for kind, _ in imports if kind == "typing"}


def _join(root: Path, docstring: str, imports: Sequence[Atom], body: str) -> str:
    """Return a cell's source made from its parts, with the imports sorted."""
    lines = [docstring, ""]
    for kind in ("future", "plain", "typing", "version"):
        found = [text for each, text in imports if each == kind]
        if kind == "typing" and found:
            lines.append("if TYPE_CHECKING:")
        lines += [textwrap.indent(text, "    " * (kind == "typing")) for text in found]
    text = "\n".join([*lines, "", "", body]).strip("\n") + "\n"
    return format_modules(root, {"gptbook/cell.py": text})["gptbook/cell.py"].removesuffix("\n")
