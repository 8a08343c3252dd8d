"""Pixel cells -> stored values: which of the bits are the value (PS3.5 section 8.1.1).

Nothing may be assumed about the bits outside BitsStored and HighBit: they are removed. But headers are wrong, too. Where the
header's layout and another one give different values, the picture decides: neighbouring pixels of a film are alike, so their
difference is small under the right layout, and a power of two under a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.header import integer
from segmenter.notes import NoteCode

StoredValues = NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.uint16] | NDArray[np.int16]

_LINES = 400  # rows, and as many columns, in which neighbours are compared
_LONGEST = 8192  # pixels of such a line; a picture that is longer is looked at so far
_ALIKE = 95  # per cent of neighbours: this percentile of their differences defines close
_CLEARLY = 2  # times as many close neighbours, for another layout than the header's
# Mean difference of neighbours in standard deviations of the picture: 1.1 for independent pixels, less than 0.1 on films.
_NOISE = 0.4
_FAR_SMOOTHER = 4  # times
_LEAST_VOTES = 1e-4  # of the neighbours that are compared


@dataclass(frozen=True)
class BitLayout:
    """Which bits of a pixel cell are the value: `bits` from bit `shift` upwards; `signed`: in two's complement."""

    shift: int
    bits: int
    signed: bool

    def values(self, cells: NDArray) -> NDArray[np.int32]:
        """The stored values of unsigned `cells` of any shape."""
        inside = (cells.astype(np.int32) >> self.shift) & ((1 << self.bits) - 1)
        return np.where(inside >> (self.bits - 1) == 1, inside - (1 << self.bits), inside) if self.signed else inside

    def loses_bits(self, cells: NDArray) -> bool:
        """Whether bits outside the value are set, and are not its sign extension."""
        below = cells & ((1 << self.shift) - 1)
        value = self.values(cells) << self.shift
        return bool(((value & ((1 << 8 * cells.dtype.itemsize) - 1)) + below != cells).any() or below.any())


def stored_values_of_cells(dataset: Dataset, cells: NDArray) -> tuple[StoredValues, int, bool, tuple[NoteCode, ...]]:
    """Stored values (H, W), their number of bits, whether they are signed, and what had to be assumed. `cells` (H, W) uint8 or
    uint16."""
    cells = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    declared, notes = _declared(dataset, 8 * cells.dtype.itemsize)
    if declared.shift == 0 and not declared.signed and int(cells.max()) < 1 << declared.bits:
        return cells, declared.bits, False, notes  # no bits to remove: one pass over the film is enough
    placed = declared if _has_embedded_overlay(dataset) else _placed(declared, cells)
    if placed.shift != declared.shift:
        notes = (*notes, NoteCode.HIGH_BIT_ASSUMED)
    chosen = placed if _has_embedded_overlay(dataset) else _closest(placed, cells)
    if chosen.signed != placed.signed:
        notes = (*notes, NoteCode.SIGN_CONFLICT)
    if chosen.bits != placed.bits:
        notes = (*notes, NoteCode.WIDER_VALUES)
    if not _has_embedded_overlay(dataset) and chosen.loses_bits(cells):
        notes = (*notes, NoteCode.UNUSED_BITS)
    kind = f"{'i' if chosen.signed else 'u'}{cells.dtype.itemsize}"
    return chosen.values(cells).astype(kind), chosen.bits, chosen.signed, notes


def _declared(dataset: Dataset, width: int) -> tuple[BitLayout, tuple[NoteCode, ...]]:
    """The header's layout, with impossible values replaced."""
    bits, high = integer(dataset, "BitsStored") or 0, integer(dataset, "HighBit")
    notes: tuple[NoteCode, ...] = ()
    if not 1 <= bits <= width:
        bits, notes = width, (NoteCode.BITS_ASSUMED,)
    shift = -1 if high is None else high + 1 - bits
    if not 0 <= shift <= width - bits:
        shift, notes = 0, (*notes, NoteCode.HIGH_BIT_ASSUMED)
    return BitLayout(shift, bits, integer(dataset, "PixelRepresentation") == 1), notes


def _placed(declared: BitLayout, cells: NDArray) -> BitLayout:
    """The same number of bits at the other end of the cell, when HighBit is certainly wrong: bits are set where it excludes the
    value, and none where it puts it."""
    width, used = 8 * cells.dtype.itemsize, int(np.bitwise_or.reduce(cells, axis=None))
    unused = (1 << (width - declared.bits)) - 1
    if declared.shift == 0 and not declared.signed and used >> declared.bits and not used & unused:
        return replace(declared, shift=width - declared.bits)
    if declared.shift and used < 1 << declared.bits and used & ((1 << declared.shift) - 1):
        return replace(declared, shift=0)
    return declared


def _closest(declared: BitLayout, cells: NDArray) -> BitLayout:
    """The layout under which neighbours are closest; the header's unless another is clearly better."""
    others = [replace(declared, signed=not declared.signed)]
    widest = 8 * cells.dtype.itemsize - declared.shift
    if int(cells.max()) >> (declared.shift + declared.bits):
        others += [replace(declared, bits=bits) for bits in range(declared.bits + 1, widest + 1)]
        others += [BitLayout(declared.shift, widest, not declared.signed)]
    cells = cells[:_LONGEST, :_LONGEST]
    steps = {one: _steps(one, cells) for one in (declared, *others)}
    ours = steps[declared]
    unlike = {one: float(steps[one].mean()) / max(float(one.values(cells[::7, ::7]).std()), 1.0) for one in steps}
    if unlike[declared] > _NOISE:  # the lowest bits of a wide value look like noise
        smoothest = min(others, key=lambda one: unlike[one])
        return smoothest if unlike[smoothest] < unlike[declared] / _FAR_SMOOTHER else declared
    agreed = np.logical_and.reduce([steps[one] == ours for one in others])
    close = max(1.0, float(np.percentile(ours[agreed], _ALIKE))) if agreed.any() else float(1 << max(declared.bits - 6, 0))
    best, most = declared, 0
    for one in others:
        differ = steps[one] != ours
        votes, against = int((differ & (steps[one] <= close)).sum()), int((differ & (ours <= close)).sum())
        if votes > max(_CLEARLY * against, _LEAST_VOTES * len(ours)) and votes - against > most:
            best, most = one, votes - against
    return best


def _steps(reading: BitLayout, cells: NDArray) -> NDArray[np.int32]:
    """The absolute differences of neighbours along some rows and columns."""
    rows, columns = (max(1, side // _LINES) for side in cells.shape)
    across, down = reading.values(cells[::rows]), reading.values(cells[:, ::columns])
    return np.concatenate([np.abs(np.diff(across, axis=1)).ravel(), np.abs(np.diff(down, axis=0)).ravel()])


def _has_embedded_overlay(dataset: Dataset) -> bool:
    """An overlay in unused bits of the pixels (retired, PS3.3 C.9.2): a group 60xx with a bit position and no data."""
    groups = {tag >> 16 for tag in dataset.keys() if 0x6000 <= tag >> 16 <= 0x601E}  # noqa: SIM118 (iterates over elements)
    return any((group << 16 | 0x0102) in dataset and (group << 16 | 0x3000) not in dataset for group in groups)
