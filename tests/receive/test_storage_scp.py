"""The receiver with real sockets: success means safe, strangers cannot store, everybody is answered."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE
from raw_peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, CR, EXPLICIT, RawPeer, associate_rq, c_store
from receiver_node import Node, eventually, film, running, send

from dicom_node.dimse.contexts import SOP_CLASSES, TRANSFER_SYNTAXES, VERIFICATION, supported_contexts
from dicom_node.receive.storage_scp import Receiver, bind
from dicom_node.runtime.config_sections import Receive
from dicom_node.runtime.errors import ConfigError
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.spool import Spool
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(tmp_path) as one:
        yield one


# -- success means safe -------------------------------------------------------------------------------------------


def test_a_film_is_stored_as_it_came_with_a_head_of_ours(node: Node) -> None:
    assert send(node.port, film()) == 0x0000
    [file] = node.files()
    [job] = node.ledger.jobs()
    stored = pydicom.dcmread(file)
    assert stored.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert stored.file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert stored.file_meta.TransferSyntaxUID == EXPLICIT
    assert stored.PatientName == "Nobody^Knows"
    arrival = job.arrival
    assert (arrival.sop_instance_uid, arrival.sop_class_uid, arrival.transfer_syntax_uid) == ("1.2.3.4", CR, EXPLICIT)
    assert (arrival.calling_ae, arrival.called_ae, arrival.host) == ("MODALITY", "PTXSEG", "127.0.0.1")
    assert node.spool.directory / arrival.path == file
    assert arrival.size == file.stat().st_size
    assert eventually(lambda: node.journal() == [("MODALITY", "released", 1)])


def test_success_only_after_the_commit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order on the way to 0000: write, fsync, rename, fsync of the folder, commit; the answer comes last."""
    trace: list[str] = []

    def traced(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            result = real(*arguments, **named)
            trace.append(name)
            return result

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, traced(name, getattr(os, name)))
    monkeypatch.setattr(node.ledger, "add_arrival", traced("commit", node.ledger.add_arrival))
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store())
        assert peer.status() == (0x0000, "")
    assert trace == ["fsync", "fsync", "rename", "fsync", "commit"]  # the first: a new shelf


def test_no_answer_before_the_commit_returns(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    may_commit = threading.Event()
    real = node.ledger.add_arrival
    monkeypatch.setattr(node.ledger, "add_arrival", lambda arrival: may_commit.wait(120) and real(arrival))
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store())
        peer.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.status()
        may_commit.set()
        peer.socket.settimeout(5)
        assert peer.status()[0] == 0x0000


def test_trouble_is_answered_with_a700_and_a_retry_with_success(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def bug(*_: object) -> None:
        raise RuntimeError("nobody expected this")

    for target, name, fault in (
        (node.ledger, "add_arrival", locked),
        (os, "fsync", failing),
        (os, "rename", failing),
        (node.spool, "write", bug),
        (node.spool, "write", MemoryError),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(target, name, fault)
            assert send(node.port, film()) == OUT_OF_RESOURCES, name
        assert node.files() == [] and node.ledger.jobs() == [], name
    assert send(node.port, film()) == 0x0000
    assert len(node.files()) == len(node.ledger.jobs()) == 1


def test_a_commit_that_failed_only_in_appearance_keeps_its_file(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Result: the row names the file, so it stays; the film sent again meets it."""
    real = node.ledger.add_arrival

    def commits_and_raises(arrival: object) -> None:
        real(arrival)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(node.ledger, "add_arrival", commits_and_raises)
        assert send(node.port, film()) == OUT_OF_RESOURCES
    assert len(node.files()) == 1
    assert send(node.port, film()) == 0x0000
    assert len(node.files()) == len(node.ledger.jobs()) == 1


def test_a_shelf_that_cannot_be_written_is_a700(node: Node) -> None:
    """A real failure of the file system: root may write into a read-only folder, but not into a file."""
    shelves = node.spool.directory / "arrivals"
    shelves.rmdir()
    shelves.touch()
    assert send(node.port, film()) == OUT_OF_RESOURCES
    shelves.unlink()
    shelves.mkdir()
    assert send(node.port, film()) == 0x0000


def test_under_the_reserve_films_are_refused(tmp_path: Path) -> None:
    with running(tmp_path, reserve_bytes=2**62) as node:
        assert send(node.port, film()) == OUT_OF_RESOURCES
        assert node.files() == [] and node.ledger.jobs() == []


def test_the_same_film_ten_times_at_once_is_one_row_and_one_file(tmp_path: Path) -> None:
    with running(tmp_path, max_per_host=20) as node:
        answers: list[int | None] = []
        senders = [threading.Thread(target=lambda: answers.append(send(node.port, film()))) for _ in range(10)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert answers == [0x0000] * 10
        [job] = node.ledger.jobs()
        assert job.resends == 9
        assert [file.relative_to(node.spool.directory).as_posix() for file in node.files()] == [job.arrival.path]


# -- who may come in ----------------------------------------------------------------------------------------------

GATE = [
    ("MODALITY", "PTXSEG", {"MODALITY": []}, None),
    ("MODALITY", "PTXSEG", {"MODALITY": ["127.0.0.1"]}, None),
    ("MODALITY", "PTXSEG", {"MODALITY": ["10.0.0.0/8", "127.0.0.0/8"]}, None),
    ("MODALITY", "PTXSEG", {"MODALITY": ["localhost"]}, None),
    ("MODALITY", "OTHER", {"MODALITY": []}, (1, 1, 7)),
    ("modality", "PTXSEG", {"MODALITY": []}, (1, 1, 3)),
    ("STRANGER", "PTXSEG", {"MODALITY": []}, (1, 1, 3)),
    ("MODALITY", "PTXSEG", {"MODALITY": ["10.0.0.1"]}, (1, 1, 3)),
    ("MODALITY", "PTXSEG", {"MODALITY": ["no-such-host.invalid"]}, (1, 1, 3)),
    ("MODALITY", "PTXSEG", {}, (1, 1, 3)),
]


@pytest.mark.parametrize(("calling", "called", "allowed", "rejection"), GATE)
def test_admission(
    tmp_path: Path, calling: str, called: str, allowed: dict[str, list[str]], rejection: tuple[int, ...]
) -> None:
    with running(tmp_path, allowed=allowed) as node, RawPeer(node.port) as peer:
        peer.send(associate_rq(calling, called))
        kind, body = peer.receive()
        if rejection is None:
            assert kind == ASSOCIATE_AC
        else:
            assert kind == ASSOCIATE_RJ and tuple(body[1:]) == rejection


def test_a_rejected_peer_cannot_store_even_if_it_does_not_care(node: Node) -> None:
    """Scenario: it sends its film without waiting; and again after it has read the rejection."""
    with RawPeer(node.port) as peer:
        peer.send(associate_rq("STRANGER") + c_store())
        assert peer.receive()[0] == ASSOCIATE_RJ
        with pytest.raises((EOFError, OSError)):
            peer.status()
    with RawPeer(node.port) as peer:
        assert peer.associate("STRANGER") == ASSOCIATE_RJ
        try:
            peer.send(c_store())
            peer.status()
            pytest.fail("a rejected peer got an answer")
        except (EOFError, OSError):
            pass
    assert node.files() == [] and node.ledger.jobs() == []


def test_admission_that_fails_admits_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr(node.receiver, "_admission", bug)
    with RawPeer(node.port) as peer:
        peer.send(associate_rq() + c_store())
        assert peer.is_closed()
    assert node.files() == []


def test_a_ledger_that_is_away_and_draining_reject_for_now(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> int:
        raise sqlite3.OperationalError("database is locked")

    node.ledger.set_mode("draining")
    with RawPeer(node.port) as peer:
        peer.send(associate_rq())
        assert peer.receive() == (ASSOCIATE_RJ, bytes([0, 2, 3, 1]))
    node.ledger.set_mode("running")
    with monkeypatch.context() as broken, RawPeer(node.port) as peer:
        broken.setattr(node.ledger, "open_association", locked)
        peer.send(associate_rq())
        assert peer.receive() == (ASSOCIATE_RJ, bytes([0, 2, 3, 1]))
    assert send(node.port, film()) == 0x0000


def test_rejections_do_not_fill_the_log(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        with RawPeer(node.port) as peer:
            assert peer.associate("STRANGER") == ASSOCIATE_RJ
    lines = [record.getMessage() for record in caplog.records if "rejected" in record.getMessage()]
    assert len(lines) == 1
    assert 'add "STRANGER" = ["127.0.0.1"] to [receive.allowed]' in lines[0]


def test_the_log_limit_is_bounded_and_forgets_after_a_minute() -> None:
    now = 0.0
    limit = LogLimit(seconds=60, most=2, clock=lambda: now)
    assert [limit.allows(name) for name in ("a", "a", "b", "c")] == [True, False, True, False]
    now = 61.0
    assert limit.allows("a")


# -- what is offered ----------------------------------------------------------------------------------------------


def test_every_class_in_every_syntax_is_accepted_and_stored(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        ae = AE("MODALITY")
        ae.acse_timeout = 120
        for name in SOP_CLASSES:
            for syntax in TRANSFER_SYNTAXES.values():
                ae.add_requested_context(SOP_CLASSES[name], syntax)
                if len(ae.requested_contexts) == len(TRANSFER_SYNTAXES):
                    association = ae.associate("127.0.0.1", node.port, ae_title="PTXSEG")
                    accepted = {str(context.transfer_syntax[0]) for context in association.accepted_contexts}
                    association.release()
                    assert accepted == set(TRANSFER_SYNTAXES.values()), name
                    ae.requested_contexts = []


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES.values(), ids=TRANSFER_SYNTAXES)
def test_a_film_in_every_syntax_keeps_its_bytes(node: Node, syntax: str) -> None:
    """The dataset is not touched: whatever it is, it lies under the syntax in which it came."""
    content = os.urandom(5000)
    with RawPeer(node.port) as peer:
        assert peer.associate(syntax=syntax) == ASSOCIATE_AC
        peer.send(c_store(dataset=content))
        assert peer.status()[0] == 0x0000
    [file] = node.files()
    assert read_file_meta_info(file).TransferSyntaxUID == syntax
    assert file.read_bytes().endswith(content)


def test_classes_are_switchable_and_verification_is_always_offered(tmp_path: Path) -> None:
    assert {str(context.abstract_syntax) for context in supported_contexts(Receive(sop_classes=()))} == {VERIFICATION}
    with running(tmp_path, sop_classes=("DX",)) as node:
        ae = AE("MODALITY")
        ae.acse_timeout = 120
        for sop_class in (VERIFICATION, SOP_CLASSES["DX"], CR):
            ae.add_requested_context(sop_class, EXPLICIT)
        association = ae.associate("127.0.0.1", node.port, ae_title="PTXSEG")
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        echo = association.send_c_echo().Status
        said = (association.acceptor.implementation_class_uid, association.acceptor.implementation_version_name)
        association.release()
    assert accepted == {VERIFICATION, SOP_CLASSES["DX"]}
    assert echo == 0x0000
    assert said == (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


def test_dcmtk_can_echo_and_store(node: Node, tmp_path: Path, tool: Callable[[str], str]) -> None:
    film().save_as(tmp_path / "film.dcm", enforce_file_format=True)
    who = ["-aet", "MODALITY", "-aec", "PTXSEG", "127.0.0.1", str(node.port)]
    subprocess.run([tool("echoscu"), *who], check=True, timeout=300)
    subprocess.run([tool("storescu"), *who, str(tmp_path / "film.dcm")], check=True, timeout=300)
    assert len(node.ledger.jobs()) == 1


# -- everybody is answered ----------------------------------------------------------------------------------------

HOSTILE = [
    ("../../etc/passwd", CR, None, 0x0117),
    ("/etc/passwd", CR, None, 0x0117),
    ("1.2." + "3" * 61, CR, None, 0x0117),
    ("1." * 5000, CR, None, 0x0117),
    ("1.2\\3.4", CR, None, 0x0117),
    ("1.2 ; DROP TABLE jobs", CR, None, 0x0117),
    ("1.2.3\x00.4", CR, None, 0x0117),
    ("1..2", CR, None, 0x0117),
    ("", CR, None, 0x0117),
    (None, CR, None, 0x0117),
    ("1.2.3.4", None, None, 0x0122),
    ("1.2.3.4", SOP_CLASSES["DX"], None, 0x0122),
    ("1.2.3.4", VERIFICATION, None, 0x0122),
    ("1.2.3.4", "not a uid", None, 0x0122),
    ("1.2.3.4", CR, b"", 0xC000),
]


@pytest.mark.parametrize(("instance", "sop_class", "dataset", "status"), HOSTILE)
def test_broken_requests_are_answered_and_not_stored(
    node: Node, instance: str | None, sop_class: str | None, dataset: bytes | None, status: int
) -> None:
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store(instance, sop_class, dataset))
        answer, comment = peer.status()
        assert answer == status
        assert comment, "a failure tells its reason"
        peer.send(c_store("1.2.3.5"))  # the association goes on
        assert peer.status()[0] == 0x0000
    assert len(node.files()) == len(node.ledger.jobs()) == 1


def test_uids_that_devices_really_send_are_taken(node: Node) -> None:
    """64 bytes, and a component with a leading zero (not allowed, but seen)."""
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        for uid in ("1.2." + "3" * 60, "1.2.840.0123.4"):
            peer.send(c_store(uid))
            assert peer.status()[0] == 0x0000
    assert {job.arrival.sop_instance_uid for job in node.ledger.jobs()} == {"1.2." + "3" * 60, "1.2.840.0123.4"}


def test_a_dataset_that_is_none_is_stored_and_left_to_its_job(node: Node) -> None:
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store(dataset=b"this is not DICOM"))
        assert peer.status()[0] == 0x0000
    assert node.files()[0].read_bytes().endswith(b"this is not DICOM")


# -- stopping -----------------------------------------------------------------------------------------------------


def test_stop_lets_a_film_finish_and_takes_no_more(tmp_path: Path) -> None:
    """Scenario: stop comes in the middle of an object.
    Result: the object is answered with success, new connections are refused, the receiver does not wait for its grace to end.
    """
    with running(tmp_path, grace_seconds=600.0) as node, RawPeer(node.port) as peer:
        request = c_store()
        assert peer.associate() == ASSOCIATE_AC
        peer.send(request[:-10])
        time.sleep(0.2)
        node.receiver.stop()
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            RawPeer(node.port)
        peer.send(request[-10:])
        assert peer.status()[0] == 0x0000
        assert peer.receive()[0] == ABORT  # between two objects; the peer waits shorter than the grace is
    assert len(node.ledger.jobs()) == 1


def test_stop_ends_an_association_that_does_not_finish(tmp_path: Path) -> None:
    with running(tmp_path, grace_seconds=0.5) as node, RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store()[:-10])
        time.sleep(0.2)
        node.receiver.stop()
        assert peer.is_closed()
        assert eventually(lambda: [outcome for _, outcome, _ in node.journal()] == ["aborted"])


def test_two_receivers_share_one_listening_socket(tmp_path: Path) -> None:
    """One stops and the other goes on: closing is not shutting down."""
    receive = Receive(host="127.0.0.1", port=0, allowed={"MODALITY": []})
    listener = bind(receive)
    port = listener.getsockname()[1]
    spool, ledger = Spool(tmp_path / "spool", 0), Ledger(tmp_path / "ledger.sqlite")
    receivers = [Receiver(receive, spool, ledger) for _ in range(2)]
    threads = [threading.Thread(target=one.serve, args=(listener.dup(),)) for one in receivers]
    for thread in threads:
        thread.start()
    listener.close()
    time.sleep(0.2)
    receivers[0].stop()
    threads[0].join(120)
    try:
        assert [send(port, film(f"1.2.{number}")) for number in range(5)] == [0x0000] * 5
    finally:
        receivers[1].stop()
        threads[1].join(120)


def test_a_port_that_is_taken_is_said_with_the_remedy(node: Node) -> None:
    with pytest.raises(ConfigError, match=r"receive\.port.*another port"):
        bind(Receive(host="127.0.0.1", port=node.port))
