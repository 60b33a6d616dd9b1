"""Exercise 4.2: causal self-attention with many heads, from two matrices: its checks."""

import math
import random
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch04_attention.common import like_argument, moved
from gptbook.grading.exercise import Args, Check, Kind, oracle, source_of
from gptbook.grading.probes import gradients
from gptbook.grading.tensors import FLOAT32, form_problem, normal, same


def multi_head(x: Tensor, w_qkv: Tensor, w_out: Tensor, n_head: int) -> Tensor:
    """Return causal self-attention of x (B, T, C) with n_head heads of C / n_head numbers."""
    n_batch, n_token, d_model = x.shape
    d_head = d_model // n_head
    q, k, v = (
        part.reshape(n_batch, n_token, n_head, d_head).transpose(1, 2)
        for part in (x @ w_qkv.T).chunk(3, dim=-1)
    )
    scores = q @ k.transpose(-2, -1) / math.sqrt(d_head)
    seen = torch.ones(n_token, n_token, dtype=torch.bool).tril()
    weights = torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1)
    return (weights @ v).transpose(1, 2).reshape(n_batch, n_token, d_model) @ w_out.T


# --- inputs: x (B, T, C), w_qkv (3C, C), w_out (C, C), n_head ---


def draw_layer(
    stream: random.Random, n_batch: int, n_token: int, n_head: int, d_head: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Matrices such that scores are near 2 and outputs near 1."""
    d_model = n_head * d_head
    x = normal(stream, n_batch, n_token, d_model)
    w_qkv = normal(stream, 3 * d_model, d_model, scale=1.5 / math.sqrt(d_model))
    w_out = normal(stream, d_model, d_model, scale=1 / math.sqrt(d_model))
    return x, w_qkv, w_out, n_head


def draw_many(stream: random.Random) -> list[Args]:
    """Numbers of heads, of tokens and of numbers in a head that all differ; then the corners."""
    cases: list[Args] = [
        draw_layer(stream, 2, 5, 2, 3),
        draw_layer(stream, 1, 4, 3, 2),
        draw_layer(stream, 2, 1, 2, 4),
        draw_layer(stream, 2, 3, 4, 1),
    ]
    x, *others = draw_layer(stream, 5, 2, 3, 4)
    return [*cases, (x.transpose(0, 1), *others)]


def draw_one(stream: random.Random) -> list[Args]:
    """One head, so that there is nothing to split."""
    return [draw_layer(stream, 2, 5, 1, 4), draw_layer(stream, 1, 3, 1, 6)]


def draw_future(stream: random.Random) -> list[Args]:
    """The same call twice, with another token at one place after the first."""
    cases: list[Args] = []
    for n_head, d_head in ((1, 4), (2, 3), (3, 2)):
        x, *others = draw_layer(stream, 2, 5, n_head, d_head)
        changed = x.clone()
        changed[:, stream.randint(1, 4)] += 2
        cases.append(((x, *others), (changed, *others)))
    return cases


def draw_gradients(stream: random.Random) -> list[Args]:
    """Two heads, and all three tensors ask for gradients."""
    *tensors, n_head = draw_layer(stream, 2, 4, 2, 3)
    return [(*(item.requires_grad_() for item in tensors), n_head)]


# --- verdicts ---


def wide(x: Tensor, w_qkv: Tensor, w_out: Tensor, n_head: int) -> Tensor:
    """The reference in float64."""
    return multi_head(x.double(), w_qkv.double(), w_out.double(), n_head)


def wide_gradients(*args: Any) -> tuple[Any, list[Any]]:
    """The reference's value and gradients in float64, as the probe `gradients` gives them."""
    return gradients(
        multi_head, *(item.detach().double().requires_grad_() for item in args[:3]), args[3]
    )


def is_causal(args: Args, value: Any) -> str | None:
    """For the probe `call_each`: a token makes no difference to the outputs before it."""
    (x, *_), (changed, *_) = args
    before, after = value
    problem = form_problem(before, x) or form_problem(after, x)
    if problem:
        return problem
    token = (x != changed).any(-1).any(0).nonzero()[0, 0].item()
    wrong = moved(before[:, :token], after[:, :token])
    if not wrong.any():
        return None
    place = wrong.any(-1).any(0).nonzero()[0, 0].item()
    if not (before.isfinite().all() and after.isfinite().all()):
        return f"gives NaN or infinity in output {place}"
    by = (after - before)[:, place].abs().max().item()
    return (
        f"gives an output {place} that moves by {by:.2g} when token {token} changes: "
        "it sees the future"
    )


def first_is_right(args: Args, value: Any) -> str | None:
    """The first token's weights are known, so its output is its value, projected."""
    x, w_qkv, w_out, _ = args
    problem = form_problem(value, x)
    if problem:
        return problem
    d_model = x.shape[-1]
    expected = x[:, 0] @ w_qkv[2 * d_model :].T @ w_out.T
    if not moved(expected, value[:, 0]).any():
        return None
    return (
        "gives an output 0 that is not the first token's own value, projected by w_out: the first "
        "token sees only itself"
    )


FORM = "returns (B, T, C); changes nothing"
CAUSAL = "no output depends on a later token"
FIRST = "the first token sees only itself"
ONE = "one head"
MANY = "many heads"
GRADIENTS = "gradients reach x and both matrices"

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_many, like_argument(0), pure=True, same=same),
    Check(CAUSAL, Kind.PROPERTY, 2, draw_future, is_causal, probe="call_each", same=same, hint=3),
    Check(FIRST, Kind.PROPERTY, 1, draw_many, first_is_right, same=same, hint=1),
    oracle(ONE, 2, draw_one, wide, FLOAT32, hint=3),
    oracle(MANY, 4, draw_many, wide, FLOAT32, hint=2),
    oracle(GRADIENTS, 1, draw_gradients, wide_gradients, FLOAT32, probe="gradients", hint=4),
)

REFERENCE = source_of(multi_head)
