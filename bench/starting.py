"""What it costs to start, and the memory that receiver and worker stand in."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apparatus import film_files, needed, new_uids, seconds_of, send, send_at_once
from ledger_counts import jobs_by_state
from rows import ROUNDS, Row, row
from servers import NODE_AE, SENDER, Node, free_port, running_node, wait_for

from dicom_node.runtime.procfs import children_of
from dicom_node.storage.records import FINISHED

PROGRAM = [sys.executable, "-m", "dicom_node.cli.main"]
ASSOCIATIONS, FILMS_EACH, FILMS_OF_WORKER = 4, 10, 20


def startup(scratch: Path) -> Iterator[Row]:
    times = [seconds_of(lambda: subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)) for _ in range(7)]
    yield row("startup: segmenter-worker --help", statistics.median(times), "s", "limit", "lower", 0.3, times)
    yield from _receiver(scratch / "receiver")
    yield from _worker(scratch / "worker")


def _receiver(folder: Path) -> Iterator[Row]:
    folder.mkdir()
    films = film_files(folder / "films", ASSOCIATIONS * FILMS_EACH)
    ready, idle, together, load = [], [], [], []
    for number in range(ROUNDS):
        node = Node(folder / str(number), ("NOWHERE", free_port()))
        started = time.perf_counter()
        with _receiving(node) as pid:
            ready.append(time.perf_counter() - started)
            time.sleep(1.0)
            processes = [pid, *children_of(pid)[0]]
            idle.append(max(_mb(one, "VmRSS") for one in processes))
            together.append(sum(_mb(one, "Pss") for one in processes))
            if number % 2 == 0:
                new_uids(films)
                send_at_once(node.port, NODE_AE, [films[one::ASSOCIATIONS] for one in range(ASSOCIATIONS)])
                load.append(max(_mb(one, "VmHWM") for one in processes))
    yield row(
        "startup: receiver, from start to an answered C-ECHO", statistics.median(ready), "s", "limit", "lower", 1.5, ready
    )
    what = "startup: memory of an idle receiver process (RSS, the largest)"
    yield row(what, statistics.median(idle), "MB", "limit", "lower", 120, idle)
    what = "startup: memory of all idle receiver processes together (PSS)"
    yield row(what, statistics.median(together), "MB", "itself", "lower", None, together)
    what = "startup: memory of a receiver process, most while four associations send 10 MB films (RSS, the largest)"
    yield row(what, statistics.median(load), "MB", "limit", "lower", 200, load)


@contextmanager
def _receiving(node: Node) -> Iterator[int]:
    """`segmenter-worker receive` by itself, once it answers; its pid."""
    with (node.folder / "log").open("wb") as log:
        process = subprocess.Popen([*PROGRAM, "receive", "--config", str(node.config_file)], stdout=log, stderr=log)
    echo = [needed("echoscu", "bench"), "-aet", SENDER, "-aec", NODE_AE, "127.0.0.1", str(node.port)]
    try:
        while subprocess.run(echo, capture_output=True).returncode:
            if process.poll() is not None:
                raise RuntimeError(f"the receiver ended: {(node.folder / 'log').read_text()[-1000:]}")
            time.sleep(0.005)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _worker(folder: Path) -> Iterator[Row]:
    """The process with the model, after some large films."""
    folder.mkdir()
    films = film_files(folder / "films", FILMS_OF_WORKER)
    new_uids(films)
    with running_node(folder / "node", ("NOWHERE", free_port())) as node:
        send(node.port, NODE_AE, films)
        wait_for(lambda: sum(jobs_by_state(node.ledger.store)[state] for state in FINISHED) == len(films), 240, "the answers")
        living, _ = children_of(node.children()["work"])
        memory = max(_mb(pid, "VmRSS") for pid in living)
    yield row(f"startup: memory of the worker after {len(films)} films (RSS)", memory, "MB", "limit", "lower", 1200)


def _mb(pid: int, which: str) -> float:
    """VmRSS, VmHWM (the most that VmRSS ever was) or Pss (shared pages divided among their users) of a process, MB."""
    file = Path(f"/proc/{pid}/{'smaps_rollup' if which == 'Pss' else 'status'}")
    for line in file.read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"{file} has no {which}")
