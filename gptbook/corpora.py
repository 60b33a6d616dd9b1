# Exported from chapters/02_training_data.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Texts to train on, each as a sequence of documents: on this machine, made up, or downloaded.

`load("python_reference")` and its like return a `Corpus`. Nothing is downloaded before you ask.
"""

import bisect
import hashlib
import importlib
import mmap
import os
import sys
import sysconfig
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from gptbook.download import RemoteFile, download

if TYPE_CHECKING:
    from gptbook.tinyworld import TinyWorld


CACHE_VARIABLE = "GPTBOOK_CACHE"


def cache_folder() -> Path:
    """Return the folder for downloads: GPTBOOK_CACHE, or gptbook in the user's cache folder.

    Nothing else in the package reads that variable.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "gptbook"


# --- a corpus and its two parts ---


class DocumentSequence(Sequence[str]):
    """Documents that are read or made when they are asked for; slices are lists."""

    def document(self, index: int) -> str:
        """Return document index, which is 0 to len(self) - 1."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.document(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self):,}")
        return self.document(index % len(self))


class Chosen(DocumentSequence):
    """The documents of another sequence at some places."""

    def __init__(self, documents: Sequence[str], places: Sequence[int]) -> None:
        self._documents = documents
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def document(self, index: int) -> str:
        """Return the document at that place."""
        return self._documents[self._places[index]]


class Splits(NamedTuple):
    """What to train on, and what is held out."""

    train: Sequence[str]
    validation: Sequence[str]


def fraction_of(key: str) -> float:
    """Return a number from 0 to 1, the same for a key everywhere, and as if drawn at random."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Corpus:
    """Documents, and where they come from.

    Attributes:
        name: what `load` calls it.
        documents: the texts; a list, or read as they are asked for.
        source: who made them, and where they are.
        license: the terms of use, as the source states them.
        split_by: whether `splits` looks at a document's text, so that equal documents stay
            together, or at its number, so that none has to be made: for a corpus of which
            few documents, if any, are equal.
    """

    name: str
    documents: Sequence[str]
    source: str
    license: str
    split_by: Literal["text", "number"] = "text"

    def splits(self, validation: float = 0.1) -> Splits:
        """Split into training and validation documents, each document by its own hash.

        A document's side depends on nothing but itself: not on the order, nor on what is added.
        With a larger fraction, what was held out stays held out.

        Args:
            validation: the expected fraction of documents to hold out, 0 to 1.

        Raises:
            ValueError: validation is not in that range.
        """
        if not 0 <= validation <= 1:
            raise ValueError(f"validation is {validation}; it is a fraction, 0 to 1")
        numbers = range(len(self.documents))
        keys = map(str, numbers) if self.split_by == "number" else iter(self.documents)
        held_out = [fraction_of(key) < validation for key in keys]
        return Splits(
            Chosen(self.documents, [i for i in numbers if not held_out[i]]),
            Chosen(self.documents, [i for i in numbers if held_out[i]]),
        )


# --- texts that come with Python ---


def without_repeats(pages: Sequence[str]) -> list[str]:
    """Drop each paragraph that stood before, so that no page holds a part of another."""
    seen: set[str] = set()
    kept: list[str] = []
    for page in pages:
        paragraphs = page.split("\n\n")
        new = "\n\n".join(p for p in paragraphs if p not in seen)
        seen.update(paragraphs)
        if new.strip():
            kept.append(new)
    return kept


def python_reference() -> Corpus:
    """Return the topics of Python's language reference, as pydoc has them: English with code.

    Topics include one another's paragraphs; each paragraph is kept where it stands first in the
    order of the topics' names, so that held-out text is not in the training text.
    """
    from pydoc_data.topics import topics

    return Corpus(
        "python_reference",
        without_repeats([topics[name] for name in sorted(topics)]),
        source=f"pydoc_data.topics of Python {sys.version.split()[0]}",
        license="PSF-2.0",
    )


NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data"}
"""Folders of installed packages, of tests, and of `python_reference`."""


def python_stdlib() -> Corpus:
    """Return the sources of Python's standard library, a module a document, tests left out.

    Raises:
        FileNotFoundError: this Python came without sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not NOT_LIBRARY & set(path.relative_to(root).parts)
    )
    documents = [text for name in files if (text := python_source(root / name)).strip()]
    if not documents:
        raise FileNotFoundError(
            f"{root}: no sources of the standard library; install a Python that has them"
        )
    return Corpus(
        "python_stdlib",
        documents,
        source=f"the standard library of Python {sys.version.split()[0]}, in {root}",
        license="PSF-2.0",
    )


def python_source(path: Path) -> str:
    """Return a source file's text, in the encoding that it declares."""
    with tokenize.open(path) as file:
        return file.read()


# --- TinyWorld ---


class WorldDocuments(DocumentSequence):
    """The first documents of a kind that a TinyWorld tells."""

    def __init__(self, world: "TinyWorld", n_documents: int, kind: str) -> None:
        self._world = world
        self._n_documents = n_documents
        self._kind = kind

    def __len__(self) -> int:
        return self._n_documents

    def document(self, index: int) -> str:
        """Tell document index."""
        return self._world.document(index, self._kind).text


def tinyworld(
    n_documents: int = 10_000, *, kind: str = "story", world: "TinyWorld | None" = None
) -> Corpus:
    """Return the first documents of a kind from a TinyWorld, by default from the one of seed 0.

    Raises:
        ValueError: n_documents is not positive, or the world tells no such kind.
    """
    from gptbook.tinyworld import KINDS, TinyWorld

    kinds = getattr(world, "kinds", KINDS)
    if kind not in kinds:
        raise ValueError(f"kind is {kind!r}; choose one of {', '.join(kinds)}")
    if n_documents < 1:
        raise ValueError(f"n_documents is {n_documents}, but must be at least 1")
    return Corpus(
        "tinyworld",
        WorldDocuments(world or TinyWorld(), n_documents, kind),
        source=f"gptbook.tinyworld, kind {kind!r}",
        license="MIT",
        split_by="number",
    )


# --- downloads ---
# Sizes and SHA-256: Tiny Shakespeare's were computed from the file. Those of the other two are what
# several public projects that pin these revisions state, in agreement.

_HUB = "https://huggingface.co/datasets"

TINY_SHAKESPEARE = RemoteFile(
    "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
TINYSTORIES = RemoteFile(
    f"{_HUB}/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64/"
    "TinyStoriesV2-GPT4-train.txt",
    size=2_227_753_162,
    sha256="6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443",
)
FINEWEB_EDU = RemoteFile(
    f"{_HUB}/HuggingFaceFW/fineweb-edu/resolve/87f09149ef4734204d70ed1d046ddc9ca3f2b8f9/"
    "sample/10BT/013_00000.parquet",
    size=540_632_672,
    sha256="b393f51fefab26cd6f4c8f65707c1924f6666c4961a0ebebe04bb57f7ec832de",
)

SPEECHES_PER_DOCUMENT = 32


def cached(file: RemoteFile, folder: str, cache: str | Path | None, progress: bool) -> Path:
    """Return the file's path in the cache, downloaded if it is not there."""
    name = file.url.rpartition("/")[2]
    return download(file, Path(cache or cache_folder()) / folder / name, progress=progress)


def tiny_shakespeare(*, cache: str | Path | None = None, progress: bool = True) -> Corpus:
    r"""Return 1.1 MB of Shakespeare's plays, about 5 kB (32 speeches) a document.

    The file does not say where a play or a scene begins; `"\n\n".join(documents)` is the file.

    Raises:
        OSError: it cannot be downloaded; see `gptbook.download.download`.
    """
    path = cached(TINY_SHAKESPEARE, "tiny_shakespeare", cache, progress)
    speeches = path.read_bytes().decode("utf-8").split("\n\n")
    return Corpus(
        "tiny_shakespeare",
        [
            "\n\n".join(speeches[start : start + SPEECHES_PER_DOCUMENT])
            for start in range(0, len(speeches), SPEECHES_PER_DOCUMENT)
        ],
        source=f"A. Karpathy's char-rnn, {TINY_SHAKESPEARE.url}",
        license="public domain",
    )


class DelimitedFile(DocumentSequence):
    """The documents of a UTF-8 file between which a delimiter stands, without the space around.

    The file is mapped into memory, not read, and must not change meanwhile.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._spans = [span for span in self._all_spans(delimiter.encode()) if self._text(span)]

    def _all_spans(self, delimiter: bytes) -> Iterator[tuple[int, int]]:
        start = 0
        while (end := self._bytes.find(delimiter, start)) >= 0:
            yield start, end
            start = end + len(delimiter)
        yield start, len(self._bytes)

    def _text(self, span: tuple[int, int]) -> bytes:
        return self._bytes[span[0] : span[1]].strip()

    def __len__(self) -> int:
        return len(self._spans)

    def document(self, index: int) -> str:
        """Return a document's text; bytes that are not UTF-8 become U+FFFD."""
        return self._text(self._spans[index]).decode("utf-8", "replace")


def tinystories(*, cache: str | Path | None = None, progress: bool = True) -> Corpus:
    """Return 2.7 million short stories by GPT-4: TinyStories, version 2, a file of 2.2 GB.

    Source: Eldan and Li (2023). Raises as `gptbook.download.download`.
    """
    path = cached(TINYSTORIES, "tinystories", cache, progress)
    return Corpus(
        "tinystories",
        DelimitedFile(path, "<|endoftext|>"),
        source=f"R. Eldan and Y. Li, {TINYSTORIES.url}",
        license="CDLA-Sharing-1.0",
    )


class ParquetColumn(DocumentSequence):
    """A column of strings in a Parquet file, of which one row group at a time is in memory."""

    def __init__(self, path: Path, column: str) -> None:
        parquet = import_parquet()
        self._file = parquet.ParquetFile(path)
        self._column = column
        groups = range(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._ends = [sum(sizes[: group + 1]) for group in groups]
        self._group = -1
        self._rows: list[Any] = []

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def document(self, index: int) -> str:
        """Return row index, reading its row group unless the last row asked for was there, too."""
        group = bisect.bisect_right(self._ends, index)
        if group != self._group:
            table = self._file.read_row_group(group, columns=[self._column])
            self._rows = table.column(self._column).to_pylist()
            self._group = group
        text: str = self._rows[index - self._ends[group]]  # from the end, so negative
        return text


def import_parquet() -> Any:
    """Return the module pyarrow.parquet.

    Raises:
        ImportError: pyarrow, which gptbook does not require, is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            "fineweb_edu is a Parquet file, which pyarrow reads: install it with "
            "`pip install pyarrow`"
        ) from error


def fineweb_edu(*, cache: str | Path | None = None, progress: bool = True) -> Corpus:
    """Return a shard of FineWeb-Edu: educational web pages in English, a file of 0.54 GB.

    It is the last and smallest shard of the published sample of ten billion tokens. Needs pyarrow.

    Source: Penedo et al. (2024). Raises as `gptbook.download.download`, and ImportError.
    """
    import_parquet()  # before half a gigabyte is downloaded
    path = cached(FINEWEB_EDU, "fineweb_edu", cache, progress)
    return Corpus(
        "fineweb_edu",
        ParquetColumn(path, "text"),
        source=f"HuggingFaceFW, {FINEWEB_EDU.url}",
        license="ODC-By-1.0",
    )


# --- by name ---

LOADERS: dict[str, Callable[..., Corpus]] = {
    "python_reference": python_reference,
    "python_stdlib": python_stdlib,
    "tinyworld": tinyworld,
    "tiny_shakespeare": tiny_shakespeare,
    "tinystories": tinystories,
    "fineweb_edu": fineweb_edu,
}
NAMES = tuple(LOADERS)


def load(name: str, **options: Any) -> Corpus:
    """Return the corpus of that name; `load(name, **options)` is `corpora.name(**options)`.

    Downloads take `cache`, a folder other than `cache_folder()`, and `progress`, whether to show a
    bar. tinyworld takes `n_documents`, `kind` and `world`.

    Raises:
        ValueError: there is no such corpus.
        TypeError: that corpus has no such option.
    """
    if name not in LOADERS:
        raise ValueError(f"no corpus {name!r}; there are {', '.join(NAMES)}")
    return LOADERS[name](**options)
