"""The same ids as tiktoken, Hugging Face and brute force, on any text."""

import random
import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptbook.tokenizer import BPETokenizer, train_bpe
from tests import tokenizer_reference as reference
from tests.tokenizer_texts import END_OF_TEXT, MULTILINGUAL, assigned_text, mixed_text

FIXED_FILES = ("this.py", "tokenize.py", "stringprep.py")
FILES_A_RUN = 15
BLOCK = 256  # code points


@pytest.fixture(scope="module")
def trained_encoding(trained_tokenizer: BPETokenizer) -> tiktoken.Encoding:
    """Our own vocabulary in tiktoken."""
    return trained_tokenizer.to_tiktoken()


@pytest.fixture(scope="module")
def huggingface(
    trained_tokenizer: BPETokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tokenizers.Tokenizer:
    """Our own vocabulary in Hugging Face's tokenizers."""
    directory = tmp_path_factory.mktemp("huggingface")
    trained_tokenizer.to_huggingface(directory)
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


def long_texts() -> dict[str, str]:
    """Single pieces of 100,000 characters, where a slow merge loop shows, and long mixtures."""
    letters = random.Random(1).choices(string.ascii_lowercase, k=100_000)
    return {
        "empty": "",
        "spaces": " " * 100_000,
        "spaces before a word": " " * 100_000 + "word",
        "newlines": "\n" * 100_000,
        "one letter": "a" * 100_000,
        "one word": "".join(letters),
        "one wide character": "語" * 30_000,
        "digits": "0123456789" * 10_000,
        "punctuation": "=-" * 50_000,
        "mixed whitespace": "".join(random.Random(2).choices(" \t\n\r\u00a0\u2003\x0b", k=20_000)),
        "multilingual": MULTILINGUAL * 20,
    }


LONG_TEXTS = long_texts()
long_text = pytest.mark.parametrize("name", LONG_TEXTS)

# --- GPT-2's vocabulary --------------------------------------------------------------------------


def assert_same_as_tiktoken(ours: BPETokenizer, theirs: tiktoken.Encoding, text: str) -> None:
    ids = ours.encode(text)
    assert ids == theirs.encode_ordinary(text)
    assert ours.decode(ids) == reference.replace_surrogates(text)


def sample_files(files: Sequence[Path], rng: random.Random) -> list[Path]:
    """Return the fixed files and a few random ones."""
    return [*(file for file in files if file.name in FIXED_FILES), *rng.sample(files, FILES_A_RUN)]


def test_gpt2_hello(gpt2: BPETokenizer) -> None:
    assert gpt2.encode("Hello") == [15496]
    assert gpt2.decode([15496]) == "Hello"


def test_gpt2_standard_library(
    gpt2: BPETokenizer,
    gpt2_encoding: tiktoken.Encoding,
    standard_library: list[Path],
    rng: random.Random,
) -> None:
    for file in sample_files(standard_library, rng):
        print(file)
        text = file.read_bytes().decode("utf-8", "replace")
        assert_same_as_tiktoken(gpt2, gpt2_encoding, text)


def test_gpt2_tiny_shakespeare(
    gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, tiny_shakespeare: str
) -> None:
    assert_same_as_tiktoken(gpt2, gpt2_encoding, tiny_shakespeare)


@long_text
def test_gpt2_long_texts(gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, name: str) -> None:
    assert_same_as_tiktoken(gpt2, gpt2_encoding, LONG_TEXTS[name])


def test_gpt2_random_bytes(
    gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, rng: random.Random
) -> None:
    for _ in range(200):
        text = rng.randbytes(rng.randrange(300)).decode("utf-8", "replace")
        assert_same_as_tiktoken(gpt2, gpt2_encoding, text)


@pytest.mark.parametrize("plane", range(17))
def test_gpt2_unicode_plane(
    gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, rng: random.Random, plane: int
) -> None:
    """Every block of the first two planes, surrogates included, and a sixteenth of the others'.

    The characters of a block stand side by side, and again between letters, digits and spaces.
    """
    starts = range(plane << 16, (plane + 1) << 16, BLOCK)
    for start in starts if plane < 2 else rng.sample(starts, len(starts) // 16):
        block = [chr(start + offset) for offset in range(BLOCK)]
        text = "".join(block) + "".join(f"a{c}1{c} {c}  " for c in block[:: 1 if plane < 2 else 4])
        assert_same_as_tiktoken(gpt2, gpt2_encoding, text)


@settings(max_examples=300)
@given(text=mixed_text(surrogates=True))
def test_gpt2_any_text(gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, text: str) -> None:
    assert_same_as_tiktoken(gpt2, gpt2_encoding, text)


@settings(max_examples=200)
@given(text=mixed_text(surrogates=True), allowed=st.sampled_from(["none", "all", "set"]))
def test_gpt2_special_tokens(
    gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, text: str, allowed: str
) -> None:
    theirs: set[str] = set() if allowed == "none" else {END_OF_TEXT}
    ours: Any = {END_OF_TEXT} if allowed == "set" else allowed
    expected = gpt2_encoding.encode(text, allowed_special=theirs, disallowed_special=())
    assert gpt2.encode(text, allowed_special=ours) == expected


@settings(max_examples=200)
@given(ids=st.lists(st.integers(0, 50256), max_size=40))
def test_gpt2_decodes_any_ids(
    gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding, ids: list[int]
) -> None:
    assert gpt2.decode_bytes(ids) == gpt2_encoding.decode_bytes(ids)
    assert gpt2.decode(ids) == gpt2_encoding.decode(ids)


# --- Our own vocabulary --------------------------------------------------------------------------


def test_trained_standard_library(
    trained_tokenizer: BPETokenizer,
    trained_encoding: tiktoken.Encoding,
    huggingface: tokenizers.Tokenizer,
    standard_library: list[Path],
    rng: random.Random,
) -> None:
    for file in sample_files(standard_library, rng):
        print(file)
        text = file.read_bytes().decode("utf-8", "replace").replace(END_OF_TEXT, "")
        assert_same_as_tiktoken(trained_tokenizer, trained_encoding, text)
        theirs = huggingface.encode(text, add_special_tokens=False).ids
        assert trained_tokenizer.encode(text, allowed_special="all") == theirs


@long_text
def test_trained_long_texts(
    trained_tokenizer: BPETokenizer,
    trained_encoding: tiktoken.Encoding,
    huggingface: tokenizers.Tokenizer,
    name: str,
) -> None:
    text = LONG_TEXTS[name]
    assert_same_as_tiktoken(trained_tokenizer, trained_encoding, text)
    assert trained_tokenizer.encode(text) == huggingface.encode(text).ids


@settings(max_examples=300)
@given(text=assigned_text(), special=st.booleans())
def test_trained_any_text_in_tiktoken(
    trained_tokenizer: BPETokenizer, trained_encoding: tiktoken.Encoding, text: str, special: bool
) -> None:
    allowed: Literal["all", "none"] = "all" if special else "none"
    theirs = trained_encoding.encode(
        text, allowed_special="all" if special else set(), disallowed_special=()
    )
    assert trained_tokenizer.encode(text, allowed_special=allowed) == theirs


@settings(max_examples=300)
@given(text=assigned_text())
def test_trained_any_text_in_huggingface(
    trained_tokenizer: BPETokenizer, huggingface: tokenizers.Tokenizer, text: str
) -> None:
    """Hugging Face finds special tokens in every text."""
    ids = trained_tokenizer.encode(text, allowed_special="all")
    assert ids == huggingface.encode(text, add_special_tokens=False).ids
    assert huggingface.decode(ids, skip_special_tokens=False) == text


def test_huggingface_knows_the_whole_vocabulary(
    trained_tokenizer: BPETokenizer, huggingface: tokenizers.Tokenizer
) -> None:
    assert huggingface.get_vocab_size() == len(trained_tokenizer.vocab)
    for token, token_id in trained_tokenizer.special_tokens.items():
        assert huggingface.token_to_id(token) == token_id
    ids = trained_tokenizer.encode(f"a{END_OF_TEXT}b", allowed_special="all")
    assert huggingface.decode(ids, skip_special_tokens=True) == "ab"


@settings(max_examples=300)
@given(text=mixed_text(surrogates=True), special=st.booleans())
def test_trained_any_text_by_brute_force(
    trained_tokenizer: BPETokenizer, text: str, special: bool
) -> None:
    """The reference splits with the same library, so unassigned code points are compared too."""
    ids = trained_tokenizer.encode(text, allowed_special="all" if special else "none")
    assert ids == reference.encode_with(trained_tokenizer, text, special=special)
    assert trained_tokenizer.decode(ids) == reference.replace_surrogates(text)


RUNS = st.lists(st.text("ab", max_size=12) | st.sampled_from(["aaaaaaaa", "abababab"]), max_size=6)


@settings(max_examples=100)
@given(texts=RUNS, text=st.text("abc ", max_size=60))
def test_vocabularies_of_runs(texts: list[str], text: str) -> None:
    """Few letters give merges that overlap each other; the order of merging is all that counts."""
    tokenizer = train_bpe(texts, vocab_size=256 + 15)
    expected = reference.encode_with(tokenizer, text)
    assert tokenizer.encode(text) == expected
    assert tokenizer.to_tiktoken().encode(text) == expected


@pytest.fixture(scope="module", params=[r"(?s:.+)", r"\p{N}{1,3}|\p{L}+|[^\p{L}\p{N}]+", r"\S+|\s"])
def patterned(request: pytest.FixtureRequest) -> BPETokenizer:
    """A tokenizer with a pattern that is not GPT-2's."""
    return train_bpe([MULTILINGUAL], vocab_size=400, pattern=request.param)


@settings(max_examples=100)
@given(text=assigned_text())
def test_other_patterns(patterned: BPETokenizer, text: str) -> None:
    ids = patterned.encode(text)
    assert ids == patterned.to_tiktoken().encode(text)
    assert ids == reference.encode_with(patterned, text)


@pytest.fixture(scope="module")
def byte_pairs() -> BPETokenizer:
    """A tokenizer with a token for every pair of bytes: its ids show where pieces end.

    GPT-2's vocabulary hides a wrong split between characters that it never merges.
    """
    pairs = [(bytes([a]), bytes([b])) for a in range(256) for b in range(256)]
    tokens = [*(bytes([i]) for i in range(256)), *(left + right for left, right in pairs)]
    return BPETokenizer.from_vocab_merges(dict(enumerate(tokens)), pairs)


def test_pieces_split_where_tiktoken_splits(byte_pairs: BPETokenizer, rng: random.Random) -> None:
    """Around the first 3000 assigned characters, and 8000 random ones."""
    encoding = byte_pairs.to_tiktoken()
    characters = [c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] != "C"]
    for character in characters[:3000] + rng.sample(characters, 8000):
        text = f"a{character}a1{character}1!{character}! {character} "
        assert byte_pairs.encode(text) == encoding.encode(text), f"U+{ord(character):04X}"


@pytest.fixture(scope="module")
def byte_pairs_encoding(
    byte_pairs: BPETokenizer, gpt2_encoding: tiktoken.Encoding
) -> tiktoken.Encoding:
    """The vocabulary of `byte_pairs` with the pattern that tiktoken itself has for GPT-2."""
    ranks = {token: i for i, token in byte_pairs.vocab.items()}
    pattern = gpt2_encoding._pat_str
    return tiktoken.Encoding("pairs", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@settings(max_examples=300)
@given(text=assigned_text())
@example(text="I'S We'LL it's 'Re 've'd''s\n\n  x \n")
def test_our_pattern_splits_as_gpt2s(
    byte_pairs: BPETokenizer, byte_pairs_encoding: tiktoken.Encoding, text: str
) -> None:
    assert byte_pairs.encode(text) == byte_pairs_encoding.encode(text, disallowed_special=())
