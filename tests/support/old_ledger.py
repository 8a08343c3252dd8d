"""A ledger as the program of version 1 left it, full of everything."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from answered_films import SC, result_object

from dicom_node.storage import database

SCHEMA_1 = Path(database.__file__).with_name("schema_1.sql").read_text()
STATES = ("received", "claimed", "segmented", "skipped", "failed")
DELIVERY_STATES = ("pending", "sent", "delivered", "refused")


def version_1(path: Path, spool: Path) -> None:
    """A ledger as version 1 wrote it: a job in every state, and one answered film for each state of a delivery."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA_1)
    db.execute("PRAGMA user_version = 1")
    db.execute("INSERT INTO associations VALUES (1, 'MODALITY', 'PTXSEG', '10.0.0.1', 1.0, 2.0, 9, 'released')")
    for number, state in enumerate(STATES, start=1):
        _job(db, number, state)
    for number, state in enumerate(DELIVERY_STATES, start=11):
        _job(db, number, "segmented")
        data = result_object(f"1.2.3.{number}", f"2.25.{number}", 3000, SC)
        file = spool / f"job/{number}/token/seg.dcm"
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        db.execute("INSERT INTO contents VALUES (?, 'c', 1)", (f"1.2.3.{number}",))
        db.execute("INSERT INTO answers VALUES (?, ?, 'c', 'm', ?, 5.0)", (number, f"1.2.3.{number}", f"job{number}"))
        db.execute(
            "INSERT INTO objects VALUES (?1, ?1, 'seg', '', ?2, ?3, ?4, ?5, ?6, 'research')",
            (number, SC, f"2.25.{number}", sha256, f"job/{number}/token/seg.dcm", len(data)),
        )
        db.execute(
            "INSERT INTO deliveries VALUES (?1, ?2, ?1, 'PACS', ?3, 1, NULL, 'why', 5.0, 6.0, NULL)",
            (number, f"job{number}", state),
        )
    db.close()


def _job(db: sqlite3.Connection, number: int, state: str) -> None:
    owner, lease = ("token", 1e12) if state == "claimed" else (None, None)
    db.execute(
        "INSERT INTO jobs (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, dataset_sha256, path, size, calling_ae,"
        " called_ae, host, association_id, state, received_at, attempts, owner, worker, pid, boot, lease_until, code)"
        " VALUES (?, ?, '1.2', '1.2.840.10008.1.2.1', 'sha', ?, 10, 'MODALITY', 'PTXSEG', '10.0.0.1', 1, ?, ?, 1, ?, 'w', 1,"
        " 'the boot before', ?, ?)",
        (f"job{number}", f"1.2.3.{number}", f"arrivals/{number}", state, number, owner, lease, None),
    )
