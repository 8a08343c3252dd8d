"""A baseline without learning, measured with the exam: phantoms that a threshold can segment would be too easy."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def baseline_masks(image: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
    """The largest dark region that does not touch the edge of the film, at each threshold. `image` (H, W) float32 in
    [0, 1]; masks (H, W) bool."""
    height, width = image.shape
    small = cv2.resize(image, (width * 512 // max(image.shape), height * 512 // max(image.shape)))
    small = cv2.GaussianBlur(small, (0, 0), 2)
    return [_largest_inside(np.asarray(small < t), (width, height)) for t in THRESHOLDS]


def _largest_inside(dark: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark.astype(np.uint8))
    edge = set(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).tolist())
    inside = [i for i in range(1, count) if i not in edge]
    chosen = max(inside, key=lambda i: stats[i, cv2.CC_STAT_AREA], default=-1)
    return np.asarray(cv2.resize((labels == chosen).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)
