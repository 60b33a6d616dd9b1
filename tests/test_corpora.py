"""Corpora: what each holds, how it is split, and where downloads go."""

import hashlib
import random
import shutil
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbook import corpora
from gptbook.corpora import Corpus, DelimitedFile, WorldDocuments, cache_folder, without_repeats
from gptbook.download import RemoteFile, sha256_of
from gptbook.tinyworld import TinyWorld
from tests.web_server import running

# --- names and options ---


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"no corpus 'shakespeare'.*tiny_shakespeare"):
        corpora.load("shakespeare")


def test_unknown_option_is_not_dropped() -> None:
    with pytest.raises(TypeError, match="n_documents"):
        corpora.load("python_reference", n_documents=3)


# --- what comes with Python ---


@pytest.mark.parametrize(
    ("name", "megabytes"), [("python_reference", (0.2, 1.0)), ("python_stdlib", (6, 25))]
)
def test_texts_of_this_machine(name: str, megabytes: tuple[float, float]) -> None:
    corpus = corpora.load(name)
    size = sum(len(document.encode()) for document in corpus.documents) / 1e6
    assert megabytes[0] < size < megabytes[1]
    assert all(document.strip() for document in corpus.documents)
    assert corpus.name == name
    assert corpus.license == "PSF-2.0"
    assert list(corpora.load(name).documents) == list(corpus.documents)


def test_reference_repeats_no_paragraph_between_pages() -> None:
    pages = corpora.load("python_reference").documents
    owner: dict[str, int] = {}
    for number, page in enumerate(pages):
        for paragraph in filter(None, page.split("\n\n")):
            assert owner.setdefault(paragraph, number) == number


def test_without_repeats_by_example() -> None:
    assert without_repeats(["a\n\nb", "b\n\nc\n\na", "a"]) == ["a\n\nb", "c"]


def test_library_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no sources"):
        corpora.load("python_stdlib")


def test_library_leaves_tests_out_and_reads_declared_encodings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_a.py").write_text("left out")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.py").write_bytes("# -*- coding: latin-1 -*-\né".encode("latin-1"))
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "empty.py").write_text("\n")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert corpora.load("python_stdlib").documents == [
        "x = 1\n",
        "# -*- coding: latin-1 -*-\né",
    ]


# --- TinyWorld ---


class Counting(TinyWorld):
    """A world that tells its documents' numbers, and remembers which it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []

    def document(self, index: int, kind: str = "story") -> "types.SimpleNamespace":  # type: ignore[override]
        self.asked.append((index, kind))
        return types.SimpleNamespace(text=f"document {index}")


def test_tinyworld_is_told_when_asked_for() -> None:
    world = Counting()
    corpus = corpora.load("tinyworld", n_documents=1_000_000, kind="facts", world=world)
    assert len(corpus.documents) == 1_000_000
    assert corpus.documents[-1] == "document 999999"
    assert corpus.documents[5:11:2] == ["document 5", "document 7", "document 9"]
    assert world.asked == [(999_999, "facts"), (5, "facts"), (7, "facts"), (9, "facts")]
    assert isinstance(corpus.documents, WorldDocuments)
    with pytest.raises(IndexError, match="document 1000000 of 1,000,000"):
        corpus.documents[1_000_000]


def test_splitting_tinyworld_tells_nothing() -> None:
    world = Counting()
    splits = corpora.load("tinyworld", n_documents=1000, world=world).splits(0.2)
    assert world.asked == []
    assert {*splits.train[:], *splits.validation[:]} == {f"document {i}" for i in range(1000)}


@pytest.mark.parametrize("n", [0, -1])
def test_tinyworld_without_documents(n: int) -> None:
    with pytest.raises(ValueError, match=f"n_documents is {n}"):
        corpora.load("tinyworld", n_documents=n)


def test_tinyworld_tells_no_such_kind() -> None:
    with pytest.raises(ValueError, match="kind is 'poem'; choose one of story, facts"):
        corpora.load("tinyworld", kind="poem")


# --- splits ---


def corpus_of(documents: list[str]) -> Corpus:
    return Corpus("test", documents, "here", "none")


@given(st.lists(st.text()), st.floats(0, 1))
def test_split_is_a_partition_that_keeps_order(documents: list[str], fraction: float) -> None:
    train, validation = corpus_of(documents).splits(fraction)
    held_out = set(validation)
    assert list(train) == [d for d in documents if d not in held_out]
    assert list(validation) == [d for d in documents if d in held_out]


@given(st.lists(st.text()), st.lists(st.text()), st.floats(0, 1), st.floats(0, 1))
def test_side_depends_on_the_document_alone(
    documents: list[str], more: list[str], a: float, b: float
) -> None:
    held_out = set(corpus_of(documents).splits(min(a, b)).validation)
    later = set(corpus_of([*more, *documents]).splits(max(a, b)).validation)
    assert held_out <= later


def test_split_has_about_the_fraction_asked_for(rng: random.Random) -> None:
    n_all = 20_000
    documents = [rng.randbytes(8).hex() for _ in range(n_all)]
    for fraction in (0.0, 0.05, 0.5, 1.0):
        n = len(corpus_of(documents).splits(fraction).validation)
        # Six standard deviations of a binomial. False alarm: below 5e-8 in all (Chernoff's bound
        # at 0.05, whose upper tail is heavier than a normal one).
        assert abs(n - n_all * fraction) <= 6 * (n_all * fraction * (1 - fraction)) ** 0.5


def test_split_does_not_change_between_versions() -> None:
    """These sides are what every published number of the book was measured with."""
    _, validation = corpus_of([f"document {i}" for i in range(200)]).splits(0.1)
    assert [int(d.removeprefix("document ")) for d in validation] == [
        40,
        44,
        59,
        70,
        81,
        100,
        105,
        108,
        117,
        118,
        120,
        123,
        129,
        148,
        150,
        162,
        163,
        165,
        185,
    ]


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"validation is {fraction}"):
        corpus_of(["a"]).splits(fraction)


# --- the cache ---


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTBOOK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("GPTBOOK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for platform, expected in {
        "linux": tmp_path / "xdg" / "gptbook",
        "win32": tmp_path / "local" / "gptbook",
        "darwin": tmp_path / "home" / "Library" / "Caches" / "gptbook",
    }.items():
        monkeypatch.setattr("gptbook.corpora.sys.platform", platform)
        assert cache_folder() == expected
    monkeypatch.setattr("gptbook.corpora.sys.platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "gptbook"


def shared_shakespeare() -> Path:
    """Return Tiny Shakespeare where .ci/run or the shared data has it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for folder in (cache_folder(), beside):
        if (path := folder / "tiny_shakespeare" / "input.txt").exists():
            return path
    pytest.skip("Tiny Shakespeare is in no cache: .ci/run sets GPTBOOK_CACHE")


def test_tiny_shakespeare_from_a_cache(tmp_path: Path) -> None:
    original = shared_shakespeare()
    assert sha256_of(original) == corpora.TINY_SHAKESPEARE.sha256
    (tmp_path / "tiny_shakespeare").mkdir()
    shutil.copy(original, tmp_path / "tiny_shakespeare" / "input.txt")
    corpus = corpora.load("tiny_shakespeare", cache=tmp_path)
    assert "\n\n".join(corpus.documents) == original.read_text(encoding="utf-8")
    assert len(corpus.documents) > 200
    assert 20 < len(corpus.splits(0.15).validation) < 50


def test_downloads_go_to_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"A: one\n\nB: two"
    with running(content) as server:
        file = RemoteFile(server.url("x/input.txt"), 14, hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(corpora, "TINY_SHAKESPEARE", file)
        monkeypatch.setenv("GPTBOOK_CACHE", str(tmp_path))
        assert corpora.load("tiny_shakespeare", progress=False).documents == ["A: one\n\nB: two"]
    assert (tmp_path / "tiny_shakespeare" / "input.txt").read_bytes() == content


@pytest.mark.parametrize("name", ["TINY_SHAKESPEARE", "TINYSTORIES", "FINEWEB_EDU"])
def test_remote_files_are_pinned(name: str) -> None:
    """Each address names a commit, not a branch, whose content changes."""
    file: RemoteFile = getattr(corpora, name)
    assert any(len(part) == 40 and int(part, 16) for part in file.url.split("/"))
    assert len(file.sha256) == 64


# --- files with many documents ---


def test_delimited_file(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_bytes("\nOnce\n<|end|>\n<|end|> Zwölf \xff<|end|>last".encode("latin-1"))
    documents = DelimitedFile(path, "<|end|>")
    assert list(documents) == ["Once", "Zw�lf �", "last"]
    assert documents[1:] == ["Zw�lf �", "last"]
    assert documents[-1] == "last"


def test_tinystories_is_read_lazily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"One day.\n<|endoftext|>\nTwo days.\n<|endoftext|>\n"
    (tmp_path / "tinystories").mkdir()
    (tmp_path / "tinystories" / "t.txt").write_bytes(content)
    file = RemoteFile("http://127.0.0.1:1/t.txt", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(corpora, "TINYSTORIES", file)
    for cache in (tmp_path, str(tmp_path)):
        corpus = corpora.load("tinystories", cache=cache)
        assert list(corpus.documents) == ["One day.", "Two days."]


# --- Parquet ---


def test_fineweb_without_pyarrow_says_so_before_it_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        corpora.load("fineweb_edu", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


class FakeParquetFile:
    """Row groups as pyarrow shows them."""

    groups: tuple[list[str], ...] = (["a", "b"], [], ["c"], ["d", "e", "f"])
    reads: list[int]

    def __init__(self, _: Path) -> None:
        type(self).reads = []
        self.num_row_groups = len(self.groups)
        self.metadata = types.SimpleNamespace(
            row_group=lambda group: types.SimpleNamespace(num_rows=len(self.groups[group]))
        )

    def read_row_group(self, group: int, columns: list[str]) -> types.SimpleNamespace:
        assert columns == ["text"]
        self.reads.append(group)
        rows = self.groups[group]
        return types.SimpleNamespace(
            column=lambda _: types.SimpleNamespace(to_pylist=lambda: list(rows))
        )


def test_parquet_reads_each_row_group_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.SimpleNamespace(ParquetFile=FakeParquetFile)
    monkeypatch.setattr(corpora, "import_parquet", lambda: fake)
    documents = corpora.ParquetColumn(Path("x.parquet"), "text")
    assert list(documents) == list("abcdef")
    assert FakeParquetFile.reads == [0, 2, 3]
    assert (documents[0], documents[-1], documents[2]) == ("a", "f", "c")


def test_parquet_by_pyarrow_itself(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an optional dependency")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [f"page {i}" for i in range(10)]
    table = pyarrow.table({"text": texts, "id": list(range(10))})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    documents = corpora.ParquetColumn(tmp_path / "x.parquet", "text")
    assert list(documents) == texts
    assert documents[-2:] == texts[-2:]
