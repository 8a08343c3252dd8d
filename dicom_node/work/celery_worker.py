"""The Celery worker: a parent that sends wake-ups, children that answer the films that are ready at each."""

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
from dicom_node.work import wakeup
from dicom_node.work.celery_app import celery_app
from dicom_node.work.job_runner import Workbench
from dicom_node.work.pipeline import Conveyor

log = logging.getLogger(__name__)

# Before a process whose device failed is replaced: three charges on an innocent film then take more than a minute, and where
# the device is really gone the next process cannot load the model, claims nothing, and films wait.
DEVICE_TROUBLE_SECONDS = 20.0
MODEL_SECONDS = 120.0  # that a new child may take to load the model
REMOTE_POLL_SECONDS = 0.5  # how often a node on another machine is asked for work when no broker lies between

_belt: Conveyor | None = None  # one per child process, made after the fork
_stopping = mmap.mmap(-1, 1)  # shared with the children: the parent was told to stop


def film_is_ready() -> None:
    """The task: claim what is ready and answer it."""
    assert _belt is not None, "the bell rang in a process that has no workbench"
    _belt.answer_ready()
    if _belt.worn_out:
        log.error("the device failed: this process ends, and a new one begins with a device of its own")
        _make_room_for_another()


def _make_room_for_another() -> None:
    """End this process after a while, at a stop at once; the pool starts a new one."""
    until = time.monotonic() + DEVICE_TROUBLE_SECONDS
    while time.monotonic() < until and not _stopping[0]:
        time.sleep(0.1)
    end_this_process()


def conveyor(config: Config, name: str) -> Conveyor:
    """A workbench and how many films lie on it."""
    bench = workbench(config, name)
    films = config.work.batch or 3 * bench.segmenter.films_at_once  # some are read, some on the device, some written
    return Conveyor(bench, films, config.work.time_limit_seconds, stopping=lambda: _stopping[0] != 0)


def workbench(config: Config, name: str) -> Workbench:
    """Everything a worker process needs; loads the model."""
    from dicom_node.work.model import load_model, segment_settings
    from segmenter.engine import Segmenter  # torch: only where films are segmented

    segmenter = Segmenter(load_model(config.segment), segment_settings(config.segment))
    log.info("model loaded", extra={"model": segmenter.identity.name, "engine": segmenter.predict.engine})
    if not config.work.node:
        return Workbench(LocalQueue.of(config, name), segmenter)
    from dicom_node.api.worker_client import RemoteQueue

    identity = segmenter.identity
    node = RemoteQueue.of(config.work, name, model=f"{identity.name} {identity.version}", model_digest=identity.digest)
    return Workbench(node, segmenter)


def run_worker(config: Config) -> int:
    """Work until SIGTERM. For the node of this machine the caller holds the lock of the verb: every other claim of this
    machine is a dead one."""
    name = secrets.token_hex(8)
    app = celery_app(config.queue, config.work)
    app.task(film_is_ready, name=wakeup.BELL)
    ringer = _remote_ringer(app, config, name) if config.work.node else _local_ringer(app, config, name)

    @signals.worker_process_init.connect(weak=False)
    def _child(**_: object) -> None:
        global _belt
        EssentialThread(target=_die_with, args=(os.getppid(),), name="orphan-watch", daemon=True).start()
        try:
            _belt = conveyor(config, name)
        except Exception:  # a device that is gone, for one: without a bench it would only swallow bells
            log.exception("this process cannot load the model; another one tries again")
            _make_room_for_another()
        gc.freeze()  # what the model brought stays: the collector need not look at it for each film

    ringer.stand_apart_from_forks()
    # With a receiver for it Celery leaves logging alone: else it sets the level of every logger, and films go unlogged.
    signals.setup_logging.connect(lambda **_: None, weak=False)

    @signals.worker_ready.connect(weak=False)
    def _ready(**_: object) -> None:
        log.info("working", extra=_place_of_work(config))
        ringer.start()

    @signals.worker_shutting_down.connect(weak=False)
    def _stop(**_: object) -> None:
        _stopping[0] = 1
        ringer.stop()

    signals.task_received.connect(lambda **_: ringer.heard(), weak=False)
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
    """What the log says at the start."""
    return {
        "node": config.work.node or "this machine",
        "processes": config.work.processes,
        "woken_by": "the ledger" if not config.work.node else shown(config.queue.broker) if _has_redis(config) else "the node",
    }


def _has_redis(config: Config) -> bool:
    return not config.queue.broker.startswith("memory://")


def _local_ringer(app: Celery, config: Config, name: str) -> wakeup.Ringer:
    node = LocalQueue.of(config, name, in_turn=True)
    freed = node.ledger.release_others(name)
    if freed:
        log.warning("claims of an earlier worker were freed", extra={"jobs": freed})
    return wakeup.Ringer(
        app,
        node,
        children=config.work.processes,
        poll_seconds=config.queue.poll_seconds,
        stuck_seconds=config.work.time_limit_seconds + MODEL_SECONDS,
        asleep_seconds=MODEL_SECONDS,
    )


def _remote_ringer(app: Celery, config: Config, name: str) -> wakeup.Ringer:
    from dicom_node.api.worker_client import RemoteQueue

    # With Redis the node's dispatcher rings; this one only says when a child has died.
    return wakeup.Ringer(
        app,
        RemoteQueue.of(config.work, name),
        children=2 * config.work.processes,  # one bell ahead: the next film need not wait for a look at the node
        poll_seconds=max(config.queue.poll_seconds, REMOTE_POLL_SECONDS),
        rings=not _has_redis(config),
        stuck_seconds=config.work.time_limit_seconds + MODEL_SECONDS,
    )


def _die_with(parent: int) -> None:
    """A pool child whose parent was killed must not go on: its claims are freed by the next worker."""
    while os.getppid() == parent:
        time.sleep(0.5)
    end_this_process()
