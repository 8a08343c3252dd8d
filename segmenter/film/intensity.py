"""Films that are not processed for display (PS3.3 C.8.11.1, Presentation Intent Type FOR PROCESSING): what their pixel values
mean (PS3.3 C.8.11.3, Pixel Intensity Relationship), and how they become grey."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.header import integer, normalised, text, words
from segmenter.transformations import GreyscaleTransform

DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_RAW = {"FOR PROCESSING", "RAW", "RAW DATA", "UNPROCESSED", "FORPROCESSING"}
_SAID_RAW = re.compile(r"\bFOR ?-?PROCESSING\b|\bRAW (?:DATA|IMAGE)\b|\bUNPROCESSED\b|ROHBILD|ROHDATEN|未処理|未处理")
_SAMPLE = 1 << 20  # pixels among which the brightest is sought
_DECADES = 3.5  # of intensity behind a patient, from open beam to the densest shadow that a detector tells from noise


@dataclass(frozen=True)
class Intensity:
    """PixelIntensityRelationship and its sign (PS3.3 C.8.11.3). `linear`: values are proportional to the intensity of the
    X-rays (LIN), not to its logarithm; `sign`: 1 when higher values mean more intensity, -1 when less, None when unknown.

    Its repr is part of the content digest: the names of class and fields must not change.
    """

    linear: bool
    sign: int | None

    @property
    def inverted(self) -> bool | None:
        """Whether the highest value is shown black: more intensity means less tissue. None when the sign is unknown."""
        return None if self.sign is None else self.sign == 1


def is_for_processing(dataset: Dataset) -> bool:
    """Whether a film is not processed for display, whatever its SOP class: CR and Secondary Capture declare it in ImageType, in
    PresentationIntentType (PS3.3 C.8.11.1) or in a description."""
    intent = normalised(text(dataset, "PresentationIntentType"))
    if text(dataset, "SOPClassUID") == DX_FOR_PROCESSING or intent == "FOR PROCESSING":
        return True
    if {normalised(kind) for kind in words(dataset, "ImageType")} & _RAW:
        return True
    said = (text(dataset, keyword) for keyword in ("SeriesDescription", "AcquisitionDeviceProcessingDescription"))
    return any(_SAID_RAW.search(normalised(one)) for one in said)


def intensity_of(dataset: Dataset) -> Intensity | None:
    """None for a film that is processed for display, whatever its PixelIntensityRelationship: its window fits its values."""
    if not is_for_processing(dataset):
        return None
    sign = integer(dataset, "PixelIntensityRelationshipSign")
    return Intensity(text(dataset, "PixelIntensityRelationship").upper() == "LIN", sign if sign in (1, -1) else None)


def logarithm(values: NDArray, bits: int, transform: GreyscaleTransform, sign: int | None) -> NDArray[np.uint16]:
    """(H, W) values proportional to intensity -> (H, W) uint16, their logarithm over `_DECADES` below the brightest, in the
    same order. `transform`: its slope and intercept are applied. With `sign` -1 the intensity counts down from the highest
    value of `bits`."""
    counted = np.float32((1 << bits) - 1) - values.astype(np.float32) if sign == -1 else values.astype(np.float32)
    physical = counted * np.float32(transform.slope) + np.float32(transform.intercept)
    step = max(1, int((values.size / _SAMPLE) ** 0.5))
    brightest = max(float(np.percentile(physical[::step, ::step], 99.9)), 1e-6)
    decades = np.log10(np.maximum(physical / np.float32(brightest), np.float32(10.0**-_DECADES)))
    grey = np.clip(decades / _DECADES + 1, 0, 1)
    return np.asarray(np.rint((1 - grey if sign == -1 else grey) * 65535), np.uint16)
