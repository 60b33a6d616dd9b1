"""Chapter 1's exercises meet the rules for exercises."""

from pathlib import Path

import pytest

from gptbook.grading.author import author_check
from gptbook.grading.chapters import load_chapter
from gptbook.grading.statements import load_statements

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = load_chapter(1)
NAMES = [exercise.name for exercise in CHAPTER.exercises]


@pytest.mark.parametrize("name", NAMES)
def test_all_rules_are_met_on_20_seeds(name: str) -> None:
    assert author_check(CHAPTER, ROOT, name, seeds=20) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_the_points_that_the_grader_gives(name: str) -> None:
    (exercise,) = CHAPTER.select(name)
    assert load_statements(CHAPTER.source)[name].points == exercise.points
