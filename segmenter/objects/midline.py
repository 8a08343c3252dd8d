"""The body's midline on a film, which separates right and left lung.

The chest is nearly its own mirror image, and brightest in its middle. On 200 films with outlined lungs (Montgomery, Shenzhen),
as they are and cut on one side by 8 and 14 %, the line is .6 % of the width off (median; 2 % in 1 of 20, at most 4.7 %). The
middle of a film that is cut by 14 % is 8 % off, and up to 15 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.film.geometry import turned
from segmenter.model.body import body_extent
from segmenter.values import Image, Radiograph

NEAR = 0.08  # of the body's width: nearer to the midline, no side is given

_LONGER_SIDE = 128  # px of the reduced image in which it is found
_ROWS = (0.15, 0.65)  # of the body's height: below the chin, above the dome of the diaphragm
_COLUMNS = (0.2, 0.8)  # of the film's width, where the midline may lie
_REACH = 0.3  # of the film's width, to each side: the part in which the halves are compared
_CENTRED = 0.15  # of the film's width: most bodies lie nearer to the middle of their outline than that
_CENTRED_WEIGHT = 0.3


@dataclass(frozen=True)
class Midline:
    """In columns of the upright film: the position `at`, and the `width` of the body."""

    at: float
    width: float


def midline_of(radiograph: Radiograph) -> Midline:
    """The midline of a decoded film."""
    turn = radiograph.turn
    aspect = radiograph.aspect if turn.quarters % 2 == 0 else radiograph.aspect[::-1]
    return find_midline(turned(radiograph.image, turn), aspect)


def find_midline(image: Image, aspect: tuple[float, float] = (1, 1)) -> Midline:
    """The midline of an upright `image` (H, W) float32 in [0, 1], lungs dark; `aspect`: height and width of a pixel."""
    rows, columns = body_extent(image, aspect)
    height, width = image.shape[0] * aspect[0], image.shape[1] * aspect[1]
    shrink = _LONGER_SIDE / max(height, width)
    size = max(8, round(width * shrink)), max(8, round(height * shrink))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 2)
    top, tall = rows.start * size[1] / image.shape[0], (rows.stop - rows.start) * size[1] / image.shape[0]
    chest = small[int(top + _ROWS[0] * tall) : max(int(top + _ROWS[1] * tall), int(top + _ROWS[0] * tall) + 2)]
    middle = (columns.start + columns.stop) / 2 / image.shape[1]
    places = np.arange(int(_COLUMNS[0] * size[0]), int(_COLUMNS[1] * size[0]) + 1)
    found = places[int(np.argmax([_likeness(np.asarray(chest), int(at), middle) for at in places]))]
    return Midline(float(found) * image.shape[1] / size[0], float(columns.stop - columns.start))


def _likeness(chest: NDArray[np.float32], at: int, middle: float) -> float:
    """How much the left of column `at` mirrors its right, how bright it is there, and how near to the `middle`."""
    width = chest.shape[1]
    reach = max(1, int(min(at, width - at, _REACH * width)))
    left, right = chest[:, at - reach : at], chest[:, at : at + reach][:, ::-1]
    left, right = left - left.mean(), right - right.mean()
    alike = float((left * right).sum()) / float(np.sqrt((left**2).sum() * (right**2).sum()) + 1e-6)
    bright = float(chest[:, max(0, at - 2) : at + 2].mean() - chest.mean())
    return alike + bright - _CENTRED_WEIGHT * ((at / width - middle) / _CENTRED) ** 2 / 2
