"""Ways to call a reader's function that trains: it changes what it gets, and keeps files."""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptbook.grading.values import dumps

Function = Callable[..., Any]

CHECKPOINT = "run.checkpoint"
"""Name of the file that a function is told to keep a run in."""


def in_turn(function: Function, shared: tuple[Any, ...], *calls: tuple[Any, ...]) -> list[Any]:
    """Call the function once for each of `calls`, always with the same objects of `shared` first.

    Returns:
        For each call its value; copies of the tensors that ``shared[0]`` holds and of their
        gradients, as they were after it; and whether the call's own arguments were changed.
    """
    seen = []
    for args in calls:
        before = dumps(args)
        value = function(*shared, *args)
        tensors = [None if t is None else t.detach().clone() for t in shared[0]]
        grads = [None if t is None or t.grad is None else t.grad.clone() for t in shared[0]]
        seen.append((value, tensors, grads, dumps(args) != before))
    return seen


def peak_saved(function: Function, *args: Any) -> tuple[Any, int]:
    """Return the value, and how many numbers autograd kept for backward passes at one time.

    Where a function uses torch.func, which allows no look at what is kept, the number is 0.
    """
    import torch  # has been loaded where there are tensors, and nowhere else

    live = peak = 0

    class Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal live, peak
            self.tensor = tensor
            live += tensor.numel()
            peak = max(peak, live)

        def __del__(self) -> None:
            nonlocal live
            live -= self.tensor.numel()

    try:
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            value = function(*args)
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        return function(*args), 0
    return value, peak


def resumed(
    function: Function, data: Any, settings: dict[str, Any], *plans: Sequence[int]
) -> list[list[Any]]:
    """Train once for each plan: up to its first step, then on from the file up to the next one.

    Each call has a folder of its own, to which only the file is taken along, and begins with other
    random numbers, as a new process would.

    Returns:
        For each plan and each of its steps: the value, how many steps optimizers made, and the
        names of the files in the folder.
    """
    import numpy as np
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1

    hook = register_optimizer_step_post_hook(count)
    results: list[list[Any]] = []
    for plan in plans:
        last: Path | None = None
        rows: list[Any] = []
        for until in plan:
            path = Path(tempfile.mkdtemp()) / CHECKPOINT
            if last is not None and last.is_file():
                shutil.copyfile(last, path)
            seed = 1000 * len(results) + until
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            made = 0
            value = function(data, dict(settings), str(path), until)
            rows.append((value, made, sorted(os.listdir(path.parent))))
            last = path
        results.append(rows)
    hook.remove()
    return results


def saved_over(
    function: Function, data: Any, settings: dict[str, Any], first: int, second: int
) -> tuple[Any, dict[str, bool]]:
    """Train to a step and then to a later one, with the same file.

    Returns:
        The value, and what became of the file: whether its old contents, which have a second name,
        stayed whole; whether its name ever was without a file; whether it has new contents.
    """
    path = Path(tempfile.mkdtemp()) / CHECKPOINT
    gone = False

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal gone
        if event in ("os.remove", "os.rename") and os.path.abspath(args[0]) == str(path):
            gone = True

    function(data, dict(settings), str(path), first)
    before = path.read_bytes()
    old = Path(tempfile.mkdtemp()) / "old"
    os.link(path, old)
    sys.addaudithook(watch)
    value = function(data, dict(settings), str(path), second)
    return value, {
        "whole": old.read_bytes() == before,
        "gone": gone,
        "new": path.read_bytes() != before,
    }
