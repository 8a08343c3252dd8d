"""The ledger with a million finished jobs against an empty one: claims, arrivals, what is asked all the time, `status`."""

from __future__ import annotations

import os
import secrets
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from apparatus import seconds_of
from rows import Row, row

from dicom_node.runtime.config import load
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, Outcome, State, StoredObject

JOBS = 1_000_000
ROUNDS = 15
FILMS_PER_ROUND = 8
CLASS, SYNTAX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1"
ROUTES = [Route("PACS", ("seg", "sr"))]
YEAR = 365 * 86_400.0


def ledger(scratch: Path) -> Iterator[Row]:
    """Rounds alternate; a ledger is asked for `ready` and `due` as its node asks it, all day long."""
    folders = {name: scratch / f"ledger-{name}" for name in ("empty", "full")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "config.toml").write_text('[node]\ndirectory = "node"\n')
    ledgers = {name: Ledger(load(folder / "config.toml").ledger_path) for name, folder in folders.items()}
    fill(ledgers["full"].store.path, JOBS)
    os.sync()
    times: dict[str, dict[str, list[float]]] = {name: {} for name in ledgers}
    for _ in range(ROUNDS):
        for name, one in ledgers.items():
            for what, seconds in _round(one).items():
                times[name].setdefault(what, []).append(seconds / FILMS_PER_ROUND)
    for what, target in (("claim + finish", 1.5), ("a film in", None), ("ready and due, asked once", None)):
        full, empty = times["full"][what], times["empty"][what]
        median = statistics.median(full)
        yield row(f"ledger: {what}, {JOBS:,} jobs", median * 1000, "ms", "itself", "lower", None, [one * 1000 for one in full])
        ratios = [one / other for one, other in zip(full, empty, strict=True)]
        yield row(
            f"ledger: {what}, against an empty ledger", median / statistics.median(empty), "ratio", "empty ledger", "lower",
            target, ratios,
        )  # fmt: skip
    for what, seconds in _looks(folders["full"] / "config.toml").items():
        yield row(f"ledger: {what}, {JOBS:,} jobs", seconds, "s", "itself", "lower")


def _round(one: Ledger) -> dict[str, float]:
    arrivals = [_arrival() for _ in range(FILMS_PER_ROUND)]
    outbox = Outbox(one.store)
    return {
        "a film in": seconds_of(lambda: [one.add_arrival(arrival) for arrival in arrivals]),
        "ready and due, asked once": seconds_of(lambda: [(one.ready(), outbox.due(900.0)) for _ in arrivals]),
        "claim + finish": seconds_of(lambda: [_answer(one) for _ in arrivals]),
    } | {"": seconds_of(lambda: _deliver_all(one.store.path))}


def _arrival() -> Arrival:
    number = secrets.token_hex(16)
    uid = f"2.25.{10**12 + secrets.randbelow(9 * 10**12)}"  # among those that are there
    return Arrival(uid, CLASS, SYNTAX, number * 2, f"arrivals/ab/{number}.dcm", 10_000_000, "CR1", "PTXSEG", "10.0.0.7", 1)


def _answer(one: Ledger) -> None:
    claim = one.claim("bench", 30.0)
    assert claim is not None
    objects = tuple(
        StoredObject(role, "", "1.2", f"2.25.{secrets.randbits(100)}", secrets.token_hex(32), f"job/{role}", 9000, "demo")
        for role in ("seg", "sr")
    )
    content = secrets.token_hex(32)
    revision = one.revision(claim.job.arrival.sop_instance_uid, content)
    said = Outcome(State.SEGMENTED, None, None, "pneumothorax", 0.9, 100.0, content, "m 1", "d" * 64, revision, 1.0, objects)
    one.finish(claim, said, ROUTES)


def _deliver_all(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(
            "UPDATE deliveries SET state = 'delivered', status = 0, finished_at = ? WHERE state = 'pending'", (time.time(),)
        )


def _looks(config: Path) -> dict[str, float]:
    from dicom_node.api.health import HealthChecks

    status = [sys.executable, "-m", "dicom_node.cli.main", "status", "--json", "--config", str(config)]
    checks = HealthChecks(load(config), lambda: None)
    return {
        "`status`": statistics.median(seconds_of(lambda: subprocess.run(status, check=True, stdout=-3)) for _ in range(3)),
        "figures of /metrics": statistics.median(seconds_of(checks._read) for _ in range(3)),
    }


def fill(path: Path, jobs: int) -> None:
    """A ledger of the present schema with that many finished films of the last year, one in ten with SEG and SR, the others
    with an SR, all delivered; one in fifty skipped. Its indexes are taken off and put on again: an hour becomes a minute."""
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -400000")
        indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
        db.execute("BEGIN IMMEDIATE")
        for name, _ in indexes:
            db.execute(f"DROP INDEX {name}")
        began = time.time() - YEAR
        db.execute(_JOBS, {"jobs": jobs, "began": began, "step": YEAR / jobs})
        for statement in _REST:
            db.execute(statement)
        for _, sql in indexes:
            db.execute(sql)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# Ids, UIDs and digests are spread over the whole range: what comes in later falls between them, as it does in a hospital.
_JOBS = f"""
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :jobs - 1)
INSERT INTO jobs (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, dataset_sha256, path, size, calling_ae, called_ae,
    host, association_id, state, received_at, claimed_at, finished_at, attempts, resends, code, finding, probability, area_mm2,
    model, model_digest, seconds, finisher)
SELECT printf('%08x%08x', i * 4294967295 / :jobs, i), '2.25.' || (1000000000000 + i * 9000000000000 / :jobs),
    '{CLASS}', '{SYNTAX}', printf('%064x', i),
    CASE WHEN i > :jobs * 0.98 THEN printf('arrivals/ab/%032x.dcm', i) END, 10000000, 'CR1', 'PTXSEG', '10.0.0.7',
    i / 3, CASE WHEN i % 50 THEN 'segmented' ELSE 'skipped' END, :began + i * :step, :began + i * :step + 0.1,
    :began + i * :step + 2, 1, i % 20 = 0, CASE WHEN i % 50 THEN NULL ELSE 'lateral' END,
    CASE WHEN i % 50 = 0 THEN NULL WHEN i % 10 THEN 'none' ELSE 'pneumothorax' END, 0.1, 0, 'm 1', '{"d" * 64}', 1.9,
    printf('%032x:%064x', i, i)
FROM n"""

_REST = (
    f"INSERT INTO contents SELECT sop_instance_uid, printf('%s%.48s', id, '{'c' * 48}'), 1 FROM jobs WHERE state = 'segmented'",
    "INSERT INTO answers SELECT NULL, sop_instance_uid, content_sha256, printf('%064d', 0), id, finished_at"
    " FROM contents JOIN jobs USING (sop_instance_uid)",
    "INSERT INTO objects SELECT NULL, a.id, 'sr', '', '1.2', a.sop_instance_uid || '.2', printf('%064x', a.id),"
    " CASE WHEN j.path IS NOT NULL THEN printf('job/%s/sr.dcm', j.id) END, 9000, 'demo'"
    " FROM answers a JOIN jobs j ON j.id = a.job_id",
    "INSERT INTO objects SELECT NULL, a.id, 'seg', '', '1.2', a.sop_instance_uid || '.1', printf('%064x', -a.id),"
    " CASE WHEN j.path IS NOT NULL THEN printf('job/%s/seg.dcm', j.id) END, 90000, 'demo'"
    " FROM answers a JOIN jobs j ON j.id = a.job_id"
    " WHERE j.finding = 'pneumothorax'",
    "INSERT INTO deliveries (job_id, object_id, destination, state, attempts, status, created_at, next_try_at, finished_at)"
    " SELECT a.job_id, o.id, 'PACS', 'delivered', 1, 0, a.answered_at, a.answered_at, a.answered_at + 1"
    " FROM objects o JOIN answers a ON a.id = o.answer_id",
    "INSERT INTO associations SELECT NULL, calling_ae, called_ae, host, received_at, received_at + 9, 3, 'released'"
    " FROM jobs WHERE association_id % 3 = 0",
)
