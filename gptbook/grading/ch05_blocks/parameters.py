"""Exercise 5.4: the exact number of a model's parameters: its checks."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Draw, Kind, Verify, source_of
from gptbook.grading.tensors import same

Config = dict[str, Any]


def count_parameters(config: dict[str, Any]) -> int:
    """Return how many parameters the model of a configuration has."""
    width, d_head, d_ff = config["d_model"], config["d_head"], config["d_ff"]
    n_head, n_kv_head, bias = config["n_head"], config["n_kv_head"], config["bias"]

    def linear(n_in: int, n_out: int) -> int:
        return n_in * n_out + (n_out if bias else 0)

    norm = width
    if config["norm"] == "layernorm" and bias:
        norm += width
    attention = linear(width, (n_head + 2 * n_kv_head) * d_head)
    attention += linear(n_head * d_head, width)
    if config["qk_norm"]:
        attention += 2 * d_head
    mlp = linear(width, d_ff) + linear(d_ff, width)
    if config["mlp"] == "swiglu":
        mlp += linear(width, d_ff)
    total = config["n_layer"] * (attention + mlp + 2 * norm) + norm
    total += config["vocab_size"] * width
    if config["positions"] == "learned":
        total += config["context_length"] * width
    if not config["tied"]:
        total += config["vocab_size"] * width
    return int(total)


# --- inputs: a configuration; where two are compared, one after the other ---


def gpt2(**changes: Any) -> Config:
    """GPT-2 small with changes."""
    return {
        "vocab_size": 50257,
        "context_length": 1024,
        "n_layer": 12,
        "n_head": 12,
        "n_kv_head": 12,
        "d_model": 768,
        "d_head": 64,
        "d_ff": 3072,
        "norm": "layernorm",
        "mlp": "gelu",
        "positions": "learned",
        "qk_norm": False,
        "bias": True,
        "tied": True,
        **changes,
    }


LLAMA = gpt2(
    vocab_size=128256,
    context_length=8192,
    n_layer=32,
    n_head=32,
    n_kv_head=8,
    d_model=4096,
    d_head=128,
    d_ff=14336,
    norm="rmsnorm",
    mlp="swiglu",
    positions="rope",
    bias=False,
    tied=False,
)
QWEN = {
    **LLAMA,
    "vocab_size": 151936,
    "context_length": 40960,
    "n_layer": 28,
    "n_head": 16,
    "d_model": 1024,
    "d_ff": 3072,
    "qk_norm": True,
    "tied": True,
}


def small(stream: random.Random, **changes: Any) -> Config:
    """A small model of GPT-2's kind."""
    n_head, d_head = stream.choice((4, 8)), stream.choice((3, 5, 7))
    return gpt2(
        vocab_size=stream.randint(50, 99),
        context_length=stream.randint(8, 31),
        n_layer=stream.randint(2, 5),
        n_head=n_head,
        n_kv_head=n_head,
        d_model=n_head * d_head,
        d_head=d_head,
        d_ff=4 * n_head * d_head,
        **changes,
    )


def draw_forms(stream: random.Random) -> list[Args]:
    """One of each kind."""
    return [(small(stream),), (QWEN,)]


def pair(change: Callable[[Config], Config], **first: Any) -> Draw:
    """Two configurations that differ in one thing, a case."""

    def draw(stream: random.Random) -> list[Args]:
        config = {**small(stream), **first}
        return [((config,), ({**config, **change(config)},))]

    return draw


def pairs(*draws: Draw) -> Draw:
    """The cases of several draws."""
    return lambda stream: [case for draw in draws for case in draw(stream)]


draw_tied = pair(lambda _: {"tied": False})
draw_positions = pair(lambda _: {"positions": "rope"})
draw_groups = pair(lambda config: {"n_kv_head": config["n_head"] // 4})
draw_heads = pair(lambda config: {"d_head": config["d_head"] + 2})
draw_mlp = pairs(
    pair(lambda config: {"d_ff": config["d_ff"] - 5}), pair(lambda _: {"mlp": "swiglu"})
)
draw_bias = pair(lambda _: {"bias": False})
draw_norms = pairs(
    pair(lambda _: {"norm": "rmsnorm"}), pair(lambda _: {"bias": True}, bias=False, norm="rmsnorm")
)
draw_qk = pair(lambda _: {"qk_norm": True})


def draw_gpt2(stream: random.Random) -> list[Args]:
    """GPT-2 small and XL."""
    large = {"n_layer": 48, "n_head": 25, "n_kv_head": 25, "d_model": 1600, "d_ff": 6400}
    return [(gpt2(),), (gpt2(**large),)]


def draw_llama(stream: random.Random) -> list[Args]:
    """Llama 3 8B, and Qwen3 0.6B."""
    return [(dict(LLAMA),), (dict(QWEN),)]


# --- verdicts ---


def is_a_number(args: Args, value: Any) -> str | None:
    """The form of the answer."""
    if type(value) is int:
        return None
    return f"gives {show(value)} ({type(value).__name__}), expected an int: parameters are whole"


def grows_rightly(args: Args, value: Any) -> str | None:
    """The difference between two models, whatever else is wrong with both."""
    (before,), (after,) = args
    problem = is_a_number(args, value[0]) or is_a_number(args, value[1])
    if problem:
        return problem
    expected, got = count_parameters(after) - count_parameters(before), value[1] - value[0]
    if got == expected:
        return None
    changed = ", ".join(
        f"`{key}` from {before[key]!r} to {after[key]!r}"
        for key in before
        if before[key] != after[key]
    )
    needed = ("n_layer", "n_head", "n_kv_head", "d_model", "d_head", "d_ff", "vocab_size")
    sizes = ", ".join(f"{key}={before[key]}" for key in (*needed, "context_length", "bias"))
    return f"changes by {got:+,} with {changed}, expected {expected:+,} ({sizes})"


def is_the_total(args: Args, value: Any) -> str | None:
    """The whole number."""
    expected = count_parameters(*args)
    if value == expected:
        return None
    off = f", {value - expected:+,}" if type(value) is int else ""
    return f"gives {value:,}{off}, expected {expected:,}"


def same_growth(a: Any, b: Any) -> bool:
    """Whether two functions see the same difference."""
    return bool(a[1] - a[0] == b[1] - b[0])


FORM = "returns an int; changes nothing"
TIED = "tied: the table counts once"
POSITIONS = "learned positions count, rotary ones do not"
GROUPS = "fewer heads of keys and values"
HEADS = "d_head of its own"
MLP = "d_ff, and the gate of SwiGLU"
BIAS = "biases of all layers"
NORMS = "norms with and without a bias"
QK = "norms of queries and keys"
GPT2 = "GPT-2 small and XL"
LLAMA_QWEN = "Llama 3 8B and Qwen3 0.6B"


def _growth(name: str, points: int, draw: Draw, hint: int) -> Check:
    return Check(
        name,
        Kind.PROPERTY,
        points,
        draw,
        grows_rightly,
        (FORM,),
        probe="call_each",
        same=same_growth,
        hint=hint,
    )


_total: Callable[..., Check] = partial(Check, kind=Kind.ORACLE, verify=is_the_total, same=same)
_number: Verify = is_a_number

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_forms, _number, pure=True, same=same),
    _growth(TIED, 2, draw_tied, 2),
    _growth(POSITIONS, 1, draw_positions, 2),
    _growth(GROUPS, 1, draw_groups, 3),
    _growth(HEADS, 1, draw_heads, 3),
    _growth(MLP, 1, draw_mlp, 4),
    _growth(BIAS, 1, draw_bias, 4),
    _growth(NORMS, 1, draw_norms, 4),
    _growth(QK, 1, draw_qk, 3),
    _total(name=GPT2, points=1, draw=draw_gpt2, needs=(FORM,)),
    _total(name=LLAMA_QWEN, points=1, draw=draw_llama, needs=(FORM,)),
)

REFERENCE = source_of(count_parameters)
