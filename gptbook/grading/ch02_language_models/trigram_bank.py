"""Exercise 2.3: wrong and other right ways to smooth a trigram."""

from gptbook.grading.ch02_language_models.common import READY_MADE, SECTIONS
from gptbook.grading.ch02_language_models.trigram import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited

COUNTING, SMOOTHING = SECTIONS["counting"], SECTIONS["smoothing"]
BOUNDARIES = SECTIONS["boundaries"]

SCALE = "scale = totals[history] + strength"
ROW = "(counts[*history, token] + strength * below) / scale"
LEVELS = "for history in ((), last_two[1:], last_two):"
UNIFORM = "row = [1 / vocab_size] * vocab_size"
PADDED = "padded = [None, None, *document]"
LAST_TWO = "last_two = (None, None, *context)[-2:]"

MISTAKES = (
    Mistake(
        "Trigrams run across documents",
        "All documents are joined to one sequence, so the last tokens of one are the context of "
        "the next one's first. Start anew with two start marks in each document.",
        BOUNDARIES,
        6,
        edited(
            REFERENCE,
            ("for document in documents:", "for document in [sum(map(list, documents), [])]:"),
        ),
    ),
    Mistake(
        "Documents have no beginning",
        "A document's first two tokens are left out of the longer counts, so the model cannot know "
        "how texts begin. Put two start marks before each document.",
        BOUNDARIES,
        4,
        edited(
            REFERENCE,
            (
                "history = tuple(padded[place - length : place])\n",
                "history = tuple(padded[place - length : place])\n"
                "                if None in history:\n"
                "                    continue\n",
            ),
        ),
    ),
    Mistake(
        "One start mark in place of two",
        "With one start mark, as the chapter's model has it, a document's first token has no "
        "trigram, and here it has one. Put two before each document.",
        BOUNDARIES,
        4,
        edited(
            REFERENCE,
            (
                "history = tuple(padded[place - length : place])\n",
                "history = tuple(padded[place - length : place])\n"
                "                if history == (None, None):\n"
                "                    continue\n",
            ),
        ),
    ),
    Mistake(
        "Token 0 is the start mark",
        "You pad with 0, which is also the id of a real token, so texts that contain it are "
        "confused with beginnings. Use something that is no id, such as None.",
        BOUNDARIES,
        1,
        edited(
            REFERENCE,
            (PADDED, PADDED.replace("None", "0")),
            (LAST_TWO, LAST_TWO.replace("None", "0")),
        ),
    ),
    Mistake(
        "-1 is an index as well",
        "You pad with -1 and use it as an index, and in Python and NumPy that is the last row: the "
        "token of the largest id. Give the start mark a row of its own.",
        BOUNDARIES,
        1,
        edited(
            REFERENCE,
            (PADDED, PADDED.replace("None", "vocab_size - 1")),
            (LAST_TWO, LAST_TWO.replace("None", "vocab_size - 1")),
        ),
    ),
    Mistake(
        "The start marks are counted as tokens",
        "Start marks are never predicted, but you count them among the unigrams, so that all "
        "tokens together get less than one. Count what is predicted, and nothing else.",
        BOUNDARIES,
        13,
        edited(
            REFERENCE,
            (
                "        for place in range(2, len(padded)):\n",
                "        totals[()] += 2\n        for place in range(2, len(padded)):\n",
            ),
        ),
    ),
    Mistake(
        "A context is counted where nothing follows it",
        "The last tokens of a document are followed by nothing, but you count them as contexts, so "
        "the row sums to less than one. Count a context only together with the token after it.",
        COUNTING,
        6,
        edited(
            REFERENCE,
            (
                "        for place in range(2, len(padded)):\n",
                "        for length in (1, 2):\n"
                "            if document:\n"
                "                totals[tuple(padded[len(padded) - length :])] += 1\n"
                "        for place in range(2, len(padded)):\n",
            ),
        ),
    ),
    Mistake(
        "Bigrams are counted in place of contexts",
        "How often two tokens stood together is not how often something came after them: start "
        "marks are never counted so, and a document's last tokens are once too often. Count a "
        "context together with the token after it.",
        COUNTING,
        8,
        edited(REFERENCE, (SCALE, "scale = (counts if history else totals)[history] + strength")),
    ),
    Mistake(
        "The denominator is not smoothed",
        "You add to every numerator and leave the denominator as it was, so the row sums to more "
        "than one. Add the strength to the denominator: that is what the numerators gained.",
        SMOOTHING,
        13,
        edited(
            REFERENCE,
            (SCALE, "scale = totals[history] or strength"),
        ),
    ),
    Mistake(
        "The strength is added once for each token",
        "The denominator grows by strength times the vocabulary, but the numerators grow by the "
        "strength in all, since the level below sums to one. Add the strength once.",
        SMOOTHING,
        13,
        edited(REFERENCE, (SCALE, "scale = totals[history] + strength * vocab_size")),
    ),
    Mistake(
        "Every level is smoothed with the uniform distribution",
        "This is add-k: what an unseen trigram gets does not depend on its bigram or its token. "
        "Use the level below in place of 1/V.",
        SMOOTHING,
        11,
        edited(REFERENCE, (LEVELS, LEVELS.replace("(), last_two[1:], last_two", "last_two,"))),
    ),
    Mistake(
        "The bigram is skipped",
        "The trigram rests on the unigram, and what is known from the last token alone is lost. "
        "Let the trigram rest on the bigram, and that on the unigram.",
        SMOOTHING,
        11,
        edited(REFERENCE, (LEVELS, LEVELS.replace("last_two[1:], ", ""))),
    ),
    Mistake(
        "The unigram is not smoothed",
        "A token that never occurred has a unigram probability of zero, and all levels above "
        "inherit it. Let the unigram rest on 1/V.",
        SMOOTHING,
        13,
        edited(
            REFERENCE,
            (
                UNIFORM,
                "n = totals[()]\n"
                "        row = [counts[token,] / n if n else 1 / vocab_size"
                " for token in range(vocab_size)]",
            ),
            (LEVELS, LEVELS.replace("(), ", "")),
        ),
    ),
    Mistake(
        "V is the number of tokens that occurred",
        "You take the vocabulary from the training text, so tokens that never occurred in it share "
        "nothing. V is `vocab_size`.",
        SMOOTHING,
        12,
        edited(
            REFERENCE,
            (UNIFORM, "row = [1 / (len({*sum(map(list, documents), [])}) or 1)] * vocab_size"),
        ),
    ),
    Mistake(
        "V counts the start mark",
        "The start mark is a context and never the next token, so it gets no share. V is "
        "`vocab_size`, without anything added.",
        SMOOTHING,
        13,
        edited(REFERENCE, (UNIFORM, "row = [1 / (vocab_size + 1)] * vocab_size")),
    ),
    Mistake(
        "An unseen context gives zeros",
        "Where a context never occurred you give no token any probability. With no counts the "
        "formula gives the level below, and that is what is wanted.",
        SMOOTHING,
        5,
        edited(
            REFERENCE,
            (
                "        rows.append(row)\n",
                "        rows.append(row if totals[last_two] else [0.0] * vocab_size)\n",
            ),
        ),
    ),
    Mistake(
        "An unseen context gives the uniform distribution",
        "Where a context never occurred you give every token the same, though its last token or "
        "the unigrams say more. With no counts the formula gives the level below.",
        SMOOTHING,
        2,
        edited(
            REFERENCE,
            (
                "        rows.append(row)\n",
                "        rows.append(row if totals[last_two] else [1 / vocab_size] * vocab_size)\n",
            ),
        ),
    ),
    Mistake(
        "Backs off without making room",
        "Seen trigrams get their plain frequencies, which sum to one already, and unseen ones get "
        "something on top. Every level must give some of its mass to the level below.",
        SMOOTHING,
        13,
        edited(
            REFERENCE,
            (
                ROW,
                "counts[*history, token] / totals[history]"
                " if counts[*history, token] else 0.4 * below",
            ),
        ),
    ),
    Mistake(
        "The context's first two tokens",
        "A context may be longer than two, and the trigram needs its end. Take the last two with "
        "`[-2:]`.",
        COUNTING,
        7,
        edited(REFERENCE, (LAST_TWO, "last_two = (*(None, None)[len(context) :], *context)[:2]")),
    ),
    Mistake(
        "The context is turned around",
        "You look up the last token first, so the pair never matches what was counted. Keep the "
        "order in which the tokens stand.",
        COUNTING,
        10,
        edited(REFERENCE, (LAST_TWO, "last_two = (*context[::-1], None, None)[:2]")),
    ),
    Mistake(
        "The text is read once for each context",
        "For every context all documents are searched again, so twice the text with twice the "
        "contexts takes four times as long. Count once, and look up.",
        COUNTING,
        1,
        """
def trigram_probs(documents, contexts, vocab_size, strength):
    padded = [[None, None, *document] for document in documents]
    rows = []
    for context in contexts:
        last_two = [None, None, *context][-2:]
        row = [1 / vocab_size] * vocab_size
        for length in (0, 1, 2):
            history = last_two[2 - length :]
            found = []
            for document in padded:
                for place in range(2, len(document)):
                    if document[place - length : place] == history:
                        found.append(document[place])
            scale = len(found) + strength
            row = [(found.count(t) + strength * below) / scale for t, below in enumerate(row)]
        rows.append(row)
    return rows
""",
    ),
)

STYLES = {
    "numpy, dense": """
import numpy as np


def trigram_probs(documents, contexts, vocab_size, strength):
    start = vocab_size
    counts = np.zeros((vocab_size + 1, vocab_size + 1, vocab_size))
    for document in documents:
        ids = np.array([start, start, *document])
        np.add.at(counts, (ids[:-2], ids[1:-1], ids[2:]), 1)

    def smooth(counts, below):
        return (counts + strength * below) / (counts.sum(-1, keepdims=True) + strength)

    unigram = smooth(counts.sum((0, 1)), np.full(vocab_size, 1 / vocab_size))
    bigram = smooth(counts.sum(0), unigram)
    trigram = smooth(counts, bigram)
    ends = [[start, start, *context][-2:] for context in contexts]
    return np.array([trigram[a, b] for a, b in ends]).reshape(len(ends), vocab_size)
""",
    "recursive": """
from collections import defaultdict


def trigram_probs(documents, contexts, vocab_size, strength):
    followers = defaultdict(list)
    for document in documents:
        a = b = "start"
        for token in document:
            for history in ((a, b), (b,), ()):
                followers[history].append(token)
            a, b = b, token
    tables = {}
    for history, tokens in followers.items():
        tables[history] = [0] * vocab_size
        for token in tokens:
            tables[history][token] += 1

    def probability(token, history):
        if history is None:
            return 1 / vocab_size
        below = probability(token, history[1:] if history else None)
        if history not in tables:
            return below
        return (tables[history][token] + strength * below) / (len(followers[history]) + strength)

    rows = []
    for context in contexts:
        history = tuple((["start", "start"] + list(context))[-2:])
        rows.append([probability(token, history) for token in range(vocab_size)])
    return rows
""",
    "interpolation weights": """
import numpy as np
from collections import Counter


def trigram_probs(documents, contexts, vocab_size, strength):
    tables = {}
    for document in documents:
        ids = [-2, -1] + list(document)
        for a, b, c in zip(ids, ids[1:], ids[2:]):
            b_mark = b if b >= 0 else -1
            a_mark = a if a >= 0 else -1
            for history in ((), (b_mark,), (a_mark, b_mark)):
                tables.setdefault(history, Counter())[c] += 1
    rows = []
    for context in contexts:
        a, b = ([-1, -1] + list(context))[-2:]
        row = np.full(vocab_size, 1 / vocab_size, dtype=np.float32)
        for history in ((), (b,), (a, b)):
            table = tables.get(history)
            if table:
                n = sum(table.values())
                weight = n / (n + strength)
                seen = np.array([table[i] for i in range(vocab_size)]) / n
                row = (weight * seen + (1 - weight) * row).astype(np.float32)
        rows.append(list(row))
    return rows
""",
}

PART = Part("trigram_probs", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
