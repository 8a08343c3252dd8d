"""One answered film whose object waits for its destination, and the sender when a test runs it."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path

from answered_films import running_sender
from servers import wait_for

from dicom_node.runtime.config import Config, load
from dicom_node.storage.destinations import Router
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, Delivery, DeliveryState, Outcome, State, StoredObject
from dicom_node.storage.spool import Spool
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom


class WaitingDelivery:
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
        made = phantom_dataset(draw_phantom(1, shape=(96, 80)), kind="SC", bits=8)
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
