"""Stored values -> the grey that a reader would see: modality LUT (PS3.3 C.11.1), then VOI LUT or window (PS3.3 C.11.2), else
percentiles. Polarity is decided elsewhere (`photometric.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from segmenter.film.header import has_value, items, number, numbers_or_gaps, words
from segmenter.film.lookup import first_table
from segmenter.notes import NoteCode
from segmenter.transformations import GreyscaleTransform, LookupTable, Rendering, Window

_MOST_CLIPPED = 0.5  # of the film at black or white: a window that clips more was made for other pixels
_LEAST_CONTRAST = 0.25  # of the grey scale between the 2nd and the 98th percentile
_PERCENTILES = (0.5, 99.5)
_MOST_RESCALE = 1e9
_SAMPLE = 1 << 20  # pixels from which percentiles are taken


def transform_of(dataset: Dataset, signed: bool) -> GreyscaleTransform:
    """The greyscale transformations of the header; absent or invalid ones (slope 0, width 0, an empty table) are left out.

    `signed`: whether stored values are; decides how a table's first input is read (PS3.3 C.11.1.1.1). Never raises."""
    slope, intercept = _slope(dataset), number(dataset, "RescaleIntercept")
    intercept = None if abs(intercept or 0) > _MOST_RESCALE else intercept
    modality = _table(dataset, "ModalityLUTSequence", signed)
    below_zero = signed if modality is None else False  # a modality LUT gives unsigned values
    below_zero = below_zero or (intercept or 0) < 0 or (slope or 0) < 0
    return GreyscaleTransform(
        slope or _sign(dataset), intercept or 0.0, modality, _table(dataset, "VOILUTSequence", below_zero), _window(dataset)
    )


def transform_notes(dataset: Dataset, transform: GreyscaleTransform) -> tuple[NoteCode, ...]:
    """Notes for what the header contains and `transform_of` could not use, or had to repair."""
    intercept = abs(number(dataset, "RescaleIntercept") or 0) > _MOST_RESCALE
    slope = intercept or (has_value(dataset, "RescaleSlope") and _slope(dataset) is None)
    table = has_value(dataset, "ModalityLUTSequence") and transform.modality is None
    window = (has_value(dataset, "WindowCenter") or has_value(dataset, "WindowWidth")) and transform.window is None
    voi = has_value(dataset, "VOILUTSequence") and transform.voi is None
    repaired = any(one is not None and one.repaired for one in (transform.modality, transform.voi))
    return (
        *((NoteCode.TABLE_REPAIRED,) if repaired else ()),
        *((NoteCode.RESCALE_IGNORED,) if slope or table else ()),
        *((NoteCode.WINDOW_IGNORED,) if window or voi else ()),
    )


def render(
    values: NDArray, transform: GreyscaleTransform, film: NDArray[np.bool_] | None, inverted: bool = False
) -> tuple[NDArray[np.float32], Rendering, tuple[NoteCode, ...]]:
    """(H, W) stored values of 8 or 16 bits -> (H, W) float32 [0, 1], the transform that was used, and what was assumed. `film`
    (H, W) bool: pixels that are not padding; `inverted`: exchange black and white.

    The percentiles 0.5 and 99.5 are the window when there is none, or one that shows nothing: 1 film in 50 has a window made
    for other pixels. Raises ValueError when all pixels of the film are equal.
    """
    # Every possible value, once: this gives a table of 256 or 65,536 entries, and one look-up per pixel.
    unsigned = np.dtype(f"u{values.itemsize}")
    every = np.arange(1 << 8 * values.itemsize, dtype=unsigned).view(values.dtype)
    step = max(1, int((values.size / _SAMPLE) ** 0.5))
    thin = values[::step, ::step] if film is None else values[::step, ::step][film[::step, ::step]]
    counts = np.bincount(thin.view(unsigned).ravel(), minlength=len(every))
    rendering, notes = _rendering(every, counts, transform)
    rendering = rendering.inverse if inverted else rendering
    table = _grey(rendering, every)
    return np.asarray(cv2.LUT(values.view(unsigned), table[None]), np.float32), rendering, notes


def _rendering(
    every: NDArray, counts: NDArray[np.intp], transform: GreyscaleTransform
) -> tuple[Rendering, tuple[NoteCode, ...]]:
    """The part of the transform that shows this film well. `counts`: how often each of `every` occurs in the film's sample."""
    there = counts > 0
    transform, falls, notes = _fitting(every[there], transform)
    sample = _Sample(_physical(every[there], transform), counts[there])
    if len(sample.values) == 0 or float(sample.values.min()) == float(sample.values.max()):
        raise ValueError("all pixels are equal")
    table, window = replace(transform, window=None), replace(transform, voi=None)
    for alike in ((table,) if table.voi else (), (window, _exact(window)) if window.window else ()):
        for one in alike:
            if _shows_something(sample, _displayed(one, sample.values)):
                return Rendering(one, falls), notes
        notes = (*notes, NoteCode.WINDOW_IGNORED) if alike else notes
    falls ^= transform.voi is not None and transform.voi.is_falling  # an unused table still inverts
    low, high = sample.percentiles(_PERCENTILES)
    if high <= low:  # nearly all pixels are equal: the whole range
        low, high = float(sample.values.min()), float(sample.values.max())
    made_up = Window((low + high) / 2, high - low, "LINEAR_EXACT")
    return Rendering(replace(transform, voi=None, window=made_up), falls), (*notes, NoteCode.GREYS_ASSUMED)


def _exact(transform: GreyscaleTransform) -> GreyscaleTransform:
    """A window that shows nothing as LINEAR may have been meant as LINEAR_EXACT: 0.5, 1 over values of 0 to 1."""
    window = transform.window
    if window is None or window.function != "LINEAR":
        return transform
    return replace(transform, window=replace(window, function="LINEAR_EXACT"))


def _fitting(values: NDArray, transform: GreyscaleTransform) -> tuple[GreyscaleTransform, bool, tuple[NoteCode, ...]]:
    """The transform without a modality LUT that makes all pixels equal because it was made for other pixels; and whether that
    LUT exchanges black and white."""
    without = replace(transform, modality=None)
    if transform.modality is None or np.ptp(_physical(values, transform)) > 0 or np.ptp(_physical(values, without)) == 0:
        return transform, False, ()
    return without, transform.modality.is_falling, (NoteCode.RESCALE_IGNORED,)


def _grey(rendering: Rendering, values: NDArray) -> NDArray[np.float32]:
    """Stored values -> [0, 1]."""
    grey = _displayed(rendering.transform, _physical(values, rendering.transform))
    return np.float32(1) - grey if rendering.inverted else grey


def _physical(values: NDArray, transform: GreyscaleTransform) -> NDArray[np.float32]:
    """Stored values -> output values of the modality LUT."""
    if transform.modality is not None:
        return transform.modality(values)
    return values.astype(np.float32) * np.float32(transform.slope) + np.float32(transform.intercept)


def _displayed(transform: GreyscaleTransform, physical: NDArray[np.float32]) -> NDArray[np.float32]:
    """Output values of the modality LUT -> [0, 1]."""
    if transform.voi is not None:
        return np.clip(transform.voi(physical) / np.float32(2**transform.voi.bits - 1), 0, 1)
    return transform.window(physical) if transform.window is not None else physical


@dataclass(frozen=True)
class _Sample:
    """A histogram of pixels: distinct `values` (K,) float32, and how often each occurs, `counts` (K,)."""

    values: NDArray[np.float32]
    counts: NDArray[np.intp]

    def percentiles(self, wanted: tuple[float, float]) -> tuple[float, float]:
        """The percentiles of the pixels, bit for bit as np.percentile gives them."""
        order = np.argsort(self.values, kind="stable")
        ends = np.cumsum(self.counts[order])
        place = (ends[-1] - 1) * (np.asarray(wanted) / 100)
        before = np.floor(place)
        at = np.searchsorted(ends, [before, np.minimum(before + 1, ends[-1] - 1)], side="right")
        a, b = self.values[order][at]
        share, width = place - before, b - a
        low, high = np.where(share < 0.5, a + width * share, b - width * (1 - share))
        return float(low), float(high)


def _shows_something(sample: _Sample, rendering: NDArray[np.float32]) -> bool:
    """Whether little is clipped and there is contrast. The film's own darkest and brightest pixels do not count as clipped.
    `rendering`: the sample's values in this window, [0, 1]."""
    inside = (sample.values > sample.values.min()) & (sample.values < sample.values.max())
    clipped = sample.counts[inside & ((rendering <= 0) | (rendering >= 1))].sum() / sample.counts.sum()
    low, high = _Sample(rendering, sample.counts).percentiles((2, 98))
    return bool(clipped <= _MOST_CLIPPED and high - low >= _LEAST_CONTRAST)


def _slope(dataset: Dataset) -> float | None:
    """None when it is absent, zero or beyond the precision of float32."""
    found = number(dataset, "RescaleSlope")
    return found if found is not None and 1 / _MOST_RESCALE < abs(found) < _MOST_RESCALE else None


def _sign(dataset: Dataset) -> float:
    """The sign of an unused slope: a negative one still inverts."""
    return -1.0 if (number(dataset, "RescaleSlope") or 0) < 0 else 1.0


def _window(dataset: Dataset) -> Window | None:
    """The first valid pair; the others are alternatives (PS3.3 C.11.2.1.2). Any other VOILUTFunction than LINEAR_EXACT and
    SIGMOID is taken as LINEAR, as an absent one is."""
    named = next(iter(words(dataset, "VOILUTFunction")), "").replace(" ", "_")
    function = named if named in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    pairs = zip(numbers_or_gaps(dataset, "WindowCenter"), numbers_or_gaps(dataset, "WindowWidth"), strict=False)
    for centre, width in pairs:
        if centre is not None and width is not None and width > 0:
            return Window(centre, width, function)  # type: ignore[arg-type]
    return None


def _table(dataset: Dataset, keyword: str, signed: bool) -> LookupTable | None:
    big_endian = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None) == ExplicitVRBigEndian
    return first_table(items(dataset, keyword), "LUTDescriptor", "LUTData", signed=signed, big_endian=big_endian)
