"""Every command and every program in README.md is run, every link leads to a file."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the contents of README's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("console") for line in block.splitlines()]
INLINE = re.findall(r"`((?:make|python -m|pip install) [^`]+)`", README)
# `make test` runs this very test; `make bench` takes long, and test_benchmarks runs its script.
NOT_RUN = {"make test", "make bench"}


def environment() -> dict[str, str]:
    """Return an environment in which `python` is this one."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_makes_are_targets() -> None:
    makes = {line for line in COMMANDS + INLINE if line.startswith("make ")}
    assert {"make book", "make test", "make serve", "make execute"} <= makes
    for command in makes:
        subprocess.run(
            shlex.split(f"{command} --dry-run"), cwd=ROOT, check=True, capture_output=True
        )


def test_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    targets = re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert targets
    for target in targets:
        assert f"make {target} " in listed.stdout


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make(command: str) -> None:
    """`make book` and `make serve` are run by the site's tests, the rest here."""
    if command in NOT_RUN | {"make book", "make serve"}:
        return
    result = subprocess.run(
        shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_command_line(tmp_path: Path) -> None:
    """The command line's commands, in order, in a folder as a user would have it."""
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    shutil.copytree(ROOT / "exercises", tmp_path / "exercises")
    outputs = []
    for command in COMMANDS:
        if command.startswith("make "):
            continue
        result = subprocess.run(
            shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        outputs.append(result.stdout)
    hint, graded, trained, _, decoded, chats = outputs
    assert hint.startswith("Hint 1 of ")
    assert "01_tokenizer.md: 0 of 50 points" in graded
    assert trained.startswith("500 tokens from ")
    assert decoded == "Build\n"
    assert chats.count("<|endoftext|>\n") == 3


@pytest.mark.usefixtures("gpt2_encoding")
def test_programs() -> None:
    for program in blocks("python"):
        subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 4
    for link in links:
        if not link.startswith("https://"):
            assert (ROOT / link).exists(), f"README.md links to {link}, which is not there"
