"""A reader's own functions in place of the book's: ``gptbook adopt``, and ``use_mine()``.

An adopted function is kept as source, with the name in the package that it stands for. When
:func:`use_mine` is on, each module of the package gets the adopted functions right after it is
loaded, before any other module can take the book's ones from it.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gptbook.grading.exercise import Part
from gptbook.grading.program import slice_program
from gptbook.grading.submission import Submission

_FORMAT = 2


class OverlayError(ValueError):
    """The file of adopted functions is not ours, or they cannot be used any more."""


@dataclass(frozen=True)
class Adopted:
    """A reader's function that stands for one of the book's.

    Attributes:
        exercise: number of the exercise that it solves.
        function: its name.
        replaces: ``"module:name"`` of what it stands for.
        source: Python text that defines it.
        label: the file that it came from.
        adapter: see :class:`~gptbook.grading.exercise.Part`.
    """

    exercise: str
    function: str
    replaces: str
    source: str
    label: str
    adapter: str


def overlay_file() -> Path:
    """Where adopted functions are kept: in the user's data folder."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "gptbook" / "adopted.json"


def load_adopted(path: Path) -> list[Adopted]:
    """The adopted functions; none where there is no file.

    Raises:
        OverlayError: the file is not one that :func:`adopt` wrote.
    """
    if not path.is_file():
        return []
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise OverlayError(f"{path}: format {data['format']!r}, expected {_FORMAT}")
        return [Adopted(**item) for item in data["adopted"]]
    except (ValueError, KeyError, TypeError) as error:
        raise OverlayError(f"{path} is damaged ({error}); remove it and adopt again") from error


def adopt(
    path: Path, exercise: str, parts: Sequence[Part], submission: Submission
) -> list[Adopted]:
    """Keep a submission's functions of an exercise; they take the place of older ones of it.

    Args:
        path: the file of adopted functions.
        exercise: the exercise's number.
        parts: the exercise's parts; those that stand for nothing of the book are left out.
        submission: where the functions are.

    Returns:
        What was adopted.

    Raises:
        ValueError: nothing in the book can be replaced by it.
        ProgramError: the submission lacks a function.
    """
    new = [
        Adopted(
            exercise,
            part.function,
            part.replaces,
            slice_program(submission.cells, part.function).source,
            submission.label,
            part.adapter,
        )
        for part in parts
        if part.replaces
    ]
    if not new:
        raise ValueError(f"later chapters do not use what exercise {exercise} asks for")
    kept = [item for item in load_adopted(path) if item.exercise != exercise]
    _save(path, [*kept, *new])
    return new


def drop(path: Path, exercise: str) -> None:
    """Forget what was adopted for an exercise.

    Raises:
        ValueError: nothing was.
    """
    items = load_adopted(path)
    kept = [item for item in items if item.exercise != exercise]
    if len(kept) == len(items):
        raise ValueError(f"nothing is adopted for exercise {exercise}")
    _save(path, kept)


def _save(path: Path, items: Sequence[Adopted]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"format": _FORMAT, "adopted": [asdict(item) for item in items]}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
    Path(name).replace(path)


def use_mine(path: Path | None = None) -> None:
    """From now on, load the package with the adopted functions in it, and say which they are.

    Call it before importing from the package.

    Raises:
        OverlayError: a module that would change is loaded already, or the file is damaged.
    """
    items = load_adopted(path or overlay_file())
    if not items:
        print("No function is adopted yet: see `gptbook adopt`.")
        return
    modules = {item.replaces.split(":")[0] for item in items}
    loaded = sorted(modules & set(sys.modules))
    if loaded:
        raise OverlayError(f"{', '.join(loaded)} is loaded already: call use_mine() first")
    sys.meta_path.insert(0, _Finder(items))
    for item in items:
        print(f"Yours: {item.replaces.replace(':', '.')} (exercise {item.exercise}, {item.label})")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that change as usual, and has a :class:`_Loader` load them."""

    def __init__(self, items: Sequence[Adopted]) -> None:
        self._items: Mapping[str, list[Adopted]] = {
            name: [item for item in items if item.replaces.split(":")[0] == name]
            for name in {item.replaces.split(":")[0] for item in items}
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See :meth:`importlib.abc.MetaPathFinder.find_spec`."""
        if name not in self._items:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader, self._items[name])
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as usual, then puts the adopted functions in."""

    def __init__(self, loader: importlib.abc.Loader, items: Sequence[Adopted]) -> None:
        self._loader = loader
        self._items = items

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """See :meth:`importlib.abc.Loader.create_module`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See :meth:`importlib.abc.Loader.exec_module`."""
        self._loader.exec_module(module)
        for item in self._items:
            *owners, name = item.replaces.split(":")[1].split(".")
            place: Any = module
            for owner in owners:
                place = getattr(place, owner)
            if not hasattr(place, name):
                raise OverlayError(f"{item.replaces} is no longer in the book: adopt it anew")
            setattr(place, name, _define(item))


def _define(item: Adopted) -> Any:
    """Run an adopted function in a namespace of its own; return what replaces the book's."""
    namespace: dict[str, Any] = {"__name__": f"adopted_{item.function}"}
    exec(compile(item.source, f"<your {item.function}>", "exec"), namespace)
    if not item.adapter:
        return namespace[item.function]
    around = {item.function: namespace[item.function]}
    exec(compile(item.adapter, f"<around your {item.function}>", "exec"), around)
    return around["replacement"]
