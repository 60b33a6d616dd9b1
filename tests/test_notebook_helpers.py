"""gptbook.app.notebook: what a chapter's cells use, outside a notebook."""

import itertools
import subprocess
import sys
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from gptbook.app.notebook import INK, PALETTE, SCALE_VARIABLE, _scalar, figure_style, record, scale

PAGE_WHITE = "#ffffff"
PAGE_DARK = "#14161b"
MIN_CONTRAST = 3.0  # WCAG 2.1, success criterion 1.4.11: graphical objects

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def rgb(color: str) -> np.ndarray[Any, Any]:
    """Return "#rrggbb" as three numbers in [0, 1]."""
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def linear(color: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return sRGB values as linear light."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def contrast(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Return WCAG's contrast ratio of two sRGB colors."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (first, second))
    return (high + 0.05) / (low + 0.05)


def dark_filter(color: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what `invert(.9) hue-rotate(180deg)` makes of a color (Filter Effects, level 1)."""
    inverted = color * (1 - 2 * 0.9) + 0.9
    luma = np.array([0.213, 0.715, 0.072])
    # hue-rotate keeps the luma and, at 180 degrees, mirrors the rest.
    return np.clip(2 * (luma @ inverted) - inverted, 0, 1)


def oklab(light: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return linear RGB in Oklab, where distances are about as large as they look."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    lms: np.ndarray[Any, Any] = np.cbrt(np.array(to_lms) @ np.clip(light, 0, 1))
    lab: np.ndarray[Any, Any] = np.array(to_lab) @ lms
    return lab


@pytest.mark.parametrize("name", [*PALETTE, "ink"])
def test_a_color_stands_out_on_the_white_and_on_the_dark_page(name: str) -> None:
    color = rgb(INK if name == "ink" else PALETTE[name])
    assert contrast(color, rgb(PAGE_WHITE)) >= MIN_CONTRAST
    assert contrast(dark_filter(color), rgb(PAGE_DARK)) >= MIN_CONTRAST


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("page", ["white", "dark"])
def test_any_two_colors_differ_for_color_blind_readers(vision: str, page: str) -> None:
    # The smallest distance is 0.053 (blue and wine); 0.02 is about a just noticeable difference.
    colors = {n: rgb(c) if page == "white" else dark_filter(rgb(c)) for n, c in PALETTE.items()}
    seen = {name: oklab(VISION[vision] @ linear(color)) for name, color in colors.items()}
    for first, second in itertools.combinations(seen, 2):
        distance = float(np.linalg.norm(seen[first] - seen[second]))
        assert distance >= 0.05, f"{first} and {second} look alike: {distance:.3f}"


def test_importing_loads_no_heavy_library() -> None:
    code = "import sys, gptbook.app.notebook; print([m for m in %r if m in sys.modules])"
    heavy = ["matplotlib", "IPython", "numpy", "torch"]
    done = subprocess.run(
        [sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_record_shows_nothing_in_plain_python(capsys: pytest.CaptureFixture[str]) -> None:
    record(loss=2.4, n=np.int64(3), ok=np.bool_(True), mean=np.float32(0.5), word="cat")
    assert capsys.readouterr() == ("", "")


def test_record_converts_numpy_scalars() -> None:
    converted = [_scalar("x", v) for v in (np.int64(3), np.bool_(True), np.float32(0.5))]
    assert [(type(value), value) for value in converted] == [(int, 3), (bool, True), (float, 0.5)]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"x": float("nan")}, ValueError, "finite"),
        ({"x": np.float32("inf")}, ValueError, "finite"),
        ({"x": [1.0]}, TypeError, "list"),
        ({"x": np.zeros(3)}, TypeError, "ndarray"),
        ({"x": None}, TypeError, "NoneType"),
        ({"not a name": 1}, ValueError, "identifier"),
        ({"class": 1}, ValueError, "identifier"),
        ({}, ValueError, "no values"),
    ],
)
def test_record_refuses(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        record(**values)


def test_scale_is_cpu_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SCALE_VARIABLE, raising=False)
    assert scale() == "cpu"
    monkeypatch.setenv(SCALE_VARIABLE, "gpu")
    assert scale() == "gpu"
    monkeypatch.setenv(SCALE_VARIABLE, "GPU")
    with pytest.raises(ValueError, match="GPTBOOK_SCALE is 'GPU'"):
        scale()


def test_figures_are_reproducible_and_transparent() -> None:
    import matplotlib.pyplot as plt

    def draw() -> bytes:
        figure_style()
        figure, axes = plt.subplots()
        axes.plot([1, 2, 3], [1, 4, 9], label="squares")
        axes.fill_between([1, 2], [1, 2], hatch="/")  # hatches and clips get hashed identifiers
        axes.legend()
        data = BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        return data.getvalue()

    with plt.rc_context():
        plt.switch_backend("agg")
        first, second = draw(), draw()
    assert first == second
    assert b"<text" not in first, "text must be drawn as paths"
    assert b"fill: #ffffff" not in first, "the background must be transparent"
    assert PALETTE["blue"].encode() in first
