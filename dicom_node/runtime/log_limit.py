"""Log lines that a peer or a broken disk could repeat without end are written once a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class LogLimit:
    """Allows a line once in `seconds` for each key, and `most` keys at once: what a stranger sends must not fill the log.
    `clock` (seconds, monotonic) is given by tests only."""

    def __init__(self, seconds: float = 60.0, most: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._written: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def allows(self, *key: str) -> bool:
        """Whether the line may be written now; if so, it counts as written. Safe from any thread."""
        now = self._clock()
        with self._lock:
            self._written = {known: when for known, when in self._written.items() if now - when < self._seconds}
            if key in self._written or len(self._written) >= self._most:
                return False
            self._written[key] = now
            return True
