"""Every kind of film through the real core, and every object of it before every judge: the full matrix, and what was found.

    python tests/support/matrix.py --out bench/matrix.json          (`make matrix`)

`--part 3/40` takes each fortieth film, the third first. The few films of `make test` are in test_matrix.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from archives import Archive, both_archives
from matrix_cells import DIMENSIONS, Cell, few_cells, valid_cells, why_not
from matrix_films import DENSE, SHAPE, MatrixFilm, matrix_film
from numpy.typing import NDArray
from object_judges import Tool, Truth, dciodvfy, dcm2json, dcmqi, dcmqi_program, reads_back
from programs import needed
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from tiny_network import tiny_artifact

from segmenter.engine import Segmenter
from segmenter.errors import Refused
from segmenter.objects.kinds import ObjectKind
from segmenter.settings import Settings
from segmenter.values import Prediction

AT_ONCE = 8  # films in one forward pass
BATCH = 128  # films whose objects an archive holds together
MAIN = (ObjectKind.SEG, ObjectKind.SR, ObjectKind.CAPTURE, ObjectKind.PRESENTATION)
EACH = 4  # each such film has the other kinds too: they differ from the main ones in references and one plane position
WORKERS = 2  # encoders and judges are other programs


class Bright:
    """In the network's place: the finding is what is bright on the film. Its answer is known, and lies on the pixels that it
    was shown."""

    def __call__(self, images: NDArray[np.float32]) -> list[Prediction]:
        seen = (images[:, 0] > DENSE).astype(np.float32)
        return [Prediction(one, 0.9 if one.any() else 0.1) for one in seen]


def bright_segmenter(folder: Path) -> Segmenter:
    """The real core around `Bright`, on a model grid four (across narrower pixels three) times as fine as the films."""
    point = {"image_threshold": 0.5, "mask_threshold": 0.5, "min_area_mm2": 0.0, "min_area_px": 0.0}
    artifact = tiny_artifact(
        folder, input={"size": 4 * max(SHAPE), "mean": 0.5, "std": 0.25}, operating_points={"only": point}
    )
    segmenter = Segmenter(artifact, Settings(device="cpu", threads=1))
    segmenter.predict = Bright()  # type: ignore[assignment]
    return segmenter


@dataclass(frozen=True)
class Made:
    """One object on disk, before its judges."""

    film: MatrixFilm
    kind: ObjectKind
    path: Path
    truth: Truth


@dataclass
class Found:
    """What the judges said of some cells."""

    films: int = 0
    objects: Counter[str] = field(default_factory=Counter)  # by kind
    complaints: list[tuple[str, str, str]] = field(default_factory=list)  # cell, kind of object or "film", sentence
    dciodvfy_of_films: Counter[str] = field(default_factory=Counter)  # what the objects are forgiven, by message
    dciodvfy_of_objects: Counter[str] = field(default_factory=Counter)  # messages that their films have too

    def add(self, other: Found) -> None:
        self.films += other.films
        self.objects += other.objects
        self.complaints += other.complaints
        self.dciodvfy_of_films += other.dciodvfy_of_films
        self.dciodvfy_of_objects += other.dciodvfy_of_objects


class Court:
    """Brings cells before the judges. `folder` is for the files on the way, and empty again after each call."""

    def __init__(self, segmenter: Segmenter, tool: Tool, folder: Path) -> None:
        self._segmenter, self._tool, self._folder = segmenter, tool, folder
        self._pool = ThreadPoolExecutor(WORKERS)

    def judge(self, cells: Sequence[Cell], archives: Sequence[Archive], first: int = 0) -> Found:
        """`first`: number of the first film; films of two calls must not share one."""
        found = Found()
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            films = list(
                self._pool.map(lambda one: matrix_film(one[1], one[0], folder, self._tool), enumerate(cells, start=first))
            )
            made = self._looked_at(films, found)
            found.films += len(films)
            found.objects.update(str(one.kind) for one in made)
            self._store(made, archives, found)
        return found

    def _looked_at(self, films: Sequence[MatrixFilm], found: Found) -> list[Made]:
        """The objects of these films, after all judges but the archives: other programs look at one while the next is made."""
        of_film = {film.path: self._pool.submit(self._verify, film.path) for film in films}
        made, asked = [], []
        for at in range(0, len(films), AT_ONCE):
            for one in self._made(films[at : at + AT_ONCE], found):
                made.append(one)
                asked.append((self._pool.submit(self._verify, one.path), self._pool.submit(self._opened, one)))
                self._complain(found, one, reads_back(one.path, one.kind.role, one.kind.variant, one.truth))
        for one, (verified, opened) in zip(made, asked, strict=True):
            messages, forgiven = verified.result(), of_film[one.film.path].result()
            found.dciodvfy_of_objects.update(messages & forgiven)
            self._complain(found, one, [f"dciodvfy: {message}" for message in sorted(messages - forgiven)])
            self._complain(found, one, opened.result())
        for verified in of_film.values():
            found.dciodvfy_of_films.update(verified.result())
        return made

    def _made(self, films: Sequence[MatrixFilm], found: Found) -> Iterator[Made]:
        """The objects of some films, through the one public entry of the core."""
        datasets = [pydicom.dcmread(film.path) for film in films]
        for film, dataset, answer in zip(films, datasets, self._segmenter.segment(datasets), strict=True):
            said = list(self._about(film, answer))
            found.complaints += [(str(film.cell), "film", sentence) for sentence in said]
            if answer.decision is None:
                continue
            pixels = int(np.count_nonzero(answer.decision.mask))
            area = None if film.pixel_mm2 is None else pixels * film.pixel_mm2
            truth = Truth(answer.decision.mask, area, pydicom.dcmread(film.path, stop_before_pixels=True))
            for kind in ObjectKind if film.number % EACH == 0 else MAIN:
                try:
                    objects = self._segmenter.objects(dataset, answer, kinds=(kind,))
                except Refused as error:
                    found.complaints.append((str(film.cell), str(kind), f"{error.code}: {error.sentence}"))
                    continue
                for one in objects:
                    path = film.path.with_name(f"{film.path.stem}-{kind}.dcm")
                    one.dataset.save_as(path, enforce_file_format=True)
                    yield Made(film, kind, path, truth)

    def _about(self, film: MatrixFilm, answer: Any) -> Iterator[str]:
        """What is wrong with the answer itself: outcome, stored pixels, mask."""
        if answer.outcome != "done":
            yield f"{answer.outcome}: {answer.code}"
            return
        if off := film.decoding_is_off():
            yield f"decoded values are off by {off} more than they may be"
        different = int(np.count_nonzero(answer.decision.mask != film.truth))
        if different > film.slack:
            yield f"the mask is off the truth by {different} pixels of {np.count_nonzero(film.truth)}"

    def _verify(self, path: Path) -> set[str]:
        return dciodvfy(path, self._tool)

    def _opened(self, one: Made) -> list[str]:
        return dcm2json(one.path, self._tool) + (dcmqi(one.path) if one.kind is ObjectKind.SEG_POSITIONED else [])

    def _store(self, made: Sequence[Made], archives: Sequence[Archive], found: Found) -> None:
        """Into each archive, and there element for element."""
        sent = {one.path: pydicom.dcmread(one.path) for one in made}
        for archive in archives:
            said = archive.store(list(sent), self._tool)
            held = archive.objects()
            for one in made:
                kept = held.get(sent[one.path].SOPInstanceUID)
                if kept is None:
                    self._complain(found, one, [f"{archive.name} does not hold it; storescu said {said[-300:]!r}"])
                elif _encoded(kept) != _encoded(sent[one.path]):
                    self._complain(found, one, [f"{archive.name} holds another object"])

    def _complain(self, found: Found, one: Made, sentences: Sequence[str]) -> None:
        found.complaints += [(str(one.film.cell), str(one.kind), sentence) for sentence in sentences]


def _encoded(dataset: pydicom.Dataset) -> bytes:
    """Its elements in one encoding (archives choose other lengths of sequences)."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    return file.getvalue()


def report(found: Found, cells: Sequence[Cell], seconds: float) -> dict[str, Any]:
    """The result as it is committed: counts, exclusions, what was found, and by which versions."""
    left_out = Counter(filter(None, (why_not(cell) for cell in _all_cells())))
    return {
        "command": "python " + " ".join(["tests/support/matrix.py", *sys.argv[1:]]),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "versions": {name: version(name) for name in ("pydicom", "highdicom", "pynetdicom", "python-gdcm")}
        | {
            "dcmtk": _output("dcm2json", "--version").split()[2],
            "dicom3tools": _output("dpkg-query", "-W", "-f", "${Version}", "dicom3tools"),
            "orthanc": _output("Orthanc", "--version").split()[1],
            "dcmqi": "opens each positioned SEG" if dcmqi_program() else "not installed",
        },
        "dimensions": {name: list(values) for name, values in DIMENSIONS.items()},
        "cells": len(cells),
        "left_out": dict(left_out),
        "films": found.films,
        "objects": dict(sorted(found.objects.items())),
        "complaints": len(found.complaints),
        "complaints_by_kind_and_sentence": _grouped(found.complaints),
        "dciodvfy_messages_of_films": len(found.dciodvfy_of_films),
        "dciodvfy_messages_that_object_and_film_share": dict(found.dciodvfy_of_objects),
        "seconds": round(seconds),
    }


def _grouped(complaints: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Each sentence once, with how often and the first cell that it was said of."""
    counts = Counter((kind, sentence) for _, kind, sentence in complaints)
    first = {(kind, sentence): cell for cell, kind, sentence in reversed(complaints)}
    return [{"of": k, "said": s, "times": n, "first": first[k, s]} for (k, s), n in counts.most_common(200)]


def _all_cells() -> Iterator[Cell]:
    return (Cell(*values) for values in product(*DIMENSIONS.values()))


def _output(*command: str) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run([_needed(command[0]), *command[1:]], capture_output=True, check=False)
        return done.stdout.decode().strip() or "unknown unknown unknown"
    return "unknown unknown unknown"


def _needed(name: str) -> str:
    return needed(name, "matrix")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", default="1/1", help="n/m: each m-th film, the n-th first")
    parser.add_argument("--few", action="store_true", help="only the films of the covering array")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    cells = (few_cells() if asked.few else list(valid_cells()))[part - 1 :: parts]
    started, found = time.monotonic(), Found()
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        folder = Path(name)
        court = Court(bright_segmenter(folder / "model"), _needed, folder)
        for at in range(0, len(cells), BATCH):
            with both_archives(_needed, folder / f"archives-{at}") as archives:
                found.add(court.judge(cells[at : at + BATCH], archives, first=at))
            shutil.rmtree(folder / f"archives-{at}")
            minutes = (time.monotonic() - started) / 60
            print(f"{found.films} of {len(cells)} films, {len(found.complaints)} complaints, {minutes:.1f} min", flush=True)
    written = report(found, cells, time.monotonic() - started)
    if asked.out:
        asked.out.write_text(json.dumps(written, indent=1) + "\n")
    print(json.dumps(written["complaints_by_kind_and_sentence"], indent=1))
    sys.exit(1 if found.complaints else 0)


if __name__ == "__main__":
    main()
