"""Runs a reader's program in isolated processes and tells what became of each call.

Three kinds of process: the grader, which has the references and judges; one zygote, with the
libraries loaded; and one short-lived process for each check, forked from the zygote (see
:mod:`gptbook.grading.worker` for what it may do). What comes back is JSON text, read by
:mod:`gptbook.grading.values`; nothing that a reader's code made is unpickled or called here.

This protects the session, and a score's honesty, from accidents. It is not a wall against someone
who wants to cheat on their own machine.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gptbook.grading.limits import Limits
from gptbook.grading.outcomes import NotReached, Outcome, Raised, Returned, StopKind, Stopped
from gptbook.grading.program import Program
from gptbook.grading.values import ValueFormatError, decode, encode
from gptbook.grading.worker import REQUEST, RESULTS, ROOM_FOR_EVENTS

# One thread, and sets in the same order each time: the same seed gives the same report.
_STEADY = {"PYTHONHASHSEED": "0"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
_SIGNALS: dict[int, str] = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGABRT: "abort",
    signal.SIGKILL: "killed by the system, often for want of memory",
}


@dataclass(frozen=True)
class Job:
    """One isolated process's work.

    Attributes:
        program: the code.
        cases: the arguments of each call of the probe.
        probe: a name of :data:`gptbook.grading.probes.PROBES`.
        limits: what the process may use.
        forbidden_modules: modules it may not import.
        forbidden_files: files and folders it may not read.
    """

    program: Program
    cases: Sequence[tuple[Any, ...]]
    probe: str = "call"
    limits: Limits = field(default_factory=Limits)
    forbidden_modules: tuple[str, ...] = ()
    forbidden_files: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The request that the isolated process reads."""
        return json.dumps(
            {
                "target": self.program.target,
                "source": self.program.source,
                "provided": dict(self.program.provided),
                "search_path": list(self.program.search_path),
                "cases": [encode(list(args)) for args in self.cases],
                "probe": self.probe,
                "limits": asdict(self.limits),
                "forbidden_modules": list(self.forbidden_modules),
                "forbidden_files": list(self.forbidden_files),
            }
        )


class RunnerError(OSError):
    """The grader's own processes failed, which is nobody's mistake but the grader's."""


class Runner:
    """Starts isolated processes, one at a time. Use it as a context manager.

    Args:
        preload: modules that each process has loaded from the start.
    """

    def __init__(self, preload: Sequence[str] = ("numpy",)) -> None:
        if sys.platform == "win32":
            raise RunnerError("grading needs Linux or macOS; on Windows use WSL")
        self._preload = tuple(preload)
        self._folder = Path(tempfile.mkdtemp(prefix="gptbook-grading-"))
        self._zygote: subprocess.Popen[str] | None = None
        self._count = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, also one that another thread waits for, and remove their files."""
        self._closed = True
        self._end_zygote()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, job: Job) -> list[Outcome]:
        """Run all cases of a job in one process.

        Returns:
            An outcome for each case. Where the process was stopped, the case in which it happened
            says why, and those after it were not reached.

        Raises:
            RunnerError: the process that starts the others does not answer; or this one is closed.
        """
        if self._closed:
            raise RunnerError("this runner is closed; make another one")
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir(parents=True)
        (folder / REQUEST).write_text(job.to_json(), encoding="utf-8")
        answer = self._ask(folder, job.limits)
        events = _read_events(folder / RESULTS, job)
        shutil.rmtree(folder, ignore_errors=True)
        return _outcomes(job, events, answer)

    def _ask(self, folder: Path, limits: Limits) -> Mapping[str, float]:
        """Have the zygote run a folder's job; a job that kills the zygote has crashed."""
        zygote = self._zygote or self._start_zygote()
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        request = json.dumps({"folder": str(folder), "wall_seconds": limits.wall_seconds})
        try:
            zygote.stdin.write(request + "\n")
            zygote.stdin.flush()
            line = zygote.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._end_zygote()
            return {"status": int(signal.SIGKILL), "late": 0, "cpu": 0, "left": 0}
        answer: Mapping[str, float] = json.loads(line)
        return answer

    def _start_zygote(self) -> subprocess.Popen[str]:
        self._zygote = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "gptbook.grading.zygote",
                str(self._folder),
                *self._preload,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=self._folder,
            env={**os.environ, **_STEADY, "PYTHONPATH": os.pathsep.join(_absolute_path())},
            start_new_session=True,  # Ctrl-C is for the grader, which then ends its children
        )
        assert self._zygote.stdout is not None
        assert self._zygote.stderr is not None
        if self._zygote.stdout.readline() != "ready\n":
            reason = self._zygote.stderr.read().strip().splitlines()[-1:]
            self._end_zygote()
            raise RunnerError(f"cannot start a process to grade in: {''.join(reason)}")
        return self._zygote

    def _end_zygote(self) -> None:
        """Close its input, at which it ends its job and itself."""
        zygote, self._zygote = self._zygote, None
        if zygote is None:
            return
        for stream in (zygote.stdin, zygote.stdout, zygote.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # closing writes what is left to write
                    stream.close()
        try:
            zygote.wait(timeout=5)
        except subprocess.TimeoutExpired:
            zygote.kill()
            zygote.wait()


def _absolute_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path if entry]


def _read_events(path: Path, job: Job) -> list[dict[str, Any]]:
    """Events that the process wrote; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = file.read(job.limits.output_bytes + ROOM_FOR_EVENTS).split(b"\n")[:-1]
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and event.get("case") in range(-1, len(job.cases)):
            events.append(event)
        else:
            events.append({"event": "stopped", "case": 0, "kind": "unreadable", "detail": "text"})
    return events


def _outcomes(
    job: Job, events: Sequence[Mapping[str, Any]], answer: Mapping[str, float]
) -> list[Outcome]:
    count, limits = len(job.cases), job.limits
    outcomes: list[Outcome] = [NotReached()] * count
    last = -1
    for event in events:
        last = event["case"]
        outcome = _outcome(event)
        if outcome is not None:
            outcomes[max(last, 0)] = outcome
        if isinstance(outcome, Stopped):
            return _cut(outcomes, max(last, 0))
    if not events or events[-1].get("event") != "done":
        stopped = _sudden_end(answer, limits, loading=last < 0)
        outcomes[max(last, 0)] = stopped
        return _cut(outcomes, max(last, 0))
    if answer["left"]:
        outcomes[-1] = Stopped(StopKind.PROCESS, "one was still running at the end")
    return outcomes


def _cut(outcomes: list[Outcome], last: int) -> list[Outcome]:
    return outcomes[: last + 1] + [NotReached()] * (len(outcomes) - last - 1)


def _outcome(event: Mapping[str, Any]) -> Outcome | None:
    loading = event["case"] < 0
    try:
        match event.get("event"):
            case "returned":
                changed = tuple(int(position) for position in event["changed"])
                return Returned(decode(event["value"]), changed)
            case "raised":
                kind, message, where = (str(event[key]) for key in ("type", "message", "where"))
                return Raised(kind, message, where, loading)
            case "stopped":
                return Stopped(StopKind(event["kind"]), str(event["detail"]), loading)
    except (KeyError, TypeError, ValueError, RecursionError, ValueFormatError) as error:
        return Stopped(StopKind.UNREADABLE, f"{type(error).__name__}", loading)
    return None


def _sudden_end(answer: Mapping[str, float], limits: Limits, loading: bool) -> Stopped:
    """Why a process ended that did not say goodbye."""
    if answer["late"]:  # on a busy machine, time may be up before the processor time is
        busy = answer["cpu"] > limits.cpu_seconds / 4
        return Stopped(StopKind.CPU if busy else StopKind.WALL, loading=loading)
    status = int(answer["status"])
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # SIGKILL with all of its time used: it ignored SIGXCPU, and met the limit a second later.
        used_up = number == signal.SIGKILL and answer["cpu"] >= limits.cpu_seconds
        if number == signal.SIGXCPU or used_up:
            return Stopped(StopKind.CPU, loading=loading)
        return Stopped(StopKind.CRASH, _SIGNALS.get(number, f"signal {number}"), loading)
    return Stopped(StopKind.EXIT, f"exit code {os.WEXITSTATUS(status)}", loading)
