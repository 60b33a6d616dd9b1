"""The exercises of chapter 6."""

from gptbook.grading.ch06_training import adamw_bank
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "06_training"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    parts = {"6.1": adamw_bank.PART}
    return Chapter(
        6,
        SOURCE,
        tuple(
            Exercise(name, name, (part,), ("1", "2", "3", "4")) for name, part in parts.items()
        ),
    )
