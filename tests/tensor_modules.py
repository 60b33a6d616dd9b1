"""Modules whose values are torch's, so that they cannot do without it."""

TENSOR_MODULES = (
    "gptbook.attention",
    "gptbook.checkpoint",
    "gptbook.data",
    "gptbook.device",
    "gptbook.flash_attention",
    "gptbook.generation",
    "gptbook.interop",
    "gptbook.kv_cache",
    "gptbook.layers",
    "gptbook.losses",
    "gptbook.model",
    "gptbook.optim",
    "gptbook.positions",
    "gptbook.sampling",
    "gptbook.speculative",
    "gptbook.trainer",
    "gptbook.validation",
)
