"""Where a film lies in a screenshot, and where something coloured was drawn on it.

Nothing is asked of the viewer: the film itself is searched for in the picture, so a shifted, mirrored, inverted or stretched
film is found out as surely as a shifted overlay.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BAND = 4  # screen pixels along the true border where a line may lie, or not
FAITHFUL = 0.97  # correlation of a film with its picture on the screen; inverted it is negative


@dataclass(frozen=True)
class Place:
    """The film's rectangle in the window, in screen pixels, and its correlation with what is seen there."""

    x: int
    y: int
    width: int
    height: int
    likeness: float

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def on_screen(self, mask: NDArray[np.bool_], screen: tuple[int, int]) -> NDArray[np.bool_]:
        """`mask` (H, W) of the film as a mask of the window, `screen` (rows, columns)."""
        shown = np.zeros(screen, bool)
        size = (self.width, self.height)
        shown[self.window] = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
        return shown


def photograph(path: str | Path) -> NDArray[np.int16]:
    """(rows, columns, 3) red, green, blue."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None, path
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.int16)


def find(image: NDArray[Any], picture: NDArray[np.int16], pane: dict[str, float]) -> Place:
    """The film `image` (H, W) in the viewport `pane` (x, y, width, height) of the window, which it fits into."""
    left, top = round(pane["x"]), round(pane["y"])
    width, height = round(pane["width"]), round(pane["height"])
    margin = 12
    view = picture[top : top + height, left : left + width].mean(axis=2).astype(np.float32)
    view = cv2.copyMakeBorder(view, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    fit = min(width / image.shape[1], height / image.shape[0])
    best = Place(0, 0, 0, 0, -1.0)
    for scale in fit * np.linspace(0.98, 1.01, 13):
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        shrunk = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        _, likeness, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(view, shrunk, cv2.TM_CCOEFF_NORMED))
        if likeness > best.likeness:
            best = Place(x + left - margin, y + top - margin, *size, likeness)
    return best


def coloured(picture: NDArray[np.int16], least: int = 24) -> NDArray[np.bool_]:
    """Where a picture of a grey film is not grey."""
    return picture.max(axis=2) - picture.min(axis=2) >= least


@dataclass(frozen=True)
class Overlay:
    """What was drawn on a film, against the truth. Shares of pixels."""

    inside: float  # of the true region, its border band left out, that is coloured
    outside: int  # coloured pixels of the film outside the region and its border band
    border: float  # of the true border near which something is coloured


def compare(before: NDArray[np.int16], after: NDArray[np.int16], truth: NDArray[np.bool_]) -> Overlay:
    """`before` and `after` are the film without and with overlay, cut out alike; `truth` is true to their scale."""
    drawn = coloured(after) & ~coloured(before)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BAND + 1, 2 * BAND + 1))
    region = truth.astype(np.uint8)
    core, reach = cv2.erode(region, disc).astype(bool), cv2.dilate(region, disc).astype(bool)
    border = region.astype(bool) & ~cv2.erode(region, np.ones((3, 3), np.uint8)).astype(bool)
    near = cv2.dilate(drawn.astype(np.uint8), disc).astype(bool)
    return Overlay(
        inside=float(drawn[core].mean()) if core.any() else 0.0,
        outside=int(np.count_nonzero(drawn & ~reach)),
        border=float(near[border].mean()) if border.any() else 0.0,
    )
