"""Exercise 1.5: training with pair counts that are kept up to date: its checks."""

import heapq
import random
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

from gptbook.grading.ch01_tokenizer import training
from gptbook.grading.ch01_tokenizer.training import legal, train_bpe
from gptbook.grading.exercise import (
    Args,
    Check,
    Draw,
    Kind,
    Make,
    growth,
    oracle,
    source_of,
)
from gptbook.grading.limits import Limits

Pair = tuple[bytes, bytes]

ON_TEXT = "Training on real text"
BY_HAND = "Byte-pair encoding by hand"


class Backwards:
    """A pair that sorts before another where its bytes are greater, for a heap."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def __lt__(self, other: "Backwards") -> bool:
        return self.pair > other.pair


def learn_merges(piece_counts: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Learn merges, updating only the counts that a merge changes."""
    pieces = [([bytes([byte]) for byte in piece], n) for piece, n in piece_counts.items()]
    counts: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, (tokens, count) in enumerate(pieces):
        for pair in pairwise(tokens):
            counts[pair] += count
            places[pair].add(index)
    heap = [(-count, Backwards(pair)) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        count, entry = heapq.heappop(heap)
        best = entry.pair
        if -count != counts[best] or count == 0:
            continue  # its count has changed since it was pushed
        merges.append(best)
        changed = set()
        for index in places.pop(best):
            tokens, weight = pieces[index]
            for pair in pairwise(tokens):
                counts[pair] -= weight
                changed.add(pair)
            tokens = merge_pair(tokens, best)
            pieces[index] = tokens, weight
            for pair in pairwise(tokens):
                counts[pair] += weight
                places[pair].add(index)
                changed.add(pair)
        for pair in changed:
            heapq.heappush(heap, (-counts[pair], Backwards(pair)))
    return merges


def merge_pair(tokens: list[bytes], pair: Pair) -> list[bytes]:
    """Replace each occurrence of a pair, from the left, by the joined token."""
    merged, place = [], 0
    while place < len(tokens):
        if tuple(tokens[place : place + 2]) == pair:
            merged.append(tokens[place] + tokens[place + 1])
            place += 2
        else:
            merged.append(tokens[place])
            place += 1
    return merged


# --- inputs ---


def draw_common(stream: random.Random) -> list[Args]:
    """Pieces in which no byte repeats, long enough for merges of merges, and no ties."""
    cases: list[Args] = []
    while len(cases) < 12:
        letters = stream.sample(range(256), 5)
        pieces = {
            bytes(stream.sample(letters, stream.randint(3, 5))): stream.randint(1, 10**4)
            for _ in range(20)
        }
        steps = training.first_tie(pieces, 16)
        if steps >= 10:
            cases.append((pieces, steps))
    return cases


def draw_neighbors(stream: random.Random) -> list[Args]:
    """Pieces where merged pairs stand side by side, and runs; no ties."""
    cases: list[Args] = training.draw_repeats(stream)
    while len(cases) < 24:
        letters = stream.sample(range(256), 3)
        pieces = {
            bytes(stream.choices(letters, k=stream.randint(3, 12))): stream.randint(1, 10**4)
            for _ in range(12)
        }
        steps = training.first_tie(pieces, 12)
        if steps >= 8:
            cases.append((pieces, steps))
    return cases


def draw_more_text(stream: random.Random, size: int) -> Args:
    """Random words, and merges that each stand in one short piece and nowhere else.

    What a merge touches is thus the same at all sizes, and so is the number of different pairs.
    """
    letters = b"abcdefghijklmnopqrstuvwx"
    words = {bytes(stream.choices(letters, k=8)) for _ in range(12 * size)}
    pieces = {word: stream.randint(1, 100) for word in sorted(words)}
    n_merges = size // 2
    for rank, number in enumerate(stream.sample(range(1 << 14), n_merges)):
        pieces[bytes([128 + number // 128, 128 + number % 128])] = 10**5 + 3 * rank
    return pieces, n_merges


def draw_more_pairs(stream: random.Random, size: int) -> Args:
    """Pieces of random bytes: with the text, the number of different pairs grows."""
    pieces = {stream.randbytes(3): stream.randint(1, 1000) for _ in range(5 * size)}
    return pieces, size


FORM = training.FORM
COMMON = "counts stay right from merge to merge"
NEIGHBORS = "pairs side by side, and runs"
TIES = training.TIES
ENDS = training.ENDS
TEXT = "time follows the text, not text times merges"
PAIRS = "the best pair is found without looking at all"

SLOW = Limits(cpu_seconds=15, wall_seconds=60.0)


def _oracle(name: str, points: int, draw: Draw, hint: int) -> Check:
    return oracle(name, points, draw, train_bpe, needs=(FORM,), legal=legal, hint=hint)


def _growth(name: str, points: int, make: Make, smallest: int, steepest: float, hint: int) -> Check:
    """Of what is wrong the speed says nothing; ties are another matter.

    Measured 20 times with both cores busy: with more text, functions that follow the text took
    time like size to the 0.6 to 1.2 (deviation 0.1) and one that counts anew 1.7 to 2.2; with more
    pairs, a heap took 0.8 to 1.3 and `max` 1.6 to 2.0. A right function fails three attempts in
    fewer than one of 10**9 gradings.
    """
    sizes = [smallest * factor for factor in (1, 2, 4, 8)]
    needs = (COMMON, NEIGHBORS)
    return growth(name, points, make, sizes, steepest, needs=needs, limits=SLOW, hint=hint)


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, training.draw_small, training.is_list_of_pairs, pure=True),
    _oracle(COMMON, 2, draw_common, 2),
    _oracle(NEIGHBORS, 2, draw_neighbors, 3),
    _oracle(TIES, 1, training.draw_ties, 4),
    _oracle(ENDS, 1, training.draw_ends, 4),
    _growth(TEXT, 3, draw_more_text, 16, 1.4, 1),
    _growth(PAIRS, 2, draw_more_pairs, 20, 1.45, 4),
)

REFERENCE = source_of(learn_merges)
