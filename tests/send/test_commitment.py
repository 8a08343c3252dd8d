"""Storage commitment (PS3.4 J) against Orthanc and against an archive that answers as the test says: what the ledger holds."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import generate_uid
from pynetdicom import AE, Association, build_role, evt
from raw_peer import EXPLICIT, P_DATA, RawPeer, c_store
from receiver_node import film, send
from servers import Orthanc, free_port, wait_for

from dicom_node.dimse.commitment_report import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reports
from dicom_node.receive.storage_scp import Receiver, bind
from dicom_node.runtime.config import Config, load
from dicom_node.send import commitment_request
from dicom_node.send.storage_scu import Sender
from dicom_node.send.storage_scu import commitment_problem as takes_requests
from dicom_node.storage import commitments
from dicom_node.storage.commitments import UNCOMMITTED, Commitments, UncommittedDelivery, committing_json
from dicom_node.storage.destinations import Router
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, Delivery, DeliveryState, Outcome, State, StoredObject
from dicom_node.storage.spool import Spool

SC = "1.2.840.10008.5.1.4.1.1.7"
VERIFICATION = "1.2.840.10008.1.1"


class Site:
    """A node with answered films whose objects wait for delivery to PACS; receiver and sender run when asked."""

    def __init__(
        self, folder: Path, port: int, *, objects: int = 1, destination: str = "PACS", peer: str = "", extra: str = ""
    ):
        self.folder = folder
        self.file = folder / "config.toml"
        self.file.write_text(
            f"[receive]\nhost = '127.0.0.1'\nport = {free_port()}\n[receive.allowed]\nMODALITY = []\n"
            f"[peers.PACS]\nhost = '127.0.0.1'\nport = {port}\ncommit = true\n{peer}\n"
            f"[send]\nae_title = 'PTXSENDER'\ndestinations = ['{destination}']\nfirst_delay_seconds = 0.3\n"
            f"max_delay_seconds = 0.5\nconnect_seconds = 3\nresponse_seconds = 3\n{extra}\n"
        )
        self.config: Config = load(self.file)
        self.spool = Spool(self.config.spool_directory, 0)
        self.ledger = Ledger(self.config.ledger_path)
        self.outbox = Outbox(self.ledger.store)
        self.commitments = Commitments(self.ledger.store, 0.5)
        self.jobs = [self._answered(number) for number in range(objects)]

    def _answered(self, number: int) -> str:
        arrival = Arrival(f"1.2.{number}", SC, EXPLICIT, f"{number}", "", 1, "PACS", "PTXSEG", "127.0.0.1")
        job_id = self.ledger.add_arrival(arrival).job_id
        claim = self.ledger.claim("w", 30)
        assert claim is not None
        data = small_object()
        stored = self.spool.write_into(self.spool.folder_for(job_id, claim.owner), "seg.dcm", data)
        uid = uid_of(data)
        one = StoredObject("seg", "", SC, uid, stored.sha256, stored.path, stored.size, "demo")
        outcome = Outcome(State.SEGMENTED, content_sha256=f"c{number}", model_digest="m", objects=(one,))
        self.ledger.finish(claim, outcome, Router.of(self.config).routes(claim.job.arrival))
        return job_id

    @property
    def deliveries(self) -> list[Delivery]:
        return [one for job in self.jobs for one in self.outbox.of_job(job)]

    @property
    def uids(self) -> list[str]:
        return [one.object.sop_instance_uid for one in self.deliveries]

    @property
    def requests(self) -> list[tuple[str, str]]:
        """(Transaction UID, state), oldest first."""
        rows = self.ledger.store.read().execute("SELECT transaction_uid, state FROM commitments ORDER BY requested_at")
        return [tuple(row) for row in rows]

    def rows(self) -> list[tuple[object, ...]]:
        """All that an answer could change."""
        read = self.ledger.store.read()
        tables = ("commitments", "commitment_items", "deliveries")
        return [tuple(row) for table in tables for row in read.execute(f"SELECT * FROM {table}")]

    def kept(self) -> set[str]:
        """Jobs whose objects retention must leave alone."""
        query = f"SELECT job_id FROM deliveries d WHERE {UNCOMMITTED}"
        return {row["job_id"] for row in self.ledger.store.read().execute(query, {"committing": committing_json(self.config)})}

    def freed(self) -> set[str]:
        """Jobs whose objects it may remove."""
        rows = self.ledger.store.read().execute(
            "SELECT job_id FROM objects JOIN answers ON answers.id = answer_id"
            f" WHERE objects.id NOT IN (SELECT object_id FROM deliveries d WHERE {UNCOMMITTED})",
            {"committing": committing_json(self.config)},
        )
        return {row["job_id"] for row in rows}

    def committed(self) -> bool:
        return all(one.committed_at is not None for one in self.deliveries)

    def wait_until_committed(self) -> None:
        wait_for(self.committed, 120, f"commitment ({self.deliveries}, {self.requests})")

    @contextmanager
    def receiving(self) -> Iterator[None]:
        receiver = Receiver(
            self.config.receive, self.spool, self.ledger, grace_seconds=1, reports=Reports(self.config, self.commitments)
        )
        with _thread(receiver.serve, bind(self.config.receive), stop=receiver.stop):
            yield

    @contextmanager
    def sending(self) -> Iterator[None]:
        stop = threading.Event()
        sender = Sender(self.config, self.spool, self.ledger, self.outbox)
        with _thread(sender.run, stop, 0.05, stop=stop.set):
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.receiving(), self.sending():
            yield

    @contextmanager
    def process(self, verb: str) -> Iterator[None]:
        """`segmenter-worker VERB`; ended with SIGKILL."""
        command = [sys.executable, "-m", "dicom_node.cli.main", verb, "--config", str(self.file)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            yield
            assert process.poll() is None, f"{verb} died by itself"
        finally:
            process.kill()
            process.wait(120)

    def command(self, *words: str) -> Any:
        command = [sys.executable, "-m", "dicom_node.cli.main", *words, "--config", str(self.file), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def deliver_by_hand(self) -> None:
        for one in self.deliveries:
            assert self.outbox.sending(one)
            self.outbox.settle(one, DeliveryState.DELIVERED, status=0, reason="stored")

    def ask_by_hand(self) -> str:
        """A request as the sender would have written it."""
        batch = [UncommittedDelivery(one.delivery_id, one.job_id, SC, one.object.sop_instance_uid) for one in self.deliveries]
        uid = self.commitments.open("PACS", batch)
        assert uid is not None
        return uid


@contextmanager
def _thread(run: Callable[..., None], *arguments: object, stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=run, args=arguments)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(120)
        assert not thread.is_alive()


def small_object() -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT
    dataset.SOPClassUID, dataset.SOPInstanceUID = SC, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality = "X", "OT"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def uid_of(data: bytes) -> str:
    from pydicom import dcmread

    return str(dcmread(io.BytesIO(data)).SOPInstanceUID)


@dataclass
class Archive:
    """A PACS that commits. `fails`: UIDs with a Failure Reason.

    `way`: "same" (association), "new" (one of its own, and before it responds to the N-ACTION) or "silent".
    """

    way: str = "same"
    ae_title: str = "PACS"
    action_status: int = 0x0000
    supports: bool = True
    node_port: int = 0
    fails: dict[str, int] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    stored: list[tuple[str, str]] = field(default_factory=list)  # (UID, sha256 of the dataset)
    asked: list[Dataset] = field(default_factory=list)
    answered: list[int | None] = field(default_factory=list)  # our statuses
    connections: int = 0

    @contextmanager
    def serving(self) -> Iterator[Archive]:
        ae = AE(self.ae_title)
        ae.add_supported_context(VERIFICATION)
        ae.add_supported_context(SC)
        if self.supports:
            ae.add_supported_context(PUSH_MODEL)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_CONN_OPEN, self._count),
        ]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()

    def _count(self, _: evt.Event) -> None:
        self.connections += 1

    def _store(self, event: evt.Event) -> int:
        data = event.request.DataSet.getvalue()
        self.stored.append((str(event.request.AffectedSOPInstanceUID), hashlib.sha256(data).hexdigest()))
        return 0x0000

    def _action(self, event: evt.Event) -> tuple[int, None]:
        information = event.action_information
        self.asked.append(information)
        if self.action_status == 0x0000 and self.way == "same":
            threading.Thread(target=self._after_the_response, args=(event.assoc, information)).start()
        if self.action_status == 0x0000 and self.way == "new":
            self.answer_anew(information)  # before the response: an archive may be that fast
        return self.action_status, None

    def _after_the_response(self, association: Association, information: Dataset) -> None:
        time.sleep(0.2)
        self.report(association, self.event(information))

    def answer_anew(self, information: Dataset) -> None:
        with self.speaking() as association:
            self.report(association, self.event(information))

    @contextmanager
    def speaking(self, calling: str | None = None, called: str = "PTXSENDER", roles: bool = True) -> Iterator[Association]:
        """An association of its own to the node, SCP role proposed for the commitment class."""
        ae = AE(calling or self.ae_title)
        ae.acse_timeout = 120
        ae.add_requested_context(VERIFICATION)
        ae.add_requested_context(PUSH_MODEL)
        ae.add_requested_context(SC)
        role = [build_role(PUSH_MODEL, scp_role=True)] if roles else None
        association = ae.associate("127.0.0.1", self.node_port, ae_title=called, ext_neg=role)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def event(self, information: Dataset) -> Dataset:
        said = Dataset()
        said.TransactionUID = information.TransactionUID
        good = [one for one in information.ReferencedSOPSequence if one.ReferencedSOPInstanceUID not in self.fails]
        bad = [one for one in information.ReferencedSOPSequence if one.ReferencedSOPInstanceUID in self.fails]
        for one in bad:
            one.FailureReason = self.fails[one.ReferencedSOPInstanceUID]
        if good:
            said.ReferencedSOPSequence = good
        if bad:
            said.FailedSOPSequence = bad
        return said

    def report(self, association: Association, said: Dataset) -> int | None:
        kind = 2 if "FailedSOPSequence" in said else 1
        status, _ = association.send_n_event_report(said, kind, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.answered.append(status.get("Status"))
        return self.answered[-1]


def information(transaction_uid: str, *uids: str) -> Dataset:
    said = Dataset()
    said.TransactionUID = transaction_uid
    said.ReferencedSOPSequence = []
    for uid in uids:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = SC, uid
        said.ReferencedSOPSequence.append(one)
    return said


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_request, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(commitment_request, "GATHER_SECONDS", 0.5)


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive().serving() as one:
        yield one


# -- the whole way ---------------------------------------------------------------------------------------------


def test_orthanc_commits_on_an_association_of_its_own(tool: Callable[[str], str], tmp_path: Path) -> None:
    orthanc = Orthanc(tool("Orthanc"), tmp_path / "orthanc")
    site = Site(tmp_path, orthanc.dicom_port, objects=3, peer="ae_title = 'ORTHANC'")
    modality = {"AET": "PTXSENDER", "Host": "127.0.0.1", "Port": site.config.receive.port, "AllowStorageCommitment": True}
    with ExitStack() as stack:
        orthanc.modalities = {"node": modality}
        orthanc.start()
        stack.callback(orthanc.stop)
        assert takes_requests(site.config, "PACS") is None
        stack.enter_context(site.running())
        site.wait_until_committed()
        assert [state for _, state in site.requests] == ["answered"]  # one request for the batch
        # What the archive has lost is found out, sent again with the same bytes, and committed to then.
        [lost] = orthanc.find(SOPInstanceUID=site.uids[0])
        orthanc.delete(f"/instances/{lost}")
        site.ledger.store.read().execute("UPDATE deliveries SET committed_at = NULL, commitment = NULL")
        site.wait_until_committed()
        assert len(site.requests) == 3 and orthanc.find(SOPInstanceUID=site.uids[0]) == [lost]
    assert not site.kept()


@pytest.mark.parametrize("destination", ["PACS", "@sender"])
def test_an_answer_on_the_same_association(destination: str, tmp_path: Path, archive: Archive) -> None:
    site = Site(tmp_path, archive.port, objects=3, destination=destination)
    assert site.kept() == set()
    with site.sending():
        wait_for(lambda: archive.stored, 120)
        site.wait_until_committed()
        wait_for(lambda: archive.answered, 120)
    assert archive.answered == [0x0000]
    [asked] = archive.asked
    assert sorted(one.ReferencedSOPInstanceUID for one in asked.ReferencedSOPSequence) == sorted(site.uids)
    assert {one.ReferencedSOPClassUID for one in asked.ReferencedSOPSequence} == {SC}
    shown = site.command("show", site.jobs[0])["deliveries"]
    assert shown[0]["committed_at"] and site.command("status")["uncommitted"] == {"PACS": 0}


def test_an_answer_from_another_ae_title_at_another_port(tmp_path: Path) -> None:
    committer = Archive("new", "COMMITTER")
    with Archive("silent", supports=False).serving() as pacs, committer.serving():
        site = Site(tmp_path, pacs.port, peer=f"commit_ae_title = 'COMMITTER'\ncommit_port = {committer.port}")
        committer.node_port = site.config.receive.port
        with site.running():
            site.wait_until_committed()
            wait_for(lambda: committer.answered, 120)
    assert committer.answered == [0x0000] and not pacs.asked


def test_a_sender_that_is_killed_between_request_and_answer(tmp_path: Path, archive: Archive) -> None:
    archive.way = "silent"
    site = Site(tmp_path, archive.port)
    archive.node_port = site.config.receive.port
    with site.process("receive"):
        with site.process("send"):  # killed when the block ends
            wait_for(lambda: archive.asked and site.requests[0][1] == "accepted", 120, "N-ACTION")
        wait_for(lambda: send(archive.node_port, film("1.2.3.4")) == 0x0000, 120, "the receiver")
        archive.answer_anew(archive.asked[0])
        assert archive.answered == [0x0000] and site.committed()


def test_a_request_that_perhaps_never_went_out_is_made_again(tmp_path: Path, archive: Archive) -> None:
    """Killed between the commit of the request and the N-ACTION: nothing would ever answer it."""
    site = Site(tmp_path, archive.port)
    site.deliver_by_hand()
    lost = site.ask_by_hand()
    with site.sending():
        site.wait_until_committed()
    assert [state for _, state in site.requests] == ["unknown", "answered"]
    assert [one.TransactionUID for one in archive.asked] == [site.requests[1][0]] != [lost]


# -- who may answer, and what counts ---------------------------------------------------------------------------


def test_answers_that_do_not_count_and_those_that_do(tmp_path: Path, archive: Archive) -> None:
    other = "[peers.OTHER]\nhost = '127.0.0.1'\nport = 1\nae_title = 'OTHER'\ncommit = true\ncommit_ae_title = 'OTHERC'"
    site = Site(tmp_path, archive.port, objects=2, extra=other)
    archive.node_port = site.config.receive.port
    site.deliver_by_hand()
    uid = site.ask_by_hand()
    before = site.rows()
    said = archive.event(information(uid, *site.uids))
    unknown = archive.event(information("1.2.3", *site.uids))
    with site.receiving():
        with archive.speaking() as peer:
            assert archive.report(peer, unknown) == 0x0115
            del unknown.TransactionUID
            assert archive.report(peer, unknown) == 0x0115
            bad_type, _ = peer.send_n_event_report(said, 3, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            assert bad_type.Status == 0x0113
        with archive.speaking("OTHERC") as peer:  # known, but it was not asked
            assert archive.report(peer, said) == 0x0115
        with archive.speaking("MODALITY", "PTXSEG") as peer:  # may send films, speaks for nobody
            assert {one.abstract_syntax for one in peer.accepted_contexts} == {VERIFICATION, SC}
        with archive.speaking("STRANGER") as peer:
            assert peer.is_rejected
        assert site.rows() == before and site.kept() == set(site.jobs)
        with archive.speaking(roles=False) as peer:  # an archive that forgets the role negotiation
            assert archive.report(peer, said) == 0x0000
        assert site.committed() and site.kept() == set()
        after = site.rows()
        archive.fails = dict.fromkeys(site.uids, 0x0112)
        with archive.speaking() as peer:  # a second answer, and it contradicts the first
            assert archive.report(peer, archive.event(information(uid, *site.uids))) == 0x0000
    assert site.rows() == after


def test_reports_are_answered_one_after_the_other_by_the_association(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread for each, past the backpressure: a peer that reports without end waits as one that stores without end."""
    site = Site(tmp_path, archive.port)
    archive.node_port = site.config.receive.port
    threads: list[str] = []
    monkeypatch.setattr(Reports, "answer", lambda *_: threads.append(threading.current_thread().name) or 0)
    with site.receiving(), archive.speaking() as peer:
        before = threading.active_count()
        for _ in range(3):
            archive.report(peer, information("1.2.3", "1.2.4"))
        assert threading.active_count() <= before
    assert len(threads) == 3 and len(set(threads)) == 1 and threads[0].startswith("AcceptorThread")


def test_who_may_only_report_cannot_store(tmp_path: Path, archive: Archive) -> None:
    site = Site(tmp_path, archive.port, peer="ae_title = 'PACSAE'\ncommit_ae_title = 'COMMITTER'")
    port = archive.node_port = site.config.receive.port
    before = len(site.ledger.jobs())
    with site.receiving():
        for calling in ("PACSAE", "COMMITTER"):
            with archive.speaking(calling) as peer:
                assert {one.abstract_syntax for one in peer.accepted_contexts} == {VERIFICATION, PUSH_MODEL}
                assert peer.send_c_echo().Status == 0x0000
            for sop_class in (VERIFICATION, PUSH_MODEL):  # a C-STORE on the contexts that it does get
                with RawPeer(port) as raw:
                    raw.associate(calling, "PTXSENDER", sop_class)
                    raw.send(c_store("1.2.3", sop_class))
                    assert raw.status()[0] == 0x0124
        with RawPeer(port) as raw:  # a C-STORE on the context that it did not get
            raw.associate("PACSAE", "PTXSENDER", SC)
            raw.send(c_store("1.2.3", SC))
            assert raw.receive()[0] != P_DATA
        with RawPeer(port) as raw:  # nor does a sender, on a context that is for no film
            raw.associate("MODALITY", "PTXSEG", VERIFICATION)
            raw.send(c_store("1.2.3", VERIFICATION))
            assert raw.status()[0] == 0x0122
        assert send(port, film("1.2.3.4"), calling="MODALITY") == 0x0000  # who is allowed still is
        assert send(port, film("1.2.3.5"), calling="MODALITY", called="PTXSENDER") is None
        site.ledger.set_mode("draining")
        with archive.speaking("PACSAE") as peer:  # no new films, but what is here is finished
            assert peer.is_established
    assert len(site.ledger.jobs()) == before + 1


def test_only_from_the_host_of_the_peer(tmp_path: Path, archive: Archive) -> None:
    site = Site(tmp_path, archive.port, extra="[peers.FAR]\nhost = '192.0.2.1'\nport = 104\ncommit = true")
    archive.node_port = site.config.receive.port
    with site.receiving(), archive.speaking("FAR") as peer:
        assert peer.is_rejected


# -- what does not go well -------------------------------------------------------------------------------------


def test_an_object_that_is_not_committed_to_goes_again_with_the_same_bytes(tmp_path: Path, archive: Archive) -> None:
    site = Site(tmp_path, archive.port, objects=2)
    bad, good = site.uids
    archive.fails = {bad: 0x0112}
    with site.sending():
        wait_for(lambda: len(archive.stored) == 3, 120, "the repetition")
        archive.fails = {}
        site.wait_until_committed()
    assert sorted(uid for uid, _ in archive.stored) == sorted([bad, bad, good])
    assert len({sha for uid, sha in archive.stored if uid == bad}) == 1
    assert [one.TransactionUID for one in archive.asked[:1]] != [one.TransactionUID for one in archive.asked[1:]]


def test_repetitions_end_with_a_sentence(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitments, "ROUNDS", 2)
    site = Site(tmp_path, archive.port)
    archive.fails = {site.uids[0]: 0x0112}
    with site.sending():
        wait_for(lambda: site.deliveries[0].state is DeliveryState.REFUSED, 120, "refusal")
        assert "accepted 2 times" in (site.deliveries[0].reason or "") and "0112" in (site.deliveries[0].reason or "")
        assert len(archive.stored) == 2 and site.kept() == set(site.jobs)
        archive.fails = {}
        assert site.outbox.retry(site.jobs[0]) == 1
        site.wait_until_committed()


def test_silence_is_asked_again_and_the_late_answer_still_counts(tmp_path: Path, archive: Archive) -> None:
    archive.way = "silent"
    site = Site(tmp_path, archive.port, extra="commit_again_hours = 0.0005")
    archive.node_port = site.config.receive.port
    with site.receiving():
        with site.sending():
            wait_for(lambda: len(archive.asked) >= 2, 120, "a second request")
        first, second = archive.asked[0], archive.asked[1]
        assert first.TransactionUID != second.TransactionUID and not site.committed()
        archive.answer_anew(first)
        assert archive.answered == [0x0000] and site.committed()


def test_what_went_out_again_is_asked_for_anew(tmp_path: Path, archive: Archive) -> None:
    site = Site(tmp_path, archive.port)
    archive.node_port = site.config.receive.port
    site.deliver_by_hand()
    uid = site.ask_by_hand()
    send_again(site)
    with site.receiving():
        archive.answer_anew(information(uid, *site.uids))  # it speaks of what was there before
        assert archive.answered == [0x0000] and not site.committed()
        archive.answer_anew(information(site.ask_by_hand(), *site.uids))
        assert site.committed() and not site.kept()
    send_again(site)
    assert not site.committed() and site.kept() == set(site.jobs) and not site.freed()
    site.file.write_text(site.file.read_text().replace("commit = true", "commit = false"))
    site.config = load(site.file)
    assert site.kept() == set() and site.freed() == set(site.jobs)


def send_again(site: Site) -> None:
    """What `rerun` with the same model does."""
    site.ledger.store.read().execute("UPDATE deliveries SET state = 'pending'")
    site.deliver_by_hand()


def test_refused_requests_back_off_and_say_why(tmp_path: Path, archive: Archive) -> None:
    archive.action_status = 0x0110
    site = Site(tmp_path, archive.port)
    with site.sending():
        wait_for(lambda: len(archive.asked) >= 2, 120, "a second try")
        assert "0110" in (site.deliveries[0].reason or "")
        archive.action_status = 0x0000
        site.wait_until_committed()
    assert len({one.TransactionUID for one in archive.asked}) == len(archive.asked)


def test_a_ledger_that_cannot_be_written_for_a_moment(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is not sent before it is written, and the sender lives on."""
    monkeypatch.setattr(commitment_request, "LEDGER_TROUBLE_SECONDS", 0.2)
    real, failures = Commitments.open, []

    def full(self: Commitments, peer: str, batch: list[UncommittedDelivery]) -> str | None:
        if len(failures) < 2:
            failures.append(len(archive.asked))
            raise sqlite3.OperationalError("database or disk is full")
        return real(self, peer, batch)

    monkeypatch.setattr(Commitments, "open", full)
    site = Site(tmp_path, archive.port)
    with site.sending():
        site.wait_until_committed()
    assert failures == [0, 0] and len(archive.asked) == 1


def test_a_destination_without_the_class_is_named_and_not_hammered(tmp_path: Path) -> None:
    with Archive(supports=False).serving() as archive:
        site = Site(tmp_path, archive.port)
        assert "does not support storage commitment" in (takes_requests(site.config, "PACS") or "")
        with site.sending():
            wait_for(lambda: "storage commitment" in (site.deliveries[0].reason or ""), 120, "the reason")
            time.sleep(2)  # twenty looks at the ledger, and the longest wait between two tries four times over
        assert archive.connections == 3  # this test's question, the delivery, one request
        assert site.deliveries[0].state is DeliveryState.DELIVERED
        assert site.requests == [] and site.kept() == set(site.jobs)
        assert site.command("status")["uncommitted"] == {"PACS": 1}
