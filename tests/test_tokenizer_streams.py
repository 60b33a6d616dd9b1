"""Streams: the same ids and text as in one go, as soon as possible, in bounded memory."""

import itertools
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptbook.tokenizer import BPETokenizer, train_bpe
from tests.growth import BOUND, growth
from tests.tokenizer_texts import END_OF_TEXT, MULTILINGUAL

# What a cut may go through: words, contractions, whitespace runs, special tokens, characters.
FRAGMENTS = (
    *(
        "word",
        "a",
        "I'll",
        "don't've",
        "'",
        "12345",
        "...!",
        "日本語",
        "e\u0301",
        "👩‍👩‍👧",
        "\u0301",
    ),
    *(" ", "   ", "\n\n", " \r\n ", "\t", "\u00a0", "\u2003 "),
    *(END_OF_TEXT, "<|user|>", "<|", "<|endof", "text|>", "<", "|"),
    *("\ud83d\ude00", "\ud83d", "\ude00", "\ud800\ud800\udc00"),
)


@st.composite
def chunked_text(draw: st.DrawFn) -> list[str]:
    """A text cut anywhere, with empty chunks among the rest."""
    fragments = st.sampled_from(FRAGMENTS) | st.text(max_size=4)
    text = "".join(draw(st.lists(fragments, max_size=20)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[i:j] for i, j in itertools.pairwise([0, *cuts, len(text)])]


class Source(Iterator[Any]):
    """Items one by one; ``taken`` counts those that were asked for."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = iter(items)
        self.taken = 0

    def __next__(self) -> Any:
        item = next(self.items)
        self.taken += 1
        return item


# --- encode_stream -------------------------------------------------------------------------------


@settings(max_examples=500)
@given(chunks=chunked_text(), allowed=st.sampled_from(["none", "all", {END_OF_TEXT}]))
def test_any_cut_gives_the_same_ids(
    trained_tokenizer: BPETokenizer, chunks: list[str], allowed: Any
) -> None:
    expected = trained_tokenizer.encode("".join(chunks), allowed_special=allowed)
    assert list(trained_tokenizer.encode_stream(chunks, allowed_special=allowed)) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_of_one_size(trained_tokenizer: BPETokenizer, size: int) -> None:
    text = f"{MULTILINGUAL}{END_OF_TEXT}\n\n  {MULTILINGUAL}<|user|>   "
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    for allowed in ("none", "all"):
        expected = trained_tokenizer.encode(text, allowed_special=allowed)
        assert list(trained_tokenizer.encode_stream(chunks, allowed_special=allowed)) == expected


@settings(max_examples=200)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=8).map(sorted),
    text=st.lists(st.sampled_from(["<a>", "<a><b>", "<a", "><b", "<", "a", " "]), max_size=10),
)
def test_cuts_through_overlapping_special_tokens(cuts: list[int], text: list[str]) -> None:
    tokenizer = train_bpe(
        ["<a> b"], vocab_size=270, special_tokens=["<a>", "<a><b>", "<a><b><c>", "b><"]
    )
    whole = "".join(text)
    chunks = [whole[i:j] for i, j in itertools.pairwise([0, *cuts, max([len(whole), *cuts])])]
    expected = tokenizer.encode(whole, allowed_special="all")
    assert list(tokenizer.encode_stream(chunks, allowed_special="all")) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        r"\p{N}{1,3}|\p{L}+|[^\p{L}\p{N}]+",  # groups of digits are counted from the left
        r"a+(?=b)|(?s:.)",  # what follows decides about what came long before
        r"(?<=a)b+|(?s:.)",  # what came before decides
        r"(?s:.+)",  # one piece, whatever comes
    ],
)
@settings(max_examples=50)
@given(data=st.data())
def test_any_cut_with_other_patterns(pattern: str, data: st.DataObject) -> None:
    text = data.draw(st.text("aabb12 é\n", max_size=40))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[i:j] for i, j in itertools.pairwise([0, *cuts, len(text)])]
    tokenizer = train_bpe(["aab aaabbb 1212 é é\n"] * 2, vocab_size=270, pattern=pattern)
    assert list(tokenizer.encode_stream(chunks)) == tokenizer.encode(text)


@pytest.mark.parametrize("chunks", [[], [""], ["", "", ""]])
def test_empty_streams(trained_tokenizer: BPETokenizer, chunks: list[str]) -> None:
    assert list(trained_tokenizer.encode_stream(chunks, allowed_special="all")) == []


@pytest.mark.parametrize("allowed", ["none", "all"])
def test_encoding_keeps_pace_with_its_input(trained_tokenizer: BPETokenizer, allowed: Any) -> None:
    """The input is never read more than 64 Ki characters ahead of the ids, while it goes on."""
    chunk = "Several ordinary words, and a line.\n" * 20
    ids_a_chunk = len(trained_tokenizer.encode(chunk))
    ahead = (1 << 16) // len(chunk)
    source = Source(itertools.repeat(chunk, 5 * ahead))
    stream = trained_tokenizer.encode_stream(source, allowed_special=allowed)
    for count, _ in enumerate(itertools.islice(stream, 3 * ahead * ids_a_chunk)):
        assert source.taken <= count // ids_a_chunk + ahead


def test_encoding_reads_nothing_before_it_is_asked(trained_tokenizer: BPETokenizer) -> None:
    source = Source(["text"])
    trained_tokenizer.encode_stream(source)
    assert source.taken == 0


@pytest.mark.parametrize("allowed", ["none", "all"])
def test_memory_does_not_grow_with_the_stream(
    trained_tokenizer: BPETokenizer, allowed: Any
) -> None:
    """Four times the input takes the same memory: a fraction of the 2.5 MB that passes through."""

    def peak(chunk_count: int) -> int:
        chunks = (f"a line of words, {i % 100}\n" * 25 for i in range(chunk_count))
        tracemalloc.start()
        for _ in trained_tokenizer.encode_stream(chunks, allowed_special=allowed):
            pass
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes

    peak(200)  # fills caches of words
    assert peak(1000) < peak(250) + 100_000


@pytest.mark.parametrize("unit", ["a", " ", "=", "ab"])
def test_a_long_piece_in_small_chunks_is_not_scanned_again_and_again(
    trained_tokenizer: BPETokenizer, rng: random.Random, unit: str
) -> None:
    """One piece of 25,000 characters beside one of four times the length, 8 at a time."""

    def chunks_of_a_new_piece(size: int) -> list[str]:
        text = "".join(rng.choices(unit, k=size + rng.randrange(100)))
        return [text[i : i + 8] for i in range(0, len(text), 8)]

    def encode(chunks: list[str]) -> list[int]:
        return list(trained_tokenizer.encode_stream(chunks))

    assert growth(encode, chunks_of_a_new_piece) < BOUND


@pytest.mark.parametrize("chunks", [[b"bytes"], ["text", None], [3], 3, None])
def test_chunks_of_a_wrong_type(trained_tokenizer: BPETokenizer, chunks: Any) -> None:
    with pytest.raises(TypeError):
        list(trained_tokenizer.encode_stream(chunks))


@pytest.mark.parametrize("allowed", [{"<|nope|>"}, "some"])
def test_a_bad_set_is_refused_when_called(trained_tokenizer: BPETokenizer, allowed: Any) -> None:
    """Not at the first id, which may be asked for somewhere else."""
    with pytest.raises(ValueError, match=r"nope|allowed_special"):
        trained_tokenizer.encode_stream(["text"], allowed_special=allowed)


def test_encoding_passes_on_the_errors_of_its_input(trained_tokenizer: BPETokenizer) -> None:
    def chunks() -> Iterator[str]:
        yield "some words and "
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(trained_tokenizer.encode_stream(chunks()))


# --- decode_stream -------------------------------------------------------------------------------

AWKWARD_BYTES = [
    *(text.encode() for text in "aé日👍"),
    *(b"\xe6\x97", b"\xf0\x9f\x91", b"\xf0\x9f", b"\xc3"),  # characters cut off
    *(b"\x80", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"),  # no characters
]


@settings(max_examples=300)
@given(parts=st.lists(st.sampled_from(AWKWARD_BYTES) | st.binary(max_size=4), max_size=12))
def test_decoding_any_bytes(trained_tokenizer: BPETokenizer, parts: list[bytes]) -> None:
    ids = list(b"".join(parts))  # the ids of the bytes are their values
    texts = list(trained_tokenizer.decode_stream(ids))
    assert (
        "".join(texts)
        == trained_tokenizer.decode(ids)
        == b"".join(parts).decode("utf-8", "replace")
    )


@settings(max_examples=200)
@given(data=st.data())
def test_decoding_any_ids(trained_tokenizer: BPETokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.sampled_from(sorted(trained_tokenizer.vocab)), max_size=40))
    assert "".join(trained_tokenizer.decode_stream(ids)) == trained_tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["", "a", "naïve", "日本", "👍🏽👩‍👩‍👧", MULTILINGUAL])
def test_decoding_yields_each_character_once_it_is_whole(
    trained_tokenizer: BPETokenizer, text: str
) -> None:
    """After every byte, the text so far is all that is complete: no half, and none held back."""
    data = text.encode()
    source = Source(data)
    so_far = ""
    for part in trained_tokenizer.decode_stream(source):
        assert part != ""
        so_far += part
        assert so_far == data[: source.taken].decode()
    assert so_far == text


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_decoding_replaces_a_character_cut_off_at_the_end(
    trained_tokenizer: BPETokenizer, cut: int
) -> None:
    ids = [*b"ok ", *"👍".encode()[:cut]]
    assert list(trained_tokenizer.decode_stream(ids)) == ["o", "k", " ", "\ufffd"]


def test_decoding_keeps_pace_with_its_input(trained_tokenizer: BPETokenizer) -> None:
    """The first text comes while most of the ids are still to be read."""
    source = Source(trained_tokenizer.encode(MULTILINGUAL) * 100)
    assert MULTILINGUAL.startswith(next(trained_tokenizer.decode_stream(source)))
    assert source.taken == 1


def test_decoding_special_tokens(trained_tokenizer: BPETokenizer) -> None:
    ids = trained_tokenizer.encode(f"a{END_OF_TEXT}é", allowed_special="all")
    assert "".join(trained_tokenizer.decode_stream(ids)) == f"a{END_OF_TEXT}é"
    interrupted = [0xC3, trained_tokenizer.special_tokens[END_OF_TEXT]]
    assert "".join(trained_tokenizer.decode_stream(interrupted)) == f"\ufffd{END_OF_TEXT}"


def test_encoding_and_decoding_in_a_pipe(trained_tokenizer: BPETokenizer) -> None:
    ids = trained_tokenizer.encode_stream(MULTILINGUAL)  # a string is its characters, one by one
    assert "".join(trained_tokenizer.decode_stream(ids)) == MULTILINGUAL


@pytest.mark.parametrize("ids", [[65, 2048], [-1], ["65"], [None]])
def test_decoding_refuses_bad_ids(trained_tokenizer: BPETokenizer, ids: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        list(trained_tokenizer.decode_stream(ids))
