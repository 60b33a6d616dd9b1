"""Byte-pair encoding by brute force: the oracle that the tests compare ``gptbook.tokenizer`` with.

Nothing here is clever. Training recounts every adjacent pair of every piece at every step, encoding
looks at every adjacent pair before every merge, and splitting is one call of ``findall``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import regex

from gptbook.tokenizer import BPETokenizer

Pair = tuple[bytes, bytes]


def replace_surrogates(text: str) -> str:
    """Join surrogate pairs and turn lone surrogates into U+FFFD, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_special(text: str, special_tokens: Iterable[str]) -> list[str]:
    """Cut ``text`` at its special tokens, longest first: text, special, ..., special, text."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    if not longest_first:
        return [text]
    either = "|".join(regex.escape(token) for token in longest_first)
    return regex.split(f"({either})", text)


def split_pieces(text: str, pattern: str) -> list[str]:
    """Return the pieces of plain text; no merge ever crosses from one to the next."""
    pieces: list[str] = regex.findall(pattern, text)
    assert "".join(pieces) == text, "the reference needs a pattern that covers the text"
    return pieces


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def merge_pair(parts: Sequence[bytes], pair: Pair) -> list[bytes]:
    """Replace each occurrence of ``pair`` by one part, from left to right."""
    merged: list[bytes] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return merged


def count_pairs(words: Iterable[Sequence[bytes]]) -> Counter[Pair]:
    """Count adjacent positions: ``aaa`` holds the pair ``(a, a)`` twice."""
    return Counter(pair for word in words for pair in pairwise(word))


def train(
    texts: Iterable[str], merge_count: int, pattern: str, special_tokens: Sequence[str] = ()
) -> list[Pair]:
    """Return at most ``merge_count`` merges; ties go to the lexicographically greater pair."""
    words = [
        single_bytes(piece.encode())
        for text in texts
        for part in split_special(replace_surrogates(text), special_tokens)
        if part not in special_tokens
        for piece in split_pieces(part, pattern)
    ]
    merges: list[Pair] = []
    while len(merges) < merge_count:
        counts = count_pairs(words)
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        words = [merge_pair(word, best) for word in words]
    return merges


def encode_piece(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Merge the adjacent pair whose token has the lowest rank until no pair makes a token."""
    parts = single_bytes(piece)
    while True:
        known = [pair for pair in pairwise(parts) if pair[0] + pair[1] in ranks]
        if not known:
            return [ranks[part] for part in parts]
        parts = merge_pair(parts, min(known, key=lambda pair: ranks[pair[0] + pair[1]]))


def encode(
    text: str, ranks: Mapping[bytes, int], pattern: str, special_tokens: Mapping[str, int]
) -> list[int]:
    """Encode with every token of ``special_tokens`` allowed; pass ``{}`` to allow none."""
    ids: list[int] = []
    for part in split_special(replace_surrogates(text), special_tokens):
        if part in special_tokens:
            ids.append(special_tokens[part])
        else:
            for piece in split_pieces(part, pattern):
                ids.extend(encode_piece(piece.encode(), ranks))
    return ids


def encode_with(tokenizer: BPETokenizer, text: str, *, special: bool = False) -> list[int]:
    """Encode by brute force with the ranks of ``tokenizer``."""
    special_ids = set(tokenizer.special_tokens.values())
    ranks = {token: i for i, token in tokenizer.vocab.items() if i not in special_ids}
    specials = tokenizer.special_tokens if special else {}
    return encode(text, ranks, tokenizer.pattern, specials)
