"""Exercise 6.1: a step of AdamW, by hand: its mistakes and styles."""

from gptbook.grading.ch06_training.adamw import CHECKS, REFERENCE
from gptbook.grading.ch06_training.common import BOOK, SECTIONS
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import WITH_AUTOGRAD

ADAM, DECAY = SECTIONS["adam"], SECTIONS["decay"]

COUNT = 'state["step"] += 1'
NO_GRAD = "        if grad is None:\n            continue\n"
EMPTY = "if not state:"
UNPACK = "beta1, beta2 = betas"
MEAN = 'state["mean"] = beta1 * state["mean"] + (1 - beta1) * grad'
SQUARE = 'state["square"] = beta2 * state["square"] + (1 - beta2) * grad**2'
MEAN_HAT = 'mean = state["mean"] / (1 - beta1 ** state["step"])'
SQUARE_HAT = 'square = state["square"] / (1 - beta2 ** state["step"])'
IF_MATRIX = "            if parameter.ndim >= 2:\n    "
SHRINK = "            parameter.mul_(1 - lr * weight_decay)\n"
STEP = "            parameter.sub_(lr * mean / (square.sqrt() + eps))"

MISTAKES = (
    Mistake(
        "eps inside of the root",
        "You add eps to the mean of squares and take the root of the sum. Adam takes the root "
        "first and adds eps to it.",
        ADAM,
        1,
        edited(REFERENCE, ("(square.sqrt() + eps)", "(square + eps).sqrt()")),
    ),
    Mistake(
        "eps is divided with the root",
        "You add eps before the mean of squares is corrected, so that in the first steps it counts "
        "several times. Correct first, and add eps last.",
        ADAM,
        1,
        edited(
            REFERENCE,
            (SQUARE_HAT, 'correction = (1 - beta2 ** state["step"]) ** 0.5'),
            ("(square.sqrt() + eps)", '((state["square"].sqrt() + eps) / correction)'),
        ),
    ),
    Mistake(
        "No correction of the bias",
        "Both means begin at zero, so that in the first steps they are too small, by different "
        "factors. Divide them by 1 - beta ** step.",
        ADAM,
        11,
        edited(
            REFERENCE,
            (MEAN_HAT, 'mean = state["mean"]'),
            (SQUARE_HAT, 'square = state["square"]'),
        ),
        hint=2,
    ),
    Mistake(
        "Only the mean of gradients is corrected",
        "The mean of squares begins at zero as well, and without its correction the first steps "
        "are several times too long. Divide it by 1 - beta2 ** step.",
        ADAM,
        11,
        edited(REFERENCE, (SQUARE_HAT, 'square = state["square"]')),
        hint=2,
    ),
    Mistake(
        "Steps are counted from 0",
        "In the first step you divide by 1 - beta ** 0, which is zero. Count the step before you "
        "use the count.",
        ADAM,
        11,
        edited(
            REFERENCE,
            (f"        {COUNT}\n", ""),
            (STEP, f"{STEP}\n        {COUNT}"),
        ),
        hint=2,
    ),
    Mistake(
        "The betas are swapped",
        "The first beta belongs to the mean of gradients, the second to the mean of their squares. "
        "Unpack them in this order.",
        ADAM,
        9,
        edited(REFERENCE, (UNPACK, "beta2, beta1 = betas")),
        hint=2,
    ),
    Mistake(
        "Nothing is kept from step to step",
        "You begin with means of zero in every step, so that each one is a first step. Keep means "
        "and count in the parameter's state, and begin only where it is empty.",
        ADAM,
        9,
        edited(REFERENCE, (EMPTY, "if True:")),
        hint=1,
    ),
    Mistake(
        "The square of the mean",
        "You square the running mean of gradients, and noise has canceled out of that. Keep a "
        "running mean of the squared gradients.",
        ADAM,
        11,
        edited(REFERENCE, (SQUARE, SQUARE.replace("grad**2", 'state["mean"] ** 2'))),
        hint=2,
    ),
    Mistake(
        "The root is forgotten",
        "You divide by the mean of squares itself, so that small gradients make long steps. Divide "
        "by its root.",
        ADAM,
        11,
        edited(REFERENCE, ("square.sqrt()", "square")),
        hint=3,
    ),
    Mistake(
        "The gradient is added whole to the mean",
        "You keep a sum, as momentum in SGD does, and Adam a mean. The new gradient has the weight "
        "1 - beta1.",
        ADAM,
        11,
        edited(REFERENCE, (MEAN, MEAN.replace("(1 - beta1) * grad", "grad"))),
        hint=2,
    ),
    Mistake(
        "The decay is in the gradient",
        "You add weight_decay * parameter to the gradient, as an L2 penalty, and it drowns in the "
        "division. Shrink the parameter itself, apart from the gradient.",
        DECAY,
        3,
        edited(
            REFERENCE,
            (
                f"        {COUNT}",
                f"        {COUNT}\n        if parameter.ndim >= 2:\n"
                "            grad = grad + weight_decay * parameter.detach()",
            ),
            (IF_MATRIX + SHRINK, ""),
        ),
    ),
    Mistake(
        "The decay is divided with the gradient",
        "You add the decay to the mean of gradients, so that it is divided by the root like them. "
        "Take it out of the fraction.",
        DECAY,
        3,
        edited(
            REFERENCE,
            (IF_MATRIX + SHRINK, ""),
            (
                STEP,
                "            decay = weight_decay * parameter if parameter.ndim >= 2 else 0.0\n"
                "            parameter.sub_(lr * (mean + decay) / (square.sqrt() + eps))",
            ),
        ),
    ),
    Mistake(
        "The decay is not scaled by the rate",
        "You shrink by 1 - weight_decay, so that a schedule has no effect on the decay. In AdamW "
        "the factor is 1 - lr * weight_decay.",
        DECAY,
        3,
        edited(REFERENCE, (SHRINK, SHRINK.replace("lr * ", ""))),
    ),
    Mistake(
        "The decay comes behind the step",
        "You shrink what the step gave, the step included. Both start from the parameter as it "
        "was: shrink first.",
        DECAY,
        3,
        edited(
            REFERENCE,
            (IF_MATRIX + SHRINK, ""),
            (STEP, f"{STEP}\n{IF_MATRIX}{SHRINK.rstrip()}"),
        ),
    ),
    Mistake(
        "Vectors decay as well",
        "Biases and the factors of norms have nothing to gain from being small. Only parameters "
        "with two or more axes decay.",
        DECAY,
        2,
        edited(REFERENCE, (IF_MATRIX + SHRINK, SHRINK)),
    ),
    Mistake(
        "No gradient counts as a gradient of zero",
        "Where the gradient is None you go on with zeros: the parameter decays, its means shrink, "
        "and its count goes up. Leave parameter and state alone.",
        DECAY,
        1,
        edited(
            REFERENCE,
            (NO_GRAD, "        grad = torch.zeros_like(parameter) if grad is None else grad\n"),
        ),
        hint=1,
    ),
    Mistake(
        "What has no gradient decays",
        "You shrink all parameters and only then look which of them have a gradient. One that has "
        "none takes no part in the step.",
        DECAY,
        1,
        edited(
            REFERENCE,
            (IF_MATRIX + SHRINK, ""),
            (
                NO_GRAD,
                "        if parameter.ndim >= 2:\n"
                "            parameter.data.mul_(1 - lr * weight_decay)\n" + NO_GRAD,
            ),
        ),
        hint=1,
    ),
    Mistake(
        "One count of steps for all parameters",
        "You correct by the number of calls, but a parameter that had no gradient in some of them "
        "has made fewer steps. Keep a count in each state.",
        ADAM,
        1,
        edited(
            REFERENCE,
            (UNPACK, f'{UNPACK}\n    states[0]["calls"] = states[0].get("calls", 0) + 1'),
            (EMPTY, 'if "mean" not in state:'),
            (COUNT, 'state["step"] = states[0]["calls"]'),
        ),
        hint=1,
    ),
    Mistake(
        "Each parameter counts a step",
        "All parameters share one count, and each of them adds 1 to it. Keep a count in each "
        "state.",
        ADAM,
        10,
        edited(
            REFERENCE,
            (EMPTY, 'if "mean" not in state:'),
            (
                COUNT,
                'states[0]["all"] = states[0].get("all", 0) + 1\n'
                '        state["step"] = states[0]["all"]',
            ),
        ),
        hint=1,
    ),
    Mistake(
        "The step is recorded by autograd",
        "A parameter needs a gradient, so torch refuses to change it in place while it records. "
        "Put the update under `torch.no_grad()`.",
        ADAM,
        12,
        edited(REFERENCE, ("with torch.no_grad():", "if True:")),
        hint=1,
    ),
)

STYLES = {
    "in place, in the order of torch": """
import math

import torch


@torch.no_grad()
def adamw_step(parameters, states, grads, lr, betas, eps, weight_decay):
    for i, p in enumerate(parameters):
        g = grads[i]
        if g is None:
            continue
        s = states[i]
        m = s.setdefault("exp_avg", torch.zeros_like(p))
        v = s.setdefault("exp_avg_sq", torch.zeros_like(p))
        t = s["t"] = s.get("t", 0) + 1
        p.mul_(1 - lr * (weight_decay if p.dim() > 1 else 0.0))
        m.lerp_(g, 1 - betas[0])
        v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        root = (v.sqrt() / math.sqrt(1 - betas[1] ** t)).add_(eps)
        p.addcdiv_(m, root, value=-lr / (1 - betas[0] ** t))
""",
    "the paper's formula, new states": """
import torch


def adamw_step(parameters, states, grads, lr, betas, eps, weight_decay):
    b1, b2 = betas
    for i, (p, g) in enumerate(zip(parameters, grads)):
        if g is not None:
            t, m, v = states[i].get("all", (0, 0.0, 0.0))
            t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            states[i] = {"all": (t, m, v)}
            decay = weight_decay * p.data if p.ndim > 1 else 0.0
            update = (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + eps)
            p.data = p.data - lr * (update + decay)
""",
    "all tensors in one call": """
import torch


@torch.no_grad()
def adamw_step(parameters, states, grads, lr, betas, eps, weight_decay):
    kept = [(p, s, g) for p, s, g in zip(parameters, states, grads) if g is not None]
    ps, ss, gs = (list(items) for items in zip(*kept))
    for p, s in zip(ps, ss):
        s["n"] = s.get("n", 0) + 1
        if "m" not in s:
            s["m"], s["v"] = torch.zeros_like(p), torch.zeros_like(p)
    ms, vs = [s["m"] for s in ss], [s["v"] for s in ss]
    torch._foreach_mul_(ps, [1 - lr * weight_decay * (p.ndim >= 2) for p in ps])
    torch._foreach_lerp_(ms, gs, 1 - betas[0])
    torch._foreach_mul_(vs, betas[1])
    torch._foreach_addcmul_(vs, gs, gs, 1 - betas[1])
    roots = torch._foreach_sqrt(vs)
    torch._foreach_div_(roots, [(1 - betas[1] ** s["n"]) ** 0.5 for s in ss])
    torch._foreach_add_(roots, eps)
    torch._foreach_addcdiv_(ps, ms, roots, [-lr / (1 - betas[0] ** s["n"]) for s in ss])
""",
    "as a long list of gradients": """
import torch


def adamw_step(parameters, states, grads, lr, betas, eps, weight_decay):
    for p, state, g in zip(parameters, states, grads):
        if g is None:
            continue
        past = state.setdefault("past", [])
        past.append(g.clone())

        def mean(beta, items):
            w = torch.tensor([beta ** (len(items) - 1 - k) for k in range(len(items))])
            return torch.tensordot(w.to(p.dtype) / w.sum(), torch.stack(items), 1)

        step = mean(betas[0], past) / (mean(betas[1], [h * h for h in past]).sqrt() + eps)
        keep = 1 if p.ndim < 2 else 1 - lr * weight_decay
        with torch.no_grad():
            p.copy_(keep * p - lr * step)
""",
}

FORBIDDEN = Forbidden(
    (*BOOK, "torch.optim"),
    (
        "torch.optim.AdamW",
        "torch.optim.Adam",
        "torch.optim.adamw.adamw",
        "torch._fused_adamw_",
        "torch._fused_adam_",
    ),
)

PART = Part("adamw_step", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=WITH_AUTOGRAD)
