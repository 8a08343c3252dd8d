"""`make bench`: measures the node beside its peers on the same machine in the same run. Ratios and medians, no verdicts.

Writes bench/results.json and bench/RESULTS.md. Rounds of ours and theirs alternate, so a noisy machine is noisy for both.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import training as training_rows  # noqa: E402
from programs import needed  # noqa: E402
from raw_peer import RawPeer, associate_rq  # noqa: E402
from servers import SENDER, Node, free_port, running_node, running_orthanc, wait_for  # noqa: E402
from test_hostile_peers import drip  # noqa: E402

from dicom_node.config import Segment  # noqa: E402
from dicom_node.model import load_model, segment_settings  # noqa: E402
from dicom_node.standin import StandInPacs  # noqa: E402
from segmenter import phantom  # noqa: E402

ROUNDS = 5
POSITIVE_SEEDS = (7, 10, 29, 38, 54, 69)  # films that the shipped model answers with a SEG
FILMS_PER_ROUND = 20


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="segmenter-bench-") as scratch:
        for measure in (startup, receive, hostile, inference, accept, training):
            print(f"measuring {measure.__name__} ...", flush=True)
            rows += list(measure(Path(scratch)))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    machine = f"{_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"rows": rows, "machine": machine, "commit": commit}
    (ROOT / "bench" / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    (ROOT / "bench" / "RESULTS.md").write_text(_markdown(result))
    print((ROOT / "bench" / "RESULTS.md").read_text())


def row(name: str, value: float | None, unit: str, against: str, better: str, target: float | None = None) -> dict[str, object]:
    value = None if value is None else round(value, 4)  # None: there is no GPU here
    return {"name": name, "value": value, "target": target, "better": better, "unit": unit, "against": against}


# -- measures --------------------------------------------------------------------------------------------------


def startup(scratch: Path) -> Iterator[dict[str, object]]:
    command = [sys.executable, "-m", "dicom_node.cli", "--help"]
    times = [_seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(7)]
    yield row("startup: segmenter-worker --help", statistics.median(times), "s", "limit", "lower", 0.3)


def receive(scratch: Path) -> Iterator[dict[str, object]]:
    """Durable C-STORE of 10 MB DX films by dcmtk's storescu, against dcmtk's storescp (which syncs nothing) and Orthanc."""
    films = _films(scratch / "films", FILMS_PER_ROUND)
    with (
        running_node(scratch / "receive", ("NOWHERE", free_port())) as node,
        running_orthanc(needed("Orthanc", "bench"), scratch / "orthanc") as orthanc,
        _storescp(scratch / "storescp") as storescp,
    ):
        node.ledger.set_mode("paused")  # only receiving is measured
        ports = {"ours": (node.port, "PTXSEG"), "storescp": (storescp, "STORESCP"), "orthanc": (orthanc.dicom_port, "ORTHANC")}
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(ROUNDS):
            for name, (port, ae_title) in ports.items():
                _new_uids(films)
                seconds = _seconds(lambda port=port, ae_title=ae_title: _storescu(port, ae_title, films))
                rates[name].append(len(films) / seconds)
    ours, peer, archive = (statistics.median(rates[name]) for name in ("ours", "storescp", "orthanc"))
    yield row("receive: films/s, one association", ours, "1/s", "itself", "higher")
    yield row(
        "receive: one association against dcmtk storescp (no fsync)", ours / peer, "ratio", "dcmtk storescp", "higher", 0.95
    )
    yield row("receive: one association against Orthanc", ours / archive, "ratio", "Orthanc", "higher", 1.4)


def hostile(scratch: Path) -> Iterator[dict[str, object]]:
    """One honest store beside 20 hostile sockets of its own host (silent, stopped in a header, byte by byte), and alone."""
    films = _films(scratch / "honest", 1)
    with running_node(scratch / "hostile", ("NOWHERE", free_port())) as node:
        node.ledger.set_mode("paused")
        times: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * ROUNDS):
            _new_uids(films)
            with contextlib.ExitStack() as stack:
                if number % 2:
                    peers = [stack.enter_context(RawPeer(node.port)) for _ in range(20)]
                    for peer in peers[10:]:
                        peer.send(associate_rq()[:5])
                    stop = threading.Event()
                    dripping = threading.Thread(target=drip, args=(peers[15:], associate_rq(), stop))
                    dripping.start()
                    stack.callback(dripping.join)
                    stack.callback(stop.set)
                times[bool(number % 2)].append(_seconds(lambda: _storescu(node.port, "PTXSEG", films)))
    alone, beside = statistics.median(times[False]), statistics.median(times[True])
    yield row("receive: one store while 20 hostile sockets are open", beside, "s", "itself", "lower")
    yield row("receive: the same against a store alone", beside / alone, "ratio", "itself alone", "lower")


def inference(scratch: Path) -> Iterator[dict[str, object]]:
    from segmenter.engine import Segmenter

    film = phantom.film(phantom.draw(1, shape=(2500, 2048), pneumothorax=True), kind="DX", bits=12)
    segmenter = Segmenter(load_model(Segment()), segment_settings(Segment()))
    segmenter.segment([film])
    stages: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        [finding] = segmenter.segment([film])
        for stage, seconds in finding.seconds.items():
            stages.setdefault(stage, []).append(seconds)
    medians = {stage: statistics.median(values) for stage, values in stages.items()}
    forward = medians.pop("predict")
    yield row("inference: forward pass of one film, CPU", forward, "s", "itself", "lower")
    yield row(
        "stages: gate, decode and mask against the forward pass",
        sum(medians.values()) / forward,
        "ratio",
        "forward",
        "lower",
        0.5,
    )


def accept(scratch: Path) -> Iterator[dict[str, object]]:
    """C-STORE accepted -> SEG stored in the PACS, one 2500x2048 film, idle node."""
    with (
        StandInPacs(scratch / "sink", ae_title="PACS").serving() as pacs,
        running_node(scratch / "accept", ("PACS", pacs.port)) as node,
    ):
        times = [_accept_once(node, pacs, seed) for seed in POSITIVE_SEEDS][1:]  # the first one warms up
    yield row("accept: C-STORE accepted to SEG in the PACS", statistics.median(times), "s", "itself", "lower")


def training(scratch: Path) -> Iterator[dict[str, object]]:
    """The workshop: images a second of `published` and `strong`."""
    yield from (row(*one) for one in training_rows.measure(scratch))


def _accept_once(node: Node, pacs: StandInPacs, seed: int) -> float:
    film = phantom.film(phantom.draw(seed, shape=(2500, 2048), pneumothorax=True), kind="DX", bits=12)
    file = node.folder / f"{seed}.dcm"
    film.save_as(file, enforce_file_format=True)
    _storescu(node.port, "PTXSEG", [file])
    started = time.monotonic()
    node.delivered(film.SOPInstanceUID)
    return time.monotonic() - started


# -- tools -----------------------------------------------------------------------------------------------------


def _films(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    film = phantom.film(phantom.draw(1, shape=(2500, 2048)), kind="DX", bits=12)
    files = [folder / f"{number}.dcm" for number in range(count)]
    for file in files:
        film.save_as(file, enforce_file_format=True)
    return files


def _new_uids(files: list[Path]) -> None:
    """Every round sends films that nobody has seen."""
    for file in files:
        film = pydicom.dcmread(file)
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        film.save_as(file, enforce_file_format=True)


def _storescu(port: int, ae_title: str, files: list[Path]) -> None:
    command = [needed("storescu", "bench"), "-aet", SENDER, "-aec", ae_title, "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    folder.mkdir()
    port = free_port()
    server = subprocess.Popen([needed("storescp", "bench"), "-od", str(folder), str(port)], stderr=subprocess.DEVNULL)
    echo = [needed("echoscu", "bench"), "127.0.0.1", str(port)]
    wait_for(lambda: subprocess.run(echo, capture_output=True).returncode == 0, 20, "storescp")
    try:
        yield port
    finally:
        server.terminate()
        server.wait(10)


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _markdown(result: dict) -> str:
    lines = [
        f"# Measured by `make bench`\n\n{result['machine']}, commit {result['commit']}. Medians of {ROUNDS} rounds.\n",
        "| what | value | unit | against | target |",
        "|---|---|---|---|---|",
    ]
    for one in result["rows"]:
        target = "" if one["target"] is None else f"{'>=' if one['better'] == 'higher' else '<='} {one['target']}"
        value = "no GPU here" if one["value"] is None else f"{one['value']:.3g}"
        lines.append(f"| {one['name']} | {value} | {one['unit']} | {one['against']} | {target} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
