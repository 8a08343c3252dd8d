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
class Site:
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
def site(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
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
            site = Site(node, traps, pacs, orthanc)
            site.take(first := site.new_film())
            site.wait_for_result(first)
            yield site


def test_every_point_is_in_the_product() -> None:
    for scene in SCENES:
        for point in scene.points:
            assert callable(resolve(point.target)), point


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_killed(scene: Scene, site: Site) -> None:
    film = site.new_film()
    if scene.lead == "film twice":
        site.take(film)
        site.wait_for_result(film)
    site.traps.set(*scene.points)
    if scene.lead == "start":
        site.node.kill()
        site.wait_for_kills(len(scene.points))
    tries = site.take(film)
    site.wait_for_kills(len(scene.points))
    site.wait_for_result(film)
    [job] = site.node.ledger.jobs(sop_instance_uid=film.SOPInstanceUID)
    assert (job.state, job.crashes) == (State.SEGMENTED, scene.charged)
    assert job.resends < tries + (scene.lead == "film twice")
    results = {(one.role, one.uid) for one in site.pacs.results_of(film.SOPInstanceUID)}
    assert sorted(role for role, _ in results) == ["seg", "sr"], "one of each, whatever died"


def test_a_film_on_which_three_workers_died_is_quarantined_until_somebody_asks_for_it(site: Site) -> None:
    film = site.new_film()
    site.traps.set(*WORKING[:3])
    site.take(film)
    site.wait_for_kills(3)
    job = site.node.finished(film.SOPInstanceUID, 120)
    assert (job.state, job.code, job.crashes) == (State.FAILED, "crashes-the-worker", 3)
    assert not site.pacs.results_of(film.SOPInstanceUID)
    site.node.ledger.rerun(job.job_id)
    site.wait_for_result(film)


def test_the_book_of_all_films(site: Site) -> None:
    """Nothing lost, nothing doubled, one content per result over all sends and destinations; Orthanc has the same."""
    found = count(site.pacs.journal(), site.taken, RECORDERS)
    assert (found.lost, found.doubled, found.strange) == ([], [], [])
    assert found.results == 2 * len(set(site.taken)), "a SEG and a report each"
    sent = {(one.uid, one.called_ae) for one in site.pacs.journal()}
    assert len(sent) == found.results * len(RECORDERS), "each of them at each destination"
    assert jobs_by_state(site.node.ledger.store)[State.FAILED] == 0
    stored = [one["MainDicomTags"]["SOPInstanceUID"] for one in site.orthanc.get("/instances?expand&since=0&limit=100000")]
    assert sorted(stored) == sorted({one.uid for one in site.pacs.journal()})
    print(f"{found.results} films, {len(SCENES)} scenes, {found.sends_per_uid} sends per result, at most {found.most_sends}")
