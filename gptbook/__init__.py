"""gptbook: the package that the chapters of the book export.

Importing it has no side effect and loads no heavy library; import the module you need, such as
``gptbook.tokenizer``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gptbook")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
