"""Exercise 1.5: wrong and other right ways to keep pair counts up to date."""

from gptbook.grading.ch01_tokenizer import training
from gptbook.grading.ch01_tokenizer.fast_training import BY_HAND, CHECKS, ON_TEXT, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited

# Where a wrong version meets a pair again that it has merged before.
AGAIN = ("places.pop(best)", "places.pop(best, set())")
UPDATE = "                counts[pair] -= weight\n"

NEIGHBORS_SOURCE = '''
import heapq


def learn_merges(piece_counts, n_merges):
    words = [([bytes([b]) for b in piece], n) for piece, n in piece_counts.items()]
    counts, where = {}, {}
    for w, (tokens, n) in enumerate(words):
        for pair in zip(tokens, tokens[1:]):
            counts[pair] = counts.get(pair, 0) + n
            where.setdefault(pair, set()).add(w)
    heap = [entry(count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merges:
        count, _, pair = heapq.heappop(heap)
        if counts.get(pair, 0) != -count:
            continue
        merges.append(pair)
        (a, b), ab, touched = pair, pair[0] + pair[1], set()

        def add(pair, n, w):
            counts[pair] = counts.get(pair, 0) + n
            where.setdefault(pair, set()).add(w)
            touched.add(pair)

        for w in sorted(where.pop(pair)):
            tokens, n = words[w]
            i = 0
            while i < len(tokens) - 1:
                if (tokens[i], tokens[i + 1]) == pair:
                    if i > 0:
                        add((tokens[i - 1], a), -n, w)
                        add((tokens[i - 1], ab), n, w)
                    if i + 2 < len(tokens):
                        add((b, tokens[i + 2]), -n, w)
                        add((ab, tokens[i + 2]), n, w)
                    tokens[i : i + 2] = [ab]
                i += 1
        counts.pop(pair)
        where.pop(pair, None)
        for new in touched - {pair}:
            if counts[new] > 0:
                heapq.heappush(heap, entry(counts[new], new))
    return merges


def entry(count, pair):
    """Sorts by falling count, then by falling bytes; 256 ends a token after all of its bytes."""
    return -count, [(*(255 - byte for byte in token), 256) for token in pair], pair
'''

MISTAKES = (
    Mistake(
        "The neighbors' old counts stay",
        "The merge takes its two tokens away from their neighbors, and you leave those pairs' "
        "counts as they were. Subtract the pair on the left and the pair on the right.",
        ON_TEXT,
        10,
        edited(
            REFERENCE,
            AGAIN,
            (
                UPDATE,
                "                if pair == best:\n                    counts[pair] -= weight\n",
            ),
            (
                "                counts[pair] += weight\n",
                "                if best[0] + best[1] in pair:\n"
                "                    counts[pair] += weight\n",
            ),
        ),
    ),
    Mistake(
        "Pairs with the new token are not counted",
        "After a merge the new token has neighbors, and you never count those pairs, so no merge "
        "builds on another. Add the pair on its left and the pair on its right.",
        ON_TEXT,
        10,
        edited(
            REFERENCE,
            AGAIN,
            (
                "                counts[pair] += weight\n",
                "                if best[0] + best[1] in pair:\n"
                "                    continue\n"
                "                counts[pair] += weight\n",
            ),
        ),
    ),
    Mistake(
        "Updates forget how often the piece occurs",
        "The first counts are weighted by the pieces' counts, and the updates are not: they add "
        "and subtract 1. Use the piece's count in both.",
        ON_TEXT,
        11,
        edited(
            REFERENCE,
            AGAIN,
            (UPDATE, "                counts[pair] -= 1\n"),
            ("                counts[pair] += weight\n", "                counts[pair] += 1\n"),
        ),
    ),
    Mistake(
        "Places of new pairs are forgotten",
        "You count the pairs of the new token but do not note where they stand, so merging one of "
        "them changes nothing. Update the places wherever you update the counts.",
        ON_TEXT,
        10,
        edited(
            REFERENCE,
            AGAIN,
            (
                "                counts[pair] += weight\n                places[pair].add(index)\n",
                "                counts[pair] += weight\n",
            ),
        ),
    ),
    Mistake(
        "Outdated entries of the heap are used",
        "A heap keeps entries with counts that have changed since, and you merge whatever comes "
        "up. Skip an entry whose count is not the pair's count of today.",
        ON_TEXT,
        11,
        edited(
            REFERENCE,
            AGAIN,
            (
                "        if -count != counts[best] or count == 0:\n            continue",
                "        if 0:\n            continue",
            ),
        ),
    ),
    Mistake(
        "Pairs that are gone are merged",
        "Pairs whose count has fallen to 0 are still in the heap, and at the end of the text you "
        "merge them. Skip what has no occurrence left.",
        ON_TEXT,
        1,
        edited(REFERENCE, AGAIN, (" or count == 0:", ":")),
    ),
    Mistake(
        "Ties go to the smaller pair",
        "A heap of (-count, pair) gives the least pair of equally frequent ones, and the rule "
        "wants the greatest. Turn the order of the bytes around as well.",
        BY_HAND,
        1,
        edited(REFERENCE, ("return self.pair > other.pair", "return self.pair < other.pair")),
    ),
    Mistake(
        "Neighbors that were merged in the same step",
        "Where the pair stands twice in a row, its neighbor is the new token and not the old one, "
        "and you update the old one's count. Update from left to right, on the changed tokens.",
        ON_TEXT,
        7,
        edited(
            NEIGHBORS_SOURCE,
            (
                "            tokens, n = words[w]\n            i = 0\n",
                "            tokens, n = words[w]\n            old, new_tokens = tokens, []\n"
                "            i = 0\n",
            ),
            ("            while i < len(tokens) - 1:\n", "            while i < len(tokens):\n"),
            (
                "                if (tokens[i], tokens[i + 1]) == pair:\n",
                "                if tuple(tokens[i : i + 2]) == pair:\n",
            ),
            (
                "                    tokens[i : i + 2] = [ab]\n                i += 1\n",
                "                    new_tokens.append(ab)\n                    i += 2\n"
                "                else:\n                    new_tokens.append(old[i])\n"
                "                    i += 1\n            words[w] = new_tokens, n\n",
            ),
            (
                "        counts.pop(pair)\n        where.pop(pair, None)\n",
                "        counts.pop(pair)\n",
            ),
            ("where.pop(pair))", "where.pop(pair, ()))"),
        ),
    ),
    Mistake(
        "The merged pair keeps its count",
        "The pair that was just merged is still the most frequent, so it is merged again and "
        "again. Take its count away.",
        ON_TEXT,
        11,
        edited(
            REFERENCE,
            AGAIN,
            (
                UPDATE,
                "                if pair != best:\n                    counts[pair] -= weight\n",
            ),
        ),
    ),
    Mistake(
        "Fails when no pair is left",
        "The heap runs empty before there are enough merges, and taking from it raises IndexError. "
        "Stop when it is empty.",
        ON_TEXT,
        1,
        edited(REFERENCE, ("while heap and len(merges)", "while len(merges)")),
    ),
    Mistake(
        "Each merge goes through everything",
        "Something is searched from end to end at each merge, such as all pieces or a whole heap, "
        "so twice the text and twice the merges take four times as long. Note where each pair "
        "stands, and touch only those pieces.",
        ON_TEXT,
        5,
        training.REFERENCE.replace("def train_bpe(", "def learn_merges("),
    ),
    Mistake(
        "Looks at all pairs to find the best",
        "The counts are kept up to date, but `max` over all of them takes longer the more pairs "
        "there are. Keep the pairs in a heap.",
        ON_TEXT,
        2,
        edited(
            REFERENCE,
            (
                "    while heap and len(merges) < n_merges:\n",
                "    while counts and max(counts.values()) > 0 and len(merges) < n_merges:\n",
            ),
            (
                "        count, entry = heapq.heappop(heap)\n        best = entry.pair\n"
                "        if -count != counts[best] or count == 0:\n"
                "            continue  # its count has changed since it was pushed\n",
                "        best = max(counts, key=lambda pair: (counts[pair], pair))\n",
            ),
            (
                "        for pair in changed:\n"
                "            heapq.heappush(heap, (-counts[pair], Backwards(pair)))\n",
                "",
            ),
        ),
    ),
)

STYLES = {
    "neighbors in place": NEIGHBORS_SOURCE,
    "buckets of equal count": """
from collections import Counter


def learn_merges(piece_counts, n_merges):
    words = {i: [bytes([b]) for b in piece] for i, piece in enumerate(piece_counts)}
    weights = list(piece_counts.values())
    counts, where, buckets = Counter(), {}, {}

    def change(pair, by):
        buckets.get(counts[pair], set()).discard(pair)
        counts[pair] += by
        buckets.setdefault(counts[pair], set()).add(pair)

    for i, tokens in words.items():
        for pair in zip(tokens, tokens[1:]):
            change(pair, weights[i])
            where.setdefault(pair, set()).add(i)
    merges, top = [], max(buckets, default=0)
    while top > 0 and len(merges) < n_merges:
        if not buckets.get(top):
            top -= 1
            continue
        best = max(buckets[top])
        merges.append(best)
        for i in where.pop(best):
            old = words[i]
            for pair in zip(old, old[1:]):
                change(pair, -weights[i])
            words[i] = new = joined(old, best)
            for pair in zip(new, new[1:]):
                change(pair, weights[i])
                where.setdefault(pair, set()).add(i)
    return merges


def joined(tokens, pair):
    out = []
    for token in tokens:
        if out and (out[-1], token) == pair and out[-1] is not None:
            out[-1:] = [None, pair[0] + pair[1]]
        else:
            out.append(token)
    return [token for token in out if token is not None] if None in out else out
""",
    "linked places": """
import heapq


class Key:
    def __init__(self, pair):
        self.pair = pair

    def __lt__(self, other):
        return other.pair < self.pair


def learn_merges(piece_counts, n_merges):
    token, weight, after, before = [], [], [], []
    for piece, n in piece_counts.items():
        for i, byte in enumerate(piece):
            place = len(token)
            token.append(bytes([byte]))
            weight.append(n)
            before.append(place - 1 if i else None)
            after.append(place + 1 if i + 1 < len(piece) else None)
    counts, places = {}, {}

    def change(i, sign):
        if i is not None and after[i] is not None:
            pair = token[i], token[after[i]]
            counts[pair] = counts.get(pair, 0) + sign * weight[i]
            if sign > 0:
                places.setdefault(pair, set()).add(i)
            return pair
        return None

    for i in range(len(token)):
        change(i, 1)
    heap = [(-n, Key(pair)) for pair, n in counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merges:
        n, key = heapq.heappop(heap)
        if n == 0 or counts.get(key.pair) != -n:
            continue
        merges.append(key.pair)
        touched = set()
        for i in sorted(places.pop(key.pair)):
            j = after[i]
            if token[i] != key.pair[0] or j is None or token[j] != key.pair[1]:
                continue
            touched |= {change(before[i], -1), change(i, -1), change(j, -1)}
            token[i] += token[j]
            token[j] = None
            after[i] = after[j]
            if after[i] is not None:
                before[after[i]] = i
            touched |= {change(before[i], 1), change(i, 1)}
        for pair in touched - {None}:
            heapq.heappush(heap, (-counts[pair], Key(pair)))
    return merges
""",
}

PART = Part(
    "learn_merges",
    CHECKS,
    REFERENCE,
    MISTAKES,
    STYLES,
    training.READY_MADE,
    replaces="gptbook.bpe_training:learn_merges",
)
