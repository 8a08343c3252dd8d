"""Stored values -> the grey that a reader would see: modality LUT, then VOI LUT or window, else percentiles.

PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT). Polarity is not decided here.
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

_MOST_CLIPPED = 0.5  # of the film at black or white: such a window was made for other pixels
_LEAST_CONTRAST = 0.25  # of the grey scale between the 2nd and the 98th percentile
_PERCENTILES = (0.5, 99.5)
_MOST_RESCALE = 1e9
_SAMPLE = 1 << 20  # pixels that percentiles are taken from


def transform_of(dataset: Dataset, signed: bool) -> GreyscaleTransform:
    """Read from the header; what is absent or senseless (slope 0, width 0, an empty table) is left out.

    `signed`: stored values are; decides how a table's first input is read (C.11.1.1.1)."""
    slope, intercept = _slope(dataset), number(dataset, "RescaleIntercept")
    intercept = None if abs(intercept or 0) > _MOST_RESCALE else intercept
    modality = _table(dataset, "ModalityLUTSequence", signed)
    below_zero = signed if modality is None else False  # a modality LUT gives unsigned values
    below_zero = below_zero or (intercept or 0) < 0 or (slope or 0) < 0
    return GreyscaleTransform(
        slope or _sign(dataset), intercept or 0.0, modality, _table(dataset, "VOILUTSequence", below_zero), _window(dataset)
    )


def transform_notes(dataset: Dataset, tone: GreyscaleTransform) -> tuple[NoteCode, ...]:
    """What stands in the header, and `tone_of` could make no sense of it, or not without mending it."""
    intercept = abs(number(dataset, "RescaleIntercept") or 0) > _MOST_RESCALE
    slope = intercept or (has_value(dataset, "RescaleSlope") and _slope(dataset) is None)
    table = has_value(dataset, "ModalityLUTSequence") and tone.modality is None
    window = (has_value(dataset, "WindowCenter") or has_value(dataset, "WindowWidth")) and tone.window is None
    voi = has_value(dataset, "VOILUTSequence") and tone.voi is None
    repaired = any(one is not None and one.repaired for one in (tone.modality, tone.voi))
    return (
        *((NoteCode.TABLE_REPAIRED,) if repaired else ()),
        *((NoteCode.RESCALE_IGNORED,) if slope or table else ()),
        *((NoteCode.WINDOW_IGNORED,) if window or voi else ()),
    )


def render(
    values: NDArray, tone: GreyscaleTransform, film: NDArray[np.bool_] | None, inverted: bool = False
) -> tuple[NDArray[np.float32], Rendering, tuple[NoteCode, ...]]:
    """(H, W) stored values of 8 or 16 bits -> (H, W) float32 [0, 1], how they became so, and what was assumed. `film` (H, W)
    bool: pixels that are not padding.

    Falls back to percentiles when there is no window, or one that shows nothing: 1 film in 50 has a window for other
    pixels. Raises ValueError when all pixels of the film are equal.
    """
    # Every value that there can be, once: what follows is a table of 256 or 65,536 entries, and one look-up per pixel.
    unsigned = np.dtype(f"u{values.itemsize}")
    every = np.arange(1 << 8 * values.itemsize, dtype=unsigned).view(values.dtype)
    step = max(1, int((values.size / _SAMPLE) ** 0.5))
    thin = values[::step, ::step] if film is None else values[::step, ::step][film[::step, ::step]]
    counts = np.bincount(thin.view(unsigned).ravel(), minlength=len(every))
    shown, notes = _shown(every, counts, tone)
    shown = shown.inverse if inverted else shown
    table = _grey(shown, every)
    return np.asarray(cv2.LUT(values.view(unsigned), table[None]), np.float32), shown, notes


def _shown(every: NDArray, counts: NDArray[np.intp], tone: GreyscaleTransform) -> tuple[Rendering, tuple[NoteCode, ...]]:
    """What of the tone shows something of this film. `counts`: how often each of `every` occurs in the film's sample."""
    there = counts > 0
    tone, falls, notes = _fitting(every[there], tone)
    sample = _Sample(_physical(every[there], tone), counts[there])
    if len(sample.values) == 0 or float(sample.values.min()) == float(sample.values.max()):
        raise ValueError("all pixels are equal")
    table, window = replace(tone, window=None), replace(tone, voi=None)
    for alike in ((table,) if table.voi else (), (window, _exact(window)) if window.window else ()):
        for one in alike:
            if _shows_something(sample, _displayed(one, sample.values)):
                return Rendering(one, falls), notes
        notes = (*notes, NoteCode.WINDOW_IGNORED) if alike else notes
    falls ^= tone.voi is not None and tone.voi.is_falling  # the polarity that a table carries outlives it
    low, high = sample.percentiles(_PERCENTILES)
    if high <= low:  # nearly all pixels are equal: the whole range then
        low, high = float(sample.values.min()), float(sample.values.max())
    made_up = Window((low + high) / 2, high - low, "LINEAR_EXACT")
    return Rendering(replace(tone, voi=None, window=made_up), falls), (*notes, NoteCode.GREYS_ASSUMED)


def _exact(tone: GreyscaleTransform) -> GreyscaleTransform:
    """A window that shows nothing as LINEAR may have been meant as LINEAR_EXACT: 0.5, 1 over values of 0 to 1."""
    is_linear = tone.window is not None and tone.window.function == "LINEAR"
    return replace(tone, window=replace(tone.window, function="LINEAR_EXACT")) if is_linear else tone  # type: ignore[type-var]


def _fitting(values: NDArray, tone: GreyscaleTransform) -> tuple[GreyscaleTransform, bool, tuple[NoteCode, ...]]:
    """The tone without a modality LUT that makes all of the film equal, because it was made for other pixels; and whether that
    would have exchanged black and white."""
    without = replace(tone, modality=None)
    if tone.modality is None or np.ptp(_physical(values, tone)) > 0 or np.ptp(_physical(values, without)) == 0:
        return tone, False, ()
    return without, tone.modality.is_falling, (NoteCode.RESCALE_IGNORED,)


def _grey(shown: Rendering, values: NDArray) -> NDArray[np.float32]:
    """Stored values -> [0, 1]."""
    grey = _displayed(shown.transform, _physical(values, shown.transform))
    return np.float32(1) - grey if shown.inverted else grey


def _physical(values: NDArray, tone: GreyscaleTransform) -> NDArray[np.float32]:
    """Stored values -> output values of the modality LUT."""
    if tone.modality is not None:
        return tone.modality(values)
    return values.astype(np.float32) * np.float32(tone.slope) + np.float32(tone.intercept)


def _displayed(tone: GreyscaleTransform, physical: NDArray[np.float32]) -> NDArray[np.float32]:
    """Output values of the modality LUT -> [0, 1]."""
    if tone.voi is not None:
        return np.clip(tone.voi(physical) / np.float32(2**tone.voi.bits - 1), 0, 1)
    return tone.window(physical) if tone.window is not None else physical


@dataclass(frozen=True)
class _Sample:
    """Pixels by what they hold: `values` (K,) float32, and how often each occurs, `counts` (K,)."""

    values: NDArray[np.float32]
    counts: NDArray[np.intp]

    def percentiles(self, wanted: tuple[float, float]) -> tuple[float, float]:
        """What np.percentile says of the pixels, to the bit."""
        order = np.argsort(self.values, kind="stable")
        ends = np.cumsum(self.counts[order])
        place = (ends[-1] - 1) * (np.asarray(wanted) / 100)
        before = np.floor(place)
        at = np.searchsorted(ends, [before, np.minimum(before + 1, ends[-1] - 1)], side="right")
        a, b = self.values[order][at]
        share, width = place - before, b - a
        low, high = np.where(share < 0.5, a + width * share, b - width * (1 - share))
        return float(low), float(high)


def _shows_something(sample: _Sample, shown: NDArray[np.float32]) -> bool:
    """Not too much is clipped, and there is contrast. Pixels that are the film's own black or white lose nothing. `shown`: the
    sample's values in this window."""
    inside = (sample.values > sample.values.min()) & (sample.values < sample.values.max())
    clipped = sample.counts[inside & ((shown <= 0) | (shown >= 1))].sum() / sample.counts.sum()
    low, high = _Sample(shown, sample.counts).percentiles((2, 98))
    return bool(clipped <= _MOST_CLIPPED and high - low >= _LEAST_CONTRAST)


def _slope(dataset: Dataset) -> float | None:
    """None when it is absent, zero or would leave nothing of float32."""
    found = number(dataset, "RescaleSlope")
    return found if found is not None and 1 / _MOST_RESCALE < abs(found) < _MOST_RESCALE else None


def _sign(dataset: Dataset) -> float:
    """Of a slope that is not used: the polarity that it carries is."""
    return -1.0 if (number(dataset, "RescaleSlope") or 0) < 0 else 1.0


def _window(dataset: Dataset) -> Window | None:
    """The first pair that is one; the others are alternatives (C.11.2.1.2). A function of another name is taken as LINEAR, as
    an absent one is."""
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
