"""What became of one call of a reader's function, as the grader sees it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gptbook.grading.limits import MIB, Limits


class StopKind(StrEnum):
    """Why the isolated process was stopped, or what it did that it may not do."""

    CPU = "cpu"
    WALL = "wall"
    MEMORY = "memory"
    CRASH = "crash"
    EXIT = "exit"
    OUTPUT = "output"
    INPUT = "input"
    PATCH = "patch"
    THREAD = "thread"
    PROCESS = "process"
    NETWORK = "network"
    READ = "read"
    WRITE = "write"
    IMPORT = "import"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Returned:
    """The function gave a value.

    Attributes:
        value: decoded; plain data or :class:`~gptbook.grading.values.Opaque`.
        changed: positions of the arguments that the function changed.
    """

    value: Any
    changed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Raised:
    """The function, or the code around it, raised an exception.

    Attributes:
        type_name: name of the exception's class.
        message: its text, one line.
        where: the reader's own line that raised it, empty where unknown.
        loading: it happened before the function was called.
    """

    type_name: str
    message: str
    where: str = ""
    loading: bool = False


@dataclass(frozen=True)
class Stopped:
    """The process did not come to the end of its work, or did what it may not do."""

    kind: StopKind
    detail: str = ""
    loading: bool = False


@dataclass(frozen=True)
class NotReached:
    """An earlier call of the same process ended it."""


Outcome = Returned | Raised | Stopped | NotReached


def describe(outcome: Raised | Stopped, limits: Limits) -> str:
    """Say what happened, as a predicate whose subject is the call."""
    if isinstance(outcome, Stopped):
        return _STOPS[outcome.kind].format(
            cpu=f"{limits.cpu_seconds:g} s",
            wall=f"{limits.wall_seconds:g} s",
            memory=f"{limits.memory_bytes / MIB:g} MiB",
            output=f"{limits.output_bytes / MIB:g} MiB",
            detail=outcome.detail,
        )
    at = f" at `{outcome.where}`" if outcome.where else ""
    text = f": {outcome.message}" if outcome.message else ""
    return f"raises {outcome.type_name}{text}{at}"


_STOPS = {
    StopKind.CPU: "was still computing when its {cpu} of processor time were up: an endless loop, "
    "or far too slow",
    StopKind.WALL: "had not returned after {wall}: it waits for something that never comes",
    StopKind.MEMORY: "asks for more than {memory} of memory",
    StopKind.CRASH: "crashes the Python process ({detail})",
    StopKind.EXIT: "ends the Python process ({detail}) where it should return",
    StopKind.OUTPUT: "prints, writes or returns more than {output}",
    StopKind.INPUT: "asks for input(); what it needs comes in as arguments",
    StopKind.PATCH: "replaces {detail} for the whole program; change nothing outside your function",
    StopKind.THREAD: "leaves {detail} running after it has returned",
    StopKind.PROCESS: "starts or signals another process ({detail})",
    StopKind.NETWORK: "opens a network connection ({detail})",
    StopKind.READ: "reads {detail}, which has the answer",
    StopKind.WRITE: "writes to {detail}, outside the temporary folder it runs in",
    StopKind.IMPORT: "imports {detail}, which is what this exercise asks you to write",
    StopKind.UNREADABLE: "gives back something that cannot be read ({detail})",
}
