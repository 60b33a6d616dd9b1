"""The exercises of chapter 1."""

from gptbook.grading.ch01_tokenizer import (
    encoding,
    fast_training_bank,
    special,
    streams,
    training,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "01_tokenizer"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "1.1": training.PART,
        "1.2": encoding.PART,
        "1.3": special.PART,
        "1.4": streams.PART,
        "1.5": fast_training_bank.PART,
    }
    return Chapter(
        1,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
