"""The sender against a receiver that answers what it likes: what is delivered, repeated and refused, and with which bytes."""

from __future__ import annotations

import errno
import hashlib
import threading
from pathlib import Path

import pytest
from echo_scu import echo
from servers import free_port, wait_for
from waiting_delivery import WaitingDelivery

from dicom_node.cli.demo_pacs import DemoPacs
from dicom_node.storage.records import DeliveryState


@pytest.fixture
def pacs(tmp_path: Path) -> DemoPacs:
    return DemoPacs(tmp_path / "pacs", ae_title="PACS", port=free_port())


def dataset_sha(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha256(data[144 + int.from_bytes(data[140:144], "little") :]).hexdigest()


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_these_answers_mean_delivered(status: int, tmp_path: Path, pacs: DemoPacs) -> None:
    pacs.status = status
    desk = WaitingDelivery(tmp_path, pacs.port)
    with pacs.serving(), desk.sending():
        done = desk.waits_for(DeliveryState.DELIVERED)
    assert (done.status, done.attempts) == (status, 1)


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xC000, 0x0124])
def test_a_permanent_refusal_is_not_repeated_until_somebody_asks(status: int, tmp_path: Path, pacs: DemoPacs) -> None:
    pacs.status = status
    desk = WaitingDelivery(tmp_path, pacs.port)
    with pacs.serving(), desk.sending():
        refused = desk.waits_for(DeliveryState.REFUSED)
        assert (refused.status, refused.attempts) == (status, 1)
        pacs.status = 0x0000
        assert desk.outbox.retry(desk.job_id) == 1
        desk.waits_for(DeliveryState.DELIVERED)
    assert len(pacs.received) == 1


def test_out_of_resources_is_tried_again_with_the_identical_bytes(tmp_path: Path, pacs: DemoPacs) -> None:
    desk = WaitingDelivery(tmp_path, pacs.port)
    pacs.status = 0xA700
    with pacs.serving(), desk.sending():
        wait_for(lambda: desk.delivery.attempts >= 2, 120, "two tries")
        assert desk.delivery.status == 0xA700
        pacs.status = 0x0000
        desk.waits_for(DeliveryState.DELIVERED)
    [(_, file)] = pacs.received
    length = int.from_bytes(desk.bytes[140:144], "little")
    assert dataset_sha(file) == hashlib.sha256(desk.bytes[144 + length :]).hexdigest()


def test_a_pacs_that_is_down_and_one_that_does_not_know_the_class(tmp_path: Path, pacs: DemoPacs) -> None:
    desk = WaitingDelivery(tmp_path, pacs.port)
    with desk.sending():
        wait_for(lambda: desk.delivery.attempts >= 2, 120, "two tries")
        assert "cannot be reached" in (desk.delivery.reason or "")
        assert "cannot be reached" in (echo(desk.config, "PACS") or "")
        with pacs.serving():
            desk.waits_for(DeliveryState.DELIVERED)
            assert echo(desk.config, "PACS") is None


def test_no_presentation_context_is_a_refusal_with_the_remedy(tmp_path: Path) -> None:
    from pynetdicom import AE

    ae = AE("PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    desk = WaitingDelivery(tmp_path, server.socket.getsockname()[1])
    with desk.sending():
        reason = desk.waits_for(DeliveryState.REFUSED).reason
    server.shutdown()
    assert "presentation context" in (reason or "")


def test_an_object_whose_outcome_is_unknown_goes_again_after_a_crash(tmp_path: Path, pacs: DemoPacs) -> None:
    desk = WaitingDelivery(tmp_path, pacs.port)
    assert desk.outbox.sending(desk.delivery)  # a sender died here: on the wire, no answer seen
    with pacs.serving(), desk.sending():
        desk.waits_for(DeliveryState.DELIVERED)


def test_bytes_that_changed_on_disk_are_never_sent(tmp_path: Path, pacs: DemoPacs) -> None:
    desk = WaitingDelivery(tmp_path, pacs.port)
    file = desk.spool.directory / desk.delivery.object.path
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pacs.serving(), desk.sending():
        assert "sha256" in (desk.waits_for(DeliveryState.REFUSED).reason or "")
    assert not pacs.received


def test_a_demo_object_never_leaves_this_machine(tmp_path: Path) -> None:
    desk = WaitingDelivery(tmp_path, 1, destination="ELSEWHERE")
    with desk.sending():
        assert "demo model" in (desk.waits_for(DeliveryState.REFUSED).reason or "")


def test_return_to_sender_goes_to_the_calling_ae(tmp_path: Path, pacs: DemoPacs) -> None:
    desk = WaitingDelivery(tmp_path, pacs.port, destination="@sender")
    with pacs.serving(), desk.sending():
        desk.waits_for(DeliveryState.DELIVERED)
    assert len(pacs.received) == 1


def test_an_object_that_cannot_be_read_just_now_waits(tmp_path: Path, pacs: DemoPacs) -> None:
    """Result: no permission for a moment (or too many open files) is not damage."""
    desk = WaitingDelivery(tmp_path, pacs.port)
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


def test_a_name_that_no_resolver_takes_stops_nobody(tmp_path: Path, pacs: DemoPacs) -> None:
    """The configuration refuses such a name; this one came past it."""
    desk = WaitingDelivery(tmp_path, pacs.port)
    peers = desk.config.peers | {"PACS": desk.config.peers["PACS"].model_copy(update={"host": "pacs..local"})}
    assert "cannot be reached" in (echo(desk.config.model_copy(update={"peers": peers}), "PACS") or "")


def test_pause_keeps_everything_here(tmp_path: Path, pacs: DemoPacs) -> None:
    desk = WaitingDelivery(tmp_path, pacs.port)
    desk.ledger.set_mode("paused")
    with pacs.serving(), desk.sending():
        threading.Event().wait(1.0)
        assert not pacs.received
        desk.ledger.set_mode("running")
        desk.waits_for(DeliveryState.DELIVERED)
