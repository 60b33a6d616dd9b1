"""What the tests of token shards and loaders share: documents, a tokenizer, slow twins."""

import hashlib
import random
from pathlib import Path

from gptbook.shard_writing import write_shards
from gptbook.token_shards import TokenShards
from gptbook.tokenizer import BPETokenizer, train_bpe
from tests.tokenizer_texts import END_OF_TEXT

SENTENCE = "the cat sat under a red kite , and Mira ran over it . a dog saw the river !"
WORDS = SENTENCE.split()


def make_documents(rng: random.Random, n: int, longest: int = 40) -> list[str]:
    """Return n texts of up to `longest` words, a few of them empty or with special tokens."""
    documents = [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(n)]
    for odd in ("", "x" + END_OF_TEXT, "日本 é"):
        documents[rng.randrange(n)] = odd
    return documents


def make_tokenizer(extra_tokens: int = 20) -> BPETokenizer:
    """Return a small tokenizer with an end-of-text token."""
    text = " ".join(WORDS * 3)
    return train_bpe([text], 257 + extra_tokens, special_tokens=[END_OF_TEXT])


Streams = list[list[int]]


def slow_stream(documents: list[str], tokenizer: BPETokenizer, shard_tokens: int) -> Streams:
    """Return the ids of each shard: the slow twin of write_shards."""
    end = tokenizer.special_tokens[END_OF_TEXT]
    shards: Streams = [[]]
    for document in documents:
        ids = tokenizer.encode(document)
        if shards[-1] and len(shards[-1]) + len(ids) + 2 > shard_tokens:
            shards.append([])
        shards[-1] += [end, *ids]
    return [[*shard, end] for shard in shards]


def shards_of(
    documents: list[str], tokenizer: BPETokenizer, folder: Path, shard_tokens: int = 1 << 20
) -> TokenShards:
    return write_shards(documents, tokenizer, folder, shard_tokens=shard_tokens)


# --- the slow twin of Loader ---

MASK = 2**64 - 1


def slow_order(n: int, seed: int, epoch: int) -> list[int]:
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little")

    def scrambled(number: int) -> int:
        x = (number * 0x9E3779B97F4A7C15 + key) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    return sorted(range(n), key=scrambled)


Row = dict[str, list[int]]


def slow_row(tokens: list[int], start: int, length: int, end_of_text: int) -> Row:
    """Return one row of a batch, token by token."""
    row: Row = {"inputs": [], "targets": [], "positions": [], "document_ids": []}
    position, document = 0, 0
    for offset in range(length):
        token = tokens[start + offset]
        if token == end_of_text and offset > 0:
            position, document = 0, document + 1
        row["inputs"].append(token)
        row["targets"].append(tokens[start + offset + 1])
        row["positions"].append(position)
        row["document_ids"].append(document)
        position += 1
    return row


def slow_epoch(
    shards: Streams,
    batch_size: int,
    context_length: int,
    end_of_text: int,
    order: list[int],
    rank: int = 0,
    world_size: int = 1,
) -> list[list[Row]]:
    """Return the batches of an epoch, each a list of rows."""
    windows = [
        (tokens, start)
        for tokens in shards
        for start in range(0, len(tokens) - context_length, context_length)
    ]
    rows = [slow_row(*windows[number], context_length, end_of_text) for number in order]
    step = batch_size * world_size
    return [
        rows[first + rank * batch_size : first + (rank + 1) * batch_size]
        for first in range(0, len(rows) - step + 1, step)
    ]
