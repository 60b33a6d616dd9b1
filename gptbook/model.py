# Exported from chapters/05_blocks.md, chapters/05_gpt.md. Edit the cells there and run `make
# export`, or edit this file and run `python -m book.tools.export --back`.
"""The model: blocks around a residual stream, from token ids to logits, and nothing else.

Shapes: B batch, T places, C width of the model, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gptbook.attention import AttentionMask, CausalSelfAttention, mask_for, places
from gptbook.config import GPTConfig
from gptbook.kv_cache import KVCache
from gptbook.layers import MLP, LayerNorm, LearnedPositions, RMSNorm, SwiGLU, TokenEmbedding
from gptbook.linear import Linear, linear
from gptbook.positions import RotaryPositions, Rotation, sinusoidal_positions


def make_norm(config: GPTConfig) -> LayerNorm | RMSNorm:
    """Return a norm of the kind that the configuration names."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.d_model, config.norm_eps)
    return LayerNorm(config.d_model, config.norm_eps, config.bias)


def make_mlp(config: GPTConfig) -> MLP | SwiGLU:
    """Return an MLP of the kind that the configuration names."""
    if config.mlp == "swiglu":
        return SwiGLU(config.d_model, config.d_ff, config.bias)
    return MLP(config.d_model, config.d_ff, config.mlp, config.bias)


def make_attention(config: GPTConfig, layer: int) -> CausalSelfAttention:
    """Return the attention layer number `layer`, with norms of queries and keys if it has them."""
    if not config.qk_norm:
        return CausalSelfAttention(config.attention(), layer)
    q_norm, k_norm = (RMSNorm(config.d_head, config.norm_eps) for _ in range(2))
    return CausalSelfAttention(config.attention(), layer, q_norm, k_norm)


class Block(nn.Module):
    """Attention, which moves information between places, and an MLP, which works on each alone.

    Both add to the residual stream. norm_position="pre" normalizes what a branch reads
    (Radford et al. 2019), "post" the sum (Vaswani et al. 2017).
    """

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        """Make block number `layer`, which is where it writes in a cache."""
        super().__init__()
        self.norm_position = config.norm_position
        self.attention_norm = make_norm(config)
        self.attention = make_attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = make_mlp(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        *,
        kv_cache: KVCache | None = None,
        rotation: Rotation | None = None,
        mask: AttentionMask | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Return the residual stream behind the block; the arguments are those of attention."""
        shared = {"kv_cache": kv_cache, "rotation": rotation, "mask": mask}
        if self.norm_position == "pre":
            x = x + self.dropout(self.attention(self.attention_norm(x), **shared))
            x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        else:
            x = self.attention_norm(x + self.dropout(self.attention(x, **shared)))
            x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return x


INIT_STD = 0.02
"""Standard deviation of matrices before training (Radford et al. 2018, GPT-1)."""


class GPT(nn.Module):
    """A decoder-only transformer: from token ids, (B, T), to logits of each next token, (B, T, V).

    One class for GPT-2, Llama, Qwen3 and others: the configuration says which they are.

    Attributes:
        config: the configuration.
        tokens: the token embedding.
        learned_positions: the table of position vectors, or None.
        rotary: the tables of rotary positions, or None.
        blocks: the blocks.
        norm: the norm behind the last block; the identity where blocks end with a norm.
        unembedding: linear, C to V; None where the logits use the token embedding's matrix.
    """

    def __init__(self, config: GPTConfig, *, seed: int | None = 0) -> None:
        """Make the model and draw its weights; seed=None leaves them, to be loaded."""
        super().__init__()
        self.config = config
        d_model, positions = config.d_model, config.positions
        self.tokens = TokenEmbedding(config.vocab_size, d_model)
        self.learned_positions = (
            LearnedPositions(config.context_length, d_model) if positions == "learned" else None
        )
        self.rotary = RotaryPositions(config.d_head, config.rope) if config.rope else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.unembedding = None if config.tied else Linear(d_model, config.vocab_size, bias=False)
        if seed is not None:
            self.initialize(seed)

    @property
    def output_weight(self) -> Float[Tensor, "V C"]:
        """The matrix of the logits: that of the token embedding if the two are tied."""
        return self.tokens.weight if self.unembedding is None else self.unembedding.weight

    @torch.no_grad()
    def initialize(self, seed: int, *, std: float = INIT_STD, scale_residual: bool = True) -> None:
        """Draw the weights anew: matrices from a normal distribution, biases 0, norms 1.

        Matrices that write to the residual stream get std / sqrt(2 n_layer), unless scale_residual
        is False. The numbers are drawn on the CPU in float32, so that a seed means the same weights
        on every device and in every dtype. On the meta device nothing is drawn.

        Source: Radford et al. (2019), section 2.3.
        """
        generator = torch.Generator().manual_seed(seed)
        writers = ("attention.output.weight", "mlp.down.weight")
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
            elif not weight.is_meta:
                scale = 1 / math.sqrt(2 * self.config.n_layer)
                writes = scale_residual and name.endswith(writers)
                drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
                drawn.normal_(0.0, std * scale if writes else std, generator=generator)
                weight.copy_(drawn)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "*B T"] | None = None,
        kv_cache: KVCache | None = None,
        document_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Return the logits of the token that follows each place. Arguments: `hidden_states`."""
        return self.unembed(self.hidden_states(ids, positions, kv_cache, document_ids))

    def unembed(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """Return the logits that hidden states are for; a writer needs those of the last place."""
        return linear(hidden, self.output_weight)

    def hidden_states(
        self,
        ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "*B T"] | None = None,
        kv_cache: KVCache | None = None,
        document_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Return what the logits are computed from: the residual stream behind the last norm.

        Args:
            ids: the tokens.
            positions: where each token stands, (B, T), or (T,) for all rows; None: at its place in
                the row, behind what the cache holds.
            kv_cache: keys and values of the tokens before these, to which those of these are
                written. The caller advances it.
            document_ids: tokens see only those of their own document; not with a cache.

        Raises:
            CacheFullError: the cache has no room for T more tokens.
            ValueError: ids have another shape, document_ids came with a cache, or the row is longer
                than context_length, whatever the kind of positions. Then keep the last
                context_length tokens of the text; or have a model with sliding_window and RoPE read
                it piece by piece with a RollingKVCache, which has no end.
        """
        self._check_length(ids, kv_cache)
        n_new = ids.shape[1]
        mask = mask_for(n_new, self.config.sliding_window, document_ids, kv_cache)
        positions = places(n_new, ids.device, positions, kv_cache)
        rotation = None if self.rotary is None else self.rotary(positions)
        x = self.embed(ids, positions)
        for block in self.blocks:
            x = block(x, kv_cache=kv_cache, rotation=rotation, mask=mask)
        hidden: Tensor = self.norm(x)
        return hidden

    def embed(
        self, ids: Int[Tensor, "B T"], positions: Int[Tensor, "*B T"]
    ) -> Float[Tensor, "B T C"]:
        """Return the residual stream before the first block.

        With sinusoidal positions the tokens' vectors are multiplied by sqrt(C), so that the two are
        about as large (Vaswani et al. 2017, section 3.4).
        """
        x = self.tokens(ids)
        if self.learned_positions is not None:
            x = x + self.learned_positions(positions)
        elif self.config.positions == "sinusoidal":
            clocks = sinusoidal_positions(positions, self.config.d_model)
            x = x * math.sqrt(self.config.d_model) + clocks.to(x.dtype)
        dropped: Tensor = self.dropout(x)
        return dropped

    def _check_length(self, ids: Tensor, kv_cache: KVCache | None) -> None:
        if ids.ndim != 2:
            raise ValueError(
                f"ids must have shape (B, T), got {tuple(ids.shape)}: ids[None] makes a batch of "
                "one row"
            )
        past, window = (0, None) if kv_cache is None else (max(kv_cache.lengths), kv_cache.window)
        n_new, limit = ids.shape[1], self.config.context_length
        reach = past + n_new
        if window is not None and self.learned_positions is None:
            reach = max(n_new, min(reach, window))  # nobody sees further back
        if reach > limit:
            behind = f" behind {past} in the cache" if past else ""
            raise ValueError(
                f"ids has {n_new} tokens a row{behind}, but the model reads {limit} "
                "(context_length): keep the last ones, or use a sliding_window and a "
                "RollingKVCache"
            )
