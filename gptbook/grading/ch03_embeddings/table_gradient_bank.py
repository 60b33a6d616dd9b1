"""Exercise 3.1: wrong and other right ways to the gradient of a table."""

from gptbook.grading.ch03_embeddings.common import READY_MADE, SECTIONS
from gptbook.grading.ch03_embeddings.table_gradient import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

LOOKUP, LEARNING = SECTIONS["lookup"], SECTIONS["learning"]

ADD = "table.index_add_(0, ids.reshape(-1), grad_output.reshape(-1, d_model))"
MAKE = "table = torch.zeros(vocab_size, d_model, dtype=grad_output.dtype)"
CLEAR = "    if padding_idx is not None:\n        table[padding_idx] = 0\n"
FLAT = "ids.reshape(-1)"
RETURN = "return table"
LOOP = """
import torch


def embedding_gradient(ids, grad_output, vocab_size, padding_idx=None):
    table = torch.zeros(vocab_size, grad_output.shape[-1], dtype=grad_output.dtype)
    for row, gradients in zip(ids.tolist(), grad_output):
        for token, gradient in zip(row, gradients):
            if token == padding_idx:
                continue
            table[token] += gradient
    return table
"""

MISTAKES = (
    Mistake(
        "Repeated ids overwrite each other",
        "`table[ids] = g` writes one value for each row, and so does `table[ids] += g`, which "
        "reads all rows before it writes any: an id that occurs three times keeps one of its "
        "gradients. Use `index_add_`, `scatter_add_`, a product with one-hot vectors, or a loop.",
        LEARNING,
        4,
        edited(REFERENCE, (ADD, "table[ids] += grad_output")),
    ),
    Mistake(
        "The mean of repeated ids",
        "You divide each row by how often its id occurs. An id that occurs twice moves the loss "
        "in two places, and the two effects add up.",
        LEARNING,
        4,
        edited(
            REFERENCE,
            (
                CLEAR,
                f"    counts = torch.bincount({FLAT}, minlength=vocab_size)\n"
                f"    table /= counts.clamp(min=1)[:, None]\n{CLEAR}",
            ),
        ),
    ),
    Mistake(
        "The mean over all tokens",
        "You divide by the number of tokens. If the loss is a mean, its gradient has that factor "
        "already when it comes here; sum.",
        LEARNING,
        9,
        edited(REFERENCE, (CLEAR, f"    table /= ids.numel()\n{CLEAR}")),
    ),
    Mistake(
        "Only the first row of the batch",
        "You use `ids[0]` and leave the other rows out. Every token of the batch reads the table, "
        "so every one adds to the gradient.",
        LEARNING,
        9,
        edited(
            REFERENCE,
            (ADD, "table.index_add_(0, ids[0], grad_output[0])"),
        ),
    ),
    Mistake(
        "The gradient is transposed",
        "The product of the gradients with one-hot vectors is (C, V) one way round and (V, C) the "
        "other. A gradient has the shape of what it belongs to, the table.",
        LOOKUP,
        11,
        edited(REFERENCE, (RETURN, "return table.T")),
    ),
    Mistake(
        "As many rows as the largest id",
        "You let the ids say how large the table is, as `one_hot(ids)` does, so ids above the "
        "largest one have no row. Say `vocab_size`.",
        LOOKUP,
        1,
        edited(REFERENCE, (MAKE, MAKE.replace("vocab_size", "int(ids.max()) + 1"))),
    ),
    Mistake(
        "Ids and gradients in different orders",
        "You flatten the ids column by column and the gradients row by row, so tokens get each "
        "other's gradients. Flatten both in the same order.",
        LOOKUP,
        8,
        edited(REFERENCE, (FLAT, "ids.T.reshape(-1)")),
    ),
    Mistake(
        "The padding learns",
        "You do not use `padding_idx`, so the padding's row gets the sum of its gradients. Set it "
        "to zero after adding up.",
        LEARNING,
        2,
        edited(REFERENCE, (CLEAR, "")),
    ),
    Mistake(
        "Padding 0 counts as no padding",
        "`if padding_idx:` is false for 0, which is the most common id of padding. Write "
        "`if padding_idx is not None:`.",
        LEARNING,
        2,
        edited(REFERENCE, ("if padding_idx is not None:", "if padding_idx:")),
    ),
    Mistake(
        "None as an index clears the table",
        "`table[None] = 0` is allowed: None adds an axis, and all rows are set to zero. Do it only "
        "where `padding_idx` is not None.",
        LEARNING,
        7,
        edited(REFERENCE, (CLEAR, "    table[padding_idx] = 0\n")),
    ),
    Mistake(
        "The caller's gradient is changed",
        "You set the padding's places in `grad_output` to zero, and whoever passed it goes on with "
        "your zeros. Clear the row of the result, or work on a copy.",
        LEARNING,
        2,
        edited(
            REFERENCE,
            (CLEAR, ""),
            (
                f"    {MAKE}\n",
                "    if padding_idx is not None:\n        grad_output[ids == padding_idx] = 0\n"
                f"    {MAKE}\n",
            ),
        ),
    ),
    Mistake(
        "A row ends at its first padding",
        "You stop at the padding and lose what comes after it, which in a row padded on the left "
        "is everything. Leave out that token, and go on.",
        LEARNING,
        2,
        edited(LOOP, ("continue", "break")),
    ),
    Mistake(
        "The table has the default dtype",
        "`torch.zeros` makes float32 whatever the gradient is, and digits of a float64 are lost. "
        "Pass `dtype=grad_output.dtype`.",
        LOOKUP,
        1,
        edited(LOOP, (", dtype=grad_output.dtype", "")),
    ),
    Mistake(
        "Two dtypes are mixed",
        "Torch does not add or multiply float64 into a float32 table or one-hot vectors, and "
        "raises RuntimeError. Make them with `dtype=grad_output.dtype`.",
        LOOKUP,
        1,
        edited(REFERENCE, (", dtype=grad_output.dtype", "")),
    ),
    Mistake(
        "A view of what is not in order",
        "`view` needs numbers that lie in memory in this order, which those of a transposed or "
        "expanded tensor do not. Use `reshape`, which copies where it must.",
        LOOKUP,
        1,
        edited(REFERENCE, ("grad_output.reshape(", "grad_output.view(")),
    ),
)

STYLES = {
    "loop": LOOP,
    "one-hot product": """
import torch
import torch.nn.functional as F


def embedding_gradient(ids, grad_output, vocab_size, padding_idx=None):
    hot = F.one_hot(ids, vocab_size).to(grad_output.dtype)
    if padding_idx is not None:
        hot[..., padding_idx] = 0
    return torch.einsum("btv,btc->vc", hot, grad_output)
""",
    "scatter": """
import torch


def embedding_gradient(ids, grad_output, vocab_size, padding_idx=None):
    g = grad_output.flatten(0, 1)
    where = ids.flatten()[:, None].expand_as(g)
    out = g.new_zeros(vocab_size, g.size(1)).scatter_add_(0, where, g)
    keep = torch.arange(vocab_size) != (-1 if padding_idx is None else padding_idx)
    return out * keep[:, None]
""",
    "numpy": """
import numpy as np
import torch


def embedding_gradient(ids, grad_output, vocab_size, padding_idx=None):
    g = grad_output.numpy()
    table = np.zeros((vocab_size, g.shape[-1]), dtype=g.dtype)
    np.add.at(table, ids.numpy(), g)
    if padding_idx is not None:
        table[padding_idx] = 0
    return torch.from_numpy(table)
""",
}

FORBIDDEN = Forbidden(
    READY_MADE,
    (
        ".backward",
        "torch.autograd.backward",
        "torch.autograd.grad",
        "torch.autograd.functional.vjp",
        "torch.func.grad",
        "torch.func.vjp",
        "torch.ops.aten.embedding_dense_backward",
        "torch.ops.aten.embedding_backward",
    ),
)

PART = Part("embedding_gradient", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=PRELOAD)
