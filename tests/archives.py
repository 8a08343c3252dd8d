"""Two archives of different makers that objects are stored in and asked for again: Orthanc, and dcmtk's dcmqrscp."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as STUDY_ROOT_GET
from servers import SENDER, free_port, running_orthanc, wait_for

ARCHIVE_AE = "ARCHIVE"


@dataclass(frozen=True)
class Archive:
    """An archive on loopback, by its own name and as the network knows it."""

    name: str
    ae_title: str
    port: int

    def store(self, paths: Sequence[Path]) -> dict[Path, str]:
        """C-STORE all of them as they are, over one association; what it says of those that it does not take."""
        heads = {path: pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"]) for path in paths}
        pairs = sorted({(head.SOPClassUID, head.file_meta.TransferSyntaxUID) for head in heads.values()})
        association = AE(ae_title=SENDER).associate(
            "127.0.0.1", self.port, ae_title=self.ae_title, contexts=[build_context(one, [syntax]) for one, syntax in pairs]
        )
        assert association.is_established, f"{self.name} refused the association"
        refused: dict[Path, str] = {}
        try:
            for path in paths:
                try:
                    status = association.send_c_store(path).get("Status")
                except ValueError:
                    refused[path] = f"{self.name} does not take its SOP class"
                    continue
                if status != 0:
                    refused[path] = f"{self.name}: status {status}"
        finally:
            association.release()
        return refused

    def held(self, studies: Sequence[str]) -> dict[str, Dataset]:
        """What it gives back of these studies (C-GET), by SOP Instance UID."""
        got: dict[str, Dataset] = {}

        def take(event: evt.Event) -> int:
            got[event.dataset.SOPInstanceUID] = event.dataset
            return 0x0000

        classes = sorted(OBJECT_CLASSES)
        association = AE(ae_title=SENDER).associate(
            "127.0.0.1",
            self.port,
            ae_title=self.ae_title,
            contexts=[build_context(STUDY_ROOT_GET), *(build_context(one, EXPLICIT) for one in classes)],
            ext_neg=[build_role(one, scp_role=True) for one in classes],
            evt_handlers=[(evt.EVT_C_STORE, take)],
        )
        assert association.is_established, f"{self.name} refused the association"
        try:
            for study in studies:
                query = Dataset()
                query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
                list(association.send_c_get(query, STUDY_ROOT_GET))
        finally:
            association.release()
        return got


EXPLICIT = "1.2.840.10008.1.2.1"
OBJECT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
}


@contextlib.contextmanager
def running_dcmqrscp(program: str, folder: Path) -> Iterator[Archive]:
    """Holds 500 studies, not more."""
    storage = folder / "storage"
    storage.mkdir(parents=True)
    port = free_port()
    (folder / "dcmqrscp.cfg").write_text(
        f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ARCHIVE_AE} {storage} RW (500, 1024mb) ANY
AETable END
"""
    )
    log = (folder / "dcmqrscp.log").open("ab")
    command = [program, "-c", str(folder / "dcmqrscp.cfg"), str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: _echoes(port), 30, "dcmqrscp")
        yield Archive("dcmqrscp", ARCHIVE_AE, port)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@contextlib.contextmanager
def running_orthanc_archive(program: str, folder: Path) -> Iterator[Archive]:
    with running_orthanc(program, folder) as orthanc:
        yield Archive("Orthanc", "ORTHANC", orthanc.dicom_port)


def _echoes(port: int) -> bool:
    association = AE(ae_title=SENDER).associate(
        "127.0.0.1", port, ae_title=ARCHIVE_AE, contexts=[build_context("1.2.840.10008.1.1")]
    )
    if not association.is_established:
        return False
    association.send_c_echo()
    association.release()
    return True
