"""Check what chapters and modules import: only what is already there, only from lower rows."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

from book.tools.export_parse import Cell, Chapter, parse_plain_source, read_chapters
from book.tools.export_rules import bindings, defined_names, is_type_checking

# The table of DESIGN.md, section 3. A module imports only from rows above its own, and from what
# stands to its left in its own row.
# fmt: off
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "arguments", "config", "train_config", "device", "pretokenize"),
    ("bpe_training", "bpe_encoding", "tokenizer_formats", "tokenizer", "flops",
     "tinyworld_speech", "tinyworld_people", "tinyworld_words", "tinyworld_narrator",
     "tinyworld_scenes", "tinyworld_plots", "tinyworld_adventures", "tinyworld_stories",
     "tinyworld_relations", "tinyworld_facts", "tinyworld_tasks", "tinyworld_tales",
     "tinyworld_requests", "tinyworld_chat", "tinyworld_judge", "tinyworld_preferences",
     "tinyworld", "flash_attention", "kernels"),
    ("download", "corpora", "token_shards", "shard_writing", "data", "ngram_counts", "ngram",
     "linear", "layers", "positions", "kv_cache", "attention", "model"),
    ("losses", "sampling", "lora", "quantize", "optim", "schedules", "distributed",
     "interop_config", "interop"),
    ("tracking", "checkpoint", "readers", "text_stream", "constraints", "generation",
     "beam_search", "decoder", "compiled_decoder", "speculative", "scaling_laws"),
    ("evals", "interpret", "training_data", "validation", "run_guard", "trainer"),
    ("sft", "reward_model", "rollout", "advantages", "ppo", "dpo", "grpo"),
    ("app", "grading"),
)
# fmt: on
# Ordinary code that any chapter may import.
_ALWAYS = (
    "gptbook.app.notebook",
    "gptbook.grading",
    "gptbook.kernels.tl",
    "gptbook.kernels.triton",
)

Exports = dict[str, set[str]]  # the names that each module ("gptbook.tokenizer") exports


def check_imports_earlier(root: Path) -> list[str]:
    """Return a problem for each use of gptbook in a chapter that nothing has exported by then.

    Looks at every code cell, also inside its functions: an imported module and name have to be
    exported by an earlier chapter, or up to this cell of the same one. `gptbook.tokenizer.NAME` and
    `alias.NAME` count as imports of NAME, unless the chapter also assigns to the alias.

    Raises:
        ExportError: a chapter cannot be read.
    """
    exports: Exports = {"gptbook": _root_names(root)}
    problems: list[str] = []
    for chapter in read_chapters(root):
        aliases = {"gptbook": "gptbook"}
        assigned = _assigned_names(chapter)
        for cell in chapter.cells:
            tree = parse_plain_source(cell)
            if cell.module:
                _add_exports(exports, cell, tree)
            aliases |= {k: v for k, v in _module_aliases(tree, exports) if k not in assigned}
            uses = [*_imported_paths(tree), *_attribute_paths(tree, aliases, exports)]
            problems += [
                f"{cell.where(line)}: uses {path}, which is not exported by then; export it in an"
                " earlier chapter or cell, or define what you need in a plain cell"
                for line, path in uses
                if not _is_exported(path, exports)
            ]
    return problems


def check_layers(root: Path) -> list[str]:
    """Return a problem for each import in an exported cell of a module that LAYERS has later.

    Imports inside functions count; those under `if TYPE_CHECKING:` do not.

    Raises:
        ExportError: a chapter cannot be read.
    """
    ranks = {name: rank for rank, name in enumerate(itertools.chain(*LAYERS))}
    root_names = _root_names(root)
    problems: list[str] = []
    for cell in (cell for chapter in read_chapters(root) for cell in chapter.cells if cell.module):
        own = _dotted_module(cell.module).split(".")[1]
        if own not in ranks:
            problems.append(f"{cell.where()}: {_unknown(own)}")
            continue
        for line, path in _imported_paths(parse_plain_source(cell), runtime_only=True):
            name = (*path.split("."), "")[1]
            if not name or name in root_names or path in _ALWAYS:
                continue
            if name not in ranks:
                problems.append(f"{cell.where(line)}: {_unknown(name)}")
            elif ranks[name] >= ranks[own]:
                problems.append(
                    f"{cell.where(line)}: gptbook.{own} imports gptbook.{name}, which does not come"
                    " before it in the table of modules: turn the import round, make it an"
                    " argument, or change LAYERS in book/tools/export_checks.py"
                )
    return problems


def _unknown(name: str) -> str:
    """Return what to do about a module that the table lacks."""
    return (
        f"gptbook.{name} is not in the table of modules; add it to its row of LAYERS in"
        " book/tools/export_checks.py"
    )


def _dotted_module(path: str) -> str:
    """Return "gptbook.tokenizer" for "gptbook/tokenizer.py"."""
    return path.removesuffix(".py").replace("/", ".")


def _root_names(root: Path) -> set[str]:
    """Return the names that gptbook/__init__.py, which is ordinary code, defines."""
    path = root / "gptbook" / "__init__.py"
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in _defined(node)}


def _defined(node: ast.AST) -> list[str]:
    """Return the names that node defines, if it is a statement that does."""
    return defined_names(node) if isinstance(node, ast.stmt) else []


def _add_exports(exports: Exports, cell: Cell, tree: ast.Module) -> None:
    """Add what an exported cell defines, and what it passes on by __all__ or `import x as x`."""
    names = exports.setdefault(_dotted_module(cell.module), set())
    for node in tree.body:
        names.update(defined_names(node))
        if isinstance(node, ast.Assign | ast.AnnAssign) and defined_names(node) == ["__all__"]:
            texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            names.update(text for text in texts if isinstance(text, str))
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.name for alias in node.names if alias.asname == alias.name)


def _imported_paths(tree: ast.Module, *, runtime_only: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line, "gptbook.module.name") for each import of gptbook."""
    for node in _walk(tree, runtime_only=runtime_only):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "gptbook":
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gptbook":
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def _walk(node: ast.AST, *, runtime_only: bool) -> Iterator[ast.AST]:
    """Yield node and all below it, leaving out `if TYPE_CHECKING:` where runtime_only."""
    if runtime_only and isinstance(node, ast.stmt) and is_type_checking(node):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, runtime_only=runtime_only)


def _assigned_names(chapter: Chapter) -> set[str]:
    """Return the names that a chapter assigns to, or uses as parameters, anywhere."""
    nodes = [n for cell in chapter.cells for n in ast.walk(parse_plain_source(cell))]
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {n.arg for n in nodes if isinstance(n, ast.arg)}


def _module_aliases(tree: ast.Module, exports: Exports) -> Iterator[tuple[str, str]]:
    """Yield each name that stands for a module of gptbook, with that module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((name, path) for name, path in bindings(node) if path in exports)


def _attribute_paths(
    tree: ast.Module, aliases: dict[str, str], exports: Exports
) -> Iterator[tuple[int, str]]:
    """Yield (line, "gptbook.module.name") for each name taken from an imported module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            path = f"{aliases.get(root, '')}.{rest}"
            if path.rpartition(".")[0] in exports:
                yield node.lineno, path


def _is_exported(path: str, exports: Exports) -> bool:
    """Whether path is a module, a package above one, or a name that its module exports."""
    if any(path == free or path.startswith(f"{free}.") for free in _ALWAYS):
        return True
    module, _, name = path.rpartition(".")
    return (
        any(known == path or known.startswith(f"{path}.") for known in exports)
        or name in exports.get(module, ())
        or (module in exports and name.startswith("__"))
    )
