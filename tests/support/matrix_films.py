"""The film of a cell: small, not square, with known pixels and a finding in a known place, written by a real encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from encoded_film import encoded, worst
from matrix_cells import Cell
from pydicom.dataset import Dataset
from small_film import phantom, picture

from segmenter.film.pixels import stored_values
from segmenter.phantom.dicom import phantom_dataset

SHAPE = (320, 260)
SPACING_MM, MAGNIFICATION = (0.4, 0.3), 1.25  # of a row and of a column, at the detector
GRAIN = 0.005  # noise, so that every bit of a pixel is used
DENSE = 0.85  # what is brighter is the finding, also between its pixels; everything else on the film is darker than this
TYPE_2 = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyID", "SeriesNumber", "InstanceNumber", "Manufacturer", "PatientOrientation", "ContentDate",
    "ContentTime", "KVP", "BodyPartExamined",
)  # fmt: skip


@dataclass(frozen=True)
class MatrixFilm:
    """A film on disk, the `number`-th, and what is true of it.

    `truth` (H, W) bool; `stored` (H, W) int, the values before encoding.
    """

    cell: Cell
    number: int
    path: Path
    truth: np.ndarray
    stored: np.ndarray

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel, by the rule of PS3.3 10.7.1.3; None when the film does not say."""
        across = SPACING_MM[0] * SPACING_MM[1]
        corrected = across / MAGNIFICATION**2 if "magnification" in self.cell.spacing else across
        return None if self.cell.spacing == "none" else corrected

    @property
    def slack(self) -> int:
        """Pixels by which the mask may be off `truth`: none where the encoding is lossless, else some on its edge."""
        return 0 if not worst(self.cell.syntax, self.cell.bits) else int(np.count_nonzero(self.truth) * 0.05)

    def decoding_is_off(self) -> int:
        """How many stored values, at the worst pixel, the decoded film is off by more than its syntax may be."""
        values = stored_values(pydicom.dcmread(self.path)).values
        return max(0, int(np.abs(values - self.stored).max()) - worst(self.cell.syntax, self.cell.bits))


def finding(number: int) -> np.ndarray:
    """(H, W) bool: a slanted ellipse and a small disc, at another place for every number; each third ellipse has a hole."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    y -= 90 + 7 * (number % 11)
    x -= 62 + 9 * (number % 7)
    across, along = x * 0.8 + y * 0.6, y * 0.8 - x * 0.6
    distance = (across / 38) ** 2 + (along / 19) ** 2
    ellipse = (distance < 1) & ((distance > 0.2) | (number % 3 > 0))
    return ellipse | ((x - 70) ** 2 + (y - 60) ** 2 < 40)


def matrix_film(cell: Cell, number: int, folder: Path, tool: Callable[[str], str]) -> MatrixFilm:
    """`number` makes UIDs, patient and the finding's place; a cell with another number is another film."""
    truth = finding(number) if cell.pneumothorax else np.zeros(SHAPE, bool)
    image = np.where(truth, np.float32(0.97), picture(SHAPE))
    image += np.random.default_rng(number).normal(0, GRAIN, SHAPE).astype(np.float32)
    drawn = phantom(SHAPE, np.clip(image, 0, 1), seed=number)
    dataset = phantom_dataset(
        drawn, kind=cell.kind, photometric=cell.photometric, bits=cell.bits, stored_range=(0.1, 0.9)
    )  # type: ignore[arg-type]
    stored = np.frombuffer(dataset.PixelData, np.uint8 if cell.bits == 8 else "<u2").reshape(SHAPE).astype(int)
    _dress(dataset, cell)
    return MatrixFilm(cell, number, encoded(dataset, cell.syntax, folder / f"film-{number}.dcm", tool), truth, stored)


def _dress(dataset: Dataset, cell: Cell) -> None:
    """The header that the cell asks for."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", *(() if cell.type_2 else TYPE_2)):
        if keyword in dataset:
            del dataset[keyword]
    if cell.spacing != "none":
        setattr(dataset, cell.spacing.split(",")[0], [f"{one:g}" for one in SPACING_MM])
    if "magnification" in cell.spacing:
        dataset.EstimatedRadiographicMagnificationFactor = f"{MAGNIFICATION:g}"
    if cell.frame_of_reference:
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = dataset.SeriesInstanceUID + ".1", ""
    if cell.view_position:
        dataset.ViewPosition = "PA"
    else:
        for keyword in ("ViewPosition", "ViewCodeSequence"):
            if keyword in dataset:
                del dataset[keyword]
