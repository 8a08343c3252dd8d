"""The thread in the parent of the worker processes: it frees the claims of those that died, sends wake-ups, and ends a
worker whose pool has stalled. Forks are kept apart from what it does.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Protocol

from dicom_node.runtime.errors import NodeAway
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.runtime.procfs import children_of
from dicom_node.runtime.threads import EssentialThread, end_this_process
from dicom_node.work.wakeup import Wakeups

log = logging.getLogger(__name__)

# While every process has its wake-up there is none to send; the queue is asked only for dead processes, so often.
BUSY_POLL_SECONDS = 0.2


class PoolQueue(Protocol):
    """What the parent of the worker processes asks the job queue, on this machine or another one."""

    def ready(self) -> int:
        """How many jobs could be claimed now."""

    def reap(self) -> bool:
        """Free the claims of our processes that died. Returns whether a living one has a film."""

    def close(self) -> None:
        """Close what must not cross a fork; the next use opens it again."""


class ForkGuard:
    """This process forks with the queue closed. SQLite's locks, of threads and of files, must not cross a fork: a child that
    was made while the queue was in use waited without end for a lock that only the parent's thread could open."""

    def __init__(self, queue: PoolQueue) -> None:
        self._queue = queue
        self._in_use = threading.Lock()

    def register(self) -> None:
        """From now on every fork of this process waits for the queue to be free, and closes it."""

        def before() -> None:
            self._in_use.acquire()
            self._queue.close()

        os.register_at_fork(before=before, after_in_parent=self._in_use.release, after_in_child=self._in_use.release)

    def __enter__(self) -> PoolQueue:
        """The queue; no fork until the block ends."""
        self._in_use.acquire()
        return self._queue

    def __exit__(self, *_: object) -> None:
        self._in_use.release()


class ZombieWatch:
    """Dead children that the pool has not noticed: it must ask how they ended before it starts others."""

    def __init__(self, patience_seconds: float = 10.0) -> None:
        self._patience_seconds = patience_seconds
        self._since: dict[int, float] = {}  # pid -> first seen dead, monotonic seconds
        self._next_look = 0.0

    def is_overdue(self) -> bool:
        """Whether one waits for longer than the patience. Looks at the children once a second."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            _, zombies = children_of(os.getpid())
            self._since = {pid: self._since.get(pid, now) for pid in zombies}
        return any(now - since > self._patience_seconds for since in self._since.values())


class StallWatch:
    """Whether the pool has stalled: films are ready and no wake-up was received for `stalled_seconds`, or none for
    `idle_seconds` while no process has a film."""

    def __init__(self, stalled_seconds: float = float("inf"), idle_seconds: float = float("inf")) -> None:
        self._stalled_seconds = stalled_seconds
        self._idle_seconds = idle_seconds
        self.reset()

    def reset(self) -> None:
        """The pool moves, or what holds it up is the broker's trouble or the node's."""
        self._moved = self._worked = time.monotonic()

    def saw(self, *, ready: int, at_work: bool) -> None:
        """So many films are ready; `at_work`: a process has a film."""
        if at_work or not ready:
            self._worked = time.monotonic()
        if not ready:
            self._moved = time.monotonic()

    def is_stalled(self) -> bool:
        """Whether one of the two limits is passed."""
        now = time.monotonic()
        return now - self._moved > self._stalled_seconds or now - self._worked > self._idle_seconds


class PoolWatch:
    """The thread. Without `wakeups` the node's dispatcher sends them, and only dead processes are looked for.

    `give_up` is called when the pool has stalled, or does not notice a dead child; the supervisor starts a new worker.
    """

    def __init__(
        self,
        guard: ForkGuard,
        wakeups: Wakeups | None,
        stall: StallWatch,
        zombies: ZombieWatch,
        *,
        poll_seconds: float,
        give_up: Callable[[], None] = end_this_process,
    ) -> None:
        self._guard = guard
        self._wakeups = wakeups
        self._stall = stall
        self._zombies = zombies
        self._poll_seconds = poll_seconds
        self._give_up = give_up
        self._asked = 0.0  # the queue, monotonic seconds
        self._stopping = threading.Event()
        self._thread = EssentialThread(target=self._run, name="pool-watch", daemon=True)

    def start(self) -> None:
        """Start the thread: the pool is ready."""
        self._thread.start()

    def stop(self) -> None:
        """No more wake-ups, no more charges: what the pool does from now on is not the films' fault."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def received(self) -> None:
        """A process received a wake-up (Celery's `task_received`)."""
        if self._wakeups is not None:
            self._wakeups.received()
        self._stall.reset()

    def _run(self) -> None:
        limit = LogLimit()
        while not self._stopping.wait(self._poll_seconds):
            if self._is_early():
                continue
            self._asked = time.monotonic()
            try:
                with self._guard as queue:
                    at_work = queue.reap()
                    ready = queue.ready() if self._wakeups is not None else 0
            except (sqlite3.Error, NodeAway) as error:  # a full disk or a lost connection: it may be over in a minute
                if limit.allows():
                    log.error("the node cannot be asked for work", extra={"error": str(error)})
                self._stall.reset()
                continue
            self._stall.saw(ready=ready, at_work=at_work)
            if self._stall.is_stalled() or self._zombies.is_overdue():
                log.error("the pool of worker processes has stalled: this worker ends, a new one begins")
                self._give_up()
                return
            if self._wakeups is not None and not self._wakeups.send(ready):
                self._stall.reset()
                self._stopping.wait(1.0)

    def _is_early(self) -> bool:
        """Whether there is no wake-up to send, and the dead were looked for a moment ago."""
        if self._wakeups is None or self._wakeups.has_room():
            return False
        return time.monotonic() - self._asked < BUSY_POLL_SECONDS
