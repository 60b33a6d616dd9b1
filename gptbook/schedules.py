# Exported from chapters/06_optimizers.md, chapters/06_training_loop.md. Edit the cells there and
# run `make export`, or edit this file and run `python -m book.tools.export --back`.
"""Learning rates over a run, as factors of the highest one: functions of the step, from 0.

Steps are those about to be taken, so a run of total_steps asks for 0 to total_steps - 1. No step is
wasted: step 0 has a factor above 0, and a floor of 0 would be reached at total_steps, one behind
the last.
"""

from __future__ import annotations

import math
from typing import Literal

from gptbook.train_config import ScheduleConfig


def check_spans(step: int, warmup_steps: int, total_steps: int, floor: float) -> None:
    """Raise ValueError unless the numbers go together."""
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}, but must be 0 to total_steps, which is {total_steps}"
        )
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is a factor, 0 to 1, got {floor!r}")


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """Return (step + 1) / (warmup_steps + 1) in the warm-up, and 1 from step warmup_steps on."""
    if step < 0 or warmup_steps < 0:
        raise ValueError(f"step is {step}, warmup_steps {warmup_steps}; both are at least 0")
    return min(1.0, (step + 1) / (warmup_steps + 1))


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int, floor: float = 0.1) -> float:
    """Return the factor of a linear warm-up and half a cosine down to the floor.

    1 exactly at step warmup_steps, half way between 1 and floor in the middle of what remains, and
    floor exactly from total_steps on.

    Source: Loshchilov and Hutter (2017), without restarts, as in Brown et al. (2020).
    """
    check_spans(step, warmup_steps, total_steps, floor)
    if step >= total_steps:
        return floor
    if step <= warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    done = (step - warmup_steps) / (total_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def warmup_stable_decay(
    step: int,
    *,
    warmup_steps: int,
    total_steps: int,
    decay_steps: int,
    floor: float = 0.0,
    shape: Literal["linear", "sqrt"] = "linear",
) -> float:
    """Return the factor of a warm-up, a plateau at 1, and a fall in the last decay_steps.

    1 exactly from step warmup_steps to total_steps - decay_steps, and floor exactly from
    total_steps on. The plateau can be extended without knowing the end beforehand.

    Args:
        step: the step about to be taken.
        warmup_steps: steps below 1 at the start.
        total_steps: all steps.
        decay_steps: the fall; with the warm-up not more than all steps.
        floor: the last factor.
        shape: "linear", or "sqrt": 1 - sqrt(share of the fall that is done), which falls faster.

    Source: Hu et al. (2024), MiniCPM; shape "sqrt": Haegele et al. (2024).
    """
    check_spans(step, warmup_steps, total_steps, floor)
    if not 0 <= decay_steps <= total_steps - warmup_steps:
        raise ValueError(
            f"decay_steps is {decay_steps}, but warmup_steps {warmup_steps} leave 0 to "
            f"{total_steps - warmup_steps} of total_steps {total_steps}"
        )
    if shape not in ("linear", "sqrt"):
        raise ValueError(f"shape is {shape!r}; choose linear or sqrt")
    if step >= total_steps:
        return floor
    if step <= total_steps - decay_steps:
        return constant(step, warmup_steps=warmup_steps)
    done = 1 - (total_steps - step) / decay_steps
    return floor + (1 - floor) * (1 - (math.sqrt(done) if shape == "sqrt" else done))


def learning_rate_factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """Return the factor of a step by the schedule that a configuration names."""
    warmup_steps, floor = config.warmup_steps, config.floor
    match config.kind:
        case "constant":
            return constant(step, warmup_steps=warmup_steps)
        case "cosine":
            return warmup_cosine(
                step, warmup_steps=warmup_steps, total_steps=total_steps, floor=floor
            )
        case "stable-decay":
            return warmup_stable_decay(
                step,
                warmup_steps=warmup_steps,
                total_steps=total_steps,
                decay_steps=config.decay_steps,
                floor=floor,
            )
