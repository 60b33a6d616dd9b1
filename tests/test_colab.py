"""The notebooks that Colab opens: no raw MyST, the numbers of the site, and they run."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from book.tools import colab
from book.tools.myst import Directive, Math, MystError, Text, parse_blocks
from book.tools.project import ROOT, package_version
from tests.small_book import HEADER as CHAPTER_HEADER

HEADER = f"{CHAPTER_HEADER}\n"

PYPROJECT = """\
[project]
name = "gptbook"
version = "3.2.1"
[project.urls]
Repository = "https://github.com/someone/somebook"
Documentation = "https://book.test/"
"""
BIBLIOGRAPHY = """\
@misc{one, author = {Gage, Philip}, title = {A}, year = {1994}, url = {https://one.test}}
@misc{two, author = {Land, Sander and Bartolo, Max}, title = {B}, year = {2024}, doi = {10.1/two}}
@misc{many, author = {Yergeau, Fran{\\c{c}}ois and {La Malfa}, E. and Birch, A.}, title = {C},
  year = {2016}, url = {https://many.test}}
"""
GLOSSARY = """\
# Words

```{glossary}
byte-pair encoding
BPE
  Merging pairs.

Heaps' law
  A law.
```
"""


def make_tree(root: Path, **chapters: str) -> Path:
    """Write a small book: `c01_a="# Title"` becomes chapters/01_a.md."""
    for folder in ("book", "chapters", "gptbook"):
        (root / folder).mkdir(exist_ok=True)
    (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (root / "book" / "references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    (root / "book" / "glossary.md").write_text(GLOSSARY, encoding="utf-8")
    (root / "gptbook" / "tokenizer.py").write_text("", encoding="utf-8")
    for name, text in chapters.items():
        path = root / "chapters" / f"{name.removeprefix('c')}.md"
        path.write_text(HEADER + text, encoding="utf-8")
    return root


def cells_of(root: Path, name: str = "01_a") -> list[dict[str, Any]]:
    """Return the cells that Colab gets for a chapter, sources as strings."""
    text = colab.colab_notebooks(root)[root / "book" / "colab" / "chapters" / f"{name}.ipynb"]
    cells: list[dict[str, Any]] = json.loads(text)["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def lowered(tmp_path: Path, markdown: str) -> str:
    """Return what becomes of a chapter's Markdown below its title."""
    cells = cells_of(make_tree(tmp_path, c01_a=f"# Title\n\n{markdown}\n"))
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "markdown"]
    return str(cells[2]["source"])


SITE = "https://book.test/"
PAGE = f"{SITE}chapters/01_a.html"


def cases(text: str) -> list[tuple[str, ...]]:
    """Split what is written, "=>", what it becomes; cases are separated by a line of "===="."""
    return [tuple(case.strip("\n").split("\n=>\n")) for case in text.split("\n====\n")]


INLINE = r"""
{cite:t}`one`
=>
[Gage (1994)](https://one.test)
====
{cite:p}`two`
=>
([Land and Bartolo, 2024](https://doi.org/10.1/two))
====
{cite}`one,many`
=>
([Gage, 1994](https://one.test); [Yergeau et al., 2016](https://many.test))
====
{cite:t}`
one` over two lines
=>
[Gage (1994)](https://one.test) over two lines
====
{term}`byte-pair encoding`
=>
[byte-pair encoding](https://book.test/glossary.html#term-byte-pair-encoding)
====
{term}`laws <Heaps' law>`
=>
[laws](https://book.test/glossary.html#term-Heaps-law)
====
{doc}`/glossary` and {doc}`this <01_a>`
=>
[Words](https://book.test/glossary.html) and [this](https://book.test/chapters/01_a.html)
====
{func}`~gptbook.tokenizer.train_bpe`
=>
[`train_bpe`](https://book.test/api/tokenizer.html#gptbook.tokenizer.train_bpe)
====
{py:mod}`gptbook.tokenizer`
=>
[`gptbook.tokenizer`](https://book.test/api/tokenizer.html#module-gptbook.tokenizer)
====
{math}`x^2` and H{sub}`2`O and {abbr}`BPE (byte-pair encoding)`
=>
$x^2$ and H<sub>2</sub>O and BPE (byte-pair encoding)
====
a loss of 2.41<!--=loss:.2f-->, about
=>
a loss of 2.41, about
====
`{cite}` in code, and ``{ref}`x` ``
=>
`{cite}` in code, and ``{ref}`x` ``
====
```python
{cite}`no`
(label)=
```
=>
```python
{cite}`no`
(label)=
```
====
Said.[^b] And.[^a]

[^a]: A.
[^b]: B.
=>
Said.<sup>1</sup> And.<sup>2</sup>

<sup>2</sup>  A.
<sup>1</sup>  B.
====
Term
: What it
  is.
=>
- **Term**: What it
  is.
====
(a-label)=

Text
% a comment
=>
Text
====
[there](https://x.test) and [it](#sec)

(sec)=
## Section
=>
[there](https://x.test) and [it](https://book.test/chapters/01_a.html#sec)

## Section
====
![A book](../book/_static/logo.svg)
=>
![A book](https://book.test/_static/logo.svg)
====
See {ref}`it <sec>`.

(sec)=
## A section
=>
See [it](https://book.test/chapters/01_a.html#sec).

## A section
====
See {numref}`sec`, {numref}`part %s <sec>`.

## One

(sec)=
## Two
=>
See Section 1.2, part 1.2.

## One

## Two
"""


@pytest.mark.parametrize(("markdown", "expected"), cases(INLINE))
def test_inline_markup_is_lowered(tmp_path: Path, markdown: str, expected: str) -> None:
    assert lowered(tmp_path, markdown) == expected


DIRECTIVES = r"""
```{note}
Read {cite:t}`one`.

Again.
```
=>
> **Note.**
> Read [Gage (1994)](https://one.test).
>
> Again.
====
:::{tip} First words
of it.
:::
=>
> **Tip.** First words
> of it.
====
```{admonition} My title
:class: tip
Body.
```
=>
> **My title**
>
> Body.
====
```{admonition} Hint
---
class: dropdown
---
Body.
```
=>
<details>
<summary>Hint</summary>

Body.

</details>
====
:::{dropdown} Why?
Because.
:::
=>
<details>
<summary>Why?</summary>

Because.

</details>
====
::::{note}
:::{tip}
Inner.
:::
::::
=>
> **Note.**
> > **Tip.**
> > Inner.
====
```{margin} Aside
Small.
```
=>
> **Aside** Small.
====
```{math}
:label: e
a = b
```

See {eq}`e`.
=>
$$
a = b \tag{1.1}
$$

See (1.1).
====
$$
a
$$ (x)

$$
b
$$

$$ c $$ (y)

{eq}`y`
=>
$$
a \tag{1.1}
$$

$$
b
$$

$$
c \tag{1.2}
$$

(1.2)
====
$$
a \\ b
$$
=>
$$
\begin{split}
a \\ b
\end{split}
$$
====
```{table} A caption
:name: t

| a |
|---|
| b |
```

{numref}`t`
=>
*Table 1.1.* A caption

| a |
|---|
| b |

Table 1.1
====
```{code-block} python
:caption: Some code
x = 1
```
=>
*Listing 1.1.* Some code

```python
x = 1
```
====
```{figure} ../book/_static/logo.svg
:alt: A book
:name: f
Its caption.
```

{numref}`f`
=>
![A book](https://book.test/_static/logo.svg)

*Figure 1.1.* Its caption.

Figure 1.1
====
- item

  ```{note}
  Inside.
  ```

- next
=>
- item

  > **Note.**
  > Inside.

- next
====
:::{div} lead
Plain.
:::
=>
Plain.
"""


@pytest.mark.parametrize(("markdown", "expected"), cases(DIRECTIVES))
def test_directives_are_lowered(tmp_path: Path, markdown: str, expected: str) -> None:
    assert lowered(tmp_path, markdown) == expected


@pytest.mark.parametrize(
    ("markdown", "line", "message"),
    [
        ("Text\nwith {unknown}`x`.", 4, "the role {unknown} has no form in Colab"),
        ("Text\n\n```{mermaid}\nx\n```", 5, "the directive {mermaid} has no form in Colab"),
        ("{cite}`nobody`", 3, "references.bib has no entry 'nobody'"),
        ("{term}`nothing`", 3, "the glossary does not have 'nothing'"),
        ("{ref}`nowhere`", 3, "no section carries the label 'nowhere'"),
        ("{numref}`nowhere`", 3, "nothing that has a number carries the label 'nowhere'"),
        ("{doc}`/nowhere`", 3, "there is no page '/nowhere'"),
        ("{func}`train_bpe`", 3, "write the whole name of 'train_bpe'"),
        ("[x](02_b.md)", 3, "the link to '02_b.md' leads nowhere in Colab"),
        ("```{note}\n:class: tip\n\nOne\n{unknown}`x`\n```", 7, "the role {unknown}"),
        ("Text\n\n:::{note}\nnever closed", 5, "is never closed"),
        ("$$\nnever closed", 3, "is never closed"),
    ],
)
def test_what_is_not_known_is_refused_with_its_line(
    tmp_path: Path, markdown: str, line: int, message: str
) -> None:
    with pytest.raises(MystError) as caught:
        lowered(tmp_path, markdown)
    header = HEADER.count("\n")
    assert f"chapters/01_a.md:{header + line}: " in str(caught.value)
    assert message in str(caught.value)


def test_blocks_know_their_lines() -> None:
    text = "Text\n\n```{note} Title\n:class: tip\n\nBody\n```\nMore\n$$x$$ (e)"
    blocks = list(parse_blocks(text, line=10))
    assert [(type(block), block.line) for block in blocks] == [
        (Text, 10),
        (Directive, 12),
        (Text, 17),
        (Math, 18),
    ]
    directive = blocks[1]
    assert isinstance(directive, Directive)
    assert (directive.body, directive.body_line) == ("Body", 15)
    assert directive.options == {"class": "tip"}


FIGURE = """\
# Title

The first words.

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: About {eq}`e`, 3<!--=n-->.
    name: fig
tags: [hide-input]
---
1
```

$$
x
$$ (e)

```{code-cell} ipython3
:tags: [export]
:module: gptbook/tokenizer.py

def f(): ...
```

See {numref}`fig`.
"""


def test_a_notebook_has_its_parts_in_order(tmp_path: Path) -> None:
    cells = cells_of(make_tree(tmp_path, c01_a=FIGURE))
    title, install, words, figure, caption, formula, exported, reference = cells
    assert title["source"].startswith("# Title\n\n")
    assert f"({PAGE})" in title["source"]
    assert install["source"] == (
        '%pip install -q "gptbook[interop,notebook] @ '
        'https://book.test/wheels/gptbook-3.2.1-py3-none-any.whl"'
    )
    assert words["source"] == "The first words."
    assert figure["metadata"] == {"cellView": "form", "jupyter": {"source_hidden": True}}
    assert caption["source"] == "*Figure 1.1.* About (1.1), 3."
    assert formula["source"] == "$$\nx \\tag{1.1}\n$$"
    assert exported["metadata"] == {}
    assert exported["source"].splitlines()[0] == "# This cell is a part of gptbook/tokenizer.py."
    assert reference["source"] == "See Figure 1.1."
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_the_halves_of_a_chapter_are_counted_as_one(tmp_path: Path) -> None:
    first = "# First\n\n(top)=\n## Section\n\n$$\na\n$$ (one)\n"
    second = "# Second\n\n(sub)=\n## Part\n\n$$\nb\n$$ (two)\n\n{eq}`one` {eq}`two` {numref}`sub`\n"
    third = "# Third\n\n$$\nc\n$$ (three)\n\n{eq}`two`, {eq}`three`, {ref}`top`\n"
    root = make_tree(tmp_path, c01_a=first, c01_b=second, c02_c=third)
    page = f"{SITE}chapters/01_a.html"
    assert (
        f"[(1.1)]({page}#equation-one) (1.2) Section 1.2.1" in cells_of(root, "01_b")[2]["source"]
    )
    other = f"[(1.2)]({SITE}chapters/01_b.html#equation-two), (2.1), [Section]({page}#top)"
    assert other in cells_of(root, "02_c")[2]["source"]


def test_a_chapter_without_a_title_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MystError, match="begins with its title"):
        colab.colab_notebooks(make_tree(tmp_path, c01_a="Words.\n"))


def test_writing_is_complete_repeatable_and_checked(tmp_path: Path) -> None:
    root = make_tree(tmp_path, c01_a="# Title\n")
    path = root / "book" / "colab" / "chapters" / "01_a.ipynb"
    assert colab.problems(root) == ["book/colab/chapters/01_a.ipynb is missing"]
    assert colab.write(root) == ["wrote book/colab/chapters/01_a.ipynb"]
    assert colab.problems(root) == []
    before = path.read_bytes()
    assert colab.write(root) == []
    assert path.read_bytes() == before

    path.write_text(path.read_text("utf-8") + " ", encoding="utf-8")
    (root / "book" / "colab" / "chapters" / "09_old.ipynb").write_text("{}", encoding="utf-8")
    assert colab.problems(root) == [
        "book/colab/chapters/01_a.ipynb differs from what its source gives",
        "book/colab/chapters/09_old.ipynb has no source",
    ]
    assert colab.write(root) == [
        "wrote book/colab/chapters/01_a.ipynb",
        "removed book/colab/chapters/09_old.ipynb",
    ]
    assert colab.problems(root) == []


def test_solutions_and_exercises_get_notebooks_too(tmp_path: Path) -> None:
    root = make_tree(tmp_path, c01_a="# Title\n")
    for folder in ("solutions", "exercises"):
        (root / folder).mkdir()
        (root / folder / "01_a.md").write_text(HEADER + "# Try it\n", encoding="utf-8")
    names = {path.relative_to(root / "book" / "colab") for path in colab.colab_notebooks(root)}
    assert names == {Path(f"{name}/01_a.ipynb") for name in ("chapters", "solutions", "exercises")}


# --- the book's own notebooks -------------------------------------------------------------------

REAL = sorted((ROOT / "book" / "colab").rglob("*.ipynb"))


def test_the_books_notebooks_are_current() -> None:
    assert REAL, "book/colab/ is empty: run `python -m book.tools.colab`"
    assert not colab.problems(ROOT), "run `python -m book.tools.colab` and commit book/colab/"


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_raw_myst_and_no_outputs_are_left(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            continue
        prose = re.sub(r"^( *)```[\s\S]*?^\1```", "", source, flags=re.MULTILINE)
        prose = re.sub(r"(?<!\})(`+)(?!`)[\s\S]+?(?<!`)\1(?!`)", "", prose)
        for pattern in (
            r"\{[\w:-]+\}`",
            r"```",
            r":::",
            r"^\([\w-]+\)=",
            r"\[\^",
            "<!--",
            r"\$\$ *\(",
        ):
            assert not re.search(pattern, prose, re.MULTILINE), f"{pattern} in:\n{source}"


def stored(path: Path) -> Path:
    return ROOT / "book" / "notebooks" / path.relative_to(ROOT / "book" / "colab")


def code_of(path: Path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


VERIFIED = [path for path in REAL if stored(path).is_file()]
GRADED = re.compile(r"""\Agrade\("[\d.]+", (\w+)\)\Z""")
RUN = [*VERIFIED[:1], *(path for path in REAL if path not in VERIFIED)]


@pytest.mark.parametrize("path", VERIFIED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_notebook_has_the_code_that_is_run_for_the_site(path: Path) -> None:
    """`book.tools.verify` runs those cells, and compares what they give: once is enough."""
    install, *cells = code_of(path)
    assert install.startswith("%pip install")
    comment = re.compile(r"\A# This cell is a part of .*\n")
    assert [comment.sub("", cell) for cell in cells] == code_of(stored(path))


@pytest.mark.parametrize("path", RUN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    install = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert install.source.startswith("%pip install")
    assert f"wheels/gptbook-{package_version(ROOT)}-py3-none-any.whl" in install.source
    install.source = ""  # the package is here already, and there is no network
    # That a stub of every exercise is graded is tested with the exercises, and takes seconds each.
    for cell in [cell for cell in notebook.cells if cell.source.startswith("grade(")][1:]:
        cell.source = GRADED.sub(r"assert callable(\1)", cell.source)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources=resources).execute()
