"""The display shutter (PS3.3 C.7.6.11; as a bitmap, PS3.3 C.7.6.15): what lies outside it is not part of the film."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.header import has_value, integer, number, numbers, words

Open = NDArray[np.bool_]  # (H, W), True where the film shows
_LEAST_OPEN = 0.1  # of the film: a shutter that leaves less open was made for other pixels


def shutter_of(dataset: Dataset, shape: tuple[int, int], aspect: float = 1.0) -> tuple[Open | None, bool]:
    """The part (H, W) bool of a film of `shape` that all its shutters together leave open, None when all is open; and whether
    an invalid shutter was ignored. `aspect`: height to width of a pixel, for circles. Never raises.

    Positions count from 1 at the upper left pixel (row\\column); edges and vertices belong to the open part.
    """
    open_, ignored = np.ones(shape, bool), False
    for kind in words(dataset, "ShutterShape"):
        part = _PARTS[kind](dataset, shape, aspect) if kind in _PARTS else None
        if part is None or float((open_ & part).mean()) < _LEAST_OPEN:
            ignored = True
            continue
        open_ &= part
    ignored = ignored or (has_value(dataset, "ShutterShape") and not words(dataset, "ShutterShape"))
    return (None if open_.all() else open_), ignored


def _rectangle(dataset: Dataset, shape: tuple[int, int], aspect: float) -> Open | None:
    names = ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    edges = [integer(dataset, f"Shutter{name}Edge") for name in names]
    if None in edges:
        return None
    left, right, upper, lower = (int(edge or 0) for edge in edges)
    (left, right), (upper, lower) = sorted((left, right)), sorted((upper, lower))
    part = np.zeros(shape, bool)
    part[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return part


def _circle(dataset: Dataset, shape: tuple[int, int], aspect: float) -> Open | None:
    """The radius counts in columns."""
    centre, radius = numbers(dataset, "CenterOfCircularShutter"), number(dataset, "RadiusOfCircularShutter")
    if len(centre) != 2 or radius is None or radius <= 0:
        return None
    y, x = np.ogrid[1 : shape[0] + 1, 1 : shape[1] + 1]
    return np.asarray(((y - centre[0]) * aspect) ** 2 + (x - centre[1]) ** 2 <= radius**2)


def _polygon(dataset: Dataset, shape: tuple[int, int], aspect: float) -> Open | None:
    vertices = numbers(dataset, "VerticesOfThePolygonalShutter")
    if len(vertices) < 6 or len(vertices) % 2:
        return None
    limit = 4 * max(shape)  # OpenCV cannot draw farther out
    points = np.clip(np.array(vertices).reshape(-1, 2)[:, ::-1] - 1, -limit, limit).astype(np.float32)
    part, outline = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    corners = [np.rint(points).astype(np.int32)]
    cv2.fillPoly(part, corners, 1)
    cv2.polylines(outline, corners, True, 1)
    for y, x in np.argwhere(outline):  # OpenCV also fills pixels that the outline touches
        part[y, x] = cv2.pointPolygonTest(points, (float(x), float(y)), False) >= 0
    return part.astype(bool)


def _bitmap(dataset: Dataset, shape: tuple[int, int], aspect: float) -> Open | None:
    """An overlay plane of the film's size: 1 is outside the open part (PS3.3 C.7.6.15)."""
    group = integer(dataset, "ShutterOverlayGroup")
    if group is None or not 0x6000 <= group <= 0x601E or group % 2:
        return None
    elements = {number: (group << 16) + number for number in (0x0010, 0x0011, 0x0050, 0x0100, 0x3000)}
    if elements[0x3000] not in dataset:
        return None
    plane = Dataset()
    for number_, keyword in ((0x0010, "Rows"), (0x0011, "Columns")):
        if elements[number_] in dataset:
            plane.add_new(keyword, "US", dataset[elements[number_]].value)
    if (integer(plane, "Rows"), integer(plane, "Columns")) != shape:
        return None
    data = dataset.get_item(elements[0x3000]).value
    if not isinstance(data, bytes) or len(data) * 8 < shape[0] * shape[1]:
        return None
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: shape[0] * shape[1]]
    return bits.reshape(shape) == 0


_PARTS = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon, "BITMAP": _bitmap}
