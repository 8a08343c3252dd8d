"""The regions of a finding: outline, area and side of each, on the native matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.notes import NoteCode
from segmenter.objects.midline import NEAR, Midline, midline_of
from segmenter.values import Mask, Radiograph, Turn

_TOLERANCE_PX = 0.75  # of a straight piece of the outline
_MOST_POINTS = 1000


class Side(StrEnum):
    """Right and left are the patient's and need PatientOrientation; near the midline no side is given."""

    RIGHT = "right"
    LEFT = "left"
    IMAGE_LEFT = "image left"
    IMAGE_RIGHT = "image right"
    MIDLINE = "near the midline"


@dataclass(frozen=True)
class Region:
    """One connected component of a mask. `points` (N, 2) float32: column and row, N >= 4, the last equal to the first, in the
    image-relative coordinates of SCOORD and presentation states: 0.0 is the outer corner of the first pixel, .5 its
    centre (PS3.3 C.18.6.1.2)."""

    points: NDArray[np.float32]
    area_px: int
    side: Side


def regions_on(radiograph: Radiograph, mask: Mask) -> tuple[Region, ...]:
    """The regions of `mask` (H, W) bool, each with its side of the midline of the film's body."""
    turn = None if NoteCode.UPRIGHT_ASSUMED in radiograph.notes else radiograph.turn
    return find_regions(mask, turn, midline_of(radiograph)) if mask.any() else ()


def sides_of(regions: Sequence[Region]) -> tuple[str, ...]:
    """Each side once, that of the largest region first."""
    return tuple(dict.fromkeys(str(region.side) for region in regions))


def find_regions(mask: Mask, turn: Turn | None, midline: Midline | None = None) -> tuple[Region, ...]:
    """The regions of `mask` (H, W) bool, the largest first. `turn` brings the film upright, None: unknown; `midline`: of the
    body on the upright film, None: the film's middle. Holes are not part of the area; the outline ignores them."""
    box = bounding_box(mask)
    if box is None:
        return ()
    left, top = box[1].start, box[0].start
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask[box].view(np.uint8), connectivity=8)
    order = sorted(range(1, count), key=lambda one: -int(stats[one, cv2.CC_STAT_AREA]))
    return tuple(_region(labels, stats[one], centres[one], one, (left, top), mask.shape, turn, midline) for one in order)


def bounding_box(mask: Mask) -> tuple[slice, slice] | None:
    """The rows and columns outside of which nothing of a mask (H, W) bool is set; None when nothing is set."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (slice(y, y + height), slice(x, x + width)) if width else None


def _region(
    labels: NDArray[Any],
    stat: NDArray[Any],
    centre: NDArray[Any],
    label: int,
    corner: tuple[int, int],
    shape: tuple[int, ...],
    turn: Turn | None,
    midline: Midline | None,
) -> Region:
    """`labels`, `stat` and `centre` of the mask's box, whose `corner` (column, row) lies on the film of `shape`."""
    x, y, width, height, area = (int(v) for v in stat)
    component = np.pad((labels[y : y + height, x : x + width] == label).astype(np.uint8), 1)
    # At twice the resolution, the centres of border pixels lie a quarter of a pixel inside the true border, not a half.
    fine = component.repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    border = max(contours, key=len)
    tolerance = 2 * _TOLERANCE_PX
    while len(simple := cv2.approxPolyDP(border, tolerance, True)) > _MOST_POINTS:
        tolerance *= 1.5
    if len(simple) < 3:
        simple = cv2.boxPoints(cv2.minAreaRect(border))[:, None]
    points = (simple[:, 0].astype(np.float32) + 0.5) / 2 - 1 + np.array([x + corner[0], y + corner[1]], np.float32)
    limits = np.array([shape[1], shape[0]], np.float32)
    points = np.clip(points, 0, limits)
    middle = centre[0] + corner[0] + 0.5, centre[1] + corner[1] + 0.5
    return Region(np.concatenate([points, points[:1]]), area, _side(middle, shape, turn, midline))


def _side(centre: tuple[float, float], shape: tuple[int, ...], turn: Turn | None, midline: Midline | None) -> Side:
    """On which side of the body's midline the `centre` (column, row) lies. On the upright film the patient's right is on the
    left (PS3.3 C.7.6.1.1.1)."""
    (x, y), (height, width) = centre, shape
    across, columns = (width - x, width) if turn and turn.mirror else (x, width)
    for _ in range((turn.quarters if turn else 0) % 4):  # np.rot90: the last column becomes the first row
        across, y, columns, height = y, columns - across, height, columns
    line = midline or Midline(columns / 2, columns)
    if abs(across - line.at) <= NEAR * line.width:
        return Side.MIDLINE
    on_the_right = across > line.at
    if turn is None:
        return Side.IMAGE_RIGHT if on_the_right else Side.IMAGE_LEFT
    return Side.LEFT if on_the_right else Side.RIGHT
