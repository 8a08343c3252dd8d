"""Wake-ups: while films are ready, messages are put into Celery's queue. SQLite and the spool hold all state; a message may
be lost or come twice, and nothing happens.

One machine: `memory://` lives in the parent of the worker processes, which also sends the wake-ups. With Redis the node
sends them.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from celery import Celery
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dicom_node.runtime.log_limit import LogLimit
from dicom_node.runtime.threads import EssentialThread
from dicom_node.work.celery_app import QUEUE, why_unreachable

log = logging.getLogger(__name__)

TASK = "dicom_node.film_is_ready"  # the task's name in every message: workers of another version must know it

# A wake-up that no process received for so long is sent again (Redis restarted empty, or its connection died).
UNRECEIVED_SECONDS = 5.0

MOST_QUEUED = 100  # wake-ups that wait in Redis at once


def wake(app: Celery, limit: LogLimit) -> bool:
    """Send one wake-up. False, and at times a line in the log, when the broker cannot be reached."""
    try:
        app.send_task(TASK, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        _log_unreachable(error, app, limit)
        return False
    return True


def _log_unreachable(error: Exception, app: Celery, limit: LogLimit) -> None:
    if limit.allows():  # the films wait in the ledger
        why = why_unreachable(error, app.conf.broker_url)
        log.warning("the broker cannot be reached, films wait", extra={"error": why})


class Wakeups:
    """The wake-ups of one pool: at most `most` that no process has answered yet."""

    def __init__(self, app: Celery, most: int) -> None:
        self._app = app
        self._most = most
        self._limit = LogLimit()
        self._sent = 0
        self._received = 0
        self._last_sent = 0.0  # monotonic seconds

    def received(self) -> None:
        """A process received one (Celery's `task_received`)."""
        self._received += 1

    def has_room(self) -> bool:
        """Whether fewer than `most` are sent and not answered."""
        return self._outstanding() < self._most

    def send(self, ready: int) -> bool:
        """One for each of the films that are ready, as far as there is room. False when the broker cannot be reached."""
        return all(self._send() for _ in range(min(ready, self._most) - self._outstanding()))

    def _outstanding(self) -> int:
        unreceived = max(0, self._sent - self._received)
        if unreceived and time.monotonic() - self._last_sent > UNRECEIVED_SECONDS:
            self._sent = self._received
            unreceived = 0
        return unreceived + len(worker_state.reserved_requests)

    def _send(self) -> bool:
        if not wake(self._app, self._limit):
            return False
        self._sent += 1
        self._last_sent = time.monotonic()
        return True


class Dispatcher:
    """In the node's `serve`: sends wake-ups through Redis to workers on other machines.

    It does not count what it sent. While films are ready and fewer wake-ups than films wait in Redis, it sends more: so one
    that was lost (Redis came back empty, a worker died holding it) is sent again, and one too many finds no work.
    """

    def __init__(self, app: Celery, ready: Callable[[], int], poll_seconds: float) -> None:
        """`ready`: how many jobs could be claimed now."""
        self._app = app
        self._ready = ready
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread = EssentialThread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """No more wake-ups; does not wait for the thread."""
        self._stopping.set()

    def _run(self) -> None:
        limit = LogLimit()
        while not self._stopping.wait(self._poll_seconds):
            try:
                ready = min(self._ready(), MOST_QUEUED)
                missing = ready - self._queued() if ready else 0
            except sqlite3.Error as error:
                if limit.allows():
                    log.error("the ledger cannot be used", extra={"error": str(error)})
                continue
            except (OperationalError, RedisError, OSError) as error:
                _log_unreachable(error, self._app, limit)
                self._stopping.wait(1.0)
                continue
            if not all(wake(self._app, limit) for _ in range(missing)):
                self._stopping.wait(1.0)

    def _queued(self) -> int:
        """Wake-ups in Redis that no worker has taken."""
        with self._app.connection_for_write(connect_timeout=3) as connection, connection.channel() as channel:
            return int(channel.client.llen(QUEUE))
