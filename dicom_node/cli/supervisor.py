"""The composition root: builds, wires, starts and stops in a written order; supervises the child processes.

`run` is the parent of receive, work, send, and serve where it is enabled. The parent binds the listening socket and the
receivers inherit it, so a restart of one refuses nobody. `receive` is a parent itself where receive.processes says so:
copies of it take films, and the first also runs retention. Stop order, each step before the next:

1. receive: no new association, running ones finish      (nothing new comes in)
2. serve: no new claims, films of remote workers finish   (nothing new is made there)
3. work: the films in work are finished                   (nothing new is made here)
4. send: the C-STORE in progress is finished              (what is left waits in the ledger)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sqlite3
import time
from pathlib import Path

from dicom_node.cli.processes import refuse_films_without_ledger
from dicom_node.dimse import tls
from dicom_node.runtime.child_processes import ChildProcesses, verb_process
from dicom_node.runtime.config import Config
from dicom_node.runtime.shutdown import stop_event
from dicom_node.storage.instance_lock import VERBS, only_instance
from dicom_node.storage.spool import Spool, is_locked

log = logging.getLogger(__name__)

ANNOUNCE_AGAIN_SECONDS = 5.0
LOOK_THROUGH_SECONDS = 2.0  # the ledger at the start: a few gigabytes take longer, and `check` reads it all


class Supervisor:
    """Starts the children, starts them again when they die, stops them in order. Runs in the main thread."""

    def __init__(self, config: Config, config_path: Path | None) -> None:
        self._config = config
        self._config_path = config_path
        self._children = ChildProcesses()
        left_out = {"serve": not config.serve.enabled, "work": not config.work.processes}
        self._verbs = [verb for verb in VERBS if not left_out.get(verb)]
        self._is_announced = False
        self._announce_at = 0.0  # monotonic seconds

    def run(self) -> None:
        """Until SIGTERM. Raises ConfigError and Missing for what only an administrator can change."""
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
        changed = self._children.restart_dead()
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
            log.error("run.json cannot be written", extra={"error": error.strerror})
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

    refuse_films_without_ledger(config)
    store = Ledger(config.ledger_path).store
    try:
        store.try_out(LOOK_THROUGH_SECONDS)
    except sqlite3.Error as error:
        log.error("the ledger cannot be used now", extra={"error": str(error)})
    finally:
        store.close()


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
