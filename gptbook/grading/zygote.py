"""A small process that has the libraries loaded and forks an isolated process for each job.

Run as ``python -m gptbook.grading.zygote FOLDER [MODULE ...]`` by :mod:`gptbook.grading.runner`. It
reads a line of JSON for each job from its standard input and answers with a line on its standard
output. When its input ends, also because the grader was killed, it removes the runner's folder. It
holds no reference and no expected value, so neither do the processes that it forks; and it never
runs a reader's code itself, so each job starts from the same clean state.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gptbook.grading.worker import run_job, set_process_option

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.002


def main(argv: Sequence[str]) -> int:
    """Load the modules that ``argv`` names, then serve jobs until the standard input ends."""
    folder, *modules = argv
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.enable()
    gc.freeze()  # a collection in a job would otherwise copy nearly all memory it has from here
    if sys.platform == "linux":
        set_process_option(_PR_SET_CHILD_SUBREAPER, 1)  # orphans come to us, and we end them
    requests, answers = _take_over_standard_streams()
    with os.fdopen(answers, "w", encoding="utf-8", buffering=1) as out:
        out.write("ready\n")
        for line in iter(lambda: _read_line(requests), ""):
            job = json.loads(line)
            answer = _serve(Path(job["folder"]), job["wall_seconds"], requests)
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it: the input ends next
                out.write(json.dumps(answer) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(BrokenPipeError):
            out.close()
    return 0


def _take_over_standard_streams() -> tuple[int, int]:
    """Move the protocol to other descriptors, out of reach of what a library may print."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    return requests, answers


def _read_line(descriptor: int) -> str:
    """One line, unbuffered, so that ``select`` sees whatever has not been read."""
    data = b""
    while not data.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return ""
        data += byte
    return data.decode("utf-8")


def _serve(folder: Path, wall_seconds: float, requests: int) -> dict[str, float]:
    """Fork, wait, and end all that is left.

    Returns:
        ``status`` (wait status of the process), ``late`` (it ran into the wall-clock limit),
        ``cpu`` (its processor seconds) and ``left`` (how many processes it left behind).
    """
    worker = os.fork()
    if worker == 0:
        run_job(folder)
    status, late, cpu = _wait(worker, time.monotonic() + wall_seconds, requests)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    return {"status": status, "late": late, "cpu": cpu, "left": _end_orphans()}


def _wait(worker: int, deadline: float, requests: int) -> tuple[int, bool, float]:
    """Wait until a process ends; kill it when time is up or nobody waits for its results."""
    late = False
    while True:
        ended, status, usage = os.wait4(worker, os.WNOHANG)
        if ended:
            return status, late, usage.ru_utime + usage.ru_stime
        abandoned = bool(select.select([requests], [], [], _POLL_SECONDS)[0])
        late = time.monotonic() > deadline
        if late or abandoned:
            os.kill(worker, signal.SIGKILL)
            _, status, usage = os.wait4(worker, 0)
            return status, late, usage.ru_utime + usage.ru_stime


def _end_orphans() -> int:
    """Kill and reap processes that the job started and left, also those that left its session."""
    count = 0
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return count
        if ended:
            count += 1
            continue
        for orphan in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _children() -> list[int]:
    """Processes whose parent is this one, from /proc (children to wait for exist on Linux only)."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid ...: the name may hold spaces and parentheses
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                children.append(int(path.parent.name))
    return children


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
