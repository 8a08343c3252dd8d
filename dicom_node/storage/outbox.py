"""The deliveries of the ledger: which are due, how a try ended, which wait and why. One sender process uses it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from dicom_node.storage.database import Store
from dicom_node.storage.records import Delivery, DeliveryState, to_delivery

_SELECT = (
    "SELECT d.id AS delivery_id, d.job_id, d.destination, d.state, d.attempts, d.status, d.reason, d.created_at,"
    " d.next_try_at, o.role, o.variant, o.sop_class_uid, o.sop_instance_uid, o.sha256, o.path, o.size, o.intended_use,"
    " d.committed_at, d.crashes FROM deliveries d JOIN objects o ON o.id = d.object_id "
)
# A report (SR) waits until the SEG that it refers to is delivered or refused. Their variants have the same names.
_NOT_BEFORE_ITS_SEG = (
    "(o.role != 'sr' OR NOT EXISTS (SELECT 1 FROM objects s JOIN deliveries e ON e.object_id = s.id"
    " WHERE s.answer_id = o.answer_id AND s.role = 'seg' AND s.variant = o.variant AND e.destination = d.destination"
    " AND e.state IN ('pending', 'sent')))"
)
# Each destination with a pending delivery, by one step in the index for each.
_PENDING_DESTINATIONS = (
    "WITH RECURSIVE one (name) AS (SELECT min(destination) FROM deliveries WHERE state = 'pending' UNION ALL"
    " SELECT (SELECT min(destination) FROM deliveries WHERE state = 'pending' AND destination > name) FROM one"
    " WHERE name IS NOT NULL) SELECT name FROM one WHERE name IS NOT NULL"
)
_RESENT = (
    "SELECT 1 FROM jobs INDEXED BY jobs_resent_unanswered WHERE resends > resends_answered AND state = 'segmented' LIMIT 1"
)
MAX_CRASHES = 3  # of the sender over one delivery; from the second on it is sent alone
_CRASHED = f"the sending process died {MAX_CRASHES} times while it sent this object; check the object, then run `retry`"
# Only bytes that are still on disk can be sent again.
_ON_DISK = "(SELECT path FROM objects WHERE objects.id = object_id) IS NOT NULL"


@dataclass(frozen=True)
class DeliveryProblems:
    """How many objects are not delivered to one destination, each number with the newest reason."""

    refused: int  # since the last delivered object
    refusal: str
    waiting: int  # after a failed try
    failure: str


class Outbox:
    """The deliveries in `store`. Every method raises sqlite3.Error."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def recover(self) -> int:
        """Deliveries that a dead sender process left in state sent: their outcome is unknown, so the identical bytes are sent
        again. How many.

        Each is charged with a crash. At the third, of a delivery that was sent alone, it is refused: it kills senders.
        """
        with self._store.write() as db:
            db.execute(
                "UPDATE deliveries SET state = 'refused', reason = ?, finished_at = ?, crashes = 0"
                " WHERE state = 'sent' AND crashes >= ?",
                (_CRASHED, time.time(), MAX_CRASHES - 1),
            )
            return db.execute(
                "UPDATE deliveries SET state = 'pending', next_try_at = 0, crashes = crashes + 1 WHERE state = 'sent'"
            ).rowcount

    def suspect(self, longest_wait: float) -> Delivery | None:
        """A due delivery that was in transfer at two crashes in a row: it is sent alone. `longest_wait`: see `due`."""
        row = (
            self._store.read()
            .execute(
                f"{_SELECT} WHERE d.state = 'pending' AND d.crashes >= 2 AND (d.next_try_at <= ?1 OR d.next_try_at > ?1 + ?2)"
                f" AND {_NOT_BEFORE_ITS_SEG} ORDER BY d.next_try_at LIMIT 1",
                (time.time(), longest_wait),
            )
            .fetchone()
        )
        return None if row is None else to_delivery(row)

    def due(self, longest_wait: float, *, besides: Collection[str] = (), limit: int = 50) -> dict[str, list[Delivery]]:
        """The deliveries to send now, by destination, without the destinations `besides`; at most `limit` each, the longest
        waiting first.

        No delivery waits longer than `longest_wait` seconds: one that is due later was written before the wall clock was set
        back, and is due now.
        """
        names = [name for (name,) in self._store.read().execute(_PENDING_DESTINATIONS) if name not in besides]
        found = {name: self._due_to(name, longest_wait, limit) for name in names}
        return {name: dues for name, dues in found.items() if dues}

    def _due_to(self, destination: str, longest_wait: float, limit: int) -> list[Delivery]:
        now = time.time()
        found: list[Delivery] = []
        for condition, moment in (("d.next_try_at <= ?", now), ("d.next_try_at > ?", now + longest_wait)):
            rows = self._store.read().execute(
                f"{_SELECT} WHERE d.state = 'pending' AND d.destination = ? AND {condition} AND {_NOT_BEFORE_ITS_SEG}"
                " AND d.crashes < 2"
                " ORDER BY d.next_try_at LIMIT ?",
                (destination, moment, limit - len(found)),
            )
            found += map(to_delivery, rows)
        return found

    def sending(self, delivery: Delivery) -> bool:
        """Set its state to sent before the C-STORE; False when it is no longer pending."""
        with self._store.write() as db:
            return bool(
                db.execute(
                    "UPDATE deliveries SET state = 'sent', attempts = attempts + 1 WHERE id = ? AND state = 'pending'",
                    (delivery.delivery_id,),
                ).rowcount
            )

    def settle(
        self,
        delivery: Delivery,
        state: DeliveryState,
        *,
        status: int | None,
        reason: str,
        delay: float = 0,
        crashes: int = 0,
    ) -> None:
        """Record the outcome of a try: delivered, refused, or pending again after `delay` seconds. `status`: of the C-STORE
        response (PS3.7 C), None without one."""
        now = time.time()
        with self._store.write() as db:
            db.execute(
                "UPDATE deliveries SET state = ?, status = ?, reason = ?, next_try_at = ?, finished_at = ?, crashes = ?"
                " WHERE id = ?",
                (state, status, reason, now + delay, None if delay else now, crashes, delivery.delivery_id),
            )
            if state is DeliveryState.DELIVERED:  # an earlier commitment was for what was sent before
                db.execute("UPDATE deliveries SET commitment = NULL, committed_at = NULL WHERE id = ?", (delivery.delivery_id,))
                db.execute("DELETE FROM commitment_items WHERE delivery_id = ?", (delivery.delivery_id,))

    def of_job(self, job_id: str) -> list[Delivery]:
        """The deliveries of a job's result, in the order in which they were created."""
        rows = self._store.read().execute(_SELECT + "WHERE d.job_id = ? ORDER BY d.id", (job_id,))
        return [to_delivery(row) for row in rows]

    def retry(self, job_id: str) -> int:
        """Make the refused deliveries of a job pending: the stored bytes are sent again, nothing is segmented. Those whose
        bytes were removed stay refused. How many."""
        with self._store.write() as db:
            return db.execute(
                "UPDATE deliveries SET state = 'pending', attempts = 0, created_at = ?1, next_try_at = ?1, reason = NULL,"
                f" commit_failures = 0 WHERE job_id = ?2 AND state = 'refused' AND {_ON_DISK}",
                (time.time(), job_id),
            ).rowcount

    def make_due(self, destination: str | None = None) -> dict[str, int]:
        """Make the pending deliveries to `destination` (None: to all) due now; how many, by destination."""
        with self._store.write() as db:
            rows = db.execute(
                "UPDATE deliveries SET next_try_at = ?1 WHERE state = 'pending' AND (?2 IS NULL OR destination = ?2)"
                " RETURNING destination",
                (time.time(), destination),
            ).fetchall()
        return dict(sorted(Counter(name for (name,) in rows).items()))

    def problems(self, destination: str) -> DeliveryProblems:
        """What is refused or waits at `destination` after failed tries."""
        db = self._store.read()
        refused = db.execute(
            "SELECT count(*), max(finished_at), reason FROM deliveries WHERE destination = ?1 AND state = 'refused'"
            f" AND {_ON_DISK} AND finished_at > coalesce((SELECT max(finished_at) FROM deliveries WHERE destination = ?1"
            " AND state = 'delivered'), 0)",
            (destination,),
        ).fetchone()
        waiting = db.execute(
            "SELECT count(*), max(next_try_at), reason FROM deliveries WHERE destination = ? AND state = 'pending'"
            " AND attempts > 0",
            (destination,),
        ).fetchone()
        return DeliveryProblems(refused[0], refused[2] or "", waiting[0], waiting[2] or "")

    def redeliver_resent(self) -> int:
        """Reopen the deliveries of films that arrived again (work.on_resend = "redeliver"). How many films."""
        if self._store.read().execute(_RESENT).fetchone() is None:
            return 0  # asked many times a second: without a write, no other writer waits
        with self._store.write() as db:
            rows = db.execute(
                "UPDATE jobs INDEXED BY jobs_resent_unanswered SET resends_answered = resends WHERE resends > resends_answered"
                " AND state = 'segmented' RETURNING id, coalesce(same_as, id) AS answered_by"
            ).fetchall()
            for row in rows:
                db.execute(
                    "UPDATE deliveries SET state = 'pending', attempts = 0, next_try_at = ?1, created_at = ?1"
                    f" WHERE job_id = ?2 AND +state IN ('delivered', 'refused') AND {_ON_DISK}",
                    (time.time(), row["answered_by"]),
                )
        return len(rows)

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of deliveries by destination and state."""
        found: dict[str, dict[str, int]] = {}
        rows = self._store.read().execute("SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1")
        for destination, state, count in rows:
            found.setdefault(destination, {str(one): 0 for one in DeliveryState})[state] = count
        return found
