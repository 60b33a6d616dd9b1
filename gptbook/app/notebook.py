"""What a chapter's cells use while they run: recorded numbers and runs, the knob, the style.

Importing this module loads neither matplotlib nor IPython, and nothing here needs a notebook: in
plain Python `record` checks its values and shows nothing.
"""

import json
import keyword
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

Scale = Literal["cpu", "gpu"]
Scalar = bool | int | float | str

SCALE_VARIABLE: Final = "GPTBOOK_SCALE"

RECORD_PREFIX: Final = "application/papermill.record/"
RECORD_MIME: Final = RECORD_PREFIX + "application/json"
"""The output type that carries recorded values, as JSON. Viewers know no way to draw it, so they
draw nothing, and MyST-NB removes what carries its prefix from the page."""

PALETTE: Final = {
    "blue": "#0072b2",
    "vermilion": "#d55e00",
    "green": "#009e73",
    "wine": "#882255",
    "lavender": "#9977ff",
    "brown": "#6b4a00",
}
"""Colors in the order in which a figure takes them. Each has a contrast of at least 3:1 on the
white page and, through the dark page's filter `invert(.9) hue-rotate(180deg)`, on #14161b; and any
two differ for readers with deuteranopia or protanopia. A test computes both."""

INK: Final = "#1d2129"
"""Text and axes: the color of the page's own text."""

GRID: Final = "#98a2b3"


def scale() -> Scale:
    """Return how large the chapter's experiments are to be: "cpu" (the default) or "gpu".

    Reads the environment variable GPTBOOK_SCALE; nothing else in the package reads it.

    Raises:
        ValueError: if the variable holds anything else.
    """
    value = os.environ.get(SCALE_VARIABLE, "cpu")
    match value:
        case "cpu" | "gpu":
            return value
        case _:
            raise ValueError(
                f"{SCALE_VARIABLE} is {value!r}, but it must be 'cpu' or 'gpu': set it to one of "
                "them, or unset it for 'cpu'"
            )


def record(**values: Any) -> None:
    """Store values in the output of the running cell, for the prose to quote.

    After `record(val_loss=loss)` the chapter may say `2.41<!--=val_loss:.2f-->`, and
    `python -m book.tools.prose --check` compares the two. The output shows nothing. Outside a
    notebook the values are checked and go nowhere.

    Args:
        **values: a bool, int, float or str each, or a NumPy or torch scalar, which is converted.
            A name is recorded once in a chapter.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is infinite or NaN, a name is no identifier, or there are none.
    """
    if not values:
        raise ValueError("record() got no values: call it as record(name=value)")
    scalars = {name: _scalar(name, value) for name, value in values.items()}
    # Inside a notebook IPython is loaded already; where it is not, there is nowhere to record to.
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    ipython.display.display(
        {RECORD_MIME: json.dumps(scalars)}, metadata=_record_metadata(scalars), raw=True
    )


def _record_metadata(scalars: Mapping[str, Scalar]) -> dict[str, dict[str, str]]:
    """Return the metadata by which MyST-NB knows the output and takes it off the page."""
    return {"scrapbook": {"name": "record " + " ".join(scalars), "mime_prefix": RECORD_PREFIX}}


def _scalar(name: str, value: Any) -> Scalar:
    """Return value as a plain Python scalar, or raise as `record` says."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"record() got the name {name!r}: a name must be a Python identifier")
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise TypeError(
            f"record() got {name} of type {type(value).__name__}: record a bool, an int, a float "
            "or a str, such as one element or the mean of an array"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"record() got {name}={value}: a number in prose must be finite")
    return value


def recorded_run(name: str) -> Any:
    """Return what book/results/NAME.json holds: a run that takes longer than a chapter may.

    A checkout has the file in book/results, an installed package carries a copy.

    Raises:
        FileNotFoundError: if there is no such run.
    """
    checkout = Path(__file__).parents[2] / "book" / "results" / f"{name}.json"
    installed = Path(__file__).parents[1] / "results" / f"{name}.json"
    for path in (checkout, installed):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    raise FileNotFoundError(f"no recorded run {name!r}: looked for {checkout} and {installed}")


def figure_style() -> None:
    """Make matplotlib draw in the book's style, and notebooks show figures as SVG.

    Starts from matplotlib's own defaults, so that a reader's matplotlibrc changes nothing. Equal
    figures give equal bytes: identifiers come from a fixed salt and the file has no date. Text is
    drawn as paths, so that a page needs no font for it. The background is transparent; colors are
    `PALETTE` in its order. At the default size a figure fills most of the page's column, and its
    text stays readable when a phone shows it at six tenths of that.
    """
    import matplotlib
    import matplotlib.style

    matplotlib.rcdefaults()
    matplotlib.style.use(_style())
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats(  # type: ignore[no-untyped-call]
        "svg", bbox_inches="tight", metadata={"Date": None, "Creator": None}
    )


def _style() -> dict[str, Any]:
    """Return the book's matplotlib settings."""
    from cycler import cycler

    return {
        "axes.axisbelow": True,
        "axes.edgecolor": INK,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.labelsize": 11,
        "axes.prop_cycle": cycler(color=list(PALETTE.values())),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
        "figure.figsize": (6.0, 3.6),  # inches at 72 per inch: 576 CSS pixels wide
        "font.size": 11,
        "grid.alpha": 0.35,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "image.cmap": "cividis",
        "legend.fontsize": 10,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "svg.fonttype": "path",
        "svg.hashsalt": "gptbook",
        "text.color": INK,
        "xtick.color": INK,
        "xtick.labelsize": 10,
        "ytick.color": INK,
        "ytick.labelsize": 10,
    }
