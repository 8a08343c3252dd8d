"""Work in several processes, each started anew (spawn). A process that dies is an error, and none outlives the program that
started it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from train.data.cases import DataError

Job = TypeVar("Job")
Done = TypeVar("Done")


def run_in_processes(work: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """The results of `work` for each job, in the order of completion. Raises DataError when a process died."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_the_parent) as pool:
        waiting = [pool.submit(work, job) for job in jobs]
        try:
            for one in as_completed(waiting):
                yield one.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died: not enough memory or disk space, or a film that crashes its decoder; call this again, "
                "it continues where it was (with --workers 1 the film is the one after the last of progress.jsonl)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """End this process when its parent is killed: the processes of a pool hold both ends of the pipe that the work comes
    through, and would wait for work for ever."""
    threading.Thread(target=_wait_for_the_parent, name="parent", daemon=True).start()


def _wait_for_the_parent() -> None:
    parent = parent_process()
    assert parent is not None  # `spawn` has one
    wait([parent.sentinel])
    os._exit(1)
