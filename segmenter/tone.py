"""Stored values -> the grey that a reader would see: modality LUT, then VOI LUT or window, else percentiles.

PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT). Polarity is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from segmenter.header import items, number, numbers, present, text, value
from segmenter.notes import NoteCode

_MOST_CLIPPED = 0.5  # of the film at black or white: such a window was made for other pixels
_LEAST_CONTRAST = 0.25  # of the grey scale between the 2nd and the 98th percentile
_PERCENTILES = (0.5, 99.5)
_MOST_RESCALE = 1e9
_SAMPLE = 1 << 20  # pixels that percentiles are taken from


@dataclass(frozen=True)
class LookupTable:
    """`entries` by index; `first`: the input that index 0 stands for; `bits`: of an entry."""

    entries: NDArray[np.int64]
    first: int
    bits: int

    def __call__(self, values: NDArray) -> NDArray[np.float32]:
        at = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[at].astype(np.float32)


@dataclass(frozen=True)
class Window:
    """Centre and width in output units of the modality LUT; shape as VOILUTFunction names it (C.11.2.1.2, C.11.2.1.3)."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -60, 60)
            return (1 / (1 + np.exp(exponent))).astype(np.float32)
        exact = self.function == "LINEAR_EXACT"
        centre, width = (self.centre, self.width) if exact else (self.centre - 0.5, max(self.width - 1, 1e-6))
        return np.clip((values - centre) / width + 0.5, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Tone:
    """Everything of a header that turns stored values into grey, as effective numbers: two headers that say the same in
    other words are equal."""

    slope: float
    intercept: float
    modality: LookupTable | None
    voi: LookupTable | None
    window: Window | None

    def described(self) -> bytes:
        """For the content digest: equal for equal tones."""
        tables = [
            b"-" if table is None else table.entries.tobytes() + f"{table.first},{table.bits}".encode()
            for table in (self.modality, self.voi)
        ]
        return b"|".join([f"{self.slope!r},{self.intercept!r},{self.window!r}".encode(), *tables])


AS_STORED = Tone(1.0, 0.0, None, None, None)


def tone_of(dataset: Dataset, signed: bool) -> Tone:
    """Read from the header; what is absent or senseless (slope 0, width below 1, an empty table) is left out.

    `signed`: stored values are; decides how a table's first input is read (C.11.1.1.1)."""
    slope, intercept = _slope(dataset), number(dataset, "RescaleIntercept")
    intercept = None if abs(intercept or 0) > _MOST_RESCALE else intercept
    modality = _table(dataset, "ModalityLUTSequence", signed)
    below_zero = signed if modality is None else False  # a modality LUT gives unsigned values
    below_zero = below_zero or (intercept or 0) < 0 or (slope or 0) < 0
    return Tone(slope or 1.0, intercept or 0.0, modality, _table(dataset, "VOILUTSequence", below_zero), _window(dataset))


def unread(dataset: Dataset, tone: Tone) -> tuple[NoteCode, ...]:
    """What stands in the header, and `tone_of` could make no sense of it."""
    intercept = abs(number(dataset, "RescaleIntercept") or 0) > _MOST_RESCALE
    slope = intercept or (present(dataset, "RescaleSlope") and _slope(dataset) is None)
    table = present(dataset, "ModalityLUTSequence") and tone.modality is None
    window = (present(dataset, "WindowCenter") or present(dataset, "WindowWidth")) and tone.window is None
    voi = present(dataset, "VOILUTSequence") and tone.voi is None
    rescale = (NoteCode.RESCALE_IGNORED,) if slope or table else ()
    return (*rescale, *((NoteCode.WINDOW_IGNORED,) if window or voi else ()))


def greys(
    values: NDArray, tone: Tone, film: NDArray[np.bool_] | None, inverted: bool = False
) -> tuple[NDArray[np.float32], tuple[NoteCode, ...]]:
    """(H, W) stored values of 8 or 16 bits -> (H, W) float32 [0, 1] and what was assumed. `film` (H, W) bool: pixels that are
    not padding.

    Falls back to percentiles when there is no window, or one that shows nothing: 1 film in 50 has a window for other
    pixels. Raises ValueError when all pixels of the film are equal.
    """
    # Every value that there can be, once: what follows is a table of 256 or 65,536 entries, and one look-up per pixel.
    unsigned = np.dtype(f"u{values.itemsize}")
    every = np.arange(1 << 8 * values.itemsize, dtype=unsigned).view(values.dtype)
    step = max(1, int((values.size / _SAMPLE) ** 0.5))
    thin = values[::step, ::step] if film is None else values[::step, ::step][film[::step, ::step]]
    counts = np.bincount(thin.view(unsigned).ravel(), minlength=len(every))
    table, notes = _table_of(every, counts, tone)
    table = np.float32(1) - table if inverted else table
    return np.asarray(cv2.LUT(values.view(unsigned), table[None]), np.float32), notes


def _table_of(every: NDArray, counts: NDArray[np.intp], tone: Tone) -> tuple[NDArray[np.float32], tuple[NoteCode, ...]]:
    """The grey [0, 1] of each stored value of `every`; `counts`: how often it occurs in the film's sample."""
    if tone.modality is not None:
        physical = tone.modality(every)
    else:
        physical = every.astype(np.float32) * np.float32(tone.slope) + np.float32(tone.intercept)
    there = counts > 0
    sample = _Sample(physical[there], counts[there])
    if len(sample.values) == 0 or float(sample.values.min()) == float(sample.values.max()):
        raise ValueError("all pixels are equal")
    notes: tuple[NoteCode, ...] = ()
    for shown in (tone.voi, tone.window):
        if shown is None:
            continue
        scale = float(2**shown.bits - 1) if isinstance(shown, LookupTable) else 1.0
        if _shows_something(sample, np.clip(shown(sample.values) / scale, 0, 1)):
            return np.clip(shown(physical) / np.float32(scale), 0, 1), notes
        notes = (NoteCode.WINDOW_IGNORED,)
    low, high = sample.percentiles(_PERCENTILES)
    if high <= low:  # nearly all pixels are equal: the whole range then
        low, high = float(sample.values.min()), float(sample.values.max())
    return np.clip((physical - np.float32(low)) / np.float32(high - low), 0, 1), (*notes, NoteCode.GREYS_ASSUMED)


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


def _window(dataset: Dataset) -> Window | None:
    """The first window; the others are alternatives (C.11.2.1.2)."""
    centres, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
    if not centres or not widths or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None
    senseless = widths[0] < 1 if function == "LINEAR" else widths[0] <= 0
    return None if senseless else Window(centres[0], widths[0], function)  # type: ignore[arg-type]


def _table(dataset: Dataset, keyword: str, signed: bool) -> LookupTable | None:
    """The first item of a LUT sequence. 0 entries in the descriptor mean 65,536; LUTData is US, or OW in the byte order of
    the file; 8-bit entries may lie two to a word (C.11.1.1.1, C.11.2.1.1)."""
    for item in items(dataset, keyword)[:1]:
        descriptor, data = numbers(item, "LUTDescriptor"), value(item, "LUTData")
        if len(descriptor) != 3 or data is None:
            return None
        count, first, bits = (int(d) for d in descriptor)
        count = count % 65536 or 65536
        first = first - 65536 if signed and first > 32767 else first % 65536 if not signed else first
        entries = _entries(data, count, _is_big_endian(dataset))
        if len(entries) < count or not 8 <= bits <= 16:
            return None
        return LookupTable(entries[:count], first, bits)
    return None


def _entries(data: object, count: int, big_endian: bool) -> NDArray[np.int64]:
    if isinstance(data, bytes):
        packed = len(data) < 2 * count  # 8-bit entries, two to a word
        kind = ">u2" if big_endian else "<u2"
        words = np.frombuffer(data[: len(data) // 2 * 2], kind)
        return (np.stack([words & 255, words >> 8], 1).ravel() if packed else words).astype(np.int64)
    try:
        return np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    except (TypeError, ValueError, OverflowError):
        return np.zeros(0, np.int64)


def _is_big_endian(dataset: Dataset) -> bool:
    return getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None) == ExplicitVRBigEndian
