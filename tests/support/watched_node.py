"""A node whose receiver runs, and what watches it over HTTP: the paths of health, readiness and metrics."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port, wait_for

from dicom_node.api.health import router
from dicom_node.runtime.config import Config, load
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Outcome, State, StoredObject
from dicom_node.work.model import model_in_force

Labels = frozenset[tuple[str, str]]


class Site:
    """A node's folder, its receiver as a process of its own, and the watcher behind a real HTTP server."""

    def __init__(self, folder: Path, allowed: str = "MODALITY = []", reserve_mb: int = 1, more: str = "") -> None:
        self.folder = folder
        self.file = folder / "config.toml"
        self.port = free_port()
        self.write(allowed, reserve_mb, more)
        self.receiver: subprocess.Popen[bytes] | None = None
        self.ledger = Ledger(self.config.ledger_path)

    def write(self, allowed: str, reserve_mb: int = 1, more: str = "") -> None:
        self.file.write_text(
            f"[node]\ndirectory = 'node'\nreserve_mb = {reserve_mb}\n"
            f"[receive]\nhost = '127.0.0.1'\nport = {self.port}\nprocesses = 1\n{more}\n"
            f"[receive.allowed]\n{allowed}\n[peers.PACS]\nhost = '127.0.0.1'\nport = 104\n[send]\ndestinations = ['PACS']\n"
        )

    @property
    def config(self) -> Config:
        return load(self.file)

    def is_journal_closed(self) -> bool:
        """Whether every association's end is written down: it follows the answer to its last film."""
        row = self.ledger.store.read().execute("SELECT count(*), count(closed_at) FROM associations").fetchone()
        return row[0] == row[1] > 0

    def start(self) -> None:
        command = [sys.executable, "-m", "dicom_node.cli.main", "receive", "--config", str(self.file)]
        self.receiver = subprocess.Popen(command, stderr=(self.folder / "log").open("ab"))
        wait_for(self._listens, 120, "the receiver")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.receiver is not None and self.receiver.poll() is None:
            self.receiver.send_signal(signal.SIGCONT)
            self.receiver.terminate()
            self.receiver.wait(120)

    def answer(self, state: State, code: str | None = None, finding: str | None = None) -> str:
        """The next job is finished; its id."""
        claim = self.ledger.claim("w", 30)
        assert claim is not None
        objects = ()
        if state is State.SEGMENTED:
            one = StoredObject("seg", "", "1.2", f"2.25.{claim.job.job_id}", "x", f"job/{claim.job.job_id}", 1, "demo")
            objects = (one,)
        outcome = Outcome(
            state, code=code, finding=finding, content_sha256=claim.job.job_id, model="m 1", model_digest="d", seconds=1.5,
            objects=objects,
        )  # fmt: skip
        return self.ledger.finish(claim, outcome, [Route("PACS")] if objects else []).job_id


@contextlib.contextmanager
def watched(config: Config) -> Iterator[str]:
    """The URL of a uvicorn that serves `router(config)`."""
    app = FastAPI()
    app.include_router(router(config, partial(model_in_force, config)))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_for(lambda: server.started, 120, "uvicorn")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(120)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=300) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found
