"""Speculative decoding: the distribution stays, and with the same noise so does the text."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gptbook.generation import GenerationConfig, Row, Writer, generate
from gptbook.model import GPT
from gptbook.speculative import Draft, DraftModel, LookBack, speculate, verify
from gptbook.text_stream import TextStream
from gptbook.tokenizer import BPETokenizer, train_bpe
from tests.test_generation import DRAWN, GREEDY, small

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> GPT:
    return small()


@pytest.fixture(scope="module")
def draft_model(model: GPT) -> GPT:
    """Return a model that often agrees: the same one with some noise on its weights."""
    other = small()
    random = torch.Generator().manual_seed(0)
    for weight in other.parameters():
        noise = torch.randn(weight.shape, generator=random, dtype=torch.float64)
        weight.data += 0.1 * weight.data.std() * noise if weight.ndim > 1 else 0
    return other


class Fixed:
    """Guesses what it was told."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def propose(self, writer: Writer, row: Row, n_tokens: int, method: Any) -> Draft:
        return Draft(self.ids[:n_tokens])


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def bound(degrees: int) -> float:
    """Return chi-square's upper 10^-6 quantile, by Wilson and Hilferty; z = 4.753.

    A right program gets above it with odds of one in a million. Seeds are fixed, so that it either
    always does or never.
    """
    return degrees * (1 - 2 / (9 * degrees) + 4.753 * math.sqrt(2 / (9 * degrees))) ** 3


# --- the rule ---

P = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.4, 0.1]])
Q = torch.tensor([[0.2, 0.3, 0.1, 0.4], [0.7, 0.1, 0.1, 0.1]])


def written(seed: int, target: Tensor, draft: Tensor) -> list[int]:
    """Return the tokens of one round, whose guesses are drawn with numbers of their own."""
    random = torch.Generator().manual_seed(seed)
    guesses = [int(torch.multinomial(q, 1, generator=random)) for q in draft]
    return verify(target, draft, guesses, seed=seed, position=3)


@pytest.fixture(scope="module")
def rounds() -> list[list[int]]:
    return [written(seed, P.double(), Q.double()) for seed in range(1200)]


def test_the_first_token_has_the_models_distribution(rounds: list[list[int]]) -> None:
    counts = torch.bincount(torch.tensor([tokens[0] for tokens in rounds]), minlength=4)
    assert chi_square(counts, P[0]) < bound(3)
    assert chi_square(counts, Q[0]) > bound(3)  # and the test can tell


@pytest.mark.parametrize("place", [1, 2])
def test_later_tokens_have_it_wherever_they_are_written(
    rounds: list[list[int]], place: int
) -> None:
    found = [tokens[place] for tokens in rounds if len(tokens) > place]
    counts = torch.bincount(torch.tensor(found), minlength=4)
    assert len(found) > 200
    assert chi_square(counts, P[place]) < bound(3)


def test_guesses_are_accepted_as_often_as_they_can_be(rounds: list[list[int]]) -> None:
    share = sum(len(tokens) > 1 for tokens in rounds) / len(rounds)
    best = float(torch.minimum(P[0], Q[0]).sum())
    assert abs(share - best) < 5 * math.sqrt(best * (1 - best) / len(rounds))


def test_certain_guesses() -> None:
    sure = torch.eye(4).double()
    assert verify(sure[[1, 2, 3]], sure[[1, 2]], [1, 2], seed=0, position=0) == [1, 2, 3]
    assert verify(sure[[1, 2, 3]], sure[[0, 2]], [0, 2], seed=0, position=0) == [1]
    assert verify(P[:1].double(), Q[:0].double(), [], seed=0, position=0)[0] in range(4)


# --- the whole ---


def test_the_distribution_of_pairs_is_unchanged(model: GPT, draft_model: GPT) -> None:
    config = GenerationConfig(max_new_tokens=2, top_k=2, temperature=3.0, end_ids=())
    pairs: dict[tuple[int, ...], int] = {}
    drafter = DraftModel(draft_model)
    for seed in range(200):
        out = speculate(model, [5, 6], drafter, replace(config, seed=seed), n_guesses=2)
        pairs[tuple(out.ids)] = pairs.get(tuple(out.ids), 0) + 1
    with torch.no_grad():
        expected: dict[tuple[int, ...], float] = {}
        first = model(torch.tensor([[5, 6]]))[0, -1].div(3).topk(2)
        for a, p in zip(first.indices.tolist(), first.values.softmax(-1).tolist(), strict=True):
            second = model(torch.tensor([[5, 6, a]]))[0, -1].div(3).topk(2)
            shares = second.values.softmax(-1).tolist()
            for b, q in zip(second.indices.tolist(), shares, strict=True):
                expected[a, b] = p * q
    assert set(pairs) <= set(expected)
    counts = torch.tensor([pairs.get(pair, 0) for pair in expected])
    assert chi_square(counts, torch.tensor(list(expected.values()))) < bound(3)


@pytest.mark.parametrize("n_guesses", [1, 3, 30])
def test_greedy_text_is_the_same(model: GPT, draft_model: GPT, n_guesses: int) -> None:
    plain = generate(model, [5, 6, 7], GREEDY)
    for drafter in (DraftModel(draft_model), LookBack(), DraftModel(model), Fixed([1, 2])):
        out = speculate(model, [5, 6, 7], drafter, GREEDY, n_guesses=n_guesses)
        assert out.ids == plain.ids[0]
        assert out.finish_reason == "length"
        assert out.logprobs == pytest.approx(plain.logprobs[0])


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_with_the_same_noise_the_text_is_the_same(
    model: GPT, draft_model: GPT, penalty: float
) -> None:
    config = replace(DRAWN, frequency_penalty=penalty)
    drafter = DraftModel(draft_model)
    for seed in range(3):
        config = replace(config, seed=seed)
        plain = generate(model, [5, 6], config).ids[0]
        out = speculate(model, [5, 6], drafter, config, method="same noise")
        assert out.ids == plain
        assert 0 < out.n_accepted <= out.n_guessed


def test_a_perfect_draft_is_always_accepted(model: GPT) -> None:
    for config in (GREEDY, replace(DRAWN, temperature=1.5)):
        for method in ("rejection", "same noise"):
            out = speculate(model, [5], DraftModel(model), config, n_guesses=4, method=method)
            assert out.acceptance_rate == 1
            assert out.n_calls == 4  # of 20 tokens, 5 at a time


def test_the_context_and_the_length_end_a_text_where_generate_does(
    model: GPT, draft_model: GPT
) -> None:
    for length in (1, 2, 100):
        config = replace(GREEDY, max_new_tokens=length)
        plain = generate(model, [7] * 40, config)
        for drafter in (DraftModel(draft_model), LookBack()):
            out = speculate(model, [7] * 40, drafter, config, n_guesses=5)
            assert out.ids == plain.ids[0]
            assert [out.finish_reason] == plain.finish_reasons
    assert speculate(model, [1], LookBack(), replace(GREEDY, max_new_tokens=0)).ids == []


def test_ends_and_stop_strings_work_within_a_round(model: GPT) -> None:
    tokenizer: BPETokenizer = train_bpe(["abc abd abe " * 9], 280, special_tokens=["<|end|>"])
    config = replace(DRAWN, end_ids=None, max_new_tokens=30)
    free = generate(model, "ab", config, tokenizer=tokenizer)
    ending = replace(config, end_ids=[free.ids[0][7]])
    out = speculate(
        model, "ab", DraftModel(model), ending, tokenizer=tokenizer, method="same noise"
    )
    assert out.ids == generate(model, "ab", ending, tokenizer=tokenizer).ids[0]
    assert out.finish_reason == "end"
    printable = [c for c in free.texts[0][3:] if c != "�"]
    stopping = replace(config, stop=printable[0])
    out = speculate(
        model, "ab", DraftModel(model), stopping, tokenizer=tokenizer, method="same noise"
    )
    plain = generate(model, "ab", stopping, tokenizer=tokenizer)
    assert (out.text, out.ids, out.finish_reason) == (plain.texts[0], plain.ids[0], "stop")


def test_broken_logits_end_the_text() -> None:
    model = small(positions="none")
    model.tokens.weight.data[77] = math.nan
    assert speculate(model, [77], LookBack(), GREEDY).finish_reason == "invalid"


def test_looking_back() -> None:
    ids = [1, 2, 3, 9, 1, 2, 3, 8, 5, 2, 3]
    assert LookBack().found(ids, 2) == [8, 5]  # the latest occurrence of 2, 3
    assert LookBack().found([*ids, 9, 1, 2, 3], 3) == [8, 5, 2]  # of 9, 1, 2, 3
    assert LookBack().found([1, 2, 3], 4) == []
    assert LookBack(shortest=2).found([4, 1, 5, 1], 4) == []
    assert LookBack().found([], 4) == []


def test_what_cannot_be_done_is_said(model: GPT) -> None:
    with pytest.raises(ValueError, match="overflow"):
        speculate(model, [1], LookBack(), replace(GREEDY, overflow="slide"))
    with pytest.raises(ValueError, match="n_guesses"):
        speculate(model, [1], LookBack(), GREEDY, n_guesses=0)
    with pytest.raises(ValueError, match="ids"):
        speculate(model, [1], DraftModel(small(vocab_size=50)), GREEDY)


def test_a_rows_text_is_not_shared_with_its_guesses() -> None:
    row = Row([1], 0, TextStream())
    assert replace(row, ids=[2]).ids == [2]
    assert row.ids == []
