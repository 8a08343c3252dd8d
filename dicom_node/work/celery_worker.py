"""The Celery worker: a parent process that sends wake-ups, worker processes that answer the films that are ready at each."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import secrets
import time

from celery import Celery, signals
from celery.exceptions import WorkerShutdown

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_types import shown
from dicom_node.runtime.threads import EssentialThread, end_this_process
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.work.celery_app import celery_app
from dicom_node.work.job_runner import JobRunner
from dicom_node.work.pipeline import Pipeline
from dicom_node.work.pool_watch import ForkGuard, PoolQueue, PoolWatch, StallWatch, ZombieWatch
from dicom_node.work.wakeup import TASK, Wakeups

log = logging.getLogger(__name__)

# Before a process whose device failed is replaced: three charges on an innocent film then take more than a minute, and where
# the device is really gone the next process cannot load the model, claims nothing, and films wait.
DEVICE_FAILURE_SECONDS = 20.0
MODEL_SECONDS = 120.0  # that a new process may take to load the model
REMOTE_POLL_SECONDS = 0.5  # how often a node on another machine is asked for work when no broker lies between

_pipeline: Pipeline | None = None  # one per worker process, made after the fork
_stopping = mmap.mmap(-1, 1)  # shared with the worker processes: the parent was told to stop


def film_is_ready() -> None:
    """The task: claim what is ready and answer it."""
    assert _pipeline is not None, "a wake-up came to a process that has no pipeline"
    _pipeline.answer_ready()
    if _pipeline.device_failed:
        log.error("the device failed: this process ends, and a new one begins with a device of its own")
        _end_soon()


def _end_soon() -> None:
    """End this process after a while, at a stop at once; the pool starts a new one."""
    until = time.monotonic() + DEVICE_FAILURE_SECONDS
    while time.monotonic() < until and not _stopping[0]:
        time.sleep(0.1)
    end_this_process()


def pipeline_of(config: Config, name: str) -> Pipeline:
    """The pipeline of a worker process of the worker `name`. Raises ConfigError for a model that cannot be used."""
    runner = job_runner(config, name)
    films = config.work.batch or 3 * runner.segmenter.films_at_once  # some are read, some on the device, some written
    return Pipeline(runner, films, config.work.time_limit_seconds, stopping=lambda: _stopping[0] != 0)


def job_runner(config: Config, name: str) -> JobRunner:
    """Everything that a worker process needs; loads the model. Raises ConfigError for one that cannot be used."""
    from dicom_node.work.model import load_model, segment_settings
    from segmenter.engine import Segmenter  # torch: only where films are segmented

    segmenter = Segmenter(load_model(config.segment), segment_settings(config.segment))
    log.info("model loaded", extra={"model": segmenter.identity.name, "engine": segmenter.predict.engine})
    if not config.work.node:
        return JobRunner(LocalQueue.of(config, name), segmenter)
    from dicom_node.api.worker_client import RemoteQueue

    identity = segmenter.identity
    node = RemoteQueue.of(config.work, name, model=f"{identity.name} {identity.version}", model_digest=identity.digest)
    return JobRunner(node, segmenter)


def run_worker(config: Config) -> int:
    """Work until SIGTERM; returns Celery's exit code. For the node of this machine the caller holds the lock of the verb:
    every other claim of this machine belongs to a process that is gone."""
    name = secrets.token_hex(8)
    app = celery_app(config.queue, config.work)
    app.task(film_is_ready, name=TASK)
    queue = _remote_queue(config, name) if config.work.node else _local_queue(config, name)
    guard = ForkGuard(queue)
    watch = _remote_watch(app, config, guard) if config.work.node else _local_watch(app, config, guard)

    @signals.worker_process_init.connect(weak=False)
    def _child(**_: object) -> None:
        global _pipeline
        EssentialThread(target=_die_with, args=(os.getppid(),), name="orphan-watch", daemon=True).start()
        try:
            _pipeline = pipeline_of(config, name)
        except Exception:  # a device that is gone, for one: without a pipeline it would only use up wake-ups
            log.exception("this process cannot load the model; another one tries again")
            _end_soon()
        gc.freeze()  # what the model brought stays: the collector need not look at it for each film

    guard.register()
    # With a receiver for it Celery leaves logging alone: else it sets the level of every logger, and films go unlogged.
    signals.setup_logging.connect(lambda **_: None, weak=False)

    @signals.worker_ready.connect(weak=False)
    def _ready(**_: object) -> None:
        log.info("working", extra=_place_of_work(config))
        watch.start()

    @signals.worker_shutting_down.connect(weak=False)
    def _stop(**_: object) -> None:
        _stopping[0] = 1
        watch.stop()

    signals.task_received.connect(lambda **_: watch.received(), weak=False)
    # Nothing of Celery's own banner, and no logging set-up of its own.
    worker = app.Worker(
        pool="prefork", loglevel="WARNING", without_gossip=True, without_mingle=True, quiet=True, hostname=f"{name}@%h"
    )
    try:
        worker.start()
    except (WorkerShutdown, SystemExit):
        pass
    return int(worker.exitcode or 0)


def _place_of_work(config: Config) -> dict[str, object]:
    """For the first log line: where films come from, and who sends the wake-ups."""
    return {
        "node": config.work.node or "this machine",
        "processes": config.work.processes,
        "woken_by": "the ledger" if not config.work.node else shown(config.queue.broker) if _has_redis(config) else "the node",
    }


def _has_redis(config: Config) -> bool:
    return not config.queue.broker.startswith("memory://")


def _local_queue(config: Config, name: str) -> PoolQueue:
    queue = LocalQueue.of(config, name, in_turn=True)
    freed = queue.ledger.release_others(name)
    if freed:
        log.warning("claims of an earlier worker were released", extra={"jobs": freed})
    return queue


def _remote_queue(config: Config, name: str) -> PoolQueue:
    from dicom_node.api.worker_client import RemoteQueue

    return RemoteQueue.of(config.work, name)


def _local_watch(app: Celery, config: Config, guard: ForkGuard) -> PoolWatch:
    return PoolWatch(
        guard,
        Wakeups(app, config.work.processes),
        StallWatch(config.work.time_limit_seconds + MODEL_SECONDS, MODEL_SECONDS),
        ZombieWatch(),
        poll_seconds=config.queue.poll_seconds,
    )


def _remote_watch(app: Celery, config: Config, guard: ForkGuard) -> PoolWatch:
    """With Redis the node's dispatcher sends the wake-ups."""
    return PoolWatch(
        guard,
        # Twice as many as processes: the next film need not wait until the node is asked again.
        None if _has_redis(config) else Wakeups(app, 2 * config.work.processes),
        StallWatch(config.work.time_limit_seconds + MODEL_SECONDS),
        ZombieWatch(),
        poll_seconds=max(config.queue.poll_seconds, REMOTE_POLL_SECONDS),
    )


def _die_with(parent: int) -> None:
    """A worker process whose parent was killed must not go on: its claims are released by the next worker."""
    while os.getppid() == parent:
        time.sleep(0.5)
    end_this_process()
