"""The frozen values that pass from stage to stage of the segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segmenter.indeterminate import IndeterminateCode
from segmenter.notes import NoteCode
from segmenter.transformations import Rendering

Image = NDArray[np.float32]  # (H, W), [0, 1], lungs dark (the sense of MONOCHROME2)
Probability = NDArray[np.float32]  # (S, S) on the model grid, [0, 1]
Mask = NDArray[np.bool_]  # (H, W) on the native grid


@dataclass(frozen=True)
class Turn:
    """How the native matrix is brought upright for the model: first mirrored left-right, then turned.

    `mirror`: flip the columns; `quarters`: then np.rot90 by that many quarter turns (counter-clockwise). Its repr is part of
    the content digest: names of class and fields must not change.
    """

    mirror: bool = False
    quarters: int = 0


@dataclass(frozen=True)
class Spacing:
    """Distance of pixel centres in mm (of rows, of columns: PS3.3 10.7.1.3) and the element it was read from.

    `source`: "PixelSpacing", or "ImagerPixelSpacing" (at the detector); `corrected`: divided by
    EstimatedRadiographicMagnificationFactor. Its repr is part of the content digest: names of class and fields must not change.
    """

    row_mm: float
    column_mm: float
    source: str
    corrected: bool = False

    @property
    def pixel_area_mm2(self) -> float:
        """Area of one pixel."""
        return self.row_mm * self.column_mm

    @property
    def in_detector_plane(self) -> bool:
        """Whether lengths are too large by the magnification, by the element that was used."""
        return self.source == "ImagerPixelSpacing" and not self.corrected


@dataclass(frozen=True)
class Radiograph:
    """A decoded film: `image` (H, W) float32 [0, 1] in the native matrix, lungs dark."""

    image: Image
    turn: Turn
    spacing: Spacing | None
    content_sha256: str  # of stored pixel values and every element that affects decoding
    rendering: Rendering  # how the stored values became `image`
    notes: tuple[NoteCode, ...] = ()  # what was assumed, guessed or repaired; not part of the content
    aspect: tuple[int, int] = (1, 1)  # height to width of a stored pixel, of the body that it shows
    indeterminate: IndeterminateCode | None = None  # why its pixels allow no answer, whatever the network says

    @property
    def in_detector_plane(self) -> bool:
        """Whether lengths are too large by the magnification: also where PixelSpacing is a copy of ImagerPixelSpacing."""
        return NoteCode.DETECTOR_SPACING in self.notes


@dataclass(frozen=True)
class Skip:
    """Why a film is skipped: a stable code, and the sentence that an administrator reads."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Prediction:
    """The network's output for one film: `probability` (S, S) float32 [0, 1]; `image_probability` in [0, 1]."""

    probability: Probability
    image_probability: float


@dataclass(frozen=True)
class Decision:
    """Mask and image-level answer after post-processing; `mask` (H, W) bool is empty exactly when not `positive`."""

    positive: bool
    image_probability: float  # of pneumothorax, [0, 1], whatever the answer is
    mask: Mask
    area_mm2: float | None  # None when the film has no spacing, or nothing was decided about it
    components: int
    image_threshold: float  # the least `image_probability` of a positive film

    @property
    def lacks_region(self) -> bool:
        """Whether the image probability reaches its threshold although no pixel is marked."""
        return not self.positive and self.image_probability >= self.image_threshold


@dataclass(frozen=True)
class Finding:
    """The answer for one film. "done" carries a decision, "skipped" and "failed" carry a code, "indeterminate" (an
    `IndeterminateCode`) carries both: a probability, no mask, and neither yes nor no."""

    outcome: Literal["done", "indeterminate", "skipped", "failed"]
    code: str | None = None
    sentence: str | None = None
    radiograph: Radiograph | None = None
    decision: Decision | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # by stage: gate, decode, place, predict, mask

    @property
    def name(self) -> Literal["pneumothorax", "none"] | None:
        """The finding's name in reports: "pneumothorax", "none", or None for neither."""
        if self.decision is None or self.outcome == "indeterminate":
            return None
        return "pneumothorax" if self.decision.positive else "none"
