"""The geometry of a film by its header: size and shape of a pixel, and the orientation of the film."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.header import has_value, integer, number, numbers, words
from segmenter.notes import NoteCode
from segmenter.values import Spacing, Turn

_SPACING_MM = (0.01, 10.0)
_LONGEST_MM = 800.0  # no chest film is nearly so long
_PROPORTIONS = ("PixelAspectRatio", "NominalScannedPixelSpacing", "PixelSpacing", "ImagerPixelSpacing")
_OPPOSITE = {"L": "R", "R": "L", "H": "F", "F": "H"}


def spacing_of(dataset: Dataset) -> Spacing | None:
    """PixelSpacing; else ImagerPixelSpacing, divided by EstimatedRadiographicMagnificationFactor where it is known (PS3.3
    10.7.1.3). mm. [0, 0] occurs, and 1 in place of an unknown value: a spacing outside .01 to 10 mm, or one that makes a film
    of more than .8 m, is treated as absent. NominalScannedPixelSpacing never counts."""
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        found = numbers(dataset, keyword)
        if len(found) != 2:
            continue
        factor = number(dataset, "EstimatedRadiographicMagnificationFactor") if keyword == "ImagerPixelSpacing" else None
        corrected = factor is not None and 1 < factor < 4
        row, column = (v / factor for v in found) if corrected and factor else found
        sound = all(_SPACING_MM[0] <= v <= _SPACING_MM[1] for v in (row, column))
        if sound and max(rows * row, columns * column) <= _LONGEST_MM:
            return Spacing(row, column, keyword, corrected)
    return None


def aspect_of(dataset: Dataset, spacing: Spacing | None) -> tuple[int, int]:
    """Height to width of a pixel as a ratio of whole numbers: from its spacing, else PixelAspectRatio (PS3.3 C.7.6.3.1.7), else
    a spacing that gives no lengths on the body (the scanner's, or an implausible one); (1, 1) without any of them."""
    said = [numbers(dataset, keyword) for keyword in _PROPORTIONS]
    for tall, wide in ((spacing.row_mm, spacing.column_mm),) if spacing else (one for one in said if len(one) == 2):
        if tall > 0 and wide > 0 and 0.1 <= tall / wide <= 10:
            ratio = Fraction(tall / wide).limit_denominator(1000)
            return ratio.numerator, ratio.denominator
    return 1, 1


def turn_of(dataset: Dataset) -> Turn:
    """How to bring the film upright by PatientOrientation (PS3.3 C.7.6.1.1.1): a frontal film is shown with rows towards the
    patient's left and columns towards the feet, L\\F. Without a frontal orientation the film is left as it is."""
    return turn_of_orientation(dataset) or Turn()


def turn_of_orientation(dataset: Dataset) -> Turn | None:
    """As `turn_of`, but None when PatientOrientation is absent or not that of a frontal film."""
    found = words(dataset, "PatientOrientation")
    if len(found) != 2 or not all(found):
        return None
    rows, columns = (v[0] for v in found)
    for mirror in (False, True):
        across, down = (_OPPOSITE.get(rows, "") if mirror else rows), columns
        for quarters in range(4):
            if (across, down) == ("L", "F"):
                return Turn(mirror, quarters)
            across, down = down, _OPPOSITE.get(across, "")  # np.rot90 turns counter-clockwise
    return None


def turned(array: NDArray, turn: Turn) -> NDArray:
    """`array` (H, W) brought upright: mirrored, then turned (a view, not a copy)."""
    return np.rot90(array[:, ::-1] if turn.mirror else array, turn.quarters)


def turned_back(array: NDArray, turn: Turn) -> NDArray:
    """The inverse of `turned`."""
    back = np.rot90(array, -turn.quarters)
    return back[:, ::-1] if turn.mirror else back


def geometry_notes(dataset: Dataset, spacing: Spacing | None, turn: Turn) -> tuple[NoteCode, ...]:
    """The notes about spacing and orientation. PixelSpacing equal to ImagerPixelSpacing is not corrected for magnification
    (PS3.3 10.7.1.3)."""
    source = spacing.source if spacing else ""
    ignored = has_value(dataset, "PixelSpacing") and source != "PixelSpacing"
    ignored = ignored or (has_value(dataset, "ImagerPixelSpacing") and spacing is None)
    copied = source == "PixelSpacing" and numbers(dataset, "PixelSpacing") == numbers(dataset, "ImagerPixelSpacing")
    where: tuple[NoteCode, ...] = ()
    if spacing is None:
        where = (NoteCode.SPACING_UNKNOWN,)
    elif spacing.corrected or spacing.in_detector_plane or copied:
        where = (NoteCode.SPACING_DERIVED if spacing.corrected else NoteCode.DETECTOR_SPACING,)
    upright: tuple[NoteCode, ...] = (NoteCode.TURNED_UPRIGHT,) if turn != Turn() else ()
    if turn_of_orientation(dataset) is None:
        upright = (NoteCode.UPRIGHT_ASSUMED,)
    return (*((NoteCode.SPACING_IGNORED,) if ignored else ()), *where, *upright)
