"""What the measures of the node share: films, dcmtk's sender and receiver, a stopwatch."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pydicom
from rows import ROOT

sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from programs import needed  # noqa: E402
from servers import SENDER, free_port, wait_for  # noqa: E402

from segmenter.phantom.dicom import phantom_dataset  # noqa: E402
from segmenter.phantom.draw import draw_phantom  # noqa: E402

_HEAD_BYTES = 4096  # of a film, where its UIDs stand


def film_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    film = phantom_dataset(draw_phantom(1, shape=(2500, 2048)), kind="DX", bits=12)
    files = [folder / f"{number}.dcm" for number in range(count)]
    for file in files:
        film.save_as(file, enforce_file_format=True)
    return files


def new_uids(files: list[Path]) -> None:
    """Every round sends films that nobody has seen. A UID of the same length is written over the old one, in place: whole
    films written anew would have the disk busy with them while the clock runs."""
    for file in files:
        film = pydicom.dcmread(file, stop_before_pixels=True)
        old = str(film.SOPInstanceUID).encode()
        stem = old[: old.rindex(b".") + 2]  # the last component may not begin with a zero
        new = stem + "".join(secrets.choice("0123456789") for _ in range(len(old) - len(stem))).encode()
        with file.open("r+b") as opened:
            head = opened.read(_HEAD_BYTES)
            for place in (match.start() for match in re.finditer(re.escape(old), head)):
                os.pwrite(opened.fileno(), new, place)


def send(port: int, ae_title: str, files: list[Path]) -> None:
    command = [needed("storescu", "bench"), "-aet", SENDER, "-aec", ae_title, "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def send_at_once(port: int, ae_title: str, groups: list[list[Path]]) -> None:
    """One storescu for each group, all at the same time."""
    with ThreadPoolExecutor(len(groups)) as senders:
        list(senders.map(lambda files: send(port, ae_title, files), groups))


@contextmanager
def dcmtk_storescp(folder: Path, *options: str) -> Iterator[int]:
    folder.mkdir()
    port = free_port()
    command = [needed("storescp", "bench"), *options, "-od", str(folder), str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
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
