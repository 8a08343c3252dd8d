"""What leaves the disk and what never does: a real ledger and spool; days pass on a clock of the test."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ledger_counts import jobs_by_state, open_deliveries
from servers import free_port, wait_for

from dicom_node.runtime.config import Config, load
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, DeliveryState, Job, Outcome, State, StoredObject
from dicom_node.storage.retention import DAY, Cleanup, Completion, Removed, candidates_query
from dicom_node.storage.spool import Spool

EXPLICIT, CR = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.1"
FILM, RESULT = b"f" * 1000, b"r" * 100


class SmallDisk(Spool):
    """A spool on a disk of `size` bytes of films and results."""

    size = 1 << 40

    def free_bytes(self) -> int:
        return self.size - sum(file.stat().st_size for file in self.directory.rglob("*") if file.is_file())


class Site:
    """A node without its processes. `days` is how far the clock of retention is ahead of the wall's."""

    def __init__(self, folder: Path, watermark_mb: int = 0) -> None:
        file = folder / "config.toml"
        file.write_text(
            "[node]\ndirectory = 'node'\nreserve_mb = 0\n"
            "[peers.PACS]\nhost = '127.0.0.1'\nport = 104\n[peers.ARCHIVE]\nhost = '127.0.0.1'\nport = 105\ncommit = true\n"
            f"[send]\ndestinations = ['PACS']\n[retention]\nwatermark_mb = {watermark_mb}\n"
        )
        self.config: Config = load(file)
        self.spool = SmallDisk(self.config.spool_directory, 0)
        self.ledger = Ledger(self.config.ledger_path)
        self.outbox = Outbox(self.ledger.store)
        self.days = 0.0
        self.cleanup = Cleanup(self.config, self.ledger, self.spool, now=lambda: time.time() + self.days * DAY)

    def arrive(self, uid: str, calling: str = "MODALITY", data: bytes = FILM, syntax: str = EXPLICIT) -> str:
        """A film comes in as the receiver takes it; its job id."""
        stored = self.spool.write(data)
        film = Arrival(uid, CR, syntax, stored.sha256, stored.path, stored.size, calling, "PTXSEG", "127.0.0.1")
        arrived = self.ledger.add_arrival(film)
        if not arrived.new:
            self.spool.delete(stored.path)
        return arrived.job_id

    def finish(self, destinations: tuple[str, ...] = ("PACS",), *, redeliver: bool = False, content: str = "c") -> Job:
        """The next job is answered with one object."""
        claim = self.ledger.claim("w", 30)
        assert claim is not None
        uid = claim.job.arrival.sop_instance_uid
        known = self.ledger.stored_kinds(uid, content, "m")
        stored = self.spool.write_into(self.spool.folder_for(claim.job.job_id, claim.owner), "seg.dcm", RESULT)
        one = StoredObject("seg", "", "1.2", f"2.25.{uid}", stored.sha256, stored.path, stored.size, "demo")
        outcome = Outcome(
            State.SEGMENTED, finding="none", content_sha256=content, model="m 1", model_digest="m",
            objects=() if known and "seg" in known else (one,),
        )  # fmt: skip
        return self.ledger.finish(claim, outcome, [Route(name) for name in destinations], redeliver=redeliver)

    def fail(self, state: State = State.FAILED, code: str = "not-dicom") -> Job:
        claim = self.ledger.claim("w", 30)
        assert claim is not None
        return self.ledger.finish(claim, Outcome(state, code=code, sentence="..."), [])

    def settle(self, job_id: str, state: DeliveryState = DeliveryState.DELIVERED) -> None:
        for one in self.outbox.of_job(job_id):
            assert self.outbox.sending(one)
            self.outbox.settle(one, state, status=0, reason="")

    def answered(self, uid: str, destinations: tuple[str, ...] = ("PACS",)) -> str:
        """A film that was answered and delivered."""
        job_id = self.arrive(uid)
        self.finish(destinations)
        self.settle(job_id)
        return job_id

    def has_film(self, job_id: str) -> bool:
        """Whether row and disk agree that the film is here; AssertionError when they do not agree."""
        path = self.ledger.job(job_id).arrival.path
        there = bool(path) and (self.spool.directory / path).is_file()
        assert there == bool(path), "a row names a file that is gone"
        return there

    def files(self) -> int:
        return sum(file.is_file() for room in ("arrivals", "job") for file in (self.spool.directory / room).rglob("*"))

    def round_after(self, days: float) -> Removed:
        self.days = days
        return self.cleanup.round()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_finished_work_goes_after_its_days_and_leaves_a_tombstone(site: Site) -> None:
    answered, skipped = site.answered("1.1"), site.arrive("1.2")
    site.fail(State.SKIPPED, "lateral-view")
    before = site.ledger.objects(answered)
    assert site.round_after(6.9) == Removed()
    assert site.round_after(7.1) == Removed(settled=2)
    assert not site.has_film(answered) and not site.has_film(skipped) and site.files() == 0
    after, known = site.ledger.objects(answered), site.ledger.stored_kinds("1.1", "c", "m")
    assert known == ("seg",), "what was sent is never made again"
    assert [(one.sop_instance_uid, one.sha256) for one in after] == [(one.sop_instance_uid, one.sha256) for one in before]
    assert [one.path for one in after] == [None]
    assert site.ledger.job(answered).arrival.dataset_sha256 and jobs_by_state(site.ledger.store)[State.SEGMENTED] == 1


def test_failed_and_refused_films_stay_thirty_days_and_are_announced(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    failed = site.arrive("1.1.77")
    site.fail()
    refused = site.arrive("1.2.77")
    site.finish()
    site.settle(refused, DeliveryState.REFUSED)
    kept_here = site.arrive("1.3.77")
    site.finish(())  # no destination: nobody else has the result
    with caplog.at_level(logging.WARNING):
        assert site.round_after(26.9) == Removed()
        assert not caplog.records
        assert site.round_after(27.1) == Removed()
    [warning] = caplog.records
    assert vars(warning)["films"] == 3 and "77" not in warning.getMessage(), "a count, and no UID"
    assert all(site.has_film(one) for one in (failed, refused, kept_here))
    assert site.round_after(30.1) == Removed(unanswered=3)
    assert site.files() == 0
    assert site.outbox.retry(refused) == 0, "bytes that were removed cannot go again"


def test_what_is_not_delivered_is_never_removed(site: Site) -> None:
    waiting, on_the_wire, twin = site.arrive("1.1"), site.arrive("1.2"), site.arrive("1.1", syntax="1.2.840.10008.1.2")
    for _ in range(3):
        site.finish()
    assert site.outbox.sending(site.outbox.of_job(on_the_wire)[0])
    assert site.ledger.job(twin).same_as == waiting
    site.spool.size = 0
    assert site.round_after(4000) == Removed() and site.cleanup.make_room() == 0
    assert all(site.has_film(one) for one in (waiting, on_the_wire, twin))
    site.settle(waiting)
    assert site.cleanup.make_room() == 2, "the film and the same film in another syntax"
    assert site.has_film(on_the_wire)


def test_what_a_committing_peer_has_not_committed_to_is_never_removed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    kept, committed = site.answered("1.1", ("PACS", "ARCHIVE")), site.answered("1.2", ("PACS", "ARCHIVE"))
    returned = site.arrive("1.3", calling="ARCHIVE")
    site.finish(("ARCHIVE",))
    site.settle(returned)
    with site.ledger.store.write() as db:
        db.execute(
            "UPDATE deliveries SET committed_at = ? WHERE job_id = ? AND destination = 'ARCHIVE'", (time.time(), committed)
        )
    site.spool.size = 0
    assert site.round_after(4000) == Removed(settled=1)
    assert site.cleanup.make_room() == 0
    assert site.has_film(kept) and site.has_film(returned) and not site.has_film(committed)


def test_what_was_refused_because_the_commitment_never_came_is_never_removed(tmp_path: Path) -> None:
    """Result: another refusal is a failed film, removed at its time; this one may be the only copy."""
    site = Site(tmp_path)
    never, refused = site.answered("1.1", ("ARCHIVE",)), site.answered("1.2", ("ARCHIVE",))
    with site.ledger.store.write() as db:
        query = "UPDATE deliveries SET state = 'refused', commit_failures = ? WHERE job_id = ?"
        db.executemany(query, [(5, never), (0, refused)])
    assert site.round_after(4000) == Removed(unanswered=1)
    assert site.has_film(never) and not site.has_film(refused)


def test_under_the_watermark_finished_work_goes_oldest_first_and_only_as_much_as_needed(tmp_path: Path) -> None:
    site = Site(tmp_path, watermark_mb=1)
    failed = site.arrive("1.0")
    site.fail()
    waiting = site.arrive("1.0.1")
    site.finish()  # not delivered
    finished = [site.answered(f"1.{number}") for number in range(1, 61)]
    site.spool.size = 1024 * 1024 + 30 * (len(FILM) + len(RESULT))
    removed = site.cleanup.make_room()
    assert not site.cleanup.is_short(), "room was made"
    assert 30 <= removed < 60, "and no more than that, in steps of some jobs"
    here = [site.has_film(one) for one in finished]
    assert here == [False] * removed + [True] * (60 - removed), "first finished, first out"
    assert site.has_film(failed) and site.has_film(waiting)
    site.spool.size = 0
    assert site.cleanup.make_room() == 60 - removed
    assert site.has_film(failed) and site.has_film(waiting), "never a failed one before its time"


def test_a_removed_film_that_comes_again_is_known_healed_and_answered_by_its_one_result(site: Site) -> None:
    job_id = site.answered("1.1")
    with site.ledger.store.write() as db:
        db.execute("UPDATE jobs SET finished_at = finished_at - ?", (10 * DAY,))
    site.round_after(0)
    assert not site.has_film(job_id)
    assert site.arrive("1.1") == job_id, "the same job"
    assert site.has_film(job_id) and site.ledger.job(job_id).resends == 1
    site.outbox.redeliver_resent()  # work.on_resend = "redeliver"
    assert [one.state for one in site.outbox.of_job(job_id)] == [DeliveryState.DELIVERED], "no bytes to send again"
    assert site.round_after(6) == Removed() and site.has_film(job_id), "the film is as new as its resend"
    site.ledger.rerun(job_id)
    site.finish(redeliver=True)
    # The same pixels in another syntax: another job, the same answer.
    twin = site.arrive("1.1", data=b"other bytes", syntax="1.2.840.10008.1.2")
    assert site.finish(redeliver=True).same_as == job_id and twin != job_id
    uids = site.ledger.store.read().execute("SELECT sop_instance_uid FROM objects").fetchall()
    assert [uid for (uid,) in uids] == ["2.25.1.1"], "no second result"
    assert open_deliveries(site.ledger.store) == 0


def test_a_film_that_is_worked_on_again_is_left_alone(site: Site) -> None:
    rerun, original = site.answered("1.1"), site.answered("1.2")
    site.ledger.rerun(rerun)
    site.arrive("1.2", data=b"other bytes", syntax="1.2.840.10008.1.2")  # its answer may be asked for in a moment
    assert site.round_after(8) == Removed()
    assert site.has_film(rerun) and site.has_film(original)
    claim = site.ledger.claim("w", 30)
    assert claim is not None and claim.job.job_id == rerun
    assert site.round_after(9) == Removed(), "claimed"
    assert site.spool.read(claim.job.arrival.path) == FILM


def test_a_rerun_that_comes_between_the_search_and_the_transaction_wins(site: Site) -> None:
    job_id = site.answered("1.1")
    site.days = 8
    write = site.ledger.store.write
    site.ledger.store.write = lambda: (  # type: ignore[method-assign]  # the moment before the first transaction
        setattr(site.ledger.store, "write", write), Ledger(site.config.ledger_path).rerun(job_id), write()
    )[2]  # fmt: skip
    assert site.cleanup.round() == Removed()
    assert site.has_film(job_id) and site.ledger.job(job_id).state is State.RECEIVED


def test_the_receiver_keeps_house_by_itself(tmp_path: Path) -> None:
    site = Site(tmp_path, watermark_mb=10**9)
    with (tmp_path / "config.toml").open("a") as file:
        file.write(f"[receive]\nhost = '127.0.0.1'\nport = {free_port()}\n")
    skipped, failed = site.arrive("1.1"), site.arrive("1.2")
    site.fail(State.SKIPPED, "lateral-view"), site.fail()
    command = [sys.executable, "-m", "dicom_node.cli.main", "receive", "--config", str(tmp_path / "config.toml")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as receiver:
        try:
            wait_for(lambda: site.files() == 1, 120, "the skipped film to go")
        finally:
            receiver.terminate()
    assert site.has_film(failed) and not site.has_film(skipped)


CRASH = """
import os, signal, sys
from pathlib import Path
from dicom_node.runtime.config import load
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.destinations import Route
from dicom_node.storage.retention import Cleanup
from dicom_node.storage.spool import Spool
import time
class Dies(Spool):
    def delete(self, path):
        os.kill(os.getpid(), signal.SIGKILL)
config = load(Path(sys.argv[1]))
Cleanup(config, Ledger(config.ledger_path), Dies(config.spool_directory, 0), now=lambda: time.time() + 8 * 86400).round()
"""


def test_a_crash_between_row_and_file_leaves_nothing_that_a_resend_does_not_heal(site: Site, tmp_path: Path) -> None:
    job_id = site.answered("1.1")
    film = site.spool.directory / site.ledger.job(job_id).arrival.path
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path / "config.toml")], timeout=300)
    assert done.returncode == -9
    assert film.is_file(), "the file outlived the row"
    assert not site.has_film(job_id), "and no row promises it"
    assert site.arrive("1.1") == job_id and site.has_film(job_id)
    for file in (site.spool.directory / "arrivals").rglob("*.dcm"):
        os.utime(file, (1, 1))  # old enough to be removed, all of them
    (site.spool.directory / "job").joinpath("leftover").mkdir()
    assert site.cleanup.round().orphans == 1
    assert not film.exists() and site.has_film(job_id), "only what no row names"


def test_the_journal_goes_back_as_far_as_it_is_told_to(site: Site) -> None:
    for _ in range(3):
        site.ledger.open_association("A", "B", "::1")
    with site.ledger.store.write() as db:
        old = time.time() - 366 * DAY
        db.executemany(
            "INSERT INTO associations (calling_ae, called_ae, host, opened_at) VALUES ('A','B','::1',?)", [(old,)] * 1200
        )
    assert site.cleanup.round() == Removed(journal=1200)
    assert site.ledger.store.read().execute("SELECT count(*) FROM associations").fetchone()[0] == 3


def many_finished(ledger: Ledger, jobs: int) -> None:
    """`jobs` delivered films that finished ten days ago; their files are gone already (removing one that is gone is fine)."""
    with ledger.store.write() as db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO jobs (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, dataset_sha256, path, size,"
            " calling_ae, called_ae, host, state, received_at, finished_at, finding)"
            " SELECT printf('%016x', i), '1.9.' || i, '1.2', '1.2', i, 'arrivals/ab/' || i, 9, 'A', 'B', '::1', 'segmented',"
            " ?, ? + i / 1000.0, 'none' FROM n",
            (jobs, time.time() - 10 * DAY, time.time() - 10 * DAY),
        )
        db.execute("INSERT INTO answers SELECT NULL, sop_instance_uid, 'c', 'm', id, 1 FROM jobs WHERE state = 'segmented'")
        db.execute(
            "INSERT INTO objects SELECT id, id, 'seg', '', '1.2', '2.25.' || id, 'x', 'job/' || id, 9, 'demo' FROM answers"
        )
        db.execute(
            "INSERT INTO deliveries (job_id, object_id, destination, state, created_at, next_try_at, finished_at)"
            " SELECT job_id, id, 'PACS', 'delivered', 1, 1, 1 FROM answers"
        )


def test_a_hundred_thousand_finished_jobs_hold_nobody_up(site: Site) -> None:
    many_finished(site.ledger, 100_000)
    for completion in Completion:
        values = {"until": time.time(), "finished_at": 0.0, "id": "", "limit": 20, "committing": "[]"}
        plan = site.ledger.store.read().execute("EXPLAIN QUERY PLAN " + candidates_query(completion), values).fetchall()
        steps = [row["detail"] for row in plan]
        assert steps[0].startswith("SEARCH j USING INDEX jobs_kept"), steps
        assert not any((step.startswith("SCAN") and "json_each" not in step) or "TEMP" in step for step in steps), steps
    stop, removed = threading.Event(), []
    cleanup = Cleanup(site.config, Ledger(site.config.ledger_path), site.spool)
    thread = threading.Thread(target=lambda: removed.append(cleanup.round(stop)))
    thread.start()
    try:
        kept = "SELECT count(*) FROM jobs WHERE path IS NOT NULL AND finished_at IS NOT NULL"
        films = 0
        site.ledger.store.read().execute("PRAGMA busy_timeout = 2000")  # a long transaction is an error here
        while site.ledger.store.read().execute(kept).fetchone()[0] > 98_000 or films < 20:
            site.answered(f"1.1.{films}")  # arrives, is claimed, finished and delivered meanwhile
            films += 1
        assert thread.is_alive(), "it was at work all the time"
    finally:
        stop.set()
        thread.join(120)
    assert removed and removed[0].settled >= 2000
    assert site.ledger.store.read().execute("SELECT count(*) FROM objects WHERE path IS NULL").fetchone()[0] >= 2000
