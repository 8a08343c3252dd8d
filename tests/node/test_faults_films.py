"""Films against a whole node: poison among innocents, the same one ten times at once, one UID with other bytes, a stop."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from ledger_counts import open_deliveries
from quick_model import quick_film, quick_settings
from rude_pacs import RudePacs
from servers import Node, running_node, store, wait_for

from dicom_node.cli.main import main
from dicom_node.storage.records import FINISHED, DeliveryState, State

POISON = {901: "segfault", 902: "kill", 903: "hang", 904: "memory"}  # film: what it does to a worker that decodes it


@pytest.fixture(scope="module")
def pacs() -> Iterator[RudePacs]:
    with RudePacs().serving() as one:
        yield one


def poisoned(films: Mapping[str, str], **more: str) -> dict[str, str]:
    """Environment of a node whose workers come to harm on these films (SOP Instance UID: how)."""
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support" / "poison"), os.environ.get("PYTHONPATH", "")])
    return quick_settings(POISON=json.dumps({str(uid): kind for uid, kind in films.items()}), PYTHONPATH=path, **more)


@pytest.fixture(scope="module")
def node(pacs: RudePacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = quick_settings(SEGMENTER_WORK__PROCESSES="2")
    with running_node(tmp_path_factory.mktemp("node"), ("PACS", pacs.port), **settings) as running:
        yield running


def test_poison_is_quarantined_after_three_crashes_and_the_innocent_are_unharmed(tmp_path: Path, pacs: RudePacs) -> None:
    """A film that segfaults the worker, one that gets it killed, one that hangs it, one without memory, among others."""
    innocent = [quick_film(number) for number in range(1, 9)]
    poison = {kind: quick_film(number) for number, kind in POISON.items()}
    uids = [str(one.SOPInstanceUID) for one in innocent]
    # A time limit that the one that hangs reaches three times, and an innocent one never, however busy the machine is.
    settings = poisoned(
        {one.SOPInstanceUID: kind for kind, one in poison.items()},
        SEGMENTER_WORK__TIME_LIMIT_SECONDS="12",
        SEGMENTER_WORK__PROCESSES="2",
    )
    with running_node(tmp_path / "node", ("PACS", pacs.port), **settings) as node:
        for one in (*innocent[:4], *poison.values(), *innocent[4:]):
            assert store(one, node.port) == 0x0000
        for kind, one in poison.items():
            job = node.finished(one.SOPInstanceUID)
            code = "out-of-memory" if kind == "memory" else "crashes-the-worker"
            assert (kind, job.state, job.code, job.crashes) == (kind, State.FAILED, code, 3)
        for uid in uids:
            node.delivered(uid)
            job = node.job_of(uid)
            assert (job.state, job.crashes) == (State.SEGMENTED, 0)
            assert job.attempts <= 2, "whoever was beside a poisonous film is worked on alone from then on"
    assert pacs.lost(uids) == []
    assert pacs.doubled() == []
    assert not any(pacs.of(str(one.SOPInstanceUID)) for one in poison.values())


def test_the_death_of_a_batch_is_charged_to_nobody_and_its_members_are_retried_alone(tmp_path: Path, pacs: RudePacs) -> None:
    """One process, full of films, poison between innocent ones. Result: every innocent film answered and none charged, the
    poison quarantined after three crashes that were its own."""
    films = [quick_film(number) for number in range(40, 56)]
    poison = {films[at].SOPInstanceUID: kind for at, kind in ((3, "segfault"), (8, "kill"), (12, "segfault"))}
    with running_node(tmp_path / "node", ("PACS", pacs.port), **poisoned(poison)) as node:
        first = quick_film(56)  # a process' first film is always alone
        assert store(first, node.port) == 0x0000
        node.finished(first.SOPInstanceUID)
        node.ledger.set_mode("paused")
        for one in films:
            assert store(one, node.port) == 0x0000
        node.ledger.set_mode("running")
        jobs = {str(one.SOPInstanceUID): node.finished(one.SOPInstanceUID) for one in films}
        innocent = [uid for uid in jobs if uid not in poison]
        for uid in innocent:
            node.delivered(uid)
    assert {(jobs[uid].code, jobs[uid].crashes) for uid in poison} == {("crashes-the-worker", 3)}
    assert max(jobs[uid].attempts for uid in poison) == 4, "none of them ever had company"
    assert {(jobs[uid].state, jobs[uid].crashes) for uid in innocent} == {(State.SEGMENTED, 0)}
    assert max(jobs[uid].attempts for uid in innocent) <= 2
    assert pacs.lost(innocent) == pacs.doubled() == []


def test_a_lost_device_costs_one_film_one_try_and_no_film_its_answer(tmp_path: Path, pacs: RudePacs) -> None:
    """After an error of CUDA nothing works in a process any more. Result: it is replaced, the film that it failed is charged
    once, its neighbours are not, and all are answered."""
    films = [quick_film(number) for number in range(70, 80)]
    settings = poisoned({}, POISON_DEVICE=str(tmp_path / "lost"))
    with running_node(tmp_path / "node", ("PACS", pacs.port), **settings) as node:
        for one in films:
            assert store(one, node.port) == 0x0000
        jobs = [node.finished(one.SOPInstanceUID) for one in films]
        for one in films:
            node.delivered(one.SOPInstanceUID)
        assert "the device failed" in node.log_text() and (tmp_path / "lost").exists()
    assert {job.state for job in jobs} == {State.SEGMENTED}
    assert sum(job.crashes for job in jobs) <= 1
    assert pacs.lost([str(one.SOPInstanceUID) for one in films]) == pacs.doubled() == []


def test_the_same_film_ten_times_at_once_is_one_job_and_one_result(node: Node, pacs: RudePacs) -> None:
    source = quick_film(20)
    answers: list[int] = []
    start = threading.Barrier(10)

    def send() -> None:
        start.wait(120)
        answers.append(store(source, node.port))

    senders = [threading.Thread(target=send) for _ in range(10)]
    for one in senders:
        one.start()
    for one in senders:
        one.join(120)
    assert answers == [0x0000] * 10
    node.delivered(source.SOPInstanceUID)
    [job] = node.ledger.jobs(sop_instance_uid=source.SOPInstanceUID)
    assert (job.resends, job.attempts) == (9, 1)
    assert pacs.roles(str(source.SOPInstanceUID)) == ["seg", "sr"]


def test_one_uid_with_other_pixels_is_two_results_and_with_another_header_one(node: Node, pacs: RudePacs) -> None:
    """Sent at once. Result: three jobs, two results, the second is marked rev 2, the conflict is listed."""
    first, header, pixels = quick_film(21), quick_film(21), quick_film(21)
    header.StudyDescription = "changed on its way"
    pixels.PixelData = np.fliplr(pixels.pixel_array).tobytes()
    uid = str(first.SOPInstanceUID)
    senders = [threading.Thread(target=store, args=(one, node.port)) for one in (first, header, pixels)]
    for one in senders:
        one.start()
    for one in senders:
        one.join(120)
    finished = [State.SEGMENTED] * 3
    wait_for(lambda: [job.state for job in node.ledger.jobs(sop_instance_uid=uid)] == finished, 120, "three answers")
    wait_for(lambda: open_deliveries(node.ledger.store) == 0, 120, "deliveries")
    jobs = node.ledger.jobs(sop_instance_uid=uid)
    assert sorted(job.revision for job in jobs) in ([1, 1, 2], [1, 2, 2])
    assert sum(job.same_as is not None for job in jobs) == 1
    assert len({one.uid for one in pacs.of(uid)}) == len({one.sha256 for one in pacs.of(uid)}) == len(pacs.of(uid)) == 4
    assert sorted("rev 2" in one.series for one in pacs.of(uid)) == [False, False, True, True]
    assert node.ledger.conflicts() == [(uid, 2)]
    status = CliRunner().invoke(main, ["status", "--config", str(node.config_file)]).output
    assert uid in status and "conflict" in status.lower()


def test_sigterm_finishes_what_is_on_the_bench_and_on_the_wire_and_the_rest_waits(node: Node, pacs: RudePacs) -> None:
    """Result: nothing is claimed or sent any more, nothing was done twice; after the start the rest goes its way."""
    pacs.slow_seconds = 2.0
    films = [quick_film(number) for number in range(30, 38)]
    uids = [str(one.SOPInstanceUID) for one in films]
    for one in films:
        assert store(one, node.port) == 0x0000
    wait_for(lambda: any(pacs.of(uid) for uid in uids), 120, "an object on the wire")
    wait_for(lambda: open_deliveries(node.ledger.store) > 2, 120, "objects that wait behind it")
    assert node.stop() == 0
    jobs = [node.job_of(uid) for uid in uids]
    assert all(job.state in (State.RECEIVED, *FINISHED) for job in jobs)
    deliveries = [one for job in jobs for one in node.outbox.of_job(job.job_id)]
    assert all(one.state in (DeliveryState.PENDING, DeliveryState.DELIVERED) for one in deliveries)
    assert sum(one.state is DeliveryState.DELIVERED for one in deliveries) == sum(len(pacs.of(uid)) for uid in uids) >= 1
    assert any(one.state is DeliveryState.PENDING for one in deliveries), "the stop came too late to show anything"
    pacs.slow_seconds = 0.0
    node.start()
    for uid in uids:
        node.delivered(uid)
        job = node.job_of(uid)
        assert (job.attempts, job.crashes) == (1, 0)
    assert [pacs.roles(uid) for uid in uids] == [["seg", "sr"]] * len(uids), "what was on the wire was finished"
