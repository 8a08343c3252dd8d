"""How the node is watched from outside: /healthz, /readyz, /metrics. No patient data, no UIDs.

| path | answers 200 when | else |
|---|---|---|
| /healthz | this process lives and can read the ledger | 503; restart it, then look at the ledger |
| /readyz | a film that is sent now would be taken: C-ECHO, ledger writable, disk, mode | 503, each check with its reason |
| /metrics | the ledger can be read | 503 |

Answers are kept for some seconds and made by one request at a time, so that many watchers cost no more than one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from typing import Generic, TypeVar

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from dicom_node.api import metrics
from dicom_node.api.readiness import Probe, call_receiver
from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import Missing, NodeError
from dicom_node.storage import statistics
from dicom_node.storage.database import Store
from dicom_node.storage.spool import Spool
from dicom_node.storage.statistics import Figures, Model

SCRAPE_SECONDS = 10.0  # that figures are kept
READY_SECONDS = 2.0  # that a probe is kept
LOCKED_SECONDS = 3.0  # the longest wait for the ledger's write lock before it counts as not writable
TROUBLE = (sqlite3.Error, OSError, NodeError)

T = TypeVar("T")


def router(config: Config, model: Callable[[], Model | None]) -> APIRouter:
    """The three paths, for whoever serves HTTP. Nothing is opened before the first request. `model`: the configured one, None
    when it cannot be loaded; asked once."""
    routes, watch = APIRouter(), Watch(config, model)

    @routes.get("/healthz")
    def healthz() -> JSONResponse:
        found = watch.readable()
        return JSONResponse({"alive": found.ok, "ledger": found.text}, 200 if found.ok else 503)

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        checks = watch.checks.get()
        ready = all(one.ok for one in checks.values())
        told = {name: {"ok": one.ok, "text": one.text} for name, one in checks.items()}
        return JSONResponse({"ready": ready, "checks": told}, 200 if ready else 503)

    @routes.get("/metrics")
    def scrape() -> Response:
        try:
            return Response(metrics.exposition(watch.figures.get, lambda: watch.model), media_type=CONTENT_TYPE_LATEST)
        except TROUBLE as problem:
            return Response(f"the ledger cannot be read ({type(problem).__name__})\n", 503, media_type="text/plain")

    return routes


class Kept(Generic[T]):
    """A value that is made anew when it is older than `seconds`, by one thread; the others wait for it."""

    def __init__(self, make: Callable[[], T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._made: tuple[float, T] | None = None

    def get(self) -> T:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > self._seconds:
                self._made = None  # a value that cannot be made is not the old one
                value = self._make()
                self._made = (time.monotonic(), value)
            return self._made[1]


class Watch:
    """Looks at one node: its receiver, ledger and disk."""

    def __init__(self, config: Config, model: Callable[[], Model | None]) -> None:
        self._config = config
        self._load_model = model
        self.figures: Kept[Figures] = Kept(self._read, SCRAPE_SECONDS)
        self.checks: Kept[dict[str, Probe]] = Kept(self._check, READY_SECONDS)

    @cached_property
    def model(self) -> Model | None:
        return self._load_model()

    def readable(self) -> Probe:
        """Whether the ledger on disk (not one that was unlinked under us) is a database and holds jobs' pages."""
        try:
            with closing(self._open()) as db:
                db.execute("SELECT state FROM jobs ORDER BY received_at DESC LIMIT 1").fetchall()
                db.execute("SELECT value FROM meta").fetchall()
        except TROUBLE as problem:
            return Probe(False, f"cannot be read ({_words(problem)}); `check`, then restore a backup")
        return Probe(True, "can be read")

    def _read(self) -> Figures:
        config = self._config
        if not config.ledger_path.is_file():
            raise Missing(f"{config.ledger_path}: no ledger there")  # looking must not make one
        store = Store(config.ledger_path)
        with closing(store.read()):
            return statistics.read(config, store, Spool(config.spool_directory, 0))

    def _check(self) -> dict[str, Probe]:
        return {
            "receiver": call_receiver(self._config),
            "ledger": self._writable(),
            "disk": self._disk(),
            "mode": self._mode(),
        }

    def _writable(self) -> Probe:
        """A real, durable write: reading works on a full or read-only disk too."""
        try:
            with closing(self._open()) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute(
                    "INSERT INTO meta VALUES ('probed', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (str(time.time()),),
                )
        except TROUBLE as problem:
            return Probe(False, f"cannot be written ({_words(problem)}); look at disk space and rights, then `check`")
        return Probe(True, "can be written")

    def _disk(self) -> Probe:
        reserve = self._config.node.reserve_mb
        try:
            spool = Spool(self._config.spool_directory, 0)
            free = spool.free_bytes() // 2**20
            spool.try_out()
        except TROUBLE as problem:
            return Probe(False, f"cannot keep a film ({_words(problem)}); look at space, inodes and rights of the spool")
        if free < reserve:
            return Probe(False, f"{free} MB free, under node.reserve_mb = {reserve}: films are refused; make room")
        return Probe(True, f"{free} MB free, {reserve} MB stay free")

    def _mode(self) -> Probe:
        try:
            with closing(self._open()) as db:
                row = db.execute("SELECT value FROM meta WHERE key = 'mode'").fetchone()
        except TROUBLE as problem:
            return Probe(False, f"is not known ({_words(problem)})")
        mode = row[0] if row else "running"
        return Probe(
            mode != "draining", mode if mode != "draining" else "draining: no new films; `resume` opens the node again"
        )

    def _open(self) -> sqlite3.Connection:
        """A connection of this moment, to the file that has the name now; never makes one. Raises sqlite3.Error."""
        address = f"{self._config.ledger_path.as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=LOCKED_SECONDS, isolation_level=None)


def _words(problem: Exception) -> str:
    return str(problem) if isinstance(problem, sqlite3.Error) else type(problem).__name__
