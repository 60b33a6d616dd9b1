"""Every refusal of the exporter names the file, the cell and the exact line, and writes nothing."""

import re
from pathlib import Path

import pytest

from book.tools.export import export, main
from book.tools.export_checks import check_imports_earlier, check_layers
from book.tools.export_parse import ExportError
from tests.export_tree import CellSpec, make_book, snapshot, write_chapter
from tests.small_book import HEADER

MODULE = "gptbook/config.py"


def refusals(root: Path) -> list[str]:
    """Return the problems that exporting root meets, after checking that nothing was written."""
    before = snapshot(root)
    with pytest.raises(ExportError) as caught:
        export(root)
    assert snapshot(root) == before
    return caught.value.problems


def assert_located(problem: str, path: Path, cell: int, marked: str) -> None:
    """Assert that a problem names the chapter, the cell, and the only line that ends in marked."""
    lines = path.read_text(encoding="utf-8").split("\n")
    [line] = [n for n, text in enumerate(lines, start=1) if text.endswith(marked)]
    assert problem.startswith(f"chapters/{path.name}:{line}: cell {cell}: "), problem


# The line that must be named ends in `# HERE`, which stands for what the refusal is about.
SOURCES = {
    "print": ('X = 1\n\nprint("loading")  # HERE', "acts when the module is imported"),
    "bare call": ("import re\n\nre.purge()  # HERE", "acts when the module is imported"),
    "call in a constant": ('X = 1\nY = print("hi")  # HERE', "the call `print('hi')` acts"),
    "effect of a module": ("import time\n\nSTART = time.time()  # HERE", "`time.time()` acts"),
    "effect by its alias": (
        "import numpy as np\n\nX = 1\nY = np.random.normal()  # HERE",
        "`np.random.normal()` acts",
    ),
    "method with an effect": (
        'from pathlib import Path\n\nTEXT = Path("a").read_text()  # HERE',
        "read_text",
    ),
    "effect in a default": (
        "import time\n\n\ndef f(now=time.time()):  # HERE\n    return now",
        "`time.time()` acts",
    ),
    "effect in a class body": (
        'class A:\n    """A."""\n\n    print("made")  # HERE',
        "acts when the module is imported",
    ),
    "walrus": ("X = 1\nY = (z := X)  # HERE", "`(z := X)` acts"),
    "loop": ("X = []\nfor i in range(3):  # HERE\n    X.append(i)", "`for i in range(3):`"),
    "while": ("while False:  # HERE\n    pass", "`while False:`"),
    "with": ('with open("a") as f:  # HERE\n    X = f.read()', "`with open('a') as f:`"),
    "try": (
        "try:  # HERE\n    import fast\nexcept ImportError:\n    fast = None",
        "`try:` is a statement",
    ),
    "if": ("X = 1\nif X:  # HERE\n    Y = 2", "`if X:` is a statement"),
    "main": ('if __name__ == "__main__":  # HERE\n    X = 1', "is a statement"),
    "del": ("X = 1\ndel X  # HERE", "`del X`"),
    "assert": ("X = 1\nassert X  # HERE", "`assert X`"),
    "augmented": ("X = 1\nX += 1  # HERE", "`X += 1`"),
    "declaration": ("X: int  # HERE", "declares X without a value"),
    "patched method": (
        "class A:\n    x = 1\n\n\ndef f(self):\n    return 2\n\n\nA.f = f  # HERE",
        "`A.f = ...` patches",
    ),
    "patched item": ("X = {}\nX[1] = 2  # HERE", "`X[1] = ...` patches"),
    "patch in a tuple": ("class A:\n    x = 1\n\n\nB, A.x = 1, 2  # HERE", "`A.x = ...` patches"),
    "repeated name": ("X = 1\n\n\ndef X():  # HERE\n    pass", "defines X, which"),
    "reopened class": (
        "class A:\n    x = 1\n\n\nclass A(A):  # HERE\n    y = 2",
        "reopens class A",
    ),
    "reopened import": (
        "from fractions import Fraction\n\n\nclass Fraction(Fraction):  # HERE\n    y = 2",
        "reopens class Fraction",
    ),
    "repeated method": (
        "class A:\n    def f(self):\n        pass\n\n    def f(self, x):  # HERE\n        pass",
        "class A already defines",
    ),
    "import twice": (
        "from os.path import join\nfrom shlex import join  # HERE\n\nX = join",
        "imports join as shlex.join",
    ),
    "undefined": ("def f():\n    return missing  # HERE", "Undefined name `missing`"),
    "used too early": ("X = later  # HERE\nlater = 1", "Undefined name `later`"),
    "class scope": (
        "class A:\n    size = 1\n\n    def f(self):\n        return size  # HERE",
        "Undefined name `size`",
    ),
    "comprehension scope": ("X = [i for i in range(3)]\nY = i  # HERE", "Undefined name `i`"),
    "undefined in a string annotation": (
        'def f(x: "Missing") -> None:  # HERE\n    return None',
        "Undefined name `Missing`",
    ),
    "undefined annotation": (
        "from __future__ import annotations\n\n\ndef f(x: Missing) -> None:  # HERE\n    return",
        "Undefined name `Missing`",
    ),
    "undefined behind noqa": ("X = missing  # noqa: F821 HERE", "Undefined name `missing`"),
    "undefined in __all__": ('X = 1\n__all__ = ["X", "Y"]  # HERE', "Undefined name `Y`"),
    "type-only import": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
        "    from decimal import Decimal  # HERE\n\nX = Decimal(1)",
        "Import is used for more than type hinting",
    ),
    "unformatted": ("X = 1\nY = { 'a':1 }  # HERE", "is not formatted"),
    "star": ("from os.path import *  # HERE\n\nX = 1", "star import"),
    "relative": ("from .errors import E  # HERE\n\nX = E", "relative import"),
    "late import": ("X = 1\nimport re  # HERE", "move it to the top of the cell"),
    "else of TYPE_CHECKING": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:  # HERE\n    import re\n"
        "else:\n    re = None",
        "is a statement",
    ),
    "comment on an import": ("import os\n\n# HERE\nimport re\n\nX = os, re", "would be parted"),
    "only a comment": ("# HERE", "a comment with no definition"),
    "loose string": ('def f():\n    pass\n\n\n"""Loose # HERE', "syntax error"),
    "text for nothing": (
        'def f():\n    pass\n\n\n"""About nothing."""  # HERE',
        "documents nothing",
    ),
    "syntax error": ("X = 1\ndef f(:  # HERE\n    pass", "syntax error"),
    "return outside": ("X = 1\nreturn X  # HERE", "syntax error"),
    "line magic": ("X = 1\n%time Y = 2  # HERE", "is a magic"),
    "cell magic": ("%%time  # HERE\nX = 1", "is a magic"),
    "shell": ("X = 1\n!ls  # HERE", "is a magic"),
    "shell in a value": ("X = 1\nfiles = !ls  # HERE", "is a magic"),
    "help": ("X = 1\n# HERE\nX?", "is a magic"),
    "unusual line end": ('X = """a\u2028b"""', "does not read this cell as it is written"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_cell_that_cannot_be_exported_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    source, message = SOURCES[name]
    first: list[CellSpec] = [("", "x = 1"), (MODULE, "FIRST = 1"), ("", "!ls")]
    root = make_book(tmp_path, {"01_a": [*first, (MODULE, source)]})
    problems = refusals(root)
    assert any(message in problem for problem in problems), problems
    [problem] = [problem for problem in problems if message in problem]
    if name == "unusual line end":
        lines = (root / "chapters/01_a.md").read_text(encoding="utf-8").split("\n")
        fence = [n for n, line in enumerate(lines, start=1) if "{code-cell}" in line][3]
        assert problem.startswith(f"chapters/01_a.md:{fence}: cell 4: "), problem
    elif name == "help":
        lines = (root / "chapters/01_a.md").read_text().split("\n")
        assert problem.startswith(f"chapters/01_a.md:{lines.index('X?') + 1}: cell 4: "), problem
    else:
        assert_located(problem, root / "chapters/01_a.md", 4, "HERE")


def test_an_empty_cell_is_refused(tmp_path: Path) -> None:
    root = make_book(tmp_path, {"01_a": [(MODULE, "X = 1"), (MODULE, "")]})
    [problem] = refusals(root)
    assert re.match(r"chapters/01_a.md:\d+: cell 2: is empty", problem)


def test_a_second_docstring_is_refused(tmp_path: Path) -> None:
    cells = [(MODULE, '"""One."""\n\nX = 1'), (MODULE, '"""Two."""  # HERE\n\nY = 1')]
    root = make_book(tmp_path, {"01_a": cells})
    [problem] = refusals(root)
    assert_located(problem, root / "chapters/01_a.md", 2, "HERE")
    assert "docstring of its module" in problem


def test_a_name_defined_in_two_chapters_is_refused_and_both_places_are_named(
    tmp_path: Path,
) -> None:
    root = make_book(
        tmp_path, {"01_a": [(MODULE, "X = 1  # FIRST")], "02_b": [(MODULE, "X = 2  # HERE")]}
    )
    [problem] = refusals(root)
    assert_located(problem, root / "chapters/02_b.md", 1, "HERE")
    lines = (root / "chapters/01_a.md").read_text().split("\n")
    assert f"chapters/01_a.md:{lines.index('X = 1  # FIRST') + 1}: cell 1" in problem


def test_two_modules_of_a_chapter_cannot_define_one_name(tmp_path: Path) -> None:
    cells = [("gptbook/config.py", "X = 1"), ("gptbook/device.py", "Y = 1\nX = 2  # HERE")]
    root = make_book(tmp_path, {"01_a": cells})
    [problem] = refusals(root)
    assert_located(problem, root / "chapters/01_a.md", 2, "HERE")
    assert "one namespace" in problem or "can hold only one" in problem
    (root / "chapters/01_a.md").unlink()
    write_chapter(root, "01_a", cells[:1])
    write_chapter(root, "02_b", cells[1:])
    export(root)  # in two chapters it is two notebooks


def test_a_name_of_another_module_has_to_be_imported(tmp_path: Path) -> None:
    cells = [
        ("gptbook/pretokenize.py", "def pieces():\n    return []"),
        ("gptbook/tokenizer.py", "def encode():\n    return pieces()  # HERE"),
    ]
    root = make_book(tmp_path, {"01_a": cells})
    [problem] = refusals(root)
    assert_located(problem, root / "chapters/01_a.md", 2, "HERE")
    assert "Undefined name `pieces` in gptbook/tokenizer.py" in problem


def test_a_name_that_only_a_later_chapter_defines_is_refused(tmp_path: Path) -> None:
    first = "def f():\n    return later()  # HERE"
    chapters = {"01_a": [(MODULE, first)], "02_b": [(MODULE, "def later():\n    return 1")]}
    root = make_book(tmp_path, chapters)
    [problem] = refusals(root)
    assert_located(problem, root / "chapters/01_a.md", 1, "HERE")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (":tags: [export]\n", "without a module"),
        (":module: gptbook/config.py\n", "without the tag `export`"),
        *(
            (f":tags: [export]\n:module: {module}\n", f"exports to '{module}'")
            for module in (
                "config.py",
                "other/config.py",
                "gptbook/config",
                "gptbook/app/chat.py",
                "gptbook/grading/bank.py",
                "gptbook/__init__.py",
                "gptbook/my-config.py",
                "gptbook/class.py",
                "gptbook/../config.py",
                "gptbook/Config.py",
            )
        ),
        (":tags: [export]\n:module: 3\n", "exports to 3"),
    ],
)
def test_wrong_export_options_are_refused(tmp_path: Path, options: str, message: str) -> None:
    root = make_book(tmp_path, {})
    text = f"{HEADER}\n```{{code-cell}} ipython3\n{options}\nX = 1  # HERE\n```\n"
    (root / "chapters").mkdir()
    (root / "chapters/01_a.md").write_text(text)
    [problem] = refusals(root)
    assert_located(problem, root / "chapters/01_a.md", 1, "HERE")
    assert message in problem


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("```{code-cell} ipython3\n:tags: export\n\nX = 1\n```\n", 2, "write tags as a list"),
        ("```{code-cell} ipython3\n---\ntags: a, b\n---\nX = 1\n```\n", 3, "write tags as a list"),
        ("- a list\n\n  ```{code-cell} ipython3\n  X = 1\n  ```\n", 3, "is nested"),
        ("````{note}\n```{code-cell} ipython3\nX = 1\n```\n````\n", 2, "is nested"),
        ("```{code-cell}\n---\nx: 1\n---\nX = 1\n\n```\n", 1, "end it without a blank line"),
        ("```{code-cell}\nX = 1\n", 1, "Close its fence"),
        (" ```{code-cell} ipython3\n X = 1\n ```\n", 1, "does not read this cell"),
    ],
)
def test_a_cell_that_a_notebook_would_not_show_as_written_is_refused(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    root = make_book(tmp_path, {})
    (root / "chapters").mkdir()
    (root / "chapters/01_a.md").write_text(HEADER + text)
    [problem] = refusals(root)
    assert problem.startswith(f"chapters/01_a.md:{HEADER.count(chr(10)) + line}: ")
    assert message in problem


def test_carriage_returns_are_refused(tmp_path: Path) -> None:
    root = make_book(tmp_path, {"01_a": [(MODULE, "X = 1")]})
    path = root / "chapters/01_a.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    [problem] = refusals(root)
    assert problem.startswith("chapters/01_a.md: has carriage returns")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    root = make_book(tmp_path, {"01_a": [(MODULE, "print(1)"), (MODULE, "X = 1\ndel X")]})
    assert len(refusals(root)) == 2


def test_the_command_fails_with_the_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_book(tmp_path, {"01_a": [(MODULE, "print(1)  # HERE")]})
    assert main(["--root", str(root)]) == 1
    assert_located(capsys.readouterr().err, root / "chapters/01_a.md", 1, "HERE")


IMPORTS = {
    "later chapter": "from gptbook.device import later  # HERE",
    "unknown module": "import gptbook.nothing  # HERE",
    "unknown name": "from gptbook.config import nothing  # HERE",
    "an imported name": "from gptbook.config import re  # HERE",
    "in a function": "def f():\n    from gptbook.device import later  # HERE",
    "by an alias": "import gptbook.config as c\n\nc.X\nc.nothing  # HERE",
    "by the full name": "import gptbook.config\n\ngptbook.config.nothing  # HERE",
    "from the root": "from gptbook import device  # HERE",
    "app": "from gptbook.app.chat import run  # HERE",
    "with magics": "%time\n!ls\nfrom gptbook.device import later  # HERE",
    "in a timed cell": "%%time\nfrom gptbook.device import later  # HERE",
    "later cell": "from gptbook.tracking import LATER  # HERE",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_a_chapter_imports_only_what_is_exported_by_then(tmp_path: Path, name: str) -> None:
    root = make_book(
        tmp_path,
        {
            "01_a": [(MODULE, "import re\n\nX = re.compile(r'a')".replace("'", '"'))],
            "02_b": [("", "y = 1"), ("", IMPORTS[name]), ("gptbook/tracking.py", "LATER = 1")],
            "03_c": [("gptbook/device.py", "def later():\n    return 1")],
        },
    )
    export(root)
    [problem] = check_imports_earlier(root)
    assert_located(problem, root / "chapters/02_b.md", 2, "HERE")
    assert "not exported by then" in problem
    assert main(["--check", "--root", str(root)]) == 1


def test_allowed_imports_pass(tmp_path: Path) -> None:
    plain = (
        "import gptbook\nimport gptbook.config as c\nfrom gptbook import __version__, config\n"
        "from gptbook.app.notebook import record\nfrom gptbook.grading import grade\n"
        "from gptbook.config import X, Y, join\n"
        "print(c.X.pattern, gptbook.config.Y, config.__file__)\n"
        "device = 1\ndevice.anything"
    )
    config = "from os.path import join\n\n__all__ = ['X', 'Y', 'join']\nX = 1\nY = 2".replace(
        "'", '"'
    )
    root = make_book(
        tmp_path, {"01_a": [(MODULE, config)], "02_b": [("", plain), ("", "%%bash\nls -l 'x")]}
    )
    assert check_imports_earlier(root) == []


def test_layers_let_a_module_import_only_what_comes_before_it(tmp_path: Path) -> None:
    cells = [
        ("gptbook/tokenizer.py", "T = 1"),
        (
            "gptbook/config.py",
            "def f():\n    from gptbook.tokenizer import T  # HERE\n\n    return T",
        ),
        (
            "gptbook/data.py",
            "from gptbook.config import f\nfrom gptbook.tokenizer import T\n\nD = f, T",
        ),
    ]
    root = make_book(tmp_path, {"01_a": cells})
    [problem] = check_layers(root)
    assert_located(problem, root / "chapters/01_a.md", 2, "HERE")
    assert "gptbook.config imports gptbook.tokenizer, which does not come before it" in problem


def test_layers_look_at_order_within_a_row_and_refuse_unknown_modules_but_not_types(
    tmp_path: Path,
) -> None:
    typed = (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
        "    from gptbook.model import GPT\n\n\ndef f(x: 'GPT') -> None:\n    return None"
    ).replace("'", '"')
    cells = [
        ("gptbook/model.py", "from gptbook import __version__\n\nGPT = __version__"),
        ("gptbook/errors.py", typed),
        ("gptbook/attention.py", "from gptbook.model import GPT  # ROW\n\nA = GPT"),
        ("gptbook/novelty.py", "N = 1  # UNKNOWN"),
    ]
    root = make_book(tmp_path, {"01_a": cells})
    later, unknown = check_layers(root)
    assert_located(later, root / "chapters/01_a.md", 3, "ROW")
    assert_located(unknown, root / "chapters/01_a.md", 4, "UNKNOWN")
    assert "gptbook.novelty is not in the table" in unknown
