"""A reading room: Orthanc with DICOMweb, OHIF, and a headless Chromium that opens studies and takes photographs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import Orthanc, running_orthanc, store
from viewer_cases import Case

ROOT = Path(__file__).resolve().parents[2]
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DRIVER = "playwright-core-1.64.1"
WIDTH, HEIGHT = 1400, 900  # of the window, in pixels


def viewer_folder(version: str) -> Path:
    """Where `make` puts OHIF."""
    return ROOT / ".make/viewer" / f"ohif-app-{version}"


@dataclass(frozen=True)
class Visit:
    """A study is opened, then the entries of its series list that have these modalities, one after the other."""

    case: Case
    open: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join([self.case.name, *self.open]).lower()


@dataclass(frozen=True)
class ReadingRoom:
    orthanc: Orthanc
    node: str  # programs, by path
    chromium: str
    ohif: str  # version
    pictures: Path

    def send(self, cases: Sequence[Case]) -> None:
        """Films and objects by C-STORE, as modality and node would; AssertionError when the PACS takes one not."""
        for case in cases:
            for dataset in (*case.films, *case.objects):
                status = store(dataset, self.orthanc.dicom_port, "ORTHANC")
                assert status == 0, f"{case.name}: {dataset.SOPClassUID.name} got {status:04X}"

    def read(self, visits: Sequence[Visit], seconds: float = 600) -> dict[str, Any]:
        """What was seen, by name of the visit (browser/reader.mjs says what is in it)."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        order = {
            "chromium": self.chromium,
            "playwright": str(ROOT / ".make/viewer" / DRIVER),
            "dist": str(viewer_folder(self.ohif) / "dist"),
            "pacs": f"http://127.0.0.1:{self.orthanc.http_port}",
            "pictures": str(self.pictures),
            "width": WIDTH,
            "height": HEIGHT,
            "visits": [{"name": one.name, "study": one.case.study, "open": one.open} for one in visits],
        }
        with subprocess.Popen(
            [self.node, ROOT / "tests/support/browser/reader.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader:
            try:
                said, _ = reader.communicate(json.dumps(order), timeout=seconds)
            finally:
                reader.kill()
        assert reader.returncode == 0, "the browser could not be driven; see its words above"
        return dict(json.loads(said))


@contextlib.contextmanager
def reading_room(folder: Path, tool: Callable[[str], str], ohif: str) -> Iterator[ReadingRoom]:
    """Open it; `tool` finds programs and says what happens when one is missing."""
    node, chromium = tool("node"), tool("chromium")
    tool(str(DICOMWEB))
    tool(str(viewer_folder(ohif) / "dist/index.html"))
    with running_orthanc(tool("Orthanc"), folder / "orthanc", plugins=[str(DICOMWEB)]) as orthanc:
        yield ReadingRoom(orthanc, node, chromium, ohif, folder / "pictures")
