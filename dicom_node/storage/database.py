"""The SQLite file of the ledger: connections, write transactions, schema.

Local disk only. WAL and synchronous=FULL: a commit is on disk when it returns. Every write is BEGIN IMMEDIATE, so a writer
waits for another one instead of failing. One connection per thread and process: nothing of SQLite may cross a fork.
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
    """A ledger file. Creates it (0600) with its schema, upgrades an older schema, refuses a newer one."""

    def __init__(self, path: Path, *, in_turn: bool = False) -> None:
        """A connection for each thread; with `in_turn` one for all, and the caller ensures that one thread at a time uses it.
        Raises LedgerUnusable, sqlite3.Error, OSError."""
        self.path = path
        self._in_turn = in_turn
        self._local: threading.local | SimpleNamespace = SimpleNamespace() if in_turn else threading.local()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        if not path.is_file():
            raise LedgerUnusable(f"{path}: is not a file; move it away, or restore a backup there")
        with unusable_explained(path):
            self._upgrade()

    def _upgrade(self) -> None:
        if self.read().execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
            return  # a reader never waits for a writer
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
        """Close this thread's connection (`in_turn`: the common one); the next use opens another."""
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
        """Copy the ledger to the new file `target` while the node runs. Raises OSError, sqlite3.Error."""
        target.touch(mode=0o600, exist_ok=False)
        copy = sqlite3.connect(target)
        with copy:
            self.read().backup(copy)
        copy.close()

    def try_out(self, seconds: float) -> None:
        """Begin a write, and check as much of the file as `seconds` allow. Raises LedgerUnusable, sqlite3.Error for what may be
        temporary (a full disk)."""
        until = time.monotonic() + seconds
        with unusable_explained(self.path):
            with self.write():
                pass
            db = self.read()
            db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            try:
                found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                found = "ok"  # as far as it was checked
            finally:
                db.set_progress_handler(None, 0)
        if found != "ok":
            raise LedgerUnusable(damaged(self.path, found.splitlines()[-1]))

    def integrity(self) -> str:
        """The result of SQLite's integrity_check; "ok" when the file is sound."""
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
    """Whether `error` says that the file is damaged; other errors may be temporary."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged(path: Path, why: str) -> str:
    """The message for a damaged ledger, with the remedy."""
    return f"{path}: is damaged ({why}); stop the node and restore a backup (`restore FILE`, docs/use/runbook.md)"


@contextmanager
def unusable_explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about an unusable file into LedgerUnusable; others pass through."""
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
