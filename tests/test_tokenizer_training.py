"""Training: the merges of ``train_bpe``, how it reads its sources, and what it refuses."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptbook.tokenizer import GPT2_PATTERN, BPETokenizer, train_bpe
from tests import tokenizer_reference as reference

WHOLE_TEXT = r"(?s:.+)"  # one piece, however long: runs and overlaps reach across spaces
ALPHABETS = (
    "a",
    "ab",
    "ab ",
    "abc\n ",
    "aé\u0301",
    "日本 ",
    "👍🏽a",
    "\ud83d\ude00\ud800",
    "\x00\xff'ls 1",
)


def training_texts() -> st.SearchStrategy[list[str]]:
    """Lists of short texts over one small alphabet, so that ties and runs are common."""
    return st.sampled_from(ALPHABETS).flatmap(
        lambda alphabet: st.lists(st.text(st.sampled_from(alphabet), max_size=40), max_size=6)
    )


def merges_of(texts: list[str], merge_count: int = 20, **options: Any) -> list[reference.Pair]:
    return train_bpe(texts, vocab_size=256 + merge_count, **options).merges


# --- The merges ----------------------------------------------------------------------------------


@settings(max_examples=300)
@given(training_texts(), st.integers(0, 25), st.sampled_from([GPT2_PATTERN, WHOLE_TEXT]))
def test_merges_equal_brute_force(texts: list[str], merge_count: int, pattern: str) -> None:
    ours = merges_of(texts, merge_count, pattern=pattern)
    assert ours == reference.train(texts, merge_count, pattern)


@settings(max_examples=100)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", " ", "<s>", "<s>x", "<"]), max_size=30).map("".join),
        max_size=4,
    )
)
def test_special_tokens_split_the_text(texts: list[str]) -> None:
    special_tokens = ["<s>", "<s>x"]
    ours = train_bpe(texts, vocab_size=256 + 12 + 2, special_tokens=special_tokens).merges
    assert ours == reference.train(texts, 12, GPT2_PATTERN, special_tokens)


def test_ties_go_to_the_lexicographically_greater_pair() -> None:
    # Each pair occurs once. (b"zz", b"a") > (b"z", b"zz") because b"zz" > b"z".
    assert merges_of(["ab cd zx"], 1, pattern=r"\S+|\s") == [(b"z", b"x")]
    assert merges_of(["ab", "aé"], 1) == [(b"\xc3", b"\xa9")]
    assert merges_of(["az", "ba"], 1) == [(b"b", b"a")]


def test_a_tie_compares_the_left_token_before_the_joined_bytes() -> None:
    # After (x, y): the pairs (xy, a) and (x, z) occur twice. The joined bytes order the other way.
    texts = ["xya"] * 2 + ["xy"] + ["xz"] * 2
    assert merges_of(texts, 2) == [(b"x", b"y"), (b"xy", b"a")]
    assert merges_of(texts, 3)[2] == (b"x", b"z")


def test_a_run_counts_every_adjacent_position() -> None:
    # "aaaa" holds (a, a) three times and "bc bc" holds (b, c) twice.
    assert merges_of(["aaaa", "bc", "bc"], 1) == [(b"a", b"a")]
    assert merges_of(["aaaaaaa"], pattern=WHOLE_TEXT) == reference.train(["a" * 7], 20, WHOLE_TEXT)


def test_real_text_equals_brute_force(rng: random.Random, standard_library: list[Path]) -> None:
    text = rng.choice(standard_library).read_bytes().decode("utf-8", "replace")[:6000]
    assert merges_of([text], 60) == reference.train([text], 60, GPT2_PATTERN)


def test_no_token_is_learned_twice(trained_tokenizer: BPETokenizer) -> None:
    tokens = list(trained_tokenizer.vocab.values())
    assert len(set(tokens)) == len(tokens)


def test_training_again_gives_the_same(
    trained_tokenizer: BPETokenizer, new_tokenizer: Callable[[], BPETokenizer]
) -> None:
    again = new_tokenizer()
    assert again.merges == trained_tokenizer.merges
    assert again.vocab == trained_tokenizer.vocab


# --- The ids -------------------------------------------------------------------------------------


def test_ids_are_bytes_then_merges_then_specials() -> None:
    tokenizer = train_bpe(["low lower"] * 3, vocab_size=262, special_tokens=["<b>", "<a>"])
    assert [tokenizer.vocab[i] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert [tokenizer.vocab[256 + i] for i in range(4)] == [a + b for a, b in tokenizer.merges]
    assert tokenizer.special_tokens == {"<b>": 260, "<a>": 261}
    assert (tokenizer.vocab[260], tokenizer.vocab[261]) == (b"<b>", b"<a>")
    assert list(tokenizer.vocab) == list(range(262))


def test_vocabulary_of_bytes_alone() -> None:
    tokenizer = train_bpe(["some text"], vocab_size=256)
    assert tokenizer.merges == []
    assert tokenizer.encode("é") == [0xC3, 0xA9]


@pytest.mark.parametrize("sources", [[], [""], ["", ""], ["a", "b"]])
def test_stops_early_without_any_pair(sources: list[str]) -> None:
    tokenizer = train_bpe(sources, vocab_size=1000, special_tokens=["<s>"])
    assert tokenizer.merges == []
    assert tokenizer.special_tokens == {"<s>": 256}


def test_stops_early_when_no_pair_is_left() -> None:
    tokenizer = train_bpe(["abcd"], vocab_size=1000, special_tokens=["<s>"])
    assert len(tokenizer.merges) == 3
    assert len(tokenizer.vocab) == 256 + 3 + 1
    assert tokenizer.special_tokens == {"<s>": 259}


def test_special_tokens_are_never_part_of_merges(trained_tokenizer: BPETokenizer) -> None:
    specials = ["<|endoftext|>", "<|user|>"]
    text = "<|endoftext|>".join(["one <|user|> two"] * 20)
    tokenizer = train_bpe([text], vocab_size=300, special_tokens=specials)
    learned = {left + right for left, right in tokenizer.merges}
    assert not any(b"|" in token or b"endof" in token for token in learned)
    assert not learned & {token.encode() for token in specials}


# --- The sources ---------------------------------------------------------------------------------


def test_files_and_texts_mix(tmp_path: Path) -> None:
    texts = ["the cat", "the hat ", "日本 the mat"]
    path = tmp_path / "hat.txt"
    path.write_text(texts[1], encoding="utf-8")
    assert merges_of(texts) == train_bpe([texts[0], path, texts[2]], vocab_size=276).merges


@pytest.mark.parametrize(
    "content", [b"a\r\nb\r\nb\rc\rc", b"\xef\xbb\xbfbom bom", b"", b"\x00\x00"]
)
def test_a_file_is_read_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert train_bpe([path], vocab_size=276).merges == merges_of([content.decode("utf-8")])


def test_a_large_file_equals_its_text(tmp_path: Path, rng: random.Random) -> None:
    """About 1 MB, with runs and wide characters wherever a reader that cuts files would cut."""
    parts = ("日本語", "   ", "\r\n", " word", "'s", "<|x|>", "ééé")
    text = "".join(rng.choices(parts, k=240_000))
    path = tmp_path / "large.txt"
    path.write_bytes(text.encode())
    options: dict[str, Any] = {"vocab_size": 290, "special_tokens": ["<|x|>"]}
    assert train_bpe([path], **options).merges == train_bpe([text], **options).merges


def test_sources_may_be_a_generator() -> None:
    texts = ["aab", "aac"]
    assert train_bpe((text for text in texts), vocab_size=260).merges == merges_of(texts, 4)


def test_order_and_chunking_do_not_matter(rng: random.Random) -> None:
    text = "".join(
        rng.choices(["low ", "lower", " newest", "\n\n", "widest's", " 12", "日本"], k=300)
    )
    pieces = reference.split_pieces(text, GPT2_PATTERN)  # a piece by itself is one piece
    shuffled = rng.sample(pieces, len(pieces))
    assert merges_of(shuffled, 60) == merges_of([text], 60)


def test_surrogates_are_learned_as_they_are_encoded() -> None:
    assert merges_of(["\ud83d\ude00\ud83d\ude00 \ud800"]) == merges_of(["😀😀 \ufffd"])


def test_arguments_are_not_changed() -> None:
    sources, special_tokens = ["abc", "abd"], ["<s>"]
    train_bpe(sources, vocab_size=260, special_tokens=special_tokens)
    assert sources == ["abc", "abd"]
    assert special_tokens == ["<s>"]


def test_groups_in_a_pattern_change_nothing() -> None:
    text = "abc 12 abc 12"
    grouped = train_bpe([text], vocab_size=262, pattern=r"([a-z])([a-z]*)|(\s)|(\d)+")
    plain = train_bpe([text], vocab_size=262, pattern=r"[a-z]+|\s|\d+")
    assert grouped.merges == plain.merges
    assert grouped.encode(text) == plain.encode(text)


# --- What is refused -----------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        train_bpe([tmp_path / "nowhere.txt"], vocab_size=300)


def test_directory(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError), match=tmp_path.name):
        train_bpe([tmp_path], vocab_size=300)


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin1.txt"
    path.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(ValueError, match=r"(?s)latin1\.txt.*UTF-8|UTF-8.*latin1\.txt"):
        train_bpe([path], vocab_size=300)


@pytest.mark.parametrize("sources", ["one text", b"bytes", [b"bytes"], [None], [3], None])
def test_sources_of_a_wrong_type(sources: Any) -> None:
    """A single string would be read as a list of letters: almost surely a mistake."""
    with pytest.raises(TypeError):
        train_bpe(sources, vocab_size=300)


@pytest.mark.parametrize(
    ("vocab_size", "specials"), [(255, 0), (0, 0), (-1, 0), (256, 1), (257, 2)]
)
def test_vocabulary_too_small(vocab_size: int, specials: int) -> None:
    with pytest.raises(ValueError, match=rf"vocab_size.*\b{256 + specials}\b") as caught:
        train_bpe(["ab"], vocab_size=vocab_size, special_tokens=["<a>", "<b>"][:specials])
    assert str(vocab_size) in str(caught.value)


@pytest.mark.parametrize("vocab_size", ["300", 300.0, None])
def test_vocabulary_size_of_a_wrong_type(vocab_size: Any) -> None:
    with pytest.raises(TypeError, match="vocab_size"):
        train_bpe(["ab"], vocab_size=vocab_size)


@pytest.mark.parametrize("pattern", ["(", "[a", "a{2,1}", r"\p{Nonsense}"])
def test_pattern_that_does_not_compile(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        train_bpe(["ab"], vocab_size=300, pattern=pattern)


@pytest.mark.parametrize(
    ("text", "uncovered"),
    [("ab1c", "1"), ("1ab", "1"), ("ab1", "1"), ("123", "123"), ("ab é", " é")],
)
def test_pattern_that_does_not_cover_the_text(text: str, uncovered: str) -> None:
    """Text between the matches must not be lost silently, neither here nor in ``encode``."""
    with pytest.raises(ValueError, match=f"'{uncovered}"):
        train_bpe(["abc", text], vocab_size=300, pattern=r"[a-z]+")
    tokenizer = train_bpe(["abc"], vocab_size=258, pattern=r"[a-z]+")
    with pytest.raises(ValueError, match=f"'{uncovered}"):
        tokenizer.encode(text)


@pytest.mark.parametrize("specials", [["<a>", "<a>"], [""], ["<a>", ""]])
def test_duplicate_and_empty_special_tokens(specials: list[str]) -> None:
    with pytest.raises(ValueError, match="special"):
        train_bpe(["ab"], vocab_size=300, special_tokens=specials)


@pytest.mark.parametrize("specials", ["<a>", [b"<a>"], [3]])
def test_special_tokens_of_a_wrong_type(specials: Any) -> None:
    with pytest.raises(TypeError, match="special"):
        train_bpe(["ab"], vocab_size=300, special_tokens=specials)
