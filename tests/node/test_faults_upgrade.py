"""A ledger of version 1, full of everything, meets the program of today."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from answered_films import AnsweredFilms
from old_ledger import SCHEMA_1, version_1
from rude_pacs import RudePacs
from servers import free_port

from dicom_node.runtime.errors import NodeError
from dicom_node.storage import database
from dicom_node.storage.database import SCHEMA_VERSION, Store, statements
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import DeliveryState, State

VERSION_1 = "5138ae1ce3e8fce1e80555cc3e873ec2cd46a9221e1cb54ebf9d0559a0302e39"
TABLES = ("meta", "associations", "jobs", "contents", "answers", "objects", "deliveries")


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of version 1, the columns of version 1."""
    db = sqlite3.connect(path)
    names = {}
    old = sqlite3.connect(":memory:")
    old.executescript(SCHEMA_1)
    for table in TABLES:
        names[table] = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
    return {table: db.execute(f"SELECT {', '.join(names[table])} FROM {table} ORDER BY 1").fetchall() for table in TABLES}


def version_of(path: Path) -> int:
    return int(sqlite3.connect(path).execute("PRAGMA user_version").fetchone()[0])


def test_version_1_is_what_it_was() -> None:
    """Ledgers in hospitals were made from this text. A change belongs into a new step, never here."""
    assert hashlib.sha256(SCHEMA_1.encode()).hexdigest() == VERSION_1


def test_there_is_a_file_for_every_version_and_no_other() -> None:
    """A file that the constant does not count would never be run."""
    names = {file.name for file in Path(database.__file__).parent.glob("*.sql")}
    assert names == {f"schema_{version}.sql" for version in range(1, SCHEMA_VERSION + 1)}


def test_a_full_ledger_of_version_1_is_brought_up_to_date_and_goes_on(tmp_path: Path) -> None:
    """Result: no row is lost or changed, what is ready is claimed, what waits for delivery goes out, once."""
    pacs = RudePacs(free_port())
    films = AnsweredFilms(tmp_path, pacs.port, 0)
    path = films.config.ledger_path
    for file in path.parent.glob("ledger.sqlite*"):
        file.unlink()
    version_1(path, films.config.spool_directory)
    before = contents(path)

    films.ledger = Ledger(path)
    films.outbox = films.outbox.__class__(films.ledger.store)
    assert version_of(path) == SCHEMA_VERSION
    assert contents(path) == before
    assert films.ledger.store.integrity() == "ok"

    claimed = [films.ledger.claim("w", 30) for _ in range(3)]
    assert [one and one.job.job_id for one in claimed] == ["job2", "job1", None], "the expired one, then the ready one"
    assert films.ledger.rerun("job4").state is State.RECEIVED
    films.uids, films.jobs = [f"2.25.{n}" for n in (11, 12, 13)], [f"job{n}" for n in (11, 12, 13)]
    with pacs.serving(), films.sending():
        films.all_are(DeliveryState.DELIVERED)
    assert sorted(one.uid for one in pacs.records) == ["2.25.11", "2.25.12"], "what was delivered before is not sent again"
    assert films.outbox.retry("job14") == 1


@pytest.mark.parametrize("death", ["raise RuntimeError", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_an_upgrade_that_dies_half_way_leaves_version_1_whole(death: str, tmp_path: Path) -> None:
    """At every statement of the step, by an error and by kill -9; then the upgrade is done after all."""
    path = tmp_path / "ledger.sqlite"
    version_1(path, tmp_path)
    before = contents(path)
    program = f"""
import os, signal, sys
from pathlib import Path
from dicom_node.storage import database
whole = database.statements
def cut(version):
    for number, statement in enumerate(whole(version)):
        if version == database.SCHEMA_VERSION and number == int(sys.argv[2]):
            {death}
        yield statement
    if version == database.SCHEMA_VERSION:
        {death}
database.statements = cut
database.Store(Path(sys.argv[1]))
"""
    count = len(list(statements(SCHEMA_VERSION)))
    for statement in (0, count // 2, count):
        done = subprocess.run([sys.executable, "-c", program, str(path), str(statement)], capture_output=True, text=True)
        assert done.returncode == (-signal.SIGKILL if "kill" in death else 1), done.stderr
        assert (version_of(path), contents(path)) == (1, before)
        tables = {name for (name,) in sqlite3.connect(path).execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == set(TABLES), "half a step"
    Store(path)
    assert (version_of(path), contents(path)) == (SCHEMA_VERSION, before)


def test_a_ledger_of_a_newer_program_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(path, tmp_path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = contents(path)
    with pytest.raises(NodeError, match="run the program version that wrote it, or restore a backup"):
        Ledger(path)
    assert (version_of(path), contents(path)) == (SCHEMA_VERSION + 1, before)
