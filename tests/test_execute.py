"""book.tools.execute: what it runs, what it stores, and what it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from nbformat import NotebookNode, from_dict

from book.tools import execute
from book.tools.notebooks import (
    assemble,
    imported_files,
    outputs_of,
    read_source,
    source_paths,
)
from book.tools.project import ROOT
from tests.small_book import cell, edit_stored, stored_path, write_chapter, write_package

COUNTING = cell(
    "import pathlib\n"
    "log = pathlib.Path(LOG)\n"
    'log.write_text(log.read_text() + "x" if log.exists() else "x")'
)


def run(root: Path, **options: float) -> int:
    """Execute what is stale in the tree."""
    return execute.run(root, source_paths(root), **options)  # type: ignore[arg-type]


def counting_cell(root: Path) -> str:
    """Return a cell that adds a letter to root/log each time it runs."""
    return COUNTING.replace("LOG", repr(str(root / "log")))


def runs(root: Path) -> int:
    """Say how often the counting cell ran."""
    return len((root / "log").read_text()) if (root / "log").exists() else 0


def test_stores_outputs_in_a_form_that_does_not_change_from_run_to_run(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(
        tmp_path,
        "# Small",
        cell(
            "import sys\n"
            "import matplotlib.pyplot as plt\n"
            "from gptbook.app.notebook import figure_style, record\n"
            "figure_style()\n"
            'print("one"); print("warning", file=sys.stderr); print("two")\n'
            "record(n=3)"
        ),
        cell("figure, axes = plt.subplots()\n_ = axes.plot([1, 2], label=str({'a', 'b', 'c'}))"),
        cell("6 * 7"),
        cell("6 * 7"),
    )
    assert run(tmp_path) == 0
    first = stored_path(tmp_path).read_bytes()
    assert execute.check(tmp_path) == []
    assert run(tmp_path, force=True) == 0
    assert stored_path(tmp_path).read_bytes() == first

    notebook = json.loads(first)
    codes = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in codes] == [1, 2, 3, 4]
    assert len({c["id"] for c in notebook["cells"]}) == len(notebook["cells"])
    assert set(notebook["metadata"]) == {"gptbook", "kernelspec", "language_info"}
    streams = [o for o in codes[0]["outputs"] if o["output_type"] == "stream"]
    assert [(s["name"], s["text"]) for s in streams] == [
        ("stdout", ["one\n", "two\n"]),
        ("stderr", ["warning\n"]),
    ]
    svg = "".join(codes[1]["outputs"][0]["data"]["image/svg+xml"])
    assert "<dc:date>" not in svg
    assert "Matplotlib" not in svg


def test_streams_do_not_depend_on_when_they_are_flushed(tmp_path: Path) -> None:
    source = read_source(tmp_path, write_chapter(tmp_path, cell("1")))

    def stored(*streams: tuple[str, str]) -> list[NotebookNode]:
        fields = [{"output_type": "stream", "name": n, "text": t} for n, t in streams]
        outputs: list[NotebookNode] = from_dict(fields)  # type: ignore[no-untyped-call]
        return outputs_of(assemble(source, [outputs], "3.11.7"))[0]

    together = stored(("stdout", "a\nb\n"), ("stderr", "x\n"))
    assert [output.name for output in together] == ["stdout", "stderr"]
    assert stored(("stderr", "x\n"), ("stdout", "a\nb\n")) == together
    assert stored(("stdout", "a\n"), ("stderr", "x\n"), ("stdout", "b\n")) == together


def test_runs_with_this_tree_in_an_empty_folder_with_one_thread(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(
        tmp_path,
        cell(
            "import os, gptbook\n"
            "assert os.listdir() == []\n"
            'open("left-behind", "w").close()\n'
            "print(gptbook.__file__)\n"
            'print([os.environ[name] for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED")])'
        ),
    )
    assert run(tmp_path) == 0
    stored = stored_path(tmp_path).read_text()
    assert str(tmp_path / "gptbook" / "__init__.py") in stored
    assert "['1', '0']" in stored
    assert not list(tmp_path.rglob("left-behind"))


def test_prose_is_refreshed_without_executing(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, "Before.", counting_cell(tmp_path))
    assert run(tmp_path) == 0
    write_chapter(tmp_path, "After.", counting_cell(tmp_path), "A new paragraph.")
    assert any("Run `make execute`" in problem for problem in execute.check(tmp_path))
    assert run(tmp_path) == 0
    assert runs(tmp_path) == 1
    assert execute.check(tmp_path) == []
    assert "After." in stored_path(tmp_path).read_text()
    assert "A new paragraph." in stored_path(tmp_path).read_text()


def test_a_changed_recorded_run_makes_its_reader_stale(tmp_path: Path) -> None:
    write_package(tmp_path)
    result = tmp_path / "book" / "results" / "speed.json"
    result.parent.mkdir(parents=True)
    result.write_text("[1]")
    reads = "from gptbook.app.notebook import recorded_run\nprint(recorded_run('speed'))"
    write_chapter(tmp_path, cell(reads))
    write_chapter(tmp_path, cell("1"), name="chapters/02_other.md")
    assert run(tmp_path) == 0
    assert "[1]" in stored_path(tmp_path).read_text()
    assert execute.check(tmp_path) == []
    result.write_text("[2]")
    assert ["01_small.md: modules or runs" in p for p in execute.check(tmp_path)] == [True]


def test_a_changed_module_executes_only_the_chapters_that_import_it(tmp_path: Path) -> None:
    write_package(tmp_path)
    (tmp_path / "gptbook" / "low.py").write_text("VALUE = 1\n")
    (tmp_path / "gptbook" / "high.py").write_text("from .low import VALUE\n")
    code = "\nfrom gptbook.high import VALUE"
    write_chapter(tmp_path, counting_cell(tmp_path).replace("pathlib\n", "pathlib" + code + "\n"))
    write_chapter(tmp_path, cell("print(1)"), name="chapters/02_other.md")
    assert run(tmp_path) == 0
    other = stored_path(tmp_path, "02_other").stat().st_mtime_ns
    (tmp_path / "gptbook" / "low.py").write_text("VALUE = 2\n")
    assert ["modules or runs that it reads" in p for p in execute.check(tmp_path)] == [True]
    assert run(tmp_path) == 0
    assert runs(tmp_path) == 2
    assert stored_path(tmp_path, "02_other").stat().st_mtime_ns == other


def test_imports_are_found_however_they_are_written(tmp_path: Path) -> None:
    write_package(tmp_path)
    package = tmp_path / "gptbook"
    sources = {
        "plain": "",
        "member": "",
        "inside": "",
        "unused": "",
        "kernels/__init__": "",
        "kernels/tile": "from ..plain import x",
        "cycle": "import gptbook.cycle",
    }
    for name, text in sources.items():
        (package / f"{name}.py").parent.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(text)
    cells = [
        "%matplotlib inline\nimport gptbook.kernels.tile as t, gptbook.cycle",
        "from gptbook import member\nimport numpy.random",
        "def f():\n    from gptbook.inside import g",
        "this is no Python",
    ]
    found = [str(path.relative_to(package)) for path in imported_files(tmp_path, cells)]
    names = ["__init__", "cycle", "inside", "kernels/__init__", "kernels/tile", "member", "plain"]
    assert found == [f"{name}.py" for name in names]


def test_a_failing_cell_keeps_the_old_notebook_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, cell("print('good')"))
    assert run(tmp_path) == 0
    before = stored_path(tmp_path).read_bytes()
    path = write_chapter(
        tmp_path,
        "Some prose.",
        cell("ok = 1", options=":tags: [a]\n\n"),
        cell("def f(n):\n    return 1 / n\n\nf(0)", options=":tags: [raises-exception]\n\n"),
        cell("print('never')"),
    )
    write_chapter(tmp_path, cell("print('fine')"), name="chapters/02_other.md")
    capsys.readouterr()
    assert run(tmp_path) == 1
    message = capsys.readouterr().err
    fences = [n for n, line in enumerate(path.read_text().splitlines(), 1) if "{code-cell}" in line]
    assert f"chapters/01_small.md:{fences[1]}: code cell 2 failed" in message
    assert "    return 1 / n" in message
    assert "ZeroDivisionError: division by zero" in message
    assert "\x1b" not in message
    assert stored_path(tmp_path).read_bytes() == before
    assert "fine" in stored_path(tmp_path, "02_other").read_text()


def test_a_slow_notebook_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, cell("x = 1"), cell("import time\ntime.sleep(600)"))
    started = time.monotonic()
    # Long enough that a busy machine starts the kernel and runs the first cell before it is over.
    assert run(tmp_path, seconds=8) == 1
    assert time.monotonic() - started < 120
    message = capsys.readouterr().err
    assert "code cell 2 failed" in message
    assert "ran longer than 8 s" in message
    assert not stored_path(tmp_path).exists()


def test_a_kernel_that_dies_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, cell("import os\nos._exit(7)"))
    assert run(tmp_path) == 1
    assert "code cell 1 failed" in (message := capsys.readouterr().err)
    assert "kernel died" in message


def test_gpu_outputs_are_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPTBOOK_SCALE", "gpu")
    write_chapter(tmp_path, cell("1"))
    assert run(tmp_path) == 1
    assert "GPTBOOK_SCALE" in capsys.readouterr().err
    assert not (tmp_path / "book").exists()


def test_leftovers_are_reported_and_removed(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, cell("1"))
    assert run(tmp_path) == 0
    leftover = stored_path(tmp_path, "00_gone")
    leftover.write_bytes(stored_path(tmp_path).read_bytes())
    litter = leftover.with_name(".01_small.ipynb.abc123")
    litter.touch()
    assert ["00_gone" in problem for problem in execute.check(tmp_path)] == [True]
    assert run(tmp_path) == 0
    assert [p.name for p in leftover.parent.iterdir()] == ["01_small.ipynb"]


def test_a_broken_stored_notebook_is_reported_and_replaced(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, cell("1"))
    assert run(tmp_path) == 0
    good = stored_path(tmp_path).read_bytes()
    for broken in (b"", b"[]", b"{}", good[: len(good) // 2]):
        stored_path(tmp_path).write_bytes(broken)
        assert len(execute.check(tmp_path)) == 1
    assert run(tmp_path) == 0
    assert stored_path(tmp_path).read_bytes() == good


def test_names_select_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    first = write_chapter(tmp_path, cell("1"))
    second = write_chapter(tmp_path, cell("1"), name="solutions/01_small.md")
    assert execute.select(tmp_path, []) == [first, second]
    assert execute.select(tmp_path, ["solutions/01_small.md"]) == [second]
    with pytest.raises(ValueError, match="named 02_none; there are: chapters"):
        execute.select(tmp_path, ["02_none"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_tool(tmp_path: Path, number: signal.Signals) -> None:
    write_package(tmp_path)
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        'child = subprocess.Popen(["sleep", "1000"])\n'
        f"print(os.getpid(), child.pid, os.getcwd(), file=open({str(pids)!r}, 'w'), flush=True)\n"
        "time.sleep(1000)"
    )
    write_chapter(tmp_path, cell(code))
    stored_path(tmp_path).parent.mkdir(parents=True)
    stored_path(tmp_path).write_text("what was stored before")
    program = (
        "import sys; from pathlib import Path; from book.tools import execute\n"
        "root = Path(sys.argv[1]); sys.exit(execute.run(root, execute.source_paths(root)))"
    )
    tool = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 3)
        kernel, child = map(int, pids.read_text().split()[:2])
        tool.send_signal(number)
        assert tool.wait(timeout=120) != 0
        wait_until(lambda: not alive(kernel))
        if number == signal.SIGKILL:  # nobody is left to end what the cells started, and tidy up
            os.kill(child, signal.SIGKILL)
            shutil.rmtree(Path(pids.read_text().split()[2]).parent)
        wait_until(lambda: not alive(child))
    finally:
        tool.kill()
    assert stored_path(tmp_path).read_text() == "what was stored before"
    assert len(list(stored_path(tmp_path).parent.iterdir())) == 1


def alive(pid: int) -> bool:
    """Say whether the process runs; a zombie does not, nor one that ends while it is asked."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, cell("1"))
    with execute._only_run(tmp_path), pytest.raises(SystemExit, match="Another run"):
        run(tmp_path)
    assert run(tmp_path) == 0


def test_line_numbers_are_those_of_the_cells(tmp_path: Path) -> None:
    path = write_chapter(
        tmp_path,
        "Prose with ``` in it.\n\n````\n```{code-cell}\nshown, not run\n```\n````\n",
        cell("first"),
        cell("second", options="---\ntags: [a]\n---\n"),
    )
    source = read_source(tmp_path, path)
    lines = path.read_text().splitlines()
    assert source.code == ["first", "second"]
    assert lines[source.line(1)] == "first"
    assert lines[source.line(2)] == "---"


def test_editing_by_hand_is_seen(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_chapter(tmp_path, "Prose.", cell("1"))
    assert run(tmp_path) == 0
    edit_stored(stored_path(tmp_path), lambda notebook: notebook["cells"][1].update(id="x"))
    assert ["form that the executor writes" in p for p in execute.check(tmp_path)] == [True]
    assert run(tmp_path) == 0
    assert execute.check(tmp_path) == []
