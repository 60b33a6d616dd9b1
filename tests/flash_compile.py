"""Compile the kernels of gptbook.kernels.flash_attention for GPUs that need not be there.

    python -m tests.flash_compile

prints for each kernel the shared memory it takes, as JSON. Triton asks its driver only which GPU it
compiles for, so a driver that knows nothing else will do; the compiler itself is in the package.
"""

import json
import os
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from gptbook.flash_attention import make_sight
from gptbook.kernels import flash_attention as flash

HOPPER, CONSUMER = (9, 0), (8, 6)
KERNELS = {
    "forward": (flash._forward_kernel, "q k v out"),
    "grad_q": (flash._grad_q_kernel, "q k v out grad_out grad_q"),
    "grad_kv": (flash._grad_kv_kernel, "q k v grad_out grad_k grad_v"),
}


def compiled(name: str, width: int, capability: tuple[int, int], **rule: Any) -> Any:
    """Return a kernel compiled for bfloat16 heads of `width` and a mask's fields."""
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    fake = mock.Mock(
        get_current_target=lambda: target,
        get_current_device=lambda: 0,
        get_current_stream=lambda _: 0,
    )
    driver.set_active(fake)
    kernel, names = KERNELS[name]
    kernel.device_caches.clear()  # they are kept by device, and this one changes
    q = torch.empty(1, 4, 300, width, dtype=torch.bfloat16)
    k = torch.empty(1, 2, 300, width, dtype=torch.bfloat16)
    sight = make_sight(300, 300, q.device, **rule)
    tiling = getattr(flash.choose_tilings(width, q.dtype, capability), name)
    indexed = "query_index" in rule
    shared = flash._arguments(q, k, sight, indexed, 0.1, tiling, by_keys=name == "grad_kv")
    tensors = {n: k if n[-1] in "kv" else q for n in names.split()}
    strides = {f"{n}_strides": x.stride()[:3] for n, x in tensors.items()}
    rows = {"log_sums": q.new_empty(1, 4, 300, dtype=torch.float32)}
    if name != "forward":
        rows["deltas"] = rows["log_sums"]
    return kernel.warmup(**tensors, **strides, **rows, **shared, grid=(1,))


def main() -> None:
    """Print the shared memory of each kernel in bytes, by GPU and width."""
    assert os.environ.get("TRITON_INTERPRET") != "1"
    assert triton.JITFunction is type(flash._forward_kernel)
    ids = torch.zeros(1, 300, dtype=torch.int64)
    everything = {"window": 99, "query_index": ids, "query_documents": ids, "key_documents": ids}
    found = {}
    for name in KERNELS:
        for width, capability, rule in [
            (64, HOPPER, {}), (128, HOPPER, {}), (128, HOPPER, everything), (128, CONSUMER, {}),
        ]:  # fmt: skip
            kernel = compiled(name, width, capability, causal=True, **rule)
            key = f"{name} {width} {capability[0]}.{capability[1]}{' all' * bool(rule)}"
            found[key] = kernel.metadata.shared
            assert ("wgmma" in kernel.asm["ptx"]) == (capability == HOPPER), key
    print(json.dumps(found))


if __name__ == "__main__":
    main()
