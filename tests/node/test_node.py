"""A whole node with its processes, and what a night can do to it: kills, a Redis that dies, broken films."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pynetdicom
import pytest
from click.testing import CliRunner
from pynetdicom import AE
from pynetdicom.presentation import build_context
from servers import Node, running_node, running_redis, store, wait_for

from dicom_node.cli.demo_pacs import DemoPacs
from dicom_node.cli.main import main
from dicom_node.receive.storage_scp import part10_head
from dicom_node.runtime.config_sections import Segment
from dicom_node.storage.records import State
from dicom_node.work.model import model_folder
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom

PATIENT = "Zzyzx^Quilliam"
# Films with a pneumothorax of 2.7 % of the film and more: 7, 10, 29, 38, 54, 69, 92, 124. The model is not what is tested here.


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPacs]:
    with DemoPacs(tmp_path_factory.mktemp("pacs"), ae_title="PACS").serving() as standin:
        yield standin


@pytest.fixture(scope="module")
def node(pacs: DemoPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node"), ("PACS", pacs.port)) as running:
        yield running


def film(seed: int, pneumothorax: bool = True) -> pydicom.Dataset:
    drawn = draw_phantom(seed, shape=(1100, 900), pneumothorax=pneumothorax)
    dataset = phantom_dataset(drawn, kind="DX", bits=12)
    dataset.PatientName = PATIENT
    return dataset


def segs_of(pacs: DemoPacs, source: pydicom.Dataset) -> list[tuple[str, bytes]]:
    """(SOP Instance UID, dataset bytes) of every SEG of this film that the PACS was ever sent."""
    found = []
    for uid, file in pacs.received:
        seg = pydicom.dcmread(file)
        if seg.StudyInstanceUID == source.StudyInstanceUID and seg.Modality == "SEG":
            found.append((uid, bytes(file.read_bytes())))
    return found


def claimed_pid(node: Node, uid: str) -> int | None:
    row = node.ledger.store.read().execute("SELECT pid FROM jobs WHERE sop_instance_uid = ? AND state = 'claimed'", (uid,))
    found = row.fetchone()
    return found["pid"] if found else None


def test_kill_9_of_the_worker_in_the_middle_of_a_film_is_one_seg(node: Node, pacs: DemoPacs) -> None:
    source = film(7)
    assert store(source, node.port) == 0x0000
    os.kill(wait_for(lambda: claimed_pid(node, source.SOPInstanceUID), 120, "a claim"), signal.SIGKILL)
    node.delivered(source.SOPInstanceUID)
    job = node.job_of(source.SOPInstanceUID)
    assert (job.crashes, job.attempts, job.finding) == (1, 2, "pneumothorax")
    assert len(segs_of(pacs, source)) == 1


def test_kill_9_of_the_whole_node_loses_nothing_and_charges_nobody(node: Node, pacs: DemoPacs) -> None:
    source = film(10)
    children = node.children()
    assert store(source, node.port) == 0x0000
    wait_for(lambda: claimed_pid(node, source.SOPInstanceUID), 120, "a claim")
    node.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()), 120, "the children's death")
    node.start()
    node.delivered(source.SOPInstanceUID)
    assert node.job_of(source.SOPInstanceUID).crashes == 0
    assert len({uid for uid, _ in segs_of(pacs, source)}) == 1
    assert len({data for _, data in segs_of(pacs, source)}) == 1


@pytest.mark.parametrize("child", ["receive", "work", "send"])
def test_a_process_that_dies_is_started_again(node: Node, child: str) -> None:
    before = node.children()[child]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: node.children()[child] != before, 120, "a new process")
    source = film(23, pneumothorax=False)
    wait_for(lambda: store(source, node.port) == 0x0000, 120, "an accepted film")


def test_pause_drain_and_resume(node: Node) -> None:
    run = CliRunner()
    arguments = ["--config", str(node.config_file)]
    run.invoke(main, ["pause", *arguments])
    source = film(24, pneumothorax=False)
    assert store(source, node.port) == 0x0000, "paused: films are still taken"
    pause = 2.0
    with pytest.raises(AssertionError, match="did not come true"):
        wait_for(lambda: node.job_of(source.SOPInstanceUID).state is not State.RECEIVED, pause)
    run.invoke(main, ["drain", *arguments])
    node.finished(source.SOPInstanceUID)
    with pytest.raises(AssertionError, match="refused"):
        store(film(25), node.port)
    run.invoke(main, ["resume", *arguments])
    wait_for(lambda: store(film(25, pneumothorax=False), node.port) == 0x0000, 120)


def bad_films() -> dict[str, tuple[pydicom.Dataset, State, str]]:
    """Name -> (dataset, expected state, expected code)."""
    films: dict[str, tuple[pydicom.Dataset, State, str]] = {}

    def add(name: str, state: State, code: str, **changes: object) -> pydicom.Dataset:
        dataset = film(40 + len(films), pneumothorax=False)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        films[name] = (dataset, state, code)
        return dataset

    add("lateral", State.SKIPPED, "lateral-view", ViewPosition="LL")
    add("a hand", State.SKIPPED, "not-a-chest", BodyPartExamined="HAND")
    add("rows lie", State.FAILED, "truncated-pixel-data", Rows=9000)
    add("absurd size", State.SKIPPED, "too-large", Rows=65535, Columns=65535)
    add("no rows", State.SKIPPED, "too-small", Rows=0)
    without = add("no pixels", State.SKIPPED, "no-pixels")
    del without.PixelData
    truncated = add("truncated", State.FAILED, "truncated-pixel-data")
    truncated.PixelData = truncated.PixelData[: len(truncated.PixelData) // 3 // 2 * 2]
    return films


def test_bad_films_are_answered_with_a_code_and_the_worker_goes_on(node: Node, pacs: DemoPacs) -> None:
    films = bad_films()
    for dataset, _, _ in films.values():
        assert store(dataset, node.port) == 0x0000
    for name, (dataset, state, code) in films.items():
        job = node.finished(dataset.SOPInstanceUID)
        assert (name, job.state, job.code) == (name, state, code)
        assert job.sentence and PATIENT not in job.sentence
        assert job.crashes == 0
    good = film(38)
    good.AccessionNumber = "A" * 56
    good.StudyDate = "e3b0c44298fc1c14"
    good.ImagerPixelSpacing = [0, 0]
    assert store(good, node.port) == 0x0000
    node.delivered(good.SOPInstanceUID)
    [(_, data)] = segs_of(pacs, good)
    seg = pydicom.dcmread(io.BytesIO(data))
    assert (seg.AccessionNumber, seg["StudyDate"].value) == ("A" * 56, "e3b0c44298fc1c14")


def test_garbage_that_is_no_dataset_is_kept_and_answered(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, sop_class = "1.2.826.0.1.99", "1.2.840.10008.5.1.4.1.1.1.1"
    file = tmp_path / "garbage.dcm"
    head = part10_head(sop_class, uid, "1.2.840.10008.1.2.1", "TESTSCU")
    file.write_bytes(head + np.random.default_rng(1).bytes(5000))
    ae = AE("TESTSCU")
    ae.acse_timeout = ae.dimse_timeout = 120
    monkeypatch.setattr(pynetdicom._config, "STORE_SEND_CHUNKED_DATASET", True)  # the file's bytes as they are
    association = ae.associate(
        "127.0.0.1", node.port, contexts=[build_context(sop_class, ["1.2.840.10008.1.2.1"])], ae_title="PTXSEG"
    )
    assert association.send_c_store(file).Status == 0x0000, "the sender is answered"
    association.release()
    job = node.finished(uid)
    assert job.state in (State.FAILED, State.SKIPPED)
    assert job.code
    assert job.crashes == 0


def test_the_same_uid_with_other_pixels_is_a_listed_conflict(node: Node, pacs: DemoPacs) -> None:
    first, second = film(29), film(29)
    second.PixelData = bytes(reversed(first.PixelData))
    for one in (first, second):
        assert store(one, node.port) == 0x0000
        wait_for(lambda: all(j.state is not State.RECEIVED and j.state is not State.CLAIMED
                             for j in node.ledger.jobs(sop_instance_uid=first.SOPInstanceUID)), 120)  # fmt: skip
    jobs = node.ledger.jobs(sop_instance_uid=first.SOPInstanceUID)
    assert sorted(job.revision for job in jobs) == [1, 2]
    assert first.SOPInstanceUID in dict(node.ledger.conflicts())


def test_status_jobs_and_show_read_well_and_as_json(node: Node) -> None:
    run, arguments = CliRunner(), ["--config", str(node.config_file)]
    status = json.loads(run.invoke(main, ["status", "--json", *arguments]).stdout)
    assert status["running"] is True
    assert status["jobs"]["segmented"] >= 1
    assert status["codes"]["lateral-view"] == 1
    jobs = json.loads(run.invoke(main, ["jobs", "--json", "--limit", "100", *arguments]).stdout)
    found = next(job for job in jobs if job["finding"] == "pneumothorax")
    shown = json.loads(run.invoke(main, ["show", found["job"], "--json", *arguments]).stdout)
    assert shown["deliveries"][0]["state"] == "delivered"
    point = json.loads((model_folder(Segment()) / "manifest.json").read_text())
    assert shown["threshold"] == point["operating_points"][point["operating_point"]]["image_threshold"]
    for verb in (["status"], ["jobs"], ["show", found["job"]]):
        result = run.invoke(main, [*verb, *arguments])
        assert result.exit_code == 0 and result.stdout.strip()


def test_no_patient_data_in_logs_names_or_ledger_and_nobody_else_may_read(node: Node) -> None:
    words = [PATIENT, "Zzyzx", "Quilliam"]
    assert not [word for word in words if word in node.log_text()]
    assert not [word for word in words if word.encode() in node.config.ledger_path.read_bytes()]
    for path in node.config.node.directory.rglob("*"):
        assert not [word for word in words if word in path.name]
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, f"{path} can be read by others"


def test_sigterm_stops_in_order_and_quickly(pacs: DemoPacs, tmp_path: Path) -> None:
    node = Node(tmp_path, ("PACS", pacs.port)).start()
    source = film(54)
    assert store(source, node.port) == 0x0000
    wait_for(lambda: claimed_pid(node, source.SOPInstanceUID), 120, "a claim")
    assert node.stop() == 0
    job = node.job_of(source.SOPInstanceUID)
    assert (job.state, job.attempts, job.crashes) == (State.SEGMENTED, 1, 0), "the film in work is finished"
    node.start()
    node.delivered(source.SOPInstanceUID)
    node.stop()


def test_redis_as_the_broker_and_redis_dying_loses_no_film(tool, pacs: DemoPacs, tmp_path: Path) -> None:
    with (
        running_redis(tool("redis-server"), tmp_path / "redis") as redis,
        running_node(tmp_path / "node", ("PACS", pacs.port), SEGMENTER_QUEUE__BROKER=redis.url) as node,
    ):
        before, during, after = film(69), film(92), film(124)
        assert store(before, node.port) == 0x0000
        node.delivered(before.SOPInstanceUID)
        redis.kill()
        assert store(during, node.port) == 0x0000, "the receiver does not need the broker"
        shutil.rmtree(tmp_path / "redis")  # it comes back empty
        redis.start()
        assert store(after, node.port) == 0x0000
        for one in (during, after):
            node.delivered(one.SOPInstanceUID, 180)
        assert [len(segs_of(pacs, one)) for one in (before, during, after)] == [1, 1, 1]
