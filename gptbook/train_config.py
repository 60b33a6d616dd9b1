# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Configurations of training runs: frozen, checked, and without torch.

A preset is a function that returns a whole `TrainConfig`; `with_overrides` changes single values by
their names, such as "optim.lr=3e-4".
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from gptbook.arguments import checked_integer
from gptbook.config import (
    GPTConfig,
    check_choice,
    check_flag,
    checked_fields,
    gpt2,
    mini,
    small_model,
)

TokenizerKind = Literal["characters", "bpe", "gpt2"]
Split = Literal["documents", "tail"]
OptimizerName = Literal["adamw", "muon"]
ScheduleKind = Literal["constant", "cosine", "stable-decay"]
Precision = Literal["auto", "float32", "bfloat16"]
Policy = Literal["stop", "skip"]


def check_numbers(section: object, **lowest: float) -> None:
    """Make the named fields of a frozen dataclass floats, or raise unless they are at least so.

    Raises:
        TypeError: a value is no number.
        ValueError: a value is too low, infinite or NaN.
    """
    for name, low in lowest.items():
        value = getattr(section, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not low <= value < float("inf"):
            raise ValueError(f"{name} must be finite and at least {low:g}, got {value!r}")
        object.__setattr__(section, name, float(value))


@dataclass(frozen=True)
class DataConfig:
    """Texts, how they become tokens, and what is held out.

    Attributes:
        corpus: a name that `corpora.load` knows.
        n_documents: how many of them; only for tinyworld, which has no end.
        kind: the kind of documents; only for tinyworld.
        tokenizer: "characters": one id for each character of the text; "bpe": trained on the
            training part; "gpt2": GPT-2's own, by tiktoken.
        vocab_size: of "bpe".
        split: "documents": held out by their hash; "tail": the end of the text, as one document.
        validation: the share that is held out.
        separate_documents: whether tokens see only those of their own document.
    """

    corpus: str = "tinyworld"
    n_documents: int | None = None
    kind: str | None = None
    tokenizer: TokenizerKind = "bpe"
    vocab_size: int | None = None
    split: Split = "documents"
    validation: float = 0.1
    separate_documents: bool = True

    def __post_init__(self) -> None:
        check_choice(self.tokenizer, "tokenizer", TokenizerKind)
        check_choice(self.split, "split", Split)
        check_flag(self.separate_documents, "separate_documents")
        check_numbers(self, validation=0.0)
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is a share above 0 and below 1, got {self.validation}")
        if self.n_documents is not None:
            checked_integer(self.n_documents, "n_documents", 1)
        if self.corpus != "tinyworld" and (self.n_documents, self.kind) != (None, None):
            raise ValueError(
                f"n_documents and kind are for tinyworld, and corpus is {self.corpus!r}: leave "
                "them out"
            )
        if (self.tokenizer == "bpe") != (self.vocab_size is not None):
            raise ValueError(
                f"tokenizer is {self.tokenizer!r} and vocab_size {self.vocab_size}: 'bpe' needs "
                "one, and the others have their own"
            )
        if self.vocab_size is not None:
            checked_integer(self.vocab_size, "vocab_size", 257)


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer.

    Attributes:
        name: "adamw", or "muon": that for matrices inside the model, and AdamW for all else.
        lr: the highest learning rate of AdamW.
        muon_lr: that of Muon.
        beta1: AdamW: how much of the mean of gradients stays.
        beta2: AdamW: how much of the mean of their squares stays.
        eps: AdamW: added to the root of that mean.
        momentum: Muon: how much of the mean of gradients stays.
        weight_decay: of matrices, decoupled.
        decay_tables: whether embeddings decay, too.
        clip: the largest norm of all gradients.
    """

    name: OptimizerName = "adamw"
    lr: float = 1e-3
    muon_lr: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.1
    decay_tables: bool = False
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_choice(self.name, "optim.name", OptimizerName)
        check_flag(self.decay_tables, "decay_tables")
        check_numbers(self, lr=0.0, muon_lr=0.0, beta1=0.0, beta2=0.0, eps=0.0, momentum=0.0)
        check_numbers(self, weight_decay=0.0, clip=0.0)
        for name in ("beta1", "beta2", "momentum"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")
        if self.clip == 0:
            raise ValueError("clip must be above 0: 1e9 never clips")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rates change over the run; see `gptbook.schedules`.

    Attributes:
        kind: "constant", "cosine", or "stable-decay".
        warmup_steps: steps of the warm-up.
        decay_steps: the fall of "stable-decay".
        floor: the last factor.
    """

    kind: ScheduleKind = "cosine"
    warmup_steps: int = 0
    decay_steps: int = 0
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_choice(self.kind, "schedule.kind", ScheduleKind)
        checked_integer(self.warmup_steps, "warmup_steps", 0)
        checked_integer(self.decay_steps, "decay_steps", 0)
        check_numbers(self, floor=0.0)
        if self.floor > 1:
            raise ValueError(f"floor is a factor, 0 to 1, got {self.floor}")


@dataclass(frozen=True)
class GuardConfig:
    """What happens when a loss or a gradient is not finite, or a loss jumps.

    Attributes:
        policy: "stop" the run, or "skip" the batch; in both cases it is saved.
        spike: nats above the median of the last losses that are a jump; None: none is.
        window: how many losses that median is of; before there are so many, none is a jump.
        max_skips: so many skips in a row stop the run.
    """

    policy: Policy = "stop"
    spike: float | None = None
    window: int = 50
    max_skips: int = 10

    def __post_init__(self) -> None:
        check_choice(self.policy, "policy", Policy)
        checked_integer(self.window, "window", 1)
        checked_integer(self.max_skips, "max_skips", 0)
        if self.spike is not None:
            check_numbers(self, spike=0.0)


@dataclass(frozen=True)
class TrainConfig:
    """All that a run depends on, but the machine.

    Attributes:
        model: the model.
        data: the texts.
        steps: updates of the weights.
        batch_size: rows of a step, on all processes together.
        context_length: tokens of a row; left out: the model's.
        micro_batch_size: rows that one process computes at a time; left out: all that it has.
        optim: the optimizer.
        schedule: its learning rates.
        guard: what to do when something is wrong.
        seed: of the weights, of the order of the data, and of dropout.
        precision: "float32", "bfloat16": matrix products in it, weights stay in float32; "auto":
            bfloat16 on a GPU or CPU that has instructions for it.
        device: "auto", or a name that torch knows.
        compile: whether torch.compile makes the loss.
        recompute: whether backward computes activations anew instead of keeping them.
        log_every: steps between lines of metrics.
        eval_every: steps between measurements on held-out text; 0: only at the end.
        eval_stride: new tokens of each row that is measured; the rest is context. Left out: all.
        checkpoint_every: steps between checkpoints; 0: only at the end.
        keep_checkpoints: how many are kept.
        sinks: where else metrics go: "wandb", "tensorboard".
    """

    model: GPTConfig
    data: DataConfig
    steps: int
    batch_size: int
    context_length: int = None  # type: ignore[assignment]  # a number once it is constructed
    micro_batch_size: int | None = None
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    guard: GuardConfig = GuardConfig()
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"
    compile: bool = False
    recompute: bool = False
    log_every: int = 10
    eval_every: int = 0
    eval_stride: int | None = None
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    sinks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.context_length is None:
            object.__setattr__(self, "context_length", self.model.context_length)
        least = {"steps": 1, "batch_size": 1, "context_length": 1, "log_every": 1}
        least |= {"eval_every": 0, "checkpoint_every": 0, "keep_checkpoints": 1}
        for name, low in least.items():
            checked_integer(getattr(self, name), name, low)
        checked_integer(self.seed, "seed")
        for name in ("micro_batch_size", "eval_stride"):
            if getattr(self, name) is not None:
                checked_integer(getattr(self, name), name, 1)
        check_choice(self.precision, "precision", Precision)
        check_flag(self.compile, "compile")
        check_flag(self.recompute, "recompute")
        object.__setattr__(self, "sinks", tuple(self.sinks))
        self._check_together()

    def _check_together(self) -> None:
        if self.context_length > self.model.context_length:
            raise ValueError(
                f"context_length is {self.context_length}, but model.context_length is "
                f"{self.model.context_length}: make the model's at least as long"
            )
        if self.eval_stride is not None and self.eval_stride > self.context_length:
            raise ValueError(
                f"eval_stride is {self.eval_stride}, but a row has context_length "
                f"{self.context_length} tokens: choose at most that"
            )
        used = self.schedule.warmup_steps + self.schedule.decay_steps
        if used > self.steps:
            raise ValueError(
                f"schedule.warmup_steps and schedule.decay_steps are {used} together, but steps is "
                f"{self.steps}"
            )
        vocab_size = self.data.vocab_size
        if vocab_size is not None and self.model.vocab_size < vocab_size:
            raise ValueError(
                f"model.vocab_size is {self.model.vocab_size}, but data.vocab_size is {vocab_size}:"
                " make the model's at least as large"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return all values as a dict that JSON can hold; `from_dict` takes it back."""
        return {**asdict(self), "sinks": list(self.sinks)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration that a dict describes.

        Raises:
            TypeError: values or one of its sections is no mapping.
            ValueError: a key is unknown or missing, or as for the classes.
        """
        given = checked_fields(cls, values, "the run's configuration")
        if "model" in given:
            given["model"] = GPTConfig.from_dict(given["model"])
        for name, section in SECTIONS.items():
            if name in given:
                given[name] = section(**checked_fields(section, given[name], name))
        return cls(**given)

    def with_overrides(self, settings: Iterable[str]) -> TrainConfig:
        """Return a configuration in which some values are others, such as "optim.lr=3e-4".

        What the model derived from the values that are changed is derived anew: with another
        model.d_model, model.d_head is another one, unless it had been given.

        Raises:
            ValueError: a setting has no "=", a name is unknown (close ones are named), or as for
                the classes.
        """
        values = self.to_dict()
        values["model"] = given_values(self.model)
        if self.context_length == self.model.context_length:
            del values["context_length"]
        known = [*setting_names(self), *("model." + f.name for f in fields(GPTConfig))]
        for setting in settings:
            name, equals, text = setting.partition("=")
            name = name.strip()
            if not equals:
                raise ValueError(f"{setting!r} sets nothing: write NAME=VALUE, as in optim.lr=3e-4")
            if name not in known:
                close = get_close_matches(name, known, n=3)
                hint = f"; did you mean {', '.join(close)}?" if close else f": {', '.join(known)}"
                raise ValueError(f"there is no setting {name!r}{hint}")
            *sections, last = name.split(".")
            place = values
            for section in sections:
                place = place[section]
            place[last] = parsed_value(text.strip())
        return TrainConfig.from_dict(values)


SECTIONS: dict[str, type[Any]] = {
    "data": DataConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "guard": GuardConfig,
}


def setting_names(config: TrainConfig) -> list[str]:
    """Return the names of all single values, those of sections with a dot."""
    names = []
    for name, value in config.to_dict().items():
        if name in SECTIONS:
            names += [f"{name}.{inner}" for inner in value]
        elif name != "model":
            names.append(name)
    return names


def given_values(model: GPTConfig) -> dict[str, Any]:
    """Return a model's values without those that it derives from the others."""
    values = model.to_dict()
    for name in ("n_kv_head", "d_head", "d_ff", "rope", "output_bias", "attention_bias"):
        rest = {key: value for key, value in values.items() if key != name}
        if GPTConfig.from_dict(rest) == model:
            values = rest
    return values


def parsed_value(text: str) -> Any:
    """Return what a text means: a number, True, False, None, a list, or else the text itself."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# --- presets ---


def tinyworld_cpu() -> TrainConfig:
    """Return two minutes of two cores on stories of TinyWorld.

    A vocabulary with all of its words, so that little of the time goes into spelling; two wide
    layers, the fewest that can copy a name; short rows and small batches, for many steps.
    """
    model = small_model(2, 4, 192, vocab_size=4096, context_length=128)
    return TrainConfig(
        model=replace(model, norm="layernorm", mlp="relu", d_ff=768, qk_norm=True),
        data=DataConfig(
            "tinyworld",
            n_documents=8000,
            kind="story",
            vocab_size=4096,
            validation=0.02,
            separate_documents=False,
        ),
        steps=1200,
        batch_size=8,
        optim=OptimConfig("muon", lr=2e-2, muon_lr=2e-2, beta2=0.99),
        schedule=ScheduleConfig("stable-decay", warmup_steps=20, decay_steps=900, floor=0.0),
        eval_every=300,
        eval_stride=64,
        checkpoint_every=300,
    )


def shakespeare_char_cpu() -> TrainConfig:
    """Return a quarter of a minute of two cores on Shakespeare's characters.

    As many parameters, and the batches, of nanoGPT's recipe for a CPU.
    """
    model = small_model(4, 4, 128, vocab_size=66, context_length=64)
    return TrainConfig(
        model=replace(model, norm="layernorm", mlp="relu", d_ff=512, qk_norm=True),
        data=SHAKESPEARE,
        steps=300,
        batch_size=12,
        optim=OptimConfig("muon", lr=1e-2, muon_lr=2e-2, beta2=0.99),
        schedule=ScheduleConfig("stable-decay", warmup_steps=20, decay_steps=260, floor=0.0),
        eval_every=100,
        checkpoint_every=150,
    )


SHAKESPEARE = DataConfig(
    "tiny_shakespeare", tokenizer="characters", split="tail", separate_documents=False
)
"""nanoGPT's data: characters, the last tenth of the file held out."""


def python_cpu() -> TrainConfig:
    """Return an hour or so of two cores on the sources of Python's standard library."""
    return TrainConfig(
        model=mini(),
        data=DataConfig("python_stdlib", vocab_size=4096),
        steps=2000,
        batch_size=8,
        optim=OptimConfig("muon", lr=3e-3, muon_lr=5e-3),
        schedule=ScheduleConfig("stable-decay", warmup_steps=50, decay_steps=800, floor=0.0),
        eval_every=500,
        checkpoint_every=250,
    )


def gpt2_124m() -> TrainConfig:
    """Return GPT-2's smallest model on educational web pages, for one large GPU.

    Batches of half a million tokens, the rates of Brown et al. (2020), table 2.1, doubled.
    """
    model = replace(gpt2(), vocab_size=50304)  # a multiple of 128: faster, and never predicted
    return TrainConfig(
        model=model,
        data=DataConfig("fineweb_edu", tokenizer="gpt2", validation=0.01),
        steps=2000,
        batch_size=512,
        micro_batch_size=32,
        optim=OptimConfig("adamw", lr=1.2e-3),
        schedule=ScheduleConfig("cosine", warmup_steps=200, floor=0.1),
        eval_every=250,
        checkpoint_every=250,
        precision="bfloat16",
        compile=True,
    )


TRAIN_PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "tinyworld-cpu": tinyworld_cpu,
    "shakespeare-char-cpu": shakespeare_char_cpu,
    "python-cpu": python_cpu,
    "gpt2-124m": gpt2_124m,
}
"""The presets by the names that people write."""


def train_preset(name: str) -> TrainConfig:
    """Return the preset of a name, such as "tinyworld-cpu".

    Raises:
        ValueError: there is none.
    """
    if name not in TRAIN_PRESETS:
        close = get_close_matches(name, TRAIN_PRESETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        names = ", ".join(TRAIN_PRESETS)
        raise ValueError(f"there is no preset {name!r}; choose one of {names}{hint}")
    return TRAIN_PRESETS[name]()
