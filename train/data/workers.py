"""Work on several processes, each started anew. One that dies is an error here, and not silence for ever; and none outlives
the program that started it."""

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
    """`work` of each job, as they are done. Raises DataError when a process died."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_the_parent) as pool:
        waiting = [pool.submit(work, job) for job in jobs]
        try:
            for one in as_completed(waiting):
                yield one.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died: no memory, no room on the disk, or a film that crashes its decoder; call this again, "
                "it goes on where it was (with --workers 1 the film is the one after the last of progress.jsonl)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """A killed parent cannot tell its children, and a pool's children would wait for work for ever: each holds both ends of
    the pipe that the work comes through."""
    threading.Thread(target=_wait_for_the_parent, name="parent", daemon=True).start()


def _wait_for_the_parent() -> None:
    parent = parent_process()
    assert parent is not None  # `spawn` has one
    wait([parent.sentinel])
    os._exit(1)
