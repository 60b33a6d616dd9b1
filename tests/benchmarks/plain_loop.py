"""The plain loop: nanoGPT's recipe for a CPU, eager PyTorch from first line to last.

The slow twin that `gptbook train --preset shakespeare-char-cpu` is measured against. It imports
nothing of gptbook: model, data, optimizer and schedule are those of nanoGPT's train.py with
config/train_shakespeare_char.py and the CPU settings of its README (4 layers, 4 heads, width 128,
block 64, batch 12, 2,000 steps, no dropout), written out. Validation is the last tenth of the file,
all of it, in rows of 64.

    python -m tests.benchmarks.plain_loop PATH_OF_INPUT_TXT [SEED]
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, scaled_dot_product_attention


@dataclass(frozen=True)
class Recipe:
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 128
    block: int = 64
    batch: int = 12
    steps: int = 2000
    warmup: int = 100
    lr: float = 1e-3
    min_lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    clip: float = 1.0


class PlainBlock(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        d = recipe.d_model
        self.n_head = recipe.n_head
        self.norm_1, self.norm_2 = (nn.LayerNorm(d, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        heads = torch.split(self.qkv(self.norm_1(x)), C, dim=2)
        q, k, v = (h.view(B, T, self.n_head, -1).transpose(1, 2) for h in heads)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).contiguous().view(B, T, C))
        changed: Tensor = x + self.down(gelu(self.up(self.norm_2(x))))
        return changed


class PlainGPT(nn.Module):
    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, recipe.d_model)
        self.places = nn.Embedding(recipe.block, recipe.d_model)
        self.blocks = nn.ModuleList(PlainBlock(recipe) for _ in range(recipe.n_layer))
        self.norm = nn.LayerNorm(recipe.d_model, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * recipe.n_layer) if last else 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return linear(self.norm(x), self.tokens.weight)


def rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / (recipe.warmup + 1)
    share = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.min_lr + 0.5 * (1 + math.cos(math.pi * share)) * (recipe.lr - recipe.min_lr)


def encoded(text: str) -> tuple[Tensor, Tensor, int]:
    """Return ids to train on, ids held out, and how many characters there are."""
    characters = sorted(set(text))
    ids = torch.tensor([characters.index(c) for c in text])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(characters)


@torch.no_grad()
def whole_loss(model: nn.Module, ids: Tensor, block: int) -> float:
    """Return the mean loss of all ids but the first, each row of block ids read by itself."""
    total = 0.0
    n_rows = (len(ids) - 1) // block
    inputs = ids[: n_rows * block].view(n_rows, block)
    targets = ids[1 : n_rows * block + 1].view(n_rows, block)
    pieces = [
        (i, t) for i, t in zip(torch.split(inputs, 64), torch.split(targets, 64), strict=True)
    ]
    if rest := (len(ids) - 1) % block:
        pieces.append((ids[None, -rest - 1 : -1], ids[None, -rest:]))
    for some, wanted in pieces:
        total += float(cross_entropy(model(some).flatten(0, 1), wanted.flatten(), reduction="sum"))
    return total / (len(ids) - 1)


def train_plainly(
    text: str,
    seed: int,
    recipe: Recipe | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the loss on all held-out characters and the seconds of training."""
    recipe = recipe or Recipe()
    torch.manual_seed(seed)
    train, held_out, vocab_size = encoded(text)
    model = PlainGPT(recipe, vocab_size)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
    started = clock()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        starts = torch.randint(len(train) - recipe.block, (recipe.batch,))
        rows = torch.stack([train[i : i + recipe.block + 1] for i in starts])
        logits = model(rows[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = clock() - started
    parameters = sum(p.numel() for p in model.parameters())
    loss_held_out = whole_loss(model, held_out, recipe.block)
    tokens = recipe.steps * recipe.batch * recipe.block
    return {
        "held_out_loss": loss_held_out,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "parameters": float(parameters),
    }


if __name__ == "__main__":
    print(train_plainly(Path(sys.argv[1]).read_text("utf-8"), int((*sys.argv[2:], "0")[0])))
