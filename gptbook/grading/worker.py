"""What runs in an isolated process: a reader's program, once, on the cases of one check.

A job is a folder. ``request.json`` says what to run; ``home/`` is the reader's working folder, and
the only one it may write to; ``output.txt`` takes what is printed; ``results.jsonl`` takes one line
for each event. The grader reads that file when the process has ended, whatever ended it.
"""

import _thread
import contextlib
import errno
import json
import linecache
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from gptbook.grading.guard import GUARDED_MODULES, PROGRAM_FILE, Guard, RefusedError, Snapshot
from gptbook.grading.outcomes import StopKind
from gptbook.grading.probes import PROBES
from gptbook.grading.values import decode, dumps

REQUEST, RESULTS, OUTPUT, HOME = "request.json", "results.jsonl", "output.txt", "home"
ROOM_FOR_EVENTS = 1 << 16
"""Bytes of ``results.jsonl`` kept free for saying why a process was stopped."""

_GRACE_SECONDS = 0.2  # for threads that are about to end
_MESSAGE_CHARACTERS = 200
_PR_SET_PDEATHSIG = 1


def run_job(folder: Path) -> NoReturn:
    """Become an isolated process and run the job in a folder. Call it in a fresh fork only."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    _detach(folder)
    results = os.open(folder / RESULTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(results, 3)
    os.closerange(4, 256)
    worker = _Worker(request, folder, 3)
    try:
        worker.run()
    except Exception as error:  # noqa: BLE001 - must be told to the grader, whatever it is
        worker.stop(StopKind.UNREADABLE, f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


class _Worker:
    """Runs one request and writes events."""

    def __init__(self, request: Mapping[str, Any], folder: Path, results: int) -> None:
        self._request = request
        self._folder = folder
        self._results = results
        self._limit = int(request["limits"]["output_bytes"])
        self._written = 0
        self._case = -1  # -1 while the program is loaded

    def run(self) -> None:
        """Load the program, run the cases until one ends the run, and look for leftovers."""
        _prepare_environment(self._folder / HOME, self._request["search_path"])
        _import_guarded(self._request["source"])
        snapshot = Snapshot()
        threads = _thread._count()
        _set_limits(self._request["limits"])
        guard = Guard(
            self.stop,
            self._folder / HOME,
            self._request["forbidden_modules"],
            self._request["forbidden_files"],
        )
        guard.watch()
        function = self._attempt(self._load, snapshot)
        if function is not None:
            for case, args in enumerate(self._request["cases"]):
                self._case = case
                if self._run_case(function, args, snapshot):
                    break
        self._case = max(self._case, 0)
        self._report_threads(threads)
        self._event("done")

    def stop(self, kind: StopKind, detail: str) -> None:
        """Write that the run was stopped, and why."""
        self._event("stopped", kind=str(kind), detail=detail[:_MESSAGE_CHARACTERS])

    def _load(self) -> Callable[..., Any]:
        namespace: dict[str, Any] = {"__name__": "submission", "__file__": PROGRAM_FILE}
        for name, source in self._request["provided"].items():
            own: dict[str, Any] = {"__name__": "reference"}
            exec(compile(source, "<reference>", "exec"), own)
            namespace[name] = own[name]
        source = self._request["source"]
        linecache.cache[PROGRAM_FILE] = (len(source), None, source.splitlines(True), PROGRAM_FILE)
        exec(compile(source, PROGRAM_FILE, "exec"), namespace)
        function: Callable[..., Any] = namespace[self._request["target"]]
        return function

    def _run_case(self, function: Callable[..., Any], tree: Any, snapshot: Snapshot) -> bool:
        """Run one case; whether it ended the run."""
        self._event("start")
        args = decode(tree)
        before = [dumps(item) for item in args]
        probe = PROBES[self._request["probe"]]
        answer = self._attempt(lambda: [probe(function, *args)], snapshot)
        text = answer and self._attempt(lambda: dumps(answer[0]), snapshot)
        if text is not None:
            changed = [i for i, item in enumerate(args) if dumps(item) != before[i]]
            line = json.dumps({"event": "returned", "case": self._case, "changed": changed})
            self._write(f'{line[:-1]}, "value": {text}}}\n')
        return self._ended

    def _attempt(self, action: Callable[[], Any], snapshot: Snapshot) -> Any:
        """Run an action of the reader's; write what went wrong and give None where it did."""
        result, raised = None, None
        try:
            result = action()
        except BaseException as error:  # noqa: BLE001 - all of the reader's errors are reported
            raised = error
            if _is_out_of_memory(error):
                _lift_memory_limit()  # saying so takes some, too
        replaced = snapshot.restore()  # before anything here relies on a name they replaced
        self._ended = bool(replaced)
        if replaced:
            self.stop(StopKind.PATCH, ", ".join(replaced))
        if raised is not None:
            self._report_error(raised)
        self._check_output()
        return None if self._ended else result

    def _report_error(self, error: BaseException) -> None:
        """Write an exception of the reader's code; some kinds end the run."""
        self._ended = True
        if isinstance(error, RefusedError):
            return  # the guard has reported it
        if _is_out_of_memory(error):
            self.stop(StopKind.MEMORY, "")
        elif isinstance(error, SystemExit):
            self.stop(StopKind.EXIT, "sys.exit")
        elif isinstance(error, OSError) and error.errno == errno.EFBIG:
            self.stop(StopKind.OUTPUT, "")
        else:
            self._ended = self._case < 0
            lines = [
                frame.line or ""
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == PROGRAM_FILE
            ]
            where = lines[-1][:_MESSAGE_CHARACTERS] if lines else ""
            name = type(error).__name__[:_MESSAGE_CHARACTERS]
            self._event("raised", type=name, message=_message(error), where=where)

    def _check_output(self) -> None:
        """A flood whose errors the reader swallowed is a flood all the same."""
        for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
            # A full file refuses to be written, and the reader may have closed it.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if (self._folder / OUTPUT).stat().st_size >= self._limit:
            self.stop(StopKind.OUTPUT, "")
            self._ended = True

    def _report_threads(self, before: int) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS
        while _thread._count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        left = _thread._count() - before
        if left > 0:
            self.stop(StopKind.THREAD, "a thread" if left == 1 else f"{left} threads")

    def _event(self, name: str, **values: Any) -> None:
        self._write(json.dumps({"event": name, "case": self._case, **values}) + "\n", spare=True)

    def _write(self, line: str, spare: bool = False) -> None:
        data = line.encode("utf-8")
        if not spare and self._written + len(data) > self._limit:
            self.stop(StopKind.OUTPUT, "")
            self._ended = True
            return
        self._written += len(data)
        while data:
            data = data[os.write(self._results, data) :]


def _detach(folder: Path) -> None:
    """Leave the parent's session, die with the parent, and let go of its files."""
    os.setsid()
    if sys.platform == "linux":
        set_process_option(_PR_SET_PDEATHSIG, signal.SIGKILL)
    (folder / HOME).mkdir(exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, descriptor)
    os.chdir(folder / HOME)


def set_process_option(option: int, value: int) -> None:
    """Call Linux's ``prctl``.

    Raises:
        OSError: the kernel refuses.
    """
    import ctypes  # on Linux only

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def _prepare_environment(home: Path, search_path: list[str]) -> None:
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        os.environ[name] = str(home)
    tempfile.tempdir = str(home)
    sys.dont_write_bytecode = True
    sys.path += search_path
    sys.argv = [PROGRAM_FILE]
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _import_guarded(source: str) -> None:
    """Import the guarded modules that the source mentions, so that the snapshot has them."""
    for name in GUARDED_MODULES:
        if name.split(".")[0] in source and name not in sys.modules:
            try:
                __import__(name)
            except ImportError:
                continue  # not installed: the reader's own import says so


def _set_limits(limits: Mapping[str, Any]) -> None:
    cpu, size = int(limits["cpu_seconds"]), int(limits["output_bytes"]) + ROOM_FOR_EVENTS
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    taken = _address_space()
    if taken:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (taken + int(limits["memory_bytes"]), hard))


def _lift_memory_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _address_space() -> int:
    """Bytes of address space in use; 0 where the system does not say (macOS has no such limit)."""
    if sys.platform != "linux":
        return 0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch raises RuntimeError where Python has MemoryError."""
    if type(error) is RuntimeError:
        return "DefaultCPUAllocator: can't allocate memory" in str(error)
    return isinstance(error, MemoryError)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the reader's own __str__ may do anything
        return "(its message cannot be shown)"
    return " ".join(text.split())[:_MESSAGE_CHARACTERS]
