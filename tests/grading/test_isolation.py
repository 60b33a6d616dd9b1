"""What a reader's code may do to the grader: nothing but lose the check that it fails."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from gptbook.grading.chapters import answer_files
from gptbook.grading.compare import difference
from gptbook.grading.limits import MIB, Limits
from gptbook.grading.outcomes import NotReached, Raised, Returned, StopKind, Stopped, describe
from gptbook.grading.program import slice_program
from gptbook.grading.runner import Job, Runner, RunnerError
from gptbook.grading.values import Opaque

LIMITS = Limits(cpu_seconds=1, wall_seconds=8.0, memory_bytes=128 * MIB, output_bytes=MIB // 2)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as started:
        yield started


PATIENCE = 60.0
"""Seconds to wait for what takes a moment, but longer on a busy machine."""


def wait_until(happened: Callable[[], bool]) -> bool:
    """Wait, but not for ever, until something is so; return whether it is."""
    deadline = time.monotonic() + PATIENCE
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)
    return happened()


def children_of(pid: int) -> list[psutil.Process]:
    """Return the processes that one has started, and those that they have."""
    return psutil.Process(pid).children(recursive=True)


def job(source: str, limits: Limits = LIMITS, cases: int = 1) -> Job:
    program = slice_program([textwrap.dedent(source)], "f")
    return Job(
        program,
        [(number,) for number in range(cases)],
        limits=limits,
        forbidden_modules=("gptbook.tokenizer",),
        forbidden_files=("/book/solutions", *answer_files()),
    )


HOSTILE = {
    "an endless loop": (StopKind.CPU, "def f(x):\n    while True: pass"),
    "an endless loop that swallows all errors": (
        StopKind.CPU,
        """
        def f(x):
            while True:
                try:
                    raise ValueError
                except BaseException:
                    pass
        """,
    ),
    "a limit that is ignored": (
        StopKind.CPU,
        """
        import signal

        def f(x):
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
            while True: pass
        """,
    ),
    "a signal without a name": (StopKind.CRASH, "import os\ndef f(x): os.kill(os.getpid(), 40)"),
    "a forged event": (
        StopKind.UNREADABLE,
        """
        import os

        def f(x):
            os.write(3, b'{"event": "returned", "case": 99, "changed": [], "value": 1}\\n')
            os._exit(0)
        """,
    ),
    "a password prompt": (StopKind.INPUT, "import getpass\ndef f(x): return getpass.getpass()"),
    "the bank of mistakes, through the grader": (
        StopKind.READ,
        """
        def f(x):
            from gptbook.grading.chapters import load_chapter
            return load_chapter(1).exercises[0].parts[0].reference
        """,
    ),
    "an endless wait": (StopKind.WALL, "import time\ndef f(x): time.sleep(100)"),
    "os._exit": (StopKind.EXIT, "import os\ndef f(x): os._exit(0)"),
    "sys.exit": (StopKind.EXIT, "import sys\ndef f(x): sys.exit(0)"),
    "a segmentation fault": (StopKind.CRASH, "import ctypes\ndef f(x): ctypes.string_at(0)"),
    "a memory bomb": (
        StopKind.MEMORY,
        "def f(x):\n    kept = []\n    while True: kept.append('x' * 10**7)",
    ),
    "one large block": (StopKind.MEMORY, "def f(x): return bytearray(10**9)"),
    "a flood of prints": (StopKind.OUTPUT, "def f(x):\n    while True: print('hello ' * 50)"),
    "a flood with errors swallowed": (
        StopKind.OUTPUT,
        """
        def f(x):
            for _ in range(5000):
                try:
                    print("hello " * 50)
                except Exception:
                    pass
        """,
    ),
    "a huge answer": (StopKind.OUTPUT, "def f(x): return 'x' * 10**7"),
    "input()": (StopKind.INPUT, "def f(x): return input('?')"),
    "input() with errors swallowed": (
        StopKind.INPUT,
        "def f(x):\n    try: return input()\n    except: return 3",
    ),
    "a patched library": (
        StopKind.PATCH,
        "import numpy as np\ndef f(x):\n    np.allclose = lambda *a, **k: True",
    ),
    "a patched pytest": (
        StopKind.PATCH,
        "import pytest\npytest.approx = lambda x: x\ndef f(x): return pytest",
    ),
    "patched builtins": (
        StopKind.PATCH,
        """
        import builtins

        def f(x):
            builtins.len = lambda value: 0
            builtins.isinstance = lambda *args: True
            return [1]
        """,
    ),
    "a thread left behind": (
        StopKind.THREAD,
        """
        import threading, time

        def f(x):
            threading.Thread(target=time.sleep, args=(100,)).start()
        """,
    ),
    "another process": (StopKind.PROCESS, "import subprocess\ndef f(x): subprocess.run(['ls'])"),
    "a fork": (StopKind.PROCESS, "import os\ndef f(x): os.fork()"),
    "a signal to the grader": (StopKind.PROCESS, "import os\ndef f(x): os.kill(os.getppid(), 9)"),
    "a daemon made in C": (
        StopKind.PROCESS,
        """
        import ctypes, time

        def f(x):
            libc = ctypes.CDLL(None)
            if libc.fork() == 0:
                libc.setsid()
                time.sleep(100)
        """,
    ),
    "a connection": (
        StopKind.NETWORK,
        "import socket\ndef f(x): socket.create_connection(('10.0.0.1', 80))",
    ),
    "reading the solutions": (
        StopKind.READ,
        "def f(x): return open('/book/solutions/01_tokenizer.md').read()",
    ),
    "importing the matching module": (
        StopKind.IMPORT,
        "def f(x):\n    import importlib\n    importlib.import_module('gptbook.tokenizer')",
    ),
    "writing outside": (StopKind.WRITE, "def f(x): open('/tmp/gptbook-evil', 'w')"),
    "removing outside": (StopKind.WRITE, "import os\ndef f(x): os.remove('/tmp/gptbook-evil')"),
    "cutting the wire": (StopKind.EXIT, "import os\ndef f(x): os.closerange(0, 100)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_reported_for_what_it_is(runner: Runner, name: str) -> None:
    kind, source = HOSTILE[name]
    limits = Limits(**{**vars(LIMITS), "wall_seconds": 1.0}) if kind is StopKind.WALL else LIMITS
    (outcome,) = runner.run(job(source, limits))
    assert isinstance(outcome, Stopped), outcome
    assert outcome.kind is kind
    assert describe(outcome, limits)
    (after,) = runner.run(job("def f(x): return x + 1"))
    assert after == Returned(1), "the next job must be untouched"


def test_nothing_is_left_running_or_lying_about(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with Runner() as runner:
        for name in ("a daemon made in C", "a thread left behind", "an endless wait"):
            runner.run(job(HOSTILE[name][1], Limits(wall_seconds=0.5)))
        ours = list(set(psutil.Process().children(recursive=True)) - before)
        folder = runner._folder
        assert len(ours) == 1, "only the process that starts the others"
    assert not folder.exists()
    assert wait_until(lambda: not any(process.is_running() for process in ours))
    assert not Path("/tmp/gptbook-evil").exists()


@pytest.mark.parametrize("body", ["return EqualToAll()", "yield 1", "return lambda: 1"])
def test_an_object_of_the_readers_is_a_name_and_nothing_else(runner: Runner, body: str) -> None:
    source = f"class EqualToAll:\n    def __eq__(self, other): return True\ndef f(x): {body}"
    (outcome,) = runner.run(job(source))
    assert isinstance(outcome, Returned)
    assert isinstance(outcome.value, Opaque)


def test_one_failing_case_leaves_the_others(runner: Runner) -> None:
    outcomes = runner.run(job("def f(x): return 6 // (x - 1)", cases=3))
    assert [type(outcome) for outcome in outcomes] == [Returned, Raised, Returned]
    assert isinstance(outcomes[1], Raised)
    assert outcomes[1].type_name == "ZeroDivisionError"
    assert outcomes[1].where == "def f(x): return 6 // (x - 1)"


def test_a_case_that_ends_the_process_is_told_from_those_never_reached(runner: Runner) -> None:
    source = "import os\ndef f(x):\n    if x == 1: os._exit(7)\n    return x"
    outcomes = runner.run(job(source, cases=3))
    assert outcomes == [Returned(0), Stopped(StopKind.EXIT, "exit code 7"), NotReached()]


def test_code_around_the_function_that_fails_is_said_to(runner: Runner) -> None:
    (outcome,) = runner.run(job("limit = 1 / 0\ndef f(x): return limit"))
    assert isinstance(outcome, Raised)
    assert outcome.loading


def test_a_hostile_exception_is_reported(runner: Runner) -> None:
    source = """
    class Odd(Exception):
        def __str__(self): raise RuntimeError

    def f(x): raise Odd
    """
    (outcome,) = runner.run(job(source))
    assert isinstance(outcome, Raised)
    assert outcome.type_name == "Odd"


def test_changed_arguments_are_noticed(runner: Runner) -> None:
    program = slice_program(["def f(items, n): items.append(n)"], "f")
    assert runner.run(Job(program, [([1], 2)])) == [Returned(None, (0,))]


def test_a_patched_torch_is_named(runner: Runner, tmp_path: Path) -> None:
    """With a stand-in of its name, so that the test needs no torch."""
    (tmp_path / "torch.py").write_text("def allclose(a, b): return a == b")
    source = (
        "import torch\ntorch.allclose = lambda a, b: True\ndef f(x): return torch.allclose(x, 3)"
    )
    program = slice_program([source], "f", search_path=(str(tmp_path),))
    (outcome,) = runner.run(Job(program, [(1,)]))
    assert isinstance(outcome, Stopped)
    assert (outcome.kind, outcome.detail) == (StopKind.PATCH, "torch.allclose")


def test_what_torch_itself_wraps_is_no_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimizer's first call imports `torch._dynamo`, which wraps `torch.manual_seed`.

    It also makes the folder of a compiler's cache, which has to lie where a reader may write, even
    if the process that grades has one of its own.
    """
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    harmless = """
    import torch
    before = torch.manual_seed

    def f(x):
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).zero_grad()
        return torch.manual_seed is not before
    """
    patches = {
        "torch.manual_seed": "torch.manual_seed = lambda seed: None",
        "torch.exp": "torch.exp = torch.log",
        "torch.allclose": "torch.allclose = torch._disable_dynamo(torch.equal)",
    }
    with Runner(("torch",)) as runner:
        assert runner.run(job(harmless, Limits(cpu_seconds=20, wall_seconds=60.0))) == [
            Returned(True)
        ]
        for name, patch in patches.items():
            (outcome,) = runner.run(job(f"import torch\ndef f(x):\n    {patch}"))
            assert isinstance(outcome, Stopped)
            assert (outcome.kind, outcome.detail) == (StopKind.PATCH, name)


def test_the_own_folder_may_be_used(runner: Runner) -> None:
    source = """
    import tempfile
    from pathlib import Path

    def f(x):
        Path("notes.txt").write_text("kept")
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        return Path("notes.txt").read_text()
    """
    assert runner.run(job(source)) == [Returned("kept")]


def test_a_runner_that_is_closed_ends_the_job_of_another_thread() -> None:
    """As at Ctrl-C, where nobody wants to wait until the time of an endless loop is up."""
    runner = Runner()
    runner.run(job("def f(x): return x"))
    assert runner._zygote is not None
    zygote = runner._zygote.pid
    sleeping = job("import time\ndef f(x): time.sleep(1000)", Limits(wall_seconds=200.0))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runner.run, sleeping)
        assert wait_until(lambda: len(children_of(zygote)) == 1)
        start = time.monotonic()
        runner.close()
        runner.close()  # closing twice is closing once
        assert isinstance(running.result()[0], Stopped)
        assert time.monotonic() - start < PATIENCE
    with pytest.raises(RunnerError, match="closed"):
        runner.run(job("def f(x): return x"))


def test_a_library_that_is_not_there_is_the_graders_error() -> None:
    with Runner(("no_such_module",)) as runner, pytest.raises(RunnerError, match="no_such_module"):
        runner.run(job("def f(x): return x"))


def test_the_limits_are_the_systems_own(runner: Runner) -> None:
    """So that code which swallows every exception is stopped as well."""
    source = """
    import resource

    def f(x):
        kinds = (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
        return [resource.getrlimit(kind)[0] for kind in kinds]
    """
    (outcome,) = runner.run(job(source))
    assert isinstance(outcome, Returned)
    cpu, size, core = outcome.value
    assert (cpu, core) == (LIMITS.cpu_seconds, 0)
    assert LIMITS.output_bytes <= size <= 2 * LIMITS.output_bytes


def test_the_environment_of_the_grader_is_untouched(runner: Runner) -> None:
    source = "import os\ndef f(x):\n    os.environ['GPTBOOK_TEST'] = '1'\n    os.chdir('/')"
    here = Path.cwd()
    runner.run(job(source))
    assert "GPTBOOK_TEST" not in os.environ
    assert Path.cwd() == here


@pytest.mark.parametrize("act", ["sys.stdout.close()", "sys.stdout = None", "os.environ.clear()"])
def test_what_a_function_does_to_its_own_process_is_its_own_business(
    runner: Runner, act: str
) -> None:
    assert runner.run(job(f"import os, sys\ndef f(x):\n    {act}\n    return 3")) == [Returned(3)]


def test_a_number_too_long_to_write_is_an_answer_like_others(runner: Runner) -> None:
    (outcome,) = runner.run(job("def f(x): return [10**5000]"))
    assert isinstance(outcome, Returned)
    assert difference([2.5], outcome.value) == (
        "item 0 is <int too long to show> (int), expected 2.5"
    )


def test_a_killed_grader_leaves_no_process_and_no_folder() -> None:
    code = (
        "from gptbook.grading.runner import Job, Runner\n"
        "from gptbook.grading.program import slice_program\n"
        "runner = Runner()\n"
        "runner.run(Job(slice_program(['def f(x): return x'], 'f'), [(1,)]))\n"
        "print(runner._folder, flush=True)\n"
        "wait = 'import time\\ndef f(x): time.sleep(100)'\n"
        "runner.run(Job(slice_program([wait], 'f'), [(1,)]))\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert grader.stdout is not None
    folder = Path(grader.stdout.readline().strip())
    # It may take the grader a while to come to its second job, and the first one is over.
    assert wait_until(lambda: len(children_of(grader.pid)) == 2)
    children = children_of(grader.pid)
    assert len(children) == 2, "the process that starts others, and one of those"
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    grader.stdout.close()
    assert wait_until(lambda: not folder.exists())
    assert wait_until(lambda: not any(process.is_running() for process in children))
