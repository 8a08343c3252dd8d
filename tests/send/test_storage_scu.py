"""The sender against a receiver that answers what it likes: what is delivered, repeated and refused, and with which bytes."""

from __future__ import annotations

import errno
import hashlib
import io
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from answered_films import running_sender
from servers import free_port, wait_for

from dicom_node.cli.demo_pacs import StandInPacs
from dicom_node.runtime.config import Config, load
from dicom_node.send.storage_scu import echo
from dicom_node.storage.destinations import Router
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, Delivery, DeliveryState, Outcome, State, StoredObject
from dicom_node.storage.spool import Spool
from segmenter import phantom


class Desk:
    """A spool with one answered film whose single object waits for delivery."""

    def __init__(self, folder: Path, port: int, destination: str = "PACS", intended_use: str = "demo") -> None:
        file = folder / "config.toml"
        file.write_text(
            f"[peers.PACS]\nhost = '127.0.0.1'\nport = {port}\n[peers.ELSEWHERE]\nhost = '192.0.2.1'\nport = 104\n"
            f"[send]\ndestinations = ['{destination}']\nfirst_delay_seconds = 0.3\nmax_delay_seconds = 0.5\n"
            "connect_seconds = 2\nresponse_seconds = 2\n[segment]\nallow_demo_model = false\n"
        )
        self.config: Config = load(file)
        self.spool = Spool(self.config.spool_directory, 0)
        self.ledger = Ledger(self.config.ledger_path)
        self.outbox = Outbox(self.ledger.store)
        self.job_id = self.ledger.add_arrival(
            Arrival("1.2.3", "1.2", "1.2.840.10008.1.2.1", "aa", "arrivals/x", 1, "PACS", "PTXSEG", "127.0.0.1")
        ).job_id
        claim = self.ledger.claim("w", 30)
        assert claim is not None
        buffer = io.BytesIO()
        made = phantom.film(phantom.draw(1, shape=(96, 80)), kind="SC", bits=8)
        made.save_as(buffer, enforce_file_format=True)
        stored = self.spool.write_into(self.spool.folder_for(self.job_id, claim.owner), "seg.dcm", buffer.getvalue())
        self.bytes = buffer.getvalue()
        one = StoredObject(
            "seg", "", made.SOPClassUID, made.SOPInstanceUID, stored.sha256, stored.path, stored.size, intended_use
        )
        outcome = Outcome(State.SEGMENTED, content_sha256="c", model_digest="m", objects=(one,))
        self.ledger.finish(claim, outcome, Router.of(self.config).routes(claim.job.arrival))

    @property
    def delivery(self) -> Delivery:
        [one] = self.outbox.of_job(self.job_id)
        return one

    def sending(self) -> AbstractContextManager[None]:
        return running_sender(self.config, self.spool, self.ledger, self.outbox)

    def waits_for(self, state: DeliveryState) -> Delivery:
        wait_for(lambda: self.delivery.state is state, 120, f"{state}, it is {self.delivery}")
        return self.delivery


@pytest.fixture
def pacs(tmp_path: Path) -> StandInPacs:
    return StandInPacs(tmp_path / "pacs", ae_title="PACS", port=free_port())


def dataset_sha(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha256(data[144 + int.from_bytes(data[140:144], "little") :]).hexdigest()


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_these_answers_mean_delivered(status: int, tmp_path: Path, pacs: StandInPacs) -> None:
    pacs.status = status
    desk = Desk(tmp_path, pacs.port)
    with pacs.serving(), desk.sending():
        done = desk.waits_for(DeliveryState.DELIVERED)
    assert (done.status, done.attempts) == (status, 1)


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xC000, 0x0124])
def test_a_permanent_refusal_is_not_repeated_until_somebody_asks(status: int, tmp_path: Path, pacs: StandInPacs) -> None:
    pacs.status = status
    desk = Desk(tmp_path, pacs.port)
    with pacs.serving(), desk.sending():
        refused = desk.waits_for(DeliveryState.REFUSED)
        assert (refused.status, refused.attempts) == (status, 1)
        pacs.status = 0x0000
        assert desk.outbox.retry(desk.job_id) == 1
        desk.waits_for(DeliveryState.DELIVERED)
    assert len(pacs.received) == 1


def test_out_of_resources_is_tried_again_with_the_identical_bytes(tmp_path: Path, pacs: StandInPacs) -> None:
    desk = Desk(tmp_path, pacs.port)
    pacs.status = 0xA700
    with pacs.serving(), desk.sending():
        wait_for(lambda: desk.delivery.attempts >= 2, 120, "two tries")
        assert desk.delivery.status == 0xA700
        pacs.status = 0x0000
        desk.waits_for(DeliveryState.DELIVERED)
    [(_, file)] = pacs.received
    length = int.from_bytes(desk.bytes[140:144], "little")
    assert dataset_sha(file) == hashlib.sha256(desk.bytes[144 + length :]).hexdigest()


def test_a_pacs_that_is_down_and_one_that_does_not_know_the_class(tmp_path: Path, pacs: StandInPacs) -> None:
    desk = Desk(tmp_path, pacs.port)
    with desk.sending():
        wait_for(lambda: desk.delivery.attempts >= 2, 120, "two tries")
        assert "can not be reached" in (desk.delivery.reason or "")
        assert "can not be reached" in (echo(desk.config, "PACS") or "")
        with pacs.serving():
            desk.waits_for(DeliveryState.DELIVERED)
            assert echo(desk.config, "PACS") is None


def test_no_presentation_context_is_a_refusal_with_the_remedy(tmp_path: Path) -> None:
    from pynetdicom import AE

    ae = AE("PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    desk = Desk(tmp_path, server.socket.getsockname()[1])
    with desk.sending():
        reason = desk.waits_for(DeliveryState.REFUSED).reason
    server.shutdown()
    assert "presentation context" in (reason or "")


def test_an_object_whose_outcome_is_unknown_goes_again_after_a_crash(tmp_path: Path, pacs: StandInPacs) -> None:
    desk = Desk(tmp_path, pacs.port)
    assert desk.outbox.sending(desk.delivery)  # a sender died here: on the wire, no answer seen
    with pacs.serving(), desk.sending():
        desk.waits_for(DeliveryState.DELIVERED)


def test_bytes_that_changed_on_disk_are_never_sent(tmp_path: Path, pacs: StandInPacs) -> None:
    desk = Desk(tmp_path, pacs.port)
    file = desk.spool.directory / desk.delivery.object.path
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pacs.serving(), desk.sending():
        assert "sha256" in (desk.waits_for(DeliveryState.REFUSED).reason or "")
    assert not pacs.received


def test_a_demo_object_never_leaves_this_machine(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1, destination="ELSEWHERE")
    with desk.sending():
        assert "demo model" in (desk.waits_for(DeliveryState.REFUSED).reason or "")


def test_return_to_sender_goes_to_the_calling_ae(tmp_path: Path, pacs: StandInPacs) -> None:
    desk = Desk(tmp_path, pacs.port, destination="@sender")
    with pacs.serving(), desk.sending():
        desk.waits_for(DeliveryState.DELIVERED)
    assert len(pacs.received) == 1


def test_an_object_that_can_not_be_read_just_now_waits(tmp_path: Path, pacs: StandInPacs) -> None:
    """Result: no permission for a moment (or too many open files) is not damage."""
    desk = Desk(tmp_path, pacs.port)
    read, troubled = desk.spool.read, threading.Event()

    def in_trouble(path: str) -> bytes:
        if troubled.is_set():
            return read(path)
        raise OSError(errno.EMFILE, "Too many open files")

    desk.spool.read = in_trouble  # type: ignore[method-assign]
    with pacs.serving(), desk.sending():
        wait_for(lambda: desk.delivery.attempts, 120, "a try")
        assert desk.delivery.state is DeliveryState.PENDING and "Too many open files" in (desk.delivery.reason or "")
        troubled.set()
        desk.waits_for(DeliveryState.DELIVERED)


def test_a_name_that_no_resolver_takes_stops_nobody(tmp_path: Path, pacs: StandInPacs) -> None:
    """The configuration refuses such a name; this one came past it."""
    desk = Desk(tmp_path, pacs.port)
    peers = desk.config.peers | {"PACS": desk.config.peers["PACS"].model_copy(update={"host": "pacs..local"})}
    assert "can not be reached" in (echo(desk.config.model_copy(update={"peers": peers}), "PACS") or "")


def test_pause_keeps_everything_here(tmp_path: Path, pacs: StandInPacs) -> None:
    desk = Desk(tmp_path, pacs.port)
    desk.ledger.set_mode("paused")
    with pacs.serving(), desk.sending():
        threading.Event().wait(1.0)
        assert not pacs.received
        desk.ledger.set_mode("running")
        desk.waits_for(DeliveryState.DELIVERED)
