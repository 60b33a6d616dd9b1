"""Exercise 4.5 meets the rules for exercises."""

import pytest

from gptbook.grading.ch04_attention.backward_bank import PART
from gptbook.grading.shortcuts import find_shortcuts
from tests.grading.rules import check_bank, check_declaration, check_solution


def test_declaration() -> None:
    check_declaration("4.5")


def test_solution_on_20_seeds() -> None:
    check_solution("4.5")


def test_styles_stubs_and_mistakes() -> None:
    check_bank("4.5")


@pytest.mark.parametrize(
    "line",
    [
        "loss.backward()",
        "import torch\ntorch.autograd.grad(loss, q)",
        "from torch.autograd import grad\ngrad(loss, q)",
        "from torch.func import vjp\nvjp(f, q)",
        "import torch.nn.functional as F\nF.scaled_dot_product_attention(q, k, v)",
    ],
)
def test_autograd_is_refused(line: str) -> None:
    assert find_shortcuts(line, PART.forbidden)
