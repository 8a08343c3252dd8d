"""The ledger: one owner at a time, one result per identity, whatever runs twice."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.dimse.status import Verdict
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer, Send
from dicom_node.runtime.errors import LostClaim, NodeError
from dicom_node.send.backoff import Decision, Policy, decide
from dicom_node.storage.database import SCHEMA_VERSION, Store
from dicom_node.storage.destinations import Route, Router
from dicom_node.storage.ledger import Claim, Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, DeliveryState, Outcome, State, StoredObject

_numbers = itertools.count()


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite", clock=clock, boot="this boot")


def arrival(uid: str = "1.2.3", sha: str = "aa", syntax: str = "1.2.840.10008.1.2.1") -> Arrival:
    return Arrival(uid, "1.2.840.10008.5.1.4.1.1.1", syntax, sha, f"arrivals/{next(_numbers)}", 10, "A", "B", "::1", None)


def answered(content: str = "c1", model: str = "m1", token: str = "t", revision: int = 1) -> Outcome:
    """An outcome with one object, whose bytes differ from every other outcome's (highdicom is not reproducible)."""
    number = next(_numbers)
    seg = StoredObject("seg", "", "1.2", f"2.25.{content}{model}", f"sha{number}", f"job/{token}/{number}.dcm", 9, "demo")
    return Outcome(
        State.SEGMENTED,
        finding="pneumothorax",
        content_sha256=content,
        model="m 1",
        model_digest=model,
        objects=(seg,),
        revision=revision,
    )


def claimed(ledger: Ledger) -> Claim:
    claim = ledger.claim("worker", 30)
    assert claim is not None
    return claim


def test_an_equal_arrival_is_counted_and_another_syntax_is_another_job(ledger: Ledger) -> None:
    first = ledger.add_arrival(arrival())
    again = ledger.add_arrival(arrival())
    other = ledger.add_arrival(arrival(syntax="1.2.840.10008.1.2", sha="bb"))
    assert (first.new, again.new, other.new) == (True, False, True)
    assert again.job_id == first.job_id != other.job_id
    assert ledger.job(first.job_id).resends == 1


def test_a_lease_that_ran_out_is_taken_over_and_the_late_finisher_is_refused(ledger: Ledger, clock: Clock) -> None:
    ledger.add_arrival(arrival())
    late = claimed(ledger)
    assert ledger.claim("other", 30) is None
    clock.now += 20
    ledger.renew(late, 30)
    clock.now += 20
    assert ledger.claim("other", 30) is None, "renewed 20 s ago"
    clock.now += 11
    owner = claimed(ledger)
    with pytest.raises(LostClaim):
        ledger.renew(late, 30)
    with pytest.raises(LostClaim):
        ledger.finish(late, answered(), [Route("PACS")])
    job = ledger.finish(owner, answered(), [Route("PACS")])
    assert (job.state, job.attempts) == (State.SEGMENTED, 2)
    assert len(Outbox(ledger.store).of_job(job.job_id)) == 1


def test_a_claim_of_another_boot_is_expired_whatever_the_clock_says(tmp_path: Path, clock: Clock) -> None:
    before = Ledger(tmp_path / "l", clock=clock, boot="before")
    before.add_arrival(arrival())
    claimed(before)
    clock.now = 5.0  # a monotonic clock begins anew at boot
    assert Ledger(tmp_path / "l", clock=clock, boot="after").claim("w", 30) is not None


def test_crashes_are_charged_to_the_film_and_the_third_quarantines_it(ledger: Ledger) -> None:
    ledger.add_arrival(arrival())
    for crash in (1, 2, 3):
        claimed(ledger)
        [job] = ledger.release_worker("worker", ledger.claim_pids("worker"), max_crashes=3)
        assert job.crashes == crash
    assert (job.state, job.code) == (State.FAILED, "crashes-the-worker")
    assert ledger.claim("worker", 30) is None
    assert ledger.rerun(job.job_id).crashes == 0


def test_a_film_that_had_company_is_not_charged_and_is_tried_again_alone(ledger: Ledger) -> None:
    """Three in work of one process, and one of another's. Result: the three of the process that died are freed uncharged,
    and from then on none of them is handed out beside others."""
    for number in range(5):
        ledger.add_arrival(arrival(f"1.2.{number}", f"s{number}"))
    in_work = [ledger.claim("worker", 30, pid=1, beside=beside) for beside in (False, True, True)]
    other = ledger.claim("worker", 30, pid=2)
    assert None not in in_work and other is not None
    freed = ledger.release_worker("worker", [1], max_crashes=1)
    assert sorted(job.job_id for job in freed) == sorted(one.job.job_id for one in in_work if one)
    assert {(job.state, job.crashes, job.attempts) for job in freed} == {(State.RECEIVED, 0, 1)}
    assert ledger.claim("worker", 30, pid=3, beside=True) is None, "the next one in order was tried before"
    alone = ledger.claim("worker", 30, pid=3)
    assert alone is not None and alone.job.attempts == 2
    assert {job.code for job in ledger.release_worker("worker", [3], max_crashes=1)} == {"crashes-the-worker"}
    assert ledger.release_worker("worker", [1, 3], max_crashes=1) == [], "who lives and claims meanwhile is not among the dead"
    ledger.charge(other, "internal-error", "...", max_crashes=2)
    assert ledger.job(other.job.job_id).crashes == 1, "the company of another process is none"


def test_a_film_whose_neighbour_came_later_had_company_too(ledger: Ledger) -> None:
    for number in range(2):
        ledger.add_arrival(arrival(f"1.2.{number}", f"s{number}"))
    first = claimed(ledger)
    assert ledger.claim("worker", 30, beside=True) is not None
    ledger.charge(first, "out-of-memory", "...", max_crashes=1)
    assert (ledger.job(first.job.job_id).state, ledger.job(first.job.job_id).crashes) == (State.RECEIVED, 0)


def test_losing_the_whole_worker_charges_nothing(ledger: Ledger) -> None:
    ledger.add_arrival(arrival())
    claimed(ledger)
    assert ledger.release_others("the next worker") == 1
    assert claimed(ledger).job.crashes == 0


def test_one_identity_has_one_result_and_one_set_of_bytes(ledger: Ledger) -> None:
    for sha in ("aa", "bb"):  # the same film in two transfer syntaxes: two arrivals, one content
        ledger.add_arrival(arrival(sha=sha))
    first = ledger.finish(claimed(ledger), answered(), [Route("PACS")])
    second = ledger.finish(claimed(ledger), answered(), [Route("PACS")])
    assert second.same_as == first.job_id
    outbox = Outbox(ledger.store)
    assert len(outbox.of_job(first.job_id)) == 1
    assert not outbox.of_job(second.job_id)


def test_a_rerun_with_the_same_model_sends_the_same_bytes_and_another_model_answers_anew(ledger: Ledger) -> None:
    ledger.add_arrival(arrival())
    outbox = Outbox(ledger.store)
    job = ledger.finish(claimed(ledger), answered(model="m1"), [Route("PACS")])
    [before] = outbox.of_job(job.job_id)
    outbox.sending(before)
    outbox.settle(before, DeliveryState.DELIVERED, status=0, reason="")
    ledger.rerun(job.job_id)
    ledger.finish(claimed(ledger), answered(model="m1"), [Route("PACS")])
    [again] = outbox.of_job(job.job_id)
    assert (again.state, again.object.sha256) == (DeliveryState.PENDING, before.object.sha256)
    ledger.rerun(job.job_id)
    ledger.finish(claimed(ledger), answered(model="m2"), [Route("PACS")])
    assert len({one.object.sop_instance_uid for one in outbox.of_job(job.job_id)}) == 2


def test_other_pixels_under_a_used_uid_are_a_conflict_with_a_fixed_revision(ledger: Ledger) -> None:
    assert [ledger.revision("1.2.3", content) for content in ("c1", "c2", "c1", "c3", "c2")] == [1, 2, 1, 3, 2]
    assert ledger.conflicts() == [("1.2.3", 3)]


def test_pause_stops_claims_and_purge_keeps_the_tombstone(ledger: Ledger) -> None:
    ledger.add_arrival(arrival())
    ledger.set_mode("paused")
    assert ledger.ready() == 0
    assert ledger.claim("worker", 30) is None
    ledger.set_mode("running")
    job = ledger.finish(claimed(ledger), answered(), [Route("PACS")])
    with pytest.raises(NodeError, match="only delivered work is purged"):
        ledger.purge(job.job_id)
    outbox = Outbox(ledger.store)
    [delivery] = outbox.of_job(job.job_id)
    outbox.settle(delivery, DeliveryState.DELIVERED, status=0, reason="")
    assert len(ledger.purge(job.job_id)) == 2
    assert ledger.stored_kinds("1.2.3", "c1", "m1") is not None
    with pytest.raises(NodeError, match="purged"):
        ledger.rerun(job.job_id)
    again = ledger.add_arrival(arrival())
    assert (again.job_id, again.new) == (job.job_id, True), "the resend brings the bytes back"
    assert ledger.job(job.job_id).state is State.SEGMENTED
    ledger.rerun(job.job_id)


def test_a_destination_that_hangs_holds_nobody_up(ledger: Ledger) -> None:
    """Result: however many objects wait for one destination, those of another are found; a busy one is not asked for."""
    outbox = Outbox(ledger.store)
    for number in range(70):
        ledger.add_arrival(arrival(f"1.2.9.{number}", f"s{number}"))
        ledger.finish(claimed(ledger), answered(f"c{number}"), [Route("HANGS")])
    ledger.add_arrival(arrival("1.2.8.1", "last"))
    ledger.finish(claimed(ledger), answered("last"), [Route("HANGS"), Route("PACS")])
    due = outbox.due(900, limit=50)
    assert {name: len(dues) for name, dues in due.items()} == {"HANGS": 50, "PACS": len(due["PACS"])}
    assert set(outbox.due(900, besides={"HANGS"})) == {"PACS"}


def test_the_sender_is_a_destination_by_its_own_name(ledger: Ledger) -> None:
    """Result: each that sends a film gets its result, once, also when it is a named destination besides; a sender on trial
    gets nothing."""
    config = Config(
        peers={"PACS": Peer(host="h", port=1), "MOD1": Peer(host="h", port=2)}, send=Send(destinations=("@sender", "PACS"))
    )
    router = Router.of(config)
    by = [replace(arrival(), calling_ae=name) for name in ("PACS", "MOD1", "STRANGER")]
    assert [[route.destination for route in router.routes(one)] for one in by] == [
        ["PACS"], ["MOD1", "PACS"], ["STRANGER", "PACS"],
    ]  # fmt: skip
    trial = replace(arrival(), calling_ae="TRIAL", mode="shadow")
    ledger.add_arrival(trial)
    first = ledger.finish(claimed(ledger), answered(), ())
    ledger.add_arrival(replace(arrival(), calling_ae="MOD1", transfer_syntax_uid="1.2.840.10008.1.2"))
    claim = claimed(ledger)
    assert ledger.finish(claim, answered(), router.routes(claim.job.arrival)).same_as == first.job_id
    assert {one.destination for one in Outbox(ledger.store).of_job(first.job_id)} == {"MOD1", "PACS"}


def test_what_a_trial_made_and_lost_is_made_again_when_the_film_comes_in_earnest(ledger: Ledger) -> None:
    ledger.add_arrival(replace(arrival(), mode="shadow"))
    job = ledger.finish(claimed(ledger), answered(), ())
    assert ledger.purge(job.job_id)
    known = ledger.stored_kinds("1.2.3", "c1", "m1")
    assert known == (), "nobody was to have what is gone"
    ledger.add_arrival(arrival())
    again = answered()
    ledger.finish(claimed(ledger), again, [Route("PACS")])
    [delivery] = Outbox(ledger.store).of_job(job.job_id)
    assert (delivery.object.sha256, delivery.object.path) == (again.objects[0].sha256, again.objects[0].path)


def queued(ledger: Ledger, *queues: str) -> None:
    for queue in queues:
        ledger.add_arrival(replace(arrival(f"1.2.{next(_numbers)}", f"{next(_numbers)}"), queue=queue))


def order(ledger: Ledger, waits: float) -> list[str]:
    found = []
    while claim := ledger.claim("w", 30, normal_waits_seconds=waits):
        found.append(claim.job.arrival.queue[0])
    return found


def test_urgent_films_go_first_and_neither_kind_starves(ledger: Ledger) -> None:
    queued(ledger, "normal", "normal", "urgent", "normal", "urgent")
    assert "".join(order(ledger, waits=300)) == "uunnn"
    queued(ledger, *["normal"] * 4, *["urgent"] * 4)
    assert "".join(order(ledger, waits=0)) == "nununun" + "u", "all have waited too long: by turns"
    queued(ledger, "normal")
    uid = ledger.jobs(state="received")[0].arrival
    ledger.add_arrival(replace(uid, path="arrivals/again", queue="urgent"))
    assert ledger.jobs(state="received")[0].arrival.queue == "urgent", "sent again as urgent, it is urgent"


def test_claims_of_other_machines_survive_a_start_of_the_worker_here(ledger: Ledger) -> None:
    for number in range(3):
        ledger.add_arrival(arrival(f"1.2.{number}", f"s{number}"))
    far = ledger.claim("gpu1/ab", 30, pid=1, remote="gpu1", owner="e" * 32)
    ledger.claim("an earlier worker here", 30)
    assert far is not None and ledger.claim("gpu1/ab", 30, remote="gpu1", owner="e" * 32) == far, "asked again: the same"
    assert ledger.release_others("a new worker here") == 1
    assert ledger.claim_of(far.job.job_id, far.owner, "gpu1") is not None
    assert ledger.claim_of(far.job.job_id, far.owner, "gpu2") is None
    assert ledger.release_remote("gpu1") == 1
    with pytest.raises(LostClaim):
        ledger.renew(far, 30)


def test_a_film_that_was_damaged_on_disk_is_healed_by_its_resend(ledger: Ledger) -> None:
    job_id = ledger.add_arrival(arrival()).job_id
    ledger.finish(claimed(ledger), Outcome(State.FAILED, code="source-damaged", sentence="..."), [])
    healing = arrival()
    assert ledger.add_arrival(healing).new
    job = claimed(ledger).job
    assert (job.job_id, job.arrival.path, job.code) == (job_id, healing.path, None)


def test_a_ledger_of_another_version_is_refused_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "l")
    with pytest.raises(ZeroDivisionError), store.write() as db:
        db.execute("INSERT INTO meta VALUES ('mode', 'paused')")
        raise ZeroDivisionError
    assert store.read().execute("SELECT count(*) FROM meta").fetchone()[0] == 0
    assert store.integrity() == "ok"
    copy = tmp_path / "copy"
    store.backup(copy)
    assert sqlite3.connect(copy).execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    with store.write() as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(NodeError, match="schema version 99"):
        Store(tmp_path / "l")


def test_one_beat_is_one_transaction_and_a_look_is_none(ledger: Ledger) -> None:
    """The leases of 24 films are renewed at once; who only looks for work, or for films that came again, writes nothing."""
    begun: list[str] = []
    for number in range(24):
        ledger.add_arrival(arrival(uid=f"1.2.{number}"))
    claims = [ledger.claim("w", 30, beside=number > 0) for number in range(24)]
    assert all(claims)
    ledger.store.read().set_trace_callback(lambda said: begun.append(said) if said.startswith("BEGIN") else None)
    assert ledger.renew_all([claim.owner for claim in claims], 60) == set()
    assert len(begun) == 1
    ledger.release(claims[7])
    begun.clear()
    assert ledger.renew_all([claim.owner for claim in claims], 60) == {claims[7].owner}
    assert ledger.claim("w", 30) is not None
    begun.clear()
    assert ledger.claim("w", 30) is None and ledger.claim("w", 30, beside=True) is None
    assert Outbox(ledger.store).redeliver_resent() == 0
    assert begun == []


POLICY = Policy(first_delay=4, max_delay=60, give_up=1000)


@pytest.mark.parametrize(
    ("verdict", "attempts", "age", "jitter", "expected"),
    [
        (Verdict.DELIVERED, 1, 0, 0.0, Decision(DeliveryState.DELIVERED)),
        (Verdict.WARNED, 1, 0, 0.0, Decision(DeliveryState.DELIVERED)),
        (Verdict.REFUSED, 1, 0, 0.0, Decision(DeliveryState.REFUSED)),
        (Verdict.TRY_LATER, 1, 0, 0.0, Decision(DeliveryState.PENDING, 2)),
        (Verdict.TRY_LATER, 1, 0, 1.0, Decision(DeliveryState.PENDING, 4)),
        (Verdict.TRY_LATER, 3, 0, 1.0, Decision(DeliveryState.PENDING, 16)),
        (Verdict.TRY_LATER, 5000, 999, 1.0, Decision(DeliveryState.PENDING, 60)),
        (Verdict.TRY_LATER, 2, 1000, 0.5, Decision(DeliveryState.REFUSED)),
    ],
)
def test_when_to_try_again(verdict: Verdict, attempts: int, age: float, jitter: float, expected: Decision) -> None:
    assert decide(verdict, attempts, age, POLICY, jitter) == expected


def test_nothing_that_is_asked_while_films_flow_reads_a_table_from_end_to_end(ledger: Ledger) -> None:
    """A million finished jobs must not be felt. Indexes of what is open (PARTIAL) may be read whole: they are short."""
    db, asked = ledger.store.read(), set()
    db.set_trace_callback(asked.add)
    outbox = Outbox(ledger.store)
    job_id = ledger.add_arrival(arrival()).job_id
    claim = ledger.claim("w", 30)
    assert ledger.ready() == 0 and claim is not None
    ledger.renew(claim, 30)
    ledger.revision("1.2.3", "c1")
    ledger.stored_kinds("1.2.3", "c1", "m1")
    ledger.finish(claim, answered(), [Route("PACS")])
    [due] = outbox.due(900)["PACS"]
    outbox.sending(due)
    outbox.settle(due, DeliveryState.DELIVERED, status=0, reason="")
    outbox.redeliver_resent()
    outbox.recover()
    assert ledger.job(job_id[:6]) == ledger.jobs(sop_instance_uid="1.2.3")[0]
    assert ledger.objects(job_id) and outbox.of_job(job_id)
    db.set_trace_callback(None)
    partial = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%) WHERE %'")}
    for query in sorted(one for one in asked if one.startswith(("SELECT", "UPDATE", "INSERT", "DELETE"))):
        for step in (row["detail"] for row in db.execute("EXPLAIN QUERY PLAN " + query)):
            whole = step.startswith("SCAN") and step != "SCAN CONSTANT ROW" and not partial & set(step.split())
            assert not whole or step.split()[1] == "meta", f"{step}: {query}"


@pytest.mark.parametrize("way", ["rerun", "healed", "answered after all"])
@pytest.mark.parametrize("crashed", [0, 2])
def test_a_job_that_is_opened_again_is_as_it_was_when_it_came(way: str, crashed: int, ledger: Ledger) -> None:
    """By the administrator, by a resend of a film that was damaged on disk, by a resend to be answered of a film that was only
    kept. Result: nothing of the first outcome is left, neither in its row nor in what retention looks at."""
    code = "source-damaged" if way == "healed" else "undecodable-pixel-data"
    first = replace(arrival(), mode="shadow" if way == "answered after all" else "live")
    job_id = ledger.add_arrival(first).job_id
    for _ in range(crashed):
        ledger.charge(claimed(ledger), "internal-error", "...", max_crashes=9)
    failed = Outcome(State.FAILED, code=code, sentence="What was wrong.", seconds=3.0, notes=("polarity-suspect",))
    ledger.finish(claimed(ledger), failed, [])
    if way == "rerun":
        ledger.rerun(job_id)
    else:
        ledger.add_arrival(arrival())
    job = ledger.job(job_id)
    assert (job.state, job.attempts, job.crashes, job.owner) == (State.RECEIVED, 0, 0, None)
    assert (job.code, job.sentence, job.finished_at, job.seconds, job.notes) == (None, None, None, None, ())
    assert job.generation == (1 if way == "healed" else 2)
    assert ledger.claim("w", 30, beside=True) is not None, "it counts as a film that nobody has tried"


def test_a_kept_film_in_work_that_is_to_be_answered_keeps_its_crashes(ledger: Ledger) -> None:
    """Its sender sends it again while it is tried: three crashes are three crashes."""
    job_id = ledger.add_arrival(replace(arrival(), mode="shadow")).job_id
    ledger.charge(claimed(ledger), "internal-error", "...", max_crashes=9)
    late = claimed(ledger)
    ledger.add_arrival(arrival())
    job = ledger.job(job_id)
    assert (job.state, job.crashes, job.attempts, job.generation, job.owner) == (State.RECEIVED, 1, 2, 1, None)
    with pytest.raises(LostClaim):
        ledger.finish(late, answered(), [])
