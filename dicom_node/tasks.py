"""The Celery worker: a parent that rings, children that answer one film per bell."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
import time

from celery import signals
from celery.exceptions import WorkerShutdown

from dicom_node import broker
from dicom_node.config import Config
from dicom_node.ledger import Ledger
from dicom_node.process import Workbench
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

_bench: Workbench | None = None  # one per child process, made after the fork


def film_is_ready() -> None:
    """The task: claim what is ready and answer it."""
    assert _bench is not None, "the bell rang in a process that has no workbench"
    claim = _bench.claim()
    if claim is None:
        return
    try:
        _bench.answer(claim)
    except Exception as problem:  # the task edge (MemoryError too: Celery would requeue it for ever)
        log.exception("a worker could not finish a film", extra=claim.job.log_context())
        _bench.stumbled(claim, problem)


def workbench(config: Config, name: str) -> Workbench:
    """Everything a worker process needs; loads the model."""
    from dicom_node.model import load_model, segment_settings
    from segmenter.engine import Segmenter  # torch: only where films are segmented

    return Workbench(
        ledger=Ledger(config.ledger_path),
        spool=Spool(config.spool_directory, config.node.reserve_mb * 1024 * 1024),
        segmenter=Segmenter(load_model(config.segment), segment_settings(config.segment)),
        work=config.work,
        destinations=config.send.destinations,
        name=name,
    )


def run_worker(config: Config) -> int:
    """Work until SIGTERM. The caller holds the lock of the verb: every other claim in the ledger is a dead one."""
    name = secrets.token_hex(8)
    ledger = Ledger(config.ledger_path)
    freed = ledger.release_others(name)
    if freed:
        log.warning("claims of an earlier worker were freed", extra={"jobs": freed})
    app = broker.celery_app(config.queue, config.work)
    app.task(film_is_ready, name=broker.BELL)
    ringer = broker.Ringer(app, ledger, config.queue, config.work, name)

    @signals.worker_process_init.connect(weak=False)
    def _child(**_: object) -> None:
        global _bench
        threading.Thread(target=_die_with, args=(os.getppid(),), name="orphan-watch", daemon=True).start()
        _bench = workbench(config, name)

    signals.worker_ready.connect(lambda **_: ringer.start(), weak=False)
    signals.worker_shutting_down.connect(lambda **_: ringer.stop(), weak=False)
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


def _die_with(parent: int) -> None:
    """A pool child whose parent was killed must not go on: its claims are freed by the next worker."""
    while os.getppid() == parent:
        time.sleep(0.5)
    sys.stderr.flush()
    os._exit(1)
