"""Token shards: the same bytes for any number of processes, and no damage goes unnoticed."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptbook.data import TokenShards, write_shards
from gptbook.shard_writing import chunks, encode_all, token_dtype
from gptbook.token_shards import HEADER_BYTES, tokenizer_fingerprint
from gptbook.tokenizer import BPETokenizer, train_bpe
from tests.token_texts import make_documents, make_tokenizer, slow_stream
from tests.tokenizer_texts import END_OF_TEXT

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return make_tokenizer()


@pytest.fixture
def documents(rng: random.Random) -> list[str]:
    return make_documents(rng, 60)


@pytest.fixture
def folder(documents: list[str], tokenizer: BPETokenizer, tmp_path: Path) -> Path:
    write_shards(documents, tokenizer, tmp_path / "shards", shard_tokens=300)
    return tmp_path / "shards"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- content ---


@pytest.mark.parametrize("shard_tokens", [1, 50, 300, 10_000])
def test_shards_equal_the_slow_twin(
    documents: list[str], tokenizer: BPETokenizer, tmp_path: Path, shard_tokens: int
) -> None:
    shards = write_shards(documents, tokenizer, tmp_path, shard_tokens=shard_tokens)
    expected = slow_stream(documents, tokenizer, shard_tokens)
    assert [shard.tokens.tolist() for shard in shards.shards] == expected
    assert shards.n_tokens == sum(map(len, expected))
    assert shards.n_documents == len(documents)
    found = [shards.document(i).tolist() for i in range(len(documents))]
    assert found == tokenizer.encode_batch(documents)
    for index in (-1, len(documents)):
        with pytest.raises(IndexError, match=f"document {index} of 60"):
            shards.document(index)


def test_end_of_text_in_a_document_is_text(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    text = f"the cat{END_OF_TEXT}sat"
    shards = write_shards([text], tokenizer, tmp_path)
    assert np.count_nonzero(shards.shards[0].tokens == shards.end_of_text) == 2
    assert tokenizer.decode(shards.document(0).tolist()) == text


@settings(max_examples=30)
@given(documents=st.lists(st.text(max_size=8), min_size=1), shard_tokens=st.integers(1, 40))
def test_any_documents_come_back(
    documents: list[str],
    shard_tokens: int,
    tokenizer: BPETokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    shards = write_shards(documents, tokenizer, folder, shard_tokens=shard_tokens)
    found = [tokenizer.decode(shards.document(i).tolist()) for i in range(len(documents))]
    assert found == documents


@pytest.mark.parametrize("dtype", [None, np.uint16, "uint32"])
def test_dtype(
    documents: list[str], tokenizer: BPETokenizer, tmp_path: Path, dtype: str | None
) -> None:
    shards = write_shards(documents, tokenizer, tmp_path, dtype=dtype)
    assert shards.shards[0].tokens.dtype == np.dtype(dtype or np.uint16)
    assert [shards.shards[0].tokens.tolist()] == slow_stream(documents, tokenizer, 1 << 20)


def test_dtype_holds_the_vocabulary() -> None:
    assert token_dtype(65_536, None) == np.uint16
    assert token_dtype(65_537, None) == np.uint32
    with pytest.raises(ValueError, match="too small for 65,537 ids"):
        token_dtype(65_537, "uint16")
    with pytest.raises(ValueError, match="dtype is int64, but must be uint16 or uint32"):
        token_dtype(300, "int64")


def test_tokens_are_mapped_and_read_only(folder: Path) -> None:
    tokens = TokenShards(folder).shards[0].tokens
    assert not tokens.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


# --- writing ---


def test_bytes_do_not_depend_on_the_number_of_processes(
    documents: list[str], tokenizer: BPETokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptbook.shard_writing.CHUNK_CHARACTERS", 200)
    for workers in (1, 2, 3):
        folder = tmp_path / str(workers)
        write_shards(documents, tokenizer, folder, shard_tokens=300, workers=workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2") == files_of(tmp_path / "3")


def test_chunks_hold_all_documents_in_order(documents: list[str]) -> None:
    assert [d for chunk in chunks(documents) for d in chunk] == documents
    assert list(chunks([])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_documents_are_not_read_far_ahead(
    tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def endless() -> Iterator[str]:
        while True:
            asked.append(1)
            assert len(asked) < 1000
            yield "the cat sat"

    asked: list[int] = []
    monkeypatch.setattr("gptbook.shard_writing.CHUNK_CHARACTERS", 1)
    results = encode_all(endless(), tokenizer, workers)
    for number in range(5):
        next(results)
        assert len(asked) <= number + 2 * workers + 1
    results.close()


def test_finished_shards_are_not_overwritten_by_accident(
    folder: Path, tokenizer: BPETokenizer
) -> None:
    before = files_of(folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_shards(["a"], tokenizer, folder)
    assert files_of(folder) == before
    shards = write_shards(["a"], tokenizer, folder, overwrite=True)
    assert shards.n_documents == 1
    assert sorted(files_of(folder)) == [".lock", "manifest.json", "shard-00000.tokens"]


def raising() -> Iterator[str]:
    yield from ()
    raise OSError("the texts are gone")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: "hello", TypeError),
        (list, ValueError),
        (lambda: [b"x"], Exception),
        (raising, OSError),
    ],
)
def test_finished_shards_survive_a_call_that_is_wrong(
    folder: Path,
    tokenizer: BPETokenizer,
    make: Callable[[], Iterable[str]],
    error: type[Exception],
    workers: int,
) -> None:
    before = files_of(folder)
    with pytest.raises(error):
        write_shards(make(), tokenizer, folder, overwrite=True, workers=workers)
    assert files_of(folder) == before


UNGUARDED = """
import sys
from gptbook.data import write_shards
from tests.token_texts import make_tokenizer

write_shards(["the cat"] * 9, make_tokenizer(), sys.argv[1], workers=2)
"""


def test_script_without_a_guard_ends_with_advice(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "shards")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,  # two processes import torch, on a busy machine
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "RuntimeError" in last
    assert "call it under `if __name__ == '__main__':`, or use workers=1" in last


def test_a_file_is_no_folder(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file: give a folder"):
        write_shards(["a"], tokenizer, path, overwrite=True)
    with pytest.raises(NotADirectoryError, match="give the folder that write_shards filled"):
        TokenShards(path)
    assert path.read_text() == "mine"


def test_other_files_in_the_folder_stay(folder: Path, tokenizer: BPETokenizer) -> None:
    (folder / "notes.txt").write_text("mine")
    write_shards(["a"], tokenizer, folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_arguments_out_of_range(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        write_shards(["a"], tokenizer, tmp_path, workers=0)
    with pytest.raises(ValueError, match="documents is empty"):
        write_shards([], tokenizer, tmp_path)
    with pytest.raises(TypeError, match="got the str 'text'"):
        write_shards("text", tokenizer, tmp_path)
    with pytest.raises(ValueError, match=r"train it with special_tokens=\['<\|endoftext\|>'\]"):
        write_shards(["a"], train_bpe(["a b"], 257), tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_error_in_the_documents_leaves_no_manifest(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield from ["the cat"] * 100
        raise OSError("the disk with the texts is gone")

    for workers in (1, 2):
        with pytest.raises(OSError, match="is gone"):
            write_shards(broken(), tokenizer, tmp_path, shard_tokens=20, workers=workers)
        with pytest.raises(FileNotFoundError, match="interrupted"):
            TokenShards(tmp_path)
    assert write_shards(["a"], tokenizer, tmp_path).n_documents == 1


KILLED = """
import sys, time
from pathlib import Path
from gptbook import shard_writing
from tests.token_texts import make_tokenizer

def documents():
    for number in range(100_000):  # more than are read before the test kills this, however late
        time.sleep(0.002)
        yield f"the cat {number} " * 5

if __name__ == "__main__":
    shard_writing.CHUNK_CHARACTERS = 50
    shard_writing.write_shards(
        documents(), make_tokenizer(), sys.argv[1], shard_tokens=100, workers=int(sys.argv[2])
    )
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_run_leaves_nothing_that_looks_whole(
    tmp_path: Path, tokenizer: BPETokenizer, rng: random.Random, workers: int
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folder = tmp_path / "shards"
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    wait_until(lambda: len(list(folder.glob("shard-*.tokens"))) >= 3)
    time.sleep(rng.random() * 0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(process.pid))
    with pytest.raises(FileNotFoundError, match=r"no manifest.*interrupted"):
        TokenShards(folder)
    shards = write_shards(["the cat"] * 3, tokenizer, folder)
    assert shards.n_documents == 3
    assert sorted(files_of(folder)) == [".lock", "manifest.json", "shard-00000.tokens"]


def alive(group: int) -> bool:
    """Return whether a process of the group is left, its workers included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(happened: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


# --- damage ---


def test_every_flipped_byte_is_noticed(folder: Path, rng: random.Random) -> None:
    for path in sorted(folder.glob("[ms]*")):
        content = path.read_bytes()
        for place in [*range(0, HEADER_BYTES, 3), *rng.choices(range(len(content)), k=50)]:
            damaged = bytearray(content)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=path.name):
                TokenShards(folder)
        path.write_bytes(content)
    TokenShards(folder)


def test_every_truncation_is_noticed(folder: Path) -> None:
    path = folder / "shard-00001.tokens"
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"shard-00001.tokens is .*write_shards"):
            TokenShards(folder, verify=False)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="is truncated or damaged"):
        TokenShards(folder, verify=False)


def test_missing_shard(folder: Path) -> None:
    (folder / "shard-00001.tokens").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00001.tokens: no such shard"):
        TokenShards(folder)


def test_folder_without_shards(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no manifest"):
        TokenShards(tmp_path)


def test_foreign_files(folder: Path) -> None:
    path = folder / "shard-00000.tokens"
    content = path.read_bytes()
    path.write_bytes(struct.pack("<256i", 20240520, 1, 10, *[0] * 253) + bytes(20))
    with pytest.raises(ValueError, match="is no token shard: it begins with"):
        TokenShards(folder)
    path.write_bytes(content)
    (folder / "manifest.json").write_text('{"format": "something else"}')
    with pytest.raises(ValueError, match="is no manifest of token shards"):
        TokenShards(folder)
    for text in ("[1,", "[" * 200_000):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest.json is damaged"):
            TokenShards(folder)


def test_shards_of_two_runs_mixed(
    folder: Path, documents: list[str], tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    write_shards(documents[::-1], tokenizer, tmp_path / "other", shard_tokens=300)
    shutil.copy(tmp_path / "other" / "shard-00001.tokens", folder)
    with pytest.raises(ValueError, match=r"shard-00001.tokens is not the shard"):
        TokenShards(folder)


def test_version_of_the_future(folder: Path) -> None:
    path = folder / "shard-00000.tokens"
    content = bytearray(path.read_bytes())
    content[8] = 2
    path.write_bytes(content)
    with pytest.raises(ValueError, match="has version 2 and this gptbook reads version 1"):
        TokenShards(folder)


def test_without_verification_the_content_is_not_read(folder: Path) -> None:
    path = folder / "shard-00000.tokens"
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 4] ^= 1
    path.write_bytes(content)
    TokenShards(folder, verify=False)
    with pytest.raises(ValueError, match="its content has SHA-256"):
        TokenShards(folder)


def test_other_tokenizer(folder: Path, tokenizer: BPETokenizer) -> None:
    TokenShards(folder, tokenizer)
    with pytest.raises(ValueError, match="load the tokenizer that wrote them"):
        TokenShards(folder, make_tokenizer(extra_tokens=19))


def test_fingerprint_tells_tokenizers_apart(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "t.json")
    same = BPETokenizer.load(tmp_path / "t.json")
    assert tokenizer_fingerprint(same) == tokenizer_fingerprint(tokenizer)
    parts = (tokenizer.vocab, tokenizer.merges)
    others = [
        make_tokenizer(extra_tokens=19),
        BPETokenizer(*parts, tokenizer.special_tokens, r"\S+|\s+"),
        BPETokenizer.from_vocab_merges(*parts, [END_OF_TEXT, "<|user|>"]),
    ]
    assert len({tokenizer_fingerprint(t) for t in [tokenizer, *others]}) == 4


def test_manifest_describes_the_shards(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = TokenShards(folder)
    assert [entry["n_tokens"] for entry in manifest["shards"]] == [
        len(shard.tokens) for shard in shards.shards
    ]
    assert shards.digest == manifest["sha256"]
    assert repr(shards).startswith("TokenShards(")
