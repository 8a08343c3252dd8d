"""A PACS that forgets nothing: a process of its own that writes down every object it is sent, and the count over its book.

`python recording_pacs.py FOLDER PORT HOST` listens on that port (0: a free one; FOLDER/port says which) under every AE
title that it is called by, so one process stands in for several destinations. Each object is one line of
FOLDER/journal.jsonl, on disk before it is answered. FOLDER/behaviour.json makes it misbehave:
{"status": 42752, "delay_seconds": 2, "abort": true}. FOLDER/peculiar.json says how it negotiates under a title:
{"PACS": "no maximum length", "ARCHIVE": "Implicit VR only"}, both of which PS3.8 and PS3.5 allow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
NO_LENGTH, IMPLICIT_ONLY = "no maximum length", "Implicit VR only"


@dataclass(frozen=True)
class Received:
    """One C-STORE, as the PACS saw it."""

    source: str  # SOP Instance UID of the film that the object is about
    role: str  # seg, sr, ...: the object's Modality, in small letters
    model: str  # Device Serial Number: the digest of the model
    uid: str  # SOP Instance UID of the object
    sha256: str  # of the dataset's bytes on the wire
    when: float  # seconds since the epoch
    calling_ae: str
    called_ae: str  # which destination we were
    syntax: str = ""  # transfer syntax


@dataclass
class RecordingPacs:
    """The process, and its book for reading. Outlives whatever the node does."""

    folder: Path
    port: int = 0
    host: str = "127.0.0.1"
    before: Sequence[str] = ()  # what the command begins with: `ip netns exec NAME`
    peculiar: Mapping[str, str] = field(default_factory=dict)  # called AE title -> NO_LENGTH or IMPLICIT_ONLY
    process: subprocess.Popen[bytes] | None = None
    _read_bytes: int = 0
    _journal: list[Received] = field(default_factory=list)

    def start(self) -> RecordingPacs:
        self.folder.mkdir(parents=True, exist_ok=True)
        announced = self.folder / "port"
        announced.unlink(missing_ok=True)
        (self.folder / "peculiar.json").write_text(json.dumps(dict(self.peculiar)))
        log = (self.folder / "log").open("ab")
        command = [*self.before, sys.executable, __file__, str(self.folder), str(self.port), self.host]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 30
        while not announced.exists():
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)
        self.port = int(announced.read_text())
        return self

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(120)

    def behave(self, **how: object) -> None:
        """From the next object on; nothing named: honestly."""
        temporary = self.folder / "behaviour.tmp"
        temporary.write_text(json.dumps(how))
        temporary.rename(self.folder / "behaviour.json")

    def journal(self) -> Sequence[Received]:
        """Every C-STORE so far, in order."""
        path = self.folder / "journal.jsonl"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._read_bytes)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    self._journal.append(Received(**json.loads(line)))
                    self._read_bytes += len(line)
        return self._journal

    def results_of(self, source: str) -> list[Received]:
        return [one for one in self.journal() if one.source == source]


@contextlib.contextmanager
def recording_pacs(folder: Path, **peculiar: str) -> Iterator[RecordingPacs]:
    pacs = RecordingPacs(folder, peculiar=peculiar).start()
    try:
        yield pacs
    finally:
        pacs.stop()


@dataclass(frozen=True)
class Count:
    """What became of the films, by the book alone. All three lists are empty when the promise was kept."""

    results: int  # distinct (film, role, model)
    lost: list[str]  # films without a result at some destination
    doubled: list[str]  # films with two result UIDs for one role and model, or with two contents under one UID
    strange: list[str]  # sources that nobody sent
    sends_per_uid: float  # C-STOREs per result UID and destination; 1.0: nothing was ever sent twice
    most_sends: int


def count(journal: Sequence[Received], films: Collection[str], destinations: Collection[str]) -> Count:
    """`films`: those that the node answered with 0000, each known to have a result."""
    uids: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    contents: dict[tuple[str, str], set[str]] = defaultdict(set)  # the same elements have other bytes in another syntax
    reached: dict[str, set[str]] = defaultdict(set)
    sends: dict[tuple[str, str], int] = defaultdict(int)
    film_of = {}
    for one in journal:
        uids[one.source, one.role, one.model].add(one.uid)
        contents[one.uid, one.syntax].add(one.sha256)
        reached[one.source].add(one.called_ae)
        sends[one.uid, one.called_ae] += 1
        film_of[one.uid] = one.source
    doubled = {source for (source, _, _), found in uids.items() if len(found) > 1}
    doubled |= {film_of[uid] for (uid, _), found in contents.items() if len(found) > 1}
    return Count(
        results=len(uids),
        lost=sorted(film for film in films if not reached[film] >= set(destinations)),
        doubled=sorted(doubled),
        strange=sorted(set(reached) - set(films)),
        sends_per_uid=round(sum(sends.values()) / len(sends), 4) if sends else 0.0,
        most_sends=max(sends.values(), default=0),
    )


def source_of(dataset: Dataset) -> str:
    """The film that an object is about: the first instance that it refers to and that is no SEG (PS3.3 C.12.4, C.17.2)."""
    for instance in dataset.get("SourceImageSequence", []):
        return str(instance.ReferencedSOPInstanceUID)
    for keyword in ("ReferencedSeriesSequence", "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for item in dataset.get(keyword, []):
            for inner in (item, *item.get("ReferencedSeriesSequence", [])):
                for name in ("ReferencedInstanceSequence", "ReferencedSOPSequence", "ReferencedImageSequence"):
                    for instance in inner.get(name, []):
                        if instance.get("ReferencedSOPClassUID") != _SEG:
                            return str(instance.ReferencedSOPInstanceUID)
    return ""


# -- the process -----------------------------------------------------------------------------------------------


def main(folder: Path, port: int, host: str) -> None:
    from pynetdicom import AE, evt
    from pynetdicom.pdu_primitives import MaximumLengthNotification
    from pynetdicom.presentation import AllStoragePresentationContexts
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    book = os.open(folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writing = threading.Lock()

    def store(event: evt.Event) -> int:
        data = event.request.DataSet.getvalue()
        dataset = pydicom.dcmread(BytesIO(event.encoded_dataset()), stop_before_pixels=True)
        line = Received(
            source=source_of(dataset),
            role=str(dataset.get("Modality", "")).lower(),
            model=str(dataset.get("DeviceSerialNumber", "")),
            uid=str(event.request.AffectedSOPInstanceUID),
            sha256=hashlib.sha256(data).hexdigest(),
            when=time.time(),
            calling_ae=event.assoc.requestor.ae_title,
            called_ae=event.assoc.requestor.primitive.called_ae_title,
            syntax=str(event.context.transfer_syntax),
        )
        how = behaviour()
        time.sleep(how.get("delay_seconds", 0))
        if how.get("status"):
            return int(how["status"])
        with writing:
            os.write(book, json.dumps(asdict(line)).encode() + b"\n")
            os.fsync(book)
        if how.get("abort"):
            event.assoc.abort()  # stored, and the sender never hears of it
        return 0x0000

    def behaviour() -> dict:
        try:
            return dict(json.loads((folder / "behaviour.json").read_text()))
        except FileNotFoundError:
            return {}

    peculiar = json.loads((folder / "peculiar.json").read_text())

    def asked(event: evt.Event) -> None:
        association = event.assoc
        how = peculiar.get(association.requestor.primitive.called_ae_title)
        if how == NO_LENGTH:
            ours = association.acceptor
            ours._user_info = [one for one in ours._user_info if not isinstance(one, MaximumLengthNotification)]
        elif how == IMPLICIT_ONLY:
            for context in association.acceptor.supported_contexts:
                context.transfer_syntax = ["1.2.840.10008.1.2"]

    ae = AE(ae_title="ANY")
    ae.require_called_aet = False
    ae.maximum_associations = 100
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax))
    server = ae.start_server((host, port), block=False, evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_REQUESTED, asked)])
    assert server is not None and server.socket is not None
    temporary = folder / "port.tmp"
    temporary.write_text(str(server.socket.getsockname()[1]))
    temporary.rename(folder / "port")
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
