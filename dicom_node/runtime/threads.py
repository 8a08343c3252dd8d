"""Threads that their process needs: an unexpected error in one ends the process, and the supervisor starts another.

A thread that ends alone leaves a process that looks healthy: leases expire, no worker is woken up, no file is removed. Errors
that can be foreseen are caught where they happen; this is for the others.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

log = logging.getLogger(__name__)

EXIT_BROKEN = 1


class EssentialThread(threading.Thread):
    """A `threading.Thread`; what its function raises is logged and ends the process at once (exit code EXIT_BROKEN)."""

    def run(self) -> None:
        try:
            super().run()
        except BaseException:
            log.critical("thread %r ended with an unexpected error: this process ends", self.name, exc_info=True)
            end_this_process()


def end_this_process() -> None:
    """At once: an orderly stop would wait for what is stuck. Like a kill, it loses nothing."""
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)
