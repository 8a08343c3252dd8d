"""Wake-ups: for films that are ready, messages are put into the queue. All state is in the ledger: a message may be lost or
come twice, and nothing happens.

One machine: `memory://` lives in the worker's parent process, which also sends the messages. With Redis they go through
the server.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Protocol

from celery import Celery
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dicom_node.runtime.errors import NodeAway
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.runtime.procfs import children_of
from dicom_node.runtime.threads import EssentialThread, end_this_process
from dicom_node.work.celery_app import QUEUE, why_unreachable

log = logging.getLogger(__name__)

BELL = "dicom_node.film_is_ready"

# A bell that nobody heard for so long is rung again (Redis restarted empty, or its connection died).
UNHEARD_SECONDS = 5.0

# While every child has its bell there is nothing to ring for; only the dead are looked for, so often.
BUSY_POLL_SECONDS = 0.2

MOST_BELLS = 100  # that lie in Redis at once


class Bells(Protocol):
    """What the ringer asks the node, on this machine or another one."""

    def ready(self) -> int: ...

    def reap(self) -> bool: ...

    def close(self) -> None: ...


class Ringer:
    """In the worker's parent: rings when there is work, at most one outstanding bell per child, and frees the claims of
    dead children. With `rings` off somebody else rings (the node's dispatcher)."""

    def __init__(
        self,
        app: Celery,
        node: Bells,
        *,
        children: int,
        poll_seconds: float,
        rings: bool = True,
        stuck_seconds: float = float("inf"),
        asleep_seconds: float = float("inf"),
        unburied_seconds: float = 10.0,
        give_up: Callable[[], None] = end_this_process,
    ) -> None:
        """`give_up` is called when the pool does not move: films are ready and no bell was heard for `stuck_seconds`, or for
        `asleep_seconds` while no child has a film on its bench, or a dead child was not reaped for `unburied_seconds`. The
        supervisor starts a new worker."""
        self._app = app
        self._node = node
        self._children = children
        self._poll_seconds = poll_seconds
        self._rings = rings
        self._stuck_seconds = stuck_seconds
        self._asleep_seconds = asleep_seconds
        self._unburied_seconds = unburied_seconds
        self._give_up = give_up
        self._zombies: dict[int, float] = {}  # since when, monotonic seconds
        self._next_look = 0.0
        self._asked = 0.0
        self._moved = time.monotonic()
        self._worked = time.monotonic()  # when it was last known that a child has a film, or that there is none
        self._stopping = threading.Event()
        self._looking = threading.Lock()  # held while the node is asked
        self._thread = EssentialThread(target=self._run, name="ringer", daemon=True)
        self._rung = 0
        self._heard = 0
        self._last_ring = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more bells, no more charges: what the pool does from now on is not the films' fault."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def stand_apart_from_forks(self) -> None:
        """This process forks with the node closed. SQLite's locks, of threads and of files, must not cross a fork: a child
        that was made in the middle of a look waited without end for one that only the parent's thread could open."""

        def before() -> None:
            self._looking.acquire()
            self._node.close()

        os.register_at_fork(before=before, after_in_parent=self._looking.release, after_in_child=self._looking.release)

    def heard(self) -> None:
        """A bell came in (called by Celery's `task_received`)."""
        self._heard += 1
        self._excuse_the_pool()

    def _run(self) -> None:
        limit = LogLimit()
        while not self._stopping.wait(self._poll_seconds):
            if self._outstanding() >= self._children and time.monotonic() - self._asked < BUSY_POLL_SECONDS:
                continue
            self._asked = time.monotonic()
            try:
                with self._looking:
                    at_work = self._node.reap()
                    ready = self._node.ready() if self._rings else 0
            except (sqlite3.Error, NodeAway) as error:  # a full disk or a cut line: it may be over in a minute
                if limit.allows():
                    log.error("the node cannot be asked for work", extra={"error": str(error)})
                self._excuse_the_pool()
                continue
            if at_work or not ready:
                self._worked = time.monotonic()
            if not ready:
                self._moved = time.monotonic()
            if self._is_stuck() or self._is_unburied():
                log.error("the pool of worker processes does not move: this worker ends, a new one begins")
                self._give_up()
                return
            for _ in range(min(ready, self._children) - self._outstanding()):
                if not self._ring(limit):
                    self._excuse_the_pool()
                    self._stopping.wait(1.0)
                    break

    def _excuse_the_pool(self) -> None:
        """It moves, or what holds it up is the broker's trouble or the node's."""
        self._moved = self._worked = time.monotonic()

    def _is_stuck(self) -> bool:
        now = time.monotonic()
        return now - self._moved > self._stuck_seconds or now - self._worked > self._asleep_seconds

    def _is_unburied(self) -> bool:
        """Whether a dead child waits too long for the pool to notice; looked at once a second."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            _, zombies = children_of(os.getpid())
            self._zombies = {pid: self._zombies.get(pid, now) for pid in zombies}
        return any(now - since > self._unburied_seconds for since in self._zombies.values())

    def _outstanding(self) -> int:
        unheard = max(0, self._rung - self._heard)
        if unheard and time.monotonic() - self._last_ring > UNHEARD_SECONDS:
            self._rung = self._heard
            unheard = 0
        return unheard + len(worker_state.reserved_requests)

    def _ring(self, limit: LogLimit) -> bool:
        if not ring(self._app, limit):
            return False
        self._rung += 1
        self._last_ring = time.monotonic()
        return True


class Dispatcher:
    """In the node's `serve`: rings on Redis for workers on other machines.

    It keeps no account of bells. As long as films are ready and fewer bells than films lie in Redis, it rings: so a bell
    that was lost (Redis came back empty, a worker died with it in its hand) is rung again, and one too many finds no work.
    """

    def __init__(self, app: Celery, node: Bells, poll_seconds: float) -> None:
        self._app = app
        self._node = node
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._thread = EssentialThread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        limit = LogLimit()
        while not self._stopping.wait(self._poll_seconds):
            try:
                ready = min(self._node.ready(), MOST_BELLS)
                missing = ready - self._lying() if ready else 0
            except sqlite3.Error as error:
                if limit.allows():
                    log.error("the ledger cannot be used", extra={"error": str(error)})
                continue
            except (OperationalError, RedisError, OSError) as error:
                _log_unreachable(error, self._app, limit)
                self._stopping.wait(1.0)
                continue
            for _ in range(missing):
                if not ring(self._app, limit):
                    self._stopping.wait(1.0)
                    break

    def _lying(self) -> int:
        """Bells in Redis that no worker has taken."""
        with self._app.connection_for_write(connect_timeout=3) as connection, connection.channel() as channel:
            return int(channel.client.llen(QUEUE))


def ring(app: Celery, limit: LogLimit) -> bool:
    """One bell. False, and a word in the log now and then, when the broker cannot be reached."""
    try:
        app.send_task(BELL, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        _log_unreachable(error, app, limit)
        return False
    return True


def _log_unreachable(error: Exception, app: Celery, limit: LogLimit) -> None:
    if limit.allows():  # the films wait in the ledger
        log.warning(
            "the broker cannot be reached, films wait", extra={"error": why_unreachable(error, app.conf.broker_url)}
        )
