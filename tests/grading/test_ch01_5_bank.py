"""Exercise 1.5's styles, stubs and mistakes, of which several are measured."""

from tests.grading.rules import check_bank


def test_styles_stubs_and_mistakes() -> None:
    check_bank("1.5")
