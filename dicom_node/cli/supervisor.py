"""The composition root: builds, wires, starts and stops in a written order; supervises the child processes.

`run` is children of one parent: receive, work, send, and serve where it is enabled. The parent binds the listening
socket and the receivers inherit it, so a restart of one refuses nobody. `receive` is a parent itself where
receive.processes says so: copies of it take films, the first keeps retention. Stop order, each step before the next:

1. receive: no new association, running ones finish      (nothing new comes in)
2. serve: no new claims, films on distant benches finish  (nothing new is made there)
3. work: the film on the bench is finished                (nothing new is made here)
4. send: the object on the wire is finished               (what is left waits in the ledger)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.dimse import tls
from dicom_node.runtime.child_processes import Child, Children, Forked, verb_process
from dicom_node.runtime.config import Config, Serve
from dicom_node.runtime.errors import ConfigError, LedgerUnusable, NodeError
from dicom_node.runtime.listening import listening
from dicom_node.runtime.threads import EssentialThread
from dicom_node.storage.spool import Spool, is_locked

if TYPE_CHECKING:
    from dicom_node.storage.ledger import Ledger

log = logging.getLogger(__name__)

VERBS = ("receive", "serve", "work", "send")  # in the order of the stop
MOST_RECEIVERS = 4  # that receive.processes = 0 starts
LOOK_SECONDS = 0.05  # for a signal
ANNOUNCE_AGAIN_SECONDS = 5.0
LOOK_THROUGH_SECONDS = 2.0  # the ledger at the start: a few gigabytes take longer, and `check` reads it all


@contextlib.contextmanager
def only_instance(spool: Spool, verb: str, patience: float = 15.0) -> Iterator[None]:
    """Hold the lock of a verb. A predecessor that was killed may need a moment to go; then NodeError."""
    until = time.monotonic() + patience
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(spool.lock(verb))
                break
            except NodeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield


class Stop(threading.Event):
    """An event that a signal may set: `tell` takes no lock, which the very thread that the signal interrupts may hold."""

    _told = False

    def tell(self) -> None:
        self._told = True

    def is_set(self) -> bool:
        return self._told or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            if (left := until - time.monotonic()) <= 0:
                return False
            super().wait(min(left, LOOK_SECONDS))
        return True


def stop_event() -> Stop:
    """Set by SIGTERM or SIGINT."""
    event = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.tell())
    return event


# -- one process each ------------------------------------------------------------------------------------------


def receive(config: Config, listener: socket.socket | None = None) -> None:
    """The SCP, until SIGTERM: this process, or copies of it that accept on one socket."""
    from dicom_node.receive.storage_scp import bind
    from dicom_node.storage.ledger import Ledger

    spool, stop = Spool.of(config), stop_event()
    with only_instance(spool, "receive"):
        tls.incoming(config.receive)  # what is wrong is said now, and not by every child
        _refuse_films_without_ledger(config)
        Ledger(config.ledger_path).store.close()  # here too; nothing of it crosses a fork
        listener = listener or bind(config.receive)
        log.info("receiving", extra={"ae_title": config.receive.ae_title})
        processes = config.receive.processes or min(MOST_RECEIVERS, len(os.sched_getaffinity(0)))
        if processes == 1:
            _take_films(config, listener, stop, keeps=True)
        else:
            _keep_receivers(config, listener, processes, stop)


def _keep_receivers(config: Config, listener: socket.socket, processes: int, stop: threading.Event) -> None:
    # Who waits for a seat is not rejected but replaced by the next one, so each process may have its own share.
    silent = -(-config.receive.max_silent // processes)
    shared = config.model_copy(update={"receive": config.receive.model_copy(update={"max_silent": silent})})

    def child(keeps: bool) -> Child:
        return Forked(lambda: _take_films(shared, listener, stop, keeps=keeps))  # its copy of `stop`, set by its signals

    children, names = Children(), [f"receive {number + 1}" for number in range(processes)]
    for name in names:
        children.start(name, partial(child, name == names[0]))
    while not stop.wait(0.2):
        children.look_after()
    children.stop(names, time.monotonic() + config.node.stop_seconds / 2)


def _take_films(config: Config, listener: socket.socket, stop: threading.Event, *, keeps: bool) -> None:
    """`keeps`: retention is kept here too."""
    from dicom_node.dimse.commitment_report import Reports
    from dicom_node.receive.rules import Triage
    from dicom_node.receive.storage_scp import Receiver
    from dicom_node.storage.commitments import Commitments
    from dicom_node.storage.ledger import Ledger
    from dicom_node.storage.retention import Retention

    spool, ledger = Spool.of(config), Ledger(config.ledger_path)
    receiver = Receiver(
        config.receive,
        spool,
        ledger,
        triage=Triage.of(config),
        grace_seconds=config.node.stop_seconds / 3,
        reports=Reports(config, Commitments(ledger.store, config.send.max_delay_seconds)),
    )
    serving = EssentialThread(target=receiver.serve, args=(listener,), name="serve")
    serving.start()
    if keeps:
        retention = Retention(config, ledger, spool)
        EssentialThread(target=retention.run, args=(stop,), name="retention", daemon=True).start()
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
        runnable_model(config.segment)  # what is wrong with it is said now, and not by every child
        return run_worker(config)
    refuse_demo_model(config, runnable_model(config.segment).manifest.intended_use)
    with only_instance(Spool.of(config), "work"):
        return run_worker(config)


def verify_door(settings: Serve) -> None:
    """Raises ConfigError when tokens and films would cross the network in plain, or the certificate can not be used."""
    from dicom_node.work.model import is_loopback

    if not (settings.tls_certificate or settings.allow_plain or is_loopback(settings.host)):
        raise ConfigError(
            f"serve.host: {settings.host} is not this machine, and without TLS tokens and films would cross the network in "
            "plain; set serve.tls_certificate and serve.tls_key (or serve.allow_plain = true behind a proxy)"
        )
    if settings.tls_certificate:
        tls.days_left(tls.Identity("serve", settings.tls_certificate, settings.tls_key, True))


def serve(config: Config) -> None:
    """HTTP for workers on other machines, health and metrics, until SIGTERM."""
    import uvicorn

    from dicom_node.api.connection_limits import MOST_AT_ONCE, Impatient
    from dicom_node.api.health import router
    from dicom_node.api.worker_server import Door, app_of
    from dicom_node.work import wakeup

    settings, stop = config.serve, stop_event()
    verify_door(settings)
    with only_instance(Spool.of(config), "serve"):
        door, listener = Door(config), listening(settings.host, settings.port, "serve.host, serve.port")
        server = uvicorn.Server(
            uvicorn.Config(
                app_of(door, router(config)),
                host=settings.host,
                port=settings.port,
                ssl_certfile=settings.tls_certificate or None,
                ssl_keyfile=settings.tls_key or None,
                log_config=None,
                access_log=False,
                server_header=False,
                http=Impatient,
                limit_concurrency=MOST_AT_ONCE,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=5,
            )
        )
        dispatcher = None
        if not config.queue.broker.startswith("memory://"):
            dispatcher = wakeup.Dispatcher(wakeup.celery_app(config.queue, config.work), door.here, 0.1)
            dispatcher.start()
        # Not in the main thread: there uvicorn would take the signals, and stop before distant benches are clear.
        serving = EssentialThread(target=server.run, args=([listener],), name="http")
        serving.start()
        while not stop.wait(0.2) and serving.is_alive():
            pass
        door.open = False
        until = time.monotonic() + config.node.stop_seconds / 3
        while serving.is_alive() and _has_distant_claims(door.ledger) and time.monotonic() < until:
            time.sleep(0.1)
        if dispatcher is not None:
            dispatcher.stop()
        server.should_exit = True
        serving.join(10)
        if not stop.is_set():
            raise NodeError(f"the HTTP server on {settings.host}:{settings.port} ended by itself")


def _has_distant_claims(ledger: Ledger) -> bool:
    """False too when the ledger can not say: a damaged one must not keep the door from closing."""
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
    except ConfigError as problem:  # no reason to keep from the destinations that are called without it
        log.error("deliveries by TLS wait: %s", problem)
    with only_instance(spool, "send"):
        ledger = Ledger(config.ledger_path)
        sender = Sender(config, spool, ledger, Outbox(ledger.store))
        sender.run(stop, config.queue.poll_seconds)


# -- the parent ------------------------------------------------------------------------------------------------


class Supervisor:
    """Starts the children, starts them again when they die, stops them in order. Runs in the main thread."""

    def __init__(self, config: Config, config_path: Path | None) -> None:
        self._config = config
        self._config_path = config_path
        self._children = Children()
        left_out = {"serve": not config.serve.enabled, "work": not config.work.processes}
        self._verbs = [verb for verb in VERBS if not left_out.get(verb)]
        self._is_announced = False
        self._announce_at = 0.0  # monotonic seconds

    def run(self) -> None:
        from dicom_node.receive.storage_scp import bind
        from dicom_node.work.model import refuse_demo_model, runnable_model

        config, stop = self._config, stop_event()
        tls.verify(config)
        if "work" in self._verbs:
            refuse_demo_model(config, runnable_model(config.segment).manifest.intended_use)
        spool = Spool.of(config)
        with only_instance(spool, "run"):
            _try_ledger(config)
            listener = bind(config.receive)
            try:
                for verb in self._verbs:
                    self._start(verb, listener)
                self._announce(listener)
                log.info("running", extra={"ae_title": config.receive.ae_title, "port": listener.getsockname()[1]})
                while not stop.wait(0.2):
                    self._look_after(listener)
            finally:
                self._stop()
                self._state_file.unlink(missing_ok=True)

    @property
    def _state_file(self) -> Path:
        return self._config.node.directory / "run.json"

    def _start(self, name: str, listener: socket.socket) -> None:
        arguments, inherited = [name], []
        if name == "receive":
            arguments, inherited = [name, "--listen-fd", str(listener.fileno())], [listener.fileno()]
        self._children.start(name, lambda: verb_process(arguments, self._config_path, inherited))

    def _look_after(self, listener: socket.socket) -> None:
        changed = self._children.look_after()
        if changed or (not self._is_announced and time.monotonic() >= self._announce_at):
            self._announce(listener)

    def _announce(self, listener: socket.socket) -> None:
        """run.json: who runs and where, for `status`, the demo and the tests. Tried again while the disk is full."""
        state = {
            "pid": os.getpid(),
            "port": listener.getsockname()[1],
            "children": self._children.pids,
        }
        temporary = self._state_file.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(state))
            temporary.chmod(0o600)
            temporary.rename(self._state_file)
            self._is_announced = True
        except OSError as error:
            log.error("run.json can not be written", extra={"error": error.strerror})
            self._is_announced = False
            self._announce_at = time.monotonic() + ANNOUNCE_AGAIN_SECONDS

    def _stop(self) -> None:
        """Those that were started."""
        until = time.monotonic() + self._config.node.stop_seconds
        for verb in self._verbs:
            if verb in self._children.pids:
                self._children.stop([verb], until)


def _try_ledger(config: Config) -> None:
    """Raises LedgerUnusable. What may be over in a moment, as a full disk, is left to the children: they try again."""
    from dicom_node.storage.ledger import Ledger

    _refuse_films_without_ledger(config)
    store = Ledger(config.ledger_path).store
    try:
        store.try_out(LOOK_THROUGH_SECONDS)
    except sqlite3.Error as error:
        log.error("the ledger can not be used now", extra={"error": str(error)})
    finally:
        store.close()


def _refuse_films_without_ledger(config: Config) -> None:
    """Raises LedgerUnusable when a new ledger would be begun beside films: retention would remove what no row of it names."""
    ledger = config.ledger_path
    if any(file.is_file() and file.stat().st_size for file in (ledger, ledger.with_name(f"{ledger.name}-wal"))):
        return
    if not ledger.is_dir() and next((config.spool_directory / "arrivals").rglob("*.dcm"), None) is not None:
        raise LedgerUnusable(
            f"{ledger}: is not there or empty, but films are in {config.spool_directory}; restore a backup (`restore FILE`), "
            "or move that folder away and send its films again"
        )


def running_verbs(config: Config) -> list[str]:
    """Which of the verbs somebody is on this spool, under a supervisor or each on its own. Raises PermissionError for others
    than their user."""
    found = []
    for verb in VERBS:
        with contextlib.suppress(FileNotFoundError):
            found += [verb] if is_locked(config.spool_directory, verb) else []
    return found


def running(config: Config) -> dict[str, object] | None:
    """What run.json says, while the supervisor that wrote it lives; else None. Its lock tells: after a power cut, or from
    another container, its process number may be somebody else's. Raises PermissionError for others than its user."""
    try:
        state = json.loads((config.node.directory / "run.json").read_text())
        with contextlib.suppress(PermissionError):  # there is such a process, of another user
            os.kill(state["pid"], 0)
        return dict(state) if is_locked(config.spool_directory, "run") else None
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError):
        return None
