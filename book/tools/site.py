"""Build the site: stage its sources in _build/source/, run Jupyter Book, add the wheel.

The staging folder holds the book's own pages at its top, the executed notebooks under chapters/ and
solutions/, the exercises, and one generated page for each module of the package. It is made anew
each time, so nothing stale can be left in it. Works without a network.

    python -m book.tools.site [--serve] [--port 8000]
"""

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml

from book.tools.api_pages import write_api_pages
from book.tools.colab import colab_folder_url, markdown_cell
from book.tools.notebooks import notebook_text
from book.tools.project import (
    ROOT,
    chapter_paths,
    documentation_url,
    relative,
    repository_url,
    solution_paths,
)
from book.tools.prose import COMMENT

#: What the wheel is made of, as pyproject.toml has it.
PACKAGE_FOLDERS = ("gptbook", "book/results")


class SiteError(RuntimeError):
    """The site cannot be built; the message says why and what to do."""


def build(root: Path) -> Path:
    """Build the site of the tree at root and return the folder that holds it, root/_build/html.

    Raises:
        SiteError: a chapter was never executed, a number is missing, or a build step failed.
    """
    for stale in ("source", "html", ".doctrees", "wheel"):
        shutil.rmtree(root / "_build" / stale, ignore_errors=True)
    source, html = root / "_build" / "source", root / "_build" / "html"
    print("Staging the sources in _build/source/")
    stage(root, source)
    print("Building the pages in _build/html/", flush=True)
    run_jupyter_book(root, source)
    print("Building the wheel in _build/html/wheels/", flush=True)
    build_wheel(root, html / "wheels")
    return html


# --- staging ------------------------------------------------------------------------------------


def stage(root: Path, source: Path) -> None:
    """Fill the folder `source` with everything that Jupyter Book reads."""
    book = root / "book"
    source.mkdir(parents=True)
    for path in [root / "_config.yml", *book.glob("*.md"), *book.glob("*.bib")]:
        text = fill_in(path.read_text(encoding="utf-8"), addresses(root))
        (source / path.name).write_text(text, encoding="utf-8")
    for folder in ("_static", "_ext"):
        shutil.copytree(
            book / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in [*chapter_paths(root), *solution_paths(root)]:
        stage_notebook(root, path, source)
    for path in sorted((root / "exercises").glob("*.md")):
        stage_exercises(root, path, source)
    write_api_pages(root, source)
    stage_toc(root, source)


def stage_notebook(root: Path, path: Path, source: Path) -> None:
    """Write the executed notebook of the chapter or solution at path, dressed for the site."""
    page = relative(path, root).removesuffix(".md")
    executed = root / "book" / "notebooks" / f"{page}.ipynb"
    if not executed.is_file():
        raise SiteError(f"{relative(executed, root)} does not exist; run `make execute`")
    notebook = nbformat.read(executed, as_version=4)  # type: ignore[no-untyped-call]
    dress(notebook, page, f"{colab_folder_url(root)}/{page}.ipynb")
    target = source / f"{page}.ipynb"
    target.parent.mkdir(exist_ok=True)
    target.write_text(notebook_text(notebook), encoding="utf-8")


def stage_exercises(root: Path, path: Path, source: Path) -> None:
    """Write the page of exercises at path, which is not executed, with its link to Colab."""
    page = relative(path, root).removesuffix(".md")
    # A comment in the header would pass for a title.
    header, end, text = path.read_text(encoding="utf-8").partition("\n---\n")
    badge = colab_badge(f"{colab_folder_url(root)}/{page}.ipynb")
    target = source / f"{page}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(header + end + add_below_title(text, badge), encoding="utf-8")


def dress(notebook: Any, page: str, colab: str) -> None:
    """Add to an executed notebook what only the site shows.

    A link to Colab below the title, the name of the module above a cell that is exported, and a
    click before a cell that is a solution. Comments behind numbers in prose are dropped: where a
    page is used as plain text, as in its description, they would be shown.
    """
    cells: list[Any] = []
    titled = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = COMMENT.sub("", cell.source)
            if not titled and "# " in cell.source:
                cell.source = add_below_title(cell.source, colab_badge(colab))
                titled = True
        tags = cell.metadata.get("tags", [])
        if "export" in tags:
            cells.append(markdown_cell(file_label(cell.metadata["module"])))
        if "solution" in tags and page.startswith("solutions/"):
            cell.metadata["tags"] = [*tags, "hide-cell"]
            cell.metadata["mystnb"] = {"code_prompt_show": "Show the solution"}
        cells.append(cell)
    notebook.cells = [nbformat.from_dict(cell) for cell in cells]  # type: ignore[no-untyped-call]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"


def add_below_title(markdown: str, addition: str) -> str:
    """Insert a block behind the first line that is a title of the first level."""
    lines = markdown.split("\n")
    title = next(number for number, line in enumerate(lines) if line.startswith("# "))
    return "\n".join([*lines[: title + 1], "", addition, *lines[title + 1 :]])


def colab_badge(url: str) -> str:
    """Return the link to Colab that stands below a chapter's title."""
    return f":::{{div}} page-links\n[Open in Colab]({url})\n:::\n"


def file_label(module: str) -> str:
    """Return the line above an exported cell: the module's file, linked to its API page."""
    page = module.removeprefix("gptbook/").removesuffix(".py").replace("/", ".")
    return f":::{{div}} cell-file\n{{doc}}`{module} </api/{page}>`\n:::"


def addresses(root: Path) -> dict[str, str]:
    """Return what pages and _config.yml may name in double braces; pyproject.toml has it."""
    return {
        "repository": repository_url(root),
        "site": documentation_url(root),
        "colab": colab_folder_url(root),
    }


def fill_in(text: str, values: dict[str, str]) -> str:
    """Replace each {{name}} in text by its value."""
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


# --- table of contents --------------------------------------------------------------------------


def stage_toc(root: Path, source: Path) -> None:
    """Write _toc.yml: book/_toc.yml with its globs resolved and its empty parts left out."""
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc["parts"]:
        part["chapters"] = resolve(part["chapters"], source)
        if part.get("numbered"):
            check_numbers([entry["file"] for entry in part["chapters"]])
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def resolve(entries: list[dict[str, Any]], source: Path) -> list[dict[str, Any]]:
    """Replace each {"glob": ...} by the pages that match it, in the order of their names.

    A page that carries the same number as the one before it becomes a section of that one.
    """
    resolved: list[dict[str, Any]] = []
    for entry in entries:
        if "glob" not in entry:
            if "sections" in entry:
                entry["sections"] = resolve(entry["sections"], source)
            resolved.append(entry)
            continue
        for path in sorted(source.glob(entry["glob"])):
            page = path.relative_to(source).with_suffix("").as_posix()
            if page.endswith("/index"):
                continue  # named in the table itself
            if resolved and number_of(page) and number_of(page) == number_of(resolved[-1]["file"]):
                resolved[-1].setdefault("sections", []).append({"file": page})
            else:
                resolved.append({"file": page})
    return resolved


def number_of(page: str) -> int | None:
    """Return the number that a page's name begins with: 1 for "chapters/01_tokenizer"."""
    digits = page.rpartition("/")[2].partition("_")[0]
    return int(digits) if digits.isdigit() else None


def check_numbers(pages: Sequence[str]) -> None:
    """Raise unless the pages are numbered 1, 2, 3, ...: Sphinx numbers them by their place."""
    numbers = [number_of(page) for page in pages]
    if numbers != list(range(1, len(pages) + 1)):
        raise SiteError(
            f"the chapters must be numbered 1 to {len(pages)} without a gap, got {numbers}: "
            "rename the files or correct book/_toc.yml"
        )


# --- building and serving -----------------------------------------------------------------------


def run_jupyter_book(root: Path, source: Path) -> None:
    """Run Jupyter Book on the staged tree; a warning is an error."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    command += [str(source), "--path-output", str(root), "-W", "--keep-going", "-n", "-q"]
    # The working directory comes first on the path: autodoc imports the package of this tree.
    if subprocess.run(command, cwd=root, check=False).returncode != 0:
        raise SiteError("Jupyter Book found the faults above; correct them and build again")


def build_wheel(root: Path, target: Path) -> None:
    """Build the package's wheel into target, from a copy: setuptools litters the tree it builds."""
    copy = root / "_build" / "wheel"
    copy.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(root / name, copy)
    for folder in PACKAGE_FOLDERS:
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / folder, copy / folder, ignore=unwanted)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    result = subprocess.run([*command, str(copy)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SiteError(f"the wheel could not be built:\n{result.stdout}{result.stderr}")
    shutil.rmtree(copy)


def serve(html: Path, port: int) -> None:
    """Serve the folder on 127.0.0.1 until interrupted."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"Serving the book on http://127.0.0.1:{server.server_port}/ (stop with Ctrl+C)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main(argv: Sequence[str] | None = None) -> int:
    """Build the site, or with --serve show the one that was built."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.site", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="serve the site on 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="port to serve on (default 8000)")
    options = parser.parse_args(argv)
    html = ROOT / "_build" / "html"
    if options.serve:
        if not html.is_dir():
            print("There is no site in _build/html/ yet; run `make book` first.", file=sys.stderr)
            return 1
        serve(html, options.port)
        return 0
    try:
        html = build(ROOT)
    except SiteError as error:
        print(f"The site was not built: {error}", file=sys.stderr)
        return 1
    print(f"The book is at {html / 'index.html'} (`make serve` shows it in a browser)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
