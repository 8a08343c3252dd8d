"""Lungs bright where they should be dark: a film under the wrong photometric interpretation, seen in its pixels.

Three witnesses, each positive for a chest with dark lungs and of the other sign for its negative, on the ranks of the grey
values (so that window and gamma do not matter) at SIDE pixels:

    template  two dark lungs in a bright body, at several sizes, wherever they fit best: best match plus worst match
    border    the film's edges are darker than its middle (air beside the patient)
    centre    the mediastinum is brighter than the lungs beside it

Measured by `bench/polarity.py` (figures in docs/gate.md): of 838 frontal films of NIH ChestX-ray14, and of 2,400 films of
phantoms through the decoder, none is suspected, and none of their negatives is missed. Negatives are so rare, though, that a
film is only said to be suspect and never turned round: 1 false alarm in 280 films can not be excluded by 838.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.values import Image

SIDE = 40
_WEIGHTS = (1.0, 0.5, 0.5)
_SIZES = ((0.6, 0.6), (0.6, 0.75), (0.6, 0.9), (0.75, 0.6), (0.75, 0.75), (0.75, 0.9), (0.9, 0.75), (0.9, 0.9))  # of SIDE


def looks_inverted(image: Image) -> bool:
    """`image` (H, W) float32, brought upright. Of a film that lies on its side without saying so, the answer is a guess."""
    return polarity(image) < 0


def polarity(image: Image) -> float:
    """Positive: lungs look dark; negative: bright. About -2 to 2."""
    ranks = _ranks(_small(image))
    witnesses = (_template_match(ranks), _border(ranks), _centre(ranks))
    return float(sum(weight * said for weight, said in zip(_WEIGHTS, witnesses, strict=True)))


def _small(image: Image) -> NDArray[np.float32]:
    """The longer side SIDE pixels, and no side under 8."""
    scale = SIDE / max(image.shape)
    height, width = (max(8, round(side * scale)) for side in image.shape)
    step = max(1, max(image.shape) // (8 * SIDE))  # each pixel of the small film is still the mean of 8 x 8
    thinned = np.ascontiguousarray(image[::step, ::step], np.float32)
    return np.asarray(cv2.resize(thinned, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _ranks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) -> each pixel's place among all of them, 0 to 1; equal greys share their middle place."""
    _, index, counts = np.unique(image.ravel(), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray(middle[index].reshape(image.shape) / max(image.size - 1, 1), np.float32)


def _template_match(ranks: NDArray[np.float32]) -> float:
    best, worst = -1.0, 1.0
    for tall, wide in _SIZES:
        shape = min(round(SIDE * tall), ranks.shape[0]), min(round(SIDE * wide), ranks.shape[1])
        matches = cv2.matchTemplate(ranks, _lungs(shape), cv2.TM_CCOEFF_NORMED)
        best, worst = max(best, float(matches.max())), min(worst, float(matches.min()))
    return best + worst


@functools.cache
def _lungs(shape: tuple[int, int]) -> NDArray[np.float32]:
    y, x = ((np.mgrid[: shape[0], : shape[1]] + 0.5) / np.array(shape).reshape(2, 1, 1)).astype(np.float32)
    body = np.ones(shape, np.float32)
    for middle in (0.25, 0.75):
        body -= np.exp(-(((x - middle) / 0.16) ** 4) - ((y - 0.46) / 0.34) ** 4)
    return body


def _border(ranks: NDArray[np.float32]) -> float:
    """Without the lower edge, where the abdomen lies."""
    edges = np.concatenate([ranks[:3].ravel(), ranks[:, :2].ravel(), ranks[:, -2:].ravel()])
    return float(ranks[2:-2, 2:-2].mean() - edges.mean())


def _centre(ranks: NDArray[np.float32]) -> float:
    height, width = ranks.shape

    def mean(top: float, bottom: float, left: float, right: float) -> float:
        return float(ranks[int(top * height) : int(bottom * height), int(left * width) : int(right * width)].mean())

    lungs = (mean(0.25, 0.6, 0.18, 0.36) + mean(0.25, 0.6, 0.64, 0.82)) / 2
    return mean(0.3, 0.75, 0.44, 0.58) - lungs
