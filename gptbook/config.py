# Exported from chapters/03_rotary_positions.md, chapters/04_kv_cache.md, chapters/05_blocks.md,
# chapters/05_gpt.md. Edit the cells there and run `make export`, or edit this file and run `python
# -m book.tools.export --back`.
"""Configurations: frozen dataclasses that check what they are given. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

from gptbook.arguments import check_share, checked_integer

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
        check_share(self.dropout, "dropout")
        if self.backend not in get_args(Backend):
            names = ", ".join(get_args(Backend))
            raise ValueError(f"backend must be one of {names}, got {self.backend!r}")


Norm = Literal["layernorm", "rmsnorm"]
NormPosition = Literal["pre", "post"]
Activation = Literal["relu", "gelu", "gelu_tanh", "swiglu"]
Positions = Literal["learned", "sinusoidal", "rope", "none"]


def check_choice(value: object, name: str, choices: object) -> None:
    """Raise ValueError unless value is one of the choices, a Literal."""
    if value not in get_args(choices):
        wanted = ", ".join(repr(choice) for choice in get_args(choices))
        raise ValueError(f"{name} is {value!r}; choose one of {wanted}")


def check_flag(value: object, name: str) -> None:
    """Raise TypeError unless value is True or False: the text "false" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def checked_fields(cls: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return values as keyword arguments of the dataclass cls.

    Raises:
        TypeError: values is no mapping.
        ValueError: a key is unknown, or one without a default is missing; all are named.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{what} must be a mapping of names to values, got {values!r}")
    known = {field.name: field for field in fields(cls)}
    problems = []
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            problems.append(f"unknown key {key!r}{hint}")
    problems += [
        f"missing key {name!r}"
        for name, field in known.items()
        if field.default is MISSING and name not in values
    ]
    if problems:
        raise ValueError(f"{what}: {'; '.join(problems)}")
    return dict(values)


def default_d_ff(d_model: int, mlp: Activation) -> int:
    """Return 4 d_model, or for SwiGLU's three matrices 8/3 d_model, up to a multiple of 64."""
    return 4 * d_model if mlp != "swiglu" else -(-8 * d_model // (3 * 64)) * 64


@dataclass(frozen=True)
class GPTConfig:
    """All that a GPT's shape and arithmetic depend on. The defaults are GPT-2's choices.

    What is left out is derived and then stored, so that every attribute holds its value.

    Attributes:
        vocab_size: ids that the model knows.
        context_length: the longest row that it reads.
        n_layer: blocks.
        n_head: heads of queries in each.
        d_model: width of the residual stream.
        n_kv_head: heads of keys and values, a divisor of n_head; left out: n_head.
        d_head: width of a head; left out: d_model / n_head.
        d_ff: hidden width of the MLP; left out: `default_d_ff`.
        norm: "layernorm" or "rmsnorm".
        norm_eps: what the norms add to the variance or the mean square.
        norm_position: "pre": inside the branches, and once at the end; "post": behind each sum.
        mlp: the MLP's activation, or "swiglu".
        positions: "learned" or "sinusoidal" vectors are added to those of the tokens, "rope" turns
            queries and keys, "none" leaves the order to the causal mask.
        rope: settings of "rope"; left out: RopeConfig().
        qk_norm: whether each head's queries and keys pass an RMSNorm, as in Qwen3.
        bias: whether linear layers and LayerNorms add a bias.
        attention_bias: the same for the projection to queries, keys and values; left out: bias.
        output_bias: the same for attention's output projection; left out: attention_bias.
        tied: whether the logits are computed with the matrix of the token embedding.
        dropout: share of numbers set to zero in training: of the embedding, of what each branch
            adds, and of the attention weights.
        sliding_window: how many places a query sees, itself included; None: all before it.
        backend: how attention is computed, see `gptbook.attention.attend`.

    Raises:
        TypeError: a number or a flag has the wrong type.
        ValueError: a value is out of range, or two do not go together.
    """

    vocab_size: int
    context_length: int
    n_layer: int
    n_head: int
    d_model: int
    n_kv_head: int = None  # type: ignore[assignment]  # these hold numbers once it is constructed
    d_head: int = None  # type: ignore[assignment]
    d_ff: int = None  # type: ignore[assignment]
    norm: Norm = "layernorm"
    norm_eps: float = 1e-5
    norm_position: NormPosition = "pre"
    mlp: Activation = "gelu_tanh"
    positions: Positions = "learned"
    rope: RopeConfig | None = None
    qk_norm: bool = False
    bias: bool = True
    attention_bias: bool = None  # type: ignore[assignment]
    output_bias: bool = None  # type: ignore[assignment]
    tied: bool = True
    dropout: float = 0.0
    sliding_window: int | None = None
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "n_layer", "n_head", "d_model"):
            checked_integer(getattr(self, name), name, 1)
        check_choice(self.norm, "norm", Norm)
        check_choice(self.norm_position, "norm_position", NormPosition)
        check_choice(self.mlp, "mlp", Activation)
        check_choice(self.positions, "positions", Positions)
        check_above(self.norm_eps, "norm_eps", 0, "GPT-2 has 1e-5")
        self._check_rope()
        self._derive()
        for name in ("qk_norm", "bias", "attention_bias", "output_bias", "tied"):
            check_flag(getattr(self, name), name)

    def _check_rope(self) -> None:
        if self.rope is not None and not isinstance(self.rope, RopeConfig):
            raise TypeError(f"rope must be a RopeConfig or None, got {self.rope!r}")
        if self.rope is not None and self.positions != "rope":
            raise ValueError(
                f"rope is given, but positions is {self.positions!r}: leave rope out, or set "
                "positions='rope'"
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"d_model must be even for sinusoidal positions, got {self.d_model}: they are "
                "pairs of a sine and a cosine"
            )

    def _derive(self) -> None:
        """Store what was left out. AttentionConfig checks the heads."""
        derived: dict[str, Any] = {}
        if self.positions == "rope" and self.rope is None:
            derived["rope"] = RopeConfig()
        if self.attention_bias is None:
            derived["attention_bias"] = self.bias
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        attention = self.attention()
        derived = {
            name: getattr(attention, name) for name in ("n_kv_head", "d_head", "output_bias")
        }
        derived["d_ff"] = default_d_ff(self.d_model, self.mlp) if self.d_ff is None else self.d_ff
        checked_integer(derived["d_ff"], "d_ff", 1)
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def attention(self) -> AttentionConfig:
        """Return the settings of the attention layers."""
        return AttentionConfig(
            d_model=self.d_model,
            n_head=self.n_head,
            n_kv_head=self.n_kv_head,
            d_head=self.d_head,
            bias=self.attention_bias,
            output_bias=self.output_bias,
            rope=self.rope,
            sliding_window=self.sliding_window,
            dropout=self.dropout,
            backend=self.backend,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all values as a dict that JSON can hold; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """Return the configuration that a dict describes.

        Raises:
            TypeError: values, or what it holds for rope, is no mapping, or as for the class.
            ValueError: a key is unknown or missing (all are named), or as for the class.
        """
        given = checked_fields(cls, values, "the model's configuration")
        if given.get("rope") is not None:
            given["rope"] = rope_from_dict(given["rope"])
        return cls(**given)


def rope_from_dict(values: Mapping[str, Any]) -> RopeConfig:
    """Return the RopeConfig that a dict describes, or raise as `GPTConfig.from_dict` does."""
    given = checked_fields(RopeConfig, values, "rope")
    if given.get("scaling") is not None:
        given["scaling"] = RopeScaling(
            **checked_fields(RopeScaling, given["scaling"], "rope's scaling")
        )
    return RopeConfig(**given)


def gpt2_like(
    n_layer: int, n_head: int, d_model: int, *, vocab_size: int = 50257, context_length: int = 1024
) -> GPTConfig:
    """Return a GPT-2 of another size: LayerNorm, GELU, learned positions, biases, tied."""
    return GPTConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        n_layer=n_layer,
        n_head=n_head,
        d_model=d_model,
    )


def gpt2() -> GPTConfig:
    """Return GPT-2 small (Radford et al. 2019): 124,439,808 parameters."""
    return gpt2_like(n_layer=12, n_head=12, d_model=768)


def gpt2_medium() -> GPTConfig:
    """Return GPT-2 medium: 354,823,168 parameters."""
    return gpt2_like(n_layer=24, n_head=16, d_model=1024)


def gpt2_large() -> GPTConfig:
    """Return GPT-2 large: 774,030,080 parameters."""
    return gpt2_like(n_layer=36, n_head=20, d_model=1280)


def gpt2_xl() -> GPTConfig:
    """Return GPT-2 XL: 1,557,611,200 parameters."""
    return gpt2_like(n_layer=48, n_head=25, d_model=1600)


def gpt3_175b() -> GPTConfig:
    """Return GPT-3 (Brown et al. 2020): 174,604,259,328 parameters.

    In every second layer of the real one attention is sparse, in a pattern that was not published;
    here it is dense in all. The parameters are the same.
    """
    return gpt2_like(n_layer=96, n_head=96, d_model=12288, context_length=2048)


def llama3_8b() -> GPTConfig:
    """Return Llama 3 8B (Grattafiori et al. 2024): 8,030,261,248 parameters."""
    return GPTConfig(
        vocab_size=128256,
        context_length=8192,
        n_layer=32,
        n_head=32,
        n_kv_head=8,
        d_model=4096,
        d_ff=14336,
        norm="rmsnorm",
        mlp="swiglu",
        positions="rope",
        rope=RopeConfig(base=500000.0),
        bias=False,
        tied=False,
    )


def qwen3_0_6b() -> GPTConfig:
    """Return Qwen3 0.6B (Yang et al. 2025): 596,049,920 parameters."""
    return GPTConfig(
        vocab_size=151936,
        context_length=40960,
        n_layer=28,
        n_head=16,
        n_kv_head=8,
        d_model=1024,
        d_head=128,
        d_ff=3072,
        norm="rmsnorm",
        norm_eps=1e-6,
        mlp="swiglu",
        positions="rope",
        rope=RopeConfig(base=1000000.0),
        qk_norm=True,
        bias=False,
        tied=True,
    )


def tiny(vocab_size: int = 1024, context_length: int = 128) -> GPTConfig:
    """Return a model of today's kind that two cores train in a minute: 1.0 million parameters."""
    return small_model(4, 4, 128, vocab_size=vocab_size, context_length=context_length)


def mini(vocab_size: int = 4096, context_length: int = 256) -> GPTConfig:
    """Return a model of today's kind for some hours of two cores: 12 million parameters."""
    return small_model(6, 6, 384, vocab_size=vocab_size, context_length=context_length)


def small_model(
    n_layer: int, n_head: int, d_model: int, *, vocab_size: int, context_length: int
) -> GPTConfig:
    """Return a model of today's kind: RMSNorm, SwiGLU, RoPE, no biases; tied, as small ones are."""
    return GPTConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        n_layer=n_layer,
        n_head=n_head,
        d_model=d_model,
        norm="rmsnorm",
        mlp="swiglu",
        positions="rope",
        bias=False,
    )


PRESETS: dict[str, Callable[[], GPTConfig]] = {
    "gpt2": gpt2,
    "gpt2-medium": gpt2_medium,
    "gpt2-large": gpt2_large,
    "gpt2-xl": gpt2_xl,
    "gpt3-175b": gpt3_175b,
    "llama3-8b": llama3_8b,
    "qwen3-0.6b": qwen3_0_6b,
    "tiny": tiny,
    "mini": mini,
}
"""The presets by the names that people write."""


def preset(name: str) -> GPTConfig:
    """Return the preset of a name, such as "gpt2-medium".

    Raises:
        ValueError: there is none.
    """
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}{hint}")
    return PRESETS[name]()
