"""Which files are removed from this disk, and when. One thread of the first receiver process does it: only receiving fills
the disk, and space must be freed also while worker and sender are down.

| which | removed | earlier, below retention.watermark_mb |
|---|---|---|
| answered and delivered, or skipped | after finished_days | yes, oldest first |
| failed, refused, or never sent | after failed_days, with a warning warn_days before | no |
| a delivery is under way or pending | no | no |
| a peer with commit = true has not committed to it | no | no |
| the film is in work | no | no |

Rows of jobs are never removed: identity, UIDs and sha256 stay as tombstones, paths become NULL, files are deleted. Rows
first, then files (`ledger.forget_files` says why). Each transaction has a few jobs, so a C-STORE waits milliseconds for it.
Rows of the journal of associations are removed after journal_days.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import NodeError
from dicom_node.storage.commitments import UNCOMMITTED, committing_json
from dicom_node.storage.ledger import Ledger, forget_files
from dicom_node.storage.spool import Spool

log = logging.getLogger(__name__)

DAY = 86_400.0
CHECK_SECONDS = 10.0  # between two checks of the free space
ROUND_SECONDS = 3600.0  # between two rounds by age; also the age from which a file without a row is removed
FIRST_ROUND_SECONDS = 60.0
FULL_SECONDS = 60.0  # until the next check when nothing could be removed
JOBS_PER_TRANSACTION = 20
JOURNAL_ROWS_PER_TRANSACTION = 500
PAUSE_SECONDS = 0.02  # between two transactions: others that wait for the ledger go first


class Completion(Enum):
    """The two ways in which a job is finished."""

    SETTLED = "NOT"  # answered and delivered, or skipped
    UNANSWERED = ""  # failed, refused by a destination, or never sent


@dataclass(frozen=True)
class Removed:
    """What one round removed: files of so many settled and unanswered jobs, rows of the journal, files without a row."""

    settled: int = 0
    unanswered: int = 0
    journal: int = 0
    orphans: int = 0


# `+` keeps a column from choosing the index: the job id must.
_DELIVERIES_OF = "SELECT 1 FROM deliveries d WHERE d.job_id IN (j.id, j.same_as)"
_DELIVERIES = f"{_DELIVERIES_OF} AND +d.state"
_UNANSWERED = f"""(j.state = 'failed' OR EXISTS ({_DELIVERIES} = 'refused') OR EXISTS (
    SELECT 1 FROM answers a JOIN objects o ON o.answer_id = a.id WHERE a.job_id = j.id AND o.path IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.object_id = o.id)))"""
_REMOVABLE = f"""j.path IS NOT NULL AND +j.state IN ('segmented', 'skipped', 'failed')
    AND coalesce(j.kept_since, 0) <= :until
    AND NOT EXISTS ({_DELIVERIES} IN ('pending', 'sent'))
    AND NOT EXISTS ({_DELIVERIES_OF} AND {UNCOMMITTED})
    AND NOT EXISTS (SELECT 1 FROM jobs t WHERE t.sop_instance_uid = j.sop_instance_uid
        AND +t.state IN ('received', 'claimed'))"""


def candidates_query(completion: Completion) -> str:
    """Removable jobs that finished until :until, after the position (:finished_at, :id), first finished first."""
    return (
        "SELECT j.id, j.finished_at FROM jobs j INDEXED BY jobs_kept WHERE j.finished_at <= :until"
        " AND (j.finished_at, j.id) > (:finished_at, :id)"
        f" AND {completion.value} {_UNANSWERED} AND {_REMOVABLE} ORDER BY j.finished_at, j.id LIMIT :limit"
    )


def expiring(config: Config, db: sqlite3.Connection, now: float) -> int:
    """How many films without a delivered result will be removed within retention.warn_days. `now`: seconds since the epoch.
    Reads every film of that age."""
    retention = config.retention
    row = db.execute(
        f"SELECT count(*) FROM jobs j INDEXED BY jobs_kept WHERE j.finished_at <= :until AND {_UNANSWERED} AND {_REMOVABLE}",
        {"until": now - (retention.failed_days - retention.warn_days) * DAY, "committing": committing_json(config)},
    ).fetchone()
    return int(row[0])


class Cleanup:
    """Removes the files that may be removed. `now` (seconds since the epoch) is given by tests only."""

    def __init__(self, config: Config, ledger: Ledger, spool: Spool, *, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self._settings = config.retention
        self._ledger = ledger
        self._spool = spool
        self._now = now

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. An error of disk or ledger is logged; the next check or round tries again."""
        next_check, next_round = 0.0, time.monotonic() + FIRST_ROUND_SECONDS
        while not stop.wait(CHECK_SECONDS):
            try:
                if time.monotonic() >= next_check and self.is_short() and self.make_room(stop) == 0:
                    next_check = time.monotonic() + FULL_SECONDS
                if time.monotonic() >= next_round:
                    next_round = time.monotonic() + ROUND_SECONDS
                    self.round(stop)
            except (sqlite3.Error, OSError, NodeError) as problem:
                words = "retention was interrupted; the next check or round tries again"
                log.error(words, extra={"error": type(problem).__name__})

    def is_short(self) -> bool:
        """Whether less than retention.watermark_mb is free. Raises OSError."""
        return self._spool.free_bytes() < self._settings.watermark_mb * 1024 * 1024

    def round(self, stop: threading.Event | None = None) -> Removed:
        """Remove the files that have reached their age. Raises sqlite3.Error, OSError."""
        stop = stop or threading.Event()
        now, settings = self._now(), self._settings
        removed = Removed(
            settled=sum(self._remove(Completion.SETTLED, now - settings.finished_days * DAY, stop)),
            unanswered=sum(self._remove(Completion.UNANSWERED, now - settings.failed_days * DAY, stop)),
            journal=self._prune_journal(now - settings.journal_days * DAY, stop),
            orphans=len(self._spool.remove_orphans(self._ledger.paths(), ROUND_SECONDS)),
        )
        if removed != Removed():
            log.info("retention removed files", extra=vars(removed))
        soon = expiring(self._config, self._ledger.store.read(), now)
        with self._ledger.store.write() as db:  # for `status` and /metrics, which must be cheap
            db.execute("INSERT INTO meta VALUES ('expiring', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1", (str(soon),))
        if soon:
            log.warning(
                "films without a delivered answer will be removed; `jobs --state failed` and `status` name the reasons",
                extra={"films": soon, "within_days": settings.warn_days},
            )
        return removed

    def make_room(self, stop: threading.Event | None = None) -> int:
        """Remove files of settled jobs early, until retention.watermark_mb is free; of how many jobs. Raises sqlite3.Error,
        OSError."""
        jobs = 0
        for removed in self._remove(Completion.SETTLED, self._now(), stop or threading.Event()):
            jobs += removed
            if not self.is_short():
                break
        log.warning("less than retention.watermark_mb is free", extra={"jobs_removed": jobs, "still_short": self.is_short()})
        return jobs

    def _remove(self, completion: Completion, until: float, stop: threading.Event) -> Iterator[int]:
        """In batches, in the order in which they finished: how many jobs lost their files. Each job is looked at once."""
        query = candidates_query(completion)
        values = {"until": until, "committing": committing_json(self._config), "limit": JOBS_PER_TRANSACTION}
        position = {"finished_at": 0.0, "id": ""}
        while not stop.is_set():
            # Searched outside the write transaction: a long search blocks nobody.
            found = self._ledger.store.read().execute(query, values | position).fetchall()
            if not found:
                return
            position = dict(found[-1])
            paths, jobs = self._forget(completion, [row["id"] for row in found], values)
            for path in paths:
                try:
                    self._spool.delete(path)
                except OSError as problem:
                    log.warning("a file cannot be removed yet, the next round will", extra={"error": type(problem).__name__})
            yield jobs
            stop.wait(PAUSE_SECONDS)

    def _forget(self, completion: Completion, job_ids: list[str], values: dict[str, object]) -> tuple[list[str], int]:
        """(paths to delete, jobs). Checked again inside the transaction: a rerun or a redelivery may have come first."""
        query = f"SELECT 1 FROM jobs j WHERE j.id = :id AND {completion.value} {_UNANSWERED} AND {_REMOVABLE}"
        paths, jobs = [], 0
        with self._ledger.store.write() as db:
            for job_id in job_ids:
                if db.execute(query, values | {"id": job_id}).fetchone() is not None:
                    paths += forget_files(db, job_id)
                    jobs += 1
        return paths, jobs

    def _prune_journal(self, until: float, stop: threading.Event) -> int:
        rows = 0
        while not stop.is_set():
            with self._ledger.store.write() as db:
                gone = db.execute(
                    "DELETE FROM associations WHERE id IN"
                    " (SELECT id FROM associations WHERE opened_at < ? ORDER BY opened_at LIMIT ?)",
                    (until, JOURNAL_ROWS_PER_TRANSACTION),
                ).rowcount
            rows += gone
            if gone < JOURNAL_ROWS_PER_TRANSACTION:
                break
            stop.wait(PAUSE_SECONDS)
        return rows
