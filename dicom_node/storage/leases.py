"""Which worker works on which job, and until when.

Leases run on the machine's monotonic clock and carry its boot id: a claim of another boot is expired, and changes of the wall
clock have no effect. Wall-clock times are for people. Only the node's clock counts: a worker on another machine renews its
lease by a request to the node.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicom_node.runtime.errors import LostClaim
from dicom_node.storage.database import Store
from dicom_node.storage.records import Job, to_job

Mode = Literal["running", "paused", "draining"]

_EXPIRED = "state = 'claimed' AND (boot IS NOT :boot OR lease_until < :now)"


def boot_id() -> str:
    """The id of this boot of the machine (Linux, random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Claim:
    """A job with the right to finish it: `owner` is a fresh token, valid until the lease runs out."""

    job: Job
    owner: str
    kinds: tuple[str, ...] = ()  # the objects to make, of `segmenter.objects.kinds.ObjectKind`


class Leases:
    """The part of the ledger that hands out jobs. `clock` (seconds, monotonic) and `boot` are given by tests only."""

    def __init__(self, path: Path, *, clock=time.monotonic, boot: str | None = None, in_turn: bool = False) -> None:
        self.store = Store(path, in_turn=in_turn)
        self._clock = clock
        self._boot = boot or boot_id()

    def mode(self) -> Mode:
        """running; paused: films are received, not segmented, not sent; draining: no new films, the others are finished."""
        row = self.store.read().execute("SELECT value FROM meta WHERE key = 'mode'").fetchone()
        return row["value"] if row else "running"

    def ready(self) -> int:
        """How many jobs a worker could claim now; 0 while paused."""
        if self.mode() == "paused":
            return 0
        db = self.store.read()
        waiting = db.execute("SELECT count(*) FROM jobs WHERE state = 'received'").fetchone()[0]
        expired = db.execute(f"SELECT count(*) FROM jobs WHERE {_EXPIRED}", self._now()).fetchone()[0]
        return int(waiting + expired)

    def claim(
        self,
        worker: str,
        lease_seconds: float,
        *,
        normal_waits_seconds: float = 300.0,
        pid: int | None = None,
        remote: str | None = None,
        owner: str | None = None,
        beside: bool = False,
    ) -> Claim | None:
        """Claim the next job; None when there is none or the node is paused.

        First a job whose lease expired, then the oldest urgent one, then the oldest normal one. A normal one that has waited
        longer than `normal_waits_seconds` alternates with the urgent ones: neither queue starves the other. `remote` names a
        worker on another machine. An `owner` that already holds a claim gets that one again: the reply to its first request
        was lost.

        `beside`: the process has other films in work. Then only a job that was never tried is claimed, and only when it is
        the next one: a job that was tried is worked on alone. A crash of such a process is charged to none of its films.
        """
        if self.mode() == "paused":
            return None
        again = owner is not None and _held(self.store.read(), owner) is not None
        if not again and not _may_be_taken(self._next(self.store.read(), normal_waits_seconds)[0], beside):
            return None  # without a write
        owner, pid = owner or secrets.token_hex(16), os.getpid() if pid is None else pid
        with self.store.write() as db:
            held = _held(db, owner)
            if held is not None:
                return Claim(to_job(held), owner)
            found, turn = self._next(db, normal_waits_seconds)
            if found is None or not _may_be_taken(found, beside):
                return None
            if turn is not None:
                query = "INSERT INTO meta VALUES ('last_queue', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                db.execute(query, (turn,))
            if beside:
                query = "UPDATE jobs SET alone = 0 WHERE state = 'claimed' AND worker = ? AND pid = ?"
                db.execute(query, (worker, pid))
            row = db.execute(
                "UPDATE jobs SET state = 'claimed', owner = ?, worker = ?, remote = ?, pid = ?, boot = ?, lease_until = ?,"
                " claimed_at = ?, attempts = attempts + 1, alone = ? WHERE id = ? RETURNING *",
                (
                    owner,
                    worker,
                    remote,
                    pid,
                    self._boot,
                    self._clock() + lease_seconds,
                    time.time(),
                    not beside,
                    found["id"],
                ),
            ).fetchone()
        return Claim(to_job(row), owner)

    def _next(self, db: sqlite3.Connection, normal_waits_seconds: float) -> tuple[sqlite3.Row | None, str | None]:
        """(the next job, the queue whose turn it is when both have waited too long)."""
        expired = db.execute(f"SELECT id, attempts FROM jobs WHERE {_EXPIRED} LIMIT 1", self._now()).fetchone()
        if expired is not None:
            return expired, None
        first = {
            queue: db.execute(
                "SELECT id, received_at, attempts FROM jobs WHERE state = 'received' AND queue = ?"
                " ORDER BY received_at LIMIT 1",
                (queue,),
            ).fetchone()
            for queue in ("urgent", "normal")
        }
        urgent, normal = first["urgent"], first["normal"]
        if urgent is None or normal is None:
            return urgent or normal, None
        if normal["received_at"] > time.time() - normal_waits_seconds:
            return urgent, None
        # Both wait, the normal one too long: they alternate.
        last = db.execute("SELECT value FROM meta WHERE key = 'last_queue'").fetchone()
        turn = "urgent" if last is not None and last["value"] == "normal" else "normal"
        return first[turn], turn

    def renew(self, claim: Claim, lease_seconds: float) -> None:
        """Heartbeat. Raises LostClaim when another worker owns the job."""
        if self.renew_all([claim.owner], lease_seconds):
            raise LostClaim(f"job {claim.job.job_id} was taken over by another worker")

    def renew_all(self, owners: Collection[str], lease_seconds: float, remote: str | None = None) -> set[str]:
        """Heartbeat of several claims in one transaction; those of `owners` that are no longer valid. `remote`: only claims of
        that worker on another machine are valid."""
        marks = ",".join("?" * len(owners))
        with self.store.write() as db:
            rows = db.execute(
                "UPDATE jobs SET lease_until = ?1 WHERE state = 'claimed' AND (?2 IS NULL OR remote = ?2)"
                f" AND owner IN ({marks}) RETURNING owner",
                (self._clock() + lease_seconds, remote, *owners),
            ).fetchall()
        return set(owners) - {row["owner"] for row in rows}

    def claim_of(self, job_id: str, owner: str, remote: str) -> Claim | None:
        """The claim that `owner` holds on a job as the worker `remote`, None when it does not (any more)."""
        row = (
            self.store.read()
            .execute(
                "SELECT * FROM jobs WHERE id = ? AND state = 'claimed' AND owner = ? AND remote = ?", (job_id, owner, remote)
            )
            .fetchone()
        )
        return None if row is None else Claim(to_job(row), owner)

    def release(self, claim: Claim) -> None:
        """Give the job back unchanged; without effect when the claim was lost meanwhile."""
        with self.store.write() as db:
            db.execute(
                "UPDATE jobs SET state = 'received', owner = NULL, attempts = attempts - 1"
                " WHERE id = ? AND state = 'claimed' AND owner = ?",
                (claim.job.job_id, claim.owner),
            )

    def release_worker(self, worker: str, dead: Sequence[int], *, max_crashes: int) -> list[Job]:
        """Release the claims of those of `worker`'s processes that are among the `dead` pids, each charged with a crash when
        its process worked on it alone.

        A job with `max_crashes` crashes is quarantined as failed. Returns the jobs, as they are now.
        """
        with self.store.write() as db:
            rows = db.execute("SELECT id, pid FROM jobs WHERE state = 'claimed' AND worker = ?", (worker,)).fetchall()
            held = [row["id"] for row in rows if row["pid"] in dead]
            sentence = "The worker process died on this film, again and again."
            return [self._charge(db, job_id, "crashes-the-worker", sentence, max_crashes) for job_id in held]

    def charge(self, claim: Claim, code: str, sentence: str, *, max_crashes: int) -> None:
        """Charge a claim with a crash and release it; one that was not worked on alone is only released, and tried again alone.
        Without effect when the claim was lost meanwhile."""
        with self.store.write() as db:
            if owns(db, claim):
                self._charge(db, claim.job.job_id, code, sentence, max_crashes)

    def claim_pids(self, worker: str) -> list[int]:
        """The pids of the processes of `worker` that hold a claim."""
        rows = self.store.read().execute("SELECT DISTINCT pid FROM jobs WHERE state = 'claimed' AND worker = ?", (worker,))
        return [int(pid) for (pid,) in rows]

    def remote_claims(self, remote: str | None = None) -> int:
        """How many films workers on other machines (or the one named `remote`) have in work."""
        query = "SELECT count(*) FROM jobs WHERE state = 'claimed' AND remote IS NOT NULL AND (?1 IS NULL OR remote = ?1)"
        return int(self.store.read().execute(query, (remote,)).fetchone()[0])

    def release_others(self, worker: str) -> int:
        """Release every claim of this machine that is not `worker`'s, uncharged; the only worker here calls it at its start."""
        with self.store.write() as db:
            return db.execute(
                "UPDATE jobs SET state = 'received', owner = NULL WHERE state = 'claimed' AND remote IS NULL"
                " AND worker IS NOT ?",
                (worker,),
            ).rowcount

    def release_remote(self, remote: str) -> int:
        """Release every claim of a worker on another machine, uncharged (its token was revoked)."""
        with self.store.write() as db:
            return db.execute(
                "UPDATE jobs SET state = 'received', owner = NULL WHERE state = 'claimed' AND remote = ?", (remote,)
            ).rowcount

    def _charge(self, db: sqlite3.Connection, job_id: str, code: str, sentence: str, max_crashes: int) -> Job:
        row = db.execute(
            "UPDATE jobs SET state = 'received', owner = NULL, crashes = crashes + alone WHERE id = ? RETURNING *", (job_id,)
        ).fetchone()
        if row["alone"] and row["crashes"] >= max_crashes:
            row = db.execute(
                "UPDATE jobs SET state = 'failed', finished_at = ?, code = ?, sentence = ? WHERE id = ? RETURNING *",
                (time.time(), code, f"{sentence} Given up after {row['crashes']} tries; `rerun` tries again.", job_id),
            ).fetchone()
        return to_job(row)

    def _now(self) -> dict[str, str | float]:
        return {"boot": self._boot, "now": self._clock()}


def _held(db: sqlite3.Connection, owner: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM jobs WHERE state = 'claimed' AND owner = ?", (owner,)).fetchone()
    return row


def _may_be_taken(row: sqlite3.Row | None, beside: bool) -> bool:
    """A job that was tried before is not worked on beside others."""
    return row is not None and (row["attempts"] == 0 or not beside)


def owns(db: sqlite3.Connection, claim: Claim) -> bool:
    """Whether the owner token is still the valid one."""
    query = "SELECT 1 FROM jobs WHERE id = ? AND state = 'claimed' AND owner = ?"
    return db.execute(query, (claim.job.job_id, claim.owner)).fetchone() is not None
