"""The exercises of chapter 2."""

from gptbook.grading.ch02_language_models import (
    batches_bank,
    bits_per_byte,
    entropy_rate,
    perplexity_bank,
    trigram_bank,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "02_language_models"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "2.1": bits_per_byte.PART,
        "2.2": perplexity_bank.PART,
        "2.3": trigram_bank.PART,
        "2.4": entropy_rate.PART,
        "2.5": batches_bank.PART,
    }
    return Chapter(
        2,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
