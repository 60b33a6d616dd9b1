# Exported from chapters/03_rotary_positions.md, chapters/04_kv_cache.md. Edit the cells there and
# run `make export`, or edit this file and run `python -m book.tools.export --back`.
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


Backend = Literal["reference", "sdpa", "tiled", "flash", "auto"]
"""What computes attention; see `gptbook.attention.attend`."""


@dataclass(frozen=True)
class AttentionConfig:
    """An attention layer's shape. Numbers left out are filled in when it is made.

    Attributes:
        d_model: width of the vectors that come in and go out, C.
        n_head: heads of queries, H.
        n_kv_head: heads of keys and values, K; it divides n_head. None: as many as n_head.
        d_head: width of a head, D. None: d_model / n_head.
        bias: whether queries, keys and values have a bias.
        output_bias: whether the output has one. None: as bias.
        rope: how queries and keys are turned by their positions; None: not at all.
        sliding_window: how many tokens a query sees, itself included; None: all up to itself.
        dropout: share of the weights set to zero in training.
        backend: what computes it.

    Raises:
        ValueError: numbers that do not go together.
    """

    d_model: int
    n_head: int
    n_kv_head: int = None  # type: ignore[assignment]  # numbers from __post_init__ on
    d_head: int = None  # type: ignore[assignment]
    bias: bool = False
    output_bias: bool = None  # type: ignore[assignment]
    rope: RopeConfig | None = None
    sliding_window: int | None = None
    dropout: float = 0.0
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        for name in ("d_model", "n_head", "n_kv_head", "d_head", "sliding_window"):
            if getattr(self, name) is not None:
                checked_integer(getattr(self, name), name, 1)
        if self.n_kv_head is None:
            object.__setattr__(self, "n_kv_head", self.n_head)
        if self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_head={self.n_head} is no multiple of n_kv_head={self.n_kv_head}: each head of "
                "keys serves the same number of query heads"
            )
        if self.d_head is None:
            if self.d_model % self.n_head:
                raise ValueError(
                    f"d_model={self.d_model} is no multiple of n_head={self.n_head}: change one, "
                    "or give d_head"
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_head)
        if self.rope is not None and self.d_head % 2:
            raise ValueError(
                f"d_head={self.d_head} is odd, and RoPE turns pairs: make it even, or rope None"
            )
        if self.output_bias is None:
            object.__setattr__(self, "output_bias", self.bias)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if self.backend not in get_args(Backend):
            names = ", ".join(get_args(Backend))
            raise ValueError(f"backend must be one of {names}, got {self.backend!r}")
