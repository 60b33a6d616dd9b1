# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""A model compiled for decoding one row on a CPU: each matrix is read in one pass, in any type.

Shapes: those of `gptbook.decoder`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gptbook.decoder import (
    DecodingGPT,
    Matrix,
    MatrixType,
    check_preparable,
    decode_block,
    quantized_rows,
)
from gptbook.linear import linear
from gptbook.model import GPT
from gptbook.readers import make_cache

ROWS_AT_A_TIME = 4
"""Rows of a matrix that are multiplied together (of 1, 2, 4 and 8, the fastest on an EPYC)."""

HUGE_PAGE = 1 << 21
"""Bytes of a large page of memory."""

ALIGNMENT = 64
"""Bytes of a line of the cache; a matrix begins with one."""


class StreamedMatrix(Matrix):
    """W in any type, for a product with one row that torch.compile makes one pass over W.

    Attributes:
        weight: (N, C).
        scale: (N,), what each row of integers is multiplied by, or None.
    """

    weight: Tensor
    scale: Tensor | None

    def __init__(
        self, weight: Float[Tensor, "N C"], bias: Tensor | None, *, weights: MatrixType
    ) -> None:
        """Take a layer's weight and bias, and store the weight as `weights` says."""
        self.dtype: torch.dtype = getattr(torch, weights)
        super().__init__(weight, bias, 1)

    def prepare(self, weight: Tensor, batch_size: int) -> None:
        """Store the weight; numbers beyond a type become its largest."""
        self.scale = None
        if self.dtype == torch.int8:
            self.weight, scale = quantized_rows(weight)
            self.scale = scale.float()
        elif self.dtype == torch.float32:
            self.weight = weight.detach()
        else:
            largest = torch.finfo(self.dtype).max
            self.weight = weight.detach().clamp(-largest, largest).to(self.dtype)
        self.n_bytes = self.weight.nbytes

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Return the product."""
        if torch.compiler.is_compiling():
            y = one_row_product(x.flatten(), self.weight).view(*x.shape[:-1], -1)
        else:
            y = linear(x, self.weight.float())
        y = y if self.scale is None else y * self.scale
        return y if self.bias is None else y + self.bias


def one_row_product(x: Float[Tensor, " C"], weight: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """Return W x in a form that torch.compile makes one pass over W of. (Eager torch would not.)

    Several rows of W are taken at a time, from as many places. Their sums need not wait for each
    other, and what was computed to get x is done first, and not for each row of W again.
    """
    whole = len(weight) // ROWS_AT_A_TIME * ROWS_AT_A_TIME
    parts = [*weight[:whole].view(ROWS_AT_A_TIME, -1, len(x)).unbind(), weight[whole:]]
    return torch.cat([(part.float() * x).sum(-1) for part in parts])


def in_huge_pages(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of tensors, one behind the other in memory with large pages, where there are.

    A processor looks up where each page of memory lies, and prefetches no further than its end.
    Pages have 4 kB, and 2 MB where Linux is asked for them.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return [tensor.clone() for tensor in tensors]
    sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, sum(sizes) + HUGE_PAGE, flags=flags)
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the memory as long as it lives
    start, copies = -whole.data_ptr() % HUGE_PAGE, []
    for tensor, size in zip(tensors, sizes, strict=True):
        place = whole[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        copies.append(place.copy_(tensor))
        start += size
    return copies


class CompiledGPT(DecodingGPT):
    """A `DecodingGPT` whose blocks and logits are compiled for one token of one row.

    All blocks share what is compiled, which is for cached rows of every length.
    """

    def __init__(self, model: GPT, weights: MatrixType) -> None:
        """Take the arguments of `compile_for_decoding`."""
        super().__init__(model, partial(StreamedMatrix, weights=weights))
        matrices = [part for part in self.modules() if isinstance(part, StreamedMatrix)]
        moved = in_huge_pages([matrix.weight for matrix in matrices])
        for matrix, weight in zip(matrices, moved, strict=True):
            matrix.weight = weight
        self._compiled_block = torch.compile(decode_block, fullgraph=True)
        self._compiled_product: Callable[..., Tensor] = torch.compile(
            StreamedMatrix.forward, fullgraph=True
        )

    @torch.no_grad()
    def compile_now(self) -> None:
        """Compile what is compiled, for caches of every length."""
        x = torch.zeros(1, 1, self.config.d_model)
        cache = make_cache(self, 1, 3)
        keys, values = cache.keys[0, :, :, :2], cache.values[0, :, :, :2]
        for kept in (keys, values):
            torch._dynamo.mark_dynamic(kept, 2)
        rotation = None if self.rotary is None else self.rotary(cache.positions(1))
        self._decode_block(self.blocks[0], x, keys, values, rotation)
        self.unembed(x)

    def unembed(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """Return the logits that hidden states are for."""
        *places, width = hidden.shape
        if math.prod(places) > 1:
            return super().unembed(hidden)
        with torch.no_grad():
            logits: Tensor = self._compiled_product(self.unembedding, hidden.view(1, width))
        return logits.view(*places, -1)

    def _decode_block(self, *arguments: Any) -> Tensor:
        x, keys = arguments[1:3]
        length, width = keys.shape[2:]
        # Lengths that would be compiled as special cases: no row before it, and a full cache.
        if len(x) > 1 or length == 1 or keys.stride(1) == length * width:
            return decode_block(*arguments)
        step: Tensor = self._compiled_block(*arguments)
        return step


def compile_for_decoding(model: GPT, weights: MatrixType = "float32") -> CompiledGPT:
    """Return a model on the CPU that writes one row fastest, after seconds of compiling.

    It can be used wherever the given one is; several rows at a time are what
    `prepare_for_decoding` is for, and slower here. It needs a C++ compiler, as torch.compile does
    on a CPU, and is compiled here and now.

    Args:
        model: the model, in float32. Its matrices are copied: let go of it if you do not need it.
        weights: how matrices are stored: "float16" and "bfloat16" halve, and "int8" quarters what
            has to be read. Rows and results stay in float32.

    Raises:
        ValueError: the model is not in float32 on the CPU, or there are no such weights.
        OSError: torch.compile failed, which on a CPU is most often for want of a C++ compiler.
    """
    check_preparable(model, weights)
    compiled = CompiledGPT(model, weights)
    try:
        compiled.compile_now()
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise OSError(
            "torch.compile failed, which on a CPU needs a C++ compiler such as g++: install one, "
            f"or use prepare_for_decoding, which needs none ({str(error).splitlines()[0]})"
        ) from error
    return compiled
