"""What each part of a node carries by itself: the ledger, the worker API, the wake-ups; and how much a
worker's seconds spread over films. `python bench/scale.py --measure` writes it to bench/scale.json."""

from __future__ import annotations

import hashlib
import multiprocessing
import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
from apparatus import dcmtk_storescp, film_files, needed, new_uids, send
from certificates import Authority
from pydicom.uid import ComprehensiveSRStorage as SR
from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.uid import SegmentationStorage as SEG
from rows import ROUNDS, Row, row
from servers import NODE_AE, free_port, running_node, running_redis, wait_for

from dicom_node.api.worker_client import RemoteQueue
from dicom_node.runtime.config_sections import Queue, Segment, Work
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, DeliveryState, Outcome, State, StoredObject
from dicom_node.storage.worker_tokens import Workers
from dicom_node.work.celery_app import QUEUE, celery_app
from dicom_node.work.model import load_model, segment_settings
from dicom_node.work.wakeup import wake
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom

LIVES = 60
DELIVERED = 60
FILMS = 24
WAKEUPS = 300
ROLES = ((1, "seg"), (2, "sr"))
SHAPES = ((2500, 2048), (3000, 2500), (2022, 2022), (2880, 2880))


def measure(scratch: Path) -> Iterator[Row]:
    yield from ledger(scratch)
    yield from delivery(scratch)
    yield from worker_api(scratch)
    yield from wakeups(scratch)
    yield from spread()


def ledger(scratch: Path) -> Iterator[Row]:
    """All commits of films that come alone and are answered with SEG and SR to one PACS, by one process."""
    kept = Ledger(scratch / "ledger" / "ledger.sqlite")
    outbox, commits = Outbox(kept.store), []
    kept.store.read().set_trace_callback(lambda said: commits.append(said) if said == "COMMIT" else None)
    rates = []
    for turn in range(ROUNDS):
        started = time.perf_counter()
        for number in range(LIVES):
            _life(kept, outbox, f"1.2.826.0.1.3680043.8.498.{turn:018}{number:018}")
        rates.append(LIVES / (time.perf_counter() - started))
    films = ROUNDS * LIVES
    kept.store.read().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    yield row("ledger: films/s, every commit of a film, one process", statistics.median(rates), "1/s", "itself", "higher")
    yield row("ledger: commits of a film", len(commits) / films, "1", "itself", "lower")
    yield row("ledger: bytes that a film leaves", kept.store.path.stat().st_size / films, "bytes", "itself", "lower")


def _life(kept: Ledger, outbox: Outbox, uid: str) -> None:
    association = kept.open_association("MODALITY", NODE_AE, "10.0.0.7")
    _answered(kept, uid, [StoredObject(role, "", SEG, f"{uid}.{n}", "0" * 64, "x", 9, "demo") for n, role in ROLES])
    kept.close_association(association, "released", 1)
    for one in outbox.of_job(kept.jobs(sop_instance_uid=uid, limit=1)[0].job_id):
        outbox.sending(one)
        outbox.settle(one, DeliveryState.DELIVERED, status=0, reason="")


def _answered(kept: Ledger, uid: str, made: Sequence[StoredObject]) -> None:
    """A film that arrives and is answered."""
    sha = f"{uid:0>64}"[-64:]
    kept.add_arrival(Arrival(uid, DX, ExplicitVRLittleEndian, sha, f"arrivals/{uid}", 10, "M", NODE_AE, "10.0.0.7", 1))
    claim = kept.claim("worker", 30)
    assert claim is not None
    kept.revision(uid, sha)
    outcome = Outcome(
        State.SEGMENTED, finding="pneumothorax", content_sha256=sha, model="m 1", model_digest=sha, objects=tuple(made)
    )
    kept.finish(claim, outcome, [Route("PACS")])


def delivery(scratch: Path) -> Iterator[Row]:
    """Results that lie ready, two objects of a film, to dcmtk's storescp by the node's sender."""
    with dcmtk_storescp(scratch / "pacs") as port:
        settings = {"SEGMENTER_WORK__PROCESSES": "0"}
        with running_node(scratch / "delivery", ("PACS", port), **settings) as node:
            kept = node.ledger
            made = [[_object(node.config.spool_directory, film, *one) for one in ROLES] for film in range(DELIVERED)]
            started = time.perf_counter()
            for film, objects in enumerate(made):
                _answered(kept, f"1.2.{film}", objects)
            counts = "SELECT count(*) FROM deliveries WHERE state <> 'delivered'"
            wait_for(lambda: not kept.store.read().execute(counts).fetchone()[0], 120, "delivery")
            seconds = time.perf_counter() - started
    yield row("delivery: films/s, SEG and SR to one PACS", DELIVERED / seconds, "1/s", "itself", "higher")


def _object(spool: Path, film: int, number: int, role: str) -> StoredObject:
    """A file like a SEG's of a 2500x2048 film (640 KB) or a report's (8 KB)."""
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SEG if role == "seg" else SR, f"2.25.{film}.{number}"
    made.add_new(0x00091010, "OB", bytes(640_000 if role == "seg" else 8_000))
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = spool / "job" / f"{film}-{role}.dcm"
    path.parent.mkdir(exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    sha, where = hashlib.sha256(data).hexdigest(), str(path.relative_to(spool))
    return StoredObject(role, "", made.SOPClassUID, made.SOPInstanceUID, sha, where, len(data), "research")


def worker_api(scratch: Path) -> Iterator[Row]:
    """10 MB films, claimed, fetched and ended over HTTPS by two processes of one worker on this machine."""
    pair = Authority(scratch, "authority").issue("node")
    port, token_file = free_port(), scratch / "token"
    serve = {"ENABLED": "true", "PORT": str(port), "TLS_CERTIFICATE": str(pair.certificate), "TLS_KEY": str(pair.key)}
    settings = {f"SEGMENTER_SERVE__{key}": value for key, value in serve.items()} | {"SEGMENTER_WORK__PROCESSES": "0"}
    with running_node(scratch / "api", ("NOWHERE", free_port()), **settings) as node:
        films = film_files(scratch / "api-films", FILMS)
        new_uids(films)
        send(node.port, NODE_AE, films)
        token_file.write_text(Workers(node.ledger.store).add("far"))
        token_file.chmod(0o600)
        work = Work(node=f"https://127.0.0.1:{port}", node_ca=str(scratch / "authority.pem"), token_file=str(token_file))
        fresh = multiprocessing.get_context("spawn")
        with fresh.Pool(2) as pool:
            spans = [one for found in pool.map(_work_far_away, [work, work]) for one in found]
    seconds = max(ended for _, ended in spans) - min(begun for begun, _ in spans)
    yield row("worker API: films/s, claimed, fetched and ended over HTTPS", len(spans) / seconds, "1/s", "itself", "higher")


def _work_far_away(work: Work) -> list[tuple[float, float]]:
    """When each film was begun and ended."""
    node, spans = RemoteQueue.of(work, secrets.token_hex(8), "worker 1", secrets.token_hex(32)), []
    while True:
        begun = time.monotonic()
        claim = node.claim()
        if claim is None:
            return spans
        node.source(claim)
        node.finish(claim, Outcome(State.SKIPPED, code="lateral-view", sentence="Bench."))
        spans.append((begun, time.monotonic()))


def wakeups(scratch: Path) -> Iterator[Row]:
    """Sent and received again, one after the other, by one process each way."""
    with running_redis(needed("redis-server", "bench"), scratch / "redis") as redis:
        app = celery_app(Queue(broker=redis.url), Work())
        started = time.perf_counter()
        for _ in range(WAKEUPS):
            assert wake(app, LogLimit())
        with app.connection_for_read() as connection, connection.SimpleQueue(QUEUE) as lying:
            for _ in range(WAKEUPS):
                lying.get(timeout=10).ack()
        yield row("wake-ups: wake-ups/s through Redis", WAKEUPS / (time.perf_counter() - started), "1/s", "itself", "higher")


def spread() -> Iterator[Row]:
    """Of the seconds that films of several sizes, with and without pneumothorax, keep the model."""
    from segmenter.engine import Segmenter

    segmenter = Segmenter(load_model(Segment()), segment_settings(Segment()))
    films = [
        phantom_dataset(draw_phantom(seed, shape=shape, pneumothorax=bool(seed % 2)), kind="DX", bits=12)
        for seed, shape in enumerate(3 * SHAPES)
    ]
    segmenter.segment(films[:1])
    seconds = [sum(segmenter.segment([film])[0].seconds.values()) for film in films]
    yield row(
        "worker: spread of its seconds over films", statistics.stdev(seconds) / statistics.mean(seconds), "ratio", "", "lower"
    )
