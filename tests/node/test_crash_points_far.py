"""Promise 2 with a worker on another machine: kill -9 of the worker server and of the worker at every moment of their talk.

The worker is a process of its own that has the node's URL and a token, and nothing else of it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import instant_model
import pytest
from click.testing import CliRunner
from crash_launcher import Traps, resolve
from crash_points import FAR_SCENES, Scene
from quick_model import quick_model
from recording_pacs import RecordingPacs, count, recording_pacs
from servers import Node, free_port, wait_for
from stubborn_sender import send
from test_crash_points import kept_up

from dicom_node.cli.main import main
from dicom_node.storage.records import State


class Far:
    """A node with a worker server and no worker, a PACS, and a worker on another machine."""

    def __init__(self, folder: Path, node: Node, traps: Traps, pacs: RecordingPacs, port: int) -> None:
        self.folder, self.node, self.traps, self.pacs = folder, node, traps, pacs
        self.numbers = itertools.count(1)
        self.taken: list[str] = []
        token = folder / "token"
        token.write_text(CliRunner().invoke(main, ["workers", "add", "far", "--config", str(node.config_file)]).stdout)
        own = folder / "far.toml"
        own.write_text(f"[segment]\nmin_side_px = {instant_model.MIN_SIDE_PX}\nthreads = 1\ndevice = 'cpu'\n")
        how = ["--node", f"http://127.0.0.1:{port}", "--token-file", str(token), "--config", str(own)]
        how += ["--model", str(quick_model())]
        log = (folder / "far.log").open("wb")
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.cli.main", "work", *how],
            stdout=log,
            stderr=log,
            env=os.environ | traps.environment,
        )

    def log_text(self) -> str:
        return self.node.log_text()[-1500:] + (self.folder / "far.log").read_text()[-1500:]

    def take(self) -> str:
        film = instant_model.film(next(self.numbers))
        send(film, self.node.port)
        self.taken.append(str(film.SOPInstanceUID))
        return self.taken[-1]

    def wait_for_result(self, uid: str) -> None:
        wait_for(lambda: self.pacs.results_of(uid), 90, f"the result ({self.log_text()})")
        self.node.delivered(uid, 120)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder, port = tmp_path_factory.mktemp("far"), free_port()
    traps = Traps(folder / "traps")
    settings = traps.environment | {
        "SEGMENTER_WORK__PROCESSES": "0",
        "SEGMENTER_SERVE__ENABLED": "true",
        "SEGMENTER_SERVE__PORT": str(port),
    }
    with recording_pacs(folder / "pacs") as pacs, kept_up(Node(folder / "node", ("PACS", pacs.port), settings)) as node:
        wait_for(lambda: node.config.ledger_path.is_file(), 120, "the ledger")
        one = Far(folder, node, traps, pacs, port)
        try:
            one.wait_for_result(one.take())
            yield one
        finally:
            one.worker.terminate()
            one.worker.wait(120)


def test_every_far_point_is_in_the_product() -> None:
    for scene in FAR_SCENES:
        for point in scene.points:
            assert callable(resolve(point.target)), point


@pytest.mark.parametrize("scene", FAR_SCENES, ids=str)
def test_killed(scene: Scene, far: Far) -> None:
    far.traps.set(*scene.points)
    uid = far.take()
    wait_for(lambda: len(far.traps.sprung()) == len(scene.points), 120, f"the kill ({far.log_text()})")
    far.wait_for_result(uid)
    [job] = far.node.ledger.jobs(sop_instance_uid=uid)
    assert (job.state, job.crashes, job.attempts) == (State.SEGMENTED, scene.charged, 1 + scene.charged)


def test_the_book_of_all_films(far: Far) -> None:
    found = count(far.pacs.journal(), far.taken, ["PACS"])
    assert (found.lost, found.doubled, found.strange) == ([], [], [])
    assert found.results == 2 * len(far.taken), "a SEG and a report each"
