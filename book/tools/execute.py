"""Executes chapters and solutions and stores them, with outputs, under book/notebooks/.

    python -m book.tools.execute [--check] [--force] [--jobs N] [NAMES...]

Only those are executed whose code cells, or modules of the package that they import, changed since
they were stored; where only the prose changed, the stored notebook gets the new prose. A notebook
whose cell fails is kept as it was. `--check` executes nothing and says which are out of date.

Each notebook runs in a kernel of its own with one thread, this tree's package, and an empty
temporary directory as the working directory.
"""

import argparse
import copy
import fcntl
import os
import platform
import re
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from tqdm import tqdm

from book.tools.notebooks import (
    Source,
    assemble,
    is_current,
    leftover_notebooks,
    notebook_text,
    notebooks_folder,
    outputs_of,
    problems,
    read_source,
    read_stored,
    source_paths,
    stored_python,
)
from book.tools.project import ROOT, relative, write_if_changed
from gptbook.app.notebook import scale

NOTEBOOK_SECONDS = 300
"""How long one notebook may take. A chapter should take at most 90 s; the rest is for slow days."""

JOBS = 2

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def kernel_environment(root: Path, scratch: Path) -> dict[str, str]:
    """Return the environment in which notebooks run.

    One thread each, because two run side by side; a fixed hash seed; the package of this tree
    before any installed one; and no IPython profile of the user's.
    """
    paths = [str(root.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return (
        os.environ
        | dict.fromkeys(THREAD_VARIABLES, "1")
        | {
            "IPYTHONDIR": str(scratch / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(paths),
        }
    )


class NotebookError(Exception):
    """A notebook did not run to its end; the message shows the cell and its error."""


class Run:
    """One notebook on its way through a kernel of its own."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._cell = 0  # the code cell that runs now, from 1
        self._stopped = False
        self._manager = AsyncKernelManager(
            kernel_name="python3",
            # No folder of kernel specifications: "python3" is then the Python that runs this tool.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            transport="ipc",  # sockets that only this user can open
        )

    def execute(self, seconds: float) -> list[list[NotebookNode]]:
        """Run every cell and return the outputs of each.

        Raises:
            NotebookError: if a cell fails, or the notebook takes longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        with (
            tempfile.TemporaryDirectory(prefix="gptbook-execute-") as scratch,
            tqdm(
                total=len(self.source.code),
                desc=self.source.name,
                unit="cell",
                leave=False,
                disable=None,
            ) as bar,
        ):
            self._manager.connection_file = str(Path(scratch) / "kernel.json")
            client = self._client(deadline, bar)
            folder = Path(scratch) / "work"
            folder.mkdir()
            environment = kernel_environment(self.source.root, Path(scratch))
            try:
                client.execute(cleanup_kc=True, cwd=str(folder), env=environment)
            except CellExecutionError as error:
                raise self._failure(ANSI.sub("", error.traceback)) from error
            except CellTimeoutError as error:
                raise self._failure(
                    f"The notebook ran longer than {seconds:g} s. Make it cheaper, or record the "
                    "long run in book/results/ and plot that."
                ) from error
            except RuntimeError as error:
                raise self._failure(f"Its kernel died: {error}") from error
            finally:
                self.kill()
        return outputs_of(client.nb)

    def stop(self) -> None:
        """Make `execute` raise soon, at whatever point it is."""
        self._stopped = True
        self.kill()

    def kill(self) -> None:
        """Kill the kernel, if it has one, and the processes that its cells started."""
        provisioner = self._manager.provisioner
        group = getattr(provisioner, "pgid", None)
        if group is None:
            return
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return  # all of them have ended

    def _client(self, deadline: float, bar: "tqdm[Any]") -> NotebookClient:
        """Return the client that runs the cells, counts them, and stops at the deadline."""

        def started(cell_index: int, **_: object) -> None:
            if self._stopped:
                raise RuntimeError("it was stopped")
            cells = self.source.notebook.cells[: cell_index + 1]
            self._cell = sum(cell.cell_type == "code" for cell in cells)

        def finished(**_: object) -> None:
            bar.update()

        return NotebookClient(
            copy.deepcopy(self.source.notebook),
            km=self._manager,
            force_raise_errors=True,  # a stored error is no output: a tag may not ask for one
            skip_cells_with_tag="",
            record_timing=False,
            shutdown_kernel="immediate",
            timeout_func=lambda _cell: max(1, round(deadline - time.monotonic())),
            on_cell_execute=started,
            on_cell_executed=finished,
        )

    def _failure(self, message: str) -> NotebookError:
        """Return the error that shows the running cell and the message."""
        if not self._cell:
            return NotebookError(f"{self.source.name}: no cell ran. {message}")
        code = textwrap.indent(self.source.code[self._cell - 1], "    ")
        line = self.source.line(self._cell)
        return NotebookError(
            f"{self.source.name}:{line}: code cell {self._cell} failed:\n\n{code}\n\n{message}\n"
        )


def execute_all(
    sources: Sequence[Source], jobs: int, seconds: float, store: Callable[[Source, Any], None]
) -> list[str]:
    """Execute the sources, `jobs` at a time; store each as it ends; return what went wrong.

    However this function is left, no kernel is left behind.
    """
    runs = [Run(source) for source in sources]
    failures: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run.execute, seconds): run for run in runs}
        try:
            for future in as_completed(futures):
                try:
                    store(futures[future].source, future.result())
                except NotebookError as error:
                    tqdm.write(str(error), file=sys.stderr)
                    failures.append(futures[future].source.name)
        finally:
            _stop(futures)
    return failures


def _stop(futures: dict[Future[Any], Run]) -> None:
    """Cancel what has not begun, and stop what runs, until nothing does."""
    for future in futures:
        future.cancel()
    while running := [run for future, run in futures.items() if not future.done()]:
        for run in running:
            run.stop()
        time.sleep(0.05)


def refresh(source: Source) -> bool:
    """Give a stored notebook whose outputs are current its source's prose; say if it changed.

    Raises:
        ValueError: if its outputs are not current, or nothing is stored.
    """
    stored = read_stored(source)
    if stored is None or not is_current(source, stored):
        raise ValueError(f"{source.name} must be executed first: run `make execute`")
    return _store(source, outputs_of(stored), stored_python(stored))


def _store(source: Source, outputs: list[list[NotebookNode]], python: str) -> bool:
    """Write the executed notebook; say whether the file changed."""
    return write_if_changed(source.stored_path, notebook_text(assemble(source, outputs, python)))


def run(
    root: Path,
    paths: Sequence[Path],
    *,
    force: bool = False,
    jobs: int = JOBS,
    seconds: float = NOTEBOOK_SECONDS,
) -> int:
    """Bring the stored notebooks of the given sources up to date; return the exit status."""
    if scale() != "cpu":
        print("Stored outputs are those of GPTBOOK_SCALE=cpu: unset it.", file=sys.stderr)
        return 1
    with _only_run(root), terminable():
        _remove_litter(root)
        stale = []
        for source in (read_source(root, path) for path in paths):
            if force or not _refreshed(source):
                stale.append(source)
        started = time.monotonic()

        def store(source: Source, outputs: list[list[NotebookNode]]) -> None:
            _store(source, outputs, platform.python_version())
            elapsed = time.monotonic() - started
            tqdm.write(f"{source.name}: executed {len(outputs)} cells ({elapsed:.0f} s so far)")

        failed = execute_all(stale, jobs, seconds, store)
    return _summary(len(paths), len(stale), failed)


def _refreshed(source: Source) -> bool:
    """Say whether the stored outputs can stay, after bringing the prose around them up to date."""
    try:
        changed = refresh(source)
    except ValueError:  # nothing stored, or out of date: it is executed
        return False
    if changed:
        print(f"{source.name}: prose updated, outputs kept")
    return True


def _summary(total: int, executed: int, failed: Sequence[str]) -> int:
    """Say what was done; return the exit status."""
    print(f"{total} notebooks: {executed - len(failed)} executed, {total - executed} up to date.")
    if failed:
        print(
            f"Failed: {', '.join(failed)}. Their stored notebooks were kept. Fix the cells shown "
            "above and run `make execute` again.",
            file=sys.stderr,
        )
        return 1
    if executed:
        print(
            "Numbers quoted in the prose may have changed: if `python -m book.tools.prose --check` "
            "fails, run `python -m book.tools.prose --update`."
        )
    return 0


@contextmanager
def _only_run(root: Path) -> Iterator[None]:
    """Hold the lock on book/notebooks, which the system frees however this process ends.

    Raises:
        SystemExit: if another run holds it.
    """
    folder = notebooks_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"Another run is writing to {folder}: wait for it, or stop it.") from None
    else:
        yield
    finally:
        os.close(handle)


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that it ends the kernels as Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _remove_litter(root: Path) -> None:
    """Remove what a killed run left half written, and notebooks whose source is gone."""
    for path in notebooks_folder(root).rglob(".*.ipynb.*"):
        path.unlink()
    for path in leftover_notebooks(root):
        print(f"{relative(path, root)}: removed, its source is gone")
        path.unlink()


def check(root: Path) -> list[str]:
    """Say what is wrong with the stored notebooks; [] if they are what the sources give."""
    found = [
        problem for path in source_paths(root) for problem in problems(read_source(root, path))
    ]
    for path in leftover_notebooks(root):
        found.append(
            f"{relative(path, root)}: its source is gone. Run `make execute` to remove it."
        )
    return found


def select(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the sources that the names mean: "01_tokenizer" or "chapters/01_tokenizer.md".

    Raises:
        ValueError: if a name means none.
    """
    paths = source_paths(root)
    if not names:
        return paths
    unknown = [n for n in names if not any(n in (p.stem, relative(p, root)) for p in paths)]
    if unknown:
        known = ", ".join(relative(path, root) for path in paths)
        raise ValueError(
            f"no chapter or solution is named {', '.join(unknown)}; there are: {known}"
        )
    return [path for path in paths if path.stem in names or relative(path, root) in names]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.execute", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all that changed")
    parser.add_argument("--check", action="store_true", help="execute nothing, list what is stale")
    parser.add_argument("--force", action="store_true", help="execute what has not changed, too")
    parser.add_argument("--jobs", type=int, default=JOBS, help="notebooks at a time (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    if arguments.check and arguments.names:
        parser.error("--check looks at every notebook: give it no names")
    if arguments.check:
        found = check(ROOT)
        print("\n".join(found) or "The stored notebooks are up to date.")
        return 1 if found else 0
    try:
        paths = select(ROOT, arguments.names)
    except ValueError as error:
        parser.error(str(error))
    try:
        return run(ROOT, paths, force=arguments.force, jobs=arguments.jobs)
    except KeyboardInterrupt:
        print("Interrupted: what was not finished is kept as it was.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
