"""The event that SIGTERM and SIGINT set: every process of the node ends by it."""

from __future__ import annotations

import signal
import threading
import time

LOOK_SECONDS = 0.05  # between two looks for a signal


class Stop(threading.Event):
    """An event that a signal may set: `tell` takes no lock, which the very thread that the signal interrupts may hold."""

    _told = False

    def tell(self) -> None:
        self._told = True

    def is_set(self) -> bool:
        return self._told or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            if (left := until - time.monotonic()) <= 0:
                return False
            super().wait(min(left, LOOK_SECONDS))
        return True


def stop_event() -> Stop:
    """Set by SIGTERM or SIGINT."""
    event = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.tell())
    return event
