"""Modules whose values are torch's, so that they cannot do without it."""

TENSOR_MODULES = (
    "gptbook.attention",
    "gptbook.beam_search",
    "gptbook.checkpoint",
    "gptbook.data",
    "gptbook.compiled_decoder",
    "gptbook.decoder",
    "gptbook.device",
    "gptbook.flash_attention",
    "gptbook.generation",
    "gptbook.interop",
    "gptbook.kv_cache",
    "gptbook.layers",
    "gptbook.linear",
    "gptbook.losses",
    "gptbook.model",
    "gptbook.optim",
    "gptbook.positions",
    "gptbook.readers",
    "gptbook.sampling",
    "gptbook.speculative",
    "gptbook.trainer",
    "gptbook.validation",
)

SHAPED_MODULES = tuple(name for name in TENSOR_MODULES if name != "gptbook.data")
"""Those whose annotations have shapes. The loader's have none, and it says itself what is wrong."""
