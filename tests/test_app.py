"""The command line: what a user types, sees, and gets as an exit code."""

import io
from pathlib import Path

import pytest

from gptbook.app.main import main
from gptbook.tokenizer import BPETokenizer

TEXT = "the cat sat on the mat that the rat ate\n" * 20


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a tokenizer file trained through the command line."""
    source, output = tmp_path / "text.txt", tmp_path / "tokenizer.json"
    source.write_text(TEXT, encoding="utf-8")
    command = ["tokenizer", "train", str(source), "--vocab-size", "262"]
    assert main([*command, "--special-token", "<|end|>", "--output", str(output)]) == 0
    return output


def test_train_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "text.txt", tmp_path / "tokenizer.json"
    source.write_text(TEXT, encoding="utf-8")
    assert main(["tokenizer", "train", str(source), "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "Fewer than the 8,192 asked for" in out
    assert f"Saved {output}" in out
    assert len(BPETokenizer.load(output).vocab) < 300


def test_encode_then_decode_is_the_text(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "encode", "--tokenizer", str(saved), "the rat 👋"]) == 0
    ids = capsys.readouterr().out.split()
    assert [int(word) for word in ids] == BPETokenizer.load(saved).encode("the rat 👋")
    assert main(["tokenizer", "decode", "--tokenizer", str(saved), *ids]) == 0
    assert capsys.readouterr().out == "the rat 👋\n"


def test_encode_reads_standard_input(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT * 100))
    assert main(["tokenizer", "encode", "--tokenizer", str(saved)]) == 0
    ids = capsys.readouterr().out
    assert [int(word) for word in ids.split()] == BPETokenizer.load(saved).encode(TEXT * 100)
    monkeypatch.setattr("sys.stdin", io.StringIO(ids))
    assert main(["tokenizer", "decode", "--tokenizer", str(saved)]) == 0
    assert capsys.readouterr().out == TEXT * 100 + "\n"


def test_special_tokens_are_text_unless_allowed(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    special = BPETokenizer.load(saved).special_tokens["<|end|>"]
    command = ["tokenizer", "encode", "--tokenizer", str(saved), "a<|end|>"]
    assert main(command) == 0
    assert str(special) not in capsys.readouterr().out.split()
    assert main([*command, "--allow-special"]) == 0
    assert capsys.readouterr().out.split()[-1] == str(special)


def test_pieces_show_each_tokens_text(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "encode", "--tokenizer", str(saved), "--pieces", "the 👋"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("b'the'")
    assert lines[-1].endswith(r"b'\x8b'")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["encode", "--tokenizer", "missing.json", "a"], "missing.json"),
        (["train", "missing.txt", "--output", "out.json"], "missing.txt"),
        (["train", __file__, "--vocab-size", "12", "--output", "out.json"], "256"),
    ],
)
def test_failure_is_one_sentence_and_exit_code_1(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tokenizer", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("gptbook: error: ")
    assert expected in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_id_out_of_range_is_named(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "decode", "--tokenizer", str(saved), "99999"]) == 1
    assert "99999" in capsys.readouterr().err


def test_usage_error_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tokenizer", "train"])
    assert stopped.value.code == 2
    assert "usage: gptbook tokenizer train" in capsys.readouterr().err
