# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""A model prepared for decoding on a CPU: its matrices are read as fast as memory gives them.

Shapes: those of `gptbook.model`, and N and C for the outputs and inputs of a matrix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from gptbook.arguments import checked_integer
from gptbook.attention import CausalSelfAttention
from gptbook.config import check_choice
from gptbook.kv_cache import KVCache
from gptbook.linear import ONEDNN
from gptbook.model import GPT, Block
from gptbook.positions import Rotation, apply_rotary

MatrixType = Literal["float32", "float16", "bfloat16", "int8"]


class Matrix(nn.Module):
    """A linear layer, y = W x + b, in a form that is made for reading W fast.

    Attributes:
        bias: (N,), or None.
        n_bytes: bytes of W that a product with one row reads.
    """

    bias: Tensor | None
    n_bytes: int

    def __init__(self, weight: Float[Tensor, "N C"], bias: Tensor | None, batch_size: int) -> None:
        """Take a layer's weight and bias, and prepare for batch_size rows at a time."""
        super().__init__()
        self.bias = bias
        self.prepare(weight, batch_size)

    def prepare(self, weight: Tensor, batch_size: int) -> None:
        """Store the weight."""
        raise NotImplementedError


class Float32Matrix(Matrix):
    """The layer's own weight, without a copy; for several rows, a copy in oneDNN's order.

    Attributes:
        weight: (N, C).
        packed: the copy, or the weight itself.
    """

    def prepare(self, weight: Tensor, batch_size: int) -> None:
        """Store the weight."""
        self.weight, self.n_bytes = weight, weight.nbytes
        self.packed = onednn_packed(weight, batch_size) if batch_size > 1 else weight.detach()

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Return the product."""
        return onednn_linear(x, self.packed, self.bias)


class Float16Matrix(Matrix):
    """W in float16, by FBGEMM: each number becomes a float32 again where it is multiplied."""

    def prepare(self, weight: Tensor, batch_size: int) -> None:
        """Store the weight; numbers beyond float16 become its largest."""
        self.n_bytes = weight.nbytes // 2
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), None)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Return the product."""
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return y if self.bias is None else y.add_(self.bias)


class BFloat16Matrix(Matrix):
    """W in bfloat16, by oneDNN, which wants x so, too, and rounds y."""

    def prepare(self, weight: Tensor, batch_size: int) -> None:
        """Store the weight."""
        self.n_bytes = weight.nbytes // 2
        self.packed = onednn_packed(weight.bfloat16(), batch_size)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Return the product."""
        y = onednn_linear(x.bfloat16(), self.packed).float()
        return y if self.bias is None else y.add_(self.bias)


class Int8Matrix(Matrix):
    """W in int8, with a scale for each of its rows; x and y are rounded to bfloat16."""

    def prepare(self, weight: Tensor, batch_size: int) -> None:
        """Store the weight."""
        self.integers, self.scale = quantized_rows(weight)
        self.n_bytes = self.integers.nbytes

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Return the product."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        y: Tensor = torch.ops.aten._weight_int8pack_mm(rows, self.integers, self.scale).float()
        y = y if self.bias is None else y.add_(self.bias)
        return y.view(*x.shape[:-1], -1)


def quantized_rows(
    weight: Float[Tensor, "N C"],
) -> tuple[Int[Tensor, "N C"], Float[Tensor, " N"]]:
    """Return integers from -127 to 127 and a bfloat16 scale for each row; their product is near."""
    scale = (weight.abs().amax(1) / 127).clamp(min=1e-30).bfloat16()
    integers = (weight / scale.float()[:, None]).round().clamp(-127, 127)
    return integers.to(torch.int8), scale


def onednn_packed(weight: Float[Tensor, "N C"], batch_size: int) -> Tensor:
    """Return a copy of a weight in the order that oneDNN reads it in, a tensor without strides."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), batch_size)
    return packed


def onednn_linear(
    x: Float[Tensor, "*B C"], packed: Tensor, bias: Float[Tensor, " N"] | None = None
) -> Float[Tensor, "*B N"]:
    """Return the product of x with a weight, packed or not."""
    y: Tensor = ONEDNN(x, packed, bias, "none", [], "")
    return y


MATRICES: dict[MatrixType, type[Matrix]] = {
    "float32": Float32Matrix,
    "float16": Float16Matrix,
    "bfloat16": BFloat16Matrix,
    "int8": Int8Matrix,
}


class DecodingGPT(GPT):
    """A GPT with the same logits, up to rounding, that reads one token for each row faster.

    Norms, embeddings and float32 matrices are those of the model that it was made from. It has no
    gradients, and stays where it is and in its types.
    """

    def __init__(self, model: GPT, make_matrix: Callable[[Tensor, Tensor | None], Matrix]) -> None:
        """Take a model, and what makes of a weight and a bias a matrix that is read fast."""
        nn.Module.__init__(self)
        self.config = model.config
        self.tokens, self.learned_positions = model.tokens, model.learned_positions
        self.rotary, self.dropout, self.norm = model.rotary, model.dropout, model.norm
        # The blocks are copied, and what they hold is not: the memo says that it was already.
        held = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.blocks = copy.deepcopy(model.blocks, held)
        for part in list(self.blocks.modules()):
            for name, layer in part.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(part, name, make_matrix(layer.weight, layer.bias))
        self.unembedding = make_matrix(model.output_weight, None)  # type: ignore[assignment]
        self.eval()

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the matrices: what has to come from memory for each step of decoding."""
        return sum(part.n_bytes for part in self.modules() if isinstance(part, Matrix))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DecodingGPT:
        raise TypeError(
            "a prepared model cannot be moved or cast: do it before prepare_for_decoding"
        )

    @torch.no_grad()
    def unembed(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """Return the logits that hidden states are for."""
        logits: Tensor = self.unembedding(hidden)  # type: ignore[misc]
        return logits

    @torch.no_grad()
    def hidden_states(
        self,
        ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "*B T"] | None = None,
        kv_cache: KVCache | None = None,
        document_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Return what `GPT.hidden_states` does."""
        if kv_cache is None or document_ids is not None or not self._one_each(ids, kv_cache):
            return super().hidden_states(ids, positions, kv_cache, document_ids)
        self._check_length(ids, kv_cache)
        positions = kv_cache.positions(1) if positions is None else positions
        rotation = None if self.rotary is None else self.rotary(positions)
        x = self.embed(ids, positions)
        kept = kv_cache.room(1)
        if (seen := self.config.sliding_window) is not None:
            kept = kept[0][..., -seen:, :], kept[1][..., -seen:, :]
        for block, keys, values in zip(self.blocks, *kept, strict=True):
            x = self._decode_block(cast(Block, block), x, keys, values, rotation)
        hidden: Tensor = self.norm(x)
        return hidden

    def _decode_block(self, *arguments: Any) -> Tensor:
        return decode_block(*arguments)

    def _one_each(self, ids: Tensor, cache: KVCache) -> bool:
        """Return whether `decode_block` can serve: one token for each row, all rows alike."""
        plain = cache.window is None and cache.even and not self.training
        n_layer, B, K, _, D = cache.keys.shape
        config = self.config
        return (
            plain
            and ids.shape == (B, 1)
            and (n_layer, K, D) == (config.n_layer, config.n_kv_head, config.d_head)
            and cache.keys.dtype == torch.float32
            and config.backend in ("auto", "sdpa")
        )


def decode_block(
    block: Block,
    x: Float[Tensor, "B 1 C"],
    keys: Float[Tensor, "B K S D"],
    values: Float[Tensor, "B K S D"],
    rotation: Rotation | None,
) -> Float[Tensor, "B 1 C"]:
    """Return what a block does to one token of each row, with as few calls as possible.

    The slow twin is `Block.forward`. Modules are called by their `forward`, because the hooks that
    a call looks for cost as much as a small operation.

    Args:
        block: the block.
        x: the residual stream.
        keys: all keys that the token sees; its own are written to the last place.
        values: the same.
        rotation: the token's own, if positions are rotary.
    """
    attention_norm, mlp_norm = block.attention_norm.forward, block.mlp_norm.forward
    if block.norm_position == "pre":
        x = x + decode_attention(block.attention, attention_norm(x), keys, values, rotation)
        return x + block.mlp.forward(mlp_norm(x))
    x = attention_norm(x + decode_attention(block.attention, x, keys, values, rotation))
    return mlp_norm(x + block.mlp.forward(x))


def decode_attention(
    layer: CausalSelfAttention,
    x: Float[Tensor, "B 1 C"],
    keys: Float[Tensor, "B K S D"],
    values: Float[Tensor, "B K S D"],
    rotation: Rotation | None,
) -> Float[Tensor, "B 1 C"]:
    """Return what attention adds to one token of each row, which sees all keys."""
    config, B = layer.config, len(x)
    H, K, D = config.n_head, config.n_kv_head, config.d_head
    heads = layer.qkv.forward(x).view(B, H + 2 * K, 1, D)
    qk, v = heads.split((H + K, K), 1)
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = qk.split((H, K), 1)
        qk = torch.cat((layer.q_norm.forward(q), layer.k_norm.forward(k)), 1)
    if rotation is not None:
        qk = apply_rotary(qk, rotation)
    q, k = qk.split((H, K), 1)
    keys[:, :, -1:], values[:, :, -1:] = k, v
    return layer.output.forward(seen_by_one(q, keys, values).reshape(B, 1, H * D))


def seen_by_one(
    q: Float[Tensor, "B H 1 D"], keys: Float[Tensor, "B K S D"], values: Float[Tensor, "B K S D"]
) -> Float[Tensor, "B H 1 D"]:
    """Return attention's output for one query, which sees all keys.

    torch's own, the slow twin, is a call that a compiler cannot look into. What it does with one
    query are two sums, which are compiled together with what is around them.
    """
    if not torch.compiler.is_compiling():
        return scaled_dot_product_attention(q, keys, values, enable_gqa=q.shape[1] != keys.shape[1])
    groups = q.unflatten(1, (keys.shape[1], -1))  # (B, K, H / K, 1, D)
    scores = (groups * keys[:, :, None]).sum(-1) / q.shape[-1] ** 0.5
    output: Tensor = (scores.softmax(-1)[..., None] * values[:, :, None]).sum(-2).view(q.shape)
    return output


def prepare_for_decoding(
    model: GPT, weights: MatrixType = "float32", *, batch_size: int = 1
) -> DecodingGPT:
    """Return a model on the CPU that decodes faster, to be used wherever the given one is.

    Args:
        model: the model, in float32; later changes of its weights may or may not be seen.
        weights: what the matrices become. "float32" shares them, so it costs no memory; "float16"
            and "bfloat16" halve, and "int8" quarters what has to be read, with rounded results.
        batch_size: how many rows it will write at a time, about. Above 1, float32 matrices are kept
            a second time, in the order that oneDNN multiplies several rows with.

    Raises:
        TypeError: batch_size is no int.
        ValueError: the model is not in float32 on the CPU, there are no such weights, or this build
            of PyTorch lacks what they need.
    """
    checked_integer(batch_size, "batch_size", 1)
    check_preparable(model, weights)
    if ONEDNN is None:
        raise ValueError("this PyTorch has no oneDNN, which prepared models need: use the model")
    if weights == "float16" and "fbgemm" not in torch.backends.quantized.supported_engines:
        raise ValueError("weights='float16' needs FBGEMM, which this PyTorch lacks: take bfloat16")
    kind = MATRICES[weights]
    return DecodingGPT(model, lambda weight, bias: kind(weight, bias, batch_size))


def check_preparable(model: GPT, weights: MatrixType) -> None:
    """Raise ValueError unless there are such weights, and the model is in float32 on the CPU."""
    check_choice(weights, "weights", MatrixType)
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise ValueError(
                f"{name} is {parameter.dtype} on {parameter.device}: only a float32 model on the "
                "CPU can be prepared; weights='float16' says how its matrices are stored"
            )
