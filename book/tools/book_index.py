"""What the book's cross-references point to: titles, numbers, anchors, terms and citations.

The site numbers chapters, sections, figures, tables, listings and equations with Sphinx; this
module counts in the same way, so that a Colab notebook can say "Figure 1.2" and link to it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pybtex.database import Entry, parse_file  # type: ignore[import-untyped]
from pybtex.exceptions import PybtexError  # type: ignore[import-untyped]

from book.tools.myst import Block, Directive, Math, MystError, Target, Text, in_file, parse_blocks
from book.tools.notebooks import read_source
from book.tools.project import documentation_url, relative

NOTEBOOK_FOLDERS = ("chapters", "exercises", "solutions")
HEADING = re.compile(r"^(?P<level>#{1,6})\s+(?P<title>.+?)\s*#*$")

#: Directives whose body is Markdown in which labels may stand.
CONTAINERS = {
    *("admonition", "attention", "caution", "danger", "error", "hint", "important", "note"),
    *("seealso", "tip", "warning", "container", "div", "dropdown", "epigraph", "margin"),
    *("sidebar", "tab-item", "tab-set"),
}
#: Directives that carry a number: its kind, and the option that holds the label.
NUMBERED = {
    "figure": ("figure", "name"),
    "table": ("table", "name"),
    "list-table": ("table", "name"),
    "code-block": ("listing", "name"),
    "math": ("equation", "label"),
}
WORDS = {"figure": "Figure", "table": "Table", "listing": "Listing", "section": "Section"}


@dataclass(frozen=True)
class Destination:
    """Something that a reference can point to.

    `number` is as the site prints it, "1.2", and empty where it prints none; `title` is a
    section's heading and empty for all else.
    """

    page: str
    anchor: str
    kind: str
    number: str
    title: str = ""


@dataclass(frozen=True)
class Citation:
    """An entry of references.bib: "Gage", "1994" and where to read it."""

    authors: str
    year: str
    url: str


@dataclass
class BookIndex:
    """Everything that can be referred to, by label, page, term and key."""

    root: Path
    site: str
    titles: dict[str, str] = field(default_factory=dict)
    destinations: dict[str, list[Destination]] = field(default_factory=dict)
    terms: set[str] = field(default_factory=set)
    citations: dict[str, Citation] = field(default_factory=dict)

    def find(self, label: str, page: str) -> Destination | None:
        """Return what carries the label; where several do, the one on `page`."""
        found = self.destinations.get(label.lower(), [])
        return next((one for one in found if one.page == page), found[0] if found else None)

    def url(self, page: str, anchor: str = "") -> str:
        """Return the address of a page of the site, or of a place on it."""
        return f"{self.site}{page}.html" + (f"#{anchor}" if anchor else "")

    def api_url(self, name: str) -> str | None:
        """Return the address of a documented name, such as gptbook.tokenizer.train_bpe."""
        parts = name.split(".")
        for length in range(len(parts), 1, -1):
            if (self.root / Path(*parts[:length])).with_suffix(".py").is_file():
                page = "api/" + ".".join(parts[1:length])
                return self.url(page, name if length < len(parts) else f"module-{name}")
        return None


def read_index(root: Path) -> BookIndex:
    """Read every page of the book below root."""
    index = BookIndex(root, documentation_url(root))
    for path in sorted((root / "book").glob("*.md")):
        with in_file(relative(path, root)):
            blocks = list(parse_blocks(path.read_text(encoding="utf-8")))
            scan(index, path.stem, blocks, Numbers(""))
    index.titles["api/index"] = "API reference"
    for folder in NOTEBOOK_FOLDERS:
        numbers = Numbers("")
        for path in sorted((root / folder).glob("*.md")):
            chapter = chapter_number(path) if folder == "chapters" else ""
            numbers = numbers.next_page(chapter)
            name = relative(path, root)
            with in_file(name):
                scan(index, name.removesuffix(".md"), notebook_blocks(root, path), numbers)
    index.citations = read_citations(root / "book" / "references.bib")
    return index


def read_citations(path: Path) -> dict[str, Citation]:
    """Return the entries of a BibTeX file by their keys."""
    try:
        entries = parse_file(path).entries
    except PybtexError as error:
        raise MystError(f"{path.name}: {error}", 1) from error
    return {key: citation(entry) for key, entry in entries.items()}


def chapter_number(path: Path) -> str:
    """Return the number that a chapter's file name begins with: "1" for 01_tokenizer.md."""
    digits = path.name.partition("_")[0]
    return str(int(digits)) if digits.isdigit() else ""


@dataclass
class Numbers:
    """Counts sections, and each kind of numbered thing, within one chapter."""

    chapter: str
    counts: Counter[str] = field(default_factory=Counter)
    headings: list[int] = field(default_factory=list)
    depth: int = 0

    def next_page(self, chapter: str) -> "Numbers":
        """Return the numbers for the next page; one of the same chapter goes on counting."""
        if chapter and chapter == self.chapter:
            return Numbers(chapter, self.counts, self.headings[:1], depth=1)
        return Numbers(chapter)

    def count(self, kind: str) -> str:
        """Return the next number of a kind: "1.3", or "3" outside the numbered chapters."""
        self.counts[kind] += 1
        return ".".join(filter(None, [self.chapter, str(self.counts[kind])]))

    def heading(self, level: int) -> str:
        """Return the number of the next heading; a page's title has level 1."""
        position = level - 2 + self.depth
        if not self.chapter or position < 0:
            return self.chapter
        self.headings = self.headings[: position + 1]
        self.headings += [0] * (position + 1 - len(self.headings))
        self.headings[position] += 1
        return ".".join([self.chapter, *map(str, self.headings)])


def located_cells(root: Path, path: Path) -> Iterator[tuple[Any, int]]:
    """Yield the cells of a chapter, each with the line of the file on which its source begins."""
    text = path.read_text(encoding="utf-8")
    position = 0
    for cell in read_source(root, path).notebook.cells:
        position = max(position, text.find(cell.source, position))
        yield cell, text.count("\n", 0, position) + 1


def notebook_blocks(root: Path, path: Path) -> list[Block]:
    """Return the blocks of a chapter's prose; a cell that makes a figure stands as a directive."""
    blocks: list[Block] = []
    for cell, line in located_cells(root, path):
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if cell.cell_type == "markdown":
            blocks += parse_blocks(cell.source, line)
        elif figure is not None:
            options = {"name": figure.get("name", "")}
            blocks.append(Directive(line, "figure", "", options, "", line))
    return blocks


def scan(index: BookIndex, page: str, blocks: list[Block], numbers: Numbers) -> None:
    """Enter what can be referred to on a page into the index."""
    waiting: list[str] = []
    for block in flatten(blocks):
        if isinstance(block, Target):
            waiting.append(block.name)
        elif isinstance(block, Text):
            waiting = scan_text(index, page, block.text, numbers, waiting)
        elif isinstance(block, Math) and block.label:
            enter(index, block.label, page, "equation", numbers)
        elif isinstance(block, Directive):
            scan_directive(index, page, block, numbers)


def flatten(blocks: list[Block]) -> Iterator[Block]:
    """Yield all blocks, those inside admonitions and the like too, in their order."""
    for block in blocks:
        yield block
        if isinstance(block, Directive) and block.name in CONTAINERS:
            yield from flatten(list(parse_blocks(block.body, block.body_line)))


def scan_text(
    index: BookIndex, page: str, text: str, numbers: Numbers, waiting: list[str]
) -> list[str]:
    """Enter the headings of a text; return the labels that still wait for one."""
    for line in text.split("\n"):
        if match := HEADING.match(line):
            level, title = len(match["level"]), match["title"]
            number = numbers.heading(level)
            if level == 1:
                index.titles[page] = title
            for label in waiting:
                there = Destination(page, anchor_of(label), "section", number, title)
                index.destinations.setdefault(label.lower(), []).append(there)
        if line.strip():
            waiting = []
    return waiting


def scan_directive(index: BookIndex, page: str, block: Directive, numbers: Numbers) -> None:
    """Enter a figure, table, listing or equation with its number, or a glossary's terms."""
    if block.name == "glossary":
        lines = block.body.split("\n")
        index.terms |= {line for line in lines if line and not line.startswith((" ", ":"))}
    if block.name in NUMBERED:
        kind, option = NUMBERED[block.name]
        label = block.options.get(option, "")
        caption = block.argument if kind == "table" else block.options.get("caption")
        if label or kind == "figure" or caption:
            enter(index, label, page, kind, numbers)


def enter(index: BookIndex, label: str, page: str, kind: str, numbers: Numbers) -> None:
    """Count one numbered thing, and enter it if it has a label."""
    number = numbers.count(kind)
    if label:
        anchor = f"equation-{anchor_of(label)}" if kind == "equation" else anchor_of(label)
        there = Destination(page, anchor, kind, number)
        index.destinations.setdefault(label.lower(), []).append(there)


def anchor_of(label: str) -> str:
    """Return the anchor that docutils makes of a label."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def term_anchor(term: str) -> str:
    """Return the anchor that Sphinx gives to a term of the glossary."""
    return re.sub(r"[^a-zA-Z0-9._]+", "-", f"term-{term}").rstrip("-")


def citation(entry: Entry) -> Citation:
    """Return how an entry is cited in text: at most two names, else the first "et al."."""
    names = [
        " ".join(str(part) for part in [*person.rich_prelast_names, *person.rich_last_names])
        for person in entry.persons["author"]
    ]
    authors = " and ".join(names) if len(names) <= 2 else f"{names[0]} et al."
    doi = entry.fields.get("doi")
    url = f"https://doi.org/{doi}" if doi else entry.fields["url"]
    return Citation(authors, entry.fields["year"], url)
