"""Native grid <-> model grid: one coordinate map, exactly invertible. Shared with training.

The film is turned upright, its pixels are made square by their aspect ratio, it is scaled by one factor so that its longer side
fills the model's square, and centred; the rest is padding. Pixel centres lie at half-integers, so a landmark at
upright native (y, x) goes to ((y + .5) * down + top - .5, (x + .5) * across + left - .5) and comes back to the same place,
whatever the two sizes are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.film.geometry import turned, turned_back
from segmenter.values import Image, Probability, Turn

Box = tuple[slice, slice]  # rows, columns

_UPRIGHT = Turn()


def _whole(shape: tuple[int, ...]) -> Box:
    return slice(0, shape[0]), slice(0, shape[1])


@dataclass(frozen=True)
class Placement:
    """Where a film of `shape` (H, W) lies on the (size, size) grid of the model.

    `scale`: model pixels per native pixel, of its shorter side where it is not square; `pixel`: height and width of an upright
    native pixel, the shorter one 1; `top`, `left`: offset in model pixels of the upright film's corner (they
    may be fractional: the film is centred exactly).
    """

    shape: tuple[int, int]
    size: int
    turn: Turn
    scale: float
    top: float
    left: float
    pixel: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def fit(cls, shape: tuple[int, int], size: int, turn: Turn = _UPRIGHT, aspect: tuple[float, float] = (1, 1)) -> Placement:
        """The placement of a film of `shape` (H, W) on a grid of `size` px; padding keeps the proportions of the body.
        `aspect`: height and width of a stored pixel, in any unit. Raises ValueError for an empty shape, or a pixel without
        height or width."""
        if min(shape) < 1 or size < 1 or not min(aspect) > 0:
            raise ValueError(f"nothing to place: shape {shape}, size {size}, pixels of {aspect}")
        upright = turn.quarters % 2 == 0
        height, width = shape if upright else shape[::-1]
        tall, wide = (one / min(aspect) for one in (aspect if upright else aspect[::-1]))
        scale = size / max(height * tall, width * wide)
        top, left = (size - height * tall * scale) / 2, (size - width * wide * scale) / 2
        return cls(shape, size, turn, scale, top, left, (tall, wide))

    @property
    def down(self) -> float:
        """Model pixels per row of the upright film."""
        return self.scale * self.pixel[0]

    @property
    def across(self) -> float:
        """Model pixels per column of the upright film."""
        return self.scale * self.pixel[1]

    @property
    def upright_shape(self) -> tuple[int, int]:
        """(H, W) of the upright film, in native pixels."""
        return self.shape if self.turn.quarters % 2 == 0 else (self.shape[1], self.shape[0])

    def to_model(self, image: Image) -> Image:
        """(H, W) float32 -> (size, size) float32, padded with 0. Shrinks by averaging over the area."""
        upright = np.ascontiguousarray(turned(image, self.turn), dtype=np.float32)
        height, width = upright.shape
        inner = min(height, max(1, round(height * self.down))), min(width, max(1, round(width * self.across)))
        # Averaging first avoids aliasing; the affine map then sets the exact place to a fraction of a pixel.
        if inner != upright.shape:
            upright = np.asarray(cv2.resize(upright, inner[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)
        placed = cv2.warpAffine(
            upright,
            self._matrix(upright.shape),
            (self.size, self.size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0.0,
        )
        return np.asarray(placed, dtype=np.float32)

    def to_native(self, probability: Probability, box: Box | None = None) -> NDArray[np.float32]:
        """(size, size) float32 -> (H, W) float32, bilinear: the probability is upsampled, never the mask. `box`: of
        `native_box`; only its rows and columns are returned."""
        rows, columns = box if box and self.turn == _UPRIGHT else _whole(self.upright_shape)
        matrix = self._matrix(self.upright_shape)
        matrix[:, 2] += matrix[0, 0] * columns.start, matrix[1, 1] * rows.start
        upright = cv2.warpAffine(
            np.ascontiguousarray(probability, dtype=np.float32),
            matrix,
            (columns.stop - columns.start, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.ascontiguousarray(turned_back(upright, self.turn), dtype=np.float32)

    def native_box(self, inside: NDArray[np.bool_]) -> Box:
        """The native rows and columns that depend on the model's pixels `inside` (size, size) bool, one of each when there are
        none; all of a film that was turned."""
        if self.turn != _UPRIGHT:
            return _whole(self.shape)
        found = []
        axes = (1, self.down, self.top, self.shape[0]), (0, self.across, self.left, self.shape[1])
        for axis, scale, offset, length in axes:
            (at,) = np.nonzero(inside.any(axis=axis))
            first, last = (at[0], at[-1]) if len(at) else (0, 0)
            # A bilinear sample uses one pixel to each side; one more for rounding.
            start, stop = ((first - 1.5 - offset) / scale - 1, (last + 2.5 - offset) / scale + 1)
            start = min(max(int(start), 0), length - 1)
            found.append(slice(start, max(min(int(stop) + 1, length), start + 1)))
        return found[0], found[1]

    def _matrix(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The affine map from pixel indices of an upright raster of `shape` to model pixel indices."""
        height, width = self.upright_shape
        across, down = width * self.across / shape[1], height * self.down / shape[0]
        return np.array([[across, 0.0, self.left + across / 2 - 0.5], [0.0, down, self.top + down / 2 - 0.5]], dtype=np.float64)
