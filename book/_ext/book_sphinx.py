"""What the book asks of Sphinx beyond its options; without this extension the pages still build.

Header buttons: run a page in Colab, see its source, report a mistake. The theme derives these
addresses from where a page lies in the tree that the site is built from; this book is built from a
staging folder, so they would all be dead. And docstrings of constants, which may have a colon.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NOTEBOOK_FOLDERS = ("chapters", "exercises", "solutions")


def source_path(page: str) -> str | None:
    """Return where the page's source lies in the repository; None where the page is generated."""
    folder, slash, name = page.rpartition("/")
    if not slash:
        return f"book/{name}.md"
    if folder in ("chapters", "solutions"):
        return f"{page}.md"
    return f"solutions/{name}.md" if folder == "exercises" else None


def link(label: str, url: str, text: str, icon: str) -> dict[str, str]:
    """Return a button as the theme's templates take it; `label` becomes its CSS class."""
    return {
        "type": "link",
        "label": label,
        "url": url,
        "text": text,
        "tooltip": text,
        "icon": icon,
    }


def set_buttons(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Replace the header buttons of the theme (a handler of `html-page-context`)."""
    repository = app.config.html_theme_options["repository_url"]
    more = [link("repository", repository, "Repository", "fab fa-github")]
    source = source_path(page)
    if doctree is not None and source is not None:
        edit = f"{repository}/edit/main/{source}"
        more.append(link("edit", edit, "Suggest an edit", "fas fa-pencil-alt"))
    issue = f"{repository}/issues/new?title={page}"
    more.append(link("issue", issue, "Report a mistake", "fas fa-lightbulb"))
    group = {
        "type": "group",
        "label": "source-buttons",
        "tooltip": "Source of this page",
        "icon": "fab fa-github",
        "buttons": more,
    }
    buttons: list[dict[str, Any]] = [group]
    if page.split("/")[0] in NOTEBOOK_FOLDERS:
        colab = f"{app.config.html_context['colab']}/{page}.ipynb"
        icon = "_static/images/logo_colab.png"
        buttons.insert(0, link("colab", colab, "Open in Colab", icon))
    context["header_buttons"] = buttons


def keep_colons(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Stop napoleon from taking the words before a colon for a type (`autodoc-process-docstring`).

    It reads "The rank of a pair: ..." in the docstring of a constant, an attribute or a property
    as a type with a description, unless that is not the first line. An escaped space shows nothing.
    """
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\ ")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers: one after the theme's, at 501, one before napoleon's, at 500."""
    app.connect("html-page-context", set_buttons, priority=600)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
