"""Taking a function and what it needs out of a notebook."""

from collections.abc import Callable

import pytest

from gptbook.grading.program import ProgramError, slice_program
from gptbook.grading.shortcuts import Forbidden, find_shortcuts


def sliced(*cells: str, target: str = "f") -> str:
    return slice_program(cells, target).source


def test_helpers_imports_and_constants_come_along_and_nothing_else() -> None:
    source = sliced(
        "import math\nimport numpy as np",
        "SCALE = 2\nresult = slow_experiment(SCALE)",
        "%matplotlib inline\nplt.plot(result)",
        "def helper(x):\n    return math.sqrt(x) * SCALE",
        "def f(x):\n    return helper(x)",
        "f(3)",
    )
    assert source.split("\n\n") == [
        "import math",
        "SCALE = 2",
        "def helper(x):\n    return math.sqrt(x) * SCALE",
        "def f(x):\n    return helper(x)\n",
    ]


def test_the_last_definition_counts() -> None:
    source = sliced("def f(x):\n    return old(x)", "def old(x): return 1", "def f(x): return 2")
    assert source == "def f(x): return 2\n"


def test_a_table_that_is_filled_after_it_is_made_comes_whole() -> None:
    source = sliced(
        "table = {}",
        "for i in range(3):\n    table[i] = i * i",
        "table.update({9: 81})",
        "def f(x): return table[x]",
    )
    namespace: dict[str, object] = {}
    exec(source, namespace)
    assert namespace["table"] == {0: 0, 1: 1, 2: 4, 9: 81}


def test_a_test_of_the_readers_on_a_module_is_left_out() -> None:
    source = sliced(
        "import numpy as np",
        "np.testing.assert_allclose(f(2), 3)",
        "def f(x): return np.sum(x)",
    )
    assert "testing" not in source


def test_a_patched_module_is_kept() -> None:
    source = sliced("import torch", "torch.allclose = print", "def f(x): return torch.sum(x)")
    assert "torch.allclose = print" in source


@pytest.mark.parametrize(
    "cell",
    [
        "files = !ls\n{}",
        "%%time\n{}",
        "print?\n{}",
        "for i in range(2):\n    !ls\n{}",
        "t = %timeit -o 3\n{}",
        "%matplotlib inline\r\n{}",
        "\x0c\n{}",
    ],
)
def test_magic_is_left_out_and_what_stands_beside_it_is_not(cell: str) -> None:
    assert sliced(cell.format("def f(x):\n    return x")).endswith("def f(x):\n    return x\n")


def test_what_looks_like_magic_inside_python_is_python() -> None:
    source = "def f(x):\n    return (x\n      % 7)"
    assert sliced(source) == source + "\n"


def test_what_runs_at_once_sees_what_was_before_it() -> None:
    source = sliced("def f(x): return x", "g = f", "def f(x): return g(x) + 1")
    namespace: dict[str, Callable[[int], int]] = {}
    exec(source, namespace)
    assert namespace["f"](1) == 2


def test_a_future_import_and_a_name_that_is_deleted_later_come_along() -> None:
    cells = ("from __future__ import annotations\na = 1\nb = a\ndel a", "def f(x: Any): return b")
    source = sliced("import math", *cells)
    assert source.startswith("from __future__ import annotations\n\na = 1\n\nb = a\n\ndef f")


def test_decorators_and_helpers_defined_later_come_along() -> None:
    source = sliced(
        "from functools import cache",
        "@cache\ndef f(x):\n    return g(x)",
        "def g(x): return x",
    )
    assert "@cache\ndef f" in source
    assert "def g" in source


def test_a_cell_that_does_not_parse_is_left_out_and_named_where_it_matters() -> None:
    assert sliced("def f(x): return 1", "this is not python")
    with pytest.raises(ProgramError, match=r"code cell 1, line 1: .* No other cell defines 'f'"):
        sliced("def f(x: return 1")


def test_a_module_that_is_imported_in_every_cell_is_there_from_the_first() -> None:
    cells = [
        "import numpy as np\ndef helper(x: np.ndarray): return x",
        "import numpy as np\ndef f(x: np.ndarray): return helper(x)",
        "import numpy as np",
    ]
    namespace: dict[str, object] = {}
    exec(sliced(*cells), namespace)
    assert callable(namespace["f"])


def test_parameters_and_local_names_are_not_taken_from_the_notebook() -> None:
    cells = [
        "def f(text, rows=0):\n    for row in text:\n        rows += g(row)\n    return rows",
        "def g(x): return [text for text in x]",
        "text = open('nowhere.txt').read()\nrows = 1\nfor row in text: rows += 1\nx = 1 / 0",
    ]
    source = sliced(*cells)
    assert "def g" in source
    assert "nowhere" not in source
    assert "rows = 1" not in source
    assert "1 / 0" not in source


def test_a_global_that_a_function_changes_is_taken() -> None:
    source = sliced("n = 0", "n += 5", "def f():\n    global n\n    n += 1\n    return n")
    assert "n = 0" in source
    assert "n += 5" in source


def test_earlier_parts_are_provided() -> None:
    cells = ["def first(x): return wrong", "def second(x): return first(x)"]
    program = slice_program(cells, "second", {"first": "def first(x): return 1\n"})
    assert "def first" not in program.source
    assert list(program.provided) == ["first"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import tiktoken", ["tiktoken"]),
        ("from tiktoken.core import Encoding", ["tiktoken"]),
        ("from gptbook import tokenizer", ["gptbook.tokenizer"]),
        ("import torch.nn.functional as F\nF.softmax(x)", ["torch.nn.functional.softmax"]),
        ("from torch import softmax as s\ns(x)", ["torch.softmax"]),
        ("x.softmax(-1)", [".softmax"]),
        ("import gptbook.tokenizers_of_mine\nsoftmax(x)", []),
    ],
)
def test_shortcuts_are_found_through_aliases(source: str, found: list[str]) -> None:
    forbidden = Forbidden(
        ("tiktoken", "gptbook.tokenizer"),
        ("torch.softmax", "torch.nn.functional.softmax", ".softmax"),
    )
    assert [name for name in find_shortcuts(source, forbidden) if name in found] == found
    assert bool(find_shortcuts(source, forbidden)) == bool(found)
