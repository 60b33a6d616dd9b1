"""The loader: equal to its slow twin, no target leaks or repeats, and it resumes exactly."""

import json
import random
from collections import Counter
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptbook.data import Batch, Loader, TokenShards, document_layout, epoch_order, windows_of
from gptbook.tokenizer import BPETokenizer
from tests.token_texts import (
    Row,
    make_documents,
    make_tokenizer,
    shards_of,
    slow_epoch,
    slow_order,
    slow_row,
    slow_stream,
)


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return make_tokenizer()


@pytest.fixture(scope="module")
def documents() -> list[str]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"documents: random.Random({seed})")
    return make_documents(random.Random(seed), 70)


@pytest.fixture(scope="module")
def shards(
    documents: list[str], tokenizer: BPETokenizer, tmp_path_factory: pytest.TempPathFactory
) -> TokenShards:
    return shards_of(documents, tokenizer, tmp_path_factory.mktemp("shards"), shard_tokens=500)


def rows_of(batch: Batch) -> list[Row]:
    names = ("inputs", "targets", "positions", "document_ids")
    columns = {name: getattr(batch, name).tolist() for name in names}
    return [{name: columns[name][row] for name in names} for row in range(len(batch.inputs))]


def n_windows(loader: Loader) -> int:
    return sum((len(s.tokens) - 1) // loader.context_length for s in loader.shards.shards)


# --- against the slow twin ---


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 5),
    context_length=st.integers(1, 60),
    seed=st.integers(-(2**70), 2**70),
    world_size=st.integers(1, 3),
    shuffle=st.booleans(),
)
def test_loader_equals_the_slow_twin(
    shards: TokenShards,
    documents: list[str],
    tokenizer: BPETokenizer,
    batch_size: int,
    context_length: int,
    seed: int,
    world_size: int,
    shuffle: bool,
) -> None:
    streams = slow_stream(documents, tokenizer, 500)
    for rank in range(world_size):
        loader = Loader(
            shards, batch_size, context_length, seed, rank, world_size, shuffle=shuffle, epochs=2
        )
        found = [rows_of(batch) for batch in loader]
        n = n_windows(loader)
        expected = []
        for epoch in range(2):
            order = slow_order(n, seed, epoch) if shuffle else list(range(n))
            expected += slow_epoch(
                streams,
                batch_size,
                context_length,
                shards.end_of_text,
                order,
                rank,
                world_size,
            )
        assert found == expected


@given(st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=6))
def test_layout_equals_the_slow_twin(rows: list[list[int]]) -> None:
    """Id 0 ends texts: also at the row's beginning and end, and several in a row."""
    positions, document_ids = document_layout(np.array(rows), end_of_text=0)
    expected = [slow_row([*row, 1], 0, 5, end_of_text=0) for row in rows]
    assert positions.tolist() == [row["positions"] for row in expected]
    assert document_ids.tolist() == [row["document_ids"] for row in expected]


def test_layout_by_hand() -> None:
    rows = np.array([[7, 8, 0, 9, 9, 0], [0, 0, 5, 6, 7, 8]])
    positions, document_ids = document_layout(rows, end_of_text=0)
    assert positions.tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4]]
    assert document_ids.tolist() == [[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]]


def test_windows_cover_a_shard_without_gap_or_overlap() -> None:
    for n, length in product(range(14), range(1, 6)):
        windows = windows_of(np.arange(n, dtype=np.uint16), length)
        starts = range(0, n - length, length)
        assert windows.tolist() == [list(range(s, s + length + 1)) for s in starts]


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_order_equals_the_slow_twin(n: int) -> None:
    assert epoch_order(n, 3, 7).tolist() == slow_order(n, 3, 7)


def test_order_does_not_change_between_versions() -> None:
    assert epoch_order(8, seed=0, epoch=0).tolist() == [2, 1, 6, 7, 5, 3, 4, 0]
    assert epoch_order(8, seed=1234, epoch=5).tolist() == [1, 7, 6, 3, 5, 4, 2, 0]


def test_order_is_fair(rng: random.Random) -> None:
    """Each number is first in about one order of n.

    Chi-squared of 9 degrees is above 60 with a chance of 1.3e-9, and there are three places.
    """
    n, draws = 10, 5000
    seed = rng.randrange(2**60)
    for place in (0, 4, 9):
        counts = Counter(int(epoch_order(n, seed, epoch)[place]) for epoch in range(draws))
        chi_squared = sum((counts[k] - draws / n) ** 2 for k in range(n)) / (draws / n)
        assert chi_squared < 60


# --- what a batch is ---


def test_batch_is_four_int64_tensors(shards: TokenShards) -> None:
    for separate in (True, False):
        batch = next(Loader(shards, 3, 16, separate_documents=separate)).to("cpu")
        for tensor in (batch.inputs, batch.targets, batch.positions, batch.document_ids):
            assert tensor.shape == (3, 16)
            assert tensor.dtype == torch.int64
        assert batch.inputs.is_contiguous()
        assert batch.targets.is_contiguous()


def test_target_is_the_next_token_and_never_in_the_same_place(shards: TokenShards) -> None:
    for batch in Loader(shards, 2, 16, epochs=1):
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_rows_as_one_document(shards: TokenShards) -> None:
    batch = next(Loader(shards, 2, 5, separate_documents=False))
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert batch.document_ids.tolist() == [[0] * 5] * 2


def test_every_tensor_of_a_batch_can_be_written_to(shards: TokenShards) -> None:
    for separate in (True, False):
        batch = next(Loader(shards, 2, 5, separate_documents=separate))
        for tensor in (batch.inputs, batch.targets, batch.positions, batch.document_ids):
            tensor[0, 0] = -1  # no token, position, or document has this number
            assert (tensor == -1).sum() == 1


def test_batches_are_not_changed_by_later_ones(shards: TokenShards) -> None:
    loader = Loader(shards, 2, 16)
    first = next(loader)
    copy = first.inputs.clone()
    for _ in range(3):
        next(loader).inputs.fill_(0)
    assert torch.equal(first.inputs, copy)


# --- an epoch ---


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_without_repeats(
    documents: list[str], tokenizer: BPETokenizer, tmp_path: Path, world_size: int
) -> None:
    """Every token of these texts is another one, so that a repeat would show."""
    shards = shards_of(documents, tokenizer, tmp_path, 500)
    place = 0
    for shard in shards.shards:  # number the places: the ids are the places themselves
        object.__setattr__(shard, "tokens", np.arange(place, place + len(shard.tokens)))
        place += len(shard.tokens)
    seen: Counter[int] = Counter()
    for rank in range(world_size):
        loader = Loader(shards, 2, 8, 5, rank, world_size, epochs=1)
        batches = list(loader)
        assert len(batches) == loader.steps_per_epoch
        for batch in batches:
            seen.update(batch.targets.flatten().tolist())
    assert set(seen.values()) == {1}
    assert len(seen) > n_windows(loader) * 8 - 8 * 2 * world_size


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_together_are_one_rank(shards: TokenShards, world_size: int) -> None:
    whole = Loader(shards, 6, 8, seed=4)
    parts = [Loader(shards, 6 // world_size, 8, 4, rank, world_size) for rank in range(world_size)]
    for _ in range(2 * whole.steps_per_epoch):
        together = torch.cat([next(part).inputs for part in parts])
        assert torch.equal(together, next(whole).inputs)


def test_seed_and_epoch_change_the_order(shards: TokenShards) -> None:
    def inputs(seed: int) -> list[list[int]]:
        loader = Loader(shards, 1, 8, seed)
        return [next(loader).inputs[0].tolist() for _ in range(2 * loader.steps_per_epoch)]

    first, again, other = inputs(1), inputs(1), inputs(2)
    assert first == again
    assert first != other
    half = len(first) // 2
    assert first[:half] != first[half:]
    assert sorted(first[:half]) == sorted(first[half:])


def test_epochs_end_the_iteration(shards: TokenShards) -> None:
    loader = Loader(shards, 4, 16, epochs=3)
    assert len(list(loader)) == 3 * loader.steps_per_epoch
    assert list(loader) == []
    assert list(Loader(shards, 4, 16, epochs=0)) == []


# --- resuming ---


@pytest.mark.parametrize("shuffle", [True, False])
def test_resume_continues_exactly(shards: TokenShards, shuffle: bool, rng: random.Random) -> None:
    def loader_at_start() -> Loader:
        return Loader(shards, 3, 16, seed=9, shuffle=shuffle, epochs=4)

    steps = Loader(shards, 3, 16).steps_per_epoch
    for stop in {0, 1, steps - 1, steps, steps + 1, 3 * steps, rng.randrange(4 * steps)}:
        loader = loader_at_start()
        list(islice(loader, stop))
        state = json.loads(json.dumps(loader.state_dict()))
        rest = [rows_of(batch) for batch in loader]
        resumed = loader_at_start()
        list(islice(resumed, rng.randrange(4 * steps)))  # wherever it stood before
        resumed.load_state_dict(state)
        assert [rows_of(batch) for batch in resumed] == rest
        assert len(rest) == 4 * steps - stop


def test_resume_with_another_number_of_ranks(shards: TokenShards) -> None:
    loader = Loader(shards, 6, 8, seed=2)
    list(islice(loader, 5))
    state = loader.state_dict()
    expected = [next(loader).inputs for _ in range(4)]
    ranks = [Loader(shards, 2, 8, 2, rank, 3) for rank in range(3)]
    for rank in ranks:
        rank.load_state_dict(state)
    for rows in expected:
        assert torch.equal(torch.cat([next(rank).inputs for rank in ranks]), rows)
    with pytest.raises(ValueError, match=r"had 6 rows and one of this loader has 8 \(batch_size 2"):
        Loader(shards, 2, 8, 2, 0, 4).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 3}, "the state has seed 2 and this loader 3"),
        ({"context_length": 9}, "the state has context_length 8 and this loader 9"),
        ({"shuffle": False}, "the state has shuffle True and this loader False"),
        ({"batch_size": 3}, "had 4 rows"),
        ({"separate_documents": False}, "separate_documents True and this loader False"),
    ],
)
def test_resume_with_other_settings(
    shards: TokenShards, options: dict[str, int], message: str
) -> None:
    settings = {"batch_size": 4, "context_length": 8, "seed": 2}
    state = Loader(shards, 4, 8, 2).state_dict()
    other = Loader(shards, **{**settings, **options})  # type: ignore[arg-type]
    list(islice(other, 3))
    before = other.state_dict()
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    assert other.state_dict() == before


def test_resume_with_other_shards(
    shards: TokenShards, documents: list[str], tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    others = shards_of(documents[::-1], tokenizer, tmp_path, 500)
    with pytest.raises(ValueError, match="other token shards than those in"):
        Loader(others, 4, 8).load_state_dict(Loader(shards, 4, 8).state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"step": -1},
        {"step": 10**9},
        {"step": 1.5},
        {"epoch": -1},
        {"epoch": "0"},
        {"step": True},
        {"more": 1},
    ],
)
def test_damaged_state(shards: TokenShards, change: dict[str, object]) -> None:
    loader = Loader(shards, 4, 8)
    with pytest.raises(ValueError, match="state"):
        loader.load_state_dict({**loader.state_dict(), **change})


def test_state_that_lacks_something(shards: TokenShards) -> None:
    loader = Loader(shards, 4, 8)
    state = loader.state_dict()
    for name in state:
        rest = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match="is not what"):
            loader.load_state_dict(rest)


# --- arguments ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"context_length": 0}, "context_length must be at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, r"rank is 2, but must be 0 to 1"),
        ({"rank": -1}, "rank is -1"),
        ({"world_size": 0}, "world_size must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"batch_size": 10**6}, r"tokens make \d+ windows of context_length 8, fewer than"),
        ({"context_length": 10**6}, "make 0 windows"),
    ],
)
def test_arguments_out_of_range(shards: TokenShards, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader(shards, **{"batch_size": 2, "context_length": 8, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["batch_size", "context_length", "seed", "rank", "world_size"])
@pytest.mark.parametrize("value", [1.0, True, "1", None])
def test_arguments_that_are_no_ints(shards: TokenShards, name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an int, got {value!r}"):
        Loader(shards, **{"batch_size": 2, "context_length": 8, name: value})  # type: ignore[arg-type]


def test_state_of_numpy_arguments_is_json(shards: TokenShards) -> None:
    two, eight, seed = np.int64(2), np.int32(8), np.uint64(2**63)
    loader = Loader(shards, two, eight, seed, np.int8(0), two, epochs=two)  # type: ignore[arg-type]
    state = json.loads(json.dumps(loader.state_dict()))
    Loader(shards, 2, 8, 2**63, 1, 2).load_state_dict(state)
