"""Exercise 4.1 meets the rules for exercises."""

import pytest

from gptbook.grading.ch04_attention.masked_bank import PART
from gptbook.grading.shortcuts import find_shortcuts
from tests.grading.rules import check_bank, check_declaration, check_solution


def test_declaration() -> None:
    check_declaration("4.1")


def test_solution_on_20_seeds() -> None:
    check_solution("4.1")


def test_styles_stubs_and_mistakes() -> None:
    check_bank("4.1")


@pytest.mark.parametrize(
    "line",
    [
        "import torch.nn.functional as F\nx = F.scaled_dot_product_attention",
        "from torch.nn.functional import scaled_dot_product_attention as s\nx = s(1)",
        "import torch\nx = torch.nn.MultiheadAttention",
        "from gptbook.attention import attend",
    ],
)
def test_what_does_it_all_is_refused(line: str) -> None:
    assert find_shortcuts(line, PART.forbidden)
