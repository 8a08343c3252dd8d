"""A prepared data set: what `prepare` writes, and training, calibration and evaluation read.

dataset.json        source, digests, sizes, folds
index.csv           one row per film: row in the arrays, name, patient, site, fold, area, native size, spacing
images-SIZE.npy     (N, SIZE, SIZE) uint8, the film on the model's grid as `segmenter.model.placement` puts it there
masks-SIZE.npy      (N, SIZE, SIZE / 8) uint8, the true mask on the same grid, one bit per pixel
report.json         every film that is not in the index, and why
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.cases import DataError

SCHEMA = 1
DATASET_FILE, INDEX_FILE, REPORT_FILE = "dataset.json", "index.csv", "report.json"


@dataclass(frozen=True)
class FilmRow:
    """One film. `area_fraction`: area of the pneumothorax as a share of the native film, 0 without one; spacings are 0 when
    unknown."""

    row: int
    name: str
    patient: str
    site: str
    fold: int
    stratum: str
    area_fraction: float
    height: int
    width: int
    row_mm: float
    column_mm: float
    path: str  # relative to the source
    sha256: str  # of its rows in all arrays

    @property
    def positive(self) -> bool:
        """Whether the film shows a pneumothorax."""
        return self.area_fraction > 0

    @property
    def pixel_mm2(self) -> float:
        """Area of a native pixel, 0 when unknown."""
        return self.row_mm * self.column_mm


def image_file(folder: Path, size: int) -> Path:
    """The array of films at `size` px in a prepared data set."""
    return folder / f"images-{size}.npy"


def mask_file(folder: Path, size: int) -> Path:
    """The array of true masks at `size` px in a prepared data set."""
    return folder / f"masks-{size}.npy"


def write_index(path: Path, rows: Sequence[FilmRow]) -> str:
    """Write index.csv. Returns its sha256, which covers the whole data set: each row has the digest of its pixels."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(f.name for f in fields(FilmRow))
        writer.writerows([getattr(r, f.name) for f in fields(FilmRow)] for r in rows)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_index(path: Path) -> tuple[FilmRow, ...]:
    """The rows that `write_index` wrote. Raises OSError, KeyError and ValueError for a file of another kind."""
    kinds = {"int": int, "float": float, "str": str}
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        return tuple(FilmRow(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(FilmRow)}) for row in rows)


class PreparedSet:
    """An open data set. `rows` are its films; `row` of a film is its index in the arrays."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError when `prepare` has not finished there, or the index is not the one it wrote."""
        self.folder = Path(folder)
        try:
            self.about: dict[str, Any] = json.loads((self.folder / DATASET_FILE).read_text())
            index = (self.folder / INDEX_FILE).read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} is no prepared data set; run `python -m train prepare SOURCE --out {folder}`") from error
        if self.about.get("schema") != SCHEMA:
            raise DataError(f"{folder} was prepared by another version; prepare it again")
        if hashlib.sha256(index).hexdigest() != self.about["index_sha256"]:
            raise DataError(f"{folder / INDEX_FILE} is not the one that was prepared; prepare it again")
        self.rows = read_index(self.folder / INDEX_FILE)
        self.sizes: tuple[int, ...] = tuple(self.about["sizes"])

    @property
    def digest(self) -> str:
        """sha256 of the index, and with it of all arrays: each row of the index holds the digest of its pixels."""
        return str(self.about["index_sha256"])

    @property
    def source(self) -> Path:
        """The folder of raw films that the data set was prepared from."""
        return Path(self.about["source"])

    def fold(self, fold: int) -> tuple[list[FilmRow], list[FilmRow]]:
        """Training and held-out films. Raises DataError when there is no such fold."""
        if not 0 <= fold < self.about["folds"]:
            raise DataError(f"{self.folder} has the folds 0 to {self.about['folds'] - 1}, not {fold}")
        return [r for r in self.rows if r.fold != fold], [r for r in self.rows if r.fold == fold]

    def grid_for(self, size: int) -> int:
        """The smallest prepared size (px) that `size` can be made from by shrinking. Raises DataError when all are smaller."""
        enough = [s for s in sorted(self.sizes) if s >= size]
        if not enough:
            raise DataError(f"{self.folder} has the sizes {self.sizes}, none as large as {size} px: prepare it with --sizes")
        return enough[0]

    @cached_property
    def _maps(self) -> dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        return {
            s: (np.load(image_file(self.folder, s), mmap_mode="r"), np.load(mask_file(self.folder, s), mmap_mode="r"))
            for s in self.sizes
        }

    def read(self, rows: Sequence[FilmRow], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images (N, size, size) uint8 and truths (N, size, size) uint8 0 or 1, `size` one of the prepared sizes."""
        images, masks = self._maps[size]
        at = [r.row for r in rows]
        return images[at], np.unpackbits(masks[at], axis=2)

    def verify(self, rows: Sequence[FilmRow]) -> None:
        """Compare the arrays with the index. Raises DataError with the first film that differs."""
        for r in rows:
            if row_sha256([part[r.row] for s in self.sizes for part in self._maps[s]]) != r.sha256:
                raise DataError(f"{self.folder}: the pixels of {r.name} changed since `prepare`; prepare it again")


def row_sha256(parts: Sequence[NDArray[np.uint8]]) -> str:
    """sha256 of one film's arrays (uint8, any shape), in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
