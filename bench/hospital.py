"""What `chaos` and `soak` share: a node, a PACS that writes everything down, a real Orthanc, and modalities that never give
up. Loopback only; everything runs in processes that are started here and lives in one scratch folder."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import stubborn_sender  # noqa: E402
from far import Far  # noqa: E402
from ledger_counts import jobs_by_state, open_deliveries  # noqa: E402
from recording_pacs import IMPLICIT_ONLY, NO_LENGTH, Count, Received, RecordingPacs, count, recording_pacs  # noqa: E402
from servers import Node, Orthanc, free_port, running_orthanc  # noqa: E402

from dicom_node.cli.supervisor import running  # noqa: E402
from dicom_node.storage.records import FINISHED, State  # noqa: E402
from segmenter.phantom.dicom import phantom_dataset  # noqa: E402
from segmenter.phantom.draw import draw_phantom  # noqa: E402

# One recording process, called by two names, each of them peculiar; Orthanc is the third destination.
RECORDERS = ("PACS", "ARCHIVE")
PECULIAR = {"PACS": NO_LENGTH, "ARCHIVE": IMPLICIT_ONLY}
SEEDS = (7, 10, 29, 38)  # films on which the shipped model finds a pneumothorax
SHAPE = (2500, 2048)
MOST_UNDER_WAY = 40  # films that are accepted and not in the PACS; at more the modalities wait


@dataclass
class Hospital:
    node: Node
    pacs: RecordingPacs
    orthanc: Orthanc | None
    originals: list[pydicom.Dataset]
    far: Far | None = None
    accepted: dict[str, float] = field(default_factory=dict)  # film -> time of its 0000, seconds since the epoch
    sends_in: int = 0  # C-STOREs by the modalities, repeated ones included
    launches: int = 0
    _drawn: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _done: int = 0  # journal entries looked at
    _reached: dict[str, dict[str, float]] = field(default_factory=dict)  # film -> destination -> first arrival

    def new_film(self) -> pydicom.Dataset:
        """A film that nobody has seen: new UIDs, and one pixel of the frame is another."""
        with self._lock:
            self._drawn += 1
            number = self._drawn
        # Deep: copies of pydicom's share their elements, and a film that waits to be sent again would get the next one's UID.
        film = copy.deepcopy(self.originals[number % len(self.originals)])
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        film.PixelData = number.to_bytes(2, "little") + film.PixelData[2:]
        return film

    def take(self, film: pydicom.Dataset, calling: str) -> None:
        """Send it until it is taken."""
        uid = str(film.SOPInstanceUID)
        tries = stubborn_sender.send(film, self.node.port, 3600.0, calling)
        assert uid == film.SOPInstanceUID, "the film in the modality's hands became another one"
        with self._lock:
            self.accepted[uid] = time.time()
            self.sends_in += tries

    def reached(self) -> dict[str, dict[str, float]]:
        with self._lock:
            journal = self.pacs.journal()
            for one in journal[self._done :]:
                self._reached.setdefault(one.source, {}).setdefault(one.called_ae, one.when)
            self._done = len(journal)
            return {film: dict(found) for film, found in self._reached.items()}

    def under_way(self) -> set[str]:
        """Films that were accepted and are not yet at both recorders."""
        reached = self.reached()
        with self._lock:
            return {film for film in self.accepted if len(reached.get(film, ())) < len(RECORDERS)}

    def latencies(self) -> list[float]:
        """Seconds from 0000 to the last of the recorders."""
        reached = self.reached()
        return [
            max(found.values()) - self.accepted[film]
            for film, found in reached.items()
            if film in self.accepted and len(found) == len(RECORDERS)
        ]

    @contextlib.contextmanager
    def flow(self, modalities: int, pause: float = 0.0) -> Iterator[None]:
        """`modalities` senders, each with the next film as soon as few are under way and `pause` seconds have passed.

        When the block ends each of them first gets rid of the film in its hands.
        """
        ending = threading.Event()

        def send_films(calling: str) -> None:
            while not ending.wait(pause):
                if len(self.under_way()) < MOST_UNDER_WAY:
                    self.take(self.new_film(), calling)
                else:
                    ending.wait(0.1)

        threads = [threading.Thread(target=send_films, args=(f"XRAY{number}",)) for number in range(modalities)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            for thread in threads:
                thread.join()

    def drain(self, seconds: float) -> None:
        """Until every film is at its destinations or failed, and at most so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            waiting = self.under_way()
            counts = jobs_by_state(self.node.ledger.store)
            unfinished = sum(number for state, number in counts.items() if state not in FINISHED)
            failed = counts[State.FAILED] + counts[State.SKIPPED]
            if len(waiting) <= failed and not unfinished and not open_deliveries(self.node.ledger.store):
                return
            time.sleep(0.2)

    def processes(self) -> dict[str, int]:
        """Those of the node that live now, by name."""
        process = self.node.process
        if process is None or process.poll() is not None:
            return {}
        found = {"supervisor": process.pid}
        state = running(self.node.config)
        children = dict(state["children"]) if state and state["pid"] == process.pid else {}  # type: ignore[call-overload]
        of_supervisor = _children(process.pid)
        for name, pid in children.items():
            if pid in of_supervisor:
                found["work parent" if name == "work" else name] = pid
        for name in {"receive", "work parent"} & set(found):
            for number, pid in enumerate(_children(found[name])):
                found[f"{name.removesuffix(' parent')} child" + (f" {number + 1}" if number else "")] = pid
        return found | self._far_processes()

    def _far_processes(self) -> dict[str, int]:
        if self.far is None or self.far.process is None or self.far.process.poll() is not None:
            return {}
        found = {"far parent": self.far.process.pid}
        for pid in _children(self.far.process.pid)[:1]:
            found["far child"] = pid
        return found

    def verdict(self) -> dict[str, object]:
        """The part of the JSON that chaos and soak share, from the PACS's book, the ledger and Orthanc."""
        found: Count = count(self.pacs.journal(), self.accepted, RECORDERS)
        counts = jobs_by_state(self.node.ledger.store)
        spread = sorted(self.latencies()) or [0.0]
        doubled = set(found.doubled) | set(found.strange)
        lost = set(found.lost)
        if self.orthanc is not None:
            there = self.orthanc.get("/instances?expand&since=0&limit=1000000")
            stored = [one["MainDicomTags"]["SOPInstanceUID"] for one in there]
            sent = {one.uid: one.source for one in self.pacs.journal()}
            lost |= {film for uid, film in sent.items() if uid not in set(stored)}
            doubled |= {uid for uid in stored if uid not in sent or stored.count(uid) > 1}
        return {
            "in": len(self.accepted),
            "results": len({one.source for one in self.pacs.journal()}),  # films with an answer
            "objects": found.results,
            "lost": len(lost),
            "doubled": len(doubled),  # with results of films that no modality knows to have sent
            **(
                {"names": {"lost": sorted(lost), "doubled": found.doubled, "strange": found.strange}} if lost or doubled else {}
            ),
            "failed": counts[State.FAILED] + counts[State.SKIPPED],
            "restarts": self.restarts(),
            "sends_in_per_film": round(self.sends_in / max(1, len(self.accepted)), 3),
            "sends_per_uid": found.sends_per_uid,
            "most_sends_of_one_uid": found.most_sends,
            "p50": round(statistics.median(spread), 3),
            "p95": round(spread[int(0.95 * (len(spread) - 1))], 3),
            "longest": round(spread[-1], 3),
            "destinations": len(RECORDERS) + (self.orthanc is not None),
        }

    def restarts(self) -> int:
        """Of the supervisor by us, of its children by the supervisor; Celery's own children are not counted."""
        again = self.launches - 1 + (self.far.launches - 1 if self.far else 0)
        return again + self.node.log_text().count("a process died")

    def keep_up(self) -> None:
        """Start the supervisor, and the worker that is far, when dead, as an init system does; until the hospital closes."""
        while not self._closing.wait(0.05):
            if self.node.process is None or self.node.process.poll() is not None:
                self.node.launch()
                self.launches += 1
            if self.far is not None:
                self.far.keep_up()


@contextlib.contextmanager
def open_hospital(
    folder: Path, orthanc_program: str | None, modalities: int, *, far: bool = False, **settings: str
) -> Iterator[Hospital]:
    """`far`: the only worker is one that has no disk of the node, and no ledger."""
    with contextlib.ExitStack() as stack:
        pacs = stack.enter_context(recording_pacs(folder / "pacs", **PECULIAR))
        orthanc = stack.enter_context(running_orthanc(orthanc_program, folder / "orthanc")) if orthanc_program else None
        peers = {name: {"host": "127.0.0.1", "port": pacs.port} for name in RECORDERS}
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "SEGMENTER_PEERS": json.dumps(peers),
            "SEGMENTER_SEND__DESTINATIONS": json.dumps([*(["ORTHANC"] if orthanc else []), *RECORDERS]),
            "SEGMENTER_RECEIVE__ALLOWED": json.dumps({f"XRAY{number}": [] for number in range(modalities)}),
        } | settings
        worker = Far(folder / "far") if far else None
        environment |= worker.settings if worker else {}
        node = Node(folder / "node", ("ORTHANC", orthanc.dicom_port if orthanc else free_port()), environment)
        originals = [phantom_dataset(draw_phantom(seed, shape=SHAPE, pneumothorax=True), kind="DX", bits=12) for seed in SEEDS]
        if worker is not None:
            worker.introduce(node)
        hospital = Hospital(node, pacs, orthanc, originals, worker)
        watching = threading.Thread(target=hospital.keep_up)
        watching.start()
        try:
            yield hospital
        finally:
            hospital._closing.set()
            watching.join()
            if node.process is not None and node.process.poll() is None:
                node.stop()
            if worker is not None:
                worker.stop()


def _children(pid: int) -> list[int]:
    """Processes whose parent it is, oldest first (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] not in ("Z", "X"):
            found.append(int(stat.parent.name))
    return sorted(found)


__all__ = ["Hospital", "Received", "open_hospital"]
