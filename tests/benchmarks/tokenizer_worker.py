"""One measurement of the tokenizer benchmark, in a process of its own.

``bench_tokenizer.py`` starts this module, hands it a `Job` as JSON on standard input, and reads
the `Measurement` from standard output. A process of its own makes peak memory a fact about one
library, and leaves no cache warm for the next. See ``bench_tokenizer.py`` for what is compared.
"""

import gc
import hashlib
import importlib
import json
import os
import re
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from gptbook.tokenizer import GPT2_PATTERN

TextsToIds = Callable[[list[str]], list[list[int]]]
IdsToText = Callable[[list[int]], str]

COPY_BYTES = 128 * 2**20  # beyond most caches


@dataclass(frozen=True)
class Job:
    """What to measure: a task (``train``, ``encode`` or ``limits``), a library, and a corpus.

    Attributes:
        task: ``train``, ``encode`` or ``limits``.
        library: ``gptbook``, ``tokenizers``, ``tiktoken`` or ``rustbpe``; ignored for limits.
        corpus: the file of a JSON list of texts.
        vocab_size: ids to train for; ignored unless the task is ``train``.
        vocabulary: the folder with GPT-2's vocabulary in each library's own file, as
            `write_vocabulary` makes it; ignored unless the task is ``encode``.
    """

    task: str
    library: str
    corpus: Path
    vocab_size: int = 0
    vocabulary: Path | None = None


@dataclass
class Measurement:
    """What a process measured.

    Attributes:
        seconds: wall-clock seconds of each phase.
        peak_bytes: the most memory held beyond imports and texts while training, or while
            loading the vocabulary and encoding cold; None where the system does not tell (not
            Linux).
        facts: what the phases gave, to be the same in every round: tokens, a digest of the ids.
        copy_bytes_per_second: only from ``limits``.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    facts: dict[str, int | str] = field(default_factory=dict)
    copy_bytes_per_second: float = 0.0


# --- Time and memory -----------------------------------------------------------------------------


def memory_in_use(name: str) -> int | None:
    """Return ``VmRSS`` (now) or ``VmHWM`` (peak) of this process in bytes; None if not on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    match = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


@contextmanager
def timed(measurement: Measurement, phase: str) -> Iterator[None]:
    """Record the seconds of the body, with Python's collector run before it."""
    gc.collect()
    start = time.perf_counter()
    yield
    measurement.seconds[phase] = time.perf_counter() - start


@contextmanager
def peak_recorded(measurement: Measurement) -> Iterator[None]:
    """Record the peak of memory in the body above what is in use before it."""
    gc.collect()
    before = memory_in_use("VmRSS")
    if before is not None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM: proc(5)
    yield
    peak = memory_in_use("VmHWM")
    if before is not None and peak is not None:
        measurement.peak_bytes = max(0, peak - before)


# --- Training ------------------------------------------------------------------------------------


def train_gptbook(texts: list[str], vocab_size: int) -> int:
    from gptbook.tokenizer import train_bpe

    return len(train_bpe(texts, vocab_size=vocab_size).vocab)


def train_tokenizers(texts: list[str], vocab_size: int) -> int:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return int(tokenizer.get_vocab_size())


def train_rustbpe(texts: list[str], vocab_size: int) -> int:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size, pattern=GPT2_PATTERN)
    return int(tokenizer.vocab_size)


TRAINERS = {
    "gptbook": train_gptbook,
    "tokenizers": train_tokenizers,
    "rustbpe": train_rustbpe,
}


def measure_training(library: str, texts: list[str], vocab_size: int) -> Measurement:
    """Train once."""
    measurement = Measurement()
    TRAINERS[library](["warm up"], 257)  # imports the library
    with peak_recorded(measurement), timed(measurement, "train"):
        measurement.facts["vocab_size_reached"] = TRAINERS[library](texts, vocab_size)
    return measurement


# --- Encoding and decoding -----------------------------------------------------------------------


def write_vocabulary(folder: Path) -> None:
    """Write GPT-2's vocabulary as gptbook and Hugging Face load it; tiktoken has its own cache."""
    from gptbook.tokenizer import BPETokenizer

    tokenizer = BPETokenizer.from_tiktoken("gpt2")
    tokenizer.save(folder / "gptbook.json")
    tokenizer.to_huggingface(folder)


def codec_gptbook(vocabulary: Path) -> tuple[TextsToIds, IdsToText]:
    from gptbook.tokenizer import BPETokenizer

    tokenizer = BPETokenizer.load(vocabulary / "gptbook.json")
    return tokenizer.encode_batch, tokenizer.decode


def codec_tiktoken(_vocabulary: Path) -> tuple[TextsToIds, IdsToText]:
    import tiktoken

    encoding = tiktoken.get_encoding("gpt2")
    return partial(encoding.encode_ordinary_batch, num_threads=1), encoding.decode


def codec_tokenizers(vocabulary: Path) -> tuple[TextsToIds, IdsToText]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary / "tokenizer.json"))

    def encode(texts: list[str]) -> list[list[int]]:
        # The fastest way that it offers: without the offsets of tokens in the text.
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
        return text

    return encode, decode


CODECS = {
    "gptbook": codec_gptbook,
    "tiktoken": codec_tiktoken,
    "tokenizers": codec_tokenizers,
}


def measure_encoding(library: str, texts: list[str], vocabulary: Path) -> Measurement:
    """Load the vocabulary, encode all texts twice, then decode them.

    Raises:
        ValueError: if the texts do not come back.
    """
    measurement = Measurement()
    importlib.import_module("gptbook.tokenizer" if library == "gptbook" else library)
    with peak_recorded(measurement):
        with timed(measurement, "load"):
            encode, decode = CODECS[library](vocabulary)
        with timed(measurement, "encode, cold"):
            ids = encode(texts)
    with timed(measurement, "encode, warm"):
        again = encode(texts)
    with timed(measurement, "decode"):
        decoded = [decode(some) for some in ids]
    if again != ids or decoded != texts:
        raise ValueError(f"{library} does not give back what it encoded")
    flat = array("I", [i for some in ids for i in some])
    measurement.facts["tokens"] = len(flat)
    measurement.facts["digest"] = hashlib.sha256(flat.tobytes()).hexdigest()[:16]
    return measurement


# --- The machine's own limits --------------------------------------------------------------------


def measure_limits(texts: list[str]) -> Measurement:
    """Copy memory, and split the texts with the regex library, which is where encoding begins."""
    import numpy
    import regex

    measurement = Measurement()
    source = numpy.ones(COPY_BYTES, dtype=numpy.uint8)
    target = numpy.zeros_like(source)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        numpy.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    measurement.copy_bytes_per_second = COPY_BYTES / min(seconds)
    pattern = regex.compile(GPT2_PATTERN)
    with timed(measurement, "regex.findall"):
        measurement.facts["pieces"] = sum(len(pattern.findall(text)) for text in texts)
    return measurement


def stay_on_one_core() -> None:
    """Hold this process, and the threads that it starts, to one core where the system can."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(job: Job) -> Measurement:
    """Do what ``job`` says, on one core.

    Raises:
        ValueError: if it names an unknown task, or no vocabulary to encode with.
    """
    stay_on_one_core()
    texts: list[str] = json.loads(job.corpus.read_text(encoding="utf-8"))
    if job.task == "train":
        return measure_training(job.library, texts, job.vocab_size)
    if job.task == "encode":
        if job.vocabulary is None:
            raise ValueError("the task encode needs the folder of the vocabulary, but has none")
        return measure_encoding(job.library, texts, job.vocabulary)
    if job.task == "limits":
        return measure_limits(texts)
    raise ValueError(f"task is {job.task!r}: it must be train, encode or limits")


def main() -> int:
    """Read a job from standard input, write the measurement to standard output."""
    job = json.load(sys.stdin)
    paths = {key: Path(job[key]) for key in ("corpus", "vocabulary") if job[key]}
    measurement = measure(Job(**{**job, **paths}))
    json.dump(asdict(measurement), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
