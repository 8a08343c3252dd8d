"""Disks that are full or fail: a film that is not safe is not answered with success, and nothing half-written stays.

The disks are real (small tmpfs), the failing fsync is real too (strace answers EIO in the kernel's place).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from answered_films import AnsweredFilms
from pydicom.dataset import Dataset
from quick_model import quick_film, quick_settings
from raw_peer import ASSOCIATE_AC, ASSOCIATE_RJ, RawPeer, associate_rq, c_store, command, fragment
from receiver_node import running
from rude_pacs import RudePacs
from servers import free_port, running_node, store, wait_for
from small_disk import small_disk

from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import DeliveryState, State

MIB = 2**20
OUT_OF_RESOURCES = 0xA700


def big_film(uid: str, size: int) -> bytes:
    pieces = [fragment(b"x" * 65_000, last=False) for _ in range(size // 65_000)]
    return command(uid) + b"".join(pieces) + fragment(uid.encode(), last=True)


def send_raw(port: int, request: bytes) -> int:
    with RawPeer(port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(request)
        return peer.status()[0]


def test_a_spool_that_fills_up_in_the_middle_of_a_film_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six films of 3 MB at once for a disk of 8 MB, and each finds it empty when it looks (they look before they write).

    Result: those that fitted are there, the others left no byte and are taken when there is room.
    """
    with small_disk(tmp_path / "spool", 8) as disk, running(tmp_path) as node:
        monkeypatch.setattr(node.spool, "free_bytes", lambda: 8 * MIB)
        requests = {f"1.2.3.{n}": big_film(f"1.2.3.{n}", 3 * MIB) for n in range(6)}
        answers: dict[str, int] = {}

        def send(uid: str) -> None:
            answers[uid] = send_raw(node.port, requests[uid])

        senders = [threading.Thread(target=send, args=(uid,)) for uid in requests]
        for one in senders:
            one.start()
        for one in senders:
            one.join(120)
        refused = [uid for uid, status in answers.items() if status == OUT_OF_RESOURCES]
        taken = [uid for uid, status in answers.items() if status == 0x0000]
        assert len(refused) + len(taken) == 6 and refused and len(taken) <= 2
        jobs = node.ledger.jobs()
        assert {job.arrival.sop_instance_uid for job in jobs} == set(taken)
        assert {str(file.relative_to(node.spool.directory)) for file in node.files()} == {job.arrival.path for job in jobs}
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk.folder)], check=True)
        assert [send_raw(node.port, requests[uid]) for uid in refused] == [0x0000] * len(refused)
        assert len(node.files()) == len(node.ledger.jobs()) == 6


def test_a_ledger_that_cannot_grow_is_a700_and_later_a_rejection(tmp_path: Path) -> None:
    """The spool has room. Result: no file without a row; with room again everything is taken."""
    with small_disk(tmp_path / "ledger", 4) as disk:
        (tmp_path / "spool").mkdir()
        (disk.folder / "spool").symlink_to(tmp_path / "spool")  # the spool on the other disk
        with running(disk.folder) as node, RawPeer(node.port) as peer:
            assert peer.associate() == ASSOCIATE_AC
            disk.fill()
            statuses, number = [], 0
            while OUT_OF_RESOURCES not in statuses:  # the WAL may have a little room left in its last block
                number += 1
                peer.send(c_store(f"1.2.{number}", dataset=os.urandom(64)))
                statuses.append(peer.status()[0])
            assert set(statuses[:-1]) <= {0x0000} and number < 50
            assert len(node.files()) == len(node.ledger.jobs()) == number - 1
            with RawPeer(node.port) as newcomer:
                newcomer.send(associate_rq())
                assert newcomer.receive() == (ASSOCIATE_RJ, bytes([0, 2, 3, 1]))
            disk.make_room()
            peer.send(c_store(f"1.2.{number}"))
            assert peer.status()[0] == 0x0000
            assert send_raw(node.port, c_store("1.2.99")) == 0x0000
            assert len(node.files()) == len(node.ledger.jobs()) == number + 1
            assert node.ledger.store.integrity() == "ok"


@contextmanager
def failing(strace: str, pid: int, call: str, when: str) -> Iterator[None]:
    """This system call of a running process answers EIO while the block runs: `when` "1+" always, "2" the second time."""
    inject = f"inject={call}:error=EIO:when={when}"
    command = [strace, "-f", "-p", str(pid), "-e", f"trace={call}", "-e", inject, "-o", "/dev/null"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None and "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go of the process
        tracer.communicate(timeout=300)


def test_a_disk_that_fails_to_sync_is_never_answered_with_success(tool: Callable[[str], str], tmp_path: Path) -> None:
    """`receive` as a process; the fsync of a new folder fails, that of the film, every one, that of the ledger's WAL."""
    strace, port = tool("strace"), free_port()
    config = tmp_path / "config.toml"
    config.write_text(
        f'[node]\ndirectory = "node"\nreserve_mb = 0\n[receive]\nhost = "127.0.0.1"\nport = {port}\nprocesses = 1\n'
        "[receive.allowed]\nMODALITY = []\n"
    )
    command = [sys.executable, "-m", "dicom_node.cli.main", "receive", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: listens(port), 120, "the receiver")
            ledger, arrivals = Ledger(tmp_path / "node" / "ledger.sqlite"), tmp_path / "node" / "spool" / "arrivals"
            with RawPeer(port) as peer:
                assert peer.associate() == ASSOCIATE_AC
                for call in (("fsync", "1"), ("fsync", "2"), ("fsync", "1+"), ("fdatasync", "1+")):
                    with failing(strace, process.pid, *call):
                        peer.send(c_store())
                        assert peer.status()[0] == OUT_OF_RESOURCES, call
                    assert [file for file in arrivals.rglob("*") if file.is_file()] == [] and ledger.jobs() == [], call
                peer.send(c_store())
                assert peer.status()[0] == 0x0000
            assert len(ledger.jobs()) == 1 and ledger.store.integrity() == "ok"
        finally:
            process.terminate()
            process.wait(120)


def listens(port: int) -> bool:
    try:
        with RawPeer(port):
            return True
    except OSError:
        return False


def test_an_outcome_that_a_full_ledger_cannot_take_is_kept_and_nothing_is_sent_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger's disk is full when the PACS answers. Result: no loop, and with room again each object has gone out once."""
    pacs = RudePacs(free_port())
    with small_disk(tmp_path / "var", 12) as disk:
        films = AnsweredFilms(tmp_path, pacs.port, 3)

        def full(_uid: str) -> int:
            disk.fill()
            return 0x0000

        pacs.answer = full
        with pacs.serving():
            with films.sending():
                wait_for(lambda: pacs.records, 120, "the first object at the PACS")
                threading.Event().wait(3.0)  # longer than any wait between two tries
                assert len(pacs.records) == 1, "it loops"
                assert "an outcome cannot be written" in caplog.text, "the ledger was not full"
                pacs.answer = 0x0000
                disk.make_room()
                films.all_are(DeliveryState.DELIVERED)
            assert sorted(one.uid for one in pacs.records) == sorted(films.uids), "once each"
    assert pacs.lost(films.sources) == []
    assert pacs.doubled() == []


def _is_refused(film: Dataset, port: int) -> bool:
    """The association, when there is no room to write it down, else the film."""
    try:
        return store(film, port) == 0xA700
    except AssertionError as error:
        return "refused" in str(error)


def test_a_whole_node_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Scenario: first only the results have no room, then nothing has, and then every process is killed as well.

    Result: the node lives, takes nothing that it cannot keep, charges no film, and answers each once in the end.
    """
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "node", 24))
        results = stack.enter_context(small_disk(tmp_path / "node" / "spool" / "job", 1))
        pacs = stack.enter_context(RudePacs().serving())
        settings = quick_settings(SEGMENTER_NODE__RESERVE_MB="4")
        node = stack.enter_context(running_node(tmp_path, ("PACS", pacs.port), **settings))
        films = [quick_film(number) for number in range(80, 84)]
        uids = [str(one.SOPInstanceUID) for one in films]

        results.fill()
        for one in films[:2]:
            assert store(one, node.port) == 0x0000
        wait_for(lambda: "a result cannot be written" in node.log_text(), 120, "a worker without room")
        assert store(films[2], node.port) == 0x0000
        disk.fill()
        assert _is_refused(films[3], node.port)
        for verb, pid in node.children().items():
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 120, f"the death of {verb}")
        wait_for(lambda: node.log_text().count("receiving as") == 2, 120, "a new receiver")
        assert node.process is not None and node.process.poll() is None, "the node lives"
        disk.fill()  # SQLite may have given back its log
        assert _is_refused(films[3], node.port)

        disk.make_room()
        results.make_room()
        assert store(films[3], node.port) == 0x0000
        for uid in uids:
            node.delivered(uid)
            job = node.job_of(uid)
            assert (job.state, job.crashes) == (State.SEGMENTED, 0)
        wait_for(lambda: all(Path(f"/proc/{pid}").exists() for pid in node.children().values()), 120, "run.json as it is now")
        assert pacs.lost(uids) == []
        assert pacs.doubled() == []
        assert [pacs.roles(uid) for uid in uids] == [["seg", "sr"]] * 4
