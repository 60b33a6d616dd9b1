# Exported from chapters/02_language_models.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Checks of arguments that several modules share."""

import numbers


def checked_integer(value: object, name: str, least: int | None = None) -> int:
    """Return value as an int, or raise TypeError or ValueError if it is none or below `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)
