"""Two archives of different makers in which objects are stored and looked at again: Orthanc, and dcmtk's dcmqrscp."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.presentation import build_context
from servers import SENDER, free_port, running_orthanc, wait_for

ARCHIVE_AE = "ARCHIVE"


@dataclass(frozen=True)
class Archive:
    """An archive on loopback. `held()`: everything that it holds, as files."""

    name: str
    ae_title: str
    port: int
    held: Callable[[], Iterator[bytes]]

    def store(self, paths: Sequence[Path], tool: Callable[[str], str]) -> str:
        """C-STORE all of them, over one association, going on after a refusal; what the sender says of its troubles."""
        command = [tool("storescu"), "-R", "-nh", "-aet", SENDER, "-aec", self.ae_title, "127.0.0.1", str(self.port)]
        done = subprocess.run([*command, *paths], capture_output=True, check=False)
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def objects(self) -> dict[str, Dataset]:
        """What it holds, by SOP Instance UID."""
        found = (pydicom.dcmread(BytesIO(data)) for data in self.held())
        return {one.SOPInstanceUID: one for one in found}


@contextlib.contextmanager
def running_orthanc_archive(program: str, folder: Path) -> Iterator[Archive]:
    with running_orthanc(program, folder) as orthanc:

        def held() -> Iterator[bytes]:
            return (orthanc.file(instance) for instance in orthanc.get("/instances"))

        yield Archive("Orthanc", "ORTHANC", orthanc.dicom_port, held)


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
    process = subprocess.Popen([program, "-c", str(folder / "dcmqrscp.cfg"), str(port)], stdout=log, stderr=log)

    def held() -> Iterator[bytes]:
        return (path.read_bytes() for path in storage.rglob("*") if path.is_file() and path.name != "index.dat")

    try:
        wait_for(lambda: _echoes(port), 120, "dcmqrscp")
        yield Archive("dcmqrscp", ARCHIVE_AE, port, held)
    finally:
        process.terminate()
        process.wait(120)
        log.close()


@contextlib.contextmanager
def both_archives(tool: Callable[[str], str], folder: Path) -> Iterator[list[Archive]]:
    """Empty ones."""
    with (
        running_orthanc_archive(tool("Orthanc"), folder / "orthanc") as one,
        running_dcmqrscp(tool("dcmqrscp"), folder / "dcmqrscp") as other,
    ):
        yield [one, other]


def _echoes(port: int) -> bool:
    association = AE(ae_title=SENDER).associate(
        "127.0.0.1", port, ae_title=ARCHIVE_AE, contexts=[build_context("1.2.840.10008.1.1")]
    )
    if not association.is_established:
        return False
    association.send_c_echo()
    association.release()
    return True
