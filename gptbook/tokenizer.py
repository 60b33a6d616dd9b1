# Exported from chapters/01_tokenizer.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Byte-level byte-pair encoding: text to token ids and back, exactly as GPT-2 does it."""

import codecs
import json
import numbers
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import regex

from gptbook.bpe_encoding import Encoder, merges_from_ranks
from gptbook.bpe_training import count_pieces, learn_merges
from gptbook.pretokenize import (
    GPT2_PATTERN,
    pin_unicode,
    replace_surrogates,
    special_pattern,
    split_special,
)
from gptbook.tokenizer_formats import (
    TIKTOKEN_GPT2_PATTERN,
    huggingface_json,
    read_tokenizer_file,
    tiktoken_encoding,
    write_atomically,
    write_tokenizer_file,
)

if TYPE_CHECKING:
    import tiktoken


__all__ = ["GPT2_PATTERN", "BPETokenizer", "train_bpe"]
AllowedSpecial = Literal["none", "all"] | set[str] | frozenset[str]

# --- special tokens ---


def checked_special_tokens(special_tokens: Iterable[str]) -> list[str]:
    """Return the special tokens as a list; raise for an empty one, a double one, or no str."""
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens must be a list of str, got the str {special_tokens!r}")
    tokens = list(special_tokens)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"special_tokens must hold str, got {token!r}")
        if not token or token != replace_surrogates(token):
            raise ValueError(f"special_tokens must hold text that can occur, got {token!r}")
        if len(token.encode("utf-8")) == 1:
            raise ValueError(
                f"special_tokens holds {token!r}, a single byte, which is a token already: use a "
                "longer one"
            )
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise ValueError(f"special_tokens holds {twice!r} twice")
    return tokens


# --- streams ---

CERTAIN_CUT = regex.compile(r"(?r)(?<=\p{L})(?=\P{L})|(?<=\p{N})(?=\P{N})|(?<=\S)(?=\s)")
"""The last place where GPT2_PATTERN is sure to cut, whatever follows; (?r) searches from the end.

After a letter or a number comes another kind of character, or white space begins.
"""


def last_certain_cut(text: str, seen: int, special_tokens: frozenset[str]) -> int:
    """Return how much of text can be encoded now, whatever text will follow it.

    An earlier call found no cut in text[:seen], so only its end, where a special token may stand,
    is looked at again: a long word in many chunks takes linear time.
    """
    start = max(seen - max(map(len, special_tokens), default=0) - 1, 0)
    certain, held = 0, len(text)
    if special_tokens:
        pattern = special_pattern(special_tokens)
        held = first_possible_special(text, start, special_tokens)
        while (match := pattern.search(text, start)) and match.start() < held:
            certain = start = match.end()
            held = first_possible_special(text, start, special_tokens)
    cut = CERTAIN_CUT.search(pin_unicode(text[start:held]))
    return start + cut.start() if cut else certain


def first_possible_special(text: str, start: int, special_tokens: frozenset[str]) -> int:
    """Return where the end of text may be the beginning of a special token, else its length."""
    longest = max(map(len, special_tokens)) - 1
    for position in range(max(start, len(text) - longest), len(text)):
        rest = text[position:]
        if any(len(token) > len(rest) and token.startswith(rest) for token in special_tokens):
            return position
    return len(text)


def checked_text(text: str) -> str:
    """Return text; raise TypeError if it is no str."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    return text


def whole_characters(chunks: Iterable[str]) -> Iterator[str]:
    """Yield the chunks, with a pair of surrogates that two of them share joined in the second."""
    carried = ""
    for chunk in chunks:
        text = carried + checked_text(chunk)
        carried = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        yield replace_surrogates(text.removesuffix(carried))
    yield replace_surrogates(carried)


# --- the class ---

DECODED_TOGETHER = 4096
"""Ids whose bytes are joined at a time."""


class BPETokenizer:
    """A byte-level BPE tokenizer: a vocabulary, its merges, a pattern, and special tokens.

    Build one with `train_bpe`, `from_vocab_merges`, `from_tiktoken` or `load`. It never changes
    after that, and several threads may use it at once.

    Attributes:
        vocab: each id's bytes, special tokens included.
        merges: pairs of token bytes; a pair's position is its rank, and lower ranks merge first.
        special_tokens: the id of each special token.
        pattern: the regular expression that cuts text into pieces.

    Source: chapter 1; Sennrich et al. (2016) and Radford et al. (2019).
    """

    vocab: dict[int, bytes]
    merges: list[tuple[bytes, bytes]]
    special_tokens: dict[str, int]
    pattern: str

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Mapping[str, int],
        pattern: str = GPT2_PATTERN,
    ) -> None:
        self.vocab = dict(vocab)
        self.merges = list(merges)
        self.special_tokens = dict(special_tokens)
        self.pattern = pattern
        ordinary = ordinary_vocabulary(self.vocab, self.special_tokens)
        self._all_special = frozenset(self.special_tokens)
        self._encoder = Encoder(ordinary, self.merges, pattern)

    @property
    def vocab_size(self) -> int:
        """How many ids a model must know: the largest plus one."""
        return max(self.vocab) + 1

    def __repr__(self) -> str:
        return (
            f"BPETokenizer({len(self.vocab):,} tokens, {len(self.merges):,} merges, "
            f"special_tokens={list(self.special_tokens)})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # What the encoder holds is derived from these four; a copy or another process rebuilds it.
        return type(self), self._parts()

    # Encoding

    def encode(self, text: str, allowed_special: AllowedSpecial = "none") -> list[int]:
        """Return the ids of text.

        A special token that stands in the text is text like any other, unless allowed_special is
        "all" or a set that holds it. Lone surrogates become U+FFFD, as in tiktoken.

        Raises:
            TypeError: text is not a str.
            ValueError: allowed_special names a token that is not special here.
        """
        text = checked_text(text)
        allowed = self._allowed(allowed_special)
        if not allowed:
            return self._encoder.encode_ordinary(text)
        ids: list[int] = []
        for part in split_special(replace_surrogates(text), allowed):
            if part in allowed:
                ids.append(self.special_tokens[part])
            else:
                ids.extend(self._encoder.encode_ordinary(part))
        return ids

    def encode_batch(
        self, texts: Iterable[str], allowed_special: AllowedSpecial = "none"
    ) -> list[list[int]]:
        """Return the ids of each text; see `encode`."""
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list of str, got the str {texts[:40]!r}")
        texts = [checked_text(text) for text in texts]
        if self._allowed(allowed_special):
            return [self.encode(text, allowed_special) for text in texts]
        return self._encoder.encode_batch(texts)

    def encode_stream(
        self, chunks: Iterable[str], allowed_special: AllowedSpecial = "none"
    ) -> Iterator[int]:
        """Yield the ids of the joined chunks while they arrive; equals `encode` of the whole.

        What it holds back is the text after the last place where a cut is certain. With a pattern
        other than GPT2_PATTERN no cut is certain, and it yields at the end.
        """
        return self._stream(whole_characters(chunks), self._allowed(allowed_special))

    def _stream(self, chunks: Iterator[str], allowed: frozenset[str]) -> Iterator[int]:
        waiting = ""
        for chunk in chunks:
            seen = len(waiting)
            waiting += chunk
            if self.pattern == GPT2_PATTERN:
                cut = last_certain_cut(waiting, seen, allowed)
                yield from self.encode(waiting[:cut], allowed)
                waiting = waiting[cut:]
        yield from self.encode(waiting, allowed)

    def _allowed(self, allowed_special: AllowedSpecial) -> frozenset[str]:
        if isinstance(allowed_special, str):
            if allowed_special not in ("none", "all"):
                raise ValueError(
                    f"allowed_special must be 'none', 'all' or a set, got {allowed_special!r}"
                )
            return self._all_special if allowed_special == "all" else frozenset()
        if not isinstance(allowed_special, set | frozenset):
            raise TypeError(
                "allowed_special must be 'none', 'all' or a set of special tokens, got "
                f"{type(allowed_special).__name__}"
            )
        if unknown := sorted(allowed_special - self._all_special, key=repr):
            raise ValueError(
                f"allowed_special names {unknown}, but the special tokens here are "
                f"{sorted(self.special_tokens)}"
            )
        return frozenset(allowed_special)

    # Decoding

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the tokens, which need not be valid UTF-8.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        try:
            ids = list(map(operator.index, ids))  # ints of NumPy and torch, too
        except TypeError:
            raise TypeError(f"ids must be a flat list of ints, got {ids!r:.60}") from None
        token_of = self.vocab.__getitem__
        try:  # a join of short joins copies within the cache
            return b"".join(
                b"".join(map(token_of, ids[start : start + DECODED_TOGETHER]))
                for start in range(0, len(ids), DECODED_TOGETHER)
            )
        except KeyError:
            position = next(i for i, token_id in enumerate(ids) if token_id not in self.vocab)
            raise ValueError(
                f"ids[{position}] is {ids[position]!r}, which is not in the vocabulary of "
                f"{len(self.vocab):,} tokens (largest id {self.vocab_size - 1:,})"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the tokens; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield text while ids arrive, never half a character; joined, it equals `decode`."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token_id in ids:
            if text := decoder.decode(self.decode_bytes([token_id])):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a JSON file, whole or not at all."""
        write_tokenizer_file(Path(path), *self._parts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, edited, of another version, or not ours.
        """
        return cls(**read_tokenizer_file(Path(path)))

    def to_huggingface(self, directory: str | os.PathLike[str]) -> None:
        """Write the two files that Hugging Face's tokenizers and transformers load."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tokenizer = json.dumps(huggingface_json(*self._parts()), ensure_ascii=False)
        config = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
        write_atomically(directory / "tokenizer.json", tokenizer)
        write_atomically(directory / "tokenizer_config.json", config)

    # To and from other libraries

    @classmethod
    def from_vocab_merges(
        cls,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Iterable[str] = (),
        pattern: str = GPT2_PATTERN,
    ) -> "BPETokenizer":
        """Build a tokenizer; a special token whose bytes are not in vocab gets the next id.

        Raises:
            ValueError: vocab lacks a byte or holds one token twice, or a merge names or makes a
                token that vocab lacks.
        """
        vocab = dict(vocab)
        ids = {token: token_id for token_id, token in vocab.items()}
        specials: dict[str, int] = {}
        for token in checked_special_tokens(special_tokens):
            specials[token] = ids.get(token.encode("utf-8"), max(vocab, default=-1) + 1)
            vocab[specials[token]] = token.encode("utf-8")
        return cls(vocab, merges, specials, pattern)

    @classmethod
    def from_tiktoken(cls, source: "str | tiktoken.Encoding") -> "BPETokenizer":
        """Build the tokenizer that equals one of tiktoken's, such as "gpt2".

        tiktoken keeps no merges, only the tokens in their order; the merges are found again by
        encoding each token with the ones before it.
        """
        encoding = tiktoken_encoding(source) if isinstance(source, str) else source
        if not hasattr(encoding, "_mergeable_ranks"):
            raise TypeError(f"source must be a name or a tiktoken.Encoding, got {source!r}")
        ranks: dict[bytes, int] = encoding._mergeable_ranks
        specials: dict[str, int] = encoding._special_tokens
        vocab = {token_id: token for token, token_id in ranks.items()}
        vocab |= {token_id: token.encode("utf-8") for token, token_id in specials.items()}
        pattern = encoding._pat_str
        if pattern == TIKTOKEN_GPT2_PATTERN:
            pattern = GPT2_PATTERN
        return cls(vocab, merges_from_ranks(ranks), specials, pattern)

    def to_tiktoken(self, name: str = "gptbook") -> "tiktoken.Encoding":
        """Return an equal `tiktoken.Encoding`.

        Raises:
            ValueError: tiktoken, which keeps no merges, would merge otherwise.
        """
        import tiktoken

        ordinary = ordinary_vocabulary(self.vocab, self.special_tokens)
        ids = {token: token_id for token_id, token in ordinary.items()}
        if merges_from_ranks(ids) != self.merges:
            raise ValueError(
                "tiktoken keeps no merges: it merges any two neighbors that make a token, the "
                "smallest id first, and these merges are not what that gives; every token must be "
                "made by one merge, and ids must grow with the ranks"
            )
        return tiktoken.Encoding(
            name, pat_str=self.pattern, mergeable_ranks=ids, special_tokens=self.special_tokens
        )

    def _parts(
        self,
    ) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]], dict[str, int], str]:
        return self.vocab, self.merges, self.special_tokens, self.pattern


MAX_ID = 2**31 - 1
"""The largest id that the encoder's tables hold."""


def ordinary_vocabulary(
    vocab: Mapping[int, bytes], special_tokens: Mapping[str, int]
) -> dict[int, bytes]:
    """Return the vocabulary without its special tokens, which no merge may make.

    Raises:
        TypeError: an id is no int, or a token no bytes.
        ValueError: an id is negative or too large, a token is empty or has two ids, or a special
            token is not in vocab.
    """
    for token_id, content in vocab.items():
        if type(token_id) is not int or not isinstance(content, bytes):
            raise TypeError(f"vocab must map int to bytes, got {token_id!r}: {content!r}")
        if not 0 <= token_id <= MAX_ID or not content:
            raise ValueError(
                f"vocab holds {token_id}: {content!r}, but ids are 0 to {MAX_ID}, tokens not empty"
            )
    for token, token_id in special_tokens.items():
        if vocab.get(token_id) != token.encode("utf-8"):
            raise ValueError(
                f"special token {token!r} has id {token_id}, but vocab has "
                f"{vocab.get(token_id)!r} there"
            )
    special_ids = set(special_tokens.values())
    ordinary = {i: token for i, token in vocab.items() if i not in special_ids}
    ids = {token: token_id for token_id, token in ordinary.items()}
    if len(ids) < len(ordinary):
        twice = next(token for i, token in ordinary.items() if ids[token] != i)
        raise ValueError(f"vocab holds the token {twice!r} under several ids")
    return ordinary


def train_bpe(
    sources: Iterable[str | Path],
    vocab_size: int,
    pattern: str = GPT2_PATTERN,
    special_tokens: Iterable[str] = (),
) -> BPETokenizer:
    """Learn a tokenizer from texts (str) and UTF-8 files (Path).

    Ids 0 to 255 are the bytes, then come the merges in their order, then the special tokens. The
    most frequent pair is merged first; of equally frequent ones that whose two byte strings are
    greater. There are fewer than vocab_size tokens if no pair is left to merge.

    Raises:
        ValueError: vocab_size is too small, pattern is not a regular expression or does not cover
            the text, special_tokens holds one twice, or a file is not UTF-8.
        FileNotFoundError: a file does not exist.
    """
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, numbers.Integral):
        raise TypeError(f"vocab_size must be an int, got {vocab_size!r}")
    specials = checked_special_tokens(special_tokens)
    n_merges = vocab_size - 256 - len(specials)
    if n_merges < 0:
        raise ValueError(
            f"vocab_size is {vocab_size}, but 256 bytes and {len(specials)} special tokens need at "
            f"least {256 + len(specials)}"
        )
    merges = learn_merges(count_pieces(sources, pattern, specials), n_merges)
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    return BPETokenizer.from_vocab_merges(dict(enumerate(tokens)), merges, specials, pattern)
