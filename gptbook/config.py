# Exported from chapters/03_rotary_positions.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Configurations: frozen dataclasses that check what they are given. Nothing here needs torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from gptbook.arguments import checked_integer

RopeScalingKind = Literal["linear", "ntk", "yarn", "llama3"]


def check_above(value: float, name: str, bound: float, remedy: str) -> None:
    """Raise ValueError unless value is a finite number above bound; remedy says what to do."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}: {remedy}")
    if not bound < value < math.inf:
        raise ValueError(f"{name} must be finite and above {bound}, got {value!r}: {remedy}")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are slowed down for texts longer than those trained on.

    Attributes:
        kind: "linear" is position interpolation (Chen et al. 2023); "ntk" raises the base (bloc97
            2023); "yarn" slows the slow pairs only and scales attention (Peng et al. 2023);
            "llama3" slows the slow pairs only (Llama 3.1).
        factor: how many times longer, at least 1.
        original_context_length: the length trained on; "yarn" and "llama3" need it.
        beta_fast: "yarn": pairs that turn this often within the original length stay as they are.
        beta_slow: "yarn": pairs that turn at most this often are slowed by the whole factor.
        low_freq_factor: "llama3": pairs that turn less often are slowed by the whole factor.
        high_freq_factor: "llama3": pairs that turn more often stay as they are.
        attention_factor: "yarn": what multiplies cosines and sines; None: 0.1 ln(factor) + 1.

    Raises:
        TypeError: original_context_length is no int.
        ValueError: a value is out of range, is missing, or belongs to another kind.
    """

    kind: RopeScalingKind
    factor: float
    original_context_length: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        kinds = get_args(RopeScalingKind)
        if self.kind not in kinds:
            raise ValueError(f"kind is {self.kind!r}; choose one of {', '.join(kinds)}")
        if isinstance(self.factor, bool) or not (
            isinstance(self.factor, int | float) and 1 <= self.factor < math.inf
        ):
            raise ValueError(
                f"factor must be a finite number of at least 1, got {self.factor!r}: 4.0 is for "
                "texts four times as long"
            )
        if self.original_context_length is not None:
            checked_integer(self.original_context_length, "original_context_length", 1)
        elif self.kind in ("yarn", "llama3"):
            raise ValueError(
                f"original_context_length is None, but kind {self.kind!r} needs the length that "
                "the model was trained on"
            )
        check_above(self.beta_slow, "beta_slow", 0, "the paper has 1")
        check_above(self.beta_fast, "beta_fast", self.beta_slow, "it must be above beta_slow")
        check_above(self.low_freq_factor, "low_freq_factor", 0, "Llama 3.1 has 1")
        remedy = "it must be above low_freq_factor"
        check_above(self.high_freq_factor, "high_freq_factor", self.low_freq_factor, remedy)
        if self.attention_factor is not None:
            check_above(self.attention_factor, "attention_factor", 0, "None gives the paper's")
            if self.kind != "yarn":
                raise ValueError(
                    f"attention_factor is {self.attention_factor!r}, but kind {self.kind!r} has "
                    "none: leave it out, or choose 'yarn'"
                )


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions (Su et al. 2021).

    Attributes:
        base: pair i of d_head / 2 turns by base^(-2i/d_head) radians from one position to the next.
        scaling: how the pairs are slowed down for longer texts; None: not at all.

    Raises:
        TypeError: scaling is neither None nor a RopeScaling.
        ValueError: base is not above 1.
    """

    base: float = 10000.0
    scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        check_above(self.base, "base", 1, "RoFormer has 10000.0")
        if self.scaling is not None and not isinstance(self.scaling, RopeScaling):
            raise TypeError(f"scaling must be a RopeScaling or None, got {self.scaling!r}")
