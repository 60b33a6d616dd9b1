# Exported from chapters/03_embeddings.md, chapters/03_rotary_positions.md. Edit the cells there and
# run `make export`, or edit this file and run `python -m book.tools.export --back`.
"""Where a token stands: sinusoidal and rotary positions, their scaling, and ALiBi."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from gptbook.arguments import checked_integer
from gptbook.config import RopeConfig, RopeScaling


def clock_frequencies(
    d: int, base: float, device: torch.device | None = None
) -> Float[Tensor, " half"]:
    """Return base^(-2i/d) for i = 0 to d/2 - 1 in float32: radians that each clock turns a step."""
    even = torch.arange(0, d, 2, dtype=torch.float32, device=device)
    return 1.0 / (base ** (even / d))


def checked_even(value: int, name: str) -> int:
    """Return value, or raise ValueError unless it is even and at least 2: numbers turn in pairs."""
    value = checked_integer(value, name, 2)
    if value % 2:
        raise ValueError(f"{name} must be even, since its numbers turn in pairs, got {value}")
    return value


def checked_base(base: float) -> float:
    """Return base, or raise ValueError unless it is finite and above 1."""
    if not 1 < base < float("inf"):
        raise ValueError(f"base must be finite and above 1, such as 10000.0, got {base!r}")
    return base


def sinusoidal_positions(
    positions: Num[Tensor, "*places"], d_model: int, base: float = 10000.0
) -> Float[Tensor, "*places C"]:
    """Return a float32 vector of d_model numbers for each position.

    Numbers 2i and 2i + 1 are the sine and the cosine of position * base^(-2i/d_model). The angle is
    a float32, so it is off by up to some 1e-7 of itself: 0.01 at position 100,000.

    Source: Vaswani et al. (2017), section 3.5.

    Raises:
        ValueError: d_model is odd or below 2, or base is not above 1.
    """
    frequencies = clock_frequencies(
        checked_even(d_model, "d_model"), checked_base(base), positions.device
    )
    angles = positions[..., None].to(torch.float32) * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def yarn_share_slowed(d_head: int, base: float, scaling: RopeScaling) -> Float[Tensor, " half"]:
    """Return for each pair how much of it YaRN slows down: 0 not at all, 1 by the whole factor."""

    def pair_that_turns(times: float) -> float:
        """Return the index, not a whole one, of the pair that turns so often."""
        context_length = scaling.original_context_length or 1  # the config requires it
        return d_head * math.log(context_length / (times * 2 * math.pi)) / (2 * math.log(base))

    first = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(scaling.beta_slow)), d_head - 1)
    pairs = torch.arange(d_head // 2, dtype=torch.float32)
    if last < first:  # all pairs are on one side of the ramp
        return (pairs > last).to(torch.float32)
    return ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)


def llama3_share_slowed(
    frequencies: Float[Tensor, " half"], scaling: RopeScaling
) -> Float[Tensor, " half"]:
    """Return for each pair how much of it Llama 3.1 slows down: 0 not at all, 1 wholly."""
    context_length = scaling.original_context_length or 1  # the config requires it
    turns = context_length * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return 1 - ((turns - low) / (high - low)).clamp(0, 1)


def rope_frequencies(d_head: int, config: RopeConfig) -> tuple[Float[Tensor, " half"], float]:
    """Return how far each pair turns from one position to the next, and YaRN's attention factor.

    The frequencies are in radians, float32, shape (d_head / 2,), those of transformers.
    Cosines and sines are to be multiplied by the attention factor, which is 1 but for "yarn".

    Sources: Su et al. (2021); Chen et al. (2023) for "linear"; bloc97 (2023) for "ntk", with the
    whole factor at any length, where transformers' "dynamic" lets it grow with the text; Peng et
    al. (2023) for "yarn"; Llama 3.1's reference code for "llama3".

    "yarn" follows the authors' code and transformers: between the pairs that turn beta_fast and
    beta_slow times in the original length, the share slowed down rises linearly with the pair's
    index, where the paper has it linear in the turns. It departs from both only where all pairs
    turn more than beta_fast times, or less than beta_slow times: there they slow what should stay,
    or keep what should be slowed.

    Raises:
        ValueError: d_head is odd or below 2, or it is 2 and the kind is "ntk".
    """
    d_head = checked_even(d_head, "d_head")
    base, scaling = config.base, config.scaling
    if scaling is None:
        return clock_frequencies(d_head, base), 1.0
    factor = scaling.factor
    if scaling.kind == "linear":
        return clock_frequencies(d_head, base) / factor, 1.0
    if scaling.kind == "ntk":
        if d_head == 2:
            raise ValueError("d_head must be above 2 for 'ntk': a single pair has no slowest one")
        return clock_frequencies(d_head, base * factor ** (d_head / (d_head - 2))), 1.0
    frequencies = clock_frequencies(d_head, base)
    if scaling.kind == "llama3":
        slowed, attention_factor = llama3_share_slowed(frequencies, scaling), 1.0
    else:
        slowed = yarn_share_slowed(d_head, base, scaling)
        attention_factor = scaling.attention_factor or 0.1 * math.log(factor) + 1
    return frequencies / factor * slowed + frequencies * (1 - slowed), attention_factor


class Rotation(NamedTuple):
    """The cosine and the sine of each pair's angle at each position of one batch.

    Both are float32 of shape (B, T, d_head / 2), or (1, T, d_head / 2) for all rows alike.
    """

    cos: Float[Tensor, "B T half"]
    sin: Float[Tensor, "B T half"]


class RotaryPositions(nn.Module):
    """Tables of rotary positions (RoPE) for any positions, without a longest one.

    It has no parameters and nothing to save. `inv_freq`, (d_head / 2,), follows the model from
    device to device and stays in float32 when the model becomes bfloat16 or half: there angles
    past a few hundred would be off by a radian.
    """

    inv_freq: Tensor

    def __init__(self, d_head: int, config: RopeConfig) -> None:
        """Prepare for heads of d_head numbers.

        Raises:
            ValueError: d_head is odd or below 2, or it is 2 and the scaling is "ntk".
        """
        super().__init__()
        self.d_head = d_head
        self.config = config
        frequencies, self.attention_factor = rope_frequencies(d_head, config)
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RotaryPositions":
        """Move with the model (`to`, `half`, `to_empty`, ...), in float32 and with exact values.

        The configuration determines the buffer, so it is made anew: rounding it to bfloat16 and
        back would not give the old values, and what comes off the meta device has none.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        exact, _ = rope_frequencies(self.d_head, self.config)
        self.inv_freq = exact.to(self.inv_freq.device)
        return self

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return f"d_head={self.d_head}, config={self.config}"

    def forward(self, positions: Int[Tensor, "*B T"]) -> Rotation:
        """Return the tables for positions of shape (B, T), or (T,) for all rows.

        Any ints will do, in any order, also negative ones. Angles are float32: above 2^24 not even
        the position is exact.

        Raises:
            TypeError: positions do not hold ints.
            ValueError: positions have neither one nor two dimensions.
        """
        if positions.is_floating_point() or positions.dtype == torch.bool:
            raise TypeError(f"positions must hold ints, got {positions.dtype}")
        if positions.ndim not in (1, 2):
            raise ValueError(
                f"positions must have shape (B, T) or (T,), got {tuple(positions.shape)}"
            )
        rows = positions if positions.ndim == 2 else positions[None]
        angles = rows[..., None].to(torch.float32) * self.inv_freq
        return Rotation(angles.cos() * self.attention_factor, angles.sin() * self.attention_factor)


def apply_rotary(x: Float[Tensor, "B H T D"], rotation: Rotation) -> Float[Tensor, "B H T D"]:
    """Return x with each pair of numbers turned by its angle at its position.

    Pair i is (x[..., i], x[..., i + D/2]), as in Llama in Hugging Face; RoFormer and Meta's own
    code pair (2i, 2i + 1). The result has x's dtype; half types are computed in float32.

    Raises:
        ValueError: rotation was made for another D or T, or for another batch size than B or 1.
    """
    batch, _, length, d_head = x.shape
    rows, *places = rotation.cos.shape
    if rows not in (1, batch) or places != [length, d_head / 2]:
        raise ValueError(
            f"x has shape (B, H, T, D) = {tuple(x.shape)}, so rotation must have shape "
            f"({batch} or 1, {length}, {d_head / 2:g}), got {tuple(rotation.cos.shape)}: make it "
            "from the positions of these very queries or keys, for heads of this size"
        )
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]  # the same for all heads
    first, second = x.to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def alibi_slopes(n_head: int) -> Float[Tensor, " H"]:
    """Return how fast each head's scores fall with distance, float32.

    2^(-8/n), 2^(-16/n), ... for n = n_head a power of two. Otherwise those of the next smaller
    power n, then the first, third, fifth, ... of 2n.

    Source: Press et al. (2022) and their code.

    Raises:
        ValueError: n_head is below 1.
    """
    n_head = checked_integer(n_head, "n_head", 1)
    power = 2 ** (n_head.bit_length() - 1)
    exponents = [8 * i / power for i in range(1, power + 1)]
    exponents += [4 * i / power for i in range(1, 2 * power, 2)][: n_head - power]
    return 2.0 ** -torch.tensor(exponents, dtype=torch.float32)


def alibi_bias(
    n_head: int, query_index: Num[Tensor, " T"], key_index: Num[Tensor, " S"]
) -> Float[Tensor, "H T S"]:
    """Return what ALiBi adds to scores: minus the head's slope times the distance, float32.

    The distance is `|query_index - key_index|`; which keys a query sees is up to the mask.

    Source: Press et al. (2022).
    """
    distances = (query_index[:, None] - key_index).abs().to(torch.float32)
    return -alibi_slopes(n_head).to(distances.device)[:, None, None] * distances
