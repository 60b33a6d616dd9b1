"""The gates on the book's own notebooks.

That they give their stored outputs again takes as long as the book: `python -m book.tools.verify`,
a step of `make test`.
"""

from book.tools import execute, prose
from book.tools.project import ROOT, chapter_paths


def test_there_are_chapters() -> None:
    assert chapter_paths(ROOT), "no chapters: the gates below would check nothing"


def test_stored_notebooks_are_what_the_sources_give() -> None:
    problems = execute.check(ROOT)
    assert not problems, "\n".join(problems)


def test_numbers_in_prose_are_the_recorded_ones() -> None:
    problems = prose.check(ROOT)
    assert not problems, "\n".join(problems)
