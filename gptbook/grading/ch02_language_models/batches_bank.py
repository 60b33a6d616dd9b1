"""Exercise 2.5: wrong and other right ways to make batches."""

from gptbook.grading.ch02_language_models.batches import CHECKS, REFERENCE
from gptbook.grading.ch02_language_models.common import READY_MADE, SECTIONS
from gptbook.grading.exercise import Mistake, Part, edited

TARGETS, PACKING, EPOCHS = SECTIONS["targets"], SECTIONS["packing"], SECTIONS["epochs"]

TARGET = "rows[1].append(tokens[place + 1])"
RANGE = "range(0, len(tokens) - context_length, context_length)"
SHUFFLE = "random.Random(seed).shuffle(windows)"
GROUP = "group = np.array(windows[first : first + batch_size])"
BEGINS = "begins = tokens[place] == end_of_text"
POSITION = "rows[2].append(0 if begins or place == start else rows[2][-1] + 1)"
ID = "rows[3].append(0 if place == start else rows[3][-1] + begins)"
GROUPS = "for first in range(0, len(windows) - batch_size + 1, batch_size):"

MISTAKES = (
    Mistake(
        "The targets are the inputs",
        "Nothing is shifted, so the model learns to copy and its loss goes to zero. The target at "
        "a place is the token after it.",
        TARGETS,
        3,
        edited(REFERENCE, (TARGET, TARGET.replace("place + 1", "place"))),
    ),
    Mistake(
        "Shifted twice",
        "The targets are two tokens ahead: you shift by one when cutting and by one more later, or "
        "the model's loss does it again. Shift once.",
        TARGETS,
        3,
        edited(
            REFERENCE, (TARGET, TARGET.replace("tokens[place + 1]", "[*tokens, -1][place + 2]"))
        ),
    ),
    Mistake(
        "Shifted the wrong way",
        "The target is the token before the input, which the model has seen. Take the token after.",
        TARGETS,
        3,
        edited(REFERENCE, (TARGET, TARGET.replace("place + 1", "place - 1"))),
    ),
    Mistake(
        "Each window wraps around",
        "`np.roll` of a window gives its last place the first token of the same window as the "
        "target, which the model has seen. Take the token after the window.",
        TARGETS,
        3,
        edited(
            REFERENCE,
            (
                TARGET,
                "after = place + 1 if place + 1 < start + context_length else start\n"
                "            rows[1].append(tokens[after])",
            ),
        ),
    ),
    Mistake(
        "A window too many",
        "The last token of the text has no successor, whether you fill its place with the first "
        "one or leave it empty. A window whose last target is missing is left out.",
        TARGETS,
        1,
        edited(
            REFERENCE,
            (
                RANGE,
                RANGE.replace("len(tokens) - context_length", "len(tokens) - context_length + 1"),
            ),
            (TARGET, TARGET.replace("tokens[place + 1]", "[*tokens, tokens[0]][place + 1]")),
        ),
    ),
    Mistake(
        "The last window is lost",
        "Where the text ends with the last window's last target, you stop a window too early. The "
        "last start is the length minus the context minus one, itself included.",
        EPOCHS,
        1,
        edited(
            REFERENCE,
            (
                RANGE,
                RANGE.replace("len(tokens) - context_length", "len(tokens) - context_length - 1"),
            ),
        ),
    ),
    Mistake(
        "Windows one token short",
        "You cut windows of `context_length` and take inputs and targets from within, so both are "
        "one token shorter. Cut one token more, or take the targets from the text.",
        TARGETS,
        13,
        edited(
            REFERENCE,
            (
                "for place in range(start, start + context_length):",
                "for place in range(start, start + context_length - 1):",
            ),
        ),
    ),
    Mistake(
        "A token between windows is skipped",
        "Windows begin `context_length + 1` apart, since each has a token more than inputs, and so "
        "a token between two of them is never an input. Begin one `context_length` after another.",
        EPOCHS,
        5,
        edited(
            REFERENCE,
            (RANGE, RANGE.replace(", context_length)", ", context_length + 1)")),
        ),
    ),
    Mistake(
        "Windows overlap",
        "Windows begin half a context apart, so most tokens come twice in an epoch. Begin one "
        "`context_length` after another.",
        EPOCHS,
        5,
        edited(
            REFERENCE,
            (RANGE, RANGE.replace(", context_length)", ", context_length // 2)")),
        ),
    ),
    Mistake(
        "A window begins at every token",
        "Every token then comes `context_length` times in an epoch. Begin one `context_length` "
        "after another.",
        EPOCHS,
        5,
        edited(REFERENCE, (RANGE, RANGE.replace(", context_length)", ", 1)"))),
    ),
    Mistake(
        "Windows are sampled, not dealt",
        "Random starts repeat some windows and leave out others. Shuffle the list of all windows "
        "and deal it out.",
        EPOCHS,
        5,
        edited(
            REFERENCE,
            (
                SHUFFLE,
                "draw = random.Random(seed)\n    windows = [draw.choice(windows) for _ in windows]",
            ),
        ),
    ),
    Mistake(
        "The end of text is no target",
        "Where the next token is the end of text you give -1, which the loss leaves out, so the "
        "model never learns to stop. It is a token like any other.",
        PACKING,
        1,
        edited(
            REFERENCE,
            (
                TARGET,
                "after = tokens[place + 1]\n"
                "            rows[1].append(-1 if after == end_of_text else after)",
            ),
        ),
    ),
    Mistake(
        "Each document is cut on its own",
        "Windows never span two documents, so what does not fill a window is thrown away. Cut the "
        "text as it stands; ids and positions say where documents begin.",
        PACKING,
        1,
        edited(
            REFERENCE,
            (
                f"    for start in {RANGE}:\n",
                "    places = range(len(tokens))\n"
                "    begins = sorted({0, *(i for i in places if tokens[i] == end_of_text)})\n"
                "    starts = []\n"
                "    for begin, end in zip(begins, [*begins[1:], len(tokens)]):\n"
                "        starts += range(begin, end - context_length, context_length)\n"
                "    for start in starts:\n",
            ),
        ),
    ),
    Mistake(
        "Documents begin after the end of text",
        "You take the end-of-text token for the last of the document before it, so positions and "
        "ids change one place late. Here a document begins with it.",
        PACKING,
        2,
        edited(
            REFERENCE,
            (BEGINS, "begins = place > 0 and tokens[place - 1] == end_of_text"),
        ),
    ),
    Mistake(
        "Positions count through the window",
        "Positions run from 0 to the end of the window, whatever documents are in it. Begin at 0 "
        "again where a document begins.",
        PACKING,
        1,
        edited(REFERENCE, (POSITION, "rows[2].append(place - start)")),
    ),
    Mistake(
        "Positions count through the document",
        "A long document's positions go on in its next window, beyond what a context has. Begin at "
        "0 again where a window begins.",
        PACKING,
        1,
        edited(
            REFERENCE,
            (
                POSITION,
                "last = [i for i in range(place + 1) if tokens[i] == end_of_text][-1:]\n"
                "            rows[2].append(place - sum(last))",
            ),
        ),
    ),
    Mistake(
        "The document of the target",
        "You give the id of the token after, so each document's last token belongs to the next "
        "one. Give the document of the input.",
        PACKING,
        1,
        edited(
            REFERENCE,
            (ID, "rows[3].append(tokens[start + 1 : place + 2].count(end_of_text))"),
        ),
    ),
    Mistake(
        "Documents are numbered through the text",
        "The ids go on from window to window, so what a row holds depends on where in the text it "
        "is. Count from 0 in each window.",
        PACKING,
        1,
        edited(REFERENCE, (ID, "rows[3].append(tokens[: place + 1].count(end_of_text))")),
    ),
    Mistake(
        "A window that begins with a document starts at 1",
        "You count the end-of-text tokens so far, and where the window's first token is one the "
        "count is 1 already. Count those after the first token.",
        PACKING,
        1,
        edited(
            REFERENCE,
            (ID, "rows[3].append(tokens[start : place + 1].count(end_of_text))"),
        ),
    ),
    Mistake(
        "Inputs and targets are shuffled apart",
        "Two shuffles with one generator give two orders, so a row's targets belong to other "
        "inputs. Shuffle the windows, or one order for all four arrays.",
        EPOCHS,
        3,
        edited(
            REFERENCE,
            (
                SHUFFLE,
                "draw = random.Random(seed)\n"
                "    draw.shuffle(windows)\n"
                "    others = draw.sample(windows, len(windows))\n"
                "    windows = [[w[0], o[1], w[2], w[3]] for w, o in zip(windows, others)]",
            ),
        ),
    ),
    Mistake(
        "Nothing is shuffled",
        "The windows come in the order of the text, so a batch is a piece of one document. Shuffle "
        "them with the seed.",
        EPOCHS,
        2,
        edited(REFERENCE, (SHUFFLE + "\n    ", "")),
    ),
    Mistake(
        "Only the batches are shuffled",
        "Each batch still holds neighbors from the text, which are alike. Shuffle the windows "
        "before they are put into batches.",
        EPOCHS,
        1,
        edited(
            REFERENCE,
            (SHUFFLE + "\n    ", ""),
            (
                "    return batches\n",
                "    random.Random(seed).shuffle(batches)\n    return batches\n",
            ),
        ),
    ),
    Mistake(
        "The seed is not used",
        "The order is random and cannot be had again, so no run can be repeated. Make a generator "
        "from the seed.",
        EPOCHS,
        1,
        edited(REFERENCE, ("random.Random(seed)", "random.Random()")),
    ),
    Mistake(
        "The seed is a constant",
        "Every seed gives the same order. Pass the argument to the generator.",
        EPOCHS,
        1,
        edited(REFERENCE, ("random.Random(seed)", "random.Random(0)")),
    ),
    Mistake(
        "One buffer for all batches",
        "The same array is filled again for each batch and put into the list, so all batches are "
        "the last one. Make a new array, or copy.",
        EPOCHS,
        5,
        edited(
            REFERENCE,
            ("    batches = []\n", "    batches, buffer = [], None\n"),
            (
                GROUP,
                f"{GROUP}\n"
                "        if buffer is None or len(buffer) != len(group):\n"
                "            buffer = group\n"
                "        buffer[:] = group\n"
                "        group = buffer",
            ),
        ),
    ),
    Mistake(
        "The last batch is not full",
        "Windows that do not fill a batch are given as a smaller one, in which each row weighs "
        "more than elsewhere. Leave them out; another seed leaves out others.",
        EPOCHS,
        1,
        edited(REFERENCE, (GROUPS, "for first in range(0, len(windows), batch_size):")),
    ),
)

STYLES = {
    "numpy": """
import numpy as np


def make_batches(tokens, end_of_text, batch_size, context_length, seed):
    ids = np.asarray(tokens, dtype=np.int64)
    n = max(len(ids) - 1, 0) // context_length
    if n < batch_size:
        return []
    inputs = ids[: n * context_length].reshape(n, context_length)
    targets = ids[1 : n * context_length + 1].reshape(n, context_length)
    begins = inputs == end_of_text
    begins[:, 0] = True
    documents = begins.cumsum(axis=1) - 1
    places = np.arange(context_length)
    positions = places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    order = np.random.default_rng(seed).permutation(n)
    return [
        tuple(part[rows] for part in (inputs, targets, positions, documents))
        for rows in np.split(order[: n // batch_size * batch_size], n // batch_size)
    ]
""",
    "dataset of lists": """
import random


def make_batches(tokens, end_of_text, batch_size, context_length, seed):
    def window(index):
        piece = tokens[index * context_length : (index + 1) * context_length + 1]
        positions, documents = [], []
        position = document = 0
        for i, token in enumerate(piece[:-1]):
            if i and token == end_of_text:
                document, position = document + 1, 0
            positions.append(position)
            documents.append(document)
            position += 1
        return piece[:-1], piece[1:], positions, documents

    order = list(range((len(tokens) - 1) // context_length))
    random.Random(f"epoch {seed}").shuffle(order)
    batches = []
    while len(order) >= batch_size:
        rows = [window(index) for index in order[:batch_size]]
        batches.append(tuple([list(row) for row in column] for column in zip(*rows)))
        order = order[batch_size:]
    return batches
""",
    "sliding windows": """
import numpy as np


def make_batches(tokens, end_of_text, batch_size, context_length, seed):
    if len(tokens) <= context_length:
        return []
    view = np.lib.stride_tricks.sliding_window_view(np.array(tokens), context_length + 1)
    view = np.random.default_rng(seed).permutation(view[::context_length])
    batches = []
    for i in range(len(view) // batch_size):
        rows = view[i * batch_size : (i + 1) * batch_size]
        x, y = rows[:, :-1], rows[:, 1:]
        positions = np.zeros(x.shape, dtype=np.int32)
        documents = np.zeros(x.shape, dtype=np.int16)
        for t in range(1, context_length):
            new = x[:, t] == end_of_text
            positions[:, t] = np.where(new, 0, positions[:, t - 1] + 1)
            documents[:, t] = documents[:, t - 1] + new
        batches.append([x, y, positions, documents])
    return batches
""",
}

PART = Part("make_batches", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
