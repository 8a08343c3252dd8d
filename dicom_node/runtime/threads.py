"""Threads without which their process is of no use: an error in one ends the process, and the supervisor starts another.

A thread that dies alone leaves a process that looks alive: leases run out under a film, no worker is told of work, nothing is
removed any more. What can be foreseen is caught where it happens; this is for the rest.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

log = logging.getLogger(__name__)

EXIT_BROKEN = 1


class EssentialThread(threading.Thread):
    """As `threading.Thread`; what its function raises is logged and ends the process at once."""

    def run(self) -> None:
        try:
            super().run()
        except BaseException:
            log.critical("thread %r met an error that nobody foresaw: this process ends", self.name, exc_info=True)
            end_this_process()


def end_this_process() -> None:
    """At once: a stop in order would wait for what does not move. Nothing is lost by it, as by a kill."""
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)
