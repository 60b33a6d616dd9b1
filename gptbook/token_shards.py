# Exported from chapters/02_training_data.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Token ids on disk, mapped into memory to train.

A folder holds shards and a manifest. A shard is one file (numbers are little-endian):

    256 bytes   header: magic, version, bytes per token, counts, ids, checksums
    tokens      E d d d E d d E ... d E     E is the end-of-text id, d a document's ids
    starts      for each document, the position of the E before it (8 bytes each, 8-aligned)

The E before a document is where a model learns how documents begin, the E after it where it learns
that one ends; between two documents one E is both. The manifest is written last: a folder without
it was never finished. `gptbook.shard_writing` writes such folders.
"""

import hashlib
import json
import mmap
import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbook.tokenizer import BPETokenizer

END_OF_TEXT = "<|endoftext|>"
"""The special token that stands before, between and after documents."""

MAGIC = b"GPTBOOKT"
VERSION = 1
HEADER = struct.Struct("<8sIIQQII32s32s")
HEADER_BYTES = 256
MANIFEST = "manifest.json"
REWRITE = "write the shards again with write_shards(..., overwrite=True)"

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


def tokenizer_fingerprint(tokenizer: BPETokenizer) -> str:
    """Return the SHA-256, in hexadecimal, of all that decides a tokenizer's ids.

    Two tokenizers with the same fingerprint encode every text alike, so a saved and loaded one has
    the fingerprint of the first.
    """
    content = {
        "pattern": tokenizer.pattern,
        "special_tokens": sorted(tokenizer.special_tokens.items()),
        "vocab": [(i, token.hex()) for i, token in sorted(tokenizer.vocab.items())],
        "merges": [(left.hex(), right.hex()) for left, right in tokenizer.merges],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


# --- one shard ---


@dataclass(frozen=True)
class ShardHeader:
    """What the first bytes of a shard say about the rest.

    Attributes:
        bytes_per_token: 2 or 4.
        n_tokens: all ids in the shard, end-of-text ids included.
        n_documents: how many documents they make.
        end_of_text: the id that stands between documents.
        vocab_size: every id is below it.
        tokenizer: the tokenizer's fingerprint.
        payload: the SHA-256 of what follows the header.
    """

    bytes_per_token: int
    n_tokens: int
    n_documents: int
    end_of_text: int
    vocab_size: int
    tokenizer: str
    payload: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the tokens in the file."""
        return np.dtype(f"<u{self.bytes_per_token}")

    @property
    def starts_at(self) -> int:
        """The offset in the file of the documents' starts."""
        return HEADER_BYTES + -(-self.n_tokens * self.bytes_per_token // 8) * 8

    @property
    def file_bytes(self) -> int:
        """The size of the whole file."""
        return self.starts_at + 8 * self.n_documents

    def pack(self) -> bytes:
        """Return the header as it stands in the file, with a checksum of its own at the end."""
        *numbers, tokenizer, payload = asdict(self).values()
        hashes = bytes.fromhex(tokenizer), bytes.fromhex(payload)
        content = HEADER.pack(MAGIC, VERSION, *numbers, *hashes).ljust(HEADER_BYTES - 32, b"\0")
        return content + hashlib.sha256(content).digest()

    @classmethod
    def unpack(cls, data: bytes, path: Path) -> "ShardHeader":
        """Read the header in the first bytes of the file at path.

        Raises:
            ValueError: the bytes are no header, of another version, or damaged.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError(
                f"{path} is no token shard: it begins with {data[: len(MAGIC)]!r}, not {MAGIC!r}; "
                "give the folder that write_shards filled"
            )
        if len(data) < HEADER_BYTES:
            raise ValueError(f"{path} is truncated: it has {len(data)} bytes; {REWRITE}")
        _, version, size, n_tokens, n_documents, end_of_text, vocab_size, tokenizer, payload = (
            HEADER.unpack(data[: HEADER.size])
        )
        if version != VERSION:
            raise ValueError(
                f"{path} has version {version} and this gptbook reads version {VERSION}: {REWRITE}"
            )
        content, digest = data[: HEADER_BYTES - 32], data[HEADER_BYTES - 32 : HEADER_BYTES]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError(f"{path} is damaged: the checksum of its header is wrong; {REWRITE}")
        counts = (size, n_tokens, n_documents, end_of_text, vocab_size)
        return cls(*counts, tokenizer.hex(), payload.hex())


@dataclass(frozen=True)
class Shard:
    """A shard mapped into memory: what is read of it, the system loads when it is touched.

    Attributes:
        header: what the file says of itself.
        tokens: all ids, (n_tokens,), read-only.
        starts: for each document, where in tokens the end-of-text id before it stands.
    """

    path: Path
    header: ShardHeader
    tokens: Tokens
    starts: NDArray[np.uint64]

    @classmethod
    def open(cls, path: Path, *, verify: bool) -> "Shard":
        """Map a shard; with verify, read it once and compare its checksum.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is truncated, damaged, of another version, or no shard.
        """
        try:
            with open(path, "rb") as file:
                header = ShardHeader.unpack(file.read(HEADER_BYTES), path)
                size = path.stat().st_size
                if size != header.file_bytes:
                    raise ValueError(
                        f"{path} is truncated or damaged: it has {size:,} bytes, and its header "
                        f"speaks of {header.file_bytes:,}; {REWRITE}"
                    )
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path}: no such shard, but the manifest names it; {REWRITE}"
            ) from None
        tokens = np.frombuffer(content, header.dtype, header.n_tokens, HEADER_BYTES)
        starts = np.frombuffer(content, "<u8", header.n_documents, header.starts_at)
        if verify:
            found = hashlib.sha256(memoryview(content)[HEADER_BYTES:]).hexdigest()
            if found != header.payload:
                raise ValueError(
                    f"{path} is damaged: its content has SHA-256 {found}, and its header says "
                    f"{header.payload}; {REWRITE}"
                )
        return cls(path, header, tokens, starts)

    def document(self, index: int) -> Tokens:
        """Return a document's ids, (its length,), without the end-of-text ids around it."""
        start = int(self.starts[index]) + 1
        is_last = index == len(self.starts) - 1
        end = self.header.n_tokens - 1 if is_last else int(self.starts[index + 1])
        return self.tokens[start:end]


# --- the folder ---


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all of a manifest but its checksum."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def manifest_of(headers: Mapping[str, ShardHeader]) -> dict[str, Any]:
    """Return the manifest of the shards with these file names."""
    shards = [{"file": name, **asdict(header)} for name, header in headers.items()]
    manifest = {"format": "gptbook-token-shards", "version": VERSION, "shards": shards}
    return {**manifest, "sha256": manifest_checksum(manifest)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        FileNotFoundError: there is none.
        NotADirectoryError: folder is a file.
        ValueError: it is damaged, or not ours.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: give the folder that write_shards filled")
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no manifest, so this is no folder of token shards, or writing them was "
            "interrupted; run write_shards (again)"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no manifest ({error}); {REWRITE}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "gptbook-token-shards":
        raise ValueError(f"{path} is no manifest of token shards; give another folder")
    if manifest.get("sha256") != manifest_checksum(manifest):
        raise ValueError(f"{path} was changed after it was written: wrong checksum; {REWRITE}")
    if manifest.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {manifest.get('version')!r} and this gptbook reads {VERSION}: "
            f"{REWRITE}"
        )
    return manifest


class TokenShards:
    """A tokenized corpus on disk. Opening it checks everything; then it is only read.

    Attributes:
        folder: where it is.
        shards: its files, mapped.
        n_tokens: all ids, end-of-text ids included.
        n_documents: the documents in all shards.
        end_of_text: the id between documents.
        vocab_size: every id is below it.
        tokenizer_fingerprint: of the tokenizer that made the ids.
        digest: the SHA-256 of the manifest; equal for equal content.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        tokenizer: BPETokenizer | None = None,
        *,
        verify: bool = True,
    ) -> None:
        """Open the shards in a folder.

        Args:
            folder: what write_shards filled.
            tokenizer: if given, it must be the one that made the ids.
            verify: read every byte once (about 1 GB/s) and compare checksums. Without it, sizes
                and headers are checked still.

        Raises:
            FileNotFoundError: the folder is not finished, or a shard is missing.
            NotADirectoryError: folder is a file.
            ValueError: a file is damaged, truncated or foreign, or tokenizer is another one.
        """
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        self.digest: str = manifest["sha256"]
        self.shards = [self._open(dict(entry), verify) for entry in manifest["shards"]]
        header = self.shards[0].header
        self.end_of_text = header.end_of_text
        self.vocab_size = header.vocab_size
        self.tokenizer_fingerprint = header.tokenizer
        self.n_tokens = sum(shard.header.n_tokens for shard in self.shards)
        self._ends = list(accumulate(shard.header.n_documents for shard in self.shards))
        self.n_documents = self._ends[-1]
        if tokenizer is not None:
            self.check_tokenizer(tokenizer)

    def _open(self, entry: dict[str, Any], verify: bool) -> Shard:
        path = self.folder / entry.pop("file")
        shard = Shard.open(path, verify=verify)
        if asdict(shard.header) != entry:
            raise ValueError(
                f"{path} is not the shard of that name that the manifest describes: it was "
                f"replaced by another; {REWRITE}"
            )
        return shard

    def check_tokenizer(self, tokenizer: BPETokenizer) -> None:
        """Raise ValueError unless this is the tokenizer that made the ids."""
        found = tokenizer_fingerprint(tokenizer)
        if found != self.tokenizer_fingerprint:
            raise ValueError(
                f"{self.folder} holds ids of the tokenizer with fingerprint "
                f"{self.tokenizer_fingerprint[:12]}... and this one has {found[:12]}...: load the "
                "tokenizer that wrote them, or write the shards again with this one"
            )

    def __repr__(self) -> str:
        return (
            f"TokenShards({str(self.folder)!r}: {self.n_tokens:,} tokens, "
            f"{self.n_documents:,} documents, {len(self.shards)} shards)"
        )

    def document(self, index: int) -> Tokens:
        """Return the ids of document index (0 to n_documents - 1), without end-of-text ids.

        Raises:
            IndexError: there is no such document.
        """
        if not 0 <= index < self.n_documents:
            raise IndexError(f"document {index} of {self.n_documents:,}")
        number = bisect_right(self._ends, index)
        shard = self.shards[number]
        return shard.document(index - self._ends[number] + shard.header.n_documents)
