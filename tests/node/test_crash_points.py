"""Promise 2 at every moment of crash_points.py: kill -9 there, and each film still has exactly one result everywhere.

One node, one recording PACS under two names and one Orthanc live through all of it; each kill leaves its proof. The last
test counts over everything that was ever sent.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import instant_model
import pytest
from crash_launcher import Traps, resolve
from crash_points import SCENES, WORKING, Scene
from ledger_counts import jobs_by_state
from pydicom.dataset import Dataset
from quick_model import quick_model
from recording_pacs import RecordingPacs, count, recording_pacs
from servers import Node, Orthanc, running_orthanc, wait_for
from stubborn_sender import send

from dicom_node.storage.records import State

RECORDERS = ("PACS", "ARCHIVE")  # one process, called by two names


@dataclass
class House:
    """A node with everything around it, and the films that it has taken."""

    node: Node
    traps: Traps
    pacs: RecordingPacs
    orthanc: Orthanc
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    taken: list[str] = field(default_factory=list)

    def new_film(self) -> Dataset:
        return instant_model.film(next(self.numbers))

    def take(self, film: Dataset) -> int:
        tries = send(film, self.node.port)
        self.taken.append(str(film.SOPInstanceUID))
        return tries

    def wait_for_kills(self, number: int) -> None:
        proofs = self.traps.sprung
        wait_for(lambda: len(proofs()) == number, 120, f"the kill (proofs: {proofs()}, log: {self.node.log_text()[-1500:]})")

    def wait_for_result(self, film: Dataset) -> None:
        uid = str(film.SOPInstanceUID)

        def is_everywhere() -> bool:
            return {one.called_ae for one in self.pacs.results_of(uid)} == set(RECORDERS)

        wait_for(is_everywhere, 120, f"the result (log: {self.node.log_text()[-2500:]})")
        self.node.delivered(uid, 120)


@contextmanager
def kept_up(node: Node) -> Iterator[Node]:
    """Started again whenever it dies, as an init system does."""
    ending = threading.Event()

    def watch() -> None:
        while not ending.wait(0.05):
            if node.process is None or node.process.poll() is not None:
                node.launch()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield node
    finally:
        ending.set()
        thread.join()
        node.kill()


@pytest.fixture(scope="module")
def house(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("house")
    traps = Traps(folder / "traps")
    with (
        recording_pacs(folder / "pacs") as pacs,
        running_orthanc(tool("Orthanc"), folder / "orthanc") as orthanc,
    ):
        peers = ", ".join(f'"{name}": {{"host": "127.0.0.1", "port": {pacs.port}}}' for name in RECORDERS)
        settings = traps.environment | {
            "SEGMENTER_RECEIVE__PROCESSES": "2",  # on a machine of one core too
            "SEGMENTER_PEERS": f"{{{peers}}}",
            "SEGMENTER_SEND__DESTINATIONS": f'["ORTHANC", "{RECORDERS[0]}", "{RECORDERS[1]}"]',
            "SEGMENTER_SEND__FIRST_DELAY_SECONDS": "0.2",
            "SEGMENTER_SEGMENT__MODEL": str(quick_model()),
            "SEGMENTER_SEGMENT__MIN_SIDE_PX": str(instant_model.MIN_SIDE_PX),
            "SEGMENTER_SEGMENT__THREADS": "1",
        }
        with kept_up(Node(folder / "node", ("ORTHANC", orthanc.dicom_port), settings)) as node:
            house = House(node, traps, pacs, orthanc)
            house.take(first := house.new_film())
            house.wait_for_result(first)
            yield house


def test_every_point_is_in_the_product() -> None:
    for scene in SCENES:
        for point in scene.points:
            assert callable(resolve(point.target)), point


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_killed(scene: Scene, house: House) -> None:
    film = house.new_film()
    if scene.lead == "film twice":
        house.take(film)
        house.wait_for_result(film)
    house.traps.set(*scene.points)
    if scene.lead == "start":
        house.node.kill()
        house.wait_for_kills(len(scene.points))
    tries = house.take(film)
    house.wait_for_kills(len(scene.points))
    house.wait_for_result(film)
    [job] = house.node.ledger.jobs(sop_instance_uid=film.SOPInstanceUID)
    assert (job.state, job.crashes) == (State.SEGMENTED, scene.charged)
    assert job.resends < tries + (scene.lead == "film twice")
    results = {(one.role, one.uid) for one in house.pacs.results_of(film.SOPInstanceUID)}
    assert sorted(role for role, _ in results) == ["seg", "sr"], "one of each, whatever died"


def test_a_film_on_which_three_workers_died_is_quarantined_until_somebody_asks_for_it(house: House) -> None:
    film = house.new_film()
    house.traps.set(*WORKING[:3])
    house.take(film)
    house.wait_for_kills(3)
    job = house.node.finished(film.SOPInstanceUID, 120)
    assert (job.state, job.code, job.crashes) == (State.FAILED, "crashes-the-worker", 3)
    assert not house.pacs.results_of(film.SOPInstanceUID)
    house.node.ledger.rerun(job.job_id)
    house.wait_for_result(film)


def test_the_book_of_all_films(house: House) -> None:
    """Nothing lost, nothing doubled, one content per result over all sends and destinations; Orthanc has the same."""
    found = count(house.pacs.journal(), house.taken, RECORDERS)
    assert (found.lost, found.doubled, found.strange) == ([], [], [])
    assert found.results == 2 * len(set(house.taken)), "a SEG and a report each"
    sent = {(one.uid, one.called_ae) for one in house.pacs.journal()}
    assert len(sent) == found.results * len(RECORDERS), "each of them at each destination"
    assert jobs_by_state(house.node.ledger.store)[State.FAILED] == 0
    stored = [one["MainDicomTags"]["SOPInstanceUID"] for one in house.orthanc.get("/instances?expand&since=0&limit=100000")]
    assert sorted(stored) == sorted({one.uid for one in house.pacs.journal()})
    print(f"{found.results} films, {len(SCENES)} scenes, {found.sends_per_uid} sends per result, at most {found.most_sends}")
