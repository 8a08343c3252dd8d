"""The SQLite file under ledger and outbox: connections, write transactions, schema.

Local disk only. WAL and synchronous=FULL: a commit is on disk when it returns. Every write is BEGIN IMMEDIATE, so a
busy ledger waits instead of failing. One connection per thread and process: nothing of SQLite may cross a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from dicom_node.runtime.errors import LedgerUnusable

# Version 1. Never edited: a new ledger is this, and then every step below, as an old one is.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE associations (
    id INTEGER PRIMARY KEY,
    calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, host TEXT NOT NULL,
    opened_at REAL NOT NULL, closed_at REAL, received INTEGER NOT NULL DEFAULT 0, outcome TEXT
);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL, sop_class_uid TEXT NOT NULL, transfer_syntax_uid TEXT NOT NULL,
    dataset_sha256 TEXT NOT NULL, path TEXT, size INTEGER NOT NULL,
    calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, host TEXT NOT NULL, association_id INTEGER,
    state TEXT NOT NULL, received_at REAL NOT NULL, generation INTEGER NOT NULL DEFAULT 1,
    attempts INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
    resends INTEGER NOT NULL DEFAULT 0, resends_answered INTEGER NOT NULL DEFAULT 0,
    owner TEXT, worker TEXT, pid INTEGER, boot TEXT, lease_until REAL,
    finished_at REAL, code TEXT, sentence TEXT, finding TEXT, probability REAL, area_mm2 REAL,
    model TEXT, model_digest TEXT, same_as TEXT, revision INTEGER NOT NULL DEFAULT 1, seconds REAL,
    UNIQUE (sop_instance_uid, transfer_syntax_uid, dataset_sha256)
) WITHOUT ROWID;
CREATE INDEX jobs_ready ON jobs (received_at) WHERE state = 'received';
CREATE INDEX jobs_claimed ON jobs (lease_until) WHERE state = 'claimed';
CREATE INDEX jobs_received ON jobs (received_at);
CREATE INDEX jobs_state ON jobs (state);

-- One row per distinct content seen under a SOP Instance UID; revision 2 and up are conflicts.
CREATE TABLE contents (
    sop_instance_uid TEXT NOT NULL, content_sha256 TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (sop_instance_uid, content_sha256), UNIQUE (sop_instance_uid, revision)
) WITHOUT ROWID;

-- The identity of an answer; negative films have one too. Rows outlive jobs and files: they are the tombstones.
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL, content_sha256 TEXT NOT NULL, model_digest TEXT NOT NULL,
    job_id TEXT NOT NULL, answered_at REAL NOT NULL,
    UNIQUE (sop_instance_uid, content_sha256, model_digest)
);
CREATE INDEX answers_job ON answers (job_id);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    answer_id INTEGER NOT NULL REFERENCES answers (id),
    role TEXT NOT NULL, variant TEXT NOT NULL, sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, path TEXT, size INTEGER NOT NULL,
    intended_use TEXT NOT NULL,
    UNIQUE (answer_id, role, variant)
);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL, object_id INTEGER NOT NULL REFERENCES objects (id), destination TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, status INTEGER, reason TEXT,
    created_at REAL NOT NULL, next_try_at REAL NOT NULL, finished_at REAL,
    UNIQUE (object_id, destination)
);
CREATE INDEX deliveries_due ON deliveries (next_try_at) WHERE state = 'pending';
CREATE INDEX deliveries_job ON deliveries (job_id);
CREATE INDEX deliveries_state ON deliveries (state);
"""

# _STEPS[n] turns version n + 1 into version n + 2; one transaction with the version number.
_STEPS = (
    """
-- queue: urgent or normal. remote: the worker's name when it is on another machine. finisher: the token that finished.
ALTER TABLE jobs ADD COLUMN queue TEXT NOT NULL DEFAULT 'normal';
ALTER TABLE jobs ADD COLUMN remote TEXT;
ALTER TABLE jobs ADD COLUMN finisher TEXT;
ALTER TABLE jobs ADD COLUMN claimed_at REAL;
DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs (queue, received_at) WHERE state = 'received';
-- What retention looks through: finished jobs whose film is still on disk.
CREATE INDEX jobs_kept ON jobs (finished_at) WHERE finished_at IS NOT NULL AND path IS NOT NULL;
CREATE INDEX associations_opened ON associations (opened_at);
-- kept_since: when the film of a job whose files were removed came again.
ALTER TABLE jobs ADD COLUMN kept_since REAL;
-- What is counted is read from an index alone, in its order; the rest looks at a recent window only.
DROP INDEX jobs_state;
CREATE INDEX jobs_outcome ON jobs (state, code, finding);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_resent ON jobs (resends) WHERE resends > 0;
CREATE INDEX contents_conflicts ON contents (sop_instance_uid) WHERE revision > 1;
DROP INDEX deliveries_state;
CREATE INDEX deliveries_outcome ON deliveries (state, destination, status);
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

-- Workers on other machines. The token itself is shown once and kept nowhere.
CREATE TABLE workers (
    name TEXT PRIMARY KEY, token_sha256 TEXT NOT NULL,
    added_at REAL NOT NULL, revoked_at REAL, seen_at REAL, model TEXT, model_digest TEXT
) WITHOUT ROWID;

-- Storage commitment (PS3.4 J): one row per N-ACTION; a delivery names the request that covers it.
CREATE TABLE commitments (
    transaction_uid TEXT PRIMARY KEY, destination TEXT NOT NULL, state TEXT NOT NULL,
    requested_at REAL NOT NULL, answered_at REAL
) WITHOUT ROWID;
ALTER TABLE deliveries ADD COLUMN commitment TEXT;
ALTER TABLE deliveries ADD COLUMN committed_at REAL;
ALTER TABLE deliveries ADD COLUMN commit_failures INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_commitment ON deliveries (commitment) WHERE commitment IS NOT NULL;
CREATE INDEX deliveries_uncommitted ON deliveries (destination, finished_at)
    WHERE state = 'delivered' AND committed_at IS NULL;
-- What each request speaks of: also the earlier ones, whose late answer still counts.
CREATE TABLE commitment_items (
    transaction_uid TEXT NOT NULL, delivery_id INTEGER NOT NULL, PRIMARY KEY (transaction_uid, delivery_id)
) WITHOUT ROWID;
CREATE INDEX commitment_items_delivery ON commitment_items (delivery_id);
""",
    """
-- What [[rules]] said when the film came: mode live, shadow or ignore; destinations as JSON, NULL for send.destinations.
ALTER TABLE jobs ADD COLUMN mode TEXT NOT NULL DEFAULT 'live';
ALTER TABLE jobs ADD COLUMN rule TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN why TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN destinations TEXT;
""",
    """
-- Looked for several times a second when work.on_resend is redeliver.
CREATE INDEX jobs_resent_unanswered ON jobs (id) WHERE resends > resends_answered AND state = 'segmented';
""",
    """
-- Whether the process that claimed it had no other film on its bench: only then is its death the film's fault.
ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 1;
""",
    """
-- What was assumed about a film that was answered: codes, as JSON.
ALTER TABLE jobs ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';
-- A delivery to the sender of a film names it.
UPDATE OR IGNORE deliveries SET destination = (SELECT calling_ae FROM jobs WHERE id = job_id) WHERE destination = '@sender';
DELETE FROM commitment_items WHERE delivery_id IN (SELECT id FROM deliveries WHERE destination = '@sender');
DELETE FROM deliveries WHERE destination = '@sender';
-- What is due is looked for destination by destination: one that hangs holds nobody up.
DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (destination, next_try_at) WHERE state = 'pending';
""",
    """
-- The threshold that the probability was compared with.
ALTER TABLE jobs ADD COLUMN threshold REAL;
""",
    """
-- How often in a row the sender raised, or its process died, while it had this object on the wire.
ALTER TABLE deliveries ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_suspect ON deliveries (next_try_at) WHERE state = 'pending' AND crashes >= 2;
""",
)
SCHEMA_VERSION = 1 + len(_STEPS)


class Store:
    """A ledger file. Creates it (0600) and its schema, brings an older one up to date, refuses a newer one."""

    def __init__(self, path: Path, *, in_turn: bool = False) -> None:
        """A connection for each thread; with `in_turn` one for all of them, and they see to it that one at a time uses it."""
        self.path = path
        self._in_turn = in_turn
        self._local: threading.local | SimpleNamespace = SimpleNamespace() if in_turn else threading.local()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        if not path.is_file():
            raise LedgerUnusable(f"{path}: is no file; move it out of the way, or restore a backup there")
        with sentences(path):
            self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        if self.read().execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
            return  # who only looks never waits for a writer
        with self.write() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise LedgerUnusable(
                    f"{self.path}: has schema version {version}, this program knows {SCHEMA_VERSION}; "
                    "run the program version that wrote it, or restore a backup"
                )
            if version < SCHEMA_VERSION:
                for step in (_SCHEMA, *_STEPS)[version:]:
                    for statement in step.split(";\n"):
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def read(self) -> sqlite3.Connection:
        """This thread's connection, for reading."""
        pid = os.getpid()
        if getattr(self._local, "pid", None) != pid:
            self._local.connection = self._connect()
            self._local.pid = pid
        connection: sqlite3.Connection = self._local.connection
        return connection

    def close(self) -> None:
        """Close this thread's connection (`in_turn`: the one of all); the next use opens another."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.connection.close()
            self._local.pid = None

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction: committed when the block ends, rolled back when it raises."""
        db = self.read()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:  # a full disk makes COMMIT itself raise
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def backup(self, target: Path) -> None:
        """A consistent copy while everything runs."""
        target.touch(mode=0o600, exist_ok=False)
        copy = sqlite3.connect(target)
        with copy:
            self.read().backup(copy)
        copy.close()

    def try_out(self, seconds: float) -> None:
        """Begin a write, and look through as much of the file as `seconds` allow. Raises LedgerUnusable, and sqlite3.Error for
        what may be over in a moment (a full disk)."""
        until = time.monotonic() + seconds
        with sentences(self.path):
            with self.write():
                pass
            db = self.read()
            db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            try:
                found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                found = "ok"  # as far as it was looked through
            finally:
                db.set_progress_handler(None, 0)
        if found != "ok":
            raise LedgerUnusable(damaged(self.path, found.splitlines()[-1]))

    def integrity(self) -> str:
        """SQLite's own check; "ok" when the file is sound."""
        return str(self.read().execute("PRAGMA integrity_check").fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=not self._in_turn)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA busy_timeout = 30000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        return db


def is_damage(error: sqlite3.Error) -> bool:
    """Whether it speaks of the file and not of the moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged(path: Path, why: str) -> str:
    return f"{path}: is damaged ({why}); stop the node and restore a backup (`restore FILE`, deploy/RUNBOOK.md)"


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """What SQLite says of a file that cannot be used becomes LedgerUnusable; the rest passes."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise LedgerUnusable(damaged(path, str(error))) from error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            raise LedgerUnusable(
                f"{path}: cannot be written; it and the files beside it (-wal, -shm) must belong to the service's user"
            ) from error
        raise
