"""Probes for functions that train see what they did to tensors, graphs and files."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from gptbook.grading.training_probes import CHECKPOINT, in_turn, peak_saved, resumed, saved_over


def test_what_each_of_several_calls_left_is_kept_apart() -> None:
    weight = torch.ones(2, requires_grad=True)

    def step(parameters: tuple[Any, ...], factor: list[float]) -> str:
        (factor[0] * parameters[0]).sum().backward()
        with torch.no_grad():
            parameters[0].add_(1)
        if factor[0] == 5:
            factor.append(0)
        return "done"

    first, second = in_turn(step, ((weight, None),), ([2.0],), ([5.0],))
    assert first[0] == "done"
    assert first[1][0].tolist() == [2, 2]
    assert first[2][0].tolist() == [2, 2]
    assert (first[1][1], first[2][1], first[3]) == (None, None, False)
    assert second[1][0].tolist() == [3, 3]
    assert second[2][0].tolist() == [7, 7]  # backward added to what was there
    assert second[3] is True  # an argument of the call has changed


def test_graphs_that_are_held_together_count_together() -> None:
    weight = torch.ones(100, requires_grad=True)

    def one_at_a_time(n: int) -> None:
        for _ in range(n):
            weight.exp().sum().backward()

    def at_the_end(n: int) -> None:
        torch.stack([weight.exp().sum() for _ in range(n)]).sum().backward()

    def functional(n: int) -> Any:
        return torch.func.grad(lambda w: w.exp().sum())(weight.detach())

    (_, few), (_, many) = peak_saved(one_at_a_time, 8), peak_saved(at_the_end, 8)
    assert 100 <= few < 300
    assert many >= 800
    value, nothing = peak_saved(functional, 1)
    assert nothing == 0
    assert value.shape == (100,)


def trained(write: Any) -> Any:
    """A function that counts to a number, keeping it in a file."""

    def train(data: Any, settings: dict[str, Any], path: str, until: int) -> int:
        at = pickle.loads(Path(path).read_bytes()) if os.path.exists(path) else 0
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
        for _ in range(until - at):
            optimizer.step()
        write(Path(path), pickle.dumps(until))
        return until

    return train


def in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def beside(path: Path, content: bytes) -> None:
    other = path.with_name(f"new-{CHECKPOINT}")
    other.write_bytes(content)
    other.replace(path)


def removing(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    beside(path, content)


@pytest.mark.parametrize(
    ("write", "whole", "gone"),
    [(in_place, False, False), (beside, True, False), (removing, True, True)],
)
def test_how_a_checkpoint_is_replaced_is_seen(write: Any, whole: bool, gone: bool) -> None:
    assert saved_over(trained(write), None, {}, 2, 5) == (
        5,
        {"whole": whole, "gone": gone, "new": True},
    )


def test_steps_of_optimizers_are_counted_and_only_the_file_is_taken_along() -> None:
    whole, stopped = resumed(trained(beside), None, {}, (5,), (2, 2, 5))
    assert whole == [(5, 5, [CHECKPOINT])]
    assert [made for _, made, _ in stopped] == [2, 0, 3]
