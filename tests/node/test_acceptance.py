"""A film by dcmtk's storescu -> our node -> a real Orthanc, and out of Orthanc again. Geometry on non-square films."""

from __future__ import annotations

import functools
import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from servers import NODE_AE, SENDER, Node, Orthanc, running_node, running_orthanc, wait_for

from dicom_node.cli.film_report import dice
from dicom_node.storage.records import Job, State
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.phantom.values import Phantom

# (seed, pneumothorax, kind, photometric, bits, shape): none is square, both photometric interpretations, 8 to 16 bit.
FILMS = [
    (60, True, "DX", "MONOCHROME2", 12, (1250, 1024)),
    (131, True, "CR", "MONOCHROME1", 10, (1024, 1300)),
    (16, False, "SC", "MONOCHROME2", 8, (1100, 900)),
]


@pytest.fixture(scope="module", params=["onnx", "torch"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def orthanc(engine: str, tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One for each engine: both make the same UIDs, and an archive must not see them with other bytes."""
    with running_orthanc(tool("Orthanc"), tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="module")
def node(engine: str, orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder, settings = tmp_path_factory.mktemp("node"), {"SEGMENTER_SEGMENT__ENGINE": engine}
    with running_node(folder, ("ORTHANC", orthanc.dicom_port), **settings) as running:
        yield running


drawn_once = functools.cache(draw_phantom)  # for both engines


def drawn(folder: Path, film: tuple) -> tuple[Path, Phantom, pydicom.Dataset]:
    seed, positive, kind, photometric, bits, shape = film
    picture = drawn_once(seed, shape=shape, pneumothorax=positive)
    dataset = phantom_dataset(picture, kind=kind, photometric=photometric, bits=bits)
    file = folder / f"{seed}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return file, picture, dataset


def storescu(tool: Callable[[str], str], node: Node, *files: Path, options: tuple[str, ...] = ()) -> None:
    command = [tool("storescu"), "-aet", SENDER, "-aec", NODE_AE, *options, "127.0.0.1", str(node.port), *map(str, files)]
    subprocess.run(command, check=True, timeout=300)


def complaints(tool: Callable[[str], str], data: bytes) -> set[str]:
    """What dciodvfy reports (errors and warnings)."""
    done = subprocess.run([tool("dciodvfy"), "-"], input=data, capture_output=True, timeout=300)
    lines = (done.stderr + done.stdout).decode("utf-8", "replace").splitlines()
    return {line for line in lines if line.startswith(("Error", "Warning"))}


@pytest.mark.parametrize("film", FILMS, ids=lambda film: f"{film[2]}-{film[3]}-{film[4]}bit")
def test_a_film_in_and_its_seg_out_of_the_pacs(film, tool, node: Node, orthanc: Orthanc, tmp_path: Path) -> None:
    file, picture, source = drawn(tmp_path, film)
    storescu(tool, node, file)
    node.delivered(source.SOPInstanceUID)
    # Found by a DICOM query, as a workstation would.
    query = [
        *(tool("findscu"), "-S", "-aet", SENDER, "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom_port)),
        *("-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={source.StudyInstanceUID}", "-k", "Modality=SEG"),
    ]
    found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=300)
    instances = orthanc.find(StudyInstanceUID=source.StudyInstanceUID, Modality="SEG")
    if not picture.pneumothorax:
        assert node.job_of(source.SOPInstanceUID).finding == "none"
        assert not instances
        assert len(orthanc.find(StudyInstanceUID=source.StudyInstanceUID, Modality="SR")) == 1, "the report that says so"
        return
    assert "SEG" in found.stdout + found.stderr
    assert len(instances) == 1
    data = orthanc.file(instances[0])
    seg = hd.seg.segread(io.BytesIO(data))
    mask = seg.get_pixels_by_source_instance(
        [source.SOPInstanceUID], combine_segments=False, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    mask = np.squeeze(mask).astype(bool)
    assert mask.shape == picture.truth.shape
    assert dice(mask, picture.truth) > 0.5
    # Turned, mirrored or inverted it would lie elsewhere.
    assert dice(mask[:, ::-1], picture.truth) < 0.2
    assert dice(mask[::-1], picture.truth) < 0.2
    assert complaints(tool, data) <= complaints(tool, file.read_bytes())
    assert (seg.StudyInstanceUID, seg.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert "DEMO - NOT FOR CLINICAL USE" in seg.SeriesDescription


def test_the_same_film_twice_and_in_five_more_transfer_syntaxes_is_one_seg(tool, node, orthanc, tmp_path) -> None:
    file, _, source = drawn(tmp_path, (55, True, "DX", "MONOCHROME2", 12, (1250, 1000)))
    storescu(tool, node, file)
    storescu(tool, node, file)
    # Lossless: dcmtk keeps the SOP Instance UID, the film is the same one.
    forms = {
        "-xi": [tool("dcmconv"), "+ti"],
        "-xb": [tool("dcmconv"), "+tb"],
        "-xr": [tool("dcmcrle")],
        "-xs": [tool("dcmcjpeg"), "+e1"],
        "-xt": [tool("dcmcjpls")],
    }
    for propose, command in forms.items():
        other = tmp_path / f"{propose}.dcm"
        subprocess.run([*command, str(file), str(other)], check=True, timeout=300)
        storescu(tool, node, other, options=(propose,))

    def jobs() -> list[Job]:
        return node.ledger.jobs(sop_instance_uid=source.SOPInstanceUID)

    wait_for(lambda: all(job.state is State.SEGMENTED for job in jobs()), 180, "six answers")
    node.delivered(source.SOPInstanceUID)
    assert len(jobs()) == 6, "one job for each transfer syntax; the exact repetition is only counted"
    assert sum(job.same_as is None for job in jobs()) == 1
    assert sum(job.resends for job in jobs()) == 1
    assert len(orthanc.find(StudyInstanceUID=source.StudyInstanceUID, Modality="SEG")) == 1
    assert not node.ledger.conflicts()


def test_a_pacs_that_is_down_gets_its_seg_when_it_is_up_again(tool, node: Node, orthanc: Orthanc, tmp_path: Path) -> None:
    file, _, source = drawn(tmp_path, (132, True, "DX", "MONOCHROME2", 12, (1200, 1000)))
    orthanc.stop()
    try:
        storescu(tool, node, file)
        job = node.finished(source.SOPInstanceUID)
        wait_for(lambda: node.outbox.of_job(job.job_id)[0].attempts >= 2, 120, "two tries")
    finally:
        orthanc.start()
    node.delivered(source.SOPInstanceUID)
    assert len(orthanc.find(StudyInstanceUID=source.StudyInstanceUID, Modality="SEG")) == 1
    assert node.job_of(source.SOPInstanceUID).attempts == 1, "a PACS that is down never costs inference twice"
