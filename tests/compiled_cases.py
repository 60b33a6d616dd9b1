"""Compiled decoders beside their models, as JSON: run by test_compiled_decoder in a new process.

A new one, because jaxtyping's checks, which conftest installs, are no part of a compiled graph.
"""

import json
import sys
from functools import partial

import torch

from gptbook.compiled_decoder import compile_for_decoding
from gptbook.decoder import MATRICES
from gptbook.generation import GenerationConfig, generate
from tests.test_decoder import FAMILIES, model_of, steps


def main(backend: str, families: list[str]) -> None:
    """Print, for each family and type, what the tests look at."""
    torch.set_num_threads(1)
    if backend != "inductor":
        torch.compile = partial(torch.compile, backend=backend)
    for family in families:
        model = model_of(family)
        for weights in MATRICES:
            torch.compiler.reset()
            compiled = compile_for_decoding(model, weights)
            with torch.compiler.set_stance("fail_on_recompile"):  # whatever the row's length
                errors = [
                    ((a - b).abs().max() / b.abs().max()).item()
                    for lengths in ([7], [1], [30], [5, 5], [3, 6])
                    for a, b in zip(steps(compiled, lengths), steps(model, lengths), strict=True)
                ]
                # To the very end of the context, where the cache is full.
                settings = GenerationConfig(max_new_tokens=60, temperature=0, overflow="slide")
                same = [generate(one, [[3, 4, 5]], settings).ids for one in (compiled, model)]
            print(json.dumps({
                "family": family, "weights": weights, "error": max(errors),
                "same": same[0] == same[1], "bytes": compiled.bytes_per_token,
            }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(FAMILIES))
