"""A folder of submissions, as a teacher has it."""

import csv
import json
from pathlib import Path

import pytest

from gptbook.grading import classroom
from gptbook.grading.ch01_tokenizer import special
from gptbook.grading.classroom import Course, Entry, Graded, find_submissions, grade_all

GOOD = special.REFERENCE
WRONG = next(m for m in special.MISTAKES if m.name.startswith("Special tokens count wherever"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hand-ins"
    (folder / "dora").mkdir(parents=True)
    (folder / "ada.py").write_text(GOOD)
    (folder / "bob.py").write_text(WRONG.source)
    (folder / "carl.ipynb").write_text("{ this is no notebook")
    (folder / "dora" / "exit.py").write_text(
        "import os\ndef encode_with_special(text, special_tokens, allowed): os._exit(0)"
    )
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def course(tmp_path: Path, seed: int = 1) -> Course:
    return Course(chapter=1, seed=seed, output=tmp_path / "graded", jobs=2)


def test_a_class_is_graded_and_bad_files_stop_nobody(tmp_path: Path, folder: Path) -> None:
    graded = grade_all(folder, course(tmp_path))
    assert [one.student for one in graded] == ["ada", "bob", "carl", "dora"]
    scores = {row["student"]: row for row in rows(tmp_path / "graded" / "scores.csv")}
    assert scores["ada"]["1.3"] == "10"
    assert scores["bob"]["1.3"] == str(10 - WRONG.loss)
    assert scores["carl"]["score"] == "", "no score is not a score of 0"
    assert "cannot be read as .ipynb" in scores["carl"]["problem"]
    assert scores["dora"]["score"] == "0"

    checks = {row["check"]: row for row in rows(tmp_path / "graded" / "checks.csv")}
    assert checks[special.USERS]["passed"] == "1"
    assert checks[special.USERS]["failed"] == "1"
    assert checks[special.USERS]["blocked"] == "1"
    assert checks[special.USERS]["mistakes"] == f"{WRONG.name}: 1"

    for student, score in (("ada", 10), ("carl", 0)):
        path = tmp_path / "graded" / "results" / student / "results.json"
        results = json.loads(path.read_text())
        assert results["score"] == score
        assert all({"name", "score", "max_score", "output"} <= set(t) for t in results["tests"])


def test_a_run_that_was_cut_off_goes_on(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_all(folder, course(tmp_path))
    (folder / "bob.py").write_text(GOOD)
    (tmp_path / "graded" / "results" / "dora" / "report.json").write_text('{"key": "half')
    again: list[str] = []
    grade = classroom._grade

    def noted(entry: Entry, own: Course) -> Graded:
        again.append(entry.student)
        return grade(entry, own)

    monkeypatch.setattr(classroom, "_grade", noted)
    graded = grade_all(folder, course(tmp_path))
    assert sorted(again) == ["bob", "carl", "dora"]
    assert graded[1].report is not None
    assert graded[1].report.score == 10


def test_a_file_says_which_chapter_it_is_or_is_not_graded(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "eve").mkdir(parents=True)
    (folder / "eve" / "01_tokenizer.py").write_text(GOOD)
    (folder / "finn.py").write_text(GOOD)
    eve, finn = grade_all(folder, Course(None, 1, tmp_path / "out", 2))
    assert eve.report is not None
    assert finn.report is None
    assert "use --chapter" in finn.problem


def test_a_folder_without_submissions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        find_submissions(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no file"):
        find_submissions(tmp_path)


def test_an_unclear_student_stops_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("ada/a.py", "ada/b.py", "bob/01_tokenizer.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(GOOD)
    (folder / "bob.md").touch()
    (folder / "carl.py").symlink_to(tmp_path / "nowhere")
    (folder / "dora.py").write_text(GOOD)
    ada, bob, dora = grade_all(folder, course(tmp_path))
    assert ada.problem == "2 submissions (a.py, b.py): leave one"
    assert bob.problem == "2 submissions (bob.md, 01_tokenizer.py): leave one"
    assert dora.report is not None
