"""Several receiver processes on one port: one dies and the others go on, limits hold in total, all stop together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from raw_peer import CR, EXPLICIT
from receiver_node import film, send
from servers import free_port, wait_for

from dicom_node.runtime.procfs import children_of
from dicom_node.storage.ledger import Ledger

PROCESSES = 3


@dataclass
class Receivers:
    """`segmenter-worker receive` with several processes."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pids(self) -> set[int]:
        return children_of(self.process.pid)[0]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "node" / "ledger.sqlite")

    def associate(self, host: str = "127.0.0.1") -> Association | None:
        """An association that stays, None when there was no slot for it."""
        ae = AE("MODALITY")
        ae.add_requested_context(CR, EXPLICIT)
        association = ae.associate("127.0.0.1", self.port, ae_title="PTXSEG", bind_address=(host, 0))
        return association if association.is_established else None

    def as_many_as_go(self) -> list[Association]:
        return [association for _ in range(9) if (association := self.associate())]


@contextmanager
def receiving(folder: Path, **limits: int) -> Iterator[Receivers]:
    port = free_port()
    lines = ["[node]", 'directory = "node"', "reserve_mb = 16", "stop_seconds = 6", "[receive]", f"port = {port}"]
    lines += ['host = "127.0.0.1"', f"processes = {PROCESSES}", *(f"{key} = {value}" for key, value in limits.items())]
    (folder / "config.toml").write_text("\n".join([*lines, "[receive.allowed]", "MODALITY = []", ""]))
    command = [sys.executable, "-m", "dicom_node.cli.main", "receive", "--config", str(folder / "config.toml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Receivers(folder, port, process)
    try:
        wait_for(lambda: (folder / "log").read_text().count("receiving as") == PROCESSES, 120, "the receivers")
        yield found
    finally:
        process.kill()  # its children die with it
        process.wait(120)


def test_one_is_killed_while_films_flow_and_the_others_go_on(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        before, stop = node.pids, threading.Event()
        assert len(before) == PROCESSES
        taken: list[str] = []

        def modality(number: int) -> None:
            for film_number in range(10_000):
                if stop.is_set():
                    return
                uid = f"1.2.3.{number}.{film_number}"
                while not stop.is_set() and send(node.port, film(uid)) != 0x0000:
                    pass  # it was on the connection of the one that died
                if not stop.is_set():
                    taken.append(uid)

        modalities = [threading.Thread(target=modality, args=(number,)) for number in range(4)]
        for one in modalities:
            one.start()
        try:
            killed = set()
            for _ in range(2):  # whichever has an association just now
                wait_for(lambda wanted=len(taken) + 10: len(taken) > wanted, 120, "films")
                victim = min(node.pids & before)
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
            wait_for(lambda: len(node.pids - before) == len(killed), 120, "those that take their place")
            wait_for(lambda wanted=len(taken) + 10: len(taken) > wanted, 120, "films")
        finally:
            stop.set()
            for one in modalities:
                one.join(120)
        assert node.pids >= before - killed, "the others were left alone"
        rows = node.ledger.store.read().execute("SELECT sop_instance_uid, path FROM jobs").fetchall()
        assert set(taken) <= {uid for uid, _ in rows}, "lost"
        assert len({uid for uid, _ in rows}) == len(rows), "twice"
        assert all((tmp_path / "node" / "spool" / path).is_file() for _, path in rows)


@pytest.mark.parametrize("limit", ["max_associations", "max_per_host"])
def test_limits_are_those_of_all_together_and_a_dead_one_takes_no_seat_with_it(limit: str, tmp_path: Path) -> None:
    with receiving(tmp_path, **{limit: 4}) as node:
        held = node.as_many_as_go()
        assert len(held) == 4
        elsewhere = node.associate("127.0.0.2")
        assert (elsewhere is not None) == (limit == "max_per_host")
        if elsewhere:
            elsewhere.release()
        for pid in node.pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: (tmp_path / "log").read_text().count("receiving as") == 2 * PROCESSES, 120, "new receivers")
        held += node.as_many_as_go()
        assert len(held) == 2 * 4
        for association in held:
            association.abort()


def test_all_of_them_stop_when_they_are_told_to(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        pids = node.pids
        node.process.terminate()
        assert node.process.wait(120) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert (tmp_path / "log").read_text().count("receiver stopped") == PROCESSES
