# Exported from chapters/02_training_data.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Turn documents into token shards, with several processes and safe against being killed."""

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from itertools import chain
from multiprocessing import current_process, get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from gptbook.download import locked
from gptbook.token_shards import (
    END_OF_TEXT,
    MANIFEST,
    ShardHeader,
    TokenShards,
    manifest_of,
    tokenizer_fingerprint,
)
from gptbook.tokenizer import BPETokenizer

CHUNK_CHARACTERS = 1 << 20
"""Text that goes to a process at a time."""

GUARD = (
    "write_shards(workers=...) starts processes that import your script: call it under "
    "`if __name__ == '__main__':`, or use workers=1"
)


class Encoded(NamedTuple):
    """The ids of some documents, one after the other, and each document's length."""

    ids: NDArray[np.uint32]
    lengths: list[int]


# --- many processes, one order ---

_worker_tokenizer: BPETokenizer | None = None


def start_worker(tokenizer: BPETokenizer) -> None:
    """Prepare a process to encode; it ends when the process that started it does."""
    global _worker_tokenizer
    _worker_tokenizer = tokenizer
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the parent to end, however it ends, and then end this process."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def encode_in_worker(texts: list[str]) -> Encoded:
    """Encode with the tokenizer that start_worker was given."""
    assert _worker_tokenizer is not None
    return encode(_worker_tokenizer, texts)


def encode(tokenizer: BPETokenizer, texts: list[str]) -> Encoded:
    """Encode documents; a special token in a text is text."""
    batch = tokenizer.encode_batch(texts)
    ids = [np.array(document, np.uint32) for document in batch]
    return Encoded(np.concatenate(ids), [len(document) for document in batch])


def chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Yield the documents in lists of about CHUNK_CHARACTERS."""
    if isinstance(documents, str):
        raise TypeError(f"documents must be several texts, got the str {documents[:40]!r}")
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document) + 1
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def encode_all(
    documents: Iterable[str], tokenizer: BPETokenizer, workers: int
) -> Generator[Encoded, None, None]:
    """Yield the encoded documents in their order, whatever the number of processes.

    At most two chunks a process are under way, so that documents without end do not fill memory.

    Raises:
        RuntimeError: a process was killed, or ended because it could not import the script.
    """
    if workers == 1:
        yield from (encode(tokenizer, chunk) for chunk in chunks(documents))
        return
    # "spawn" is the only way to start processes that is safe beside threads and on every system
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=start_worker, initargs=(tokenizer,)
    ) as pool:
        waiting: deque[Future[Encoded]] = deque()
        try:
            for chunk in chunks(documents):
                waiting.append(pool.submit(encode_in_worker, chunk))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process that encodes ended before its work did. {GUARD}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


# --- files, whole or not at all ---


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file beside its place, make sure that it is on the disk, and move it there."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # not there any more if all went well
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that a new name in the folder is on the disk, where the system can do that."""
    with suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_shards(folder: Path) -> None:
    """Remove what an earlier write left, the manifest first, so that nothing is taken for whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for pattern in ("shard-*.tokens", ".shard-*.tokens.tmp", f".{MANIFEST}.tmp"):
        for path in folder.glob(pattern):
            path.unlink()


# --- shards ---


class ShardWriter:
    """Collects documents and writes a shard whenever the next one would make it too long."""

    def __init__(
        self, folder: Path, tokenizer: BPETokenizer, dtype: np.dtype[Any], shard_tokens: int
    ) -> None:
        self.headers: dict[str, ShardHeader] = {}
        self.n_tokens = 0  # in all shards so far
        self._folder = folder
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._vocab_size = tokenizer.vocab_size
        self._fingerprint = tokenizer_fingerprint(tokenizer)
        self._end_of_text = tokenizer.special_tokens[END_OF_TEXT]
        self._separator = np.array([self._end_of_text], dtype)
        self._begin()

    def _begin(self) -> None:
        self._pieces: list[NDArray[Any]] = []  # of the shard that is being collected
        self._starts: list[int] = []
        self._length = 0

    def add(self, encoded: Encoded) -> None:
        """Add documents."""
        end = 0
        for length in encoded.lengths:
            start, end = end, end + length
            if self._starts and self._length + length + 2 > self._shard_tokens:
                self.write()
            self._starts.append(self._length)
            self._pieces += [self._separator, encoded.ids[start:end].astype(self._dtype)]
            self._length += 1 + length

    def write(self) -> None:
        """Write the documents collected so far as a shard, if there are any."""
        if not self._starts:
            return
        tokens = np.concatenate([*self._pieces, self._separator])
        padding = bytes(-tokens.nbytes % 8)
        starts = np.array(self._starts, "<u8")
        payload = hashlib.sha256(tokens.data)
        payload.update(padding)
        payload.update(starts.data)
        header = ShardHeader(
            bytes_per_token=self._dtype.itemsize,
            n_tokens=len(tokens),
            n_documents=len(starts),
            end_of_text=self._end_of_text,
            vocab_size=self._vocab_size,
            tokenizer=self._fingerprint,
            payload=payload.hexdigest(),
        )
        name = f"shard-{len(self.headers):05d}.tokens"
        write_whole(self._folder / name, header.pack(), tokens.data, padding, starts.data)
        self.headers[name] = header
        self.n_tokens += len(tokens)
        self._begin()


def token_dtype(vocab_size: int, wanted: DTypeLike | None) -> np.dtype[Any]:
    """Return the type of the ids in a file: the smaller of uint16 and uint32 that holds them.

    Raises:
        ValueError: wanted is another type, or too small.
    """
    fits = "uint16" if vocab_size <= 1 << 16 else "uint32"
    dtype = np.dtype(wanted or fits)
    if dtype not in (np.uint16, np.uint32):
        raise ValueError(f"dtype is {dtype}, but must be uint16 or uint32")
    if vocab_size > np.iinfo(dtype).max + 1:
        raise ValueError(f"dtype is {dtype}, too small for {vocab_size:,} ids: leave it out")
    return dtype.newbyteorder("<")


def write_shards(
    documents: Iterable[str],
    tokenizer: BPETokenizer,
    folder: str | os.PathLike[str],
    *,
    dtype: DTypeLike | None = None,
    shard_tokens: int = 1 << 26,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> TokenShards:
    """Encode documents and write them into a folder as shards; return them, opened.

    The files are the same, byte for byte, for any number of workers. A run that is killed leaves no
    manifest, so that nothing takes its shards for whole, and the next run begins again. Another
    process that writes into the folder waits.

    Args:
        documents: texts; they are read once, and need not fit in memory.
        tokenizer: must have the special token `<|endoftext|>`.
        folder: made if it does not exist.
        dtype: uint16 or uint32; by default the smaller one that holds the vocabulary.
        shard_tokens: no shard is longer, unless it holds a single document.
        workers: processes that encode; 1 encodes in this one. A script that asks for more must do
            so under `if __name__ == "__main__":`, because each process imports it.
        overwrite: replace the shards that the folder has; they are removed when the first documents
            of the new ones are encoded.
        progress: show a bar.

    Raises:
        FileExistsError: the folder holds finished shards, and overwrite is false.
        ValueError: there are no documents, the tokenizer has no `<|endoftext|>`, or an argument is
            out of range.
        NotADirectoryError: folder is a file.
        RuntimeError: a process that encodes was killed, or workers is above 1 in a script without
            `if __name__ == "__main__":`.
        OSError: the disk is full or cannot be written to.
    """
    if END_OF_TEXT not in tokenizer.special_tokens:
        raise ValueError(
            f"the tokenizer has no special token {END_OF_TEXT}: train it with "
            f"special_tokens=[{END_OF_TEXT!r}]"
        )
    if workers < 1 or shard_tokens < 1:
        raise ValueError(f"workers is {workers}, shard_tokens {shard_tokens}; both are at least 1")
    if workers > 1 and getattr(current_process(), "_inheriting", False):
        raise RuntimeError(GUARD)  # this is such a process, importing the script
    folder = Path(folder)
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: give a folder to write the shards into")
    writer = ShardWriter(folder, tokenizer, token_dtype(tokenizer.vocab_size, dtype), shard_tokens)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if (folder / MANIFEST).exists() and not overwrite:
            raise FileExistsError(
                f"{folder} holds finished shards: open them with TokenShards, choose another "
                "folder, or pass overwrite=True"
            )
        with closing(encode_all(documents, tokenizer, workers)) as results:
            first = next(results, None)
            if first is None:
                raise ValueError("documents is empty: there is nothing to write")
            remove_shards(folder)  # not sooner: a call that is wrong must not cost finished shards
            for encoded in tqdm(chain([first], results), unit=" chunks", disable=not progress):
                writer.add(encoded)
        writer.write()
        manifest = json.dumps(manifest_of(writer.headers), indent=1)
        write_whole(folder / MANIFEST, manifest.encode())
    return TokenShards(folder, verify=False)
