"""The contract of sampling: properties, parity with transformers, and the fast path's slow twin."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptbook.sampling import (
    RESIDUAL_STREAM,
    History,
    Sample,
    SamplingConfig,
    all_random_words,
    apply_temperature,
    filtered_logits,
    greedy,
    gumbel,
    history_of,
    min_p_filter,
    penalize_counts,
    penalize_repetition,
    philox,
    random_words,
    sample,
    sample_reference,
    seed_tensor,
    token_logprobs,
    top_k_filter,
    top_p_filter,
    uniform,
)

torch.set_num_threads(1)
INF = math.inf


def logits_of(probabilities: list[float]) -> Tensor:
    return torch.tensor([probabilities]).log()


def kept(filtered: Tensor) -> list[int]:
    """Return the ids that are left in the first row."""
    return (filtered[0] > -INF).nonzero()[:, 0].tolist()


def drawn(logits: Tensor, config: SamplingConfig, n: int = 1, **more: Any) -> Sample:
    """Draw n times from the one row of logits, at positions 0 to n - 1."""
    rows = logits.expand(n, -1)
    return sample(rows, config, seeds=seed_tensor([7] * n), positions=torch.arange(n), **more)


# --- randomness ---


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF,) * 4,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    key: tuple[int, int], counter: tuple[int, int, int, int], expected: tuple[int, ...]
) -> None:
    def words(numbers: tuple[int, ...]) -> Any:
        return tuple(torch.tensor(number) for number in numbers)

    assert tuple(int(word) for word in philox(words(key), words(counter))) == expected


def test_words_of_some_ids_are_those_of_all_ids() -> None:
    seeds, positions = seed_tensor([3, 2**64 - 1]), torch.tensor([0, 2**33 + 5])
    everything = all_random_words(seeds, positions, 37)
    ids = torch.tensor([[0, 5, 36], [7, 7, 2]])
    assert random_words(seeds, positions, ids).tolist() == everything.gather(1, ids).tolist()
    assert everything.min() >= 0
    assert everything.max() < 2**32


def test_each_word_depends_on_seed_position_id_and_stream() -> None:
    base = all_random_words(seed_tensor([1]), torch.tensor([1]), 8)
    others = [
        all_random_words(seed_tensor([1 + 2**32]), torch.tensor([1]), 8),
        all_random_words(seed_tensor([1]), torch.tensor([1 + 2**32]), 8),
        all_random_words(seed_tensor([1]), torch.tensor([1]), 8, RESIDUAL_STREAM),
    ]
    assert len(set(base[0].tolist())) == 8
    assert all((base != other).all() for other in others)


def test_gumbel_noise_is_finite_at_both_ends_and_has_gumbels_mean() -> None:
    ends = gumbel(torch.tensor([0, 2**32 - 1]))
    assert ends[0] == pytest.approx(22.87, abs=0.01)
    assert ends[1] == pytest.approx(-2.81, abs=0.01)
    noise = gumbel(all_random_words(seed_tensor([0]), torch.tensor([0]), 100_000))
    # The standard error is 1.28 / sqrt(100,000) = 0.004, and the seed is fixed.
    assert noise.mean() == pytest.approx(0.5772, abs=0.016)
    assert noise.var() == pytest.approx(math.pi**2 / 6, rel=0.03)


def test_uniform_lies_between_its_ends() -> None:
    positions = torch.arange(20_000)
    u = uniform(torch.zeros_like(positions), positions, 1)
    assert u.min() > 0
    assert u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**64, ValueError), (0.5, TypeError)]
)
def test_a_seed_out_of_range_is_refused(seed: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed"):
        seed_tensor([seed])


# --- draws ---


def chi_square(ids: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * len(ids)
    counts = torch.bincount(ids, minlength=len(probabilities))
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    "config",
    [SamplingConfig(), SamplingConfig(temperature=0.6), SamplingConfig(top_k=5, top_p=0.9)],
)
def test_draws_have_the_distribution_that_they_should(config: SamplingConfig) -> None:
    """At this bound one of 10^6 right samplers fails; the seed is fixed, so ours never does."""
    logits = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    probabilities = filtered_logits(logits, config).softmax(-1)[0]
    result = drawn(logits, config, 20_000)
    possible = probabilities > 0
    assert possible[result.ids].all()
    remaining = int(possible.sum()) - 1
    # Chi-square's upper 10^-6 quantile by Wilson and Hilferty, z = 4.753.
    bound = remaining * (1 - 2 / (9 * remaining) + 4.753 * math.sqrt(2 / (9 * remaining))) ** 3
    new_ids = (possible.cumsum(0) - 1)[result.ids]
    assert chi_square(new_ids, probabilities[possible]) < bound


def test_log_probabilities_are_those_of_the_model_and_of_what_was_drawn_from() -> None:
    logits = torch.randn(1, 300) * 2
    config = SamplingConfig(temperature=0.7, top_k=9, top_p=0.8)
    result = drawn(logits, config, 50)
    rows = logits.expand(50, -1)
    torch.testing.assert_close(result.logprobs, token_logprobs(rows, result.ids))
    filtered = filtered_logits(rows, config)
    torch.testing.assert_close(result.sampling_logprobs, token_logprobs(filtered, result.ids))
    assert result.valid.all()


def test_a_row_gives_the_same_token_alone_and_in_any_batch() -> None:
    logits = torch.randn(6, 200)
    seeds, positions = seed_tensor([1, 1, 2, 3, 4, 5]), torch.tensor([9, 8, 9, 0, 0, 77])
    for config in (SamplingConfig(), SamplingConfig(top_k=20, min_p=0.01)):
        together = sample(logits, config, seeds=seeds, positions=positions).ids
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        other = sample(logits[order], config, seeds=seeds[order], positions=positions[order]).ids
        alone = [
            sample(
                logits[i : i + 1], config, seeds=seeds[i : i + 1], positions=positions[i : i + 1]
            )
            for i in range(6)
        ]
        assert other.tolist() == together[order].tolist()
        assert [int(one.ids) for one in alone] == together.tolist()


def test_a_filter_that_spares_the_choice_does_not_change_it() -> None:
    # With other logits one id may have nearly all of the probability, so that all are spared.
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0)) * 3
    free = drawn(logits, SamplingConfig(), 200).ids
    best = top_k_filter(logits, 40)[0] > -INF
    few = drawn(logits, SamplingConfig(top_k=40), 200).ids
    spared = best[free]
    assert 20 < int(spared.sum()) < 200
    assert few[spared].tolist() == free[spared].tolist()


HARD_ROWS = st.lists(
    st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, -INF, 30.0, -1e4, 1e-8]), min_size=150, max_size=160
)


@given(
    row=HARD_ROWS,
    temperature=st.sampled_from([0.0, 1e-30, 0.3, 1.0, 5.0]),
    top_k=st.sampled_from([None, 1, 2, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    position=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_the_fast_path_chooses_what_the_reference_chooses(
    row: list[float],
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float,
    position: int,
) -> None:
    logits = torch.tensor([row, row[::-1]])
    config = SamplingConfig(temperature, top_k, top_p, min_p)
    where: dict[str, Any] = {"seeds": seed_tensor([1, 2]), "positions": torch.tensor([position, 5])}
    fast, slow = sample(logits, config, **where), sample_reference(logits, config, **where)
    assert fast.ids.tolist() == slow.ids.tolist()
    assert fast.valid.tolist() == slow.valid.tolist()
    torch.testing.assert_close(fast.logprobs, slow.logprobs, equal_nan=True)
    torch.testing.assert_close(fast.sampling_logprobs, slow.sampling_logprobs, equal_nan=True)


# --- greedy and temperature ---


def test_greedy_takes_the_lower_of_equal_ids() -> None:
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert greedy(logits).tolist() == [1, 0]
    result = sample(
        logits, SamplingConfig(temperature=0), seeds=seed_tensor([0, 1]), positions=torch.zeros(2)
        .long(),
    )  # fmt: skip
    assert result.ids.tolist() == [1, 0]
    assert result.sampling_logprobs.tolist() == [0, 0]


def test_the_smallest_temperature_is_greedy_and_the_largest_uniform() -> None:
    logits = torch.tensor([[1.0, 1.5, -40.0, 1.4999]])
    assert drawn(logits, SamplingConfig(temperature=1e-300), 50).ids.tolist() == [1] * 50
    for temperature in (1e30, 1e300):
        hot = apply_temperature(logits, temperature).softmax(-1)
        assert hot[0].tolist() == pytest.approx([0.25] * 4)
    filtered = torch.tensor([[1.0, -INF, 0.0]])
    assert apply_temperature(filtered, 1e300).softmax(-1)[0].tolist() == [0.5, 0, 0.5]


def test_temperature_zero_in_the_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="greedy"):
        apply_temperature(torch.zeros(1, 2), 0)


# --- filters ---


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_exactly_k_are_kept_and_ties_go_to_the_lower_ids(k: int) -> None:
    logits = torch.tensor([[1.0, 3.0, 1.0, 1.0, 1.0, 3.0]])
    assert kept(top_k_filter(logits, k)) == sorted([1, 5, 0, 2][:k])


def test_more_than_all_is_all() -> None:
    logits = torch.randn(1, 5)
    assert torch.equal(top_k_filter(logits, 9), logits)
    assert drawn(logits, SamplingConfig(top_k=9)).valid.all()


def test_top_p_keeps_the_shortest_list_that_has_the_share() -> None:
    logits = logits_of([0.1, 0.5, 0.25, 0.15])
    assert kept(top_p_filter(logits, 0.0)) == [1]
    assert kept(top_p_filter(logits, 0.49)) == [1]
    assert kept(top_p_filter(logits, 0.6)) == [1, 2]
    assert kept(top_p_filter(logits, 0.76)) == [1, 2, 3]
    assert kept(top_p_filter(logits, 1.0)) == [0, 1, 2, 3]
    equal = torch.zeros(1, 10)
    assert kept(top_p_filter(equal, 0.35)) == [0, 1, 2, 3]


def test_an_exact_share_is_no_matter_of_rounding() -> None:
    """Of 160 equal ids 80 have just a half: both ways have to sum so that the same ones stay."""
    logits = torch.cat([torch.zeros(1, 160), torch.full((1, 60), -INF)], 1)
    logits[0, 3] = 1e-8
    config = SamplingConfig(top_p=0.5, temperature=1e-3)
    where: dict[str, Any] = {"seeds": seed_tensor([1] * 300), "positions": torch.arange(300)}
    rows = logits.expand(300, -1)
    slow = sample_reference(rows, config, **where)
    assert sample(rows, config, **where).ids.tolist() == slow.ids.tolist()


def test_min_p_is_a_share_of_the_largest() -> None:
    logits = logits_of([0.05, 0.5, 0.3, 0.15])
    assert kept(min_p_filter(logits, 0.2)) == [1, 2, 3]
    assert kept(min_p_filter(logits, 1.0)) == [1]
    assert kept(min_p_filter(logits, 0.0)) == [0, 1, 2, 3]


def test_top_p_counts_what_top_k_has_left() -> None:
    logits = logits_of([0.4, 0.3, 0.2, 0.1])
    # Of the two that are left the first has 4/7 = 0.57 of the probability.
    assert kept(filtered_logits(logits, SamplingConfig(top_k=2, top_p=0.5))) == [0]
    assert kept(filtered_logits(logits, SamplingConfig(top_p=0.5))) == [0, 1]


# --- penalties ---


def test_penalties_by_hand() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    occurs = torch.tensor([[True, True, False, False]])
    assert penalize_repetition(logits, occurs, 2.0).tolist() == [[1.0, -4.0, 2.0, -2.0]]
    counts = torch.tensor([[0, 1, 3, 0]])
    assert penalize_counts(logits, counts, 0.5, 0.25).tolist() == [[2.0, -2.75, 0.75, -2.0]]


def test_history_counts_what_was_written_and_remembers_the_prompt() -> None:
    history = history_of([[0, 0], []], [[1, 1, 3], [2]], 5, torch.device("cpu"))
    assert history.occurs.int().tolist() == [[1, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
    assert history.counts.tolist() == [[0, 2, 0, 1, 0], [0, 0, 1, 0, 0]]


def test_penalties_without_a_history_are_refused() -> None:
    with pytest.raises(ValueError, match="history"):
        drawn(torch.zeros(1, 4), SamplingConfig(repetition_penalty=1.1))


# --- broken rows ---

NAN = math.nan
BROKEN = [
    [NAN, 1.0, 0.0],
    [NAN, NAN, NAN],
    [-INF, -INF, -INF],
    [0.0, INF, INF],
    [0.0, 1.0, -INF],
]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("draw", [sample, sample_reference])
def test_broken_rows_are_reported_and_leave_the_others_alone(draw: Any, temperature: float) -> None:
    for more in ({}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}):
        config = SamplingConfig(temperature=temperature, **more)
        where = {"seeds": seed_tensor([1] * 5), "positions": torch.arange(5)}
        result = draw(torch.tensor(BROKEN), config, **where)
        assert result.valid.tolist() == [False, False, False, False, True]
        assert ((result.ids >= 0) & (result.ids < 3)).all()
        assert result.logprobs.isnan().tolist() == (~result.valid).tolist()
        alone = {"seeds": seed_tensor([1]), "positions": torch.tensor([4])}
        assert draw(torch.tensor(BROKEN[4:]), config, **alone).ids[0] == result.ids[4]


def test_a_mask_that_allows_nothing_possible_is_reported() -> None:
    logits = torch.tensor([[0.0, -INF, 3.0], [0.0, 1.0, 3.0]])
    allowed = torch.tensor([[False, True, False], [True, False, False]])
    for temperature in (0.0, 1.0):
        config = SamplingConfig(temperature=temperature)
        result = sample(
            logits, config, seeds=seed_tensor([0, 0]), positions=torch.zeros(2).long(),
            allowed=allowed,
        )  # fmt: skip
        assert result.valid.tolist() == [False, True]
        assert result.ids[1] == 0


def test_half_precision_and_float64_logits() -> None:
    logits = torch.randn(1, 50)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        result = drawn(logits.to(dtype), SamplingConfig(top_k=5), 4)
        assert result.logprobs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


# --- transformers as an oracle ---


@given(seed=st.integers(0, 1000), size=st.sampled_from([5, 60, 301]))
@settings(max_examples=25, deadline=None)
def test_filters_agree_with_transformers(seed: int, size: int) -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = torch.randn(2, size, generator=torch.Generator().manual_seed(seed)) * 2
    ids = torch.randint(size, (2, 7), generator=torch.Generator().manual_seed(seed))
    history = History(
        torch.zeros(2, size).bool().scatter(1, ids, True), torch.zeros(2, size).long()
    )
    config = SamplingConfig(temperature=0.7, top_k=4, top_p=0.8, min_p=0.1, repetition_penalty=1.3)
    filters: Any = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(4),
            TopPLogitsWarper(0.8),
            MinPLogitsWarper(0.1),
        ]
    )
    theirs = filters(ids, logits.clone())
    ours = filtered_logits(logits, config, history)
    assert torch.equal(ours > -INF, theirs > -INF)
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1))


# --- the configuration ---


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"temperature": -0.1}, ValueError),
        ({"temperature": NAN}, ValueError),
        ({"temperature": INF}, ValueError),
        ({"temperature": "1"}, TypeError),
        ({"top_k": 0}, ValueError),
        ({"top_k": 2.0}, TypeError),
        ({"top_p": 1.1}, ValueError),
        ({"min_p": -0.1}, ValueError),
        ({"repetition_penalty": 0.0}, ValueError),
        ({"presence_penalty": INF}, ValueError),
        ({"presence_penalty": 1e39}, ValueError),
        ({"frequency_penalty": True}, TypeError),
    ],
)
def test_settings_out_of_range_are_refused_by_name(
    values: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(values))):
        SamplingConfig(**values)
