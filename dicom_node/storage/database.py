"""The SQLite file under ledger and outbox: connections, write transactions, schema.

Local disk only. WAL and synchronous=FULL: a commit is on disk when it returns. Every write is BEGIN IMMEDIATE, so a
busy ledger waits instead of failing. One connection per thread and process: nothing of SQLite may cross a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from dicom_node.runtime.errors import LedgerUnusable

SCHEMA_VERSION = 8


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
                for step in range(version + 1, SCHEMA_VERSION + 1):
                    for statement in statements(step):
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


def statements(version: int) -> Iterable[str]:
    """The SQL that turns a ledger of schema `version` - 1 (0: an empty file) into one of `version`: schema_<version>.sql.

    These files are never edited once released: a change of the schema is a further file, and SCHEMA_VERSION one more."""
    return Path(__file__).with_name(f"schema_{version}.sql").read_text("utf-8").split(";\n")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether it speaks of the file and not of the moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged(path: Path, why: str) -> str:
    return f"{path}: is damaged ({why}); stop the node and restore a backup (`restore FILE`, docs/use/runbook.md)"


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
