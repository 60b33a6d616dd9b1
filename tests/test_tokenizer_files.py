"""Files and foreign formats: save and load, damaged files, given vocabularies, tiktoken's, ours."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers

from gptbook.tokenizer import GPT2_PATTERN, BPETokenizer, train_bpe
from tests.tokenizer_texts import END_OF_TEXT, MULTILINGUAL

OWN_PATTERN = r"\p{N}{1,3}|\p{L}+|[^\p{L}\p{N}]+"


@pytest.fixture(scope="module")
def small() -> BPETokenizer:
    """40 merges, a pattern of its own, and special tokens that need escapes in a file."""
    return train_bpe(
        [MULTILINGUAL],
        vocab_size=256 + 40 + 3,
        pattern=OWN_PATTERN,
        special_tokens=['<|"quoted\\"|>', "<é\n日本>", "<s>"],
    )


@pytest.fixture
def saved(small: BPETokenizer, tmp_path: Path) -> Path:
    """The file of `small`."""
    path = tmp_path / "tokenizer.json"
    small.save(path)
    return path


def assert_equal(left: BPETokenizer, right: BPETokenizer) -> None:
    """The same state, and the same ids from it."""
    assert left.vocab == right.vocab
    assert left.merges == right.merges
    assert left.special_tokens == right.special_tokens
    assert left.pattern == right.pattern
    for text in (MULTILINGUAL, "12345 <s> 6789", END_OF_TEXT, "\ud83d"):
        for allowed in ("none", "all"):
            ids = left.encode(text, allowed_special=allowed)
            assert ids == right.encode(text, allowed_special=allowed)
            assert left.decode(ids) == right.decode(ids)


# --- save and load -------------------------------------------------------------------------------


def test_a_saved_tokenizer_loads_equal(small: BPETokenizer, saved: Path) -> None:
    assert_equal(BPETokenizer.load(saved), small)


def test_a_large_vocabulary_loads_equal(trained_tokenizer: BPETokenizer, tmp_path: Path) -> None:
    trained_tokenizer.save(tmp_path / "trained")
    assert_equal(BPETokenizer.load(tmp_path / "trained"), trained_tokenizer)


def test_gpt2_loads_equal(gpt2: BPETokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path / "gpt2.json")
    assert_equal(BPETokenizer.load(tmp_path / "gpt2.json"), gpt2)


def test_the_bytes_alone_load_equal(tmp_path: Path) -> None:
    tokenizer = train_bpe([], vocab_size=256)
    tokenizer.save(tmp_path / "bytes.json")
    assert_equal(BPETokenizer.load(tmp_path / "bytes.json"), tokenizer)


def test_paths_may_be_strings(small: BPETokenizer, tmp_path: Path) -> None:
    path = str(tmp_path / "naïve 日本.json")
    small.save(path)
    assert_equal(BPETokenizer.load(path), small)


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    BPETokenizer.load(saved).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()


def test_saving_leaves_one_file_and_replaces_the_old(
    saved: Path, trained_tokenizer: BPETokenizer
) -> None:
    trained_tokenizer.save(saved)
    assert_equal(BPETokenizer.load(saved), trained_tokenizer)
    assert list(saved.parent.iterdir()) == [saved]


# --- A save that fails ---------------------------------------------------------------------------


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``limit`` bytes: writing more raises OSError."""
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(saved: Path, trained_tokenizer: BPETokenizer) -> None:
    before = saved.read_bytes()
    with full_disk(1000), pytest.raises(OSError, match=r"too large|space"):
        trained_tokenizer.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_full_disk_leaves_the_old_huggingface_file(
    small: BPETokenizer, trained_tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    small.to_huggingface(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(1000), pytest.raises(OSError, match=r"too large|space"):
        trained_tokenizer.to_huggingface(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saving_into_a_missing_directory(small: BPETokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        small.save(tmp_path / "missing" / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


def test_saving_over_a_directory(small: BPETokenizer, tmp_path: Path) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    with pytest.raises((OSError, ValueError), match="directory"):
        small.save(target)
    assert list(tmp_path.iterdir()) == [target]
    assert list(target.iterdir()) == []


# --- A file that is damaged or is not ours -------------------------------------------------------


def assert_refused(path: Path) -> str:
    """Return the message of loading's ValueError, which names the file and says more than that."""
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        BPETokenizer.load(path)
    message = str(caught.value)
    assert len(message) > len(str(path)) + 20
    return message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        BPETokenizer.load(tmp_path / "nowhere.json")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError), match=re.escape(tmp_path.name)):
        BPETokenizer.load(tmp_path)


@pytest.mark.parametrize("sixteenths", range(16))
def test_truncated_file(saved: Path, sixteenths: int) -> None:
    """Empty at 0; the last byte alone is tested below."""
    data = saved.read_bytes()
    saved.write_bytes(data[: len(data) * sixteenths // 16])
    assert_refused(saved)


def test_file_without_its_end(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().rstrip()[:-1])
    assert_refused(saved)


FOREIGN = {
    "text": b"a shopping list",
    "not UTF-8": b"\xff\xfe\x00\x01" * 50,
    "zeros": bytes(1000),
    "an array": b"[]",
    "an empty object": b"{}",
    "null": b"null",
    "a number": b"3",
    "another object": b'{"version": 1, "merges": [], "vocab": {}}',
    "deep nesting": b"[" * 100_000,
    "an old pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    assert_refused(path)


def test_a_huggingface_file_is_not_ours(small: BPETokenizer, tmp_path: Path) -> None:
    small.to_huggingface(tmp_path)
    assert_refused(tmp_path / "tokenizer.json")


def changed(character: str) -> str:
    """Return another digit for a digit and another letter for a letter, hexadecimal ones too."""
    alphabet = next(a for a in ("0123456789", "abcdef", "ABCDEF") if character in a)
    return alphabet[(alphabet.index(character) + 1) % len(alphabet)]


def test_one_changed_character_is_noticed(saved: Path, rng: random.Random) -> None:
    """In 150 places: a merge, an id, the pattern, a special token, the version, the checksum."""
    text = saved.read_text(encoding="utf-8")
    places = [match.start() for match in re.finditer(r"[0-9a-fA-F]", text)]
    for place in rng.sample(places, 150):
        print(f"changed: {text[place - 20 : place]}[{text[place]}]{text[place + 1 : place + 20]}")
        saved.write_text(text[:place] + changed(text[place]) + text[place + 1 :], encoding="utf-8")
        assert_refused(saved)


def containers(node: Any) -> Iterator[Any]:
    """Yield every list and dict inside a JSON value, itself included."""
    if isinstance(node, dict | list):
        yield node
        for child in list(node.values()) if isinstance(node, dict) else node:
            yield from containers(child)


def test_an_edit_in_valid_json_is_noticed(saved: Path, rng: random.Random) -> None:
    """One entry is dropped, two change places, or a number grows, and the file is written anew."""
    text = saved.read_text(encoding="utf-8")
    for _ in range(100):
        document = json.loads(text)
        node = rng.choice([node for node in containers(document) if node])
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key, other = rng.choice(keys), rng.choice(keys)
        if rng.random() < 0.5 or node[key] == node[other]:
            print("dropped", key, "of", str(node)[:60])
            del node[key]
        else:
            print("exchanged", key, "and", other, "of", str(node)[:60])
            node[key], node[other] = node[other], node[key]
        saved.write_text(json.dumps(document), encoding="utf-8")
        assert_refused(saved)


def test_a_file_of_another_version(saved: Path) -> None:
    document = json.loads(saved.read_text(encoding="utf-8"))
    key = next(key for key in document if "version" in key)
    document[key] = 999
    saved.write_text(json.dumps(document), encoding="utf-8")
    message = assert_refused(saved)
    assert "version" in message
    assert "999" in message


# --- Given vocabularies --------------------------------------------------------------------------

BYTES = {i: bytes([i]) for i in range(256)}


def test_from_vocab_merges_rebuilds_a_tokenizer(trained_tokenizer: BPETokenizer) -> None:
    rebuilt = BPETokenizer.from_vocab_merges(
        trained_tokenizer.vocab,
        trained_tokenizer.merges,
        special_tokens=list(trained_tokenizer.special_tokens),
    )
    assert_equal(rebuilt, trained_tokenizer)


def test_from_vocab_merges_takes_a_pattern(small: BPETokenizer) -> None:
    rebuilt = BPETokenizer.from_vocab_merges(
        small.vocab, small.merges, special_tokens=list(small.special_tokens), pattern=OWN_PATTERN
    )
    assert_equal(rebuilt, small)


def test_a_new_special_token_gets_the_next_id() -> None:
    vocab = {**BYTES, 300: b"ab", 256: b"<known>"}
    tokenizer = BPETokenizer.from_vocab_merges(
        vocab, [(b"a", b"b")], special_tokens=["<new>", "<known>", "<newer>"]
    )
    assert tokenizer.special_tokens == {"<new>": 301, "<known>": 256, "<newer>": 302}
    assert tokenizer.encode("ab<new><known>", allowed_special="all") == [300, 301, 256]
    assert tokenizer.encode("<known>") == list(b"<known>")
    assert tokenizer.decode([302, 300]) == "<newer>ab"
    assert tokenizer.pattern == GPT2_PATTERN


def test_merges_are_made_in_their_order_whatever_the_ids(gpt2: BPETokenizer) -> None:
    """Ids that do not follow the merges, as in a published vocabulary, only name the tokens."""
    shuffled = random.Random(4).sample(range(50257), 50257)
    renamed = {shuffled[i]: token for i, token in gpt2.vocab.items()}
    tokenizer = BPETokenizer.from_vocab_merges(renamed, gpt2.merges, special_tokens=[END_OF_TEXT])
    assert tokenizer.encode(MULTILINGUAL) == [shuffled[i] for i in gpt2.encode(MULTILINGUAL)]
    assert tokenizer.special_tokens == {END_OF_TEXT: shuffled[50256]}


def test_from_vocab_merges_keeps_and_changes_nothing_of_its_arguments() -> None:
    vocab, merges, specials = {**BYTES, 256: b"ab"}, [(b"a", b"b")], ["<s>"]
    tokenizer = BPETokenizer.from_vocab_merges(vocab, merges, special_tokens=specials)
    assert (len(vocab), merges, specials) == (257, [(b"a", b"b")], ["<s>"])
    vocab.clear()
    merges.clear()
    specials.clear()
    assert tokenizer.encode("ab<s>", allowed_special="all") == [256, 257]
    assert tokenizer.decode([256, 257]) == "ab<s>"


WITHOUT_A = {i: token for i, token in BYTES.items() if token != b"A"}
AB = {**BYTES, 256: b"ab"}
BAD_VOCABULARIES: dict[str, tuple[Any, Any, str]] = {
    "no tokens": ({}, [], "byte"),
    "a byte is missing": (WITHOUT_A, [], r"A|65|0x41"),
    "one token under two ids": ({**BYTES, 256: b"ab", 257: b"ab"}, [(b"a", b"b")], "ab"),
    "one byte under two ids": ({**BYTES, 256: b"A"}, [], "A"),
    "a merge of an unknown left token": (AB, [(b"xy", b"b")], "xy"),
    "a merge of an unknown right token": (AB, [(b"a", b"xy")], "xy"),
    "a merge into an unknown token": (BYTES, [(b"q", b"r")], "q"),
    "the same merge twice": (AB, [(b"a", b"b")] * 2, "a"),
    "a negative id": ({**BYTES, -1: b"ab"}, [(b"a", b"b")], "-1"),
    "an empty token": ({**BYTES, 256: b""}, [], "empty|b''"),
}


@pytest.mark.parametrize(
    ("vocab", "merges", "message"), BAD_VOCABULARIES.values(), ids=BAD_VOCABULARIES.keys()
)
def test_bad_vocabulary(vocab: Any, merges: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BPETokenizer.from_vocab_merges(vocab, merges)


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        (dict[Any, Any](BYTES) | {256: "ab"}, []),
        (dict[Any, Any](BYTES) | {"256": b"ab"}, []),
        (AB, [("a", "b")]),
        (AB, ["ab"]),
        (None, []),
        (AB, 3),
    ],
)
def test_vocabulary_of_a_wrong_type(vocab: Any, merges: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        BPETokenizer.from_vocab_merges(vocab, merges)


@pytest.mark.parametrize("specials", [["<a>", "<a>"], [""]])
def test_bad_special_tokens(specials: list[str]) -> None:
    with pytest.raises(ValueError, match="special"):
        BPETokenizer.from_vocab_merges(BYTES, [], special_tokens=specials)


def test_bad_pattern() -> None:
    with pytest.raises(ValueError, match="pattern"):
        BPETokenizer.from_vocab_merges(BYTES, [], pattern="(")


# --- tiktoken ------------------------------------------------------------------------------------


def test_from_tiktoken_gpt2(gpt2: BPETokenizer) -> None:
    assert len(gpt2.vocab) == 50257
    assert len(gpt2.merges) == 50000
    assert gpt2.merges[0] == (b" ", b"t")
    assert gpt2.special_tokens == {END_OF_TEXT: 50256}
    assert gpt2.vocab[50256] == END_OF_TEXT.encode()


def test_gpt2_to_tiktoken_and_back(gpt2: BPETokenizer, gpt2_encoding: tiktoken.Encoding) -> None:
    encoding = gpt2.to_tiktoken()
    assert encoding.n_vocab == gpt2_encoding.n_vocab
    assert encoding.token_byte_values() == gpt2_encoding.token_byte_values()
    assert_equal(BPETokenizer.from_tiktoken(encoding), gpt2)


def test_our_merges_return_from_tiktoken(
    small: BPETokenizer, trained_tokenizer: BPETokenizer
) -> None:
    """tiktoken keeps no merges: they follow from the ranks."""
    for tokenizer in (small, trained_tokenizer):
        assert_equal(BPETokenizer.from_tiktoken(tokenizer.to_tiktoken()), tokenizer)


def test_special_tokens_in_tiktoken(small: BPETokenizer) -> None:
    text = "".join(small.special_tokens)
    ids = list(small.special_tokens.values())
    assert small.to_tiktoken().encode(text, allowed_special="all") == ids
    assert small.to_tiktoken().decode(ids) == text


@pytest.mark.parametrize("name", ["gpt-17", "", "GPT2"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){name}.*gpt2"):
        BPETokenizer.from_tiktoken(name)


@pytest.mark.parametrize("name", [None, 3, b"gpt2"])
def test_name_of_a_wrong_type(name: Any) -> None:
    with pytest.raises(TypeError):
        BPETokenizer.from_tiktoken(name)


# --- Hugging Face --------------------------------------------------------------------------------


def test_huggingface_directory_is_made(small: BPETokenizer, tmp_path: Path) -> None:
    directory = tmp_path / "models" / "small"
    small.to_huggingface(directory)
    theirs = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert theirs.encode("12345 日本").ids == small.encode("12345 日本")


def test_huggingface_replaces_its_file_and_no_other(
    small: BPETokenizer, trained_tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    small.to_huggingface(tmp_path)
    trained_tokenizer.to_huggingface(str(tmp_path))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == len(trained_tokenizer.vocab)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"


def test_huggingface_where_a_file_stands(small: BPETokenizer, tmp_path: Path) -> None:
    path = tmp_path / "occupied"
    path.write_text("mine")
    with pytest.raises((OSError, ValueError), match="occupied"):
        small.to_huggingface(path)
    assert path.read_text() == "mine"


def test_gpt2_in_huggingface(gpt2: BPETokenizer, tmp_path: Path) -> None:
    gpt2.to_huggingface(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode(MULTILINGUAL).ids == gpt2.encode(MULTILINGUAL)
    assert theirs.decode(theirs.encode(MULTILINGUAL).ids) == MULTILINGUAL
    assert theirs.token_to_id(END_OF_TEXT) == 50256
