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
    waiting = WaitingDelivery(tmp_path, pacs.port)
    with pacs.serving(), waiting.sending():
        done = waiting.waits_for(DeliveryState.DELIVERED)
    assert (done.status, done.attempts) == (status, 1)


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xC000, 0x0124])
def test_a_permanent_refusal_is_not_repeated_until_somebody_asks(status: int, tmp_path: Path, pacs: DemoPacs) -> None:
    pacs.status = status
    waiting = WaitingDelivery(tmp_path, pacs.port)
    with pacs.serving(), waiting.sending():
        refused = waiting.waits_for(DeliveryState.REFUSED)
        assert (refused.status, refused.attempts) == (status, 1)
        pacs.status = 0x0000
        assert waiting.outbox.retry(waiting.job_id) == 1
        waiting.waits_for(DeliveryState.DELIVERED)
    assert len(pacs.received) == 1


def test_out_of_resources_is_tried_again_with_the_identical_bytes(tmp_path: Path, pacs: DemoPacs) -> None:
    waiting = WaitingDelivery(tmp_path, pacs.port)
    pacs.status = 0xA700
    with pacs.serving(), waiting.sending():
        wait_for(lambda: waiting.delivery.attempts >= 2, 120, "two tries")
        assert waiting.delivery.status == 0xA700
        pacs.status = 0x0000
        waiting.waits_for(DeliveryState.DELIVERED)
    [(_, file)] = pacs.received
    length = int.from_bytes(waiting.bytes[140:144], "little")
    assert dataset_sha(file) == hashlib.sha256(waiting.bytes[144 + length :]).hexdigest()


def test_a_pacs_that_is_down_and_one_that_does_not_know_the_class(tmp_path: Path, pacs: DemoPacs) -> None:
    waiting = WaitingDelivery(tmp_path, pacs.port)
    with waiting.sending():
        wait_for(lambda: waiting.delivery.attempts >= 2, 120, "two tries")
        assert "cannot be reached" in (waiting.delivery.reason or "")
        assert "cannot be reached" in (echo(waiting.config, "PACS") or "")
        with pacs.serving():
            waiting.waits_for(DeliveryState.DELIVERED)
            assert echo(waiting.config, "PACS") is None


def test_no_presentation_context_is_a_refusal_with_the_remedy(tmp_path: Path) -> None:
    from pynetdicom import AE

    ae = AE("PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    waiting = WaitingDelivery(tmp_path, server.socket.getsockname()[1])
    with waiting.sending():
        reason = waiting.waits_for(DeliveryState.REFUSED).reason
    server.shutdown()
    assert "presentation context" in (reason or "")


def test_an_object_whose_outcome_is_unknown_goes_again_after_a_crash(tmp_path: Path, pacs: DemoPacs) -> None:
    waiting = WaitingDelivery(tmp_path, pacs.port)
    assert waiting.outbox.sending(waiting.delivery)  # a sender died here: on the wire, no answer seen
    with pacs.serving(), waiting.sending():
        waiting.waits_for(DeliveryState.DELIVERED)


def test_bytes_that_changed_on_disk_are_never_sent(tmp_path: Path, pacs: DemoPacs) -> None:
    waiting = WaitingDelivery(tmp_path, pacs.port)
    file = waiting.spool.directory / waiting.delivery.object.path
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pacs.serving(), waiting.sending():
        assert "sha256" in (waiting.waits_for(DeliveryState.REFUSED).reason or "")
    assert not pacs.received


def test_a_demo_object_never_leaves_this_machine(tmp_path: Path) -> None:
    waiting = WaitingDelivery(tmp_path, 1, destination="ELSEWHERE")
    with waiting.sending():
        assert "demo model" in (waiting.waits_for(DeliveryState.REFUSED).reason or "")


def test_return_to_sender_goes_to_the_calling_ae(tmp_path: Path, pacs: DemoPacs) -> None:
    waiting = WaitingDelivery(tmp_path, pacs.port, destination="@sender")
    with pacs.serving(), waiting.sending():
        waiting.waits_for(DeliveryState.DELIVERED)
    assert len(pacs.received) == 1


def test_an_object_that_cannot_be_read_just_now_waits(tmp_path: Path, pacs: DemoPacs) -> None:
    """Result: no permission for a moment (or too many open files) is not damage."""
    waiting = WaitingDelivery(tmp_path, pacs.port)
    read, troubled = waiting.spool.read, threading.Event()

    def in_trouble(path: str) -> bytes:
        if troubled.is_set():
            return read(path)
        raise OSError(errno.EMFILE, "Too many open files")

    waiting.spool.read = in_trouble  # type: ignore[method-assign]
    with pacs.serving(), waiting.sending():
        wait_for(lambda: waiting.delivery.attempts, 120, "a try")
        assert waiting.delivery.state is DeliveryState.PENDING and "Too many open files" in (waiting.delivery.reason or "")
        troubled.set()
        waiting.waits_for(DeliveryState.DELIVERED)


def test_a_name_that_no_resolver_takes_stops_nobody(tmp_path: Path, pacs: DemoPacs) -> None:
    """The configuration refuses such a name; this one came past it."""
    waiting = WaitingDelivery(tmp_path, pacs.port)
    peers = waiting.config.peers | {"PACS": waiting.config.peers["PACS"].model_copy(update={"host": "pacs..local"})}
    assert "cannot be reached" in (echo(waiting.config.model_copy(update={"peers": peers}), "PACS") or "")


def test_pause_keeps_everything_here(tmp_path: Path, pacs: DemoPacs) -> None:
    waiting = WaitingDelivery(tmp_path, pacs.port)
    waiting.ledger.set_mode("paused")
    with pacs.serving(), waiting.sending():
        threading.Event().wait(1.0)
        assert not pacs.received
        waiting.ledger.set_mode("running")
        waiting.waits_for(DeliveryState.DELIVERED)
