"""Exercise 5.3: norms before or after the branches: mistakes and styles."""

from gptbook.grading.ch05_blocks.common import BOOK, SECTIONS
from gptbook.grading.ch05_blocks.stream import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import WITH_AUTOGRAD

STREAM, ORDER, NORM = SECTIONS["stream"], SECTIONS["order"], SECTIONS["norm"]

IF_PRE = 'if position == "pre":\n            '
PRE = "stream = stream + torch.tanh(norm(stream, weight) @ matrix.T)"
POST = "stream = norm(stream + torch.tanh(stream @ matrix.T), weight)"
FINAL = 'output = norm(streams[-1], final_weight) if position == "pre" else streams[-1]'
SQUARE = "square = v.pow(2).mean(dim=-1, keepdim=True)"
GRADIENTS = "gradients = torch.autograd.grad(output, streams, grad_out)"
LOOP = "for matrix, weight in zip(matrices, weights, strict=True):"

MISTAKES = (
    Mistake(
        "Pre and post are swapped",
        "Pre means that a branch reads a normalized copy, and post that the sum is normalized. You "
        "do one where the other was asked for.",
        ORDER,
        10,
        edited(REFERENCE, (IF_PRE, IF_PRE.replace("==", "!="))),
    ),
    Mistake(
        "The branch is added to the normalized stream",
        "You overwrite the stream with its norm and add to that, so that nothing is left that "
        "passes unchanged. Normalize a copy for the branch, and add to the stream itself.",
        ORDER,
        6,
        edited(
            REFERENCE,
            (
                PRE,
                "stream = norm(stream, weight)\n"
                "            stream = stream + torch.tanh(stream @ matrix.T)",
            ),
        ),
    ),
    Mistake(
        "Pre: the norm comes behind the branch",
        "You normalize what the branch gives rather than what it reads. In front of the branch is "
        "where pre-norm has it.",
        ORDER,
        5,
        edited(REFERENCE, (PRE, "stream = stream + norm(torch.tanh(stream @ matrix.T), weight)")),
    ),
    Mistake(
        "Post: only the branch is normalized",
        "You normalize what the branch gives and then add, so that the stream itself is never "
        "normalized. Post-norm takes the sum.",
        ORDER,
        4,
        edited(REFERENCE, (POST, "stream = stream + norm(torch.tanh(stream @ matrix.T), weight)")),
    ),
    Mistake(
        "The final norm is forgotten",
        "With pre-norm nothing ever normalizes the stream itself, and it grows from branch to "
        "branch. One more norm stands behind the last one.",
        ORDER,
        6,
        edited(REFERENCE, (FINAL, "output = streams[-1]")),
    ),
    Mistake(
        "Post: a final norm too many",
        "With post-norm the last branch already ends with a norm. The final one belongs to "
        "pre-norm only.",
        ORDER,
        4,
        edited(REFERENCE, (FINAL, "output = norm(streams[-1], final_weight)")),
    ),
    Mistake(
        "Nothing is added to the stream",
        "Each branch replaces the stream, and a gradient has no way around it. Add what the "
        "branch gives to what was there.",
        STREAM,
        10,
        edited(
            REFERENCE,
            (PRE, PRE.replace("= stream + ", "= ")),
            (POST, POST.replace("stream + ", "")),
        ),
    ),
    Mistake(
        "One norm for all branches",
        "You use the first row of weights in all branches. Each branch has a norm of its own.",
        ORDER,
        9,
        edited(REFERENCE, (LOOP, f"{LOOP}\n        weight = weights[0]")),
    ),
    Mistake(
        "The matrix is the other way round",
        "Row i of a matrix belongs to the number i of the result, as in `nn.Linear`. So vectors "
        "that are rows are multiplied by the transpose.",
        STREAM,
        9,
        edited(
            REFERENCE,
            (PRE, PRE.replace("matrix.T", "matrix")),
            (POST, POST.replace("matrix.T", "matrix")),
        ),
    ),
    Mistake(
        "The stream is cut off from the graph",
        "You detach the stream where you add to it, so that gradients come back through the "
        "branches only. The direct path carries most of them.",
        STREAM,
        6,
        edited(
            REFERENCE,
            (PRE, PRE.replace("stream + ", "stream.detach() + ")),
            (POST, POST.replace("stream + ", "stream.detach() + ")),
        ),
    ),
    Mistake(
        "The norm's root counts as a constant",
        "Under `no_grad` or behind `detach` the root has no gradient, but the stream is in it. "
        "Leave it in the graph.",
        NORM,
        6,
        edited(REFERENCE, (SQUARE, SQUARE.replace("v.pow", "v.detach().pow"))),
    ),
    Mistake(
        "The gradient of the plain sum",
        "You differentiate `output.sum()`, in which grad_out does not occur. Differentiate the sum "
        "of output times grad_out.",
        ORDER,
        6,
        edited(
            REFERENCE,
            (GRADIENTS, GRADIENTS.replace("output, streams, grad_out", "output.sum(), streams")),
        ),
    ),
    Mistake(
        "x itself is made to need a gradient",
        "`requires_grad_` changes the tensor that your caller passed. Take a copy, or detach it "
        "first.",
        STREAM,
        1,
        edited(REFERENCE, ("x.detach().clone().requires_grad_()", "x.requires_grad_()")),
    ),
    Mistake(
        "The gradients are in the order of the backward pass",
        "You return the gradient behind the last branch first. Turn the list around, so that the "
        "first one is that of x.",
        ORDER,
        5,
        edited(REFERENCE, ("torch.stack(gradients)", "torch.stack(gradients[::-1])")),
    ),
)

STYLES = {
    "kept gradients and one backward": """
import torch


class RMS(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, v):
        return v / torch.sqrt((v * v).mean(-1, keepdim=True) + 1e-5) * self.weight


def run_stack(x, matrices, weights, position, final_weight, grad_out):
    h = x.clone().requires_grad_()
    kept = [h]
    for l in range(len(matrices)):
        norm = RMS(weights[l])
        if position == "pre":
            h = h + torch.tanh(torch.nn.functional.linear(norm(h), matrices[l]))
        elif position == "post":
            h = norm(h + torch.tanh(torch.nn.functional.linear(h, matrices[l])))
        h.retain_grad()
        kept.append(h)
    out = RMS(final_weight)(h) if position == "pre" else h
    (out * grad_out).sum().backward()
    return out, torch.stack([k.grad for k in kept])
""",
    "block by block, backwards": """
import torch


def run_stack(x, matrices, weights, position, final_weight, grad_out):
    def norm(v, w):
        return torch.nn.functional.rms_norm(v, (v.shape[-1],), w, 1e-5)

    def block(v, l):
        if position == "pre":
            return v + (norm(v, weights[l]) @ matrices[l].T).tanh()
        return norm(v + (v @ matrices[l].T).tanh(), weights[l])

    steps = [lambda v, l=l: block(v, l) for l in range(len(matrices))]
    if position == "pre":
        steps.append(lambda v: norm(v, final_weight))
    inputs = []
    for step in steps:
        inputs.append(x)
        x = step(x)
    grads, g = [], grad_out
    if position == "post":
        grads.append(g)
    for v, step in zip(inputs[::-1], steps[::-1]):
        _, g = torch.autograd.functional.vjp(step, v, g)
        grads.append(g)
    return x, torch.stack(grads[::-1])
""",
    "derivatives by hand": """
import torch


def run_stack(x, matrices, weights, position, final_weight, grad_out):
    eps, pre = 1e-5, position == "pre"

    def norm(v, w):
        return v / (v.square().mean(-1, keepdim=True) + eps).sqrt() * w

    def norm_back(v, w, g):
        root = (v.square().mean(-1, keepdim=True) + eps).sqrt()
        n, g = v / root, g * w
        return (g - n * (g * n).mean(-1, keepdim=True)) / root

    saved = []
    for W, w in zip(matrices, weights):
        read = norm(x, w) if pre else x
        t = torch.tanh(read @ W.T)
        total = x + t
        saved.append((x, t, total))
        x = total if pre else norm(total, w)
    out = norm(x, final_weight) if pre else x
    g = norm_back(x, final_weight, grad_out) if pre else grad_out
    grads = [g]
    for (h, t, total), W, w in zip(saved[::-1], matrices.flip(0), weights.flip(0)):
        if not pre:
            g = norm_back(total, w, g)
        back = (g * (1 - t * t)) @ W
        g = g + (norm_back(h, w, back) if pre else back)
        grads.insert(0, g)
    return out, torch.stack(grads)
""",
}

PART = Part(
    "run_stack", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=WITH_AUTOGRAD
)
