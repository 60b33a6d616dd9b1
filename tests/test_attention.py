"""Attention: the reference and all backends against plain loops, and what masks say."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gptbook import attention as module
from gptbook.attention import AttentionMask, attend, reference_attention
from tests.attention_cases import (
    BACKENDS,
    HEADS,
    LENGTHS,
    MASKS,
    RUNS_FLASH,
    Attention,
    Case,
    assert_equals_oracle,
    generator,
    inputs,
    random_case,
    random_cases,
    random_mask,
    results,
    sees,
)

EVERY_MASK = pytest.mark.parametrize("kind", MASKS)
BLOCKS = torch.arange(300)[None] // 23
SHUFFLED = torch.arange(300) * 7 % 300  # each place once
HALF_TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def backend(name: str) -> Attention:
    return partial(attend, backend=name)  # type: ignore[arg-type]


IMPLEMENTATIONS = pytest.mark.parametrize(
    "attention",
    [reference_attention, *map(backend, BACKENDS)],
    ids=["reference_attention", *(f"attend-{name}" for name in BACKENDS)],
)


def check(attention: Attention, case: Case, dtype: torch.dtype, exact_logits: bool = False) -> None:
    found = results(attention, case, inputs(case, dtype))
    assert_equals_oracle(found, case, dtype, exact_logits)


# --- Against the loops ----------------------------------------------------------------------------


@EVERY_MASK
@IMPLEMENTATIONS
def test_equals_the_loops(attention: Attention, kind: str, rng: random.Random) -> None:
    """Output, weights and gradients in float32: ragged lengths, one place, shared key heads."""
    for case in random_cases(rng, kind):
        check(attention, case, torch.float32)


@EVERY_MASK
def test_the_reference_equals_the_loops_in_float64(kind: str, rng: random.Random) -> None:
    """The judge of all others: what it gets wrong, 1e-15 of a number's terms shows."""
    for case in random_cases(rng, kind):
        check(reference_attention, case, torch.float64)


@HALF_TYPES
@IMPLEMENTATIONS
def test_half_types_equal_the_loops(
    attention: Attention, dtype: torch.dtype, rng: random.Random
) -> None:
    for kind in ("causal", "everything", "empty rows"):
        for lengths in (LENGTHS[0], LENGTHS[3], None):
            check(attention, random_case(rng, kind, lengths), dtype)


def test_short_rows_on_a_cpu_are_computed_by_blocks(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 3)
    monkeypatch.setattr(module, "SHORT", 9)
    by_blocks, lengths = module._causal_by_blocks, []

    def noted(q: Tensor, *others: Any) -> Tensor:
        lengths.append(q.shape[2])
        return by_blocks(q, *others)

    monkeypatch.setattr(module, "_causal_by_blocks", noted)
    for length in (1, 2, 3, 4, 6, 7, 9):
        case = random_case(rng, "causal", (length, length), heads=(2, 2))
        check(backend("sdpa"), case, torch.bfloat16)
    assert lengths == [1, 2, 3, 4, 6, 7, 9]
    for dtype, size, heads in (
        (torch.bfloat16, (10, 10), (2, 2)), (torch.bfloat16, (5, 6), (2, 2)),
        (torch.bfloat16, (5, 5), (4, 2)), (torch.float16, (5, 5), (2, 2)),
    ):  # fmt: skip
        check(backend("sdpa"), random_case(rng, "causal", size, heads=heads), dtype)
    assert len(lengths) == 7


@HALF_TYPES
@EVERY_MASK
def test_the_reference_rounds_half_types_only_at_its_ends(
    kind: str, dtype: torch.dtype, rng: random.Random
) -> None:
    """The judge works in float32: the weights are its very bits, all else is rounded once."""
    case = random_case(rng, kind).rounded(dtype)
    low, high = inputs(case, dtype), inputs(case, torch.float32)
    (out, weights), (exact_out, exact_weights) = (
        reference_attention(*leaves, case.mask, scale=case.scale) for leaves in (low, high)
    )
    assert weights.dtype == torch.float32
    assert torch.equal(weights, exact_weights)
    assert torch.equal(out, exact_out.to(dtype))
    found = torch.autograd.grad(out, low, case.gradient.to(dtype))
    expected = torch.autograd.grad(exact_out, high, case.gradient.float())
    assert all(torch.equal(x, y.to(dtype)) for x, y in zip(found, expected, strict=True))


def test_autocast_leaves_the_reference_in_float32(rng: random.Random) -> None:
    case = random_case(rng, "causal", (7, 7))
    q, k, v = inputs(case, torch.float32)
    expected = reference_attention(q, k, v, case.mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = reference_attention(q, k, v, case.mask)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: "{}-heads-{}-keys".format(*heads))
@IMPLEMENTATIONS
def test_query_heads_share_key_heads(
    attention: Attention, heads: tuple[int, int], rng: random.Random
) -> None:
    check(attention, random_case(rng, "causal", (7, 7), heads), torch.float32)


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [
        (AttentionMask(), (67, 67)),
        (AttentionMask(), (5, 300)),
        (AttentionMask(window=17), (270, 270)),
        (AttentionMask(window=40), (130, 333)),
        (AttentionMask(causal=False), (300, 3)),
        (
            AttentionMask(query_documents=BLOCKS[:, :280], key_documents=BLOCKS[:, :280]),
            (280, 280),
        ),
        (
            AttentionMask(query_index=torch.tensor([[290, 3, 131]]), key_index=SHUFFLED[None]),
            (3, 300),
        ),
    ],
    ids=["causal", "decode", "window", "late window", "few keys", "documents", "shuffled"],
)
@IMPLEMENTATIONS
def test_lengths_beyond_one_tile(
    attention: Attention, mask: AttentionMask, lengths: tuple[int, int], rng: random.Random
) -> None:
    """More places than a tile of 32, 64, 128 or 256 holds, and no multiple of any."""
    case = random_case(rng, "none", lengths, heads=(2, 1), d_head=8)
    one_row = {name: getattr(case, name)[:1] for name in ("q", "k", "v", "gradient")}
    check(attention, replace(case, mask=mask, **one_row), torch.float32)


def extreme_case(rng: random.Random, kind: str) -> Case:
    """Return scores near 1e4 and -1e4 that differ by whole numbers, so that float32 holds them.

    Of q = (100, i, 0) and k = (+-100, j, 0) with small i and j; the scale is 1.
    """
    case = random_case(rng, kind, heads=(4, 2), d_head=4)
    source = generator(rng)

    def vectors(tensor: Tensor, signs: list[int]) -> Tensor:
        first = torch.tensor(signs)[torch.randint(len(signs), tensor.shape[:3], generator=source)]
        second = torch.randint(-2, 3, tensor.shape[:3], generator=source)
        zeros = torch.zeros_like(first)
        return torch.stack((100 * first, second, zeros, zeros), -1).double()

    k = vectors(case.k, rng.choice([[1], [-1], [1, -1]]))
    return replace(case, q=vectors(case.q, [1]), k=k, scale=1.0)


@EVERY_MASK
def test_the_reference_is_exact_for_extreme_scores(kind: str, rng: random.Random) -> None:
    for _ in range(4):
        check(reference_attention, extreme_case(rng, kind), torch.float32, exact_logits=True)


@EVERY_MASK
@pytest.mark.parametrize("name", BACKENDS)
def test_extreme_scores(name: str, kind: str, rng: random.Random) -> None:
    """A backend may scale by the root of scale twice or go to powers of two, which rounds 1e4."""
    for _ in range(4):
        check(backend(name), extreme_case(rng, kind), torch.float32)


@HALF_TYPES
@IMPLEMENTATIONS
def test_extreme_scores_in_half_types_stay_within_the_values(
    attention: Attention, dtype: torch.dtype, rng: random.Random
) -> None:
    """Half types cannot tell 10,000 from 10,001, but a mean lies between what it is the mean of."""
    for kind in MASKS:
        case = extreme_case(rng, kind).rounded(dtype)
        found = results(attention, case, inputs(case, dtype))
        assert all(np.isfinite(value).all() for value in found.values()), kind
        largest = case.v.abs().amax((1, 2, 3)).numpy()[:, None, None, None]
        assert (abs(found["out"]) <= largest * (1 + torch.finfo(dtype).eps)).all(), kind


@pytest.mark.parametrize("kind", ["causal", "everything", "empty rows"])
@pytest.mark.parametrize("implementation", ["reference", "tiled"])
def test_gradcheck(implementation: str, kind: str, rng: random.Random) -> None:
    """Autograd against finite differences, the reference's weights included."""
    for lengths in ((4, 4), (5, 2), (1, 3)):
        case = random_case(rng, kind, lengths, heads=(4, 2), d_head=3)
        function = reference_attention if implementation == "reference" else backend("tiled")
        leaves = inputs(case, torch.float64)
        assert torch.autograd.gradcheck(
            lambda q, k, v, f=function, c=case: f(q, k, v, c.mask, scale=c.scale), leaves
        )


@IMPLEMENTATIONS
def test_queries_that_see_nothing_give_zeros_and_pass_nothing(
    attention: Attention, rng: random.Random
) -> None:
    """Exact zeros, also where what nobody sees is huge."""
    for dtype in (torch.float32, torch.bfloat16):
        mask = AttentionMask(key_index=torch.tensor([[-1] * 5, [0, -1, 1, 2, -1]]))
        case = random_case(rng, "causal", (3, 5), heads=(4, 2), d_head=8)
        q, k, v, gradient = (torch.cat((x, x))[:2] for x in (case.q, case.k, case.v, case.gradient))
        k[0], v[0], k[1, :, 1], v[1, :, 4] = 1e4, -1e4, 1e4, 1e4
        case = replace(case, q=q, k=k, v=v, gradient=gradient, mask=mask, scale=None)
        found = results(attention, case, inputs(case, dtype))
        for name, value in found.items():
            assert (value[0] == 0).all(), name
            assert np.isfinite(value).all(), name
        for name in ("dk", "dv"):
            assert (found[name][1][:, [1, 4]] == 0).all(), name
        assert (abs(found["out"][1]) < 100).all()


@pytest.mark.parametrize("name", BACKENDS)
def test_no_mask_at_all_is_everyone_sees_all(name: str, rng: random.Random) -> None:
    case = random_case(rng, "none", (4, 6))
    q, k, v = inputs(case, torch.float32)
    everyone = backend(name)(q, k, v, AttentionMask(causal=False))
    torch.testing.assert_close(backend(name)(q, k, v), everyone)


# --- Inputs ---------------------------------------------------------------------------------------

Layout = Callable[[Tensor], Tensor]
LAYOUTS: dict[str, Layout] = {
    "heads behind places": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "head size first": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "every second number": lambda x: torch.stack((x, x * 7), -1).flatten(-2)[..., ::2],
    "cut from the middle": lambda x: torch.cat((x * 3, x, x * 5), 2)[
        :, :, x.shape[2] : 2 * x.shape[2]
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@IMPLEMENTATIONS
def test_any_layout_in_memory(attention: Attention, layout: str, rng: random.Random) -> None:
    for kind in ("causal", "everything"):
        case = random_case(rng, kind, (6, 9), heads=(4, 2), d_head=8)
        leaves = inputs(case, torch.float32)
        views = [LAYOUTS[layout](leaf) for leaf in leaves]
        assert not any(view.is_contiguous() for view in views)
        assert_equals_oracle(results(attention, case, leaves, *views), case, torch.float32)


@IMPLEMENTATIONS
def test_expanded_keys(attention: Attention, rng: random.Random) -> None:
    """Keys of which all rows and heads share one memory."""
    case = random_case(rng, "causal", (6, 6), heads=(4, 2), d_head=8)
    k, v = (x[:1, :1].expand_as(x) for x in (case.k, case.v))
    case = replace(case, k=k, v=v)
    q, k, v = (x.float() for x in (case.q, case.k[:1, :1], case.v[:1, :1]))
    out = attention(q, k.expand(case.k.shape), v.expand(case.v.shape), case.mask, scale=case.scale)
    found = out if isinstance(out, Tensor) else out[0]
    assert_equals_oracle({"out": found.double().numpy()}, case, torch.float32)


@EVERY_MASK
@IMPLEMENTATIONS
def test_inputs_are_not_changed(attention: Attention, kind: str, rng: random.Random) -> None:
    case = random_case(rng, kind)
    leaves = inputs(case, torch.float32)
    of_mask = [] if case.mask is None else vars(case.mask).values()
    tensors = [*leaves, *(x for x in of_mask if isinstance(x, Tensor))]
    before = [(x.detach().clone(), x._version) for x in tensors]
    results(attention, case, leaves)
    for tensor, (copy, version) in zip(tensors, before, strict=True):
        assert tensor._version == version
        assert torch.equal(tensor, copy)


@EVERY_MASK
def test_rows_of_the_weights_sum_to_one_or_are_empty(kind: str, rng: random.Random) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for case in random_cases(rng, kind):
            q, k, v = inputs(case, dtype)
            _, weights = reference_attention(q, k, v, case.mask, scale=case.scale)
            n_queries, n_keys = q.shape[2], k.shape[2]
            assert weights.shape == (*q.shape[:3], n_keys)
            assert (weights >= 0).all()
            for b, t in np.ndindex(q.shape[0], n_queries):
                seen = [sees(case.mask, b, t, s, n_queries, n_keys) for s in range(n_keys)]
                assert (weights[b, :, t, [not x for x in seen]] == 0).all()
                # n_keys roundings of numbers up to 1
                allowed = n_keys * torch.finfo(dtype).eps
                assert weights[b, :, t].sum(-1).detach().float() == pytest.approx(
                    float(any(seen)), abs=allowed
                )


def test_bias_is_added_to_the_scaled_scores(rng: random.Random) -> None:
    for kind in ("causal", "everything"):
        case = random_case(rng, kind, (5, 8), heads=(4, 2))
        bias = torch.randn(4, 5, 8, generator=generator(rng), dtype=torch.float64)
        found = results(
            lambda q, k, v, mask, bias, scale: reference_attention(
                q, k, v, mask, scale=scale, bias=bias[None].to(q.dtype)
            ),
            replace(case, bias=bias),
            inputs(case, torch.float64),
        )
        assert_equals_oracle(found, replace(case, bias=bias), torch.float64)


@pytest.mark.parametrize("name", BACKENDS)
def test_without_gradients_the_result_is_the_same(name: str, rng: random.Random) -> None:
    case = random_case(rng, "everything", (9, 9))
    q, k, v = inputs(case, torch.float32)
    with_graph = backend(name)(q, k, v, case.mask)
    with torch.no_grad():
        torch.testing.assert_close(backend(name)(q, k, v, case.mask), with_graph)


# --- The mask -------------------------------------------------------------------------------------


@EVERY_MASK
def test_dense_equals_the_loops(kind: str, rng: random.Random) -> None:
    for lengths in (*LENGTHS, (rng.randint(1, 14), rng.randint(1, 14))):
        batch = rng.randint(1, 3)
        mask = random_mask(kind, rng, batch, *lengths) or AttentionMask(causal=False)
        dense = mask.dense(*lengths, torch.device("cpu"))
        assert dense.dtype == torch.bool
        assert dense.shape[0] in (1, batch)
        assert dense.shape[1:] == (1, *lengths)
        for b, t, s in np.ndindex(batch, *lengths):
            row = b if dense.shape[0] > 1 else 0
            assert bool(dense[row, 0, t, s]) == sees(mask, b, t, s, *lengths), (mask, b, t, s)


def test_dense_by_hand() -> None:
    """Four keys, the queries are the last three of them."""
    dense = AttentionMask(window=2).dense(3, 4, "cpu")[0, 0].int().tolist()
    assert dense == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    before = AttentionMask().dense(3, 2, "cpu")[0, 0].int().tolist()
    assert before == [[0, 0], [1, 0], [1, 1]]


def test_one_mask_serves_calls_of_other_sizes(rng: random.Random) -> None:
    """What a mask remembers of one call must not leak into another."""
    mask = AttentionMask(window=3)
    for lengths in ((4, 4), (2, 6), (4, 4), (6, 2), (4, 5)):
        dense = mask.dense(*lengths, "cpu")
        for t, s in np.ndindex(*lengths):
            assert bool(dense[0, 0, t, s]) == sees(mask, 0, t, s, *lengths)
    other = replace(mask, window=1)
    assert other.dense(4, 4, "cpu").sum() == 4


INDEX = torch.arange(4)[None]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: AttentionMask(window=0), "window.*0"),
        (lambda: AttentionMask(window=-3), "window.*-3"),
        (lambda: AttentionMask(causal=False, window=2), "window.*2.*causal"),
        (lambda: AttentionMask(query_documents=INDEX), "key_documents"),
        (lambda: AttentionMask(key_documents=INDEX), "query_documents"),
        (lambda: AttentionMask(query_index=INDEX).dense(3, 4, "cpu"), "query_index"),
        (lambda: AttentionMask(key_index=INDEX).dense(4, 3, "cpu"), "key_index"),
        (lambda: AttentionMask(query_index=INDEX[:, :1]).dense(3, 4, "cpu"), "query_index"),
        (lambda: AttentionMask(key_index=INDEX[:, :1]).dense(3, 4, "cpu"), "key_index"),
        (
            lambda: AttentionMask(query_documents=INDEX, key_documents=INDEX).dense(4, 3, "cpu"),
            "key_documents",
        ),
        (
            lambda: AttentionMask(query_documents=INDEX, key_documents=INDEX).dense(1, 4, "cpu"),
            "query_documents",
        ),
    ],
)
def test_masks_that_say_nothing_sensible(act: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("function", [reference_attention, *map(backend, BACKENDS)])
def test_a_mask_for_other_sizes_is_refused(function: Attention) -> None:
    """Also one of a single column or row too many, which would broadcast to all places."""
    q = torch.zeros(2, 1, 4, 16)
    for mask, message in (
        (AttentionMask(query_index=INDEX.expand(3, 4)), "query_index.*3.*2"),
        (AttentionMask(key_index=INDEX.expand(3, 4)), "key_index.*3.*2"),
        (AttentionMask(key_index=INDEX[:, :3]), "key_index.*4.*3"),
        (AttentionMask(query_index=INDEX[:, :1]), "query_index.*4.*1"),
        (AttentionMask(query_documents=INDEX, key_documents=INDEX[:, :1]), "key_documents.*4.*1"),
    ):
        with pytest.raises(ValueError, match=message):
            function(q, q, q, mask)


# --- The choice of a backend ----------------------------------------------------------------------


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.zeros(shape) for shape in shapes]


@pytest.mark.parametrize("name", ["", "Reference", "math", "cudnn"])
def test_an_unknown_backend_is_refused(name: str) -> None:
    q, k, v = tensors(*[(1, 2, 3, 16)] * 3)
    with pytest.raises((ValueError, TypeError), match="backend"):
        attend(q, k, v, backend=name)  # type: ignore[arg-type]


@pytest.mark.skipif(RUNS_FLASH, reason="the flash backend can serve here")
def test_flash_is_refused_where_it_cannot_run() -> None:
    q, k, v = tensors(*[(1, 2, 3, 16)] * 3)
    with pytest.raises(ValueError, match=r"(?i)flash.*(cuda|gpu|interpret)"):
        attend(q, k, v, AttentionMask(), backend="flash")


@pytest.mark.parametrize("name", ["tiled", *["flash"] * RUNS_FLASH])
def test_dropout_is_refused_by_backends_without_it(name: str) -> None:
    q, k, v = tensors(*[(1, 2, 3, 16)] * 3)
    with pytest.raises(ValueError, match=f"(?i){name}.*dropout|dropout.*{name}"):
        attend(q, k, v, dropout_p=0.1, backend=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout_p", [-0.1, 1.5])
@pytest.mark.parametrize("name", BACKENDS)
def test_dropout_is_a_share(name: str, dropout_p: float) -> None:
    q, k, v = tensors(*[(1, 2, 3, 16)] * 3)
    with pytest.raises(ValueError, match="dropout"):
        attend(q, k, v, dropout_p=dropout_p, backend=name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3, 4, 8), (2, 2, 4, 8), (2, 2, 4, 8)], "multiple"),
        ([(2, 2, 4, 8), (2, 4, 4, 8), (2, 4, 4, 8)], "multiple"),
        ([(2, 4, 4, 8), (2, 0, 4, 8), (2, 0, 4, 8)], "multiple"),
        ([(2, 4, 4, 8), (2, 2, 4, 6), (2, 2, 4, 6)], r"\(2, 4, 4, 8\).*\(2, 2, 4, 6\)"),
        ([(2, 4, 4, 8), (3, 2, 4, 8), (3, 2, 4, 8)], r"\(2, 4, 4, 8\).*\(3, 2, 4, 8\)"),
        ([(2, 4, 4, 8), (2, 2, 4, 8), (2, 2, 5, 8)], r"\(2, 2, 4, 8\).*\(2, 2, 5, 8\)"),
        ([(2, 4, 4, 8), (2, 2, 4, 8), (2, 1, 4, 8)], r"\(2, 2, 4, 8\).*\(2, 1, 4, 8\)"),
        ([(4, 4, 8), (2, 4, 8), (2, 4, 8)], r"\(4, 4, 8\)"),
    ],
)
@pytest.mark.parametrize("function", [reference_attention, attend])
def test_shapes_that_do_not_go_together(
    function: Attention, shapes: list[tuple[int, ...]], message: str
) -> None:
    """What a caller reads outside of pytest, where nothing checks the annotations."""
    with pytest.raises(ValueError, match=message):
        unwrap(function)(*tensors(*shapes))


def dropped_weights(name: str, p: float, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Return the weights without dropout, and those that a backend used: v is the unit matrix."""
    source, d_head = generator(rng), 32
    q, k = (torch.randn(8, 4, d_head, d_head, generator=source) for _ in range(2))
    unit = torch.eye(d_head).expand(8, 4, d_head, d_head)
    torch.manual_seed(rng.getrandbits(32))
    used = attend(q, k, unit, AttentionMask(causal=False), dropout_p=p, backend=name)  # type: ignore[arg-type]
    return reference_attention(q, k, unit)[1], used


def assert_share(hits: Tensor, probability: float) -> None:
    """A count of independent draws is within 6.5 standard deviations of its mean.

    False alarm: 8e-11 for a normal distribution, and counts here are of at least 8,000 draws.
    """
    spread = (hits.numel() * probability * (1 - probability)) ** 0.5
    assert abs(float(hits.sum()) - hits.numel() * probability) < 6.5 * spread


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["auto", "reference", "sdpa"])
def test_dropout_drops_its_share_and_scales_the_rest(
    name: str, p: float, rng: random.Random
) -> None:
    """Each weight for itself: neighbors in any of the four axes do not fall together."""
    weights, used = dropped_weights(name, p, rng)
    dropped = used == 0
    torch.testing.assert_close(used[~dropped], weights[~dropped] / (1 - p))
    assert_share(dropped, p)
    for axis in range(4):
        pairs = dropped.unflatten(axis, (-1, 2))
        both = pairs.select(axis + 1, 0) & pairs.select(axis + 1, 1)
        assert_share(both, p * p)


@pytest.mark.parametrize("name", ["auto", "reference", "sdpa"])
def test_dropout_backward_drops_what_forward_dropped(name: str, rng: random.Random) -> None:
    """The output is linear in v, so <dv, v> = <gradient, output> if both drop the same weights."""
    case = random_case(rng, "causal", (14, 14), heads=(4, 2), d_head=16)
    q, k, v = inputs(case, torch.float64)
    out = attend(q, k, v, case.mask, dropout_p=0.5, backend=name)  # type: ignore[arg-type]
    (dv,) = torch.autograd.grad(out, [v], case.gradient)
    expected = float((case.gradient * out).sum().detach())
    size = float((case.gradient * out).abs().sum().detach())
    assert float((dv * v).sum().detach()) == pytest.approx(expected, abs=1e-12 * size)


@pytest.mark.parametrize("name", ["auto", "reference", "sdpa"])
def test_dropout_of_zero_draws_nothing(name: str, rng: random.Random) -> None:
    q, k, v = inputs(random_case(rng, "causal", (5, 5)), torch.float32)
    state = torch.get_rng_state()
    attend(q, k, v, AttentionMask(), dropout_p=0.0, backend=name)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
