"""The processes receive, work, serve and send: each built, run until SIGTERM, and stopped in order."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from dicom_node.dimse import tls
from dicom_node.runtime.child_processes import ChildProcess, ChildProcesses, ForkedProcess
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Serve
from dicom_node.runtime.errors import ConfigError, LedgerUnusable, NodeError
from dicom_node.runtime.listening import listening
from dicom_node.runtime.shutdown import stop_event
from dicom_node.runtime.threads import EssentialThread
from dicom_node.storage.instance_lock import only_instance
from dicom_node.storage.spool import Spool

if TYPE_CHECKING:
    from dicom_node.storage.ledger import Ledger

log = logging.getLogger(__name__)

MOST_RECEIVERS = 4  # that receive.processes = 0 starts


def receive(config: Config, listener: socket.socket | None = None) -> None:
    """The SCP, until SIGTERM: this process, or copies of it that accept on one socket."""
    from dicom_node.receive.storage_scp import bind
    from dicom_node.storage.ledger import Ledger

    spool, stop = Spool.of(config), stop_event()
    with only_instance(spool, "receive"):
        tls.incoming(config.receive)  # a fault is reported once here, and not by every child
        refuse_films_without_ledger(config)
        Ledger(config.ledger_path).store.close()  # here too; nothing of it crosses a fork
        listener = listener or bind(config.receive)
        log.info("receiving", extra={"ae_title": config.receive.ae_title})
        processes = config.receive.processes or min(MOST_RECEIVERS, len(os.sched_getaffinity(0)))
        if processes == 1:
            _take_films(config, listener, stop, keeps=True)
        else:
            _keep_receivers(config, listener, processes, stop)


def _keep_receivers(config: Config, listener: socket.socket, processes: int, stop: threading.Event) -> None:
    # A pending connection is not counted over all processes: each accepts its share and evicts the oldest when it is full.
    silent = -(-config.receive.max_silent // processes)
    shared = config.model_copy(update={"receive": config.receive.model_copy(update={"max_silent": silent})})

    def child(keeps: bool) -> ChildProcess:
        return ForkedProcess(lambda: _take_films(shared, listener, stop, keeps=keeps))  # its copy of `stop`, set by its signals

    children, names = ChildProcesses(), [f"receive {number + 1}" for number in range(processes)]
    for name in names:
        children.start(name, partial(child, name == names[0]))
    while not stop.wait(0.2):
        children.restart_dead()
    children.stop(names, time.monotonic() + config.node.stop_seconds / 2)


def _take_films(config: Config, listener: socket.socket, stop: threading.Event, *, keeps: bool) -> None:
    """`keeps`: retention is kept here too."""
    from dicom_node.dimse.commitment_report import Reports
    from dicom_node.receive.rules import Rules
    from dicom_node.receive.storage_scp import Receiver
    from dicom_node.storage.commitments import Commitments
    from dicom_node.storage.ledger import Ledger
    from dicom_node.storage.retention import Cleanup

    spool, ledger = Spool.of(config), Ledger(config.ledger_path)
    receiver = Receiver(
        config.receive,
        spool,
        ledger,
        rules=Rules.of(config),
        grace_seconds=config.node.stop_seconds / 3,
        reports=Reports(config, Commitments(ledger.store, config.send.max_delay_seconds)),
    )
    serving = EssentialThread(target=receiver.serve, args=(listener,), name="serve")
    serving.start()
    if keeps:
        cleanup = Cleanup(config, ledger, spool)
        EssentialThread(target=cleanup.run, args=(stop,), name="retention", daemon=True).start()
    while not stop.wait(0.5) and serving.is_alive():
        pass
    receiver.stop()
    serving.join(config.node.stop_seconds)


def work(config: Config) -> int:
    """The Celery worker, until SIGTERM: for the node of this machine, or for the one that `work.node` names."""
    from dicom_node.work.celery_worker import run_worker
    from dicom_node.work.model import refuse_demo_model, runnable_model

    if not config.work.processes:
        raise ConfigError("work.processes: 0, so there is nothing to run here; set 1 or more")
    if config.work.node:
        from dicom_node.api.worker_client import refuse_plain

        refuse_plain(config.work)
        runnable_model(config.segment)  # a fault is reported once here, and not by every child
        return run_worker(config)
    refuse_demo_model(config, runnable_model(config.segment).manifest.intended_use)
    with only_instance(Spool.of(config), "work"):
        return run_worker(config)


def verify_serve(settings: Serve) -> None:
    """Raises ConfigError when tokens and films would cross the network unencrypted, or the certificate cannot be used."""
    from dicom_node.dimse.hosts import is_loopback

    if not (settings.tls_certificate or settings.allow_plain or is_loopback(settings.host)):
        raise ConfigError(
            f"serve.host: {settings.host} is not this machine, and without TLS tokens and films would cross the network "
            "unencrypted; set serve.tls_certificate and serve.tls_key (or serve.allow_plain = true behind a proxy)"
        )
    if settings.tls_certificate:
        tls.days_left(tls.Identity("serve", settings.tls_certificate, settings.tls_key, True))


def serve(config: Config) -> None:
    """HTTP for workers on other machines, health and metrics, until SIGTERM."""
    import uvicorn

    from dicom_node.api.connection_limits import MAX_CONNECTIONS, LimitedProtocol
    from dicom_node.api.health import router
    from dicom_node.api.worker_server import WorkerApi, application
    from dicom_node.work import wakeup
    from dicom_node.work.celery_app import celery_app
    from dicom_node.work.model import model_in_force

    settings, stop = config.serve, stop_event()
    verify_serve(settings)
    with only_instance(Spool.of(config), "serve"):
        api, listener = WorkerApi(config), listening(settings.host, settings.port, "serve.host, serve.port")
        server = uvicorn.Server(
            uvicorn.Config(
                application(api, router(config, partial(model_in_force, config))),
                host=settings.host,
                port=settings.port,
                ssl_certfile=settings.tls_certificate or None,
                ssl_keyfile=settings.tls_key or None,
                log_config=None,
                access_log=False,
                server_header=False,
                http=LimitedProtocol,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=5,
            )
        )
        dispatcher = None
        if not config.queue.broker.startswith("memory://"):
            dispatcher = wakeup.Dispatcher(celery_app(config.queue, config.work), api.queue.ready, 0.1)
            dispatcher.start()
        # Not in the main thread: there uvicorn would take the signals, and stop before remote workers have finished.
        serving = EssentialThread(target=server.run, args=([listener],), name="http")
        serving.start()
        while not stop.wait(0.2) and serving.is_alive():
            pass
        api.hands_out_work = False
        until = time.monotonic() + config.node.stop_seconds / 3
        while serving.is_alive() and _has_remote_claims(api.ledger) and time.monotonic() < until:
            time.sleep(0.1)
        if dispatcher is not None:
            dispatcher.stop()
        server.should_exit = True
        serving.join(10)
        if not stop.is_set():
            raise NodeError(f"the HTTP server on {settings.host}:{settings.port} ended by itself")


def _has_remote_claims(ledger: Ledger) -> bool:
    """False too when the ledger cannot be read: a damaged one must not delay the stop."""
    try:
        return bool(ledger.remote_claims())
    except sqlite3.Error:
        return False


def send(config: Config) -> None:
    """The SCU, until SIGTERM."""
    from dicom_node.send.storage_scu import Sender
    from dicom_node.storage.ledger import Ledger
    from dicom_node.storage.outbox import Outbox

    spool, stop = Spool.of(config), stop_event()
    try:
        tls.verify(config)
    except ConfigError as problem:  # no reason to hold back deliveries without TLS
        log.error("deliveries over TLS wait: %s", problem)
    with only_instance(spool, "send"):
        ledger = Ledger(config.ledger_path)
        sender = Sender(config, spool, ledger, Outbox(ledger.store))
        sender.run(stop, config.queue.poll_seconds)


def refuse_films_without_ledger(config: Config) -> None:
    """Raises LedgerUnusable when a new ledger would be created beside films: retention would remove what no row names."""
    ledger = config.ledger_path
    if any(file.is_file() and file.stat().st_size for file in (ledger, ledger.with_name(f"{ledger.name}-wal"))):
        return
    if not ledger.is_dir() and next((config.spool_directory / "arrivals").rglob("*.dcm"), None) is not None:
        raise LedgerUnusable(
            f"{ledger}: missing or empty, but there are films in {config.spool_directory}; restore a backup (`restore FILE`), "
            "or move that folder away and send its films again"
        )
