"""The exporter: round trips between chapters and modules, checks, and the package as of a chapter.

The refusals are in test_export_refusals.py.
"""

import ast
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from book.tools.export import check, export, export_as_of, format_cells, main
from book.tools.export_back import carry_back
from book.tools.export_build import format_modules
from book.tools.export_parse import ExportError, read_chapters
from book.tools.project import (
    ROOT,
    chapter_paths,
    documentation_url,
    package_version,
    repository_url,
    write_if_changed,
)
from tests.export_tree import CellSpec, make_book, snapshot, write_chapter

CONFIG, DEVICE, DATA = "gptbook/config.py", "gptbook/device.py", "gptbook/data.py"

# Awkward text that has to come through unchanged; N makes its names unique.
SNIPPETS = [
    "LIMIT_N = 2**8",
    '# Why the number is what it is.\nSIZE_N: int = 3  # bytes\n"""What SIZE_N means."""',
    "A_N, B_N = 1, 2\nC_N = D_N = (3,)",
    'TEXT_N = """A fence:\n```{code-cell} ipython3\n:tags: [export]\n:module: gptbook/x.py\n\n'
    'Y = 1\n```\n````\n+++\n---\n# not a comment\n%time\n"""',
    'def café_N(größe: str = "日本語 🙂") -> str:\n    """Grüße."""\n    return größe',
    "@functools.cache\n@staticmethod\n# between decorators\ndef cached_N(x: int) -> int:\n"
    "    # inside\n    return x\n\n\n# After the function.",
    "async def wait_N() -> None:\n    async with LOCK_N as a:\n        await a\n\n\nLOCK_N = None",
    'class Outer_N:\n    """An outer class."""\n\n    class Inner:\n        x: int = 1\n\n'
    "        # a comment\n\n    @property\n    def value(self) -> int:\n        return 1\n\n"
    "    @value.setter\n    def value(self, new: int) -> None:\n        pass\n\n"
    '    y = re.compile(r"a")',
    "@overload\ndef pick_N(x: int) -> int: ...\n@overload\ndef pick_N(x: str) -> str: ...\n"
    "def pick_N(x: Any) -> Any:\n    return x",
    "def later_N(x: Sequence[int]) -> int:\n    if (size := len(x)) > 1:\n        return size\n"
    "    match x:\n        case [first, *rest]:\n            return first + len(rest)\n"
    "    try:\n        return [i for i in x][0]\n    except IndexError as error:\n"
    "        raise ValueError(error) from error",
    "# fmt: off\nMATRIX_N = [\n    1, 0,\n    0, 1,\n]\n# fmt: on",
    '# One comment block.\n\n# And another.\n\n\nMANY_N = frozenset({"a", "b"})',
    "def _helper_N():\n    global STATE_N\n    STATE_N = 1\n    return STATE_N",
]
FIRST_IMPORTS = '''"""A module.

With a second paragraph.
"""

from __future__ import annotations

import sys
import functools
from typing import TYPE_CHECKING, overload, Any
import re

if TYPE_CHECKING:
    from collections.abc import Sequence
if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override
'''
MORE_IMPORTS = [
    "",
    "import math",
    "import re  # patterns",
    "from typing import (\n    Any,\n    cast,  # for types\n)",
    "import os.path as path\nimport numpy as np",
    "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from decimal import Decimal\n",
]


def random_book(rng: random.Random) -> dict[str, list[CellSpec]]:
    """Return chapters of random cells for three modules; each exported body starts with # Cell."""
    chapters: dict[str, list[CellSpec]] = {}
    started: set[str] = set()
    for number in range(rng.randint(1, 3)):
        cells: list[CellSpec] = []
        for index in range(rng.randint(2, 6)):
            module = rng.choice([CONFIG, DEVICE, DATA])
            snippets = rng.sample(SNIPPETS, rng.randint(1, 3))
            bodies = [s.replace("_N", f"_{number}_{index}_{i}") for i, s in enumerate(snippets)]
            imports = rng.choice(MORE_IMPORTS) if module in started else FIRST_IMPORTS
            started.add(module)
            body = "\n\n\n".join([f"# Cell {number}.{index}.", *bodies])
            cells.append((module, f"{imports}\n\n\n{body}".strip("\n")))
            if rng.random() < 0.3:
                cells.append(("", "!ls\nx = 1"))
        chapters[f"{number:02}_chapter"] = cells
    return chapters


def random_tree(root: Path, rng: random.Random) -> Path:
    """Make a tree with a random book whose cells are formatted and exported."""
    make_book(root, random_book(rng))
    format_cells(root)
    export(root)
    return root


def prose(root: Path) -> list[str]:
    """Return the lines of all chapters outside of cells."""
    return [
        line
        for chapter in read_chapters(root)
        for line in chapter.text.split("\n")
        if line.startswith(("#", "Here")) and not line.startswith("# ")
    ]


def read(root: Path, module: str) -> str:
    """Return the text of a module."""
    return (root / module).read_text(encoding="utf-8")


@pytest.fixture
def seed() -> int:
    return random.randrange(2**32)  # pytest shows it if the test fails


@pytest.mark.parametrize("attempt", range(4))
def test_modules_hold_every_cell_byte_for_byte_and_in_order(
    tmp_path: Path, seed: int, attempt: int
) -> None:
    root = random_tree(tmp_path, random.Random(seed))
    ends: dict[str, int] = {}
    for chapter in read_chapters(root):
        for cell in (cell for cell in chapter.cells if cell.module):
            text = read(root, cell.module)
            body = cell.source[cell.source.index("# Cell ") :]
            start = text.index(body)
            assert start >= ends.get(cell.module, 0)
            ends[cell.module] = start + len(body)
            chapter_lines = chapter.text.split("\n")
            assert chapter_lines[cell.line - 1] == cell.source.split("\n")[0]
            for statement in ast.parse(cell.source).body:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in statement.names}
                    found = [
                        {alias.name for alias in node.names}
                        for node in ast.walk(ast.parse(text))
                        if isinstance(node, ast.Import | ast.ImportFrom)
                    ]
                    assert names <= set().union(*found)
    for module in ends:
        assert read(root, module).startswith("# Exported from chapters/")
        assert subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--check", "-q", module], cwd=root, check=False
        ).returncode == 0  # fmt: skip
    assert check(root) == []
    assert export(root) == []


def random_edit(text: str, rng: random.Random) -> str:
    """Return a module's text with one random edit, not yet formatted."""
    lines = text.split("\n")
    nodes = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign)
        # an edit beside MATRIX may part it from its `# fmt: off`, and that cannot be carried
        and not ast.unparse(node).startswith("MATRIX")
    ]
    if not nodes:
        return f"{text}\n\nadded_to_no_name = 1\n"
    node = rng.choice(nodes)
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
    last = node.end_lineno or 0
    kind = rng.choice(["insert", "constant", "change", "rename", "delete", "import", "comment"])
    name = f"added_{rng.randrange(10**9)}"
    if kind == "insert":
        lines[last:last] = ["", "", f"def {name}():", f"    return {name!r}", "", ""]
    elif kind == "constant":
        lines.insert(last, f"{name} = 1")
    elif kind == "change":
        lines[first:last] = [re.sub(r"\bx\b", "xyz", line) for line in lines[first:last]]
    elif kind == "rename":
        lines[first:last] = [line.replace("LIMIT", name) for line in lines[first:last]]
    elif kind == "delete" and not text.count("LOCK") and not text.count("SIZE") and nodes[1:]:
        del lines[first:last]
    elif kind == "import":
        added = [f"def {name}() -> None:", "    json.dumps(shlex.split(''))", "", ""]
        lines[first:first] = added
        place = next(i for i, line in enumerate(lines) if line.startswith("import "))
        lines[place:place] = ["import json", "import shlex  # a comment"]
    else:
        lines.insert(first, f"# {name}")
    return "\n".join(lines)


@pytest.mark.parametrize("attempt", range(6))
def test_an_edited_module_is_carried_back_and_exports_to_itself(
    tmp_path: Path, seed: int, attempt: int
) -> None:
    rng = random.Random(seed)
    root = random_tree(tmp_path, rng)
    before = prose(root)
    modules = sorted({c.module for ch in read_chapters(root) for c in ch.cells if c.module})
    edited = {module: read(root, module) for module in modules}
    for module in rng.sample(modules, rng.randint(1, len(modules))):
        for _ in range(rng.randint(1, 3)):
            text = random_edit(edited[module], rng)
            edited[module] = format_modules(root, {module: text})[module]
        (root / module).write_text(edited[module], encoding="utf-8")
    chapters = [chapter.text for chapter in read_chapters(root)]
    refusal = ""
    try:
        carry_back(root)
    except ExportError as error:
        refusal = str(error)
    if refusal:  # about one draw in 150: two edits of neighbors at a cell's border
        assert "it is not clear which go where" in refusal
        assert [chapter.text for chapter in read_chapters(root)] == chapters
        return
    assert check(root) == []
    assert export(root) == []
    for module in modules:  # the header names fewer chapters where all of one's text is gone
        assert (
            read(root, module).partition("--back`.")[2] == edited[module].partition("--back`.")[2]
        )
    assert [line for line in prose(root) if line in before] == before


def test_a_header_follows_when_all_of_a_chapters_text_is_deleted(tmp_path: Path) -> None:
    cells = {"01_a": [(CONFIG, "F = 1")], "02_b": [(CONFIG, "G = 2")]}
    root = make_book(tmp_path, cells)
    export(root)
    (root / CONFIG).write_text(read(root, CONFIG).replace("G = 2", "").rstrip() + "\n")
    carry_back(root)
    assert check(root) == []
    assert "02_b" not in read(root, CONFIG)


def edit(root: Path, module: str, old: str, new: str) -> None:
    """Replace the only old in a module's file by new."""
    text = read(root, module)
    assert text.count(old) == 1
    (root / module).write_text(text.replace(old, new), encoding="utf-8")


def sources(root: Path) -> list[str]:
    """Return the sources of all exported cells."""
    return [cell.source for chapter in read_chapters(root) for cell in chapter.cells if cell.module]


def test_a_module_looks_as_it_should(tmp_path: Path) -> None:
    first = (
        '"""Numbers."""\n\nimport sys\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n'
        "    from decimal import Decimal\n\n"
        'def f(x: "Decimal") -> str:\n    return sys.version'
    )
    second = (
        "from __future__ import annotations\n\nimport math\nfrom typing import TYPE_CHECKING\n\n"
        "if TYPE_CHECKING:\n    from collections.abc import Sequence\n\n"
        "from gptbook.errors import E\n\n# Half a turn.\nHALF = math.pi\nE_ = E"
    )
    root = make_book(
        tmp_path,
        {
            "01_a": [("gptbook/errors.py", "E = 1"), (CONFIG, first)],
            "02_b": [("", "plain = 1"), (CONFIG, second)],
        },
    )
    format_cells(root)
    export(root)
    assert read(root, "gptbook/errors.py").endswith("--back`.\n\n\nE = 1\n")
    assert read(root, CONFIG) == (
        "# Exported from chapters/01_a.md, chapters/02_b.md. Edit the cells there and run"
        " `make export`, or\n"
        "# edit this file and run `python -m book.tools.export --back`.\n"
        '"""Numbers."""\n\nfrom __future__ import annotations\n\nimport math\nimport sys\n'
        "from typing import TYPE_CHECKING\n\nfrom gptbook.errors import E\n\n"
        "if TYPE_CHECKING:\n    from collections.abc import Sequence\n"
        "    from decimal import Decimal\n\n\n"
        'def f(x: "Decimal") -> str:\n    return sys.version\n\n\n'
        "# Half a turn.\nHALF = math.pi\nE_ = E\n"
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A book of two modules and two chapters, exported."""
    root = make_book(
        tmp_path,
        {
            "01_a": [
                (CONFIG, '"""Configuration."""\n\nimport re\n\nX = re.compile("a")'),
                ("", "naive = 1"),
                (CONFIG, "import math\n\n\ndef f():\n    return math.pi\n\n\n# The end of f."),
                (DEVICE, "DEVICE = 1"),
            ],
            "02_b": [(CONFIG, "def g():\n    return f() + 1\n\n\ndef h():\n    return g()")],
        },
    )
    export(root)
    return root


def test_check_finds_one_changed_byte_anywhere(small: Path) -> None:
    text = read(small, CONFIG)
    rng = random.Random(random.randrange(2**32))
    for place in [0, len(text) - 1, *rng.sample(range(len(text)), 4)]:
        other = chr(ord(text[place]) ^ 1)
        (small / CONFIG).write_text(text[:place] + other + text[place + 1 :], encoding="utf-8")
        assert any(p.startswith(f"{CONFIG}: differs from its cells") for p in check(small)), place
    (small / CONFIG).write_bytes(text.replace("\n", "\r\n").encode())
    assert "line ends only" in check(small)[0]


def test_check_shows_the_difference_and_what_to_do(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", "--root", str(small)]) == 0
    edit(small, CONFIG, "math.pi", "math.tau")
    (small / DEVICE).unlink()
    assert main(["--check", "--root", str(small)]) == 1
    problems = capsys.readouterr().err
    assert "-    return math.tau\n+    return math.pi" in problems
    assert "run `make export`" in problems
    assert "--back" in problems
    assert f"{DEVICE}: is missing" in problems


def test_a_module_without_cells_is_told_and_removed_and_other_files_are_left(small: Path) -> None:
    other = small / "gptbook" / "notes.py"
    other.write_text('"""Not exported."""\n')
    (small / "chapters/01_a.md").unlink()
    write_chapter(small, "02_b", [(CONFIG, "X = 1")])
    assert f"{DEVICE}: no cell exports it any more; run `make export` to remove it" in check(small)
    assert f"removed {DEVICE}, which no cell exports any more" in export(small)
    assert not (small / DEVICE).exists()
    assert other.read_text() == '"""Not exported."""\n'
    assert check(small) == []


def test_export_never_overwrites_a_file_that_is_not_its_own(small: Path) -> None:
    (small / "gptbook/data.py").write_text("mine = 1\n")
    write_chapter(small, "03_c", [(DATA, "D = 1")])
    for force in (False, True):
        before = snapshot(small)
        with pytest.raises(ExportError, match=r"gptbook/data.py: was not exported"):
            export(small, force=force)
        assert snapshot(small) == before


def test_export_never_drops_an_edit_made_in_a_module(small: Path) -> None:
    edit(small, CONFIG, "math.pi", "math.tau")
    edited = read(small, CONFIG)
    with pytest.raises(ExportError, match=r"gptbook/config.py: was edited by hand"):
        export(small)
    assert read(small, CONFIG) == edited
    assert main(["--force", "--root", str(small)]) == 0
    assert "math.pi" in read(small, CONFIG)


def test_export_writes_only_what_changed(small: Path) -> None:
    stamp = (small / CONFIG).stat().st_mtime_ns
    write_chapter(small, "03_c", [(DATA, "D = 1")])
    assert export(small) == [f"wrote {DATA}"]
    assert (small / CONFIG).stat().st_mtime_ns == stamp


def test_on_a_fresh_clone_git_tells_what_was_exported(small: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=small, check=True, capture_output=True)

    git("init", "-q")
    git("add", "chapters", "gptbook")
    git("commit", "-qm", "All")
    for path in (small / "_build/export/gptbook").iterdir():
        path.unlink()
    edit(small, CONFIG, "math.pi", "math.tau")
    with pytest.raises(ExportError, match="was edited by hand"):
        export(small)
    carry_back(small)
    assert check(small) == []
    assert "math.tau" in sources(small)[1]


def test_back_puts_each_edit_where_it_belongs(small: Path) -> None:
    edit(small, CONFIG, "math.pi\n", "math.tau\n\n\ndef new():\n    return json.dumps(1)\n")
    edit(small, CONFIG, "import math\n", "import json\nimport math\n")
    edit(small, CONFIG, '"""Configuration."""', '"""Settings."""')
    edit(small, CONFIG, "\n\n\ndef h():\n    return g()", "")
    edit(small, CONFIG, "return f() + 1", "return 2")
    edited = read(small, CONFIG)
    done = carry_back(small)
    assert [line.split(": ")[1] for line in done] == ["cell 1", "cell 3", "cell 1"]
    assert sources(small) == [
        '"""Settings."""\n\nimport re\n\nX = re.compile("a")',
        "import json\nimport math\n\n\ndef f():\n    return math.tau\n\n\n"
        "def new():\n    return json.dumps(1)\n\n\n# The end of f.",
        "DEVICE = 1",
        "def g():\n    return 2",
    ]
    assert read(small, CONFIG) == edited
    assert export(small) == []


def test_back_removes_a_cell_that_nothing_is_left_of(small: Path) -> None:
    edit(small, CONFIG, "import re\n\n", "\n")
    edit(small, CONFIG, 'X = re.compile("a")\n\n\n', "\n")
    before = prose(small)
    assert any("removed" in line for line in carry_back(small))
    assert sources(small)[0].startswith('"""Configuration."""\n\nimport math\n\n\ndef f():')
    assert prose(small) == before
    assert check(small) == []


def test_back_keeps_an_imports_comment_when_its_cell_is_removed(tmp_path: Path) -> None:
    plain, commented = "import re\n\nX = re.A", "import re  # patterns\n\nY = re.B"
    root = make_book(tmp_path, {"01_a": [(CONFIG, plain)], "02_b": [(CONFIG, commented)]})
    export(root)
    edit(root, CONFIG, "\n\n\nY = re.B", "")
    carry_back(root)
    assert sources(root) == ["import re  # patterns\n\nX = re.A"]
    assert check(root) == []


def test_back_keeps_the_comment_at_one_of_several_names_when_their_cell_is_removed(
    tmp_path: Path,
) -> None:
    plain = "from typing import Any, overload\n\nX = [Any, overload]"
    commented = "from typing import (\n    Any,\n    cast,  # for types\n)\n\nY = [Any, cast]"
    root = make_book(tmp_path, {"01_a": [(CONFIG, plain)], "02_b": [(CONFIG, commented)]})
    export(root)
    edited = read(root, CONFIG).replace("\n\nY = [Any, cast]", "").rstrip("\n") + "\n"
    (root / CONFIG).write_text(edited)
    carry_back(root)
    assert check(root) == []
    assert "cast,  # for types" in read(root, CONFIG)


def test_back_leaves_a_new_statement_with_what_it_stands_close_to(tmp_path: Path) -> None:
    cells = [(CONFIG, "X = 1"), (CONFIG, "class Old:\n    a = 1\n\n\nY = 2")]
    root = make_book(tmp_path, {"01_a": cells})
    export(root)
    edit(root, CONFIG, "X = 1\n\n\nclass Old:\n    a = 1\n", "X = 1\nNEW = 3\n")
    carry_back(root)
    assert sources(root) == ["X = 1\nNEW = 3", "Y = 2"]
    assert check(root) == []


def test_back_lengthens_a_fence_that_the_new_text_would_close(small: Path) -> None:
    edit(small, DEVICE, "DEVICE = 1", 'DEVICE = """\n```\n````\n"""')
    carry_back(small)
    assert "`````{code-cell} ipython3\n---\ntags" in (small / "chapters/01_a.md").read_text()
    assert check(small) == []


def test_back_keeps_the_text_of_a_chapter_but_for_the_edit(small: Path) -> None:
    before = (small / "chapters/01_a.md").read_text()
    edit(small, CONFIG, "math.pi", "math.tau")
    assert main(["--back", "--root", str(small)]) == 0
    assert (small / "chapters/01_a.md").read_text() == before.replace("math.pi", "math.tau")
    assert main(["--back", "--root", str(small)]) == 0  # nothing is left to carry


BACK_REFUSALS = {
    "unformatted": ("return math.pi", "return  math.pi", "is not formatted"),
    "syntax": ("return math.pi", "return math.", r"gptbook/config.py:\d+: syntax error"),
    "an effect": ("# The end of f.", "print(1)", "acts when the module is imported"),
    "a name": ("math.pi", "missing", "Undefined name `missing`"),
    "header": ("# Exported from chapters/01_a.md", "# Exported from chapters/1.md", "no cells"),
    "order of cells": ("\n\n\n# The end of f.\n\n\n", "\n\n", "two blank lines"),
    "comment on imports": ("import math\n", "# numbers\nimport math\n", "would be parted"),
    "unclear": (
        "def f():\n    return math.pi\n\n\n# The end of f.\n\n\ndef g():\n    return f() + 1",
        "def k():\n    return math.pi",
        "not clear which go where",
    ),
}


@pytest.mark.parametrize("name", BACK_REFUSALS)
def test_back_refuses_what_it_cannot_carry_and_writes_nothing(small: Path, name: str) -> None:
    old, new, message = BACK_REFUSALS[name]
    if name == "order of cells":  # constants, which one blank line may part
        write_chapter(small, "02_b", [(CONFIG, "# The end of f.\n\n\nG = 1")])
        write_chapter(small, "01_a", [(CONFIG, "F = 1"), (DEVICE, "D = 1")])
        export(small)
    edit(small, CONFIG, old, new)
    before = snapshot(small)
    with pytest.raises(ExportError, match=message):
        carry_back(small)
    assert snapshot(small) == before


def test_back_refuses_when_the_chapter_was_edited_too(small: Path) -> None:
    edit(small, CONFIG, "return g()", "return 2")
    chapter = small / "chapters/01_a.md"
    chapter.write_text(chapter.read_text().replace("math.pi", "math.e"))
    before = snapshot(small)
    with pytest.raises(ExportError, match="its cells were edited as well since the last export"):
        carry_back(small)
    assert snapshot(small) == before


def test_back_refuses_when_nothing_or_no_file_is_left(small: Path) -> None:
    header = read(small, DEVICE).partition("\n\n")[0]
    (small / DEVICE).write_text(f"{header}\n")
    with pytest.raises(ExportError, match="nothing is left of it"):
        carry_back(small)
    (small / DEVICE).unlink()
    with pytest.raises(ExportError, match=r"gptbook/device.py: is missing"):
        carry_back(small)


def run_python(folder: Path, code: str) -> str:
    """Return what code prints in a fresh interpreter that finds the package in folder."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_package_as_of_a_chapter_holds_what_was_exported_by_then(
    small: Path, tmp_path: Path
) -> None:
    export_as_of(small, "01_a", tmp_path / "one")
    code = "import gptbook.app, gptbook.config as c; print(c.f() > 3, 'g' in vars(c))"
    assert run_python(tmp_path / "one", code) == "True False"
    export_as_of(small, "chapters/02_b.md", tmp_path / "two")
    code = "import gptbook.config as c; print(c.h() > 4, c.__file__)"
    assert run_python(tmp_path / "two", code) == f"True {tmp_path / 'two/gptbook/config.py'}"
    assert read(tmp_path / "two", CONFIG) == read(small, CONFIG)
    with pytest.raises(ValueError, match="no chapter '03_c'; there are: 01_a, 02_b"):
        export_as_of(small, "03_c", tmp_path / "three")
    with pytest.raises(FileExistsError):
        export_as_of(small, "01_a", tmp_path / "one")


def test_format_changes_only_the_cells_that_need_it(small: Path) -> None:
    cells = [(DATA, "D = { 'a' :1 }"), ("", "ugly = { 'a' :1 }"), (DATA, "E = 1")]
    path = write_chapter(small, "03_c", cells)
    before = path.read_text()
    [done] = format_cells(small)
    assert done.startswith("chapters/03_c.md:")
    assert path.read_text() == before.replace("D = { 'a' :1 }", 'D = {"a": 1}')
    assert format_cells(small) == []


def test_an_empty_book_passes(tmp_path: Path) -> None:
    root = make_book(tmp_path, {})
    assert export(root) == []
    assert check(root) == []


def test_an_unknown_option_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--chek"])
    assert caught.value.code == 2


def test_the_real_package_is_what_the_real_chapters_export() -> None:
    assert check(ROOT) == []


def test_project_reads_pyproject_and_orders_chapters(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1.2"\n[project.urls]\n'
        'Repository = "https://example.org/a/"\nDocumentation = "https://example.org/doc"\n'
    )
    for name in ("02_b", "01_vocabulary", "01_tokenizer"):
        write_if_changed(tmp_path / "chapters" / f"{name}.md", name)
    assert package_version(tmp_path) == "1.2"
    assert repository_url(tmp_path) == "https://example.org/a"
    assert documentation_url(tmp_path) == "https://example.org/doc/"
    assert [p.stem for p in chapter_paths(tmp_path)] == ["01_tokenizer", "01_vocabulary", "02_b"]
