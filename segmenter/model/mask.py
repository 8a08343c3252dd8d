"""Probability -> mask on the native grid: image threshold, mask threshold, removal of small components.

The probability is upsampled, never the mask, so the outline follows the native pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from segmenter.errors import Refused
from segmenter.model.artifact import OperatingPoint
from segmenter.model.placement import Placement
from segmenter.values import Decision, Mask, Prediction, Spacing


def decide(
    prediction: Prediction,
    placement: Placement,
    operating_point: OperatingPoint,
    spacing: Spacing | None,
    absurd_fraction: float,
    body: Callable[[], Mask] | None = None,
) -> Decision:
    """The answer for one film: `mask` (H, W) bool, H and W from `placement.shape`.

    A film is positive when its image probability reaches the threshold and the mask is not empty. `body`: computes the pixels
    (H, W) bool that show the body, outside of which nothing is marked; called only when something was found. Raises Refused:
    `non-finite-output` (NaN, infinite or outside [0, 1]), `absurd-mask` (more than `absurd_fraction` of the film).
    """
    _check(prediction)
    probability, threshold = prediction.image_probability, operating_point.image_threshold
    nothing = np.zeros(placement.shape, dtype=bool)
    area_of = None if spacing is None else spacing.pixel_area_mm2
    if probability < threshold:
        return Decision(False, probability, nothing, None if area_of is None else 0.0, 0, threshold)
    # Only the part of the film whose pixels can reach the threshold is upsampled.
    box = placement.native_box(prediction.probability >= operating_point.mask_threshold)
    found = placement.to_native(prediction.probability, box) >= operating_point.mask_threshold
    if body is not None and found.any():
        found &= body()[box]
    if (covered := np.count_nonzero(found) / nothing.size) > absurd_fraction:
        raise Refused("absurd-mask", f"The mask covers {covered:.0%} of the film, more than {absurd_fraction:.0%}.")
    by_grid = operating_point.min_area_px / (placement.down * placement.across)
    min_area_px = by_grid if area_of is None else operating_point.min_area_mm2 / area_of
    mask = nothing
    mask[box], components = without_small_components(found, min_area_px)
    area = None if area_of is None else float(np.count_nonzero(mask) * area_of)
    return Decision(components > 0, probability, mask, area, components, threshold)


def indeterminate_decision(prediction: Prediction, shape: tuple[int, int], operating_point: OperatingPoint) -> Decision:
    """The decision for an indeterminate film of `shape` (H, W): its probability and an empty mask. Raises Refused:
    `non-finite-output`."""
    _check(prediction)
    nothing = np.zeros(shape, dtype=bool)
    return Decision(False, prediction.image_probability, nothing, None, 0, operating_point.image_threshold)


def without_small_components(mask: Mask, min_area_px: float) -> tuple[Mask, int]:
    """`mask` (H, W) bool without the 8-connected components below `min_area_px` native pixels, and the number of those that
    remain."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask).view(np.uint8), connectivity=8)
    keep = stats[:count, cv2.CC_STAT_AREA] >= max(min_area_px, 1)
    keep[0] = False  # label 0 is the background
    return (mask if keep[1:].all() else keep[labels]), int(keep.sum())


def _check(prediction: Prediction) -> None:
    p, image = prediction.probability, prediction.image_probability
    low, high = float(np.min(p)), float(np.max(p))  # NaN propagates through min and max, and fails every comparison
    if not (0.0 <= low <= high <= 1.0 and 0.0 <= image <= 1.0):
        raise Refused("non-finite-output", "The network answered with numbers that are no probabilities.")
