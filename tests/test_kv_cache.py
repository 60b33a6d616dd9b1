"""KV caches: reading piece by piece equals reading at once, and a list of tokens for each row."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gptbook.attention import AttentionMask, CausalSelfAttention
from gptbook.config import AttentionConfig, RopeConfig
from gptbook.kv_cache import CacheFullError, KVCache, RollingKVCache
from gptbook.positions import RotaryPositions
from tests.attention_cases import assert_close, generator

D_MODEL, N_LAYER, D_HEAD = 24, 2, 6
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"n_kv_head": 2},
    "rope": {"rope": RopeConfig()},
    "rope, grouped": {"rope": RopeConfig(), "n_kv_head": 1},
    "window": {"rope": RopeConfig(), "n_kv_head": 2, "sliding_window": 4},
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)
EVERY_BACKEND = pytest.mark.parametrize("backend", ["auto", "reference", "sdpa", "tiled"])


class Stack(nn.Module):
    """Attention layers that add to what they read, as in a model: a cache must tell them apart."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(CausalSelfAttention(config, i) for i in range(N_LAYER))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.3)

    def forward(self, x: Tensor, **arguments: Any) -> Tensor:
        for layer in self.layers:
            x = x + layer(x, **arguments)
        return x


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    """A cache passes no gradients."""
    with torch.no_grad():
        yield


def make_stack(rng: random.Random, **settings: Any) -> Stack:
    torch.manual_seed(rng.getrandbits(32))
    return Stack(AttentionConfig(**{"d_model": D_MODEL, "n_head": 4} | settings)).eval()


def make_cache(
    stack: Stack, batch: int, capacity: int, kind: type[KVCache] = KVCache, **options: Any
) -> KVCache:
    return kind(N_LAYER, batch, stack.config.n_kv_head, D_HEAD, capacity, **options)


def vectors(rng: random.Random, batch: int, length: int) -> Tensor:
    return torch.randn(batch, length, D_MODEL, generator=generator(rng))


def random_sizes(rng: random.Random, total: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(rng.randint(1, min(5, total - sum(sizes))))
    return sizes


def read(stack: Stack, x: Tensor, cache: KVCache, sizes: Sequence[int]) -> Tensor:
    """Read x in pieces of these sizes, and return the outputs of all."""
    found = []
    for piece in x.split(list(sizes), 1):
        found.append(stack(piece, kv_cache=cache))
        cache.advance(piece.shape[1])
    return torch.cat(found, 1)


# --- Piece by piece equals at once ----------------------------------------------------------------


@EVERY_SHAPE
@EVERY_BACKEND
def test_prefill_then_decode_equals_the_full_forward(
    backend: str, shape: str, rng: random.Random
) -> None:
    """Token for token, in a cache that they fill to its last place."""
    stack = make_stack(rng, backend=backend, **SHAPES[shape])
    for batch, length in ((1, 1), (2, 9), (3, rng.randint(2, 14))):
        x = vectors(rng, batch, length)
        prompt = rng.randint(1, length)
        cache = make_cache(stack, batch, length)
        sizes = [prompt, *[1] * (length - prompt)]
        assert_close(read(stack, x, cache, sizes), stack(x))
        assert cache.lengths == (length,) * batch


@EVERY_SHAPE
@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_pieces_of_any_sizes_equal_the_full_forward(
    kind: type[KVCache], shape: str, rng: random.Random
) -> None:
    stack = make_stack(rng, **SHAPES[shape])
    for _ in range(6):
        x = vectors(rng, 2, 17)
        window = stack.config.sliding_window or 17
        cache = make_cache(stack, 2, 20 if kind is KVCache else rng.randint(window, 20), kind)
        assert_close(read(stack, x, cache, random_sizes(rng, 17)), stack(x))


@EVERY_BACKEND
@pytest.mark.parametrize("capacity", [4, 5, 30])
def test_a_rolling_cache_no_shorter_than_the_window_forgets_nothing_that_is_seen(
    backend: str, capacity: int, rng: random.Random
) -> None:
    """Through 40 tokens; pieces may be longer than the cache."""
    stack = make_stack(rng, backend=backend, **SHAPES["window"])
    x = vectors(rng, 2, 40)
    expected = stack(x)
    for sizes in ([1] * 40, [40], [13, *[1] * 27], random_sizes(rng, 40)):
        cache = make_cache(stack, 2, capacity, RollingKVCache)
        assert_close(read(stack, x, cache, sizes), expected)


@EVERY_BACKEND
@pytest.mark.parametrize("capacity", [1, 3, 7])
def test_a_rolling_cache_is_a_window_of_its_capacity(
    backend: str, capacity: int, rng: random.Random
) -> None:
    """Also for a layer with a longer window, and for any pieces."""
    for window in (None, capacity + 5):
        stack = make_stack(
            rng, backend=backend, n_kv_head=2, rope=RopeConfig(), sliding_window=window
        )
        x = vectors(rng, 2, 20)
        narrow = Stack(AttentionConfig(D_MODEL, 4, 2, rope=RopeConfig(), sliding_window=capacity))
        narrow.load_state_dict(stack.state_dict())
        for sizes in ([1] * 20, [20], random_sizes(rng, 20)):
            cache = make_cache(stack, 2, capacity, RollingKVCache)
            assert_close(read(stack, x, cache, sizes), narrow(x))


def test_a_rolling_cache_reads_on_without_end(rng: random.Random) -> None:
    """The first tokens are long gone: a row that never had them gives the same."""
    stack = make_stack(rng, **SHAPES["window"])
    x = vectors(rng, 1, 300)
    cache = make_cache(stack, 1, 4, RollingKVCache)
    found = read(stack, x, cache, [1] * 300)
    assert cache.lengths == (300,)
    seen = 1 + N_LAYER * 3  # each layer looks three tokens further back
    assert_close(found[:, -1:], stack(x[:, -seen:])[:, -1:], roundings=64 + 150)


# --- Rows of different lengths --------------------------------------------------------------------


def alone(stack: Stack, rows: list[Tensor]) -> list[Tensor]:
    return [stack(row[None])[0] for row in rows]


@EVERY_SHAPE
@EVERY_BACKEND
@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_rows_of_different_lengths_equal_each_row_alone(
    kind: type[KVCache], backend: str, shape: str, rng: random.Random
) -> None:
    """Filled up on the right, read in one call, then token by token; the filler is large."""
    stack = make_stack(rng, backend=backend, **SHAPES[shape])
    lengths = [1, 6, rng.randint(2, 9)]
    n_more = 5
    rows = [vectors(rng, 1, n + n_more)[0] for n in lengths]
    prompt = 100 * vectors(rng, 3, max(lengths))
    for b, n in enumerate(lengths):
        prompt[b, :n] = rows[b][:n]
    expected = alone(stack, rows)
    cache = make_cache(stack, 3, max(lengths) + n_more, kind)
    y = stack(prompt, kv_cache=cache)
    for b, n in enumerate(lengths):
        assert_close(y[b, :n], expected[b][:n])
    cache.advance(lengths)
    assert cache.lengths == tuple(lengths)
    for step in range(n_more):
        x = torch.stack([rows[b][n + step] for b, n in enumerate(lengths)])[:, None]
        y = stack(x, kv_cache=cache)
        cache.advance(1)
        for b, n in enumerate(lengths):
            assert_close(y[b, 0], expected[b][n + step])


@EVERY_SHAPE
@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_rows_may_count_any_part_of_each_piece(
    kind: type[KVCache], shape: str, rng: random.Random
) -> None:
    """As in speculative decoding: each row keeps what was accepted, from none to all of it."""
    stack = make_stack(rng, **SHAPES[shape])
    for _ in range(4):
        rows = [vectors(rng, 1, 40)[0] for _ in range(3)]
        expected = alone(stack, rows)
        cache = make_cache(stack, 3, 40, kind)
        for _ in range(9):
            n_new, lengths = rng.randint(1, 4), cache.lengths
            wanted = [rng.randint(0, n_new) for _ in range(3)]
            piece = 100 * vectors(rng, 3, n_new)
            for b, n in enumerate(wanted):
                piece[b, :n] = rows[b][lengths[b] : lengths[b] + n]
            y = stack(piece, kv_cache=cache)
            for b, n in enumerate(wanted):
                assert_close(y[b, :n], expected[b][lengths[b] : lengths[b] + n])
            cache.advance(wanted)


def test_left_padding_with_a_cache_by_mask_and_rotation(rng: random.Random) -> None:
    """Prompts that end together: whoever calls says whose the keys are."""
    stack = make_stack(rng, **SHAPES["rope, grouped"])
    n_padding, length = [0, 3, 5], 10
    x = vectors(rng, 3, length)
    documents = torch.tensor([[-1] * n + [0] * (length - n) for n in n_padding])
    positions = torch.arange(length) - torch.tensor(n_padding)[:, None]
    rotary = RotaryPositions(D_HEAD, RopeConfig())
    cache = make_cache(stack, 3, length)
    found, begin = [], 0
    for size in (6, 1, 2, 1):
        places = slice(begin, begin := begin + size)
        mask = AttentionMask(
            query_index=cache.query_index(size),
            key_index=cache.key_index(size),
            query_documents=documents[:, places],
            key_documents=documents[:, : places.stop],
        )
        rotation = rotary(positions[:, places])
        found.append(stack(x[:, places], kv_cache=cache, mask=mask, rotation=rotation))
        cache.advance(size)
    y = torch.cat(found, 1)
    for b, n in enumerate(n_padding):
        assert_close(y[b, n:], stack(x[b : b + 1, n:])[0])


@EVERY_SHAPE
@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_given_positions_turn_what_the_cache_keeps(
    kind: type[KVCache], shape: str, rng: random.Random
) -> None:
    stack = make_stack(rng, **SHAPES[shape])
    x, positions = vectors(rng, 2, 9), torch.tensor([[rng.randint(0, 99) for _ in range(9)]] * 2)
    cache = make_cache(stack, 2, 9, kind)
    found = []
    for t in range(9):
        place = slice(t, t + 1)
        found.append(stack(x[:, place], kv_cache=cache, positions=positions[:, place]))
        cache.advance(1)
    assert_close(torch.cat(found, 1), stack(x, positions=positions))


# --- The caller advances --------------------------------------------------------------------------


def stored(cache: KVCache, n_kv_head: int) -> list[Tensor]:
    """Return what the cache says it holds, of all layers and rows, without using its insides."""
    nothing = torch.zeros(len(cache.lengths), n_kv_head, 0, D_HEAD)
    index = cache.key_index(0)
    found = []
    for layer in range(N_LAYER):
        for x in cache.write(layer, nothing, nothing):
            shown = torch.arange(x.shape[2])[None] if index is None else index
            for b in range(len(cache.lengths)):
                places = shown[b if len(shown) > 1 else 0]
                found.append(x[b][:, places >= 0].clone())
    return found


@EVERY_SHAPE
@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_until_advance_the_same_call_gives_the_same_bits(
    kind: type[KVCache], shape: str, rng: random.Random
) -> None:
    """Other calls in between, longer and shorter ones, leave no trace."""
    stack = make_stack(rng, **SHAPES[shape])
    for lengths in ([5, 5], [2, 5]):
        cache = make_cache(stack, 2, 12, kind)
        stack(vectors(rng, 2, 5), kv_cache=cache)
        cache.advance(lengths)
        before = stored(cache, stack.config.n_kv_head)
        x = vectors(rng, 2, 3)
        first = stack(x, kv_cache=cache)
        for n_other in (3, 7, 1):
            stack(vectors(rng, 2, n_other), kv_cache=cache)
            assert cache.lengths == tuple(lengths)
        after = stored(cache, stack.config.n_kv_head)
        assert all(map(torch.equal, before, after))
        assert torch.equal(stack(x, kv_cache=cache), first)
        cache.advance(3)
        n_bytes = cache.n_bytes
        y = vectors(rng, 2, 1)
        assert torch.equal(stack(y, kv_cache=cache), stack(y, kv_cache=cache))
        assert cache.n_bytes == n_bytes


@EVERY_SHAPE
def test_truncate_then_other_tokens_equals_a_fresh_run(shape: str, rng: random.Random) -> None:
    stack = make_stack(rng, **SHAPES[shape])
    for kept in (7, 4, 0, [2, 6, 0], [7, 0, 3]):
        each = [kept] * 3 if isinstance(kept, int) else kept
        x, y = vectors(rng, 3, 7), vectors(rng, 3, 5)
        cache = make_cache(stack, 3, 12)
        read(stack, x, cache, [7])
        cache.truncate(kept)
        assert cache.lengths == tuple(each)
        found = read(stack, y, cache, [2, 1, 2])
        expected = alone(stack, [torch.cat((x[b, :n], y[b])) for b, n in enumerate(each)])
        for b, n in enumerate(each):
            assert_close(found[b], expected[b][n:])


@pytest.mark.parametrize("lengths", [[4, 4], [1, 4]])
def test_a_full_cache_raises_before_anything_changes(
    lengths: list[int], rng: random.Random
) -> None:
    stack = make_stack(rng, **SHAPES["rope"])
    cache = make_cache(stack, 2, 6)
    stack(vectors(rng, 2, 4), kv_cache=cache)
    cache.advance(lengths)
    before, x = stored(cache, 4), vectors(rng, 2, 2)
    expected = stack(x, kv_cache=cache)
    with pytest.raises(CacheFullError) as raised:
        stack(vectors(rng, 2, 3), kv_cache=cache)
    message = str(raised.value)
    assert isinstance(raised.value, ValueError)
    for word in ("capacity", "6", "4", "3", "RollingKVCache"):
        assert word in message, message
    assert cache.lengths == tuple(lengths)
    assert all(map(torch.equal, before, stored(cache, 4)))
    cache.write(0, *torch.zeros(2, 2, 4, 2, D_HEAD))
    assert torch.equal(stack(x, kv_cache=cache), expected)
    cache.advance(2)


def test_a_full_cache_keeps_what_was_written_before(rng: random.Random) -> None:
    """Tokens written and not counted yet are still there after a write that does not fit."""
    stack = make_stack(rng)
    x = vectors(rng, 1, 5)
    cache = make_cache(stack, 1, 5)
    read(stack, x[:, :3], cache, [3])
    stack(x[:, 3:4], kv_cache=cache)
    with pytest.raises(CacheFullError):
        stack(vectors(rng, 1, 3), kv_cache=cache)
    cache.advance(1)
    assert_close(stack(x[:, 4:], kv_cache=cache), stack(x)[:, 4:])


@EVERY_BACKEND
def test_a_cache_in_bfloat16(backend: str, rng: random.Random) -> None:
    """Reading piece by piece rounds in the same places; sums may have another order."""
    stack = make_stack(rng, backend=backend, **SHAPES["window"]).bfloat16()
    x = vectors(rng, 2, 9).bfloat16()
    for kind in (KVCache, RollingKVCache):
        cache = make_cache(stack, 2, 9, kind, dtype=torch.bfloat16)
        # Six roundings to bfloat16 a layer.
        assert_close(read(stack, x, cache, [3, 1, 4, 1]), stack(x), roundings=6 * N_LAYER)


# --- A list of tokens for each row ----------------------------------------------------------------

Row = list[Tensor]
"""The key of each token, (K, D); its value is the key's negative plus the layer's number."""


def shown(
    index: Tensor | None, keys: Tensor, b: int, n_queries: int, length: int
) -> dict[int, Tensor]:
    """Return the keys of row b that the newest query may see, by their places in the row.

    Where the cache gives no index, the last key stands where the last query stands.
    """
    n_keys = keys.shape[2]
    newest = length + n_queries - 1
    if index is None:
        places = list(range(newest - n_keys + 1, newest + 1))
    else:
        assert index.shape in ((1, n_keys), (keys.shape[0], n_keys))
        places = index[b if len(index) > 1 else 0].tolist()
    visible = [(place, s) for s, place in enumerate(places) if 0 <= place <= newest]
    assert len(dict(visible)) == len(visible), f"a place occurs twice: {places}"
    return {place: keys[b, :, s] for place, s in visible}


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 3),
    capacity=st.integers(1, 9),
    rolling=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "write and advance", "write and advance", "truncate"]),
            st.integers(0, 30),
            st.lists(st.integers(0, 30), min_size=3, max_size=3),
        ),
        max_size=12,
    ),
)
def test_any_calls_leave_what_a_list_for_each_row_holds(
    batch: int,
    capacity: int,
    rolling: bool,
    seed: int,
    steps: list[tuple[str, int, list[int]]],
) -> None:
    """Numbers are taken modulo what is allowed; a write that does not fit changes nothing."""
    source = torch.Generator().manual_seed(seed)
    cache = (RollingKVCache if rolling else KVCache)(N_LAYER, batch, 2, D_HEAD, capacity)
    rows: list[Row] = [[] for _ in range(batch)]
    for what, number, numbers in [*steps, ("write", 0, [0])]:
        if what == "truncate":
            lengths = [number % (len(row) + 1) for row, number in zip(rows, numbers, strict=False)]
            if rolling:
                with pytest.raises(ValueError, match="truncate"):
                    cache.truncate(lengths)
                continue
            cache.truncate(lengths)
            rows = [row[:n] for row, n in zip(rows, lengths, strict=True)]
            continue
        n_new = number % 5 + 1
        new = torch.randn(batch, 2, n_new, D_HEAD, generator=source)
        if not rolling and max(map(len, rows)) + n_new > capacity:
            for layer in range(N_LAYER):
                with pytest.raises(CacheFullError):
                    cache.write(layer, new, new)
            continue
        index, places = cache.key_index(n_new), cache.positions(n_new)
        for layer in range(N_LAYER):
            written = cache.write(layer, new + layer, layer - new)
            for b, row in enumerate(rows):
                expected = [*row, *new[b].unbind(1)]
                for tensor, sign in zip(written, (1, -1), strict=True):
                    found = shown(index, tensor, b, n_new, len(row))
                    # What the first of the queries sees must be there: itself, the last capacity.
                    assert set(found) <= set(range(len(expected)))
                    first = max(0, len(row) + 1 - capacity) if rolling else 0
                    assert set(found) >= set(range(first, len(expected)))
                    for place, key in found.items():
                        assert torch.equal(key, layer + sign * expected[place])
        for b, row in enumerate(rows):
            of_row = places[b if len(places) > 1 else 0].tolist()
            assert of_row == list(range(len(row), len(row) + n_new))
            queries = cache.query_index(n_new)
            assert queries is None or queries[b if len(queries) > 1 else 0].tolist() == of_row
        if what == "write and advance":
            counts = [n % (n_new + 1) for n in numbers[:batch]]
            cache.advance(counts)
            for b, n in enumerate(counts):
                rows[b] += new[b].unbind(1)[:n]
        assert cache.lengths == tuple(map(len, rows))


# --- Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_bytes(kind: type[KVCache], dtype: torch.dtype) -> None:
    """Keys and values of all layers, rows, heads and places; writing needs no more for good."""
    cache = kind(3, 2, 4, 8, 10, dtype=dtype)
    expected = 2 * 3 * 2 * 4 * 10 * 8 * dtype.itemsize
    assert cache.n_bytes == expected
    for layer in range(3):
        cache.write(layer, *torch.zeros(2, 2, 4, 5, 8, dtype=dtype))
    cache.advance(5)
    assert cache.n_bytes == expected


def test_lengths_begin_at_zero_and_are_ints() -> None:
    cache = KVCache(1, 3, 1, 4, 10)
    assert cache.lengths == (0, 0, 0)
    cache.write(0, *torch.zeros(2, 3, 1, 2, 4))
    cache.advance([2, 0, 1])
    assert cache.lengths == (2, 0, 1)
    assert all(type(n) is int for n in cache.lengths)
    assert cache.positions(2).tolist() == [[2, 3], [0, 1], [1, 2]]


# --- What is refused ------------------------------------------------------------------------------


def written(n_new: int = 2, kind: type[KVCache] = KVCache) -> KVCache:
    """Return a cache of two layers and rows, with one token counted and n_new written."""
    cache = kind(2, 2, 3, 4, 8)
    for n in (1, n_new):
        for layer in range(2):
            cache.write(layer, torch.ones(2, 3, n, 4), torch.ones(2, 3, n, 4))
        if cache.lengths == (0, 0):
            cache.advance(1)
    return cache


def write(*shape: int, layer: int = 0, **options: Any) -> Callable[[KVCache], object]:
    return lambda cache: cache.write(layer, *torch.zeros((2, *shape), **options))


@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (write(3, 3, 1, 4), r"\(2, 3, T, 4\).*\(3, 3, 1, 4\)"),
        (write(1, 3, 1, 4), r"\(1, 3, 1, 4\)"),
        (write(2, 2, 1, 4), r"\(2, 2, 1, 4\)"),
        (write(2, 1, 1, 4), r"\(2, 1, 1, 4\)"),
        (write(2, 3, 1, 5), r"\(2, 3, 1, 5\)"),
        (write(2, 3, 1, 1), r"\(2, 3, 1, 1\)"),
        (write(2, 3, 1, 4, dtype=torch.bfloat16), r"bfloat16.*float32"),
        (write(2, 3, 1, 4, dtype=torch.float64), r"float64.*float32"),
        (write(2, 3, 1, 4, device="meta"), r"meta.*cpu"),
        (write(2, 3, 1, 4, layer=2), r"layer.*2"),
        (write(2, 3, 1, 4, layer=-1), r"layer.*-1"),
        (write(2, 3, 1, 4, requires_grad=True), "no_grad"),
        (lambda cache: cache.advance(3), r"n_new.*3.*2"),
        (lambda cache: cache.advance(-1), r"n_new.*-1"),
        (lambda cache: cache.advance([1]), r"n_new.*1.*2 rows"),
        (lambda cache: cache.advance([1, 1, 1]), r"n_new.*3.*2 rows"),
        (lambda cache: cache.advance([0, 3]), r"n_new.*3.*2"),
        (lambda cache: cache.advance([0, -1]), r"n_new.*-1"),
    ],
)
def test_clear_errors_that_change_nothing(
    act: Callable[[KVCache], object], message: str, kind: type[KVCache]
) -> None:
    cache = written(kind=kind)
    if message == "no_grad":
        with torch.enable_grad(), pytest.raises(ValueError, match=message):
            act(cache)
    else:
        with pytest.raises(ValueError, match=message):
            act(cache)
    assert cache.lengths == (1, 1)
    cache.advance(2)
    keys, values = cache.write(1, *torch.zeros(2, 2, 3, 0, 4))
    assert (keys[:, :, -3:] == 1).all()
    assert (values[:, :, -3:] == 1).all()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (2, "lengths.*2.*1"),
        (-1, "lengths.*-1"),
        ([1], "lengths.*1.*2 rows"),
        ([0, 2], "lengths.*2.*1"),
        ([-1, 0], "lengths.*-1"),
    ],
)
def test_truncate_only_forgets(lengths: int | list[int], message: str) -> None:
    cache = written()
    with pytest.raises(ValueError, match=message):
        cache.truncate(lengths)
    assert cache.lengths == (1, 1)


@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_only_what_was_written_can_be_counted(kind: type[KVCache]) -> None:
    with pytest.raises(ValueError, match="n_new"):
        kind(1, 1, 1, 4, 8).advance(1)
    cache = written(kind=kind)
    cache.advance(2)
    with pytest.raises(ValueError, match="n_new"):
        cache.advance(1)
    cache.advance(0)
    assert cache.lengths == (3, 3)


@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
def test_a_second_write_takes_the_place_of_the_first(kind: type[KVCache]) -> None:
    """Four tokens, then two instead of them: there are no four to count."""
    cache = written(4, kind)
    for layer in range(2):
        cache.write(layer, torch.zeros(2, 3, 2, 4), torch.zeros(2, 3, 2, 4))
    with pytest.raises(ValueError, match="n_new"):
        cache.advance(4)
    assert cache.lengths == (1, 1)
    cache.advance(2)
    assert cache.lengths == (3, 3)


def test_forgotten_tokens_cannot_be_counted_again() -> None:
    cache = written()
    cache.truncate(0)
    with pytest.raises(ValueError, match="n_new"):
        cache.advance(2)


def test_what_is_written_to_the_room_is_what_write_writes(rng: random.Random) -> None:
    seed = generator(rng)
    written_, roomy = KVCache(2, 2, 3, 4, 9), KVCache(2, 2, 3, 4, 9)
    for n_new in (3, 1, 0, 2, 3):
        new = torch.randn(2, 2, 2, 3, n_new, 4, generator=seed)  # keys and values, layers
        keys, values = roomy.room(n_new)
        assert keys.shape == values.shape == (2, 2, 3, written_.lengths[0] + n_new, 4)
        keys[..., keys.shape[3] - n_new :, :] = new[0]
        values[..., keys.shape[3] - n_new :, :] = new[1]
        for layer in range(2):
            kept = written_.write(layer, new[0, layer], new[1, layer])
            assert torch.equal(keys[layer], kept[0])
            assert torch.equal(values[layer], kept[1])
        written_.advance(n_new)
        roomy.advance(n_new)
    with pytest.raises(CacheFullError, match="9 tokens a row"):
        roomy.room(1)
    roomy.truncate([4, 5])
    with pytest.raises(ValueError, match="use write"):
        roomy.room(1)
    with pytest.raises(ValueError, match="use write"):
        RollingKVCache(2, 2, 3, 4, 9).room(1)


def test_a_rolling_cache_cannot_be_truncated() -> None:
    cache = written(kind=RollingKVCache)
    with pytest.raises(ValueError, match=r"truncate.*KVCache"):
        cache.truncate(0)
    assert cache.lengths == (1, 1)


@pytest.mark.parametrize("kind", [KVCache, RollingKVCache])
@pytest.mark.parametrize("place", range(5))
def test_sizes_below_one_are_refused(kind: type[KVCache], place: int) -> None:
    names = ("n_layer", "batch_size", "n_kv_head", "d_head", "capacity")
    sizes = [2, 2, 2, 2, 2]
    for size in (0, -3):
        sizes[place] = size
        with pytest.raises(ValueError, match=f"{names[place]}.*{size}"):
            kind(*sizes)


def test_a_cache_for_another_model_is_refused(rng: random.Random) -> None:
    stack = make_stack(rng, n_kv_head=2)
    x = vectors(rng, 2, 3)
    for cache in (
        KVCache(N_LAYER, 3, 2, D_HEAD, 8),
        KVCache(N_LAYER, 2, 4, D_HEAD, 8),
        KVCache(N_LAYER, 2, 2, 8, 8),
        KVCache(1, 2, 2, D_HEAD, 8),
        KVCache(N_LAYER, 2, 2, D_HEAD, 8, dtype=torch.bfloat16),
    ):
        with pytest.raises(ValueError, match=r"k must have|k is|layer"):
            stack(x, kv_cache=cache)
        assert cache.lengths == (0,) * len(cache.lengths)
