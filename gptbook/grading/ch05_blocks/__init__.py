"""The exercises of chapter 5."""

from gptbook.grading.ch05_blocks import (
    layer_norm_bank,
    loader_bank,
    parameters_bank,
    rms_norm_bank,
    stream_bank,
)
from gptbook.grading.exercise import Chapter, Exercise
from gptbook.grading.statements import load_statements

SOURCE = "05_blocks"


def chapter() -> Chapter:
    """Declare the chapter's exercises."""
    statements = load_statements(SOURCE)
    parts = {
        "5.1": layer_norm_bank.PART,
        "5.2": rms_norm_bank.PART,
        "5.3": stream_bank.PART,
        "5.4": parameters_bank.PART,
        "5.5": loader_bank.PART,
    }
    return Chapter(
        5,
        SOURCE,
        tuple(
            Exercise(name, statements[name].title, (part,), statements[name].hints)
            for name, part in parts.items()
        ),
    )
