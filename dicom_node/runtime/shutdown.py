"""The event that SIGTERM and SIGINT set; every process of the node ends when it is set."""

from __future__ import annotations

import signal
import threading
import time

POLL_SECONDS = 0.05  # between two checks for a signal


class StopEvent(threading.Event):
    """An event that a signal handler may set: `set_by_signal` takes no lock, which the interrupted thread may hold."""

    _signalled = False

    def set_by_signal(self) -> None:
        """Set it in a signal handler."""
        self._signalled = True

    def is_set(self) -> bool:
        return self._signalled or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            if (left := until - time.monotonic()) <= 0:
                return False
            super().wait(min(left, POLL_SECONDS))
        return True


def stop_event() -> StopEvent:
    """An event that SIGTERM or SIGINT sets. Call it in the main thread (signal(7))."""
    event = StopEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.set_by_signal())
    return event
