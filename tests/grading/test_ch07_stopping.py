"""Exercise 7.4 meets the rules for exercises."""

from tests.grading.rules import check_bank, check_declaration, check_solution


def test_declaration() -> None:
    check_declaration("7.4")


def test_solution_on_20_seeds() -> None:
    check_solution("7.4")


def test_styles_stubs_and_mistakes() -> None:
    check_bank("7.4")
