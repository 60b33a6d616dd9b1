"""Finding ready-made answers in a reader's program: declared for each exercise, never guessed."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Forbidden:
    """What a reader's code may not use because it is the answer.

    Attributes:
        modules: modules whose import is a shortcut (and that of anything inside them).
        calls: dotted names (``"torch.softmax"``, found through any alias) and, with a leading dot,
            methods of that name on anything (``".softmax"``).
    """

    modules: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


def find_shortcuts(source: str, forbidden: Forbidden) -> list[str]:
    """Name the forbidden modules and calls that a program's text uses, each once, in order.

    The text is what a reader reads and writes, so a name put together while the program runs is
    not found here; imports are watched once more while the program runs.
    """
    tree = ast.parse(source)
    aliases = dict(_aliases(tree))
    found = [*_imported(tree, forbidden), *_called(tree, aliases, forbidden)]
    return list(dict.fromkeys(found))


def files_of(modules: Iterable[str]) -> tuple[str, ...]:
    """Source files of those of the modules that belong to the book, without importing them."""
    specs = (find_spec(name) for name in modules if is_inside(name, "gptbook"))
    return tuple(spec.origin for spec in specs if spec is not None and spec.origin)


def is_inside(module: str, forbidden: str) -> bool:
    """Whether a module is the forbidden one or inside it."""
    return module == forbidden or module.startswith(f"{forbidden}.")


def _imported(tree: ast.Module, forbidden: Forbidden) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{item.name}" for item in node.names)]
        else:
            continue
        for module in forbidden.modules:
            if any(is_inside(name, module) for name in names):
                yield module


def _called(tree: ast.Module, aliases: dict[str, str], forbidden: Forbidden) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            method = f".{node.attr}"
            if method in forbidden.calls:
                yield method
        if isinstance(node, ast.Attribute | ast.Name):
            name = _dotted(node, aliases)
            if name in forbidden.calls:
                yield name


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Local names given by imports, with the dotted name each stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                yield (item.asname, item.name) if item.asname else (item.name, item.name)
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                yield item.asname or item.name, f"{node.module}.{item.name}"


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """``F.softmax`` as ``torch.nn.functional.softmax``; empty for anything but a dotted name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, aliases)
        return f"{base}.{node.attr}" if base else ""
    return ""
