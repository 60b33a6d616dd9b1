"""Exercise 6.4: gradients of a batch in parts: its mistakes and styles."""

from gptbook.grading.ch06_training.accumulation import CHECKS, REFERENCE
from gptbook.grading.ch06_training.common import BOOK, SECTIONS
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import WITH_AUTOGRAD

PARTS, LOOP = SECTIONS["accumulation"], SECTIONS["loop"]

ZERO = "    for parameter in parameters:\n        parameter.grad = torch.zeros_like(parameter)\n"
COUNT = "n_tokens = sum(int((targets != IGNORE).sum()) for _, targets in micro_batches)"
FOR = "for ids, targets in micro_batches:"
LOGITS = "        logits = logits_of(parameters, ids)\n"
SUM = ', reduction="sum"'
NATS = "nats = cross_entropy("
TARGETS = "targets.flatten(), ignore_index=IGNORE"
LOSS = "loss = nats / max(n_tokens, 1)"
BACKWARD = "        loss.backward()\n"
ADD = "total += loss.item()"
RETURN = "    return total"

MISTAKES = (
    Mistake(
        "The mean of means",
        "You divide each micro-batch by its own number of tokens and average, so that tokens in a "
        "part with few weigh more. Divide every part's sum by the tokens of the whole step.",
        PARTS,
        8,
        edited(
            REFERENCE,
            (
                LOSS,
                "n_own = max(int((targets != IGNORE).sum()), 1)\n"
                "        loss = nats / n_own / len(micro_batches)",
            ),
        ),
        hint=2,
    ),
    Mistake(
        "The sum of means",
        "You add up the means of the micro-batches, so that the gradient grows with their number. "
        "Divide every part's sum by the tokens of the whole step.",
        PARTS,
        9,
        edited(
            REFERENCE,
            (LOSS, "loss = nats / max(int((targets != IGNORE).sum()), 1)"),
        ),
        hint=2,
    ),
    Mistake(
        "The sum is not divided",
        "You leave the gradient of the sum, which grows with the batch, and a rate that suits one "
        "batch does not suit another. Divide by the tokens of the whole step.",
        PARTS,
        11,
        edited(REFERENCE, (LOSS, "loss = nats")),
        hint=2,
    ),
    Mistake(
        "The mean is divided once more",
        "`cross_entropy` gives a mean unless told otherwise, and you divide that by the number of "
        "tokens. Ask for the sum.",
        PARTS,
        11,
        edited(REFERENCE, (SUM, "")),
        hint=2,
    ),
    Mistake(
        "Padding counts as tokens",
        "You divide by all places, and those whose target is -100 add nothing to the sum. Count "
        "the targets that are not -100.",
        PARTS,
        8,
        edited(
            REFERENCE, (COUNT, COUNT.replace("int((targets != IGNORE).sum())", "targets.numel()"))
        ),
        hint=2,
    ),
    Mistake(
        "Tokens are counted on the way",
        "You divide by the tokens seen so far, so that early micro-batches weigh more than late "
        "ones. Count all of them before the first backward pass.",
        PARTS,
        9,
        edited(
            REFERENCE,
            (COUNT, "n_tokens = 0"),
            (LOGITS, f"        n_tokens += int((targets != IGNORE).sum())\n{LOGITS}"),
        ),
        hint=2,
    ),
    Mistake(
        "Old gradients stay",
        "`backward` adds to what is there, also to what the last step left. Set the gradients to "
        "None or zero before the first micro-batch.",
        LOOP,
        1,
        edited(REFERENCE, (ZERO, "")),
        hint=1,
    ),
    Mistake(
        "The gradients are zeroed for each micro-batch",
        "You clear the gradients inside of the loop, so that only the last micro-batch is left. "
        "Clear them once, before the loop.",
        LOOP,
        9,
        edited(
            REFERENCE,
            (ZERO, ""),
            (
                LOGITS,
                "        for parameter in parameters:\n"
                f"            parameter.grad = torch.zeros_like(parameter)\n{LOGITS}",
            ),
        ),
        hint=1,
    ),
    Mistake(
        "Masked targets count as id 0",
        "You turn -100 into 0 and let it count, so that the model learns to say 0 where it should "
        "learn nothing. Leave such places out of the sum.",
        PARTS,
        8,
        edited(REFERENCE, (TARGETS, "targets.flatten().clamp(min=0)")),
        hint=2,
    ),
    Mistake(
        "Id 0 is taken for padding",
        "You leave out targets of 0, but 0 is an id like any other. What does not count is -100.",
        PARTS,
        11,
        edited(
            REFERENCE,
            (COUNT, COUNT.replace("!= IGNORE", "> 0")),
            (TARGETS, "targets.flatten().masked_fill(targets.flatten() <= 0, IGNORE)"),
        ),
        hint=2,
    ),
    Mistake(
        "NaN from a micro-batch in which nothing counts",
        "The mean over no targets is 0 / 0, and NaN times a weight of zero is NaN. Work with sums, "
        "or leave such a micro-batch out.",
        PARTS,
        2,
        edited(
            REFERENCE,
            (SUM, ""),
            (LOSS, "loss = nats * int((targets != IGNORE).sum()) / max(n_tokens, 1)"),
        ),
        hint=3,
    ),
    Mistake(
        "Divides by no tokens",
        "In a step in which nothing counts, the number of tokens is 0, and so is the sum. Divide "
        "by at least 1.",
        PARTS,
        2,
        edited(REFERENCE, (LOSS, "loss = nats / n_tokens")),
        hint=3,
    ),
    Mistake(
        "The loss of the last micro-batch is returned",
        "You return what the last part added. Add up all parts.",
        LOOP,
        4,
        edited(REFERENCE, (ADD, "total = loss.item()")),
        hint=4,
    ),
    Mistake(
        "The mean of the losses is returned",
        "The gradients are right, but you return the parts' sum divided by how many parts there "
        "are. Each part has been divided by all tokens already: add them up.",
        PARTS,
        4,
        edited(REFERENCE, (RETURN, "    return total / len(micro_batches)")),
        hint=4,
    ),
    Mistake(
        "All graphs are kept until the end",
        "You add up the losses and go back once, so that every micro-batch's activations are held: "
        "the memory of the large batch. Call `backward` for each part.",
        LOOP,
        1,
        edited(
            REFERENCE,
            (BACKWARD, ""),
            (ADD, "total = total + loss"),
            (RETURN, "    total.backward()\n    return total.item()"),
        ),
        hint=4,
    ),
)

HELPER = """
import torch
import torch.nn.functional as F


def logits_of(parameters, ids):
    table, weight = parameters
    return torch.tanh(table[ids]) @ weight.T

"""

STYLES = {
    "means, weighted": HELPER
    + """
def accumulate(parameters, micro_batches):
    for p in parameters:
        p.grad = None
    counts = [(targets != -100).sum().item() for _, targets in micro_batches]
    result = torch.tensor(0.0)
    for (ids, targets), n in zip(micro_batches, counts):
        if n == 0:
            continue
        mean = F.cross_entropy(logits_of(parameters, ids).transpose(1, 2), targets)
        part = mean * (n / sum(counts))
        part.backward()
        result += part.detach()
    return result
""",
    "divided at the end": HELPER
    + """
def accumulate(parameters, micro_batches):
    grads, nats, n = [torch.zeros_like(p) for p in parameters], 0.0, 0
    for ids, targets in micro_batches:
        counts = targets != -100
        logp = logits_of(parameters, ids).log_softmax(-1)
        chosen = logp.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        loss = -(chosen * counts).sum()
        for total, grad in zip(grads, torch.autograd.grad(loss, parameters)):
            total += grad
        nats, n = nats + loss.item(), n + counts.sum().item()
    for p, total in zip(parameters, grads):
        p.grad = total / max(n, 1)
    return nats / max(n, 1)
""",
    "without autograd": HELPER
    + """
@torch.no_grad()
def accumulate(parameters, micro_batches):
    table, weight = parameters
    ids = torch.cat([i[t != -100] for i, t in micro_batches])
    targets = torch.cat([t[t != -100] for _, t in micro_batches])
    d_table, d_weight, loss = torch.zeros_like(table), torch.zeros_like(weight), 0.0
    for i, t in zip(ids, targets):
        h = torch.tanh(table[i])
        logp = (weight @ h).log_softmax(0)
        loss -= logp[t].item() / len(ids)
        error = logp.exp()
        error[t] -= 1
        d_weight += torch.outer(error, h) / len(ids)
        d_table[i] += (weight.T @ error) * (1 - h * h) / len(ids)
    table.grad, weight.grad = d_table, d_weight
    return loss
""",
    "row by row": HELPER
    + """
def accumulate(parameters, micro_batches):
    for p in parameters:
        if p.grad is not None:
            p.grad.zero_()
    n = 0
    for _, targets in micro_batches:
        n += len([t for row in targets.tolist() for t in row if t != -100])
    losses = []
    for ids, targets in micro_batches:
        for row, wanted in zip(ids, targets):
            logits = logits_of(parameters, row)
            nats = F.cross_entropy(logits, wanted, ignore_index=-100, reduction="sum")
            loss = nats / (n or 1)
            loss.backward()
            losses.append(loss.item())
    return sum(losses)
""",
}

PART = Part(
    "accumulate", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=WITH_AUTOGRAD
)
