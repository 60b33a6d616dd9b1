"""What importing the package costs, and that its two command lines are one."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tensor_modules import TENSOR_MODULES

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "gptbook").glob("*.py")
    if path.stem != "__init__"
)
HEAVY = ("torch", "matplotlib", "IPython", "tiktoken", "tokenizers")


def run(*command: str, stdin: str = "", cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run a command and return what came of it."""
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd=cwd, check=False, timeout=120
    )


@pytest.mark.parametrize("module", ["gptbook", "gptbook.app", "gptbook.app.notebook", *MODULES])
def test_import_is_light_and_silent(module: str) -> None:
    heavy = set(HEAVY) - ({"torch"} if module in TENSOR_MODULES else set())
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "", f"{module} imports {result.stdout.strip()}"


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["tokenizer", "encode", "--help"]]
)
def test_module_and_script_are_the_same_command_line(arguments: list[str]) -> None:
    script = run(str(BIN / "gptbook"), *arguments)
    module = run(sys.executable, "-m", "gptbook.app", *arguments)
    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout
    assert "gptbook" in script.stdout


def test_every_package_is_installed() -> None:
    """pyproject.toml lists packages one by one, since one of them is mapped from book/results."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(metadata["tool"]["setuptools"]["packages"]) - {"gptbook.results"}
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "gptbook").rglob("__init__.py")
    }
    assert listed == found
