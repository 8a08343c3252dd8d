"""Storage commitment in the ledger (PS3.4 J): which deliveries lack it, which were requested, what the reports change.

    delivered -> requested -> committed_at                      the destination has committed itself to keep the object
                           -> pending (at most ROUNDS times)    it does not have the object: the identical bytes are sent again
                           -> requested again                   no report within send.commit_again_hours

A request is one row and one Transaction UID, written before the N-ACTION is sent: the report may arrive before the response.
`commitment_items` lists the deliveries of each request; a late report, after another request, still counts for them. A
delivery that is sent again leaves all its requests: they were about the object that was there before.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from pydicom.uid import generate_uid

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer
from dicom_node.storage.database import Store
from dicom_node.storage.records import DeliveryState

ROUNDS = 5  # deliveries without commitment before it is refused and a person must look
FIRST_ROUND_SECONDS = 60.0  # wait before the first repetition; doubles, up to send.max_delay_seconds

COMMITTED = "The destination has committed itself to keep the object."

# Failure Reason (0008,1197) of PS3.3 C.14.1.1.
FAILURE_REASONS = {
    0x0110: "it failed while it looked for the object",
    0x0112: "it does not have the object",
    0x0119: "it has the object under another class",
    0x0122: "it commits to no object of this class",
    0x0131: "it saw this transaction before",
    0x0213: "it is out of resources",
}

# INDEXED BY: without statistics SQLite would read every delivery ever made, once a second.
_LACKING = (
    " FROM deliveries d INDEXED BY deliveries_uncommitted JOIN objects o ON o.id = d.object_id"
    " WHERE d.state = 'delivered' AND d.committed_at IS NULL AND o.path IS NOT NULL AND d.destination = :peer "
)


def committing(config: Config) -> dict[str, Peer]:
    """The peers that are asked for commitment (commit = true)."""
    return {name: peer for name, peer in config.peers.items() if peer.commit}


# Whether the object of a delivery `d` must stay: a peer with commit = true received it and has not committed to it; also one
# that was refused because the commitment never came. `:committing` is `committing_json`. `+` keeps the state from choosing
# the index.
UNCOMMITTED = """(d.committed_at IS NULL AND (+d.state = 'delivered' OR (+d.state = 'refused' AND d.commit_failures > 0))
    AND d.destination IN (SELECT value FROM json_each(:committing)))"""


def committing_json(config: Config) -> str:
    """The names of the peers that are asked for commitment, as UNCOMMITTED needs them."""
    return json.dumps(list(committing(config)))


@dataclass(frozen=True)
class UncommittedDelivery:
    """A delivery that lacks commitment and is part of no request."""

    delivery_id: int
    job_id: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT (PS3.4 J.3.3): SOP Instance UIDs that are committed to, and those that are not with their Failure
    Reason (0008,1197)."""

    transaction_uid: str
    committed: frozenset[str] = frozenset()
    failed: Mapping[str, int] = field(default_factory=dict)


class ReportOutcome(Enum):
    """What became of an N-EVENT-REPORT."""

    DONE = "done"
    DUPLICATE = "answered before"
    UNKNOWN = "no such transaction"
    NOT_ASKED = "another destination was asked"


@dataclass(frozen=True)
class Settlement:
    """What a report changed; counts are deliveries."""

    outcome: ReportOutcome
    committed: int = 0
    again: int = 0
    refused: int = 0
    unmentioned: int = 0  # requested again later, as without a report


class Commitments:
    """The commitments in `store`. `longest_wait`: seconds (send.max_delay_seconds). Every method raises sqlite3.Error."""

    def __init__(self, store: Store, longest_wait: float) -> None:
        self._store = store
        self._longest_wait = longest_wait

    def close(self) -> None:
        """Close this thread's connection to the ledger."""
        self._store.close()

    # -- requests ----------------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Requests whose N-ACTION a dead sender may not have sent: their deliveries are requested again. How many requests."""
        with self._store.write() as db:
            rows = db.execute("UPDATE commitments SET state = 'unknown' WHERE state = 'open' RETURNING transaction_uid")
            lost = [uid for (uid,) in rows.fetchall()]
            for uid in lost:
                _release(db, uid)
        return len(lost)

    def uncommitted(self, peer: str, gather_seconds: float, limit: int) -> list[UncommittedDelivery]:
        """The deliveries to request from `peer` now, in one request; empty while the first is younger than `gather_seconds`."""
        rows = (
            self._store.read()
            .execute(
                "SELECT d.id, d.job_id, d.finished_at, o.sop_class_uid, o.sop_instance_uid"
                + _LACKING
                + "AND d.commitment IS NULL ORDER BY d.finished_at LIMIT :limit",
                {"peer": peer, "limit": limit},
            )
            .fetchall()
        )
        # A time in the future was written before the wall clock was set back.
        if not rows or 0 <= time.time() - rows[0]["finished_at"] < gather_seconds:
            return []
        return [UncommittedDelivery(row["id"], row["job_id"], row["sop_class_uid"], row["sop_instance_uid"]) for row in rows]

    def open(self, peer: str, batch: Sequence[UncommittedDelivery]) -> str | None:
        """Write a request; its Transaction UID (0008,1195), which may be sent now. None when all of `batch` is committed to."""
        uid = str(generate_uid(prefix=None))
        with self._store.write() as db:
            taken = [
                one.delivery_id
                for one in batch
                if db.execute(
                    "UPDATE deliveries SET commitment = ? WHERE id = ? AND state = 'delivered' AND committed_at IS NULL"
                    " AND commitment IS NULL",
                    (uid, one.delivery_id),
                ).rowcount
            ]
            if not taken:
                return None
            db.execute(
                "INSERT INTO commitments (transaction_uid, destination, state, requested_at) VALUES (?,?,'open',?)",
                (uid, peer, time.time()),
            )
            db.executemany("INSERT INTO commitment_items VALUES (?,?)", [(uid, one) for one in taken])
        return uid

    def references(self, transaction_uid: str) -> list[tuple[str, str]]:
        """(SOP Class UID, SOP Instance UID) of the objects of a request, each once."""
        rows = self._store.read().execute(
            "SELECT DISTINCT o.sop_class_uid, o.sop_instance_uid FROM commitment_items i"
            " JOIN deliveries d ON d.id = i.delivery_id JOIN objects o ON o.id = d.object_id WHERE i.transaction_uid = ?",
            (transaction_uid,),
        )
        return [(str(class_uid), str(uid)) for class_uid, uid in rows]

    def accepted(self, transaction_uid: str) -> None:
        """The N-ACTION was answered with 0000: a report will follow."""
        with self._store.write() as db:
            db.execute(
                "UPDATE commitments SET state = 'accepted' WHERE transaction_uid = ? AND state = 'open'", (transaction_uid,)
            )

    def failed(self, transaction_uid: str, reason: str) -> None:
        """The N-ACTION was refused, or not answered: its deliveries are requested again later."""
        with self._store.write() as db:
            db.execute(
                "UPDATE commitments SET state = 'failed' WHERE transaction_uid = ? AND state = 'open'", (transaction_uid,)
            )
            _release(db, transaction_uid, _problem(reason))

    def not_requested(self, batch: Sequence[UncommittedDelivery], reason: str) -> None:
        """The request could not be sent."""
        with self._store.write() as db:
            db.executemany(
                "UPDATE deliveries SET reason = ? WHERE id = ? AND state = 'delivered' AND committed_at IS NULL",
                [(_problem(reason), one.delivery_id) for one in batch],
            )

    def release_overdue(self, peer: str, seconds: float) -> int:
        """Let the deliveries of requests older than `seconds` without a report be requested again. How many requests."""
        now = time.time()
        late = [
            uid
            for (uid,) in self._store.read().execute(
                "SELECT DISTINCT d.commitment"
                + _LACKING
                + "AND d.commitment IN (SELECT transaction_uid FROM commitments c WHERE c.transaction_uid = d.commitment"
                " AND (c.requested_at < :late OR c.requested_at > :future))",
                {"peer": peer, "late": now - seconds, "future": now + 60},
            )
        ]
        if late:
            with self._store.write() as db:
                for uid in late:
                    _release(db, uid, _problem("no report in time, requested again"))
        return len(late)

    # -- reports -----------------------------------------------------------------------------------------------

    def is_answered(self, transaction_uid: str) -> bool:
        """Whether a report for this request was accepted."""
        row = (
            self._store.read()
            .execute("SELECT answered_at FROM commitments WHERE transaction_uid = ?", (transaction_uid,))
            .fetchone()
        )
        return row is not None and row["answered_at"] is not None

    def settle(self, report: Report, peers: Collection[str]) -> Settlement:
        """Write a report from a sender that may report for `peers`, in one transaction."""
        counts = {"committed": 0, "again": 0, "refused": 0, "unmentioned": 0}
        with self._store.write() as db:
            request = db.execute(
                "SELECT destination, answered_at FROM commitments WHERE transaction_uid = ?", (report.transaction_uid,)
            ).fetchone()
            if request is None:
                return Settlement(ReportOutcome.UNKNOWN)
            if request["destination"] not in peers:
                return Settlement(ReportOutcome.NOT_ASKED)
            if request["answered_at"] is not None:
                return Settlement(ReportOutcome.DUPLICATE)
            now = time.time()
            db.execute(
                "UPDATE commitments SET state = 'answered', answered_at = ? WHERE transaction_uid = ?",
                (now, report.transaction_uid),
            )
            for row in db.execute(_OF_REQUEST, (report.transaction_uid,)).fetchall():
                uid = row["sop_instance_uid"]
                if uid in report.failed:  # before `committed`: an object in both lists counts as failed
                    counts[self._reopen(db, row, report.failed[uid], now)] += 1
                elif uid in report.committed:
                    db.execute(
                        "UPDATE deliveries SET committed_at = ?, reason = ?, commit_failures = 0 WHERE id = ?",
                        (now, COMMITTED, row["id"]),
                    )
                    counts["committed"] += 1
                else:
                    counts["unmentioned"] += 1
        return Settlement(ReportOutcome.DONE, **counts)

    def _reopen(self, db: sqlite3.Connection, row: sqlite3.Row, code: int, now: float) -> str:
        """The destination does not commit to it: the identical bytes are sent again, or a person must look."""
        rounds = row["commit_failures"] + 1
        why = f"{FAILURE_REASONS.get(code, 'with an unknown reason')} ({code:04X})"
        delay = 0.0
        if row["path"] is None:
            state, reason = DeliveryState.REFUSED, f"the destination does not commit to the object: {why}; it was purged here"
        elif rounds >= ROUNDS:
            state = DeliveryState.REFUSED
            reason = f"accepted {rounds} times and never committed to: {why}; check the archive, then run `retry`"
        else:
            state = DeliveryState.PENDING
            again = f"it is sent again, repetition {rounds} of {ROUNDS - 1}"
            reason = f"the destination does not commit to the object: {why}; {again}"
            delay = min(self._longest_wait, FIRST_ROUND_SECONDS * 2.0 ** (rounds - 1))
        db.execute(
            "UPDATE deliveries SET state = ?, reason = ?, attempts = 0, created_at = ?, next_try_at = ?, commitment = NULL,"
            " commit_failures = ? WHERE id = ?",
            (state, reason, now, now + delay, rounds, row["id"]),
        )
        db.execute("DELETE FROM commitment_items WHERE delivery_id = ?", (row["id"],))
        return "again" if state is DeliveryState.PENDING else "refused"

    # -- counts ------------------------------------------------------------------------------------------------

    def counts(self, peers: Collection[str]) -> dict[str, int]:
        """Delivered objects without commitment, by peer."""
        query = "SELECT count(*)" + _LACKING
        return {peer: int(self._store.read().execute(query, {"peer": peer}).fetchone()[0]) for peer in peers}


_OF_REQUEST = (
    "SELECT d.id, d.commit_failures, o.sop_instance_uid, o.path FROM commitment_items i"
    " JOIN deliveries d ON d.id = i.delivery_id JOIN objects o ON o.id = d.object_id"
    " WHERE i.transaction_uid = ? AND d.state = 'delivered' AND d.committed_at IS NULL"
)


def _release(db: sqlite3.Connection, transaction_uid: str, reason: str | None = None) -> None:
    """Let the deliveries of a request be requested again; a late report still counts."""
    db.execute(
        "UPDATE deliveries SET commitment = NULL, reason = coalesce(?, reason)"
        " WHERE commitment = ? AND state = 'delivered' AND committed_at IS NULL",
        (reason, transaction_uid),
    )


def _problem(reason: str) -> str:
    return f"The object is stored, but not committed to: {reason}"
