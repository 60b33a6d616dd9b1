"""The command line: ``gptbook`` and ``python -m gptbook.app``."""

from gptbook.app.main import main

__all__ = ["main"]
