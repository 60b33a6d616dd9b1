# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Bytes in, text out, as a model writes them: characters in pieces, and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Bytes in, text out: never half a character, and never what may become a stop string.

    Attributes:
        stopped: whether a stop string came; the text ends before the one that was complete first.
        text: all that is certain so far.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = [text.encode() for text in stops]
        self.stopped = False
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = b""
        self._taken = 0

    def push(self, data: bytes) -> None:
        """Add the bytes of a token."""
        if self.stopped:
            return
        self._held += data
        starts = {stop: self._held.find(stop) for stop in self.stops}
        found = [(start + len(stop), start) for stop, start in starts.items() if start >= 0]
        self.stopped = bool(found)
        certain = min(found)[1] if found else len(self._held) - self._possible_stop()
        self.text += self._decoder.decode(self._held[:certain], final=self.stopped)
        self._held = self._held[certain:]

    def finish(self) -> None:
        """Say that nothing more comes, so that what was held is text."""
        if not self.stopped:
            self.text += self._decoder.decode(self._held, final=True)
        self._held = b""

    def take(self) -> str:
        """Return the text that is new since the last call."""
        new = self.text[self._taken :]
        self._taken = len(self.text)
        return new

    def _possible_stop(self) -> int:
        """Return how many of the last bytes may be the beginning of a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stops):
                return size
        return 0
