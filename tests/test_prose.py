"""book.tools.prose: numbers in prose against recorded values."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from book.tools import prose
from book.tools.execute import check as check_notebooks
from book.tools.notebooks import assemble, notebook_text, read_source
from book.tools.prose import ProseError, expected_text
from gptbook.app.notebook import RECORD_MIME, Scalar
from tests.small_book import HEADER, cell, write_chapter

VALUES: dict[str, Scalar] = {
    "loss": 2.4137,
    "theirs": 0.75,
    "n": 1234,
    "share": 0.874,
    "change": -0.5,
    "tiny": 0.0000123,
    "word": "cat",
    "phrase": "the cat",
    "flag": True,
}


def store(root: Path, path: Path, *records: dict[str, Any]) -> None:
    """Store a notebook for the chapter as if its cells had recorded the values, one dict each."""
    source = read_source(root, path)
    outputs = [
        [nbformat.from_dict({"output_type": "display_data", "data": data, "metadata": {}})]  # type: ignore[no-untyped-call]
        for data in ({RECORD_MIME: json.dumps(record)} for record in records)
    ]
    source.stored_path.parent.mkdir(parents=True, exist_ok=True)
    source.stored_path.write_text(
        notebook_text(assemble(source, outputs, "3.11.7")), encoding="utf-8"
    )


def chapter(root: Path, text: str) -> Path:
    """Write a chapter of the text and a cell that recorded `VALUES`, and store it."""
    path = write_chapter(root, text, cell("record(...)"))
    store(root, path, VALUES)
    return path


def problems(root: Path, text: str) -> list[str]:
    """Return what the check says of a chapter with this text."""
    chapter(root, text)
    return prose.check(root)


@pytest.mark.parametrize(
    "text",
    [
        "2.41<!--=loss:.2f-->",
        "A loss of 2.41<!--=loss:.2f-->, no more; and 1,234<!--=n:,--> steps (1234<!--=n-->).",
        "87%<!--=share:.0%--> or 87 %<!--=share:.0%--> or 87.4 %<!--=share:.1%-->",
        "**2.41**<!--=loss:.2f--> and **2.41<!--=loss:.2f-->** and _2.4_<!--=loss:.1f-->",
        "3.2<!--=loss/theirs:.1f--> times, 2469<!--=2*n + 1--> and 2<!--=max(round(loss), 1)-->",
        "-0.5<!--=change--> and (-0.5<!--=change-->) and 0.50<!--=abs(change):.2f-->",
        "1.2e-05<!--=tiny:.1e--> and $2.41$<!--=loss:.2f--> and `2.41`<!--=loss:.2f-->",
        "cat<!--=word--> and `the cat`<!--=phrase--> and True<!--=flag-->",
        "~2.41<!--=loss:.2f-->x or 2.41<!--=loss:.2f-->–2.41<!--=loss:.2f-->",
        "| a | 2.41<!--=loss:.2f--> |\n|---|---|\n| b | 1,234<!--=n:,--> |",
        "```{note}\n:class: x\n\nThe loss is 2.41<!--=loss:.2f-->.\n```",
        ":::{note} A title\n````{tip}\n2.41<!--=loss:.2f-->\n````\n:::",
        "## A heading with 2.41<!--=loss:.2f--> in it",
    ],
)
def test_numbers_that_agree_pass(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2.42<!--=loss:.2f-->", "the prose says '2.42', but loss:.2f is '2.41'"),
        ("12.41<!--=loss:.2f-->", "the prose says '12.41'"),
        ("-2.41<!--=loss:.2f-->", "the prose says '-2.41'"),
        ("0.5<!--=change-->", "is '-0.5'"),
        ("1,234<!--=n-->", "is '1234'"),
        ("11,234<!--=n:,-->", "the prose says '11,234'"),
        ("1.2.41<!--=loss:.2f-->", "the prose says '1.2.41'"),
        ("2.41%<!--=loss:.2f-->", "the prose says '2.41%'"),
        ("x2.41<!--=loss:.2f-->", "the prose says 'x2.41'"),
        ("the cat<!--=phrase-->", "the prose says 'cat'"),
        ("2.41 <!--=loss:.2f-->", "no number right before"),
        ("<!--=loss:.2f-->", "no number right before"),
        ("2.41<!--=lose:.2f-->", "'lose' is not recorded in this chapter; recorded: change,"),
        ("2.41<!--=loss:.2q-->", "is no format"),
        ("2.41<!--=loss +:.2f-->", "cannot be computed"),
        ("2.41<!--=loss/0:.2f-->", "cannot be computed"),
        ("2.41<!--=min(loss)-->", "cannot be computed"),
        ("2.41<!--=word*2-->", "'cat', not a number"),
        ("2.41<!--=flag+1-->", "True, not a number"),
        ("2.41<!--=open('x')-->", "is not arithmetic"),
        ("2.41<!--=loss.real-->", "is not arithmetic"),
        ("2.41<!--=[loss]-->", "is not arithmetic"),
        ("2.41<!-- = loss:.2f -->", "cannot be read"),
        ("2.41<!--=-->", "cannot be read"),
        ("2.41<!--=loss:.2f\n", "cannot be read"),
        ("Growth of 3.14 in a year.", "3.14 has no comment"),
        ("Some 12,345 people.", "12,345 has no comment"),
        ("Some 87.5% of 1.5B.", "87.5% has no comment"),
        ("A **3.14** in bold", "3.14 has no comment"),
        ("```{note}\nIt is 3.14.\n```", "3.14 has no comment"),
    ],
)
def test_numbers_that_disagree_are_reported_with_their_line(
    tmp_path: Path, text: str, message: str
) -> None:
    found = problems(tmp_path, "A first line.\n\n" + text)
    assert any(message in problem for problem in found), found
    first = HEADER.count("\n") + (5 if text.startswith("```") else 4)
    assert all(p.startswith(f"chapters/01_small.md:{first}: ") for p in found), found


@pytest.mark.parametrize(
    "text",
    [
        "In code: `3.14` and ``x = 3.14``, `2.42<!--=loss:.2f-->` too.",
        "```python\nx = 3.14  # 2.42<!--=loss:.2f-->\n```",
        "~~~\n3.14\n~~~",
        "```{code} python\n:tags: [x]\nx = 3.14\n```\n",
        "Math: $x = 3.14$, and $a +\n3.14$, costs \\$5.",
        "$$\nx = 3.14\n$$\n\n```{math}\n:label: eq\n3.14\n```\n",
        "\\begin{align}\nx &= 3.14\n\\end{align}",
        "[a link](https://example.org/3.14) and https://example.org/v3.14 and <https://e.org/3.14>",
        "As {cite:t}`someone` found, it is 3.14\nand 12,345.",
        "<!-- 3.14 -->",
        "## Section 3.14",
        "```{figure} x.svg\n:width: 46.5%\n:name: fig\nA caption.\n```",
        "```{figure} x.svg\n---\nwidth: 46.5%\n---\nA caption.\n```",
        "Python 3.11.2, GPT-2, in 2019, 100 times, the 1st, 3.",
        "3.14<!--=given--> and 3.14 %<!--=given--> and **3.14**<!--=given-->, 1.5B<!--=given-->",
    ],
)
def test_what_is_no_number_in_prose_is_left_alone(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_comments_in_captions_are_checked(tmp_path: Path) -> None:
    options = "---\nmystnb:\n  figure:\n    caption: A loss of 2.42<!--=loss:.2f-->.\n---\n"
    path = write_chapter(tmp_path, cell("x = '2.43<!--=loss:.2f-->'", options=options))
    store(tmp_path, path, VALUES)
    assert ["the prose says '2.42'" in problem for problem in prose.check(tmp_path)] == [True]


def test_update_writes_the_numbers_and_nothing_else(tmp_path: Path) -> None:
    before = (
        "Über 9.99<!--=loss:.2f--> and **9**<!--=n:,-->, 9 %<!--=share:.0%-->, "
        "9%<!--=share:.1%-->, `9`<!--=phrase-->, $9$<!--=loss:.3f-->, dog<!--=word-->, "
        "9<!--=given-->, 12.41<!--=loss:.2f-->"
    )
    after = (
        "Über 2.41<!--=loss:.2f--> and **1,234**<!--=n:,-->, 87 %<!--=share:.0%-->, "
        "87.4%<!--=share:.1%-->, `the cat`<!--=phrase-->, $2.414$<!--=loss:.3f-->, "
        "cat<!--=word-->, 9<!--=given-->, 2.41<!--=loss:.2f-->"
    )
    path = chapter(tmp_path, before)
    expected = path.read_text(encoding="utf-8").replace(before, after)
    assert prose.update(tmp_path) == []
    assert path.read_text(encoding="utf-8") == expected
    assert check_notebooks(tmp_path) == []  # the stored notebook has the new prose, too
    assert prose.update(tmp_path) == []
    assert path.read_text(encoding="utf-8") == expected


def test_update_leaves_and_reports_what_it_cannot_write(tmp_path: Path) -> None:
    path = chapter(tmp_path, "some<!--=n--> and 9<!--=lost--> and 9.9<!--=loss:.1f-->")
    found = prose.update(tmp_path)
    assert "some<!--=n--> and 9<!--=lost--> and 2.4<!--=loss:.1f-->" in path.read_text()
    assert ["'some'" in found[0], "'lost' is not recorded" in found[1]] == [True, True]
    assert len(found) == 2


def test_update_does_not_take_values_from_a_stale_notebook(tmp_path: Path) -> None:
    chapter(tmp_path, "9.99<!--=loss:.2f-->")
    path = write_chapter(tmp_path, "9.99<!--=loss:.2f-->", cell("record(..., 1)"))
    text = path.read_text()
    assert "out of date: run `make execute` first" in prose.update(tmp_path)[0]
    assert path.read_text() == text


def test_a_name_is_recorded_once(tmp_path: Path) -> None:
    path = write_chapter(tmp_path, "2.41<!--=loss:.2f-->", cell("1"), cell("2"))
    store(tmp_path, path, {"loss": 2.4137}, {"loss": 2.5})
    assert ["code cell 2 records loss" in problem for problem in prose.check(tmp_path)] == [True]
    store(tmp_path, path, {"loss": 2.4137}, {"given": 2.5})
    assert ["code cell 2 records given" in problem for problem in prose.check(tmp_path)] == [True]


def test_a_chapter_that_was_never_executed_is_reported(tmp_path: Path) -> None:
    write_chapter(tmp_path, "2.41<!--=loss:.2f-->", cell("1"))
    assert prose.check(tmp_path) == [
        "chapters/01_small.md: it was never executed: run `make execute`"
    ]


def test_nothing_but_arithmetic_is_evaluated() -> None:
    for body in (
        "__import__('os')",
        "loss if n else n",
        "loss < n",
        "'a'*9",
        "f'{n}'",
        "round(loss, ndigits=1)",
    ):
        with pytest.raises(ProseError):
            expected_text(body, VALUES)
