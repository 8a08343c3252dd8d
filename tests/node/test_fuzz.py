"""500 broken films, 500 broken conversations, 56 broken answers: the node goes on, and every film has an answer with a code."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from film_parts import bases
from fuzz import count
from hostile_traffic import QUIET, Watch, answer_all, speak_all, store_all
from mutant_answers import mutant as broken_answer
from mutant_answers import send_to_all
from mutant_pdus import conversation
from mutants import mutant
from receiver_node import running
from tiny_network import tiny_artifact

from dicom_node.storage.records import FINISHED
from train.export.onnx_graph import add_graphs

SEED, COUNT, WAVE = 1, 500, 100
POSITIVE = {"only": {"image_threshold": 0.0, "mask_threshold": 0.4, "min_area_mm2": 0, "min_area_px": 0}}


@pytest.fixture(autouse=True)
def _the_library_is_quiet() -> None:
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def test_broken_conversations_leave_the_node_serving_and_the_ledger_consistent(tmp_path: Path) -> None:
    answers = []
    with running(tmp_path, **QUIET) as node:
        watch = Watch(node)
        for first in range(0, COUNT, WAVE):
            toll = speak_all(node, [conversation(SEED, number) for number in range(first, first + WAVE)])
            watch.check(toll)
            answers += toll.answers.elements()
    assert len(answers) == COUNT
    assert sum("0000" in one for one in answers) > COUNT // 10, "nearly nothing got as far as the spool"
    assert len(set(answers)) > 8


def test_broken_answers_leave_the_sender_sending(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Seven destinations at once, and a sound one beside them that does not wait."""
    ends = Counter[str]()
    for first in range(0, 56, 7):
        ends += send_to_all(tmp_path / str(first), [broken_answer(SEED, number) for number in range(first, first + 7)])
    assert sum(ends.values()) == 56 and len(ends) > 12, ends
    assert "Traceback" not in capfd.readouterr().err


def test_every_broken_film_is_stored_and_answered_with_a_code(tmp_path: Path) -> None:
    """The receiver takes them as they are; a worker process that may die of one answers them."""
    films = bases(tmp_path)
    mutants = [mutant(films, SEED, number) for number in range(COUNT)]
    with running(tmp_path, **QUIET) as node:
        watch = Watch(node)
        for first in range(0, COUNT, WAVE):
            toll = store_all(node, mutants[first : first + WAVE])
            assert toll.answers == {"0000": WAVE}
            watch.check(toll)
        add_graphs(tiny_artifact(tmp_path / "artifact", operating_points=POSITIVE))  # a worker then starts without torch
        answers = answer_all(tmp_path)
        by_uid = {one.sop_instance_uid: one for one in mutants}
        jobs = {job.arrival.sop_instance_uid: job for job in node.ledger.jobs(limit=2 * COUNT)}
        assert not answers.crashes, {str(by_uid[uid]): how for uid, how in answers.crashes.items()}
        assert all(job.state in FINISHED and (job.finding or job.code) for job in jobs.values())
        unforeseen = {str(by_uid[uid]): jobs[uid] for uid in by_uid if jobs[uid].code in ("internal-error", "out-of-memory")}
        assert not unforeseen
        outcomes = {job.code or job.finding for job in jobs.values()}
        assert len(outcomes) > 12 and "pneumothorax" in outcomes, outcomes


def test_what_several_processes_found_is_one_report() -> None:
    """`make fuzz` shares its mutants among processes: nothing that one of them found is lost."""
    said: dict[str, object] = {}
    for number, seconds in ((1, 0.5), (2, 9.5), (3, 1.5)):
        count(said, {
            "count": 500, "seconds": 60.2, "outcomes": {"done": 2, f"failed: {number}": 1},
            "crashes": {f"mutant {number}": "SIGSEGV"}, "broken_promises": [f"wave {number}"],
            "slowest": {"mutant": f"mutant {number}", "seconds": seconds},
            "hungriest": {"mutant": f"mutant {number}", "mb": 100 - number}, "receiver_growth_mb": number,
        })  # fmt: skip
    assert said == {
        "count": 1500, "seconds": 180.6, "outcomes": {"done": 6, "failed: 1": 1, "failed: 2": 1, "failed: 3": 1},
        "crashes": dict.fromkeys(("mutant 1", "mutant 2", "mutant 3"), "SIGSEGV"),
        "broken_promises": ["wave 1", "wave 2", "wave 3"], "slowest": {"mutant": "mutant 2", "seconds": 9.5},
        "hungriest": {"mutant": "mutant 1", "mb": 99}, "receiver_growth_mb": 3,
    }  # fmt: skip
