"""A receiver on a free port with its spool and ledger, and an honest sender."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE
from raw_peer import CR, EXPLICIT

from dicom_node.dimse.commitment_report import Reports
from dicom_node.receive.rules import Rules
from dicom_node.receive.storage_scp import Receiver, bind
from dicom_node.runtime.config import load
from dicom_node.runtime.config_sections import Queue, Receive
from dicom_node.storage.commitments import Commitments
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.spool import Spool


@dataclass
class Node:
    """A receiver that runs, and what it wrote."""

    port: int
    spool: Spool
    ledger: Ledger
    receiver: Receiver

    def files(self) -> list[Path]:
        return [file for file in (self.spool.directory / "arrivals").rglob("*") if file.is_file()]

    def journal(self) -> list[tuple[str, str, int]]:
        rows = self.ledger.store.read().execute("SELECT calling_ae, outcome, received FROM associations ORDER BY id")
        return [tuple(row) for row in rows]


@contextmanager
def running(
    tmp_path: Path,
    *,
    reserve_bytes: int = 0,
    grace_seconds: float = 1.0,
    queue: Queue | None = None,
    peers: str = "",
    **settings: object,
) -> Iterator[Node]:
    receive = Receive(**({"host": "127.0.0.1", "port": 0, "allowed": {"MODALITY": []}} | settings))
    spool, ledger = Spool(tmp_path / "spool", reserve_bytes), Ledger(tmp_path / "ledger.sqlite")
    reports = None
    if peers:  # TOML of those that are asked for commitment
        (tmp_path / "peers.toml").write_text(peers)
        reports = Reports(load(tmp_path / "peers.toml"), Commitments(ledger.store, 1.0))
    receiver = Receiver(receive, spool, ledger, rules=Rules(queue or Queue()), grace_seconds=grace_seconds, reports=reports)
    listener = bind(receive)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=receiver.serve, args=(listener,))
    thread.start()
    try:
        yield Node(port, spool, ledger, receiver)
    finally:
        receiver.stop()
        thread.join(grace_seconds + 60)
        assert not thread.is_alive(), "the receiver did not stop"


def film(uid: str = "1.2.3.4", *, sop_class: str = CR, syntax: str = EXPLICIT) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(sop_class), UID(uid)
    dataset.PatientName, dataset.Modality = "Nobody^Knows", "CR"
    return dataset


def send(
    port: int,
    dataset: Dataset,
    *,
    calling: str = "MODALITY",
    called: str = "PTXSEG",
    tls: ssl.SSLContext | None = None,
) -> int | None:
    """The status of one C-STORE; None when there was no answer."""
    ae = AE(calling)
    ae.acse_timeout = 60
    ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    secured = (tls, "127.0.0.1") if tls else None
    association = ae.associate("127.0.0.1", port, ae_title=called, tls_args=secured)
    if not association.is_established:
        return None
    try:
        return association.send_c_store(dataset).get("Status")
    finally:
        association.release()


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
