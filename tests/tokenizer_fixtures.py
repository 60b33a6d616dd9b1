"""Fixtures of the tokenizer's tests: fresh random numbers, corpora, and two tokenizers.

A pytest plugin, named in ``tests/conftest.py``.
"""

import os
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
from hypothesis import HealthCheck, settings

from gptbook.tokenizer import BPETokenizer, train_bpe
from tests.tokenizer_texts import END_OF_TEXT, MULTILINGUAL

TRAINED_VOCAB_SIZE = 2048

# A busy machine fails no test: wall-clock time is no property of the code.
settings.register_profile("gptbook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gptbook")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-seed", type=int, help="repeat a run's random test data")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of a fresh seed, which a failing test's output names."""
    seed = request.config.getoption("--data-seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    print(f"random data: repeat with --data-seed {seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def standard_library() -> list[Path]:
    """Sources of the standard library of at most 100 kB each, sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    folders = [path for path in root.iterdir() if path.is_dir() and path.name != "site-packages"]
    files = [*root.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    return sorted(file for file in files if file.stat().st_size <= 100_000)


@pytest.fixture(scope="session")
def gpt2_encoding() -> tiktoken.Encoding:
    """tiktoken's GPT-2, from ``TIKTOKEN_CACHE_DIR`` or the network; skips where neither has it."""
    try:
        return tiktoken.get_encoding("gpt2")
    except OSError as error:  # requests' exceptions are OSErrors
        pytest.skip(
            "GPT-2's vocabulary is neither in TIKTOKEN_CACHE_DIR nor on the network "
            f"({type(error).__name__}): .ci/run sets it"
        )


@pytest.fixture(scope="session")
def gpt2(gpt2_encoding: tiktoken.Encoding) -> BPETokenizer:
    """Our tokenizer with GPT-2's vocabulary."""
    return BPETokenizer.from_tiktoken("gpt2")


@pytest.fixture(scope="session")
def new_tokenizer(standard_library: list[Path]) -> Callable[[], BPETokenizer]:
    """Train the tests' tokenizer anew: on Python sources (as paths) and multilingual text."""
    names = ("ast.py", "difflib.py", "random.py", "textwrap.py", "tokenize.py")
    sources = [file for file in standard_library if file.name in names]

    def train() -> BPETokenizer:
        return train_bpe(
            [*sources, *[MULTILINGUAL] * 20],
            vocab_size=TRAINED_VOCAB_SIZE,
            special_tokens=[END_OF_TEXT, "<|user|>"],
        )

    return train


@pytest.fixture(scope="session")
def trained_tokenizer(new_tokenizer: Callable[[], BPETokenizer]) -> BPETokenizer:
    """A tokenizer of our own with 2048 ids, two of them special."""
    return new_tokenizer()


@pytest.fixture(scope="session")
def tiny_shakespeare() -> str:
    """The text in ``GPTBOOK_CACHE``; skips where it is not."""
    cache = os.environ.get("GPTBOOK_CACHE")
    path = Path(cache or "") / "tiny_shakespeare" / "input.txt"
    if not cache or not path.exists():
        pytest.skip("Tiny Shakespeare is not in GPTBOOK_CACHE: .ci/run sets it")
    return path.read_text(encoding="utf-8")
