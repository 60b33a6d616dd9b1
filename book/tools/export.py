"""Export the package from the chapters: `python -m book.tools.export`.

The cells tagged `export` are the modules of gptbook. Without an option, this writes the modules
that changed and removes those that no cell exports any more; it never touches another file, nor a
module that was edited by hand (`--back` carries such an edit into the chapter, `--force` drops it).
"""

import argparse
import difflib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from book.tools.export_back import carry_back
from book.tools.export_build import HEADER_MARK, build_modules, format_sources
from book.tools.export_checks import check_imports_earlier, check_layers
from book.tools.export_parse import ExportError, parse_source, read_chapters, replace_sources
from book.tools.export_record import known_texts, remember
from book.tools.project import ROOT, relative, write_if_changed

_SHOWN_DIFF_LINES = 24


def export(root: Path, *, force: bool = False) -> list[str]:
    """Write root's modules from its chapters; return what was written or removed, a line each.

    Raises:
        ExportError: a cell cannot be exported, or, without force, a module was edited by hand.
            Nothing is written then.
    """
    texts = build_modules(root, read_chapters(root))
    stale = [module for module in _exported_files(root) if module not in texts]
    problems = [] if force else [p for module in stale for p in _hand_edits(root, module)]
    for module, text in texts.items():
        if _read(root / module) not in (None, text):
            problems += _overwritten(root, module, force=force)
    if problems:
        raise ExportError(problems)
    done = [f"wrote {m}" for m, text in texts.items() if write_if_changed(root / m, text)]
    for module in stale:
        (root / module).unlink()
        done.append(f"removed {module}, which no cell exports any more")
    remember(root, texts)
    return done


def check(root: Path) -> list[str]:
    """Return why root's modules are not what its chapters export, or import what they may not.

    Raises:
        ExportError: a cell cannot be exported.
    """
    texts = build_modules(root, read_chapters(root))
    problems = [p for module, text in texts.items() for p in _difference(root, module, text)]
    problems += [
        f"{module}: no cell exports it any more; run `make export` to remove it"
        for module in _exported_files(root)
        if module not in texts
    ]
    return problems + check_imports_earlier(root) + check_layers(root)


def format_cells(root: Path) -> list[str]:
    """Format the exported cells in their chapters; return the cells that changed."""
    done = []
    for chapter in read_chapters(root):
        cells = [cell for cell in chapter.cells if cell.module and parse_source(cell).body]
        sources = format_sources(root, [cell.source for cell in cells])
        changed = {c.number: s for c, s in zip(cells, sources, strict=True) if s != c.source}
        write_if_changed(root / chapter.name, replace_sources(chapter, changed))
        done += [f"{cell.where()}: formatted" for cell in cells if cell.number in changed]
    return done


def export_as_of(root: Path, chapter_name: str, dest: Path) -> None:
    """Write to dest/gptbook the package as root's chapters export it up to and including one.

    The package's ordinary code (its __init__.py, app/, grading/) is copied. chapter_name may be
    "01_tokenizer" or "chapters/01_tokenizer.md".

    Raises:
        ValueError: there is no such chapter.
        FileExistsError: dest/gptbook exists.
        ExportError: a cell cannot be exported.
    """
    chapters = read_chapters(root)
    stems = [Path(chapter.name).stem for chapter in chapters]
    if Path(chapter_name).stem not in stems:
        raise ValueError(f"no chapter {chapter_name!r}; there are: {', '.join(stems) or 'none'}")
    count = stems.index(Path(chapter_name).stem) + 1
    texts = build_modules(root, chapters[:count])
    exported = {root / module for module in _exported_files(root)}

    def skipped(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n == "__pycache__" or Path(folder, n) in exported]

    shutil.copytree(root / "gptbook", dest / "gptbook", ignore=skipped)
    for module, text in texts.items():
        write_if_changed(dest / module, text)


def _exported_files(root: Path) -> list[str]:
    """Return the files below root's package that this tool wrote, as their header says."""
    return [
        relative(path, root)
        for path in sorted((root / "gptbook").rglob("*.py"))
        if path.read_bytes().startswith(HEADER_MARK.encode())
    ]


def _read(path: Path) -> str | None:
    """Return a file's text, or None where there is no file."""
    return path.read_bytes().decode("utf-8") if path.is_file() else None


def _overwritten(root: Path, module: str, *, force: bool) -> Iterator[str]:
    """Yield why the file of a module must not be overwritten."""
    if module not in _exported_files(root):
        yield f"{module}: was not exported from a chapter; move it away, or name another module"
    elif not force:
        yield from _hand_edits(root, module)


def _hand_edits(root: Path, module: str) -> Iterator[str]:
    """Yield a problem if a module is not as it was last exported or committed."""
    if _read(root / module) not in known_texts(root, module):
        yield (
            f"{module}: was edited by hand since the last export; run"
            " `python -m book.tools.export --back` to carry the edit into its cell, or with"
            " `--force` to drop it"
        )


def _difference(root: Path, module: str, text: str) -> Iterator[str]:
    """Yield how a module's file differs from the text its cells give."""
    found = _read(root / module)
    if found is None:
        yield f"{module}: is missing; run `make export`"
    elif found != text:
        lines = difflib.unified_diff(
            found.splitlines(), text.splitlines(), module, "its cells", lineterm="", n=1
        )
        shown = list(lines)
        rest = len(shown) - _SHOWN_DIFF_LINES
        more = [f"... {rest} more lines"] if rest > 0 else []
        yield "\n".join(
            [
                f"{module}: differs from its cells; run `make export` if the chapter is right, or"
                " `python -m book.tools.export --back` if the module is",
                *(shown[:_SHOWN_DIFF_LINES] or ["(they differ in line ends only)"]),
                *more,
            ]
        )


def _fail(problems: Sequence[str]) -> int:
    """Print the problems; return the exit status."""
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; return 0, or 1 if there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.export", description=__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only say what is not as it should be")
    mode.add_argument("--back", action="store_true", help="carry edits in modules into the cells")
    mode.add_argument("--format", action="store_true", help="format the exported cells in place")
    mode.add_argument("--force", action="store_true", help="export over modules edited by hand")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to work on")
    args = parser.parse_args(argv)
    actions: dict[str, Callable[[Path], list[str]]] = {
        "back": carry_back,
        "format": format_cells,
    }
    try:
        if args.check:
            problems = check(args.root)
            if not problems:
                print("the modules are what the chapters export")
            return _fail(problems)
        chosen = next((run for name, run in actions.items() if getattr(args, name)), None)
        done = chosen(args.root) if chosen else export(args.root, force=args.force)
    except ExportError as error:
        return _fail(error.problems)
    print("\n".join(done or ["nothing to do"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
