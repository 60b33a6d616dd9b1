"""The report's forms: text, HTML, JSON, Gradescope."""

import json
from html.parser import HTMLParser

from gptbook.grading.gradescope import failure_to_gradescope, to_gradescope
from gptbook.grading.html import to_html, to_page
from gptbook.grading.report import CheckResult, ExerciseReport, Report, Status
from tests.browser import needs_browser, open_browser

HOSTILE = "<script>alert('x')</script> & \"quotes\""

REPORT = Report(
    "01_tokenizer.md",
    7,
    (
        ExerciseReport(
            "1.1",
            "Training",
            (
                CheckResult("1.1", "train", "returns a list", "contract", 1, 1, Status.PASSED),
                CheckResult(
                    "1.1", "train", "ties", "oracle", 3, 0, Status.FAILED, HOSTILE, "First", 2
                ),
                CheckResult("1.1", "train", "time", "behavior", 2, 0, Status.BLOCKED, "not run"),
            ),
            ("one", "two <b>"),
        ),
        ExerciseReport(
            "1.2",
            "Encoding",
            (CheckResult("1.2", "encode", "ids", "oracle", 4, 4, Status.PASSED),),
            ("one",),
        ),
    ),
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_scores_add_up_and_json_has_them() -> None:
    data = json.loads(REPORT.to_json())
    assert (data["score"], data["points"]) == (5, 10)
    assert [row["status"] for row in data["checks"]] == ["passed", "failed", "blocked", "passed"]
    assert sum(row["score"] for row in data["checks"]) == data["score"]


def test_a_report_comes_back_from_its_json() -> None:
    assert Report.from_dict(json.loads(REPORT.to_json())) == REPORT


def test_html_is_well_formed_and_escaped() -> None:
    for html in (to_html(REPORT), to_page(REPORT)):
        tags = Tags()
        tags.feed(html)
        assert tags.open == []
        assert "script" not in tags.seen
        assert "<b>" not in html.replace("<b>1.", "").replace("<b>Hint", "").replace(
            "<b>✓", ""
        ).replace("<b>✗", "").replace("<b>–", "")
        assert "&lt;script&gt;" in html
        assert tags.seen.count("tr") == 4


def test_html_reads_in_light_and_dark() -> None:
    """No ground and no text color but the three marks', which are mid tones."""
    assert "background:transparent" in to_html(REPORT)
    assert "background:#" not in to_html(REPORT)
    assert "color:#000" not in to_html(REPORT)
    assert "color:white" not in to_html(REPORT)


@needs_browser
def test_columns_keep_their_width_where_the_host_fixes_the_layout() -> None:
    """As JupyterLab does: then a column without a width of its own gets none."""
    with open_browser() as browser:
        page = browser.new_page()
        page.set_content(f"<style>table {{ table-layout: fixed }}</style>{to_html(REPORT)}")
        first = page.locator("td").nth(0).bounding_box()
        second = page.locator("td").nth(1).bounding_box()
    assert first is not None
    assert second is not None
    assert first["width"] > 40
    assert second["x"] >= first["x"] + first["width"] - 1


def test_a_reason_not_to_run_is_said_once_and_a_failure_in_each_row() -> None:
    def rows(status: Status) -> tuple[CheckResult, ...]:
        return tuple(
            CheckResult("1.1", "train", f"check {i}", "oracle", 1, 0, status, "why")
            for i in range(3)
        )

    assert ExerciseReport("1.1", "T", rows(Status.BLOCKED)).messages == ("why", "", "")
    assert ExerciseReport("1.1", "T", rows(Status.FAILED)).messages == ("why", "why", "why")


def test_text_has_a_row_a_check_the_message_and_the_hint_of_the_first_failure() -> None:
    text = REPORT.to_text()
    assert "1.1 Training: 1 of 6 points" in text
    assert HOSTILE in text
    assert "Hint: two <b> (hint 2 of 2)" in text
    assert "01_tokenizer.md: 5 of 10 points (seed 7)" in text
    assert str(REPORT) == repr(REPORT) == text
    assert max(map(len, text.splitlines())) <= 100


def test_gradescope_scores_match_and_failures_say_why() -> None:
    results = to_gradescope(REPORT, 12.4)
    assert results["score"] == sum(test["score"] for test in results["tests"]) == 5
    assert sum(test["max_score"] for test in results["tests"]) == 10
    assert {test["status"] for test in results["tests"]} == {"passed", "failed"}
    assert results["execution_time"] == 12
    assert "cannot" in failure_to_gradescope("cannot read", 1)["output"]
