"""The grader behind the book's exercises.

In a notebook: ``from gptbook.grading import grade`` and ``grade("1.2", my_function)``; in a shell:
``gptbook grade 1``. A reader's code runs in processes of its own, with limits; see
:mod:`gptbook.grading.runner` for what that protects and what it does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptbook.grading.notebook import grade, hint
    from gptbook.grading.overlay import use_mine

__all__ = ["grade", "hint", "use_mine"]

_HOMES = {
    "grade": "gptbook.grading.notebook",
    "hint": "gptbook.grading.notebook",
    "use_mine": "gptbook.grading.overlay",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: the command line must not load numpy to print its help."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
