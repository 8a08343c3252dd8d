"""What the measures share: rows, films, dcmtk's sender and receiver, a stopwatch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from programs import needed  # noqa: E402
from servers import SENDER, free_port, wait_for  # noqa: E402

from segmenter import phantom  # noqa: E402

ROUNDS = 5
Row = dict[str, object]


def row(
    name: str,
    value: float | None,
    unit: str,
    against: str,
    better: str,
    target: float | None = None,
    rounds: Sequence[float] | None = None,
) -> Row:
    """`value`: a median, None where there is no GPU; `rounds`: what it is the median of, for the spread."""
    value = None if value is None else round(value, 4)
    spread = None if rounds is None else [round(min(rounds), 4), round(max(rounds), 4)]
    return {
        "name": name, "value": value, "target": target, "better": better, "unit": unit, "against": against, "spread": spread,
    }  # fmt: skip


def film_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    film = phantom.film(phantom.draw(1, shape=(2500, 2048)), kind="DX", bits=12)
    files = [folder / f"{number}.dcm" for number in range(count)]
    for file in files:
        film.save_as(file, enforce_file_format=True)
    return files


def new_uids(files: list[Path]) -> None:
    """Every round sends films that nobody has seen."""
    for file in files:
        film = pydicom.dcmread(file)
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        film.save_as(file, enforce_file_format=True)


def send(port: int, ae_title: str, files: list[Path]) -> None:
    command = [needed("storescu", "bench"), "-aet", SENDER, "-aec", ae_title, "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@contextmanager
def dcmtk_storescp(folder: Path) -> Iterator[int]:
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


def seconds_of(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
