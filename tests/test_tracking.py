"""What a run leaves behind: manifest, metrics, and plots of them."""

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from gptbook.app.main import main
from gptbook.app.run_plot import plot_runs
from gptbook.tracking import (
    JsonLines,
    open_sinks,
    read_manifest,
    read_metrics,
    write_manifest,
)


def write_some(path: Path, steps: range, after: int = 0) -> None:
    log = JsonLines(path, after)
    for step in steps:
        log.log(step, {"loss": 1 / step, "tokens": 10 * step, "seconds": 0.5 * step})
    log.close()


def test_metrics_go_on_behind_the_step_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_some(path, range(1, 8))
    with open(path, "a") as file:
        file.write('{"step": 8, "lo')  # killed while it was written
    assert [line["step"] for line in read_metrics(path)] == [*range(1, 8)]
    write_some(path, range(5, 7), after=4)
    assert [line["step"] for line in read_metrics(path)] == [*range(1, 7)]


def test_metrics_are_json_whatever_they_are(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "m")
    log.log(1, {"loss": math.nan, "norm": math.inf, "lr": 1e-3})
    assert read_metrics(tmp_path / "m") == [{"step": 1, "loss": None, "norm": None, "lr": 1e-3}]
    log.close()
    (tmp_path / "m").write_text('{"step": 1}\nhello\n')
    with pytest.raises(ValueError, match="line 2: no metrics: 'hello'"):
        read_metrics(tmp_path / "m")


def test_the_manifest_says_what_a_run_depended_on(tmp_path: Path) -> None:
    for _ in range(2):
        write_manifest(tmp_path, {"seed": 3}, data={"sha256": "ab"}, device="cpu")
    found = read_manifest(tmp_path)
    assert (found["config"], found["data"]) == ({"seed": 3}, {"sha256": "ab"})
    assert len(found["starts"]) == 2
    start = found["starts"][0]
    assert start["versions"]["torch"] not in ("", "unknown")
    assert start["machine"]["device"] == "cpu"
    assert start["code"] is None or len(start["code"]["commit"]) == 40


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is"):
        read_manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no manifest, so .* is no run"):
        read_manifest(tmp_path / "no")


def test_sinks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb is not installed here; a module of that name stands for it and keeps what it gets."""
    got: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda metrics, step: got.append((step, metrics)), finish=lambda: got.append("end")
    )
    wandb = types.ModuleType("wandb")

    def init(**settings: Any) -> types.SimpleNamespace:
        got.append(settings["config"])
        return run

    vars(wandb)["init"] = init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    sinks = open_sinks(["wandb"], tmp_path, {"seed": 1})
    for sink in sinks:
        sink.log(5, {"loss": 2.0})
        sink.close()
    assert got == [{"seed": 1}, (5, {"loss": 2.0}), "end"]
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 5, "loss": 2.0}]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install wandb"):
        open_sinks(["wandb"], tmp_path, {})
    with pytest.raises(ValueError, match="there are tensorboard and wandb"):
        open_sinks(["mlflow"], tmp_path, {})


# --- plots ---


def make_run(folder: Path, *, measured: bool = True) -> Path:
    folder.mkdir()
    log = JsonLines(folder / "metrics.jsonl")
    for step in range(1, 30):
        log.log(step, {"loss": 3 / step, "tokens": 10 * step, "seconds": 0.5 * step})
        if measured and step % 10 == 0:
            log.log(step, {"held_out_loss": 3.1 / step, "bits_per_byte": 1.5 / step})
    log.close()
    return folder


def test_runs_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    (one / "data").mkdir()
    (one / "data" / "data.json").write_text(json.dumps({"floor": 0.29}))
    assert main(["plot", str(one)]) == 0
    assert capsys.readouterr().out == f"{one / 'loss.svg'}\n"
    assert (one / "loss.svg").read_text().startswith("<?xml")
    out = tmp_path / "both.png"
    assert main(["plot", str(one), str(two), "--out", str(out), "--x", "tokens"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    one, young = make_run(tmp_path / "one"), make_run(tmp_path / "young", measured=False)
    plot_runs([young], tmp_path / "x.svg")
    with pytest.raises(ValueError, match="young: no held-out loss yet"):
        plot_runs([one, young], tmp_path / "x.svg")
    with pytest.raises(ValueError, match=r"is an \.svg, \.png or \.pdf file"):
        plot_runs([one], tmp_path / "x.gif")
    with pytest.raises(FileNotFoundError, match="no metrics; give the --out folder"):
        plot_runs([tmp_path], tmp_path / "x.svg")
