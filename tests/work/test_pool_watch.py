"""A pool that has stalled is noticed, one that has nothing to do is not; forks keep clear of the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Node, Queue, Work
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.work.celery_app import celery_app
from dicom_node.work.pool_watch import ForkGuard, PoolWatch, StallWatch, ZombieWatch
from dicom_node.work.wakeup import Wakeups


class Films:
    """A job queue with so many films that are ready."""

    def __init__(self, ready: int, at_work: bool = False) -> None:
        self.films = ready
        self.at_work = at_work

    def ready(self) -> int:
        return self.films

    def reap(self) -> bool:
        return self.at_work

    def close(self) -> None:
        pass


def gives_up(films: Films, *, receives: bool, seconds: float, stalled: float = 0.5, idle: float = float("inf")) -> bool:
    """Whether the watch gives up within `seconds`; with `receives` wake-ups are received all the while."""
    given_up = threading.Event()
    wakeups, stall = Wakeups(celery_app(Queue(), Work()), 1), StallWatch(stalled, idle)
    watch = PoolWatch(ForkGuard(films), wakeups, stall, ZombieWatch(0.5), poll_seconds=0.01, give_up=given_up.set)
    watch.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until and not given_up.wait(0.05):
        if receives:
            watch.received()
    watch.stop()
    return given_up.is_set()


def test_a_pool_that_does_not_move_while_films_are_ready_is_given_up() -> None:
    assert gives_up(Films(3), receives=False, seconds=20)
    assert not gives_up(Films(3), receives=True, seconds=1.5)
    assert not gives_up(Films(0), receives=False, seconds=1.5)


def test_a_pool_that_sleeps_while_films_are_ready_is_given_up_long_before_the_time_limit() -> None:
    assert gives_up(Films(3), receives=False, seconds=20, stalled=600, idle=0.5)
    busy = Films(3, at_work=True)
    assert not gives_up(busy, receives=False, seconds=1.5, stalled=600, idle=0.5), "the time limit looks after that one"
    assert not gives_up(Films(0), receives=False, seconds=1.5, stalled=600, idle=0.5)


def test_a_dead_child_that_the_pool_does_not_notice_is_noticed() -> None:
    child = subprocess.Popen(["true"])  # a zombie until somebody asks how it ended
    try:
        assert gives_up(Films(0), receives=True, seconds=20)
    finally:
        child.wait()
    assert not gives_up(Films(0), receives=True, seconds=1.5)


def test_a_child_is_never_made_in_the_middle_of_a_look_at_the_ledger(tmp_path: Path) -> None:
    """A process forks while its watch asks the ledger all the time. Result: every child can write to the ledger."""
    config = Config(node=Node(directory=tmp_path))
    node = LocalQueue.of(config, "group", in_turn=True)
    guard, wakeups = ForkGuard(node), Wakeups(celery_app(Queue(), Work()), 1)
    watch = PoolWatch(guard, wakeups, StallWatch(), ZombieWatch(), poll_seconds=0.0)
    guard.register()
    watch.start()
    try:
        assert [_forked(lambda: LocalQueue.of(config, "group").claim(), seconds=15) for _ in range(100)] == [0] * 100
    finally:
        watch.stop()


def _forked(run: Callable[[], object], seconds: float) -> int | None:
    """How a copy of this process ended that runs it; None when it did not end in time."""
    child = os.fork()
    if not child:
        ended = 1
        try:
            run()
            ended = 0
        finally:
            os._exit(ended)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
