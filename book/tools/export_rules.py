"""What an exported cell may hold: imports, then constants, functions and classes, each once.

A constant's value, a default, a decorator and a base class are evaluated on import, so they may
construct but not act. They may call anything except: a built-in in `EFFECT_BUILTINS`, a function
below a module in `EFFECT_MODULES`, and a method in `EFFECT_METHODS`.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from book.tools.export_parse import Cell, ExportError, parse_source

# fmt: off
EFFECT_BUILTINS = {
    "__import__", "breakpoint", "delattr", "eval", "exec", "exit", "globals", "help", "input",
    "locals", "next", "open", "print", "quit", "setattr", "vars"
}
EFFECT_MODULES = (
    "numpy.random", "numpy.seterr", "os.environ", "os.getenv", "os.makedirs", "os.mkdir",
    "os.popen", "os.putenv", "os.remove", "os.system", "random", "shutil", "socket",
    "subprocess", "sys.exit", "sys.setrecursionlimit", "tempfile", "time", "torch.manual_seed",
    "torch.rand", "torch.randn", "torch.set_default_dtype", "urllib"
)
EFFECT_METHODS = {
    "add", "append", "clear", "discard", "extend", "insert", "mkdir", "open", "pop", "popitem",
    "read_bytes", "read_text", "remove", "reverse", "setdefault", "sort", "touch", "unlink",
    "update", "write", "write_bytes", "write_text", "writelines"
}
# fmt: on

ImportKind = Literal["future", "plain", "typing", "version"]


@dataclass(frozen=True)
class Import:
    """An import at the top of a cell: its text, its line in the cell, and where it goes.

    "typing" is the inside of `if TYPE_CHECKING:`, without its indentation; "version" is a whole
    `if sys.version_info ...:`.
    """

    kind: ImportKind
    text: str
    line: int
    node: ast.stmt


@dataclass(frozen=True)
class Parts:
    """A cell taken apart: `source` is docstring and imports, blank lines, and `body`."""

    cell: Cell
    docstring: str  # as written, quotes included; "" for none
    imports: tuple[Import, ...]
    body: str  # byte for byte what the module has
    body_line: int  # the body's first line in the cell, from 1
    statements: tuple[ast.stmt, ...]  # those of the body


def split(cell: Cell) -> Parts:
    """Take a cell apart; raises ExportError for a syntax error, a magic or a misplaced comment."""
    statements = parse_source(cell).body
    head = [node for node in statements[:1] if _is_text(node)]
    for node in statements[len(head) :]:
        if not _is_import_like(node):
            break
        head.append(node)
    docstring = _text(cell, head.pop(0)) if head and _is_text(head[0]) else ""
    imports = tuple(found for node in head for found in _imports(cell, node))
    body_statements = statements[len(head) + bool(docstring) :]
    end = max(
        (node.end_lineno or 0 for node in statements[: len(head) + bool(docstring)]), default=0
    )
    _refuse_stray_comments(cell, end, docstring, imports)
    while end < len(cell.lines) and not cell.lines[end]:
        end += 1
    body = "\n".join(cell.lines[end:])
    return Parts(cell, docstring, imports, body, end + 1, tuple(body_statements))


def _is_text(node: ast.stmt) -> bool:
    """Whether node is a string standing alone."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def is_type_checking(node: ast.stmt) -> bool:
    """Whether node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def _is_import_like(node: ast.stmt) -> bool:
    """Whether node is an import, or an `if` about types or versions that holds only imports."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if not isinstance(node, ast.If):
        return False
    if is_type_checking(node):
        inside = node.body
        return not node.orelse and all(isinstance(n, ast.Import | ast.ImportFrom) for n in inside)
    return "sys.version_info" in ast.unparse(node.test) and all(
        _is_import_like(inner) and not is_type_checking(inner)
        for inner in [*node.body, *node.orelse]
    )


def _text(cell: Cell, node: ast.stmt) -> str:
    """Return the whole lines of a statement, with a comment at their end."""
    return "\n".join(cell.lines[node.lineno - 1 : node.end_lineno])


def _imports(cell: Cell, node: ast.stmt) -> Iterator[Import]:
    """Yield the imports that a statement at the top of a cell makes."""
    if isinstance(node, ast.If) and is_type_checking(node):
        for inner in node.body:
            text = "\n".join(line.removeprefix("    ") for line in _text(cell, inner).split("\n"))
            yield Import("typing", text, inner.lineno, inner)
    elif isinstance(node, ast.If):
        yield Import("version", _text(cell, node), node.lineno, node)
    else:
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        yield Import("future" if future else "plain", _text(cell, node), node.lineno, node)


def _refuse_stray_comments(cell: Cell, end: int, docstring: str, imports: Iterable[Import]) -> None:
    """Refuse a comment on a line of its own above an import: sorting would part the two."""
    known = {*docstring.split("\n"), "if TYPE_CHECKING:", "if typing.TYPE_CHECKING:", ""}
    covered = {line for i in imports for line in range(i.node.lineno, (i.node.end_lineno or 0) + 1)}
    for number, line in enumerate(cell.lines[:end], start=1):
        if number not in covered and line not in known:
            raise ExportError(
                [
                    f"{cell.where(number)}: `{line.strip()}` would be parted from the imports when"
                    " they are sorted; put it at the end of an import's line, or below the imports"
                ]
            )


def bindings(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, with what it stands for ("np", "numpy")."""
    if isinstance(node, ast.If):
        for inner in [*node.body, *node.orelse]:
            for name, _ in bindings(inner):
                yield name, ast.unparse(node)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            root = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (root, root)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            module = "." * node.level + (node.module or "")
            yield alias.asname or alias.name, f"{module}.{alias.name}"


def defined_names(node: ast.stmt) -> list[str]:
    """Return the names that a constant, function or class defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def check_module(module: str, parts: Sequence[Parts]) -> Iterator[str]:
    """Yield what a module's cells, in book order, hold that cannot be exported."""
    aliases = {name: to for p in parts for i in p.imports for name, to in bindings(i.node)}
    for index, part in enumerate(parts):
        where = part.cell.where
        if not part.cell.source.strip():
            yield f"{where()}: is empty; write a definition, or remove the cell"
        elif part.body and not part.statements:
            yield (
                f"{where(part.body_line)}: a comment with no definition below it in its cell; move"
                " it to the definition it is about"
            )
        if part.docstring and index:
            yield (
                f"{where()}: a string at the top of a cell is the docstring of its module, and only"
                f" the first cell of {module} ({parts[0].cell.where()}) can have it"
            )
        for found in part.imports:
            yield from _check_import(part.cell, found)
        yield from _check_block(part.cell, part.statements, aliases)
    yield from _check_repeats(module, [(p.cell, node) for p in parts for node in p.statements])
    yield from _check_import_names(module, parts)


def _check_import(cell: Cell, found: Import) -> Iterator[str]:
    """Yield a problem for a star import or a relative one."""
    for node in ast.walk(found.node):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            yield f"{cell.where(node.lineno)}: star import; name what the module needs"
        if isinstance(node, ast.ImportFrom) and node.level:
            yield (
                f"{cell.where(node.lineno)}: relative import, which fails in a notebook; write"
                " `from gptbook.NAME import ...`"
            )


def _check_block(
    cell: Cell, statements: Sequence[ast.stmt], aliases: dict[str, str], *, in_class: bool = False
) -> Iterator[str]:
    """Yield what the top level of a module, or of a class in it, holds that it may not."""
    previous: ast.stmt | None = None
    for node in statements:
        problem = _statement_problem(node, previous, in_class=in_class)
        if problem:
            yield f"{cell.where(node.lineno)}: {problem}"
        for expression in _evaluated_on_import(node):
            for call, effect in _effects(expression, aliases):
                yield (
                    f"{cell.where(call.lineno)}: {effect} acts when the module is imported; an"
                    " exported cell holds only imports, constants, functions and classes"
                )
        if isinstance(node, ast.ClassDef):
            yield from _check_block(cell, node.body, aliases, in_class=True)
            yield from _check_repeats(f"class {node.name}", [(cell, inner) for inner in node.body])
        previous = node


def _statement_problem(node: ast.stmt, previous: ast.stmt | None, *, in_class: bool) -> str | None:
    """Return why a statement may not stand at the top level of a module or class."""
    line = ast.unparse(node).split("\n")[0]
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return None
        case ast.Assign(targets=targets):
            return next((p for t in targets if (p := _target_problem(t))), None)
        case ast.AnnAssign(target=ast.Name(id=name), value=None) if not in_class:
            return f"`{line}` declares {name} without a value; give it one"
        case ast.AnnAssign(target=target):
            return _target_problem(target)
        case ast.Expr() if _is_text(node):
            if in_class or isinstance(previous, ast.Assign | ast.AnnAssign):
                return None  # it documents the class or the constant above
            return "a string that documents nothing; write a comment"
        case ast.Pass() | ast.Expr(value=ast.Constant(value=builtins.Ellipsis)) if in_class:
            return None
        case ast.Import() | ast.ImportFrom():
            return f"`{line}` stands below a definition; move it to the top of the cell"
    return (
        f"`{line}` is a statement that acts when the module is imported; an exported cell holds"
        " only imports, constants, functions and classes"
    )


def _target_problem(target: ast.expr) -> str | None:
    """Return why an assignment's target is not a constant's name."""
    for node in ast.walk(target):
        if isinstance(node, ast.Attribute | ast.Subscript):
            return (
                f"`{ast.unparse(node)} = ...` patches what is already defined; define it whole,"
                " in the cell that defines it"
            )
    return None


def _evaluated_on_import(node: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions of a top-level statement that are evaluated on import."""
    match node:
        case ast.Assign(value=value):
            yield value
        case ast.AnnAssign(value=ast.expr() as value):
            yield value
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from node.decorator_list
            yield from node.args.defaults
            yield from (default for default in node.args.kw_defaults if default)
        case ast.ClassDef():
            yield from node.decorator_list
            yield from node.bases
            yield from (word.value for word in node.keywords)


def _effects(expression: ast.AST, aliases: dict[str, str]) -> Iterator[tuple[ast.expr, str]]:
    """Yield the parts of an expression that act, not only construct, each with its text."""
    if isinstance(expression, ast.Lambda):
        return  # its body does not run on import
    if isinstance(expression, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
        yield expression, f"`{ast.unparse(expression)}`"
    if isinstance(expression, ast.Call) and _acts(expression.func, aliases):
        yield expression, f"the call `{ast.unparse(expression)}`"
    for child in ast.iter_child_nodes(expression):
        yield from _effects(child, aliases)


def _acts(function: ast.expr, aliases: dict[str, str]) -> bool:
    """Whether calling the function is known to do more than return a value."""
    names = ast.unparse(function).split(".")
    root = aliases.get(names[0], "")
    if root:
        path = ".".join([root, *names[1:]])
        return any(path == effect or path.startswith(f"{effect}.") for effect in EFFECT_MODULES)
    if isinstance(function, ast.Attribute):
        return function.attr in EFFECT_METHODS
    return names[0] in EFFECT_BUILTINS


def _check_repeats(owner: str, statements: Iterable[tuple[Cell, ast.stmt]]) -> Iterator[str]:
    """Yield a problem for each name that owner, a module or a class, defines a second time."""
    last: dict[str, tuple[Cell, ast.stmt]] = {}
    for cell, node in statements:
        for name in defined_names(node):
            if name in last and not _continues(last[name][1], node):
                old_cell, old = last[name]
                reopens = isinstance(old, ast.ClassDef) and isinstance(node, ast.ClassDef)
                what = f"reopens class {name}, which" if reopens else f"defines {name}, which"
                yield (
                    f"{cell.where(node.lineno)}: {what} {owner} already defines at"
                    f" {old_cell.where(old.lineno)}; define a name once, and whole"
                )
            last[name] = (cell, node)


def _continues(old: ast.stmt, node: ast.stmt) -> bool:
    """Whether node carries the definition old on: an overload, a property's setter, `def _`."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    if not isinstance(old, functions) or not isinstance(node, functions):
        return False
    overloaded = any(ast.unparse(d).split(".")[-1] == "overload" for d in old.decorator_list)
    accessors = {f"{node.name}.{kind}" for kind in ("getter", "setter", "deleter")}
    accessor = any(ast.unparse(d) in accessors for d in node.decorator_list)
    registered = node.name == "_" and bool(node.decorator_list)  # functools.singledispatch
    return overloaded or accessor or registered


def _check_import_names(module: str, parts: Sequence[Parts]) -> Iterator[str]:
    """Yield a problem for a name that a module imports as two things, or imports and defines."""
    imported: dict[str, tuple[str, str]] = {}
    for part in parts:
        for found in part.imports:
            where = part.cell.where(found.line)
            for name, target in bindings(found.node):
                old_target, old_where = imported.setdefault(name, (target, where))
                if old_target != target:
                    yield (
                        f"{where}: imports {name} as {target}, but {module} imports it as"
                        f" {old_target} at {old_where}; choose another name with `as`"
                    )
    for part in parts:
        for node in part.statements:
            for name in defined_names(node):
                if name in imported:
                    what = "reopens class" if isinstance(node, ast.ClassDef) else "defines"
                    yield (
                        f"{part.cell.where(node.lineno)}: {what} {name}, which {module} imports at"
                        f" {imported[name][1]}; define a name once, and whole"
                    )


def check_shared_names(parts: Iterable[Parts]) -> Iterator[str]:
    """Yield a problem for a name that two modules define in one chapter.

    The notebook has one namespace: there, the first module's cells would use the second's.
    """
    owners: dict[tuple[str, str], tuple[str, str]] = {}
    for part in parts:
        for node in part.statements:
            where = part.cell.where(node.lineno)
            for name in defined_names(node):
                key = (part.cell.chapter, name)
                module, old_where = owners.setdefault(key, (part.cell.module, where))
                if module != part.cell.module and name != "__all__":
                    yield (
                        f"{where}: defines {name} for {part.cell.module}, but {module} has one from"
                        f" {old_where} in the same chapter, whose notebook can hold only one;"
                        " rename it, or import it"
                    )
