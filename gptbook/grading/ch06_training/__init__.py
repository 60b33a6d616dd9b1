"""The exercises of chapter 6."""

from gptbook.grading.ch06_training import (
    accumulation_bank,
    adamw_bank,
    clipping_bank,
    resuming_bank,
    schedule_bank,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "06_training"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "6.1": adamw_bank.PART,
        "6.2": clipping_bank.PART,
        "6.3": schedule_bank.PART,
        "6.4": accumulation_bank.PART,
        "6.5": resuming_bank.PART,
    }
    return Chapter(
        6,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
