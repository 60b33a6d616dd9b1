"""The grader's commands, as the shell runs them."""

import argparse
import json
from pathlib import Path

import pytest

from gptbook.grading.ch01_tokenizer import fast_training, special, training
from gptbook.grading.commands import add_commands

CHAPTER = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
from gptbook.bpe_training import learn_merges

print(learn_merges.__code__.co_filename.rpartition("/")[2])
learn_merges({b"aab": 2}, 1)
```

```{code-cell} ipython3
from IPython.display import SVG

SVG('<svg xmlns="http://www.w3.org/2000/svg"/>')
```
"""


def gptbook(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    parsed = parser.parse_args(arguments)
    parsed.run(parsed)


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_grade_prints_json_text_and_html(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(special.REFERENCE)
    chosen = ("grade", "1", "--only", "1.3", "--path", str(path), "--seed", "5")
    gptbook(*chosen, "--json")
    report = json.loads(capsys.readouterr().out)
    assert (report["score"], report["points"], report["seed"]) == (10, 10, 5)
    assert len(report["checks"]) == 8
    gptbook(*chosen)
    assert "1.3 Special tokens in text from users: 10 of 10" in capsys.readouterr().out
    gptbook(*chosen, "--html")
    assert capsys.readouterr().out.startswith("<!doctype html>")


def test_several_chapters_are_graded_from_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "01_tokenizer.md").write_text("# Nothing yet\n")
    (tmp_path / "02_language_models.md").write_text("# Nothing yet\n")
    folder = ("--path", str(tmp_path))
    gptbook("grade", "1", "2", *folder, "--json")
    reports = json.loads(capsys.readouterr().out)
    assert [report["score"] for report in reports] == [0, 0]
    assert [report["points"] > 0 for report in reports] == [True, True]
    gptbook("grade", "1", "2", *folder)
    printed = capsys.readouterr().out
    assert printed.index("01_tokenizer.md: 0 of") < printed.index("02_language_models.md: 0 of")
    for wrong, message in (
        (("--only", "1.1", *folder), "--only is for one chapter, but 2"),
        (("--html", *folder), "--html is for one chapter"),
        (("--path", str(tmp_path / "01_tokenizer.md")), "is one file: several chapters"),
        (("--path", str(tmp_path.parent / "none")), "is one file|no file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            gptbook("grade", "1", "2", *wrong)


def test_wrong_names_are_errors_that_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="chapters that have some: 1"):
        gptbook("grade", "99")
    with pytest.raises(ValueError, match=r"it has 1\.1, 1\.2"):
        gptbook("hint", "1.9")
    with pytest.raises(FileNotFoundError, match=r"none\.md"):
        gptbook("grade", "1", "--path", "none.md")


def test_an_exercise_in_place_of_a_chapter_is_told_what_to_write(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        gptbook("grade", "1.2")
    assert "1.2 is an exercise: write 1 --only 1.2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gptbook("run", "one")
    assert "named by its number, got 'one'" in capsys.readouterr().err


def test_hint_says_how_to_get_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    gptbook("hint", "1.2")
    assert "gptbook hint 1.2 --step 2" in capsys.readouterr().out
    gptbook("hint", "1.2", "--step", "3")
    assert "--step" not in capsys.readouterr().out


def test_a_function_with_full_marks_is_adopted_and_runs_a_chapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "01_tiny.md").write_text(CHAPTER)
    path = tmp_path / "mine.py"
    path.write_text(fast_training.REFERENCE)
    gptbook("adopt", "1.5", str(path))
    gptbook("adopted")
    printed = capsys.readouterr().out
    assert "Adopted learn_merges in place of gptbook.bpe_training.learn_merges" in printed
    assert "from mine.py" in printed

    where = ("--folder", str(tmp_path), "--output", str(tmp_path / "out"))
    gptbook("run", "1", "--mine", *where)
    printed = capsys.readouterr().out
    assert "Yours: gptbook.bpe_training.learn_merges (exercise 1.5, mine.py)" in printed
    assert "<your learn_merges>" in printed
    assert "[(b'a', b'b')]" in printed
    assert "SVG" not in printed, "a terminal shows no figure"
    assert (tmp_path / "out" / "01_tiny.ipynb").is_file()

    gptbook("run", "1", *where)
    assert "bpe_training.py" in capsys.readouterr().out


def test_a_function_without_full_marks_is_not_adopted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(training.REFERENCE.replace("def train_bpe(", "def learn_merges("))
    with pytest.raises(ValueError, match="only a function with full marks"):
        gptbook("adopt", "1.5", str(path))
    assert "Each merge goes through everything" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def test_a_chapter_whose_cell_fails_is_an_error_and_is_saved(tmp_path: Path) -> None:
    text = CHAPTER.replace('learn_merges({b"aab": 2}, 1)', "1 / 0")
    (tmp_path / "01_tiny.md").write_text(text)
    with pytest.raises(ValueError, match="failed: ZeroDivisionError"):
        gptbook("run", "1", "--folder", str(tmp_path), "--output", str(tmp_path / "out"))
    assert (tmp_path / "out" / "01_tiny.ipynb").is_file()
