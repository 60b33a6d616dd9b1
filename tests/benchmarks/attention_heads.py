"""Trains a small GPT on TinyWorld's stories and measures what each attention head looks at.

Chapter 4 ("Looking at attention") plots what this writes to book/results/attention_heads.json. It
is a recorded run because heads take longer to specialize than a chapter may run. From the root:

    python -m tests.benchmarks.attention_heads [--steps 6000] [--out FILE]

Stories 0 to 19,999 are trained on. What the heads do is measured on 200 others, whose generator
says which words refer to whom: for a pronoun, the weight on earlier mentions of the same one, and
on those of all others.
"""

import argparse
import bisect
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from gptbook.config import GPTConfig
from gptbook.data import Loader
from gptbook.evals import bits_per_byte
from gptbook.model import GPT, Block
from gptbook.shard_writing import write_shards
from gptbook.tinyworld import Document, TinyWorld
from gptbook.tokenizer import BPETokenizer, train_bpe
from tests.benchmarks.bench_tokenizer import commit, processor

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "book" / "results" / "attention_heads.json"
END = "<|endoftext|>"
N_LAYER, N_HEAD, D_MODEL, CONTEXT = 2, 4, 128, 256
BATCH_SIZE, ROW, N_TRAIN, N_MEASURED = 16, 128, 20_000, 200
LEARNING_RATE = 4e-3
PRONOUNS = ("she", "he", "it")
STORY, SHOWN = 4, 75  # which of the measured stories the chapter draws, and how many tokens of it


def train(model: GPT, loader: Loader, n_steps: int) -> None:
    """Train with AdamW, warm-up, and a rate that falls to a twentieth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 50) * (1 - 0.95 * step / n_steps)
    )
    progress = tqdm(islice(loader, n_steps), total=n_steps, unit="step")
    for batch in progress:
        logits = model(batch.inputs, batch.positions, document_ids=batch.document_ids)
        loss = cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.2f}")


@torch.no_grad()
def look(model: GPT, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the loss of each token after the first, and all weights, (L, H, T, T)."""
    row = torch.tensor([ids])
    x = model.embed(row, torch.arange(len(ids)))
    weights = []
    for block in model.blocks:
        assert isinstance(block, Block)
        _, seen = block.attention(block.attention_norm(x), return_weights=True)
        weights.append(seen[0])
        x = block(x)
    logits = torch.nn.functional.linear(model.norm(x), model.output_weight)
    return cross_entropy(logits[0, :-1], row[0, 1:], reduction="none"), torch.stack(weights)


def token_of(ends: Sequence[int], character: int) -> int:
    """Return the index of the token that holds a character; ends[0] = 0 is that of the END."""
    return bisect.bisect_right(ends, character)


def measure(model: GPT, tokenizer: BPETokenizer, documents: Sequence[Document]) -> dict[str, Any]:
    """Return what each head looks at on average, and the loss on whole documents."""
    end = tokenizer.special_tokens[END]
    nats, n_bytes = 0.0, 0
    previous, first, n_places = torch.zeros(2, N_LAYER, N_HEAD), torch.zeros(2, N_LAYER, N_HEAD), 0
    pronouns: dict[str, list[list[Tensor]]] = {word: [] for word in PRONOUNS}
    for document in documents:
        ids = [end, *tokenizer.encode(document.text)][:CONTEXT]
        losses, weights = look(model, ids)
        nats, n_bytes = (
            nats + losses.sum().item(),
            n_bytes + len(tokenizer.decode(ids[1:]).encode()),
        )
        previous[0] += weights.diagonal(-1, -2, -1).sum(-1)
        first[0] += weights[:, :, 1:, 0].sum(-1)
        n_places += len(ids) - 1
        for word, same, other in references(document, tokenizer, ids):
            here = weights[:, :, same[-1]]  # the pronoun's row
            pronouns[word].append([here[:, :, same[:-1]].sum(-1), here[:, :, other].sum(-1)])
    return {
        "bits_per_byte": round(bits_per_byte(nats, n_bytes), 4),
        "previous": rounded(previous[0] / n_places),
        "first": rounded(first[0] / n_places),
        "pronouns": {
            word: {
                "count": len(pairs),
                "same": rounded(torch.stack([same for same, _ in pairs]).mean(0)),
                "other": rounded(torch.stack([other for _, other in pairs]).mean(0)),
            }
            for word, pairs in pronouns.items()
        },
    }


def references(
    document: Document, tokenizer: BPETokenizer, ids: Sequence[int]
) -> list[tuple[str, list[int], list[int]]]:
    """Return each pronoun with the tokens that mention the same one, itself last, and all others.

    Only pronouns before which both the same one and another one were mentioned count.
    """
    ends = [0]
    for i in ids[1:]:
        ends.append(ends[-1] + len(tokenizer.decode([i])))
    found, mentioned = [], dict[str, list[int]]()
    for mention in document.mentions:
        begin, last = token_of(ends, mention.start), token_of(ends, mention.end - 1)
        if last >= len(ids):
            break
        word = document.text[mention.start : mention.end].lower()
        same = mentioned.get(mention.entity, [])
        other = [t for who, tokens in mentioned.items() if who != mention.entity for t in tokens]
        if word in PRONOUNS and same and other:
            found.append((word, [*same, last], other))
        mentioned.setdefault(mention.entity, []).extend(range(begin, last + 1))
    return found


def rounded(values: Tensor) -> Any:
    """Return a tensor as lists of numbers with three decimals."""
    return [rounded(row) for row in values] if values.ndim else round(values.item(), 3)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=RESULT, help=f"default: {RESULT}")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    world = TinyWorld(seed=0)
    texts = [world.document(i, "story").text for i in range(N_TRAIN)]
    documents = [world.document(100_000 + i, "story") for i in range(N_MEASURED)]
    tokenizer = train_bpe(texts, 1024, special_tokens=[END])
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size,
        context_length=CONTEXT,
        n_layer=N_LAYER,
        n_head=N_HEAD,
        d_model=D_MODEL,
        positions="rope",
        norm="rmsnorm",
        bias=False,
    )
    model = GPT(config, seed=0)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(texts, tokenizer, Path(folder))
        train(model, Loader(shards, BATCH_SIZE, ROW, seed=0), arguments.steps)
    seconds = time.perf_counter() - started
    model.eval()
    shown = documents[STORY]
    ids = [tokenizer.special_tokens[END], *tokenizer.encode(shown.text)][:SHOWN]
    floor = bits_per_byte(
        -sum(document.logprob for document in documents),
        sum(len(document.text.encode()) for document in documents),
    )
    result = {
        "command": "python -m tests.benchmarks.attention_heads",
        "config": {**config.to_dict(), "steps": arguments.steps, "batch": BATCH_SIZE, "row": ROW},
        "seed": 0,
        "commit": commit(),
        "device": f"CPU, {processor()}, 1 thread",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "floor": round(floor, 4),
        **measure(model, tokenizer, documents),
        "tokens": [tokenizer.decode([i]) for i in ids],
        "weights": rounded(look(model, ids)[1]),
    }
    arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
