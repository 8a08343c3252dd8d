"""A spool and a ledger with films that are answered: one object each waits for the sender, which runs here when asked."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from servers import wait_for

from dicom_node.runtime.config import Config, load
from dicom_node.send.storage_scu import Sender
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, Delivery, DeliveryState, Outcome, State, StoredObject
from dicom_node.storage.spool import Spool

EXPLICIT = "1.2.840.10008.1.2.1"
SC, SEG = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.66.4"


class AnsweredFilms:
    """`count` films, answered by one object of `size` bytes each. `uids`: their objects, in order; `sources`: the films.

    They go to PACS at `port`, and to the `others` (name -> port) too.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        count: int,
        *,
        size: int = 20_000,
        sop_class: str = SC,
        others: Mapping[str, int] | None = None,
        connect_seconds: float = 20,
        response_seconds: float = 3,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.config_file = folder / "config.toml"
        ports = {"PACS": port} | dict(others or {})
        self.config_file.write_text(
            "".join(f"[peers.{name}]\nhost = '127.0.0.1'\nport = {number}\n" for name, number in ports.items())
            + f"[send]\ndestinations = {list(ports)}\nfirst_delay_seconds = 0.2\nmax_delay_seconds = 0.4\n"
            f"connect_seconds = {connect_seconds}\nresponse_seconds = {response_seconds}\n"
            "[queue]\npoll_seconds = 0.02\n[node]\nreserve_mb = 0\n"
        )
        self.config: Config = load(self.config_file)
        self.spool = Spool(self.config.spool_directory, 0)
        self.ledger = Ledger(self.config.ledger_path)
        self.outbox = Outbox(self.ledger.store)
        self.sources: list[str] = []
        self.uids: list[str] = []
        self.jobs: list[str] = []
        self.sha256: dict[str, str] = {}  # of the dataset of each object, as it must arrive
        for _ in range(count):
            self.add(size, sop_class)

    def add(self, size: int = 20_000, sop_class: str = SC) -> str:
        """One more film; the UID of its object."""
        number = len(self.sources) + 1
        source, uid = f"1.2.3.{number}", f"2.25.{number}"
        job_id = self.ledger.add_arrival(
            Arrival(source, "1.2", EXPLICIT, f"sha{number}", f"arrivals/{number}", 1, "MODALITY", "PTXSEG", "127.0.0.1")
        ).job_id
        claim = self.ledger.claim("w", 30)
        assert claim is not None and claim.job.job_id == job_id
        data = result_object(source, uid, size, sop_class)
        stored = self.spool.write_into(self.spool.folder_for(job_id, claim.owner), "seg.dcm", data)
        one = StoredObject("seg", "", sop_class, uid, stored.sha256, stored.path, stored.size, "research")
        outcome = Outcome(State.SEGMENTED, content_sha256=f"c{number}", model_digest="m", objects=(one,))
        self.ledger.finish(claim, outcome, [Route(name) for name in self.config.send.destinations])
        self.sources.append(source)
        self.uids.append(uid)
        self.jobs.append(job_id)
        self.sha256[uid] = hashlib.sha256(data[144 + int.from_bytes(data[140:144], "little") :]).hexdigest()
        return uid

    def delivery(self, uid: str, destination: str = "PACS") -> Delivery:
        [one] = [one for one in self.outbox.of_job(self.jobs[self.uids.index(uid)]) if one.destination == destination]
        return one

    def states(self) -> dict[str, DeliveryState]:
        """At PACS."""
        return {uid: self.delivery(uid).state for uid in self.uids}

    def sending(self) -> AbstractContextManager[None]:
        return running_sender(self.config, self.spool, self.ledger, self.outbox)

    def all_are(self, *states: DeliveryState, seconds: float = 120) -> None:
        try:
            wait_for(lambda: set(self.states().values()) <= set(states), seconds)
        except AssertionError:
            others = [(uid, state, self.delivery(uid).reason) for uid, state in self.states().items() if state not in states]
            raise AssertionError(f"not {states} in {seconds} s: {others}") from None


@contextmanager
def running_sender(config: Config, spool: Spool, ledger: Ledger, outbox: Outbox) -> Iterator[None]:
    """A sender in a thread while the block runs."""
    stop = threading.Event()
    thread = threading.Thread(target=Sender(config, spool, ledger, outbox).run, args=(stop, 0.02))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive(), "the sender did not stop"


def result_object(source: str, uid: str, size: int, sop_class: str) -> bytes:
    """A Part 10 file that refers to its film as a SEG does (PS3.3 C.7.6.16 Common Instance Reference)."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    made.SOPClassUID, made.SOPInstanceUID = UID(sop_class), UID(uid)
    instance, series = Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = UID(SC), UID(source)
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = UID("1.2.9"), [instance]
    made.ReferencedSeriesSequence = [series]
    made.add_new(0x7FE00010, "OB", os.urandom(size))
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
