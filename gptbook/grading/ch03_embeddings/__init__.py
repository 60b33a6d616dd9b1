"""The exercises of chapter 3."""

from gptbook.grading.ch03_embeddings import (
    offset_rotation_bank,
    rotary_bank,
    stretching_bank,
    table_gradient_bank,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "03_embeddings"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "3.1": table_gradient_bank.PART,
        "3.2": offset_rotation_bank.PART,
        "3.3": rotary_bank.PART,
        "3.4": stretching_bank.PART,
    }
    return Chapter(
        3,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
