"""The ledger: arrivals, claims and results in SQLite. A queue message only wakes a worker; this file says what happens."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import astuple

from dicom_node.runtime.errors import LostClaim, NodeError
from dicom_node.storage.destinations import Route
from dicom_node.storage.leases import Claim, Leases, Mode, owns
from dicom_node.storage.records import FINISHED, LEGAL, Arrival, Arrived, Job, Outcome, State, StoredObject, to_job, to_object

# An object whose bytes were removed and that no delivery names: it was never to be sent.
_NEVER_SENT = "(objects.path IS NULL AND NOT EXISTS (SELECT 1 FROM deliveries WHERE object_id = objects.id))"


class Ledger(Leases):
    """Arrivals, claims (`Leases`), results, and what the command line asks."""

    # -- arrivals ----------------------------------------------------------------------------------------------

    def add_arrival(self, arrival: Arrival) -> Arrived:
        """Insert the film; an equal one (SOP Instance UID, syntax, bytes) is counted instead. Raises sqlite3.Error.

        When the result is not `new`, no row names the file of this arrival: the caller deletes it.
        """
        job_id = secrets.token_hex(8)
        *values, destinations = astuple(arrival)
        named = None if destinations is None else json.dumps(destinations)
        with self.store.write() as db:
            row = db.execute(
                "INSERT INTO jobs (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, dataset_sha256, path, size,"
                " calling_ae, called_ae, host, association_id, queue, mode, rule, why, destinations, state, received_at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
                " ON CONFLICT (sop_instance_uid, transfer_syntax_uid, dataset_sha256)"
                " DO UPDATE SET resends = resends + 1,"
                " queue = CASE WHEN excluded.queue = 'urgent' THEN 'urgent' ELSE queue END,"
                # A resend replaces bytes that were purged or damaged; a damaged film is then segmented again.
                " kept_since = CASE WHEN path IS NULL THEN excluded.received_at ELSE kept_since END,"
                " path = CASE WHEN path IS NULL OR code IS 'source-damaged' THEN excluded.path ELSE path END"
                " RETURNING id, path, code",
                (job_id, *values, named, State.RECEIVED, time.time()),
            ).fetchone()
            if row["code"] == "source-damaged":
                _reopen(db, row["id"])
            _go_live(db, row["id"], arrival, named)
        return Arrived(row["id"], row["path"] == arrival.path)

    def open_association(self, calling_ae: str, called_ae: str, host: str) -> int:
        """Add an accepted association to the journal; its id."""
        with self.store.write() as db:
            cursor = db.execute(
                "INSERT INTO associations (calling_ae, called_ae, host, opened_at) VALUES (?,?,?,?)",
                (calling_ae, called_ae, host, time.time()),
            )
        return int(cursor.lastrowid or 0)

    def close_association(self, association_id: int, outcome: str, received: int) -> None:
        """Complete its entry. `received`: films."""
        with self.store.write() as db:
            db.execute(
                "UPDATE associations SET closed_at = ?, outcome = ?, received = ? WHERE id = ?",
                (time.time(), outcome, received, association_id),
            )

    # -- results -----------------------------------------------------------------------------------------------

    def revision(self, sop_instance_uid: str, content_sha256: str) -> int:
        """The number of this content under this UID, 1 for the first; fixed by the first call."""
        query = "SELECT revision FROM contents WHERE sop_instance_uid = ? AND content_sha256 = ?"
        known = self.store.read().execute(query, (sop_instance_uid, content_sha256)).fetchone()
        if known is not None:
            return int(known["revision"])
        with self.store.write() as db:
            db.execute(
                "INSERT INTO contents SELECT ?1, ?2, 1 + (SELECT coalesce(max(revision), 0) FROM contents"
                " WHERE sop_instance_uid = ?1) WHERE true ON CONFLICT (sop_instance_uid, content_sha256) DO NOTHING",
                (sop_instance_uid, content_sha256),
            )
            row = db.execute(query, (sop_instance_uid, content_sha256)).fetchone()
        return int(row["revision"])

    def stored_kinds(self, sop_instance_uid: str, content_sha256: str, model_digest: str) -> tuple[str, ...] | None:
        """The kinds of object of an earlier result of this identity, their bytes fixed; None when there is no result. Objects
        that were removed and were never to be sent (shadow mode) are not among them: they may be made again."""
        db = self.store.read()
        row = db.execute(
            "SELECT id FROM answers WHERE sop_instance_uid = ? AND content_sha256 = ? AND model_digest = ?",
            (sop_instance_uid, content_sha256, model_digest),
        ).fetchone()
        if row is None:
            return None
        objects = db.execute(f"SELECT * FROM objects WHERE answer_id = ? AND NOT {_NEVER_SENT} ORDER BY id", (row["id"],))
        return tuple(to_object(one).kind for one in objects)

    def finish(self, claim: Claim, outcome: Outcome, routes: Sequence[Route], *, redeliver: bool = False) -> Job:
        """In one transaction: check the token, insert identity and objects, create the deliveries, finish the job.

        An identity that exists already wins: this job then ends "same as" the other one (or, when it is a rerun of the same
        job, keeps its stored bytes); only objects of a kind that was never made are added, and deliveries to destinations
        that never had one. Raises LostClaim when the token is no longer valid.
        """
        job, shas = claim.job, [one.sha256 for one in outcome.objects]
        with self.store.write() as db:
            if not owns(db, claim):
                raise LostClaim(f"job {job.job_id} was taken over by another worker")
            same_as, redeliver_known = None, redeliver or job.generation > 1  # a rerun asks for its objects again
            if outcome.state is State.SEGMENTED:
                answer_id, first = self._insert_answer(db, job, outcome)
                same_as = None if first == job.job_id else first
                _deliver(db, first, answer_id, routes, again=same_as is None or redeliver_known)
            row = db.execute(
                "UPDATE jobs SET state = ?, owner = NULL, lease_until = NULL, finisher = ?, finished_at = ?, code = ?,"
                " sentence = ?, finding = ?, probability = ?, area_mm2 = ?, model = ?, model_digest = ?, same_as = ?,"
                " revision = ?, seconds = ?, notes = ?, threshold = ? WHERE id = ? RETURNING *",
                (
                    outcome.state,
                    finisher(claim.owner, outcome.state, outcome.code, outcome.finding, shas),
                    time.time(),
                    outcome.code,
                    outcome.sentence,
                    outcome.finding,
                    outcome.probability,
                    outcome.area_mm2,
                    outcome.model,
                    outcome.model_digest,
                    same_as,
                    outcome.revision,
                    outcome.seconds,
                    json.dumps(outcome.notes),
                    outcome.threshold,
                    job.job_id,
                ),
            ).fetchone()
        return to_job(row)

    def _insert_answer(self, db: sqlite3.Connection, job: Job, outcome: Outcome) -> tuple[int, str]:
        """(id of the answer, first job with this identity). Of a later job, only objects of kinds that were never made are
        inserted."""
        identity = (job.arrival.sop_instance_uid, outcome.content_sha256, outcome.model_digest)
        row = db.execute(
            "INSERT INTO answers (sop_instance_uid, content_sha256, model_digest, job_id, answered_at)"
            " VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING id, job_id",
            (*identity, job.job_id, time.time()),
        ).fetchone()
        if row is None:
            row = db.execute(
                "SELECT id, job_id FROM answers WHERE sop_instance_uid = ? AND content_sha256 = ? AND model_digest = ?",
                identity,
            ).fetchone()
        for one in outcome.objects:
            db.execute(
                "INSERT INTO objects (answer_id, role, variant, sop_class_uid, sop_instance_uid, sha256, path, size,"
                " intended_use) VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (answer_id, role, variant) DO UPDATE SET"
                f" sha256 = excluded.sha256, path = excluded.path, size = excluded.size WHERE {_NEVER_SENT}",
                (row["id"], *astuple(one)),
            )
        return int(row["id"]), str(row["job_id"])

    # -- administration ----------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """One job by its id or an unambiguous prefix. Raises NodeError."""
        begins = "SELECT * FROM jobs WHERE id >= ?1 AND id < ?1 || char(1114111) LIMIT 2"  # LIKE would read every job
        rows = self.store.read().execute(begins, (job_id.lower(),)).fetchall()
        if len(rows) != 1:
            raise NodeError(f"no job {job_id}" if not rows else f"more than one job begins with {job_id}")
        return to_job(rows[0])

    def find(self, name: str) -> list[Job]:
        """Jobs by job id (or an unambiguous prefix), by the SOP Instance UID of their film (the newest first), or by that of
        an object of the result. Raises NodeError when there is none."""
        if "." not in name:
            return [self.job(name)]
        made = "SELECT job_id FROM answers JOIN objects ON answers.id = answer_id WHERE objects.sop_instance_uid = ?"
        found = self.jobs(sop_instance_uid=name, limit=1000)
        found = found or [self.job(job_id) for (job_id,) in self.store.read().execute(made, (name,))]
        if not found:
            raise NodeError(f"no film and no result here has the SOP Instance UID {name}")
        return found

    def one(self, name: str) -> Job:
        """As `find`, for exactly one job. Raises NodeError."""
        found = self.find(name)
        if len(found) > 1:
            ids = ", ".join(job.job_id for job in found)
            raise NodeError(f"{len(found)} jobs have the SOP Instance UID {name}: {ids}; name one of them")
        return found[0]

    def objects(self, job_id: str) -> tuple[StoredObject, ...]:
        """The objects of a job's result, sent or not; `path` is None once its files were removed."""
        query = "SELECT objects.* FROM objects JOIN answers ON answers.id = answer_id WHERE job_id = ? ORDER BY objects.id"
        return tuple(to_object(row) for row in self.store.read().execute(query, (job_id,)))

    def jobs(self, *, state: str | None = None, sop_instance_uid: str | None = None, limit: int = 50) -> list[Job]:
        """The newest first, at most `limit`."""
        by_uid = "" if sop_instance_uid is None else " AND sop_instance_uid = ?2"  # in this form the index of UIDs is used
        rows = self.store.read().execute(
            f"SELECT * FROM jobs WHERE (?1 IS NULL OR state = ?1){by_uid} ORDER BY received_at DESC LIMIT ?3",
            (state, sop_instance_uid, limit),
        )
        return [to_job(row) for row in rows]

    def conflicts(self) -> list[tuple[str, int]]:
        """(SOP Instance UID, number of contents) of every UID that arrived with more than one content."""
        rows = self.store.read().execute(
            "SELECT sop_instance_uid, max(revision) FROM contents INDEXED BY contents_conflicts WHERE revision > 1"
            " GROUP BY sop_instance_uid"
        )
        return [(str(uid), int(seen)) for uid, seen in rows]

    def rerun(self, job_id: str) -> Job:
        """Reopen a finished job, as a new generation. Raises NodeError when it is not finished or its film was removed."""
        job = self.job(job_id)
        if State.RECEIVED not in LEGAL[job.state] or job.state not in FINISHED:
            raise NodeError(f"job {job.job_id} is {job.state}; only a finished job can be run again")
        with self.store.write() as db:
            found = db.execute("SELECT path FROM jobs WHERE id = ? AND state = ?", (job.job_id, job.state)).fetchone()
            if found is None or found["path"] is None:
                raise NodeError(
                    f"job {job.job_id} was purged: its film is not on this disk any more; send the film again, then `rerun`"
                )
            return to_job(_reopen(db, job.job_id, anew=True))

    def purgeable(self, job_id: str) -> Job:
        """The job, when it may be purged now. Raises NodeError with the reason otherwise."""
        job = self.job(job_id)
        if job.state not in FINISHED:
            raise NodeError(f"job {job.job_id} is {job.state}; only a finished job can be purged")
        query = "SELECT count(*) FROM deliveries WHERE job_id = ? AND state IN ('pending', 'sent')"
        if count := self.store.read().execute(query, (job.job_id,)).fetchone()[0]:
            many = "1 delivery" if count == 1 else f"{count} deliveries"
            raise NodeError(f"job {job.job_id} has {many} under way; only delivered work is purged")
        return job

    def purge(self, job_id: str) -> list[str]:
        """Mark the files of a finished job as removed; its identity, UIDs and sha256 stay. Returns the paths to delete. Raises
        as `purgeable` does."""
        with self.store.write() as db:
            return forget_files(db, self.purgeable(job_id).job_id)

    def paths(self) -> set[str]:
        """Every path of the spool that a row names; see `Spool.remove_orphans`."""
        rows = self.store.read().execute(
            "SELECT path FROM jobs WHERE path IS NOT NULL UNION ALL SELECT path FROM objects WHERE path IS NOT NULL"
        )
        return {path for (path,) in rows}

    def set_mode(self, mode: Mode) -> None:
        """See `Leases.mode`."""
        with self.store.write() as db:
            db.execute("INSERT INTO meta VALUES ('mode', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (mode,))


def finisher(owner: str, state: str, code: str | None, finding: str | None, sha256s: Sequence[str]) -> str:
    """Token and digest of a result: the same worker may return it again, and only the same result."""
    said = "|".join([str(state), code or "", finding or "", *sorted(sha256s)])
    return f"{owner}:{hashlib.sha256(said.encode()).hexdigest()}"


def forget_files(db: sqlite3.Connection, job_id: str) -> list[str]:
    """Turn a job's row and objects into tombstones, in the caller's transaction. Returns the paths to delete after its commit.

    Rows first: a crash in between leaves files that no row names, and retention removes those. The other way round it would
    leave a row whose file is gone, and a resend of that film would be discarded as known.
    """
    paths = db.execute(
        "SELECT path FROM jobs WHERE id = ?1 UNION ALL SELECT path FROM objects JOIN answers"
        " ON answers.id = answer_id WHERE job_id = ?1",
        (job_id,),
    ).fetchall()
    db.execute("UPDATE jobs SET path = NULL WHERE id = ?", (job_id,))
    db.execute("UPDATE objects SET path = NULL WHERE answer_id IN (SELECT id FROM answers WHERE job_id = ?)", (job_id,))
    return [path for (path,) in paths if path is not None]


def _reopen(db: sqlite3.Connection, job_id: str, *, anew: bool = False) -> sqlite3.Row:
    """Make the job ready again, in the caller's transaction: a worker that has it loses the claim.

    A finished job is then as it was on arrival: no outcome, no tries and no crashes. One that was not finished keeps those.
    `anew`: the objects of a finished one are made again, as a new generation.
    """
    finished, unfinished = (f"(state {word} ('segmented', 'skipped', 'failed'))" for word in ("IN", "NOT IN"))
    row: sqlite3.Row = db.execute(
        f"UPDATE jobs SET state = 'received', owner = NULL, lease_until = NULL, generation = generation + (?2 AND {finished}),"
        f" attempts = attempts * {unfinished}, crashes = crashes * {unfinished}, finished_at = NULL, code = NULL,"
        " sentence = NULL, finding = NULL, probability = NULL, threshold = NULL, area_mm2 = NULL, model = NULL,"
        " model_digest = NULL, seconds = NULL, notes = '[]', same_as = NULL WHERE id = ?1 RETURNING *",
        (job_id, anew),
    ).fetchone()
    return row


def _go_live(db: sqlite3.Connection, job_id: str, arrival: Arrival, destinations: str | None) -> None:
    """A film that arrived first under shadow or ignore, and now live, is segmented and sent: a worker that has it loses the
    claim, and a finished job is reopened."""
    if arrival.mode != "live":
        return
    changed = db.execute(
        "UPDATE jobs SET mode = 'live', rule = ?, why = ?, destinations = ?, calling_ae = ?, called_ae = ?"
        " WHERE id = ? AND mode != 'live'",
        (arrival.rule, arrival.why, destinations, arrival.calling_ae, arrival.called_ae, job_id),
    ).rowcount
    if changed:
        _reopen(db, job_id, anew=True)


def _deliver(db: sqlite3.Connection, job_id: str, answer_id: int, routes: Sequence[Route], *, again: bool) -> None:
    """Create the deliveries of a result's objects, to each destination those of its kinds. `again`: one that was delivered or
    refused before is reopened."""
    now = time.time()
    stored = db.execute("SELECT * FROM objects WHERE answer_id = ? AND path IS NOT NULL ORDER BY id", (answer_id,)).fetchall()
    for row in stored:
        kind = to_object(row).kind
        for destination in [route.destination for route in routes if kind in route.kinds]:
            db.execute(
                "INSERT INTO deliveries (job_id, object_id, destination, state, created_at, next_try_at)"
                " VALUES (?,?,?,'pending',?,?) ON CONFLICT (object_id, destination) DO UPDATE SET state = 'pending',"
                " attempts = 0, reason = NULL, created_at = excluded.created_at, next_try_at = excluded.next_try_at"
                " WHERE ? AND state IN ('delivered', 'refused')",
                (job_id, row["id"], destination, now, now, again),
            )
