"""Lower MyST Markdown to what Jupyter and Colab render: Markdown, a little HTML, and TeX.

Whatever is not known here is refused with its line, and `leftovers` finds MyST that a mistake in
this module let through: a reader never sees raw MyST.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from book.tools.book_index import WORDS, BookIndex, Numbers, term_anchor
from book.tools.myst import (
    Block,
    Directive,
    Fence,
    Math,
    MystError,
    Target,
    Text,
    parse_blocks,
)
from book.tools.prose import COMMENT

ADMONITIONS = {
    *("attention", "caution", "danger", "error", "hint", "important", "note", "seealso", "tip"),
    "warning",
}
TITLES = {"seealso": "See also"}
API_ROLES = {"attr", "class", "const", "data", "exc", "func", "meth", "mod"}

#: A role, a span of code or a formula, whichever comes first: only roles are lowered.
INLINE = re.compile(
    r"\{(?P<role>[a-zA-Z][\w:+.-]*)\}(?P<ticks>`+)(?P<content>.+?)(?<!`)(?P=ticks)(?!`)"
    r"|(?P<code>(?P<fence>`+)(?!`).+?(?<!`)(?P=fence)(?!`))"
    r"|\[\^(?P<note>[^\]\s]+)\](?P<colon>:?)"
    r"|\[(?P<text>[^\]]*)\]\((?P<link>[^()\s]+)\)",
    re.DOTALL,
)
TITLED = re.compile(r"^(?P<text>.+?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
DEFINITION = re.compile(r"^(?P<term>\S.*)\n: +(?P<text>.*(?:\n {2,}.*)*)", re.MULTILINE)
RAW = re.compile(
    r"\{[a-zA-Z][\w:+.-]*\}`"  # a role
    r"|^\s*(?:`{3,}|~{3,}|:{3,})\{"  # a directive
    r"|^\s*:{3,}\s*$"  # the end of one
    r"|^\([^()\s]+\)=\s*$"  # a label
    r"|\[\^[^\]\s]+\]"  # a footnote
    r"|^: \S"  # a definition
    r"|<!--=",  # what a number in prose is compared with
    re.MULTILINE,
)


def leftovers(markdown: str) -> list[str]:
    """Return the pieces of raw MyST in a cell's Markdown, code left out."""
    outside = []
    for block in parse_blocks(markdown):
        if isinstance(block, Directive):
            outside.append(f"```{{{block.name}}}")
        elif isinstance(block, Target):
            outside.append(f"({block.name})=")
        elif isinstance(block, Math) and block.label:
            outside.append(f"({block.label})=")
        elif isinstance(block, Text):
            code = re.compile(r"(?<!\})(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
            outside.append(code.sub("", block.text))
    return RAW.findall("\n".join(outside))


@dataclass
class Lowering:
    """Lowers the cells of one page, in their order; the methods return Markdown.

    `numbers` and `notes` grow from cell to cell: the counters of figures, tables and equations, and
    the names of the footnotes by their first mention. A role, directive or reference that is not
    known raises MystError.
    """

    index: BookIndex
    page: str
    numbers: Numbers
    notes: list[str] = field(default_factory=list)

    # --- blocks ---------------------------------------------------------------------------------

    def blocks(self, text: str, line: int) -> str:
        """Lower a text made of blocks."""
        return "\n".join(
            lowered
            for block in parse_blocks(text, line)
            if (lowered := self.block(block)) is not None
        )

    def block(self, block: Block) -> str | None:
        """Lower one block; None where nothing is left of it."""
        match block:
            case Text():
                return self.text(block)
            case Math():
                return indent(self.formula(block.body, block.label), block.indent)
            case Fence():
                code = f"{block.marker}{block.info}\n{block.body}\n{block.marker}"
                return indent(code, block.indent)
            case Directive():
                lowered = self.directive(block)
                return None if lowered is None else indent(lowered, block.indent)
        return None  # a label or a comment

    def text(self, block: Text) -> str:
        """Lower text: its roles, links and definitions; drop the comments behind numbers."""
        lowered = self.inline(COMMENT.sub("", block.text), block.line)
        return DEFINITION.sub(definition, lowered)

    def formula(self, body: str, label: str | None) -> str:
        """Lower a display formula; one with a label shows the number that the site gives it."""
        if r"\\" in body and r"\begin{" not in body:
            body = f"\\begin{{split}}\n{body}\n\\end{{split}}"
        tag = f" \\tag{{{self.numbers.count('equation')}}}" if label else ""
        return f"$$\n{body}{tag}\n$$"

    def directive(self, block: Directive) -> str | None:
        """Lower a directive by its name; None where nothing is left of it."""
        name, argument = block.name, self.inline(block.argument, block.line)
        if name == "dropdown" or "dropdown" in block.options.get("class", ""):
            summary = f"<summary>{argument or name.capitalize()}</summary>"
            return f"<details>\n{summary}\n\n{self.body(block)}\n\n</details>"
        if name in ADMONITIONS:
            title = TITLES.get(name, name.capitalize())
            return quote(f"**{title}.** {argument}\n{self.body(block)}".rstrip())
        match name:
            case "admonition":
                return quote(f"**{argument}**\n\n{self.body(block)}")
            case "epigraph" | "margin" | "sidebar":
                return quote(f"**{argument}** {self.body(block)}".removeprefix("**** "))
            case "container" | "div" | "tab-set":
                return self.body(block)
            case "tab-item":
                return f"**{argument}**\n\n{self.body(block)}"
            case "math":
                return self.formula(block.body.strip(), block.options.get("label"))
            case "code" | "code-block":
                return self.listing(block)
            case "table":
                return f"{self.caption('table', argument)}\n\n{self.body(block)}"
            case "figure" | "image":
                return self.picture(block)
            case "bibliography":
                return f"See the [bibliography]({self.index.url('bibliography')})."
            case "contents" | "tableofcontents":
                return None
        message = f"the directive {{{name}}} has no form in Colab: lowering.py"
        raise MystError(message, block.line)

    def body(self, block: Directive) -> str:
        """Lower what stands in a directive."""
        return self.blocks(block.body, block.body_line).strip("\n")

    def caption(self, kind: str, text: str) -> str:
        """Return the line with the number and the caption of a figure, table or listing."""
        return f"*{WORDS[kind]} {self.numbers.count(kind)}.* {text}"

    def figure_caption(self, text: str, line: int) -> str:
        """Return the caption of the figure that the cell before it makes."""
        return self.caption("figure", self.inline(COMMENT.sub("", text), line))

    def listing(self, block: Directive) -> str:
        """Lower a block of code that is shown and not run."""
        code = f"```{block.argument}\n{block.body}\n```"
        caption = block.options.get("caption")
        if caption is None and "name" not in block.options:
            return code
        return self.caption("listing", self.inline(caption or "", block.line)) + "\n\n" + code

    def picture(self, block: Directive) -> str:
        """Lower a picture that is a file of the site."""
        path = self.address(block.argument, block.line)
        image = f"![{block.options.get('alt', '')}]({path})"
        if block.name == "image":
            return image
        return f"{image}\n\n{self.caption('figure', self.body(block))}"

    # --- inline ---------------------------------------------------------------------------------

    def inline(self, text: str, line: int) -> str:
        """Lower roles, footnotes and links in a text; code stays as it is."""

        def lower(match: re.Match[str]) -> str:
            here = line + text.count("\n", 0, match.start())
            if match["code"] is not None:
                return match[0]
            if match["role"] is not None:
                return self.role(match["role"], " ".join(match["content"].split()), here)
            if match["note"] is not None:
                return self.footnote(match["note"], definition=bool(match["colon"]))
            return f"[{self.inline(match['text'], here)}]({self.address(match['link'], here)})"

        return INLINE.sub(lower, text)

    def footnote(self, name: str, *, definition: bool) -> str:
        """Return the mark of a footnote, or what stands before its text."""
        if name not in self.notes:
            self.notes.append(name)
        mark = f"<sup>{self.notes.index(name) + 1}</sup>"
        return f"{mark} " if definition else mark

    def address(self, link: str, line: int) -> str:
        """Return the absolute address that a link leads to."""
        if re.match(r"(https?|mailto):", link):
            return link
        if link.startswith("#"):
            place = self.index.find(link[1:], self.page)
            if place is not None:
                return self.index.url(place.page, place.anchor)
        if (static := link.partition("book/_static/"))[1]:
            return f"{self.index.site}_static/{static[2]}"
        raise MystError(
            f"the link to {link!r} leads nowhere in Colab: refer to pages with {{doc}}, to places "
            "with {ref}, and to pictures as ../book/_static/NAME",
            line,
        )

    def role(self, name: str, content: str, line: int) -> str:
        """Lower one role by its name."""
        roles: dict[str, Callable[[str, int], str]] = {
            "doc": self.doc,
            "eq": self.eq,
            "numref": self.numref,
            "ref": self.ref,
            "term": self.term,
        }
        if name in roles:
            return roles[name](content, line)
        if name == "cite" or name.startswith("cite:"):
            return self.cite(name, content, line)
        if name.removeprefix("py:") in API_ROLES:
            return self.api(content, line)
        if name == "math":
            return f"${content}$"
        if name in ("abbr", "kbd"):
            return content if name == "abbr" else f"<kbd>{content}</kbd>"
        if name in ("sub", "sup"):
            return f"<{name}>{content}</{name}>"
        raise MystError(f"the role {{{name}}} has no form in Colab: lowering.py", line)

    def doc(self, content: str, line: int) -> str:
        """Lower a reference to a page, "/notation" or "01_tokenizer"."""
        text, target = split_title(content)
        folder = "" if target.startswith("/") else self.page.rpartition("/")[0] + "/"
        page = folder + target.lstrip("/")
        if page.startswith("api/"):
            return f"[{text or page}]({self.index.url(page)})"
        if page not in self.index.titles:
            raise MystError(f"there is no page {target!r}", line)
        return f"[{text or self.index.titles[page]}]({self.index.url(page)})"

    def eq(self, content: str, line: int) -> str:
        """Lower a reference to an equation: "(1.2)"."""
        return self.numbered(content, "({number})", line)

    def numref(self, content: str, line: int) -> str:
        """Lower a reference by number: "Figure 1.2"."""
        text, target = split_title(content)
        template = (text or "{word} {number}").replace("%s", "{number}")
        return self.numbered(target, template, line)

    def numbered(self, label: str, template: str, line: int) -> str:
        """Fill the number of what carries the label into a template; link it if it is elsewhere."""
        place = self.index.find(label, self.page)
        if place is None or not place.number:
            raise MystError(f"nothing that has a number carries the label {label!r}", line)
        word = WORDS.get(place.kind, "Equation")
        text = template.format(number=place.number, word=word, name=place.title)
        return text if place.page == self.page else self.link(text, place.page, place.anchor)

    def ref(self, content: str, line: int) -> str:
        """Lower a reference to a section by its title."""
        text, target = split_title(content)
        place = self.index.find(target, self.page)
        if place is None or not (text or place.title):
            raise MystError(f"no section carries the label {target!r}", line)
        return self.link(text or place.title, place.page, place.anchor)

    def link(self, text: str, page: str, anchor: str) -> str:
        """Return a link to a place on the site."""
        return f"[{text}]({self.index.url(page, anchor)})"

    def term(self, content: str, line: int) -> str:
        """Lower a reference to the glossary."""
        text, target = split_title(content)
        terms = {term.lower(): term for term in self.index.terms}
        if target.lower() not in terms:
            raise MystError(f"the glossary does not have {target!r}", line)
        return self.link(text or target, "glossary", term_anchor(terms[target.lower()]))

    def cite(self, name: str, content: str, line: int) -> str:
        """Lower a citation: "Gage (1994)", or in parentheses "(Gage, 1994)"."""
        textual = name.startswith("cite:t")
        shown = []
        for key in (part.strip() for part in content.split(",")):
            entry = self.index.citations.get(key)
            if entry is None:
                raise MystError(f"references.bib has no entry {key!r}", line)
            year = f" ({entry.year})" if textual else f", {entry.year}"
            shown.append(f"[{entry.authors}{year}]({entry.url})")
        return " and ".join(shown) if textual else f"({'; '.join(shown)})"

    def api(self, content: str, line: int) -> str:
        """Lower a reference to a documented name: its last part with a tilde before it."""
        text, target = split_title(content)
        name = target.removeprefix("~").removesuffix("()")
        url = self.index.api_url(name)
        if url is None:
            raise MystError(f"write the whole name of {target!r}, gptbook.MODULE.NAME", line)
        short = name.rpartition(".")[2] if target.startswith("~") else name
        return f"[`{text or short}`]({url})"


def split_title(content: str) -> tuple[str, str]:
    """Return the text and the target of "text <target>"; the text is empty where there is none."""
    match = TITLED.match(content)
    return (match["text"], match["target"]) if match else ("", content)


def definition(match: re.Match[str]) -> str:
    """Return an item of a definition list as an item of a bulleted one."""
    return f"- **{match['term']}**: {match['text']}"


def quote(text: str) -> str:
    """Return a text as a block quote."""
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def indent(text: str, by: str) -> str:
    """Indent each line that is not empty."""
    return "\n".join(by + line if line else line for line in text.split("\n"))
