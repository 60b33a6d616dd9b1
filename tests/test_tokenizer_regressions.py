"""What a reviewer broke once: each test tells the story of its bug."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken

from gptbook.bpe_training import count_pieces
from gptbook.pretokenize import KeyTable, special_pattern
from gptbook.tokenizer import BPETokenizer, train_bpe
from gptbook.tokenizer_formats import TIKTOKEN_GPT2_PATTERN, checksum
from tests.growth import BOUND, growth

BYTES = {byte: bytes([byte]) for byte in range(256)}


def documents(rng: np.random.Generator, n: int) -> list[str]:
    """Return documents of 180 random words each, nearly all different."""
    letters = rng.integers(ord("a"), ord("z") + 1, (n, 180, 9), dtype=np.uint8)
    letters[:, :, 8] = ord(" ")
    return [bytes(document.ravel()).decode() for document in letters]


def test_no_merges_and_a_long_text() -> None:
    """The first encoder had an empty table of pairs, and looked at its first entry."""
    assert train_bpe([""], vocab_size=256).encode("ab " * 2000) == list(b"ab " * 2000)


def test_nobody_can_know_where_keys_sit() -> None:
    """With fixed factors a text of 7 kB, made so that all words share one slot, took 9 s."""
    first, second = KeyTable(), KeyTable()
    keys = np.arange(2000, dtype=np.uint64).reshape(2, -1)
    # Equal by chance with 1 / 2**(12 * 1000).
    assert (first._home(keys) != second._home(keys)).any()
    assert (first.intern(keys) == second.intern(keys)).all()


def test_training_on_many_documents_is_linear(rng: random.Random) -> None:
    """For four times as many documents it once took 19 times as long, copying all counts each."""
    generator = np.random.default_rng(rng.getrandbits(32))
    assert growth(count_pieces, lambda size: documents(generator, size // 50)) < BOUND


def test_the_pattern_of_special_tokens_is_compiled_once() -> None:
    """It was compiled for each text: 59 ms each with 4,000 special tokens."""
    tokens = [f"<|{i}|>" for i in range(50)]
    tokenizer = train_bpe(["a"], vocab_size=306, special_tokens=tokens)
    tokenizer.encode("a<|3|>", allowed_special="all")
    missed = special_pattern.cache_info().misses
    for _ in range(5):
        tokenizer.encode("a<|3|>", allowed_special="all")
    assert special_pattern.cache_info().misses == missed


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        ({256: b"bc", 257: b"ab", 258: b"abc"}, [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")]),
        ({256: b"hello"}, []),
    ],
)
def test_to_tiktoken_refuses_what_tiktoken_would_merge_otherwise(
    vocab: dict[int, bytes], merges: list[tuple[bytes, bytes]]
) -> None:
    tokenizer = BPETokenizer.from_vocab_merges(BYTES | vocab, merges)
    with pytest.raises(ValueError, match=r"tiktoken keeps no merges|not made of two others"):
        tokenizer.to_tiktoken()


def test_from_tiktoken_looks_at_the_pattern_not_at_the_name() -> None:
    ranks = {token: i for i, token in BYTES.items()} | {b"ab": 256}
    theirs = tiktoken.Encoding(
        "gpt2", pat_str="[a-z]|[^a-z]+", mergeable_ranks=ranks, special_tokens={}
    )
    assert BPETokenizer.from_tiktoken(theirs).encode("abab") == theirs.encode("abab")


def test_tiktokens_pattern_is_still_the_one_we_know(gpt2_encoding: tiktoken.Encoding) -> None:
    assert gpt2_encoding._pat_str == TIKTOKEN_GPT2_PATTERN


@pytest.mark.parametrize("special", ["Ġhello", "Ġ", "é"])
def test_special_tokens_that_hugging_face_would_misread(special: str, tmp_path: Path) -> None:
    tokenizer = train_bpe(["hello hello"], vocab_size=262, special_tokens=[special])
    with pytest.raises(ValueError, match="letters that stand for bytes"):
        tokenizer.to_huggingface(tmp_path / "new")
    assert not list(tmp_path.glob("new/*"))


def test_saving_keeps_permissions_and_links(tmp_path: Path) -> None:
    """Files came out readable by their owner alone, and a link was replaced by a file."""
    tokenizer = train_bpe(["ab"], vocab_size=257)
    path, link = tmp_path / "a.json", tmp_path / "link.json"
    old_umask = os.umask(0o022)
    try:
        tokenizer.save(path)
    finally:
        os.umask(old_umask)
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    link.symlink_to(path)
    tokenizer.save(link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "link.json"]


def test_a_missing_folder_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such directory for a\.json"):
        train_bpe(["ab"], vocab_size=257).save(tmp_path / "nowhere" / "a.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("merges", [[1, 99999]]),
        ("merges", 5),
        ("vocab", []),
        ("vocab", {"x": "00"}),
        ("special_tokens", 7),
    ],
)
def test_a_malformed_file_with_a_right_checksum(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    train_bpe(["ab"], vocab_size=257).save(path)
    content = json.loads(path.read_text()) | {key: value}
    path.write_text(json.dumps(content | {"sha256": checksum(content)}))
    with pytest.raises(ValueError, match=r"a\.json is no tokenizer file"):
        BPETokenizer.load(path)


def test_a_special_token_of_one_byte_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="single byte"):
        train_bpe(["foo"], vocab_size=300, special_tokens=["o"])


class Scalar:
    """An integer as torch and NumPy have it: equal to nothing, but usable as an index."""

    def __index__(self) -> int:
        return 104


def test_decode_takes_what_is_an_integer_and_nothing_else() -> None:
    tokenizer = train_bpe([""], vocab_size=256)
    ids: Any = [Scalar(), np.int64(105)]
    assert tokenizer.decode(ids) == "hi"
    for wrong in ([1.0], [[1]], ["a"]):
        with pytest.raises(TypeError, match="flat list of ints"):
            tokenizer.decode(wrong)  # type: ignore[arg-type]


def test_a_numpy_integer_is_a_vocabulary_size() -> None:
    size: Any = np.int64(257)
    assert len(train_bpe(["ab"], vocab_size=size).vocab) == 257
