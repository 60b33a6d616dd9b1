"""Write the site's API pages: one for each module of the package, and a table of them.

Only the frame is written here; autodoc fills in signatures and docstrings when the site is built.
"""

import ast
from pathlib import Path

from book.tools.notebooks import read_source
from book.tools.project import chapter_paths, relative, repository_url

#: Packages below gptbook/ that no chapter exports.
ORDINARY_CODE = ("app", "grading")

INDEX = """\
# API reference

Every module below is made of cells that the chapters export, so each has two explanations: its
docstrings, collected here, and the chapter that builds it step by step.

{table}
"""

PAGE = """\
# `{name}`

:::{{div}} page-links
{links}
:::

```{{eval-rst}}
.. automodule:: {name}
   :members:
```
"""


def write_api_pages(root: Path, source: Path) -> None:
    """Write api/index.md and api/<module>.md into the folder `source`."""
    target = source / "api"
    target.mkdir()
    chapters = exporting_chapters(root)
    rows = []
    for path in module_paths(root):
        file = relative(path, root)
        name = file.removesuffix(".py").replace("/", ".")
        page = name.removeprefix("gptbook.")
        shown = [f"{{doc}}`/{chapter}`" for chapter in chapters.get(file, [])]
        origin = ["Built in " + " and ".join(shown)] if shown else []
        origin.append(f"[`{file}`]({repository_url(root)}/blob/main/{file})")
        text = PAGE.format(name=name, links=" ".join(origin))
        (target / f"{page}.md").write_text(text, encoding="utf-8")
        rows.append(f"| {{doc}}`{name} <{page}>` | {summary(path)} | {', '.join(shown)} |")
    head = "| module | what it holds | built in |\n|---|---|---|\n"
    table = head + "\n".join(rows) if rows else "No chapter exports a module yet."
    (target / "index.md").write_text(INDEX.format(table=table), encoding="utf-8")


def module_paths(root: Path) -> list[Path]:
    """Return the files of the exported modules, by name."""
    package = root / "gptbook"
    return [
        path
        for path in sorted(package.rglob("*.py"))
        if not path.name.startswith("_") and path.relative_to(package).parts[0] not in ORDINARY_CODE
    ]


def exporting_chapters(root: Path) -> dict[str, list[str]]:
    """Map each module ("gptbook/tokenizer.py") to the pages of the chapters that export it."""
    chapters: dict[str, list[str]] = {}
    for path in chapter_paths(root):
        page = relative(path, root).removesuffix(".md")
        for cell in read_source(root, path).notebook.cells:
            if "export" in cell.metadata.get("tags", []):
                pages = chapters.setdefault(cell.metadata["module"], [])
                if page not in pages:
                    pages.append(page)
    return chapters


def summary(path: Path) -> str:
    """Return the first sentence of a module's docstring, on one line and safe in a table."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    return first.replace("|", "\\|")
