"""Encoding and decoding: properties, special tokens, bad input, and how the time grows."""

import copy
import pickle
import random
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptbook.tokenizer import BPETokenizer, train_bpe
from tests import tokenizer_reference as reference
from tests.growth import BOUND, growth
from tests.tokenizer_texts import END_OF_TEXT, MULTILINGUAL, mixed_text

# --- Properties ----------------------------------------------------------------------------------


@settings(max_examples=300)
@given(text=mixed_text())
def test_round_trip(trained_tokenizer: BPETokenizer, text: str) -> None:
    for allowed in ("none", "all"):
        ids = trained_tokenizer.encode(text, allowed_special=allowed)
        assert trained_tokenizer.decode_bytes(ids) == text.encode()
        assert trained_tokenizer.decode(ids) == text
        assert all(type(i) is int and i in trained_tokenizer.vocab for i in ids)


@settings(max_examples=100)
@given(text=mixed_text(surrogates=True))
def test_plain_text_gives_no_special_id(trained_tokenizer: BPETokenizer, text: str) -> None:
    assert not set(trained_tokenizer.encode(text)) & set(trained_tokenizer.special_tokens.values())


@settings(max_examples=200)
@given(data=st.data())
def test_decode_any_ids(trained_tokenizer: BPETokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.sampled_from(sorted(trained_tokenizer.vocab)), max_size=40))
    expected = b"".join(trained_tokenizer.vocab[i] for i in ids)
    assert trained_tokenizer.decode_bytes(ids) == expected
    assert trained_tokenizer.decode(ids) == expected.decode("utf-8", "replace")


def test_empty(trained_tokenizer: BPETokenizer) -> None:
    assert trained_tokenizer.encode("") == []
    assert trained_tokenizer.encode("", allowed_special="all") == []
    assert trained_tokenizer.decode([]) == ""
    assert trained_tokenizer.decode_bytes([]) == b""
    assert trained_tokenizer.encode_batch([]) == []


def test_batch(trained_tokenizer: BPETokenizer) -> None:
    texts = [MULTILINGUAL, "", END_OF_TEXT, "a" * 1000, MULTILINGUAL]
    expected = [trained_tokenizer.encode(text) for text in texts]
    assert trained_tokenizer.encode_batch(texts) == expected
    assert trained_tokenizer.encode_batch(text for text in texts) == expected


def test_returned_ids_are_the_callers(trained_tokenizer: BPETokenizer) -> None:
    """What a caller does to a result reaches no cache."""
    first = trained_tokenizer.encode("word")
    expected = list(first)
    first.append(-1)
    assert trained_tokenizer.encode("word") == expected


def test_decode_takes_numpy_and_iterators(trained_tokenizer: BPETokenizer) -> None:
    ids = trained_tokenizer.encode(MULTILINGUAL)
    assert trained_tokenizer.decode(np.array(ids, dtype=np.uint16)) == MULTILINGUAL
    assert trained_tokenizer.decode(tuple(ids)) == MULTILINGUAL


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))]
)
def test_copies_encode_the_same(duplicate: Callable[[BPETokenizer], BPETokenizer]) -> None:
    tokenizer = train_bpe(
        ["abc 123 <s>"] * 3, vocab_size=262, pattern=r"\d|[^\d]+", special_tokens=["<s>"]
    )
    text = "abc 123 <s> abc"
    before = tokenizer.encode(text, allowed_special="all")
    twin = duplicate(tokenizer)
    assert twin.encode(text, allowed_special="all") == before
    assert twin.vocab == tokenizer.vocab
    assert twin.pattern == tokenizer.pattern


def test_threads_share_a_tokenizer(trained_tokenizer: BPETokenizer) -> None:
    tokenizer = pickle.loads(pickle.dumps(trained_tokenizer))  # nothing cached by other tests
    words = random.Random(3).choices(MULTILINGUAL.split(), k=6000)
    texts = [" ".join(words[start : start + 2000]) for start in range(0, 6000, 500)]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(tokenizer.encode, texts * 3))
    assert parallel == [trained_tokenizer.encode(text) for text in texts] * 3


# --- Special tokens ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overlapping() -> BPETokenizer:
    """Special tokens that begin and contain each other, named shortest first."""
    return train_bpe(["<a> <a><b> b"], vocab_size=270, special_tokens=["<a>", "<a><b>", "<b>a"])


def test_special_token_is_text_unless_allowed(trained_tokenizer: BPETokenizer) -> None:
    end = trained_tokenizer.special_tokens[END_OF_TEXT]
    assert end not in trained_tokenizer.encode(END_OF_TEXT)
    assert trained_tokenizer.decode(trained_tokenizer.encode(END_OF_TEXT)) == END_OF_TEXT
    assert trained_tokenizer.encode(END_OF_TEXT, allowed_special="all") == [end]
    assert trained_tokenizer.encode(END_OF_TEXT * 2, allowed_special={END_OF_TEXT}) == [end, end]
    assert trained_tokenizer.decode([end]) == END_OF_TEXT


def test_only_the_allowed_special_tokens_count(trained_tokenizer: BPETokenizer) -> None:
    user, end = trained_tokenizer.special_tokens["<|user|>"], END_OF_TEXT
    expected = [user, *trained_tokenizer.encode(end)]
    for allowed in ({"<|user|>"}, frozenset({"<|user|>"})):
        assert trained_tokenizer.encode(f"<|user|>{end}", allowed_special=allowed) == expected
    assert trained_tokenizer.encode(end, allowed_special=set()) == trained_tokenizer.encode(end)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<a><b>", ["<a><b>"]),
        ("<a><a><b>", ["<a>", "<a><b>"]),
        ("<a><b><b>", ["<a><b>", "<", "b", ">"]),
        ("<a><b>a", ["<a><b>", "a"]),
        ("a<a>a<b>a", ["a", "<a>", "a", "<b>a"]),
        ("<a", ["<", "a"]),
    ],
)
def test_longest_special_token_first(
    overlapping: BPETokenizer, text: str, tokens: list[str]
) -> None:
    ids = overlapping.encode(text, allowed_special="all")
    specials = [i for i in ids if i in overlapping.special_tokens.values()]
    names = [token for token in tokens if token in overlapping.special_tokens]
    assert specials == [overlapping.special_tokens[name] for name in names]
    assert ids == reference.encode_with(overlapping, text, special=True)
    assert overlapping.decode(ids) == text


def test_a_shorter_special_token_alone_is_allowed(overlapping: BPETokenizer) -> None:
    ids = overlapping.encode("<a><b>", allowed_special={"<a>"})
    assert ids == [overlapping.special_tokens["<a>"], *overlapping.encode("<b>")]


@pytest.mark.parametrize("token", [".*", "a|b", "$^", "  ", "\n\n", "\\d", "(?i)x", "日本", "é"])
def test_special_tokens_are_not_patterns(token: str) -> None:
    tokenizer = train_bpe(["axb"], vocab_size=260, special_tokens=[token])
    text = f"xab{token}bax"
    ids = tokenizer.encode(text, allowed_special="all")
    assert ids.count(tokenizer.special_tokens[token]) == 1
    assert tokenizer.decode(ids) == text


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"bytes", None, 3, ["a"], bytearray(b"a")])
def test_text_of_a_wrong_type(trained_tokenizer: BPETokenizer, text: Any) -> None:
    with pytest.raises(TypeError, match="str"):
        trained_tokenizer.encode(text)
    with pytest.raises(TypeError):
        trained_tokenizer.encode_batch([text])


def test_a_batch_is_not_one_string(trained_tokenizer: BPETokenizer) -> None:
    """It would be read as a list of letters: almost surely a mistake."""
    with pytest.raises(TypeError):
        trained_tokenizer.encode_batch("text")


@pytest.mark.parametrize("allowed", [{"<|nope|>"}, {END_OF_TEXT, "<|nope|>"}])
def test_unknown_special_token(trained_tokenizer: BPETokenizer, allowed: Any) -> None:
    with pytest.raises(ValueError, match="nope"):
        trained_tokenizer.encode("text", allowed_special=allowed)


@pytest.mark.parametrize("allowed", ["some", END_OF_TEXT, "ALL", ""])
def test_unknown_word_for_allowed_special(trained_tokenizer: BPETokenizer, allowed: Any) -> None:
    """A special token passed as a string is a set of letters forgotten to be wrapped in braces."""
    with pytest.raises(ValueError, match="allowed_special"):
        trained_tokenizer.encode("text", allowed_special=allowed)


@pytest.mark.parametrize("allowed", [None, 3, True, {3}])
def test_allowed_special_of_a_wrong_type(trained_tokenizer: BPETokenizer, allowed: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="allowed_special"):
        trained_tokenizer.encode("text", allowed_special=allowed)


@pytest.mark.parametrize("bad_id", [-1, 2048, 10**9, 2**70])
def test_id_out_of_range(trained_tokenizer: BPETokenizer, bad_id: int) -> None:
    for decode in (trained_tokenizer.decode, trained_tokenizer.decode_bytes):
        with pytest.raises(ValueError, match=f"{bad_id}"):
            decode([65, bad_id])


@pytest.mark.parametrize("ids", [["65"], [65.5], [None], 65, [[65]]])
def test_ids_of_a_wrong_type(trained_tokenizer: BPETokenizer, ids: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        trained_tokenizer.decode(ids)


# --- Cost ----------------------------------------------------------------------------------------

ALPHABETS = {
    "spaces": " ",
    "one letter": "a",
    "two letters": "ab",
    "letters": string.ascii_lowercase,
}


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS.keys())
def test_time_grows_with_length_not_its_square(
    trained_tokenizer: BPETokenizer, rng: random.Random, alphabet: str
) -> None:
    """One piece of 25,000 characters beside one of four times the length; see `growth`."""

    def new_piece(size: int) -> str:  # in no cache
        return "".join(rng.choices(alphabet, k=size))

    assert growth(trained_tokenizer.encode, new_piece) < BOUND
