"""Statistics of the node for `status` and /metrics. All are read from the ledger in one snapshot, so they are the same for
every process and survive every restart. Readers of a WAL never wait for a writer, nor a writer for them.

Cost: totals are counted in a covering index (tests check the query plan); latencies and associations are those of a recent
window, at most WINDOW_FILMS films or deliveries of the last WINDOW_SECONDS.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.runtime.config import Config
from dicom_node.storage.database import Store
from dicom_node.storage.records import FINDINGS, State
from dicom_node.storage.spool import Spool

WINDOW_SECONDS = 3600.0
WINDOW_FILMS = 2000
QUANTILES = (0.5, 0.9, 0.99, 1.0)
QUEUES = ("normal", "urgent")
STAGES = ("waiting", "work", "answer", "delivery")

# `generation = 1`: a rerun film was received long before its rerun.
QUERIES = {
    "outcomes": "SELECT state, code, finding, count(*) FROM jobs INDEXED BY jobs_outcome GROUP BY state, code, finding",
    "resent": "SELECT coalesce(sum(resends), 0) FROM jobs INDEXED BY jobs_resent WHERE resends > 0",
    "conflicts": "SELECT count(*) FROM contents INDEXED BY contents_conflicts WHERE revision > 1",
    "waiting": "SELECT count(*) FROM jobs INDEXED BY jobs_ready WHERE state = 'received' AND queue = ?",
    "oldest": "SELECT received_at FROM jobs INDEXED BY jobs_ready WHERE state = 'received' AND queue = ? AND generation = 1"
    " ORDER BY received_at LIMIT 1",
    "in_work": "SELECT count(*) FROM jobs INDEXED BY jobs_claimed WHERE state = 'claimed' AND queue = ?",
    "stages": "SELECT claimed_at - received_at, seconds, finished_at - received_at FROM jobs INDEXED BY jobs_finished"
    " WHERE finished_at > ? AND generation = 1 ORDER BY finished_at DESC LIMIT ?",
    "delivery": "SELECT finished_at - created_at FROM deliveries INDEXED BY deliveries_finished"
    " WHERE finished_at > ? AND state = 'delivered' ORDER BY finished_at DESC LIMIT ?",
    "deliveries": "SELECT destination, state, status, count(*) FROM deliveries INDEXED BY deliveries_outcome"
    " GROUP BY state, destination, status",
    "undelivered": "SELECT destination, min(created_at) FROM deliveries INDEXED BY deliveries_outcome"
    " WHERE state IN ('pending', 'sent') GROUP BY destination",
    "associations": "SELECT coalesce(outcome, 'open'), count(*) FROM associations INDEXED BY associations_opened"
    " WHERE opened_at > ? GROUP BY 1",
    "answered_by": "SELECT model, model_digest FROM jobs INDEXED BY jobs_finished WHERE finished_at > ?"
    " AND model_digest IS NOT NULL ORDER BY finished_at DESC LIMIT 1",
    "meta": "SELECT key, value FROM meta",
}


@dataclass(frozen=True)
class QueueStatistics:
    """The films of one queue, urgent or normal."""

    name: str
    waiting: int
    in_work: int
    oldest_seconds: float | None  # age of the oldest; None: none waits


@dataclass(frozen=True)
class StageLatency:
    """Latencies of the recent window. waiting: received to claimed; work: in the worker; answer: received to finished;
    delivery: result made (or delivery reopened) to delivered."""

    name: str
    films: int  # (or deliveries) that the quantiles are computed from
    quantiles: tuple[tuple[float, float], ...]  # (quantile, seconds); empty without films


@dataclass(frozen=True)
class DeliveryCount:
    """How many deliveries to a destination are in a state; status: of the last C-STORE response, four hex digits."""

    destination: str
    state: str
    status: str  # "none": no response yet
    count: int


@dataclass(frozen=True)
class Model:
    """A model; `digest` identifies its weights, manifest and the settings that affect a result."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True)
class Statistics:
    """The node at one moment."""

    received: int  # films, each content once
    resent: int  # equal arrivals after the first
    conflicts: int  # contents under a SOP Instance UID that another content had before
    states: dict[str, int]
    findings: dict[str, int]
    skipped: dict[str, int]  # by code
    failed: dict[str, int]
    indeterminate: dict[str, int]
    queues: tuple[QueueStatistics, ...]
    stages: tuple[StageLatency, ...]
    deliveries: tuple[DeliveryCount, ...]
    undelivered_seconds: dict[str, float]  # age of the oldest undelivered object, by destination
    associations: dict[str, int]  # of the window, by outcome
    expiring: int  # films without a delivered result that retention removes within warn_days, at its last round
    mode: str
    answered_by: tuple[str, str] | None  # model and digest of the newest result in the window
    free_bytes: int
    reserve_bytes: int
    watermark_bytes: int


def read(config: Config, store: Store, spool: Spool, now: float | None = None) -> Statistics:
    """The statistics of the moment `now` (seconds since the epoch; None: the present). Raises sqlite3.Error, OSError."""
    now = time.time() if now is None else now
    db = store.read()
    db.execute("BEGIN")  # one snapshot; deferred, so without a lock
    try:
        return _read(config, db, spool, now)
    finally:
        db.execute("COMMIT")


def _read(config: Config, db: sqlite3.Connection, spool: Spool, now: float) -> Statistics:
    def ask(name: str, *values: object) -> list[sqlite3.Row]:
        return db.execute(QUERIES[name], values).fetchall()

    outcomes = [tuple(row) for row in ask("outcomes")]
    since = now - WINDOW_SECONDS
    times = ask("stages", since, WINDOW_FILMS)
    delivery_times = ask("delivery", since, WINDOW_FILMS)
    meta, answered_by = {row["key"]: row["value"] for row in ask("meta")}, ask("answered_by", since)
    return Statistics(
        received=sum(count for *_, count in outcomes),
        resent=int(ask("resent")[0][0]),
        conflicts=int(ask("conflicts")[0][0]),
        states={str(state): _sum(outcomes, state) for state in State},
        findings={name: _sum(outcomes, State.SEGMENTED, finding=name) for name in FINDINGS},
        skipped=_by_code(outcomes, State.SKIPPED),
        failed=_by_code(outcomes, State.FAILED),
        indeterminate=_by_code(outcomes, State.SEGMENTED),
        queues=tuple(
            QueueStatistics(name, ask("waiting", name)[0][0], ask("in_work", name)[0][0], _age(ask("oldest", name), now))
            for name in QUEUES
        ),
        stages=(
            *(_stage(name, [row[column] for row in times]) for column, name in enumerate(STAGES[:3])),
            _stage(STAGES[3], [row[0] for row in delivery_times]),
        ),
        deliveries=tuple(
            DeliveryCount(destination, state, "none" if status is None else f"{status:04X}", count)
            for destination, state, status, count in ask("deliveries")
        ),
        undelivered_seconds={destination: max(0.0, now - since) for destination, since in ask("undelivered")},
        associations={outcome: count for outcome, count in ask("associations", since)},
        expiring=int(meta.get("expiring", 0)),
        mode=meta.get("mode", "running"),
        answered_by=(str(answered_by[0][0]), str(answered_by[0][1])) if answered_by else None,
        free_bytes=spool.free_bytes(),
        reserve_bytes=config.node.reserve_mb * 1024 * 1024,
        watermark_bytes=config.retention.watermark_mb * 1024 * 1024,
    )


def _sum(outcomes: Sequence[tuple], state: str, finding: str | None = None) -> int:
    return sum(count for of, _, found, count in outcomes if of == state and finding in (None, found))


def _by_code(outcomes: Sequence[tuple], state: str) -> dict[str, int]:
    """The most frequent first."""
    found: dict[str, int] = {}
    for of, code, _, count in outcomes:
        if of == state and code is not None:
            found[str(code)] = found.get(str(code), 0) + count
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _age(rows: Sequence[sqlite3.Row], now: float) -> float | None:
    return max(0.0, now - rows[0][0]) if rows else None


def _stage(name: str, times: Sequence[float | None]) -> StageLatency:
    """Nearest-rank quantiles of `times`, seconds; an unknown time (NULL) is left out."""
    known = sorted(max(0.0, one) for one in times if one is not None)
    ranks = [(q, known[math.ceil(q * len(known)) - 1]) for q in QUANTILES] if known else []
    return StageLatency(name, len(known), tuple(ranks))
