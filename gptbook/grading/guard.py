"""Watches what a reader's code does to the world around it, inside the isolated process.

An audit hook sees files, processes, connections and ``input()`` before they happen, and a finder
sees imports. What is not allowed is reported at once and refused with an exception that
``except Exception`` does not swallow. This keeps accidents from doing harm and keeps a score
honest; it is no wall against someone who wants to break out, who can call into C and go round every
hook.
"""

import builtins
import importlib.abc
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

from gptbook.grading.outcomes import StopKind
from gptbook.grading.shortcuts import is_inside

PROGRAM_FILE = "<your code>"
"""File name under which a reader's program is compiled."""

GUARDED_MODULES = (
    "builtins",
    "json",
    "math",
    "numpy",
    "numpy.linalg",
    "numpy.testing",
    "pytest",
    "random",
    "time",
    "torch",
    "torch.nn.functional",
    "torch.testing",
)
"""Modules whose public names a reader's code may not replace."""

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATH_EVENTS = (
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
    *("os.symlink", "os.truncate", "os.utime", "shutil.rmtree"),
)
_PROCESS_EVENTS = (
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("pty.spawn", "subprocess.Popen"),
)
_SIGNAL_EVENTS = ("os.kill", "os.killpg")
_NETWORK_EVENTS = ("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto")

Report = Callable[[StopKind, str], None]


class RefusedError(BaseException):
    """Raised in a reader's code at what it may not do; no ``Exception``, so rarely swallowed."""


class Guard:
    """Refuses what is not allowed, once :meth:`watch` is called. It cannot be removed.

    Args:
        report: told of each refusal before the exception is raised.
        home: the only folder in which files may be written.
        forbidden_modules: modules that the reader's code may not import.
        forbidden_files: files and folders that it may not read.
    """

    def __init__(
        self,
        report: Report,
        home: Path,
        forbidden_modules: Iterable[str],
        forbidden_files: Iterable[str],
    ) -> None:
        self._report = report
        self._home = os.path.realpath(home)
        self._modules = tuple(forbidden_modules)
        self._files = tuple(os.path.realpath(path) for path in forbidden_files)
        self._busy = False
        self._handlers: dict[str, Callable[[tuple[Any, ...]], None]] = {
            "open": self._on_open,
            "builtins.input": lambda args: self._refuse(StopKind.INPUT, ""),
        }
        self._add(_PATH_EVENTS, self._on_path_change)
        self._add(_NETWORK_EVENTS, self._on_network)
        self._add(_SIGNAL_EVENTS, self._on_signal)
        for event in _PROCESS_EVENTS:
            self._handlers[event] = self._refuse_process(event)

    def _add(self, events: Iterable[str], handler: Callable[[tuple[Any, ...]], None]) -> None:
        self._handlers.update(dict.fromkeys(events, handler))

    def watch(self) -> None:
        """Start watching; from now on until the process ends."""
        sys.meta_path.insert(0, _ImportWatcher(self._on_import))
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        handler = self._handlers.get(event)
        if handler is None or self._busy:
            return
        self._busy = True  # what the guard itself opens and imports is not the reader's
        try:
            handler(args)
        finally:
            self._busy = False

    def _refuse(self, kind: StopKind, detail: str) -> None:
        self._report(kind, detail)
        raise RefusedError(f"{kind}: {detail}")

    def _refuse_process(self, event: str) -> Callable[[tuple[Any, ...]], None]:
        return lambda args: self._refuse(StopKind.PROCESS, event)

    def _on_open(self, args: tuple[Any, ...]) -> None:
        path, _, flags = args
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a file descriptor that is open already
        real = os.path.realpath(os.fsdecode(path))
        if isinstance(flags, int) and flags & _WRITE_FLAGS:
            self._check_write(real)
        elif any(_within(real, file) for file in self._files) and not _imported_by_the_book():
            self._refuse(StopKind.READ, _short(real))

    def _on_path_change(self, args: tuple[Any, ...]) -> None:
        for path in args[:2]:
            if isinstance(path, str | bytes | os.PathLike):
                self._check_write(os.path.realpath(os.fsdecode(path)))

    def _check_write(self, real: str) -> None:
        if real == "/dev/tty":  # getpass asks there
            self._refuse(StopKind.INPUT, "")
        if not _within(real, self._home) and real != os.devnull:
            self._refuse(StopKind.WRITE, _short(real))

    def _on_import(self, name: str) -> None:
        if any(is_inside(name, module) for module in self._modules) and not _imported_by_the_book():
            self._refuse(StopKind.IMPORT, name)

    def _on_network(self, args: tuple[Any, ...]) -> None:
        self._refuse(StopKind.NETWORK, " ".join(str(arg) for arg in args[:2] if _is_plain(arg)))

    def _on_signal(self, args: tuple[Any, ...]) -> None:
        if args[0] != os.getpid():
            self._refuse(StopKind.PROCESS, f"os.kill({args[0]})")


class _ImportWatcher(importlib.abc.MetaPathFinder):
    """Sees every import of what is not loaded yet, also those that raise no audit event."""

    def __init__(self, on_import: Callable[[str], None]) -> None:
        self._on_import = on_import

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Find nothing, so that the import goes on, unless it is refused."""
        self._on_import(name)


class Snapshot:
    """The public names of the guarded modules, to see which ones a reader's code replaced."""

    def __init__(self) -> None:
        loaded = [sys.modules[name] for name in GUARDED_MODULES if name in sys.modules]
        self._names = [(module, _public(module)) for module in loaded]

    def restore(self) -> list[str]:
        """Put back what was replaced, and name it (``"torch.allclose"``).

        A library may wrap a function of its own: torch does when ``torch._dynamo`` is first needed,
        as by an optimizer's step. The wrapper calls the same function, so it stays.
        """
        replaced = []
        for module, names in self._names:
            current = module.__dict__
            for name, value in names.items():
                now = current.get(name)
                if now is not value and not _wraps(module, now, value):
                    current[name] = value
                    replaced += [f"{module.__name__}.{name}"]
        return replaced


def _public(module: ModuleType) -> Mapping[str, Any]:
    """Names worth guarding; ``_`` is IPython's last result, and modules come and go lazily."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and (module is builtins or not name.startswith("_"))
    }


def _wraps(module: ModuleType, now: object, before: object) -> bool:
    """Whether a function that was made in the module's own package holds the one before it."""
    if not isinstance(now, FunctionType):
        return False
    package = module.__name__.partition(".")[0]
    if not is_inside(str(now.__globals__.get("__name__", "")), package):
        return False
    return any(cell.cell_contents is before for cell in now.__closure__ or ())


def _imported_by_the_book() -> bool:
    """Whether the event comes from an import inside a module of gptbook, but for the grader's own.

    The grader imports the bank of mistakes, so whoever calls it could read the references.
    """
    frame: FrameType | None = sys._getframe(2)
    importing = False
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.split(".")[0] in ("importlib", "_frozen_importlib", "_frozen_importlib_external"):
            importing = True
        elif importing:
            return is_inside(name, "gptbook") and not is_inside(name, "gptbook.grading")
        frame = frame.f_back
    return False


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


def _short(path: str) -> str:
    return os.sep.join(Path(path).parts[-2:]).lstrip(os.sep) if len(path) > 40 else path


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | tuple)
