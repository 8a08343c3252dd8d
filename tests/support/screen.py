"""Where a film lies in a screenshot, and where something coloured was drawn on it.

Nothing is asked of the viewer: the film itself is searched for in the picture, so a shifted, mirrored, inverted or stretched
film is found out as surely as a shifted overlay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.phantom.values import Phantom

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


def find(image: NDArray[Any], picture: NDArray[np.int16], pane: dict[str, float], smaller: float = 0.02) -> Place:
    """The film `image` (H, W) in the viewport `pane` (x, y, width, height) of the window, which it fits into, or is smaller
    than what fits by that share."""
    left, top = round(pane["x"]), round(pane["y"])
    width, height = round(pane["width"]), round(pane["height"])
    margin = 12
    view = picture[top : top + height, left : left + width].mean(axis=2).astype(np.float32)
    view = cv2.copyMakeBorder(view, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    fit = min(width / image.shape[1], height / image.shape[0])
    best = Place(0, 0, 0, 0, -1.0)
    for scale in fit * np.arange(1 - smaller, 1.01, 0.0025):
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        shrunk = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        _, likeness, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(view, shrunk, cv2.TM_CCOEFF_NORMED))
        if likeness > best.likeness:
            best = Place(x + left - margin, y + top - margin, *size, likeness)
    return best


class Colour(StrEnum):
    """What a viewer draws with; the films are grey."""

    RED = "red"  # of our SEG, and of the capture's outline
    GREEN = "green"  # OHIF's, of an SR: green the selected region, yellow the others

    def where(self, picture: NDArray[np.int16], least: int = 24) -> NDArray[np.bool_]:
        red, green, blue = (picture[..., n] for n in range(3))
        if self is Colour.RED:
            return (red - green >= least) & (red - blue >= least)
        return (green - blue >= least) & (green - red >= -least)


@dataclass(frozen=True)
class Overlay:
    """What was drawn on a film, against the truth."""

    likeness: float  # of the film and its picture: it lies where it was found, unturned and not inverted
    inside: float  # share of the true region, its border band left out, that is coloured
    outside: int  # coloured pixels of the film outside the region and its border band
    border: float  # share of the true border near which something is coloured

    @property
    def fills(self) -> bool:
        """A filled region lies on the truth and nowhere else."""
        return self.likeness >= FAITHFUL and self.inside >= 0.98 and self.outside == 0 and self.border >= 0.98

    @property
    def outlines(self) -> bool:
        """A line runs along the truth and nowhere else."""
        return self.likeness >= FAITHFUL and self.inside <= 0.1 and self.outside == 0 and self.border >= 0.95


def look(path: str | Path, pane: dict[str, float], phantom: Phantom, colour: Colour, smaller: float = 0.02) -> Overlay:
    """Find the film in the screenshot and hold what is drawn in `colour` against its truth."""
    picture = photograph(path)
    place = find(phantom.image, picture, pane, smaller)
    drawn = colour.where(picture)[place.window]
    region = place.on_screen(phantom.truth, picture.shape[:2])[place.window].astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BAND + 1, 2 * BAND + 1))
    core, reach = cv2.erode(region, disc).astype(bool), cv2.dilate(region, disc).astype(bool)
    border = region.astype(bool) & ~cv2.erode(region, np.ones((3, 3), np.uint8)).astype(bool)
    near = cv2.dilate(drawn.astype(np.uint8), disc).astype(bool)
    return Overlay(
        likeness=round(place.likeness, 4),
        inside=round(float(drawn[core].mean()), 4) if core.any() else 0.0,
        outside=int(np.count_nonzero(drawn & ~reach)),
        border=round(float(near[border].mean()), 4) if border.any() else 0.0,
    )
