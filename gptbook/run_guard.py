# Exported from chapters/06_training_loop.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""What ends a run or a step early: losses that are no use, and signals to stop."""

from __future__ import annotations

import math
import signal
import statistics
import threading
from collections import deque
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

from gptbook.train_config import GuardConfig


class DivergedError(ValueError):
    """A run that goes nowhere any more: its loss is not finite, or has jumped."""


class Guard:
    """Judges each step by its loss and its gradient's norm, before the weights are changed."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.skips = 0  # in a row
        self._losses: deque[float] = deque(maxlen=config.window)

    def problem(self, loss: float, norm: float) -> str | None:
        """Return what is wrong with a step, or None, and then remember its loss."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the norm of the gradients is {norm}"
        if self.config.spike is not None and len(self._losses) == self.config.window:
            usual = statistics.median(self._losses)
            if loss > usual + self.config.spike:
                return (
                    f"the loss is {loss:.3f}, more than {self.config.spike:g} above {usual:.3f}, "
                    f"the median of the last {self.config.window} steps"
                )
        self._losses.append(loss)
        self.skips = 0
        return None

    def may_skip(self) -> bool:
        """Return whether the policy lets a bad step be skipped, and count it if so."""
        if self.config.policy == "stop" or self.skips >= self.config.max_skips:
            return False
        self.skips += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what the judgment depends on, as JSON can hold it."""
        return {"losses": list(self._losses), "skips": self.skips}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on judging as the guard that gave this state."""
        self._losses = deque(state["losses"], maxlen=self.config.window)
        self.skips = state["skips"]


STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A context in which Ctrl-C and SIGTERM are noted, for the loop to stop between two steps.

    A second one acts at once, as without this. Outside the main thread, where Python delivers no
    signals, nothing changes.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
