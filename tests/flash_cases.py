"""Cases of attention for the tiles and the kernel, and how far each is from the float64 reference.

    TRITON_INTERPRET=1 python -m tests.flash_cases

runs the kernel on the small cases in Triton's interpreter, and prints errors as JSON: in a process
of its own, since Triton reads the variable when it is imported.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gptbook.attention import AttentionMask, reference_attention

Attend = Callable[..., Tensor]
PARTS = ("out", "grad_q", "grad_k", "grad_v")


@dataclass(frozen=True)
class Case:
    """Shapes, a mask's fields, and whether q, k and v are strided views."""

    B: int
    H: int
    K: int
    T: int
    S: int
    D: int
    rule: dict[str, Any] = field(default_factory=dict)
    strided: bool = False
    scale: float | None = None
    spread: float = 1.0

    def inputs(self, dtype: torch.dtype, device: str, seed: int = 0) -> list[Tensor]:
        """Return q, k, v and a gradient for the output."""
        generator = torch.Generator().manual_seed(seed)
        shapes = [(self.H, self.T), (self.K, self.S), (self.K, self.S), (self.H, self.T)]
        tensors = []
        for heads, n in shapes:
            shape = (self.B, n, heads, self.D) if self.strided else (self.B, heads, n, self.D)
            x = torch.randn(shape, generator=generator) * self.spread
            x = x.transpose(1, 2) if self.strided else x
            tensors.append(x.to(device, dtype))
        return tensors


def documents(B: int, n: int, seed: int, n_documents: int = 4) -> Tensor:
    """Return rows of document numbers that rise from left to right."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, n_documents, (B, n), generator=generator).sort(1).values


def _places(n: int, low: int, high: int, seed: int, B: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (B, n), generator=generator)


CAUSAL: dict[str, Any] = {"causal": True}
SMALL = {
    "everyone sees all": Case(1, 2, 2, 33, 47, 16),
    "everyone, full tiles": Case(1, 2, 1, 64, 64, 16),
    "causal": Case(1, 2, 2, 70, 70, 16, CAUSAL),
    "causal, full tiles": Case(1, 2, 1, 64, 64, 16, CAUSAL),
    "two heads on one": Case(1, 2, 1, 37, 37, 16, CAUSAL),
    "four heads on one, more keys": Case(1, 4, 1, 20, 71, 16, CAUSAL),
    "four heads on two, fewer keys": Case(1, 4, 2, 50, 21, 16, CAUSAL),
    "one query": Case(1, 2, 1, 1, 40, 16, CAUSAL),
    "one query, one key": Case(1, 1, 1, 1, 1, 16, CAUSAL),
    "window": Case(1, 2, 2, 70, 70, 16, {"causal": True, "window": 7}),
    "window of itself": Case(1, 1, 1, 40, 40, 16, {"causal": True, "window": 1}),
    "window with more keys": Case(1, 1, 1, 33, 90, 16, {"causal": True, "window": 40}),
    "documents": Case(
        2, 1, 1, 70, 70, 16,
        CAUSAL | {"query_documents": documents(2, 70, 0), "key_documents": documents(2, 70, 0)},
    ),
    "documents of both sides": Case(
        2, 1, 1, 40, 70, 16,
        {"query_documents": documents(2, 40, 1), "key_documents": documents(2, 70, 2)},
    ),
    "documents nobody shares": Case(
        1, 2, 1, 40, 40, 16,
        {"query_documents": documents(1, 40, 1), "key_documents": documents(1, 40, 1) + 9},
    ),
    "documents in no order": Case(
        1, 1, 1, 70, 70, 16,
        CAUSAL | dict.fromkeys(("query_documents", "key_documents"), _places(70, 0, 3, 5, 1)),
    ),
    "slots of a cache": Case(
        2, 1, 1, 5, 70, 16,
        CAUSAL | {"query_index": _places(5, 20, 60, 3), "key_index": _places(70, -1, 70, 4)},
    ),
    "slots and a window": Case(
        2, 1, 1, 40, 70, 16,
        CAUSAL
        | {"window": 9, "query_index": _places(40, 0, 80, 3), "key_index": _places(70, -1, 70, 4)},
    ),
    "empty slots only": Case(
        1, 1, 1, 3, 40, 16, {"key_index": torch.full((1, 40), -1)}
    ),
    "odd width": Case(1, 2, 1, 40, 40, 20, CAUSAL),
    "width 1": Case(1, 1, 1, 10, 12, 1, CAUSAL),
    "strided": Case(2, 2, 1, 40, 40, 16, CAUSAL, strided=True),
    "own scale": Case(1, 1, 1, 40, 40, 16, CAUSAL, scale=0.5),
    "extreme scores": Case(1, 1, 1, 40, 40, 16, CAUSAL, spread=10.0),
}  # fmt: skip
"""Small enough for the interpreter, whose tiles are 32 by 32, 32 by 16 and 16 by 32."""


def errors(
    attend: Attend, case: Case, dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return for the output and each gradient the error of `attend` and of the reference in dtype.

    Each is the largest distance from the reference in float64, as a share of its largest value. (If
    that is 0, the distance itself.)
    """
    q, k, v, grad = case.inputs(dtype, device, seed)
    rule: dict[str, Any] = {
        n: x.to(device) if isinstance(x, Tensor) else x for n, x in case.rule.items()
    }
    mask = AttentionMask(**{"causal": False, **rule})

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return reference_attention(q, k, v, mask, scale=case.scale)[0]

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, scale=case.scale, **rule)

    exact = _run(reference, [x.double() for x in (q, k, v, grad)])
    found, plain = _run(ours, [q, k, v, grad]), _run(reference, [q, k, v, grad])
    result = {}
    for name, x, y, z in zip(PARTS, exact, found, plain, strict=True):
        largest = x.abs().max().item() or 1.0
        result[name] = (_distance(y, x) / largest, _distance(z, x) / largest)
    return result


def _distance(x: Tensor, y: Tensor) -> float:
    return (x - y).abs().max().item()


def _run(function: Attend, tensors: list[Tensor]) -> list[Tensor]:
    """Return the output and the gradients of q, k and v, as float64."""
    inputs = [x.detach().requires_grad_() for x in tensors[:3]]
    out = function(*inputs)
    assert out.dtype == tensors[0].dtype
    grads = torch.autograd.grad(out, inputs, tensors[3])
    return [x.detach().double() for x in (out, *grads)]


def main() -> None:
    """Print the kernel's errors on the small cases."""
    from gptbook.kernels.flash_attention import flash_attention

    torch.set_num_threads(1)
    found = {
        name: {"float32": errors(flash_attention, case, torch.float32)}
        for name, case in SMALL.items()
    }
    for name in ("causal", "four heads on two, fewer keys", "documents"):
        for dtype in (torch.float16, torch.bfloat16):
            found[name][str(dtype)[6:]] = errors(flash_attention, SMALL[name], dtype)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
