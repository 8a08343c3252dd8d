"""A film's way: the forward pass, every stage beside it, accepted to stored on an idle node, and a backlog."""

from __future__ import annotations

import functools
import io
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pydicom
from apparatus import send
from ledger_counts import jobs_by_state
from programs import needed
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from rows import Row, row
from servers import NODE_AE, SENDER, Node, Orthanc, running_node, running_orthanc, wait_for

from dicom_node.cli.demo_pacs import DemoPacs
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Node as NodeSettings
from dicom_node.runtime.config_sections import Segment
from dicom_node.storage.leases import Claim
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.part10 import read_film
from dicom_node.storage.records import Arrival, Outcome, State, StoredObject
from dicom_node.work.model import load_model, segment_settings
from segmenter.engine import Segmenter
from segmenter.objects.kinds import ObjectKind
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom

POSITIVE_SEEDS = (7, 10, 29, 38, 54, 69)  # films that the shipped model answers with a SEG
NEGATIVE_SEED = 1
STAGE_ROUNDS = 3  # of every positive film
BACKLOG = 200  # films

T = TypeVar("T")


@functools.cache
def _drawn(seed: int) -> bytes:
    """The Part 10 file of a phantom, 2500x2048, 12 bits in 16, uncompressed."""
    film = phantom_dataset(draw_phantom(seed, shape=(2500, 2048), pneumothorax=seed in POSITIVE_SEEDS), kind="DX", bits=12)
    return _encoded(film)


def _encoded(film: FileDataset) -> bytes:
    buffer = io.BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _new_film(seed: int, number: int) -> FileDataset:
    """The same phantom as a film that nobody has seen: UID and four pixels in a corner are its own."""
    film = pydicom.dcmread(io.BytesIO(_drawn(seed)))
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    film.PixelData = (1000 + number).to_bytes(2, "little") * 4 + film.PixelData[8:]
    return film


def _segmenter() -> Segmenter:
    return Segmenter(load_model(Segment()), segment_settings(Segment()))


class _Stopwatch:
    """Seconds of each stage, of each film; the sum of a film is of one film."""

    def __init__(self) -> None:
        self.films: list[dict[str, float]] = []

    def film(self) -> None:
        self.films.append({})

    def __call__(self, stage: str, step: Callable[[], T]) -> T:
        started = time.perf_counter()
        made = step()
        self.add(stage, time.perf_counter() - started)
        return made

    def add(self, stage: str, seconds: float) -> None:
        self.films[-1][stage] = self.films[-1].get(stage, 0.0) + seconds

    def of(self, stage: str) -> list[float]:
        return [film[stage] for film in self.films]

    def but(self, stage: str) -> list[float]:
        return [sum(film.values()) - film[stage] for film in self.films]


def stages(scratch: Path) -> Iterator[Row]:
    """Each stage alone, one film after the other, in one process."""
    watch, segmenter, node = _Stopwatch(), _segmenter(), _node(scratch / "stages")
    for number in range(STAGE_ROUNDS):
        for seed in POSITIVE_SEEDS:
            _through_all_stages(watch, segmenter, node, _new_film(seed, number))
    watch.films = watch.films[len(POSITIVE_SEEDS) :]  # the first round warms up
    forward = statistics.median(watch.of("forward"))
    yield row("inference: forward pass of one film, CPU", forward, "s", "itself", "lower", rounds=watch.of("forward"))
    against = [seconds / forward for seconds in watch.but("forward")]
    name = "stages: everything but the forward pass against it"
    yield row(name, statistics.median(against), "ratio", "forward", "lower", 0.5, rounds=against)
    for stage in watch.films[0]:
        if stage != "forward":
            yield row(f"stages: {stage}", statistics.median(watch.of(stage)), "s", "itself", "lower", rounds=watch.of(stage))


def _node(folder: Path) -> LocalQueue:
    return LocalQueue.of(Config(node=NodeSettings(directory=folder, reserve_mb=16)), "bench")


def _through_all_stages(watch: _Stopwatch, segmenter: Segmenter, node: LocalQueue, film: FileDataset) -> None:
    _arrive(node, film)
    watch.film()
    claim = watch("ledger: claim, what is known, finish", node.claim)
    assert claim is not None
    source = watch("read: from disk, sha256, parse", lambda: read_film(node.source(claim), claim.job))
    on_its_way = segmenter.read(source)
    segmenter.forward([on_its_way])
    finding = segmenter.decide(on_its_way)
    for stage in ("gate", "decode", "place", "mask"):
        watch.add("gate and decode" if stage in ("gate", "decode") else stage, finding.seconds[stage])
    watch.add("forward", finding.seconds["predict"])
    assert finding.decision is not None and finding.decision.positive and finding.radiograph is not None
    content = finding.radiograph.content_sha256
    watch("ledger: claim, what is known, finish", lambda: node.known(claim, content, segmenter.identity.digest))
    objects = []
    for kind, stage in ((ObjectKind.SEG, "SEG"), (ObjectKind.SR, "report (SR)")):
        data = watch(stage, functools.partial(_built, segmenter, source, finding, kind))
        objects.append(watch("write: both objects, safe on disk", functools.partial(_stored, node, claim, kind, *data)))
    outcome = Outcome(State.SEGMENTED, content_sha256=content, model_digest=segmenter.identity.digest, objects=tuple(objects))
    watch("ledger: claim, what is known, finish", lambda: node.finish(claim, outcome))


def _built(segmenter: Segmenter, source: FileDataset, finding, kind: ObjectKind) -> tuple[str, bytes]:
    [made] = segmenter.objects(source, finding, kinds=[kind])
    return made.sop_instance_uid, _encoded(made.dataset)


def _stored(node: LocalQueue, claim: Claim, kind: ObjectKind, uid: str, data: bytes) -> StoredObject:
    path, sha256 = node.store(claim, f"{kind}.dcm", data)
    return StoredObject(kind.role, "", "1.2", uid, sha256, path, len(data), "demo")


def _arrive(node: LocalQueue, film: FileDataset) -> None:
    data = _encoded(film)
    begins = 144 + int.from_bytes(data[140:144], "little")
    stored = node.spool.write(data[begins:], data[:begins])
    syntax = film.file_meta.TransferSyntaxUID
    arrival = (film.SOPInstanceUID, film.SOPClassUID, syntax, stored.sha256, stored.path, stored.size, "A", "B", "::1")
    node.ledger.add_arrival(Arrival(*(one if isinstance(one, int) else str(one) for one in arrival)))


def accept(scratch: Path) -> Iterator[Row]:
    """C-STORE accepted -> SEG stored in Orthanc, one 2500x2048 film at a time on an idle node, against its parts alone: the
    forward pass plus 1.3 times the sum of the medians of the other stages. Waiting for the wake-up is not among them."""
    with (
        running_orthanc(needed("Orthanc", "bench"), scratch / "orthanc") as orthanc,
        running_node(scratch / "accept", ("ORTHANC", orthanc.dicom_port)) as node,
    ):
        times = [_accept_once(node, orthanc, seed, n) for n in range(2) for seed in POSITIVE_SEEDS][1:]
        deliver = statistics.median(_delivery_alone(node, orthanc) for _ in range(5))
    watch, segmenter, bench = _Stopwatch(), _segmenter(), _node(scratch / "alone")
    for number in range(2):
        for seed in POSITIVE_SEEDS:
            _through_all_stages(watch, segmenter, bench, _new_film(seed, number))
    watch.films = watch.films[len(POSITIVE_SEEDS) :]
    forward = statistics.median(watch.of("forward"))
    others = sum(statistics.median(watch.of(stage)) for stage in watch.films[0] if stage != "forward") + deliver
    yield row("accept: C-STORE accepted to SEG in the PACS", statistics.median(times), "s", "Orthanc", "lower", rounds=times)
    yield row("accept: C-STORE of one SEG to Orthanc, alone", deliver, "s", "itself", "lower")
    ratios = [seconds / (forward + 1.3 * others) for seconds in times]
    against = "forward + 1.3 x the other stages alone"
    yield row("accept: the same against its parts", statistics.median(ratios), "ratio", against, "lower", 1, rounds=ratios)


def _accept_once(node: Node, orthanc: Orthanc, seed: int, number: int) -> float:
    film = _new_film(seed, number)
    ae = AE(ae_title=SENDER)
    ae.add_requested_context(film.SOPClassUID, film.file_meta.TransferSyntaxUID)
    before = len(orthanc.get("/instances"))
    association = ae.associate("127.0.0.1", node.port, ae_title=NODE_AE)
    assert association.send_c_store(film).Status == 0x0000
    started = time.perf_counter()
    time.sleep(0.2)  # no forward pass is faster, and asking takes a core's time
    while len(orthanc.get("/instances")) == before:  # the SEG goes first; the report waits for it
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    association.release()
    node.delivered(film.SOPInstanceUID)
    return seconds


def _delivery_alone(node: Node, orthanc: Orthanc) -> float:
    """A new association and a SEG that was sent before: Orthanc stores it again."""
    job = node.ledger.jobs(limit=1)[0]
    file = next(one for one in node.outbox.of_job(job.job_id) if one.object.role == "seg").object.path
    seg = pydicom.dcmread(node.config.spool_directory / file)
    seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    started = time.perf_counter()
    ae = AE(ae_title=NODE_AE)
    ae.add_requested_context(seg.SOPClassUID, seg.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", orthanc.dicom_port, ae_title="ORTHANC")
    assert association.send_c_store(seg).Status == 0x0000
    seconds = time.perf_counter() - started
    association.release()
    return seconds


def backlog(scratch: Path) -> Iterator[Row]:
    """Films that waited while the node was paused: from `resume` to the last answer, while a demo PACS takes the results."""
    seeds = (*POSITIVE_SEEDS, NEGATIVE_SEED)
    segmenter = _segmenter()
    shown = segmenter.read(_new_film(seeds[0], 0)).image
    assert shown is not None
    forwards = []
    for _ in range(8):
        started = time.perf_counter()
        segmenter.predict(shown[None, None])
        forwards.append(time.perf_counter() - started)
    del segmenter
    folder = scratch / "waiting-films"
    folder.mkdir()
    files = [folder / f"{number}.dcm" for number in range(BACKLOG + 1)]
    for number, file in enumerate(files):
        _new_film(seeds[number % len(seeds)], number).save_as(file, enforce_file_format=True)
    with (
        DemoPacs(scratch / "backlog-sink", ae_title="PACS").serving() as pacs,
        running_node(scratch / "backlog", ("PACS", pacs.port)) as node,
    ):
        ledger = node.ledger
        send(node.port, NODE_AE, files[:1])  # the worker is there and warm
        wait_for(lambda: jobs_by_state(ledger.store)[State.SEGMENTED] == 1)
        ledger.set_mode("paused")
        send(node.port, NODE_AE, files[1:])
        started = time.perf_counter()
        ledger.set_mode("running")
        wait_for(lambda: jobs_by_state(ledger.store)[State.SEGMENTED] == len(files), 400)
        seconds = (time.perf_counter() - started) / BACKLOG
    yield row(f"backlog: {BACKLOG} films, films/s", 1 / seconds, "1/s", "itself", "higher")
    name = f"backlog: {BACKLOG} films, films/s against what the forward pass alone allows"
    yield row(name, statistics.median(forwards[2:]) / seconds, "ratio", "forward", "higher", 0.85)
