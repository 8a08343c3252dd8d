"""Monitoring of the node: /healthz, /readyz, /metrics. No patient data, no UIDs.

| path | 200 when | otherwise |
|---|---|---|
| /healthz | this process runs and can read the ledger | 503; restart it, then check the ledger |
| /readyz | a film that is sent now would be accepted: C-ECHO, ledger writable, disk, mode | 503, each check with its reason |
| /metrics | the ledger can be read | 503 |

Replies are cached for some seconds and made by one request at a time, so that many clients cost no more than one.
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
from dicom_node.api.readiness import call_receiver
from dicom_node.runtime.check import Check
from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import Missing, NodeError
from dicom_node.storage import statistics
from dicom_node.storage.database import Store
from dicom_node.storage.spool import Spool
from dicom_node.storage.statistics import Model, Statistics

METRICS_SECONDS = 10.0  # that statistics are cached
READY_SECONDS = 2.0  # that checks are cached
LOCKED_SECONDS = 3.0  # the longest wait for the ledger's write lock; then it counts as not writable
FAILURES = (sqlite3.Error, OSError, NodeError)

T = TypeVar("T")


def router(config: Config, model: Callable[[], Model | None]) -> APIRouter:
    """The three paths, for an HTTP server. Nothing is opened before the first request. `model`: returns the configured model,
    None when it cannot be loaded; called once."""
    routes, checks = APIRouter(), HealthChecks(config, model)

    @routes.get("/healthz")
    def healthz() -> JSONResponse:
        found = checks.ledger_readable()
        return JSONResponse({"alive": found.ok, "ledger": found.text}, 200 if found.ok else 503)

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        found = checks.ready.get()
        ready = all(one.ok for one in found)
        shown = {one.name: {"ok": one.ok, "text": one.text} for one in found}
        return JSONResponse({"ready": ready, "checks": shown}, 200 if ready else 503)

    @routes.get("/metrics")
    def scrape() -> Response:
        try:
            return Response(metrics.exposition(checks.statistics.get, lambda: checks.model), media_type=CONTENT_TYPE_LATEST)
        except FAILURES as problem:
            return Response(f"the ledger cannot be read ({type(problem).__name__})\n", 503, media_type="text/plain")

    return routes


class Cached(Generic[T]):
    """A value that is made again when it is older than `seconds`, by one thread; the others wait for it."""

    def __init__(self, make: Callable[[], T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._made: tuple[float, T] | None = None

    def get(self) -> T:
        """The value; raises what making it raises."""
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > self._seconds:
                self._made = None  # when this raises, the old value is not returned either
                value = self._make()
                self._made = (time.monotonic(), value)
            return self._made[1]


class HealthChecks:
    """Checks the receiver, ledger and disk of one node."""

    def __init__(self, config: Config, model: Callable[[], Model | None]) -> None:
        self._config = config
        self._load_model = model
        self.statistics: Cached[Statistics] = Cached(self._read, METRICS_SECONDS)
        self.ready: Cached[tuple[Check, ...]] = Cached(self._check, READY_SECONDS)

    @cached_property
    def model(self) -> Model | None:
        """The configured model, None when it cannot be loaded."""
        return self._load_model()

    def ledger_readable(self) -> Check:
        """Whether the file that has the ledger's name now is a readable database with jobs."""
        try:
            with closing(self._open()) as db:
                db.execute("SELECT state FROM jobs ORDER BY received_at DESC LIMIT 1").fetchall()
                db.execute("SELECT value FROM meta").fetchall()
        except FAILURES as problem:
            return Check("ledger", False, f"cannot be read ({_reason(problem)}); run `check`, then restore a backup")
        return Check("ledger", True, "can be read")

    def _read(self) -> Statistics:
        config = self._config
        if not config.ledger_path.is_file():
            raise Missing(f"{config.ledger_path}: no ledger there")  # a check must not create one
        store = Store(config.ledger_path)
        with closing(store.read()):
            return statistics.read(config, store, Spool(config.spool_directory, 0))

    def _check(self) -> tuple[Check, ...]:
        return (call_receiver(self._config), self._ledger_writable(), self._disk(), self._mode())

    def _ledger_writable(self) -> Check:
        """A durable write: a read succeeds on a full or read-only disk too."""
        try:
            with closing(self._open()) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute(
                    "INSERT INTO meta VALUES ('probed', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (str(time.time()),),
                )
        except FAILURES as problem:
            return Check("ledger", False, f"cannot be written ({_reason(problem)}); check disk space and permissions")
        return Check("ledger", True, "can be written")

    def _disk(self) -> Check:
        reserve = self._config.node.reserve_mb
        try:
            spool = Spool(self._config.spool_directory, 0)
            free = spool.free_bytes() // 2**20
            spool.try_out()
        except FAILURES as problem:
            text = f"cannot store a film ({_reason(problem)}); check space, inodes and permissions of the spool"
            return Check("disk", False, text)
        if free < reserve:
            text = f"{free} MB free, below node.reserve_mb = {reserve}: films are refused; free disk space"
            return Check("disk", False, text)
        return Check("disk", True, f"{free} MB free, {reserve} MB reserved")

    def _mode(self) -> Check:
        try:
            with closing(self._open()) as db:
                row = db.execute("SELECT value FROM meta WHERE key = 'mode'").fetchone()
        except FAILURES as problem:
            return Check("mode", False, f"is not known ({_reason(problem)})")
        mode = row[0] if row else "running"
        if mode == "draining":
            return Check("mode", False, "draining: no new films are accepted; `resume` ends this")
        return Check("mode", True, mode)

    def _open(self) -> sqlite3.Connection:
        """A new connection to the file that has the ledger's name now; never creates it. Raises sqlite3.Error."""
        address = f"{self._config.ledger_path.as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=LOCKED_SECONDS, isolation_level=None)


def _reason(problem: Exception) -> str:
    return str(problem) if isinstance(problem, sqlite3.Error) else type(problem).__name__
