"""The exercises of chapter 4."""

from gptbook.grading.ch04_attention import (
    backward_bank,
    grouped_bank,
    masked_bank,
    multi_head_bank,
    online_bank,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "04_attention"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "4.1": masked_bank.PART,
        "4.2": multi_head_bank.PART,
        "4.3": grouped_bank.PART,
        "4.4": online_bank.PART,
        "4.5": backward_bank.PART,
    }
    return Chapter(
        4,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
