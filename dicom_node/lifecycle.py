"""The composition root: builds, wires, starts and stops in a written order; supervises the child processes.

`run` is children of one parent: receive, work, send, and serve where it is enabled. The parent binds the listening
socket and the receiver inherits it, so a restart of the receiver refuses nobody. Stop order, each step before the next:

1. receive: no new association, running ones finish      (nothing new comes in)
2. serve: no new claims, films on distant benches finish  (nothing new is made there)
3. work: the film on the bench is finished                (nothing new is made here)
4. send: the object on the wire is finished               (what is left waits in the ledger)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicom_node import tls
from dicom_node.config import Config
from dicom_node.errors import ConfigError, NodeError
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

VERBS = ("receive", "serve", "work", "send")  # in the order of the stop
QUICK_DEATH_SECONDS = 10.0  # a child that lives shorter is restarted with a growing delay
ANNOUNCE_AGAIN_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


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


def die_with_parent(parent: int) -> None:
    """Be killed when the supervisor dies, however it dies (Linux). Call first thing in a child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def stop_event() -> threading.Event:
    """Set by SIGTERM or SIGINT."""
    event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.set())
    return event


# -- one process each ------------------------------------------------------------------------------------------


def receive(config: Config, listener: socket.socket | None = None) -> None:
    """The SCP, until SIGTERM."""
    from dicom_node.association import Receiver, bind
    from dicom_node.commitment_report import Reports
    from dicom_node.commitments import Commitments
    from dicom_node.ledger import Ledger
    from dicom_node.retention import Retention
    from dicom_node.triage import Triage

    spool, stop = Spool.of(config), stop_event()
    ledger = Ledger(config.ledger_path)
    with only_instance(spool, "receive"):
        receiver = Receiver(
            config.receive,
            spool,
            ledger,
            triage=Triage.of(config),
            grace_seconds=config.node.stop_seconds / 3,
            reports=Reports(config, Commitments(ledger.store, config.send.max_delay_seconds)),
        )
        serving = threading.Thread(target=receiver.serve, args=(listener or bind(config.receive),), name="serve")
        retention = Retention(config, ledger, spool)
        keeping = threading.Thread(target=retention.run, args=(stop,), name="retention", daemon=True)
        serving.start()
        keeping.start()
        log.info("receiving", extra={"ae_title": config.receive.ae_title})
        while not stop.wait(0.5) and serving.is_alive():
            pass
        receiver.stop()
        serving.join(config.node.stop_seconds)


def work(config: Config) -> int:
    """The Celery worker, until SIGTERM: for the node of this machine, or for the one that `work.node` names."""
    from dicom_node.model import refuse_demo_model, runnable_model
    from dicom_node.tasks import run_worker

    if not config.work.processes:
        raise ConfigError("work.processes: 0, so there is nothing to run here; set 1 or more")
    if config.work.node:
        runnable_model(config.segment)  # what is wrong with it is said now, and not by every child
        return run_worker(config)
    refuse_demo_model(config, runnable_model(config.segment).manifest.intended_use)
    with only_instance(Spool.of(config), "work"):
        return run_worker(config)


def serve(config: Config) -> None:
    """HTTP for workers on other machines, health and metrics, until SIGTERM."""
    import uvicorn

    from dicom_node import broker
    from dicom_node.model import is_loopback
    from dicom_node.observe import router
    from dicom_node.serve import Door, app_of

    settings, stop = config.serve, stop_event()
    if not (settings.tls_certificate or settings.allow_plain or is_loopback(settings.host)):
        raise ConfigError(
            f"serve.host: {settings.host} is not this machine, and without TLS tokens and films would cross the network in "
            "plain; set serve.tls_certificate and serve.tls_key (or serve.allow_plain = true behind a proxy)"
        )
    with only_instance(Spool.of(config), "serve"):
        door = Door(config)
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
                limit_concurrency=200,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=5,
            )
        )
        dispatcher = None
        if not config.queue.broker.startswith("memory://"):
            dispatcher = broker.Dispatcher(broker.celery_app(config.queue, config.work), door.here, 0.1)
            dispatcher.start()
        # Not in the main thread: there uvicorn would take the signals, and stop before distant benches are clear.
        serving = threading.Thread(target=server.run, name="http")
        serving.start()
        while not stop.wait(0.2) and serving.is_alive():
            pass
        door.open = False
        until = time.monotonic() + config.node.stop_seconds / 3
        while serving.is_alive() and door.ledger.remote_claims() and time.monotonic() < until:
            time.sleep(0.1)
        if dispatcher is not None:
            dispatcher.stop()
        server.should_exit = True
        serving.join(10)
        if not stop.is_set():
            raise NodeError(f"the HTTP server on {settings.host}:{settings.port} ended by itself; is the port taken?")


def send(config: Config) -> None:
    """The SCU, until SIGTERM."""
    from dicom_node.delivery import Sender
    from dicom_node.ledger import Ledger
    from dicom_node.outbox import Outbox

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
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        left_out = {"serve": not config.serve.enabled, "work": not config.work.processes}
        self._verbs = [verb for verb in VERBS if not left_out.get(verb)]
        self._deaths: dict[str, int] = dict.fromkeys(VERBS, 0)
        self._restart_at: dict[str, float] = {}
        self._is_announced = False
        self._announce_at = 0.0  # monotonic seconds

    def run(self) -> None:
        from dicom_node.association import bind
        from dicom_node.model import refuse_demo_model, runnable_model

        config, stop = self._config, stop_event()
        tls.verify(config)
        if "work" in self._verbs:
            refuse_demo_model(config, runnable_model(config.segment).manifest.intended_use)
        spool = Spool.of(config)
        with only_instance(spool, "run"):
            listener = bind(config.receive)
            for verb in self._verbs:
                self._start(verb, listener)
            self._announce(listener)
            log.info("running", extra={"ae_title": config.receive.ae_title, "port": listener.getsockname()[1]})
            while not stop.wait(0.2):
                self._look_after(listener)
            self._stop()
            self._state_file.unlink(missing_ok=True)

    @property
    def _state_file(self) -> Path:
        return self._config.node.directory / "run.json"

    def _start(self, verb: str, listener: socket.socket) -> None:
        command = [sys.executable, "-m", "dicom_node.cli", verb, "--parent", str(os.getpid())]
        if self._config_path is not None:
            command += ["--config", str(self._config_path)]
        inherited: Sequence[int] = ()
        if verb == "receive":
            inherited = (listener.fileno(),)
            command += ["--listen-fd", str(listener.fileno())]
        # Started from the main thread: the parent-death signal follows the thread that started the child.
        self._children[verb] = subprocess.Popen(command, pass_fds=inherited)
        self._started[verb] = time.monotonic()

    def _look_after(self, listener: socket.socket) -> None:
        now, changed = time.monotonic(), False
        for verb, child in self._children.items():
            if child.poll() is None:
                continue
            if verb not in self._restart_at:
                quick = now - self._started[verb] < QUICK_DEATH_SECONDS
                self._deaths[verb] = self._deaths[verb] + 1 if quick else 0
                delay = min(30.0, 2.0 ** self._deaths[verb] - 1)
                self._restart_at[verb] = now + delay
                log.error("a process died", extra={"child": verb, "exit": child.returncode, "restart_seconds": delay})
            if now >= self._restart_at[verb]:
                del self._restart_at[verb]
                self._start(verb, listener)
                changed = True
        if changed or (not self._is_announced and now >= self._announce_at):
            self._announce(listener)

    def _announce(self, listener: socket.socket) -> None:
        """run.json: who runs and where, for `status`, the demo and the tests. Tried again while the disk is full."""
        state = {
            "pid": os.getpid(),
            "port": listener.getsockname()[1],
            "children": {verb: child.pid for verb, child in self._children.items()},
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
        until = time.monotonic() + self._config.node.stop_seconds
        for verb in self._verbs:
            child = self._children[verb]
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("a process did not stop in time and is killed", extra={"child": verb})
                child.kill()
                child.wait()


def running(config: Config) -> dict[str, object] | None:
    """What run.json says, when the supervisor that wrote it is alive; else None."""
    try:
        state = json.loads((config.node.directory / "run.json").read_text())
        os.kill(state["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return dict(state)
