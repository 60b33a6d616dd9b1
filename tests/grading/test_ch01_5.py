"""Exercise 1.5 meets the rules for exercises; its bank, which is slow, has a file of its own."""

from tests.grading.rules import check_declaration, check_solution


def test_declaration() -> None:
    check_declaration("1.5")


def test_solution_on_20_seeds() -> None:
    check_solution("1.5")
