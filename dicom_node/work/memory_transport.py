"""The broker of one machine: messages in the memory of the worker's parent, for Celery's pool that Redis gets too.

Celery runs a transport that is not asynchronous on a pool whose children write their answers through one pipe and one
lock. A child that is killed while it holds the lock leaves it locked, and no other child comes to work any more: measured
in one of two runs of `tests/node/test_faults_films.py`, where the time limit kills (SIGTERM, which the child answers through
the pipe, and SIGKILL 0.1 s later). An asynchronous transport gets the pool where every child has pipes of its own.
"""

from __future__ import annotations

from typing import Any

from kombu.asynchronous import Hub
from kombu.transport import memory


class Transport(memory.Transport):
    """See above; `polling_interval` is how often it looks for messages, in seconds."""

    implements = memory.Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, connection: Any, loop: Hub) -> None:
        """Called by kombu once per connection: look for messages every `polling_interval` seconds."""
        loop.call_repeatedly(self.polling_interval, self._take, connection)

    def _take(self, connection: Any) -> None:
        """All messages that the workers have room for."""
        try:
            while True:
                self.drain_events(connection, timeout=0)
        except TimeoutError:
            pass
