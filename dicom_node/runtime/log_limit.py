"""Log lines that a peer or a broken disk could repeat without end, said now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Quiet:
    """One line per distinct caller and minute, and no more than 100 of them: rejections must not fill the log."""

    def __init__(self, seconds: float = 60.0, most: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._said: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def may(self, key: tuple[str, ...]) -> bool:
        now = self._clock()
        with self._lock:
            self._said = {said: when for said, when in self._said.items() if now - when < self._seconds}
            if key in self._said or len(self._said) >= self._most:
                return False
            self._said[key] = now
            return True


class Every:
    """Says something at most once in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self, say: Callable[..., None], text: str, error: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            say(text, extra={"error": error})
