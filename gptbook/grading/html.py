"""A report as an HTML table, for a notebook's output and for a page of its own.

Styles stand on the elements, because a notebook's host may drop a style sheet, and use no color of
their own for text and ground, so that the table reads in light and dark.
"""

import re
from html import escape

from gptbook.grading.report import CheckResult, ExerciseReport, Report, Status

_LINE = "1px solid rgba(128,128,128,0.35)"
_CELL = f"padding:6px 12px 6px 0;text-align:left;vertical-align:top;border-bottom:{_LINE}"
_NOTE = "margin:6px 0;max-width:46em"

# Mid tones with a contrast of at least 3:1 on white and on Jupyter's and Colab's dark grounds; the
# words say the same, so nothing depends on telling the colors apart.
_MARKS = {
    Status.PASSED: ("✓", "#2e8b57", "passed"),
    Status.FAILED: ("✗", "#d9534f", "failed"),
    Status.BLOCKED: ("–", "#8a8a8a", "not run"),
}


def to_html(report: Report) -> str:
    """The report as one ``div``; all text in it is escaped."""
    tables = "".join(_exercise(exercise) for exercise in report.exercises)
    lines = [f"seed {report.seed}", report.summary]
    if len(report.exercises) > 1:
        lines.insert(0, f"{report.label}: {report.score} of {report.points} points")
    footer = escape(". ".join(line for line in lines if line))
    return (
        '<div class="gptbook-report" style="font:14px/1.45 system-ui,sans-serif;overflow-x:auto">'
        f'{tables}<p style="{_NOTE};opacity:0.75">{footer}</p></div>'
    )


def to_page(report: Report) -> str:
    """The report as a page that stands alone and follows the reader's light or dark setting."""
    title = escape(f"{report.label}: {report.score} of {report.points}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title></head>'
        '<body style="font-family:system-ui,sans-serif;max-width:60em;margin:2em auto;'
        f'padding:0 1em">\n{to_html(report)}\n</body></html>\n'
    )


def _exercise(exercise: ExerciseReport) -> str:
    heading = escape(f"{exercise.name} {exercise.title}")
    score = f"{exercise.score} of {exercise.points} points"
    rows = "".join(map(_row, exercise.checks, exercise.messages))
    hint = ""
    if exercise.hint:
        hint = f'<p style="{_NOTE}"><b>Hint.</b> {_prose(exercise.hint)}</p>'
    return (
        f'<p style="margin:1.2em 0 6px"><b>{heading}</b> · {score}</p>'
        # JupyterLab's own layout is fixed, which would give the first column no width.
        '<table style="border-collapse:collapse;table-layout:auto;background:transparent;'
        f'width:100%;max-width:60em;margin:0"><tbody>{rows}</tbody></table>{hint}'
    )


def _prose(text: str) -> str:
    """Escaped text, with what stands between backticks as code."""
    code = '<code style="background:rgba(128,128,128,0.15)">\\1</code>'
    return re.sub(r"`([^`]+)`", code, escape(text))


def _row(check: CheckResult, text: str) -> str:
    mark, color, word = _MARKS[check.status]
    message = ""
    if text:
        # Long values break anywhere, or one would push the table off a phone's screen.
        message = f'<div style="overflow-wrap:anywhere;opacity:0.85">{_prose(text)}</div>'
    return (
        '<tr style="background:transparent">'
        f'<td style="{_CELL};color:{color};white-space:nowrap"><b>{mark}</b> {word}</td>'
        f'<td style="{_CELL};width:100%;white-space:normal">{escape(check.name)}{message}</td>'
        f'<td style="{_CELL};white-space:nowrap;text-align:right">{check.score} / {check.points}'
        "</td></tr>"
    )
