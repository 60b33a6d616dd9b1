"""Kernels in Triton: each is the fast twin of something that the package also has in torch.

Triton is made for Linux. Where it is missing, kernels can be read and imported all the same, and
only what runs one says that it cannot.
"""

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:

    class _Missing:
        """Stands for triton and triton.language: enough to define a kernel, not to run it."""

        @staticmethod
        def jit(function: Any) -> Any:
            """Return the function that would have become a kernel."""
            return function

        @staticmethod
        def constexpr(value: Any) -> Any:
            """Return the value of a constant."""
            return value

    triton = tl = _Missing()

__all__ = ["tl", "triton"]
