"""Runs the stored notebooks again and compares what they give with what is stored.

    python -m book.tools.verify [--jobs N] [NAMES...]

The comparison is nbval's: every output but pictures made of pixels, except in cells tagged
`nbval-ignore-output`. Cells tagged `python-text` read the texts that come with Python, which change
from one version to the next: they are compared under the version that made the stored outputs, and
only run under any other. The notebooks run as copies in a temporary directory, so that nothing they
write stays. It fails, too, when a cell was skipped or a notebook gave no cells to compare: nbval
alone would call both a success.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from book.tools.execute import JOBS, NOTEBOOK_SECONDS, kernel_environment, select, terminable
from book.tools.notebooks import (
    Source,
    code_cells,
    notebook_text,
    read_source,
    read_stored,
    stored_python,
)
from book.tools.project import ROOT
from gptbook.app.notebook import scale

PYTHON_TEXT = "python-text"
"""Tag of cells whose output depends on the texts that come with this version of Python."""


def verify(root: Path, paths: Sequence[Path], jobs: int = JOBS) -> list[str]:
    """Run the stored notebooks of the given sources; return what is wrong, [] if nothing.

    What nbval says of a cell whose output differs goes to this process's standard output.
    """
    if scale() != "cpu":
        return ["Stored outputs are those of GPTBOOK_SCALE=cpu: unset it."]
    sources = [read_source(root, path) for path in paths]
    absent = [source.name for source in sources if not source.stored_path.is_file()]
    if absent or not sources:
        return [f"{name}: it was never executed. Run `make execute`." for name in absent] or [
            "there are no chapters: nothing was compared"
        ]
    with tempfile.TemporaryDirectory(prefix="gptbook-verify-") as scratch, terminable():
        report = Path(scratch) / "report.xml"
        status = _run_nbval(root, sources, Path(scratch), report, jobs)
        if not report.is_file():
            return [f"pytest ended with status {status} and no report: see its messages above"]
        return _problems(sources, report, status)


def _run_nbval(
    root: Path, sources: Sequence[Source], scratch: Path, report: Path, jobs: int
) -> int:
    """Run pytest with nbval over copies of the notebooks; return its exit status."""
    copies = scratch / "notebooks"
    for source in sources:
        copy = copies / Path(source.name).with_suffix(".ipynb")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_comparable(source))
    settings = scratch / "pytest.ini"
    settings.write_text("[pytest]\n")
    environment = {
        name: value
        for name, value in kernel_environment(root, scratch).items()
        if not name.startswith("PYTEST_")  # of a pytest that runs this one
    }
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each would slow the start of each process
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "--rootdir", str(copies), "-q"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", "-o", "junit_family=xunit2"]
    command += ["-p", "nbval.plugin", "--nbval", "--nbval-current-env"]
    command += [f"--nbval-cell-timeout={NOTEBOOK_SECONDS}"]
    if min(jobs, len(sources)) > 1:
        command += ["-p", "xdist.plugin", "-n", str(min(jobs, len(sources))), "--dist", "loadfile"]
    return subprocess.run([*command, str(copies)], env=environment, check=False).returncode


def _comparable(source: Source) -> str:
    """Return the stored notebook with what another Python's texts change left out of comparison."""
    stored = read_stored(source)
    assert stored is not None  # `verify` has seen the file
    made_by, running = stored_python(stored), platform.python_version()
    if made_by != running:
        print(
            f"{source.name}: its outputs are of Python {made_by} and this is {running}: cells "
            f"tagged {PYTHON_TEXT} are run, and their outputs not compared."
        )
        for cell in code_cells(stored):
            if PYTHON_TEXT in cell.metadata.get("tags", []):
                cell.metadata["tags"].append("nbval-ignore-output")
    return notebook_text(stored)


def _problems(sources: Sequence[Source], report: Path, status: int) -> list[str]:
    """Return what the report says is wrong: failures, skipped cells, cells that are missing."""
    passed: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        if len(case) == 0:  # no failure, error or skipped element
            passed[case.attrib["classname"]] += 1
    found = []
    for source in sources:
        stored = read_stored(source)
        expected = len(code_cells(stored)) if stored else 0
        count = passed[Path(source.name).with_suffix(".ipynb").as_posix().replace("/", ".")]
        if count != expected or not expected:
            found.append(
                f"{source.name}: {count} of {expected} code cells ran and gave what is stored. If "
                "the new outputs shown above are right, run `make execute`; if they change from "
                "run to run, seed or round them, or tag the cell nbval-ignore-output."
            )
    if status and not found:
        found = [f"pytest ended with status {status}: see its messages above"]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book.tools.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--jobs", type=int, default=JOBS, help="notebooks at a time (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        paths = select(ROOT, arguments.names)
    except ValueError as error:
        parser.error(str(error))
    found = verify(ROOT, paths, arguments.jobs)
    print("\n".join(found) or f"{len(paths)} notebooks gave the outputs that are stored.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
