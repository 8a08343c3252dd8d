"""Broken peers and films against a real receiver and a real worker process, and what must hold after each wave."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_worker import MAX_CRASHES, NAME
from mutant_pdus import Conversation
from mutants import Mutant
from raw_peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, RawPeer, command, command_of, fragment
from receiver_node import Node, eventually, film, send

from dicom_node.storage.ledger import Ledger
from dicom_node.storage.part10 import dataset_sha256

QUIET = {"max_per_host": 40, "establish_seconds": 5, "idle_seconds": 5, "pdu_seconds": 5}  # of the receiver
PEERS = 6  # at once
TIME_LIMIT = 30.0  # seconds for one film; the node's own is 60
_WORDS = {ASSOCIATE_AC: "accepted", ASSOCIATE_RJ: "rejected", RELEASE_RP: "released", ABORT: "aborted"}


@dataclass
class Toll:
    """What a wave did: how often each answer was given, and what was promised to be safe."""

    answers: Counter[str] = field(default_factory=Counter)
    stored: list[tuple[str, bytes | None]] = field(default_factory=list)  # answered 0000: who it was, and its bytes
    hung: list[str] = field(default_factory=list)


# -- peers ------------------------------------------------------------------------------------------------------------


def speak_all(node: Node, conversations: Sequence[Conversation]) -> Toll:
    """Have all of them, some at a time."""
    toll = Toll()
    with ThreadPoolExecutor(PEERS) as peers:
        for one, heard in zip(conversations, peers.map(lambda one: _speak(node.port, one), conversations), strict=True):
            if heard is None:
                toll.hung.append(str(one))
            words = _words(heard or b"")
            toll.answers[" ".join(dict.fromkeys(words)) or "closed"] += 1
            toll.stored += [(str(one), one.film)] * words.count("0000")
    return toll


def _speak(port: int, one: Conversation) -> bytes | None:
    """All that the node said; None when it did not end the connection in time."""
    with RawPeer(port, timeout=0.25) as peer:
        heard = bytearray()
        try:
            peer.send(one.request)
            if one.waits:
                _listen(peer, heard, until_quiet=False)
            peer.send(one.rest)
            if not _listen(peer, heard, until_quiet=True):
                peer.socket.shutdown(socket.SHUT_WR)
                end = time.monotonic() + 20
                while time.monotonic() < end:
                    if _listen(peer, heard, until_quiet=True):
                        return bytes(heard)
                return None
        except OSError:
            pass  # it ended the connection while we were speaking
        return bytes(heard)


def _listen(peer: RawPeer, heard: bytearray, *, until_quiet: bool) -> bool:
    """Whether the line was closed; returns at the first bytes, or after 0.25 s without any."""
    while True:
        try:
            chunk = peer.socket.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            return True
        if not chunk:
            return True
        heard += chunk
        if not until_quiet:
            return False


def _words(heard: bytes) -> list[str]:
    """The PDUs that the node sent; a response by its status."""
    words, said = [], b""
    while len(heard) >= 6:
        kind, length = heard[0], struct.unpack_from(">L", heard, 2)[0]
        body, heard = heard[6 : 6 + length], heard[6 + length :]
        if kind != P_DATA:
            words.append(_WORDS.get(kind, f"PDU {kind}"))
        elif len(body) == length:
            said += body[6:]  # to a peer of small PDUs one byte at a time
            if body[5] & 2:
                response, said = command_of(bytes(6) + said), b""
                words.append(f"{response.Status:04X}" if response.CommandField == 0x8001 else f"other:{response.Status:04X}")
    return words


def store_all(node: Node, mutants: Sequence[Mutant]) -> Toll:
    """C-STORE them as they are, those of one syntax and class over one association."""
    toll = Toll()
    kinds: dict[tuple[str, str], list[Mutant]] = {}
    for one in mutants:
        kinds.setdefault((one.sop_class_uid, one.syntax), []).append(one)
    for (sop_class, syntax), some in kinds.items():
        with RawPeer(node.port, timeout=120) as peer:
            assert peer.associate(sop_class=sop_class, syntax=syntax) == ASSOCIATE_AC
            for one in some:
                peer.send(command(one.sop_instance_uid, sop_class))
                parts = [one.dataset[at : at + 60_000] for at in range(0, len(one.dataset), 60_000)]
                for number, part in enumerate(parts, 1):
                    peer.send(fragment(part, last=number == len(parts)))
                status, _ = peer.status()
                toll.answers[f"{status:04X}"] += 1
                if status == 0:
                    toll.stored.append((str(one), one.dataset))
    return toll


# -- what must hold ---------------------------------------------------------------------------------------------------


class Watch:
    """Threads, descriptors and memory of this process, as they are before the first wave."""

    def __init__(self, node: Node) -> None:
        self._threads = threading.active_count()  # before any: one that ends slowly would count for good, with its descriptor
        assert send(node.port, film("1.2.3.1")) == 0x0000  # what is made at the first use is there now
        node.ledger.store.integrity()
        assert eventually(lambda: not _open_associations(node), 120)
        assert eventually(lambda: threading.active_count() <= self._threads, 120)
        self._node = node
        self._files, self._memory = _open_files(), memory_mb()
        self._honest = 1
        self._fallen: list[str] = []
        threading.excepthook = lambda what: self._fallen.append(f"{what.exc_type.__name__}: {what.exc_value}")
        self._promised = Counter[str]({_sha256_of(node, "1.2.3.1"): 1})

    def check(self, toll: Toll, *, growth_mb: int = 200) -> None:
        """Raises AssertionError for the first thing that does not hold."""
        node = self._node
        assert not self._fallen, f"threads fell: {self._fallen}"
        assert not toll.hung, f"not ended in time: {toll.hung}"
        self._honest += 1
        uid = f"1.2.3.{self._honest}"
        assert eventually(lambda: send(node.port, film(uid)) == 0x0000, 120), "an honest film is not taken"
        assert eventually(lambda: threading.active_count() <= self._threads, 120), "threads were left behind"
        assert eventually(lambda: (gc.collect(), _open_files() <= self._files)[1], 120), "descriptors were left behind"
        assert not _open_associations(node), "associations have no end in the journal"
        gc.collect()
        assert memory_mb() - self._memory < growth_mb, f"memory grew from {self._memory} to {memory_mb()} MB"
        assert node.ledger.store.integrity() == "ok"
        self._promised[_sha256_of(node, uid)] += 1
        self._promised.update(hashlib.sha256(data).hexdigest() for _, data in toll.stored if data is not None)
        self._kept(len(toll.stored))

    def _kept(self, stored: int) -> None:
        """Files and rows name each other, and what was answered with 0000 is there, byte for byte."""
        node = self._node
        rows = node.ledger.store.read().execute("SELECT path, size, dataset_sha256, resends FROM jobs").fetchall()
        files = {file.relative_to(node.spool.directory).as_posix() for file in node.files()}
        assert files == {row["path"] for row in rows}
        taken: Counter[str] = Counter()
        for row in rows:
            data = node.spool.read(row["path"])
            assert len(data) == row["size"] and dataset_sha256(data) == row["dataset_sha256"]
            taken[row["dataset_sha256"]] += 1 + row["resends"]
        missing = self._promised - taken
        assert not missing, f"answered with 0000 and not on disk: {missing}"
        assert taken.total() >= stored


def _sha256_of(node: Node, uid: str) -> str:
    [job] = node.ledger.jobs(sop_instance_uid=uid)
    return job.arrival.dataset_sha256


def _open_associations(node: Node) -> int:
    return int(node.ledger.store.read().execute("SELECT count(*) FROM associations WHERE outcome IS NULL").fetchone()[0])


def _open_files() -> int:
    """Descriptors. Those of the ledger's own file are counted once: SQLite keeps one that was closed while another
    connection of the process is open, and gives it to the next (its POSIX locks would be lost), so that they are as many
    as there ever were connections at once."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass  # the one that lists the others
    ledgers = [name for name in names if name.endswith("ledger.sqlite")]
    assert len(ledgers) <= 2 * QUIET["max_per_host"]
    return len(names) - len(ledgers)


def memory_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


# -- the work side ----------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """What the worker processes made of the films."""

    crashes: dict[str, str] = field(default_factory=dict)  # SOP Instance UID -> signal, or "time limit"
    seconds: dict[str, float] = field(default_factory=dict)  # by UID
    peak_mb: dict[str, int] = field(default_factory=dict)  # above what the process held before


def answer_all(folder: Path) -> Answers:
    """Worker processes on `folder` until nothing is left to do; a process that dies is replaced."""
    answers, ledger = Answers(), Ledger(folder / "ledger.sqlite")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    while ledger.ready():
        with (folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), str(folder)],
                stdout=subprocess.PIPE, stderr=log, env=environment,
            )  # fmt: skip
        at_work = _follow(worker, answers)
        if at_work is None:
            assert worker.returncode == 0, (folder / "worker.log").read_text("utf-8", "replace")[-2000:]
            continue
        if worker.returncode != 0:
            freed = ledger.release_worker(NAME, ledger.claim_pids(NAME), max_crashes=MAX_CRASHES)
            assert freed, "the claim of a dead worker was not there"
    return answers


def _follow(worker: subprocess.Popen[bytes], answers: Answers) -> str | None:
    """Listen until the worker ends; the UID of the film that it died of."""
    assert worker.stdout is not None
    at_work: str | None = None
    lines = b""
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(TIME_LIMIT if at_work else 120):
                worker.kill()
                worker.wait()
                assert at_work, "a worker did not start"
                answers.crashes[at_work] = "time limit"
                return at_work
            chunk = os.read(worker.stdout.fileno(), 65536)
            if not chunk:
                break
            *whole, lines = (lines + chunk).split(b"\n")
            for line in whole:
                said = json.loads(line)
                if "uid" in said:
                    at_work = said["uid"]
                elif "seconds" in said:
                    assert at_work is not None
                    answers.seconds[at_work], answers.peak_mb[at_work] = said["seconds"], said["peak_mb"]
                    at_work = None
    code = worker.wait()
    worker.stdout.close()
    if at_work is not None:
        answers.crashes[at_work] = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return at_work
