"""Exercise 6.2: gradients shortened together: its mistakes and styles."""

from gptbook.grading.ch06_training.clipping import CHECKS, REFERENCE
from gptbook.grading.ch06_training.common import BOOK, SECTIONS
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import WITH_AUTOGRAD

CLIP, HALF = SECTIONS["clip"], SECTIONS["half"]

PRESENT = "present = [grad for grad in grads if grad is not None]"
ADD = "total += grad.float().pow(2).sum().item()"
ROOT = "norm = math.sqrt(total)"
IF_LONG = "if math.isfinite(norm) and norm > max_norm:"
SCALE = "            grad.mul_(max_norm / norm)"
LOOP = f"    {IF_LONG}\n        for grad in present:\n{SCALE}\n"
RETURN = "    return norm"

MISTAKES = (
    Mistake(
        "Short gradients are scaled up",
        "You multiply by max_norm / norm always, and where the norm is below max_norm that is "
        "above 1. Scale only where the norm is larger than the limit.",
        CLIP,
        2,
        edited(REFERENCE, (IF_LONG, "if math.isfinite(norm) and norm > 0:")),
        hint=2,
    ),
    Mistake(
        "Each tensor is clipped by itself",
        "You limit the norm of each gradient alone, which turns the direction of the whole. Add up "
        "the squares of all of them, and use one factor.",
        CLIP,
        6,
        edited(
            REFERENCE,
            (
                LOOP,
                "    for grad in present:\n"
                "        own = grad.float().norm().item()\n"
                "        if math.isfinite(norm) and own > max_norm:\n"
                "            grad.mul_(max_norm / own)\n",
            ),
        ),
        hint=1,
    ),
    Mistake(
        "Each number is clipped by itself",
        "`clamp` limits numbers and not the norm, so the gradient points elsewhere afterwards. "
        "Multiply all numbers by the same factor.",
        CLIP,
        6,
        edited(REFERENCE, (SCALE, "            grad.clamp_(-max_norm, max_norm)")),
        hint=2,
    ),
    Mistake(
        "The norm afterwards is returned",
        "You measure again after scaling, and that is never above max_norm. The norm before it "
        "belongs in the log: it shows when a run goes wrong.",
        CLIP,
        5,
        edited(
            REFERENCE,
            (RETURN, "    return min(norm, max_norm) if math.isfinite(norm) else norm"),
        ),
        hint=1,
    ),
    Mistake(
        "The root is forgotten",
        "The sum of the squares is the square of the norm. Take the root once, of the whole sum.",
        CLIP,
        10,
        edited(REFERENCE, (ROOT, "norm = total")),
        hint=1,
    ),
    Mistake(
        "The norms are added up",
        "The norm of tensors laid end to end is not the sum of their norms. Add their squares, and "
        "take the root of the sum.",
        CLIP,
        10,
        edited(
            REFERENCE,
            (ADD, "total += grad.float().norm().item()"),
            (ROOT, "norm = total"),
        ),
        hint=1,
    ),
    Mistake(
        "The largest number is taken for the norm",
        "You compare the largest number of all gradients with the limit. The length of a gradient "
        "is the root of the sum of squares.",
        CLIP,
        9,
        edited(
            REFERENCE,
            (ADD, "total = max(total, grad.float().abs().max().item())"),
            (ROOT, "norm = total"),
        ),
        hint=1,
    ),
    Mistake(
        "The mean of squares",
        "You divide the sum of squares by how many numbers there are, so that the limit means "
        "something else for each model. The norm is the root of the sum.",
        CLIP,
        8,
        edited(
            REFERENCE,
            (ROOT, "norm = math.sqrt(total / max(sum(grad.numel() for grad in present), 1))"),
        ),
        hint=1,
    ),
    Mistake(
        "Divides by a norm of zero",
        "You compute max_norm / norm before you know that the norm is above the limit. Gradients "
        "may all be zero, or there may be none.",
        CLIP,
        2,
        edited(
            REFERENCE,
            (LOOP, LOOP.replace("    if", "    factor = max_norm / norm\n    if", 1)),
        ),
        hint=2,
    ),
    Mistake(
        "A missing gradient is an error",
        "Where a parameter took no part, its gradient is None, which has no norm. Leave it out of "
        "the sum and of the scaling.",
        CLIP,
        2,
        edited(REFERENCE, (PRESENT, "present = list(grads)")),
        hint=1,
    ),
    Mistake(
        "Infinite gradients are scaled",
        "A limit divided by an infinite norm is 0, which times infinity is NaN, and all other "
        "numbers are lost. Leave gradients alone whose norm is not finite.",
        CLIP,
        1,
        edited(REFERENCE, (IF_LONG, "if norm > max_norm:")),
        hint=4,
    ),
    Mistake(
        "NaN passes for a short gradient that is scaled",
        "Every comparison with NaN is false, so `not norm <= max_norm` lets NaN through to the "
        "scaling. Ask whether the norm is finite.",
        CLIP,
        1,
        edited(REFERENCE, (IF_LONG, "if not norm <= max_norm:")),
        hint=4,
    ),
    Mistake(
        "The norm is computed in half precision",
        "You square and add in the gradients' own type, where squares become infinite or lose "
        "their digits. Convert to float32 first.",
        HALF,
        1,
        edited(REFERENCE, (ADD, ADD.replace(".float()", ""))),
        hint=3,
    ),
    Mistake(
        "Copies are scaled",
        "You compute scaled gradients and leave those of your caller as they were. Change the "
        "tensors themselves, with `mul_`.",
        CLIP,
        6,
        edited(REFERENCE, (SCALE, "            grad = grad * (max_norm / norm)")),
        hint=2,
    ),
    Mistake(
        "The factor is upside down",
        "You multiply by norm / max_norm, which is above 1 where the gradient is too long. The "
        "factor that brings the norm to the limit is max_norm / norm.",
        CLIP,
        6,
        edited(REFERENCE, (SCALE, "            grad.mul_(norm / max_norm)")),
        hint=2,
    ),
    Mistake(
        "Scaled while the norm is still summed up",
        "You look at the sum so far, so that each gradient gets a factor of its own. Sum up all of "
        "them first, and scale in a second loop.",
        CLIP,
        6,
        edited(
            REFERENCE,
            (
                f"        {ADD}\n    {ROOT}\n{LOOP}",
                f"        {ADD}\n"
                "        so_far = math.sqrt(total)\n"
                "        if math.isfinite(so_far) and so_far > max_norm:\n"
                "            grad.mul_(max_norm / so_far)\n"
                f"    {ROOT}\n",
            ),
        ),
        hint=1,
    ),
)

STYLES = {
    "a tensor, and a factor of at most 1": """
import torch


def clip_gradients(grads, max_norm):
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in grads if g is not None]
    norm = torch.stack(norms).norm() if norms else torch.tensor(0.0)
    if torch.isfinite(norm):
        for g in grads:
            if g is not None:
                g *= (max_norm / norm).clamp(max=1.0)
    return norm
""",
    "end to end": """
import torch


def clip_gradients(grads, max_norm):
    grads = [g for g in grads if g is not None]
    if not grads:
        return 0.0
    flat = torch.cat([g.reshape(-1).float() for g in grads])
    norm = torch.linalg.norm(flat)
    if norm.isinf() or norm.isnan() or norm <= max_norm:
        return norm.item()
    for g in grads:
        g.copy_(g.float() * max_norm / norm)
    return norm.item()
""",
    "foreach, with torch's 1e-6": """
import torch


def clip_gradients(grads, max_norm):
    grads = [g for g in grads if g is not None]
    if not grads:
        return torch.zeros(())
    norm = torch.stack(torch._foreach_norm(grads, 2, torch.float32)).norm()
    if norm > max_norm and norm < float("inf"):
        torch._foreach_mul_(grads, max_norm / (norm + 1e-6))
    return norm
""",
    "plain numbers": """
def clip_gradients(grads, max_norm):
    numbers = [x for g in grads if g is not None for x in g.flatten().tolist()]
    norm = sum(x * x for x in numbers) ** 0.5
    if max_norm < norm < float("inf"):
        for g in grads:
            if g is not None:
                g.div_(norm / max_norm)
    return norm
""",
}

FORBIDDEN = Forbidden(
    BOOK,
    (
        "torch.nn.utils.clip_grad_norm_",
        "torch.nn.utils.clip_grads_with_norm_",
        "torch.nn.utils.clip_grad.clip_grad_norm_",
        "torch.nn.utils.get_total_norm",
        ".clip_grad_norm_",
        ".clip_grads_with_norm_",
        ".get_total_norm",
    ),
)

PART = Part("clip_gradients", CHECKS, REFERENCE, MISTAKES, STYLES, FORBIDDEN, preload=WITH_AUTOGRAD)
