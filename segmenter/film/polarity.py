"""A score of polarity from the pixels: are the lungs dark, or bright because the photometric interpretation is wrong?

Three features, each positive for a chest with dark lungs and of the opposite sign for its negative, of the ranks of the grey
values (so that window and gamma do not matter) at SIDE pixels:

    template  two dark lungs in a bright body, at several sizes, wherever they fit best: best match plus worst match
    border    the film's edges are darker than its middle (air beside the patient)
    centre    the mediastinum is brighter than the lungs beside it

Measured by `bench/polarity.py` (figures in docs/use/gate.md); used by `photometric.py`.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.values import Image

SIDE = 40
_EVEN = 0.03  # of the grey scale: the greys of a line of the frame differ less
_MOST_FRAME = 0.35  # of a side
_WEIGHTS = (1.0, 0.5, 0.5)
_SIZES = ((0.6, 0.6), (0.6, 0.75), (0.6, 0.9), (0.75, 0.6), (0.75, 0.75), (0.75, 0.9), (0.9, 0.75), (0.9, 0.9))  # of SIDE


def polarity_score(image: Image) -> float:
    """Positive: lungs look dark; negative: bright. About -1 to 1; the inverted film has the same score with the opposite sign.
    Not reliable for a film that lies on its side. `image` (H, W) float32, brought upright."""
    ranks = _ranks(_small(image))
    scores = (_template_match(ranks), _border(ranks), _centre(ranks))
    return float(sum(weight * score for weight, score in zip(_WEIGHTS, scores, strict=True)))


def is_upright(image: Image) -> bool:
    """Whether a film looks upright or upside down, not lying on its side: a chest is more like its mirror image than like its
    upside-down image, in either polarity. `image` (H, W) float32."""
    ranks = _ranks(_small(image)).astype(np.float64)
    ranks -= ranks.mean()
    return float((ranks * ranks[:, ::-1]).sum()) >= float((ranks * ranks[::-1]).sum())


def _small(image: Image) -> NDArray[np.float32]:
    """The film without its frame, the longer side SIDE pixels, and no side under 8."""
    step = max(1, max(image.shape) // (8 * SIDE))  # each pixel of the small film is still the mean of several
    thinned = np.ascontiguousarray(image[::step, ::step], np.float32)
    return _scaled(_unframed(_scaled(thinned, 4 * SIDE)), SIDE)


def _scaled(image: NDArray[np.float32], longer: int) -> NDArray[np.float32]:
    scale = longer / max(image.shape)
    height, width = (max(8, round(side * scale)) for side in image.shape)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _unframed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image without even black or white at its edges: collimators, shutters, the margins of a scanned film."""
    (top, bottom), (left, right) = (0, len(image)), _inside(image.T)
    if right > left:
        top, bottom = _inside(image[:, left:right])
    return np.ascontiguousarray(image[top:bottom, left:right])


def _inside(lines: NDArray[np.float32]) -> tuple[int, int]:
    """The first line of more than one grey, and the one after the last."""
    low, high = np.percentile(lines, (5, 95), axis=1)
    uneven = np.flatnonzero(high - low >= _EVEN)
    most = int(_MOST_FRAME * len(lines))
    if len(uneven) == 0:
        return 0, len(lines)
    return min(int(uneven[0]), most), max(int(uneven[-1]) + 1, len(lines) - most)


def _ranks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) -> each pixel's rank among all pixels, 0 to 1; equal greys have their mean rank."""
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
