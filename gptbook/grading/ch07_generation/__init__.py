"""The exercises of chapter 7."""

from gptbook.grading.ch07_generation import (
    cached_bank,
    cutting_bank,
    guessing_bank,
    stopping_bank,
    temperature_bank,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "07_generation"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "7.1": temperature_bank.PART,
        "7.2": cutting_bank.PART,
        "7.3": cached_bank.PART,
        "7.4": stopping_bank.PART,
        "7.5": guessing_bank.PART,
    }
    return Chapter(
        7,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
