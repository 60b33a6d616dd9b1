"""Finding a chapter's exercises, and the files that have their answers."""

import importlib
import pkgutil
import re
from pathlib import Path

import gptbook.grading
from gptbook.grading.exercise import Chapter

_MODULE = re.compile(r"ch(\d\d)_\w+")
_EXERCISE = re.compile(r"(\d+)\.\d+")
_ANSWER_FOLDERS = ("solutions", "book/notebooks/solutions", "book/colab/solutions")


def chapter_modules() -> dict[int, str]:
    """Names of the modules that declare exercises, by the chapter's number."""
    found = {}
    for item in pkgutil.iter_modules(gptbook.grading.__path__):
        match = _MODULE.fullmatch(item.name)
        if match:
            found[int(match[1])] = f"gptbook.grading.{item.name}"
    return found


def load_chapter(number: int) -> Chapter:
    """The exercises of a chapter.

    Raises:
        ValueError: the chapter has none.
    """
    modules = chapter_modules()
    if number not in modules:
        known = ", ".join(str(known) for known in sorted(modules)) or "none"
        raise ValueError(f"no exercises for chapter {number}; chapters that have some: {known}")
    chapter: Chapter = importlib.import_module(modules[number]).chapter()
    return chapter


def chapter_of(exercise: str) -> int:
    """The chapter's number in an exercise's, such as 1 for ``"1.2"``.

    Raises:
        ValueError: it is not an exercise's number.
    """
    match = _EXERCISE.fullmatch(exercise) if isinstance(exercise, str) else None
    if not match:
        raise ValueError(f'an exercise is named by a string such as "1.2", got {exercise!r}')
    return int(match[1])


def answer_files(*folders: Path) -> tuple[str, ...]:
    """Files and folders that a reader's code may not read, because they have the answers.

    Args:
        folders: where a copy of the book may be: the working directory, a submission's folder.
    """
    package = Path(gptbook.grading.__file__).parent
    modules = [str(path) for path in package.glob("ch[0-9][0-9]_*")]
    roots = {package.parents[1], *(root for folder in folders for root in (folder, folder.parent))}
    return (*modules, *(str(root / name) for root in sorted(roots) for name in _ANSWER_FOLDERS))
