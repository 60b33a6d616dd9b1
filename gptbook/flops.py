# Exported from chapters/05_gpt.md. Edit the cells there and run `make export`, or edit this file
# and run `python -m book.tools.export --back`.
"""What a model costs, from its configuration alone: parameters, FLOPs, bytes. No torch needed."""

from __future__ import annotations

from dataclasses import dataclass

from gptbook.arguments import checked_integer
from gptbook.config import GPTConfig


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters each part of a model has.

    Attributes:
        token_embedding: V C.
        position_embedding: context_length C for learned positions, otherwise 0.
        attention: matrices and biases of all attention layers.
        mlp: matrices and biases of all MLPs.
        norms: of all norms, also the last one and those of queries and keys.
        unembedding: V C, or 0 where the token embedding serves for it: a tied matrix counts once.
    """

    token_embedding: int
    position_embedding: int
    attention: int
    mlp: int
    norms: int
    unembedding: int

    @property
    def non_embedding(self) -> int:
        """Parameters of the blocks and the last norm: all but three tables (Kaplan et al. 2020)."""
        return self.attention + self.mlp + self.norms

    @property
    def total(self) -> int:
        """All parameters."""
        return (
            self.non_embedding + self.token_embedding + self.position_embedding + self.unembedding
        )


def linear_parameters(n_in: int, n_out: int, bias: bool) -> int:
    """Return the number of parameters of a linear layer."""
    return n_in * n_out + bias * n_out


def qkv_width(config: GPTConfig) -> int:
    """Return how many numbers queries, keys and values of a token have together, in one layer."""
    return (config.n_head + 2 * config.n_kv_head) * config.d_head


def count_parameters(config: GPTConfig) -> ParameterCount:
    """Return how many parameters the model of a configuration has, by part."""
    c, d_attention = config.d_model, config.n_head * config.d_head
    attention = linear_parameters(c, qkv_width(config), config.attention_bias)
    attention += linear_parameters(d_attention, c, config.output_bias)
    n_up = 2 if config.mlp == "swiglu" else 1  # the gate
    mlp = linear_parameters(c, n_up * config.d_ff, config.bias)
    mlp += linear_parameters(config.d_ff, c, config.bias)
    norm = c * (1 + (config.norm == "layernorm" and config.bias))
    norms = config.n_layer * (2 * norm + 2 * config.qk_norm * config.d_head)
    return ParameterCount(
        token_embedding=config.vocab_size * c,
        position_embedding=config.context_length * c if config.positions == "learned" else 0,
        attention=config.n_layer * attention,
        mlp=config.n_layer * mlp,
        norms=norms + norm * (config.norm_position == "pre"),
        unembedding=0 if config.tied else config.vocab_size * c,
    )


def approximate_parameters(config: GPTConfig) -> int:
    """Return 12 n_layer d_model^2: the matrices of blocks with n_head d_head = C and d_ff = 4 C.

    It leaves out embeddings, biases and norms. Source: Kaplan et al. (2020), section 2.1.
    """
    return 12 * config.n_layer * config.d_model**2


@dataclass(frozen=True)
class FlopCount:
    """FLOPs for one token, forward; a multiplication and an addition are two.

    Only matrix products are counted; all else is a few operations for each number.

    Attributes:
        projections: of attention: to queries, keys and values, and back to the stream.
        scores: queries with keys, and weights with values: the part that grows with the text.
        mlp: the MLPs' matrices.
        unembedding: the logits.
    """

    projections: float
    scores: float
    mlp: float
    unembedding: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.projections + self.scores + self.mlp + self.unembedding


def mean_visible_keys(n_tokens: int, window: int | None = None) -> float:
    """Return how many keys a query of a row of n_tokens sees on average, itself included."""
    w = min(n_tokens, window or n_tokens)
    return w - w * (w - 1) / (2 * n_tokens)  # the first w queries see 1 to w keys, all others w


def checked_length(config: GPTConfig, n_tokens: int | None) -> int:
    """Return n_tokens, or context_length for None; raise unless it is an int of at least 1."""
    return checked_integer(config.context_length if n_tokens is None else n_tokens, "n_tokens", 1)


def forward_flops(
    config: GPTConfig, n_tokens: int | None = None, *, dense: bool = False
) -> FlopCount:
    """Return the FLOPs that a model needs for a token, on average over a row of n_tokens.

    Args:
        config: the model.
        n_tokens: length of the row, without a cache; None: context_length.
        dense: count every pair of a query and a key, as programs do that compute scores and then
            mask them; otherwise only those pairs that see each other.
    """
    n_tokens = checked_length(config, n_tokens)
    n_keys = n_tokens if dense else mean_visible_keys(n_tokens, config.sliding_window)
    d_attention = config.n_head * config.d_head
    n_mlp_matrices = 3 if config.mlp == "swiglu" else 2
    return FlopCount(
        projections=2 * config.n_layer * config.d_model * (qkv_width(config) + d_attention),
        scores=4 * config.n_layer * n_keys * d_attention,
        mlp=2 * config.n_layer * n_mlp_matrices * config.d_model * config.d_ff,
        unembedding=2 * config.d_model * config.vocab_size,
    )


def training_flops(config: GPTConfig, n_tokens: int | None = None, *, dense: bool = False) -> float:
    """Return the FLOPs of forward and backward for a token: three times those of forward.

    Backward multiplies twice for each product of forward: for the gradient of either factor.
    Recomputed activations are not counted. Arguments: `forward_flops`.
    """
    return 3 * forward_flops(config, n_tokens, dense=dense).total


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes for one token that forward keeps for backward, in all layers together.

    Attributes:
        norms: what norms read, and what they give to the matrices behind them.
        attention: queries, keys, values and the result; with `dense`, also the weights.
        mlp: hidden numbers before and after the activation.
        logits: log-probabilities of the plain loss, in float32: 4 V.
    """

    norms: float
    attention: float
    mlp: float
    logits: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.norms + self.attention + self.mlp + self.logits


def activation_bytes(
    config: GPTConfig,
    n_tokens: int | None = None,
    *,
    bytes_per_number: int = 2,
    dense: bool = False,
) -> ActivationBytes:
    """Return the bytes for one token that forward keeps for backward, without dropout.

    They are those of this package's layers outside torch.compile, which keeps less. Source of the
    method: Korthikanti et al. (2022), section 4.

    Args:
        config: the model.
        n_tokens: length of the row, which matters for `dense` only; None: context_length.
        bytes_per_number: 2 for bfloat16, 4 for float32.
        dense: count the attention weights, which the backend "reference" keeps twice, before and
            after the mask; all other backends compute them anew.
    """
    c, heads, d_attention = config.d_model, config.n_head, config.n_head * config.d_head
    # Behind an RMSNorm the normalized vector waits for the gradient of the weights.
    norm = 2 * c + 2 if config.norm == "layernorm" else 3 * c + 1
    n_tokens = checked_length(config, n_tokens)
    attention = qkv_width(config) + d_attention + heads * (2 * n_tokens if dense else 1)
    n_changes = (config.positions == "rope") + config.qk_norm
    attention += n_changes * (d_attention + config.n_kv_head * config.d_head)  # new queries, keys
    attention += d_attention * (n_changes > 0)  # their result is laid out anew
    mlp = {"relu": 1, "gelu": 2, "gelu_tanh": 2, "swiglu": 4}[config.mlp] * config.d_ff
    last = norm if config.norm_position == "pre" else c
    return ActivationBytes(
        norms=bytes_per_number * (config.n_layer * 2 * norm + last),
        attention=bytes_per_number * config.n_layer * attention,
        mlp=bytes_per_number * config.n_layer * mlp,
        logits=4 * config.vocab_size,
    )


def kv_cache_bytes(
    config: GPTConfig, n_tokens: int, *, batch_size: int = 1, bytes_per_number: int = 2
) -> int:
    """Return the bytes of keys and values of n_tokens tokens in each row, of all layers.

    With a sliding window only the last ones are kept.
    """
    kept = min(n_tokens, config.sliding_window or n_tokens)
    per_token = 2 * config.n_layer * config.n_kv_head * config.d_head * bytes_per_number
    return batch_size * kept * per_token
