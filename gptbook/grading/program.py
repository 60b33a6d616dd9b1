"""The part of a notebook that a function needs: a slice of its top-level statements.

A submission is a list of cells. To grade one function, the grader runs neither the whole notebook
(plots, long experiments) nor the bare function (which may need helpers, imports and constants), but
the statements that bind or fill the names that the function uses, and the names that those use.
"""

import ast
import builtins
import re
import symtable
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_UNPARSABLE = (SyntaxError, ValueError, MemoryError, RecursionError)
_WATCHING_MAGICS = ("%%time", "%%capture", "%%prun")
# A command, help on a name, or the result of a command given to a name.
_MAGIC_LINE = re.compile(r"^(\s*)(?:[%!?].*|[\w.]+\?{1,2}\s*|[\w, ]+=\s*[%!].*)$")
_BUILTIN_NAMES = frozenset(vars(builtins)) | {"__name__", "__file__"}


class ProgramError(ValueError):
    """A submission from which the asked function cannot be taken."""


@dataclass(frozen=True)
class Program:
    """What a child process runs to have one function.

    Attributes:
        target: name of the function.
        source: Python text that defines it.
        provided: reference sources for earlier parts, by the name they define; each is run in a
            namespace of its own, and only its name is given to ``source``.
        search_path: folders from which the reader's own modules are imported.
    """

    target: str
    source: str
    provided: Mapping[str, str] = field(default_factory=dict)
    search_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Statement:
    """A top-level statement and what it does with names.

    Attributes:
        text: its source.
        reads: names it uses, also inside function bodies.
        binds: names it gives a value, ``imports`` among them.
        imports: names it gives a value by importing.
        fills: names whose object it changes: ``table[key] = x``, ``table.size = x``.
        calls: names on which it calls a method for its effect: ``table.update(x)``.
        runs: it does something when it is reached, unlike a function's definition.
        defines: a function is in it, whose names are looked up when it is called.
        always: it has effect without a name: ``from module import *``, ``from __future__ ...``.
    """

    text: str
    reads: frozenset[str]
    binds: frozenset[str]
    imports: frozenset[str]
    fills: frozenset[str]
    calls: frozenset[str]
    runs: bool
    defines: bool
    always: bool


def parse_cells(cells: Sequence[str]) -> list[tuple[str, ast.stmt]]:
    """Split code cells into statements with their text; a cell that does not parse is left out.

    IPython's magic is left out too: lines such as ``%matplotlib inline``, ``!ls`` and ``help?``,
    and cells that begin with ``%%``, but for those whose magic only watches a cell of Python.
    """
    statements = []
    for cell in cells:
        try:
            text, tree = _parse(cell)
        except _UNPARSABLE:
            continue
        statements += [(_text_of(text, node), node) for node in tree.body]
    return statements


def broken_cells(cells: Sequence[str]) -> list[str]:
    """Say for each cell that does not parse why it does not."""
    problems = []
    for number, cell in enumerate(cells, start=1):
        try:
            _parse(cell)
        except _UNPARSABLE as error:
            line = getattr(error, "text", None) or ""
            reason = getattr(error, "msg", "") or str(error) or type(error).__name__
            at = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            problems.append(f"code cell {number}{at}: {reason}: {line.strip()!r}")
    return problems


def top_level_names(cells: Sequence[str]) -> set[str]:
    """Names that the cells bind at their top level."""
    names: set[str] = set()
    for text, node in parse_cells(cells):
        names |= _describe(text, node).binds
    return names


def slice_program(
    cells: Sequence[str],
    target: str,
    provided: Mapping[str, str] | None = None,
    search_path: Sequence[str] = (),
) -> Program:
    """Take from the cells what ``target`` needs.

    Args:
        cells: code cells in the order in which they run.
        target: name of the function.
        provided: sources that stand in for the cells' own definitions of some names.
        search_path: see :class:`Program`.

    Raises:
        ProgramError: no cell defines ``target``.
    """
    provided = dict(provided or {})
    statements = [_describe(text, node) for text, node in parse_cells(cells)]
    if not any(target in statement.binds for statement in statements):
        raise ProgramError(_missing(target, cells))
    kept = _needed(statements, target, frozenset(provided))
    in_order = sorted(
        kept, key=lambda index: (not statements[index].text.startswith("from __future__"), index)
    )
    source = "\n\n".join(statements[index].text for index in in_order)
    used = {name: text for name, text in provided.items() if name != target}
    return Program(target, source + "\n", used, tuple(search_path))


def _missing(target: str, cells: Sequence[str]) -> str:
    broken = broken_cells(cells)
    if broken:
        return f"{broken[0]}. No other cell defines {target!r}"
    return f"no code cell defines {target!r} at its top level"


def _needed(statements: Sequence[_Statement], target: str, provided: frozenset[str]) -> set[int]:
    """Indices of the statements on which ``target`` depends; grows until nothing is added."""
    end = len(statements)
    kept: set[int] = set()
    pending, done = [(target, end)], set[tuple[str, int]]()
    given = provided - {target}
    added = {i for i, statement in enumerate(statements) if statement.always}
    while True:
        for index in added - kept:
            statement = statements[index]
            names = statement.reads - _BUILTIN_NAMES - given
            # What runs at once needs what was before it; what a function needs may come later.
            pending += [(name, index) for name in names if statement.runs]
            pending += [(name, end) for name in names if statement.defines]
        kept |= added
        pending = [wanted for wanted in dict.fromkeys(pending) if wanted not in done]
        if not pending:
            return kept
        done |= set(pending)
        added = {i for name, before in pending for i in _definition(statements, name, before)}


def _definition(statements: Sequence[_Statement], name: str, end: int) -> Iterator[int]:
    """The last statement before ``end`` that binds a name anew, and later ones that fill it.

    A method called on a module (``np.testing.assert_allclose(f(x), y)``) is an experiment of the
    reader's, and left out; one called on an object (``table.update(x)``) is part of its value.
    """
    is_module = any(name in statement.imports for statement in statements[:end])
    for index in range(end - 1, -1, -1):
        statement = statements[index]
        called = name in statement.calls and not is_module
        if name in statement.binds or name in statement.fills or called:
            yield index
        if name in statement.binds and name not in statement.reads:
            break
    # Readers import again in every cell, and what stands between may need an earlier import.
    yield from (i for i, statement in enumerate(statements[:end]) if name in statement.imports)


def _describe(text: str, node: ast.stmt) -> _Statement:
    names = _Names()
    names.visit(node)
    names.reads &= _read_from_outside(text) | names.extended
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names.binds = {node.name}  # what is bound or changed inside is not at the top level
        names.imports, names.fills, names.calls = set(), set(), set()
        names.reads.discard(node.name)  # recursion is no dependence on an older definition
    always = isinstance(node, ast.ImportFrom) and (
        node.module == "__future__" or any(item.name == "*" for item in node.names)
    )
    sets = (names.reads, names.binds, names.imports, names.fills, names.calls)
    reads, binds, imports, fills, calls = (frozenset(group) for group in sets)
    return _Statement(
        text,
        reads,
        binds,
        imports,
        fills,
        calls,
        runs=not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or bool(node.decorator_list),
        defines=any(isinstance(item, _FUNCTIONS) for item in ast.walk(node)),
        always=always,
    )


def _read_from_outside(text: str) -> set[str]:
    """Names that a statement takes from around it: no function's parameters or local variables."""
    found: set[str] = set()
    tables = [symtable.symtable(text, "<cell>", "exec")]
    while tables:
        table = tables.pop()
        outermost = table.get_type() == "module"
        found |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if (symbol.is_referenced() if outermost else symbol.is_global())
        }
        tables += table.get_children()
    return found


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class _Names(ast.NodeVisitor):
    """Collects the sets of :class:`_Statement`."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.binds: set[str] = set()
        self.imports: set[str] = set()
        self.fills: set[str] = set()
        self.calls: set[str] = set()
        self.extended: set[str] = set()  # at the top level, by an operator such as +=
        self._depth = 0  # of functions

    def visit_Name(self, node: ast.Name) -> None:
        target = {ast.Load: self.reads, ast.Store: self.binds, ast.Del: self.fills}
        target[type(node.ctx)].add(node.id)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.binds.add(node.name)
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.binds.add(node.name)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self._imported({(item.asname or item.name).split(".")[0] for item in node.names})

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._imported({item.asname or item.name for item in node.names if item.name != "*"})

    def _imported(self, names: set[str]) -> None:
        self.binds |= names
        self.imports |= names

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.reads.add(node.target.id)  # x += 1 needs the x from before
            if not self._depth:
                self.extended.add(node.target.id)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._visit_place(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._visit_place(node)

    def _visit_place(self, node: ast.Attribute | ast.Subscript) -> None:
        root = _root(node)
        if root and not isinstance(node.ctx, ast.Load):
            self.fills.add(root)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
            root = _root(node.value.func)
            if root:
                self.calls.add(root)
        self.generic_visit(node)


def _root(node: ast.expr) -> str | None:
    """The name at the left end of ``a.b[c].d``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _text_of(text: str, node: ast.stmt) -> str:
    """Source lines of a statement, decorators included, at the indentation they have."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(item.lineno for item in decorators)])
    lines = text.split("\n")[first - 1 : node.end_lineno]
    if decorators or node.col_offset == 0:
        last = lines[-1].encode("utf-8")[: node.end_col_offset].decode("utf-8")
        return "\n".join([*lines[:-1], last])
    return ast.get_source_segment(text, node) or ast.unparse(node)


def _parse(cell: str) -> tuple[str, ast.Module]:
    """A cell's text without IPython's magic, where it has any, and its syntax tree."""
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # str.splitlines would cut at more
    try:
        return cell, ast.parse(cell)
    except SyntaxError:  # a line with % may continue an expression, so plain Python goes first
        text = _without_magics(cell)
        return text, ast.parse(text)


def _without_magics(cell: str) -> str:
    first, _, rest = cell.lstrip().partition("\n")
    if first.startswith("%%"):
        cell = rest if first.split()[0] in _WATCHING_MAGICS else ""
    return "\n".join(_MAGIC_LINE.sub(r"\1pass", line) for line in cell.split("\n"))
