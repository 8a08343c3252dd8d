"""A worker on another machine, by hand: speaks the HTTP interface step by step, so that a test can misbehave."""

from __future__ import annotations

import hashlib
import io
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from segmenter.objects.uids import result_uid

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
CONTENT, MODEL = "c" * 64, "d" * 64


@dataclass
class Hand:
    """One claim, and what can be done with it."""

    client: httpx2.Client
    task: dict[str, Any]
    owner: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Claim-Owner": self.owner}

    def call(self, method: str, path: str, **body: Any) -> httpx2.Response:
        return self.client.request(method, f"/v1/claims/{self.task['job_id']}{path}", headers=self.headers, **body)

    def source(self) -> pydicom.FileDataset:
        return pydicom.dcmread(io.BytesIO(self.call("GET", "/source").raise_for_status().content))

    def send(self, seg: Dataset, name: str = "seg.dcm") -> str:
        """Its sha256."""
        data = encoded(seg)
        self.call("PUT", f"/objects/{name}", content=data).raise_for_status()
        return hashlib.sha256(data).hexdigest()

    def finish(self, sha256: str, **changes: Any) -> httpx2.Response:
        return self.call("POST", "/result", json=result(sha256) | changes)


@dataclass
class RemoteWorker:
    url: str
    token: str
    instance: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        self.client = httpx2.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    def ask(self, owner: str, **changes: Any) -> httpx2.Response:
        body = {"instance": self.instance, "pid": 4711, "owner": owner, "model": "m 1", "model_digest": MODEL}
        return self.client.post("/v1/claims", json=body | changes)

    def claim(self) -> Hand:
        owner = secrets.token_hex(16)
        answer = self.ask(owner)
        assert answer.status_code == 200, answer.text
        return Hand(self.client, answer.json(), owner)


def seg_of(source: Dataset, **changes: Any) -> Dataset:
    """What the node checks of a SEG of this film, and nothing else."""
    uid = result_uid(str(source.SOPInstanceUID), CONTENT, MODEL, "seg")
    seg = Dataset()
    seg.file_meta = FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.SOPClassUID, seg.SOPInstanceUID = UID(SEG), UID(uid)
    seg.StudyInstanceUID, seg.PatientID = source.StudyInstanceUID, source.PatientID
    instance, series = Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = source.SeriesInstanceUID, [instance]
    seg.ReferencedSeriesSequence = [series]
    for keyword, value in changes.items():
        setattr(seg, keyword, value)
    seg.file_meta.MediaStorageSOPClassUID, seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPClassUID, seg.SOPInstanceUID
    return seg


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def result(sha256: str) -> dict[str, Any]:
    return {
        "state": "segmented",
        "finding": "pneumothorax",
        "probability": 0.9,
        "area_mm2": 12.0,
        "content_sha256": CONTENT,
        "model": "m 1",
        "model_digest": MODEL,
        "intended_use": "demo",
        "seconds": 0.1,
        "objects": [{"role": "seg", "variant": "", "sha256": sha256}],
    }
