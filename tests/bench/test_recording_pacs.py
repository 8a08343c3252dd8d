"""The judge is judged: the recording PACS writes down what it got, and the count sees what is lost or doubled."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from answered_films import AnsweredFilms
from instant_model import film
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage
from raw_peer import associate_rq
from recording_pacs import IMPLICIT_ONLY, NO_LENGTH, Received, RecordingPacs, count, recording_pacs
from servers import wait_for
from stubborn_sender import try_once

from dicom_node.storage.records import DeliveryState

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from hospital import Hospital

ONE = Received("film-1", "seg", "model", "result-1", "aa", 1.0, "NODE", "PACS")
TWO = replace(ONE, source="film-2", uid="result-2", sha256="bb")


def test_each_result_once_is_all_that_is_right() -> None:
    found = count([ONE, TWO], ["film-1", "film-2"], ["PACS"])
    assert (found.results, found.lost, found.doubled, found.strange) == (2, [], [], [])
    again = count([ONE, TWO, ONE], ["film-1", "film-2"], ["PACS"])
    assert (again.doubled, again.sends_per_uid, again.most_sends) == ([], 1.5, 2)


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, uid="result-3"),  # another UID for the same film, role and model
        replace(ONE, sha256="cc"),  # the same UID with other bytes
        replace(ONE, sha256="cc", called_ae="ARCHIVE"),  # ... at another destination
    ],
)
def test_two_results_of_one_film_are_doubled(other: Received) -> None:
    assert count([ONE, other], ["film-1"], ["PACS"]).doubled == ["film-1"]


def test_a_film_without_a_result_somewhere_is_lost_and_one_that_nobody_sent_is_strange() -> None:
    assert count([ONE], ["film-1", "film-2"], ["PACS"]).lost == ["film-2"]
    assert count([ONE], ["film-1"], ["PACS", "ARCHIVE"]).lost == ["film-1"]
    assert count([ONE, TWO], ["film-1"], ["PACS"]).strange == ["film-2"]
    assert not count([ONE, replace(ONE, model="another", uid="result-3")], ["film-1"], ["PACS"]).doubled


def test_films_that_are_sent_at_the_same_time_do_not_share_their_elements() -> None:
    hospital = Hospital(node=None, pacs=None, orthanc=None, originals=[film(1)])  # type: ignore[arg-type]
    first = hospital.new_film()
    uid, pixels = str(first.SOPInstanceUID), first.PixelData
    second = hospital.new_film()
    assert (first.SOPInstanceUID, first.file_meta.MediaStorageSOPInstanceUID, first.PixelData) == (uid, uid, pixels)
    assert second.SOPInstanceUID != uid and second.PixelData != pixels


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingPacs]:
    with recording_pacs(tmp_path_factory.mktemp("pacs")) as running:
        yield running


def seg(uid: str, source: str) -> Dataset:
    dataset, series, instance = Dataset(), Dataset(), Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = SegmentationStorage, uid, "SEG"
    dataset.DeviceSerialNumber = "digest"
    instance.ReferencedSOPInstanceUID = source
    series.ReferencedInstanceSequence = [instance]
    dataset.ReferencedSeriesSequence = [series]
    return dataset


def offered(pacs: RecordingPacs, dataset: Dataset, called: str = "PACS") -> int | None:
    return try_once(dataset, pacs.port, "NODE", SegmentationStorage, ExplicitVRLittleEndian, called)


def test_what_it_was_sent_stands_in_its_book(pacs: RecordingPacs) -> None:
    assert offered(pacs, seg("1.2.1", "1.2.100")) == 0x0000
    assert offered(pacs, seg("1.2.1", "1.2.100"), called="ARCHIVE") == 0x0000
    first, second = pacs.results_of("1.2.100")
    assert (first.role, first.model, first.uid, first.called_ae) == ("seg", "digest", "1.2.1", "PACS")
    assert (second.called_ae, second.sha256) == ("ARCHIVE", first.sha256)


def test_it_misbehaves_on_request(pacs: RecordingPacs) -> None:
    pacs.behave(status=0xA700)
    assert offered(pacs, seg("1.2.2", "1.2.200")) == 0xA700
    assert not pacs.results_of("1.2.200"), "what it refused it does not have"
    pacs.behave(abort=True)
    assert offered(pacs, seg("1.2.2", "1.2.200")) is None
    assert len(pacs.results_of("1.2.200")) == 1, "stored, and the sender does not know"
    pacs.behave()
    assert offered(pacs, seg("1.2.2", "1.2.200")) == 0x0000


def test_it_negotiates_in_its_own_way_under_a_title(tmp_path: Path) -> None:
    """What PS3.8 D.1 and PS3.5 10.1 allow: no word about the longest PDU, and the default transfer syntax alone."""
    with recording_pacs(tmp_path, PACS=NO_LENGTH, ARCHIVE=IMPLICIT_ONLY) as pacs:
        films = AnsweredFilms(tmp_path / "films", pacs.port, 2, others={"ARCHIVE": pacs.port})
        with films.sending():
            films.all_are(DeliveryState.DELIVERED)
            wait_for(lambda: len(pacs.journal()) == 4, 120)
        written = {one.called_ae: one.syntax for one in pacs.journal()}
        with socket.create_connection(("127.0.0.1", pacs.port), 20) as line:
            line.sendall(associate_rq(called="PACS"))
            answer = line.recv(65536)
    assert written == {"PACS": "1.2.840.10008.1.2.1", "ARCHIVE": "1.2.840.10008.1.2"}
    assert b"\x51\0\0\4" not in answer and b"\x52\0" in answer
    assert not count(pacs.journal(), films.sources, ["PACS", "ARCHIVE"]).doubled
