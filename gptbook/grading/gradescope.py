"""A report in the form of Gradescope's ``results.json``.

The format is documented at https://gradescope-autograders.readthedocs.io/en/latest/specs/.
"""

from typing import Any

from gptbook.grading.report import CheckResult, Report, Status


def to_gradescope(report: Report, seconds: float) -> dict[str, Any]:
    """Turn a report into ``results.json``.

    Args:
        report: of one submission.
        seconds: how long grading took.

    Returns:
        JSON's types: a score, and one test for each check.
    """
    return {
        "score": report.score,
        "execution_time": round(seconds),
        "output": f"{report.score} of {report.points} points (seed {report.seed})",
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [_test(check) for check in report.checks],
        "extra_data": {"seed": report.seed},
    }


def failure_to_gradescope(reason: str, seconds: float) -> dict[str, Any]:
    """``results.json`` for a submission that could not be graded, with the reason."""
    return {
        "score": 0,
        "execution_time": round(seconds),
        "output": f"This submission could not be graded: {reason}",
        "output_format": "text",
        "visibility": "visible",
        "tests": [],
    }


def _test(check: CheckResult) -> dict[str, Any]:
    return {
        "number": check.exercise,
        "name": f"{check.function}: {check.name}",
        "name_format": "text",
        "score": check.score,
        "max_score": check.points,
        "status": "passed" if check.status is Status.PASSED else "failed",
        "output": check.message,
        "output_format": "text",
        "tags": [check.kind],
        "visibility": "visible",
    }
