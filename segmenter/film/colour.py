"""Three samples per pixel, or a palette, -> the grey film that they hold. Whether a film is grey is decided by its pixels, not
by PhotometricInterpretation (PS3.3 C.7.6.3.1.2), which is often wrong in JPEG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space

from segmenter.film.gate import SkipCode, SkippedFilm
from segmenter.film.lookup import first_table
from segmenter.transformations import LookupTable

COLOUR_SPACES = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"}
PALETTE = "PALETTE COLOR"
_TOLERANCE = 6  # of 256: chroma that lossy compression leaves on a grey film
_MOST_COLOURED = 0.001  # of the pixels
_SAMPLE = 1 << 18  # pixels by which two arrangements are compared


def grey_channel(readings: Iterable[NDArray], bits: int) -> NDArray:
    """(H, W) of the first reading (H, W, 3) of `bits` bits that is grey: its middle channel where all three are equal, its
    first where the other two are constant (luminance and constant chroma). Raises SkippedFilm (`colour`) when none is grey."""
    limit = _TOLERANCE * (1 << bits) // 256
    for reading in readings:
        if float((_spread(reading) > limit).mean()) <= _MOST_COLOURED:
            return np.ascontiguousarray(reading[:, :, 1])
        if _is_mild(reading, bits) and float((_chroma(reading) > limit).mean()) <= _MOST_COLOURED:
            return np.ascontiguousarray(reading[:, :, 0])
    raise SkippedFilm(SkipCode.COLOUR)


def colour_spaces(samples: NDArray, photometric: str) -> Iterator[NDArray]:
    """(H, W, 3) uncompressed samples: converted by PhotometricInterpretation, then as they are."""
    if photometric.startswith("YBR_FULL") and samples.dtype == np.uint8:
        yield convert_color_space(samples, "YBR_FULL", "RGB")
    yield samples


def by_planar_configuration(flat: NDArray, rows: int, columns: int, planar: int | None) -> tuple[NDArray, int]:
    """The samples of a frame (3 * rows * columns,) as (H, W, 3), and the PlanarConfiguration (PS3.3 C.7.6.3.1.3) by which they
    were arranged: the one that gives a grey film; the header's `planar` (None: absent) where both do, or neither."""
    both = flat.reshape(rows, columns, 3), flat.reshape(3, rows, columns).transpose(1, 2, 0)
    declared = planar if planar in (0, 1) else 0
    step = max(1, int((rows * columns / _SAMPLE) ** 0.5))
    uneven = [_unevenness(one[::step, ::step]) for one in both]
    chosen = declared if uneven[declared] <= 2 * uneven[1 - declared] else 1 - declared
    return both[chosen], chosen


def from_palette(dataset: Dataset, values: NDArray) -> tuple[NDArray, int]:
    """(H, W) indices -> (H, W) uint8 or uint16 grey and its bits, by the three palettes (PS3.3 C.7.9). Raises SkippedFilm
    (`colour`) when they are not grey."""
    tables: list[LookupTable] = []
    for name in ("Red", "Green", "Blue"):
        table = first_table(
            [dataset], f"{name}PaletteColorLookupTableDescriptor", f"{name}PaletteColorLookupTableData", signed=False
        )
        if table is None:
            raise SkippedFilm(SkipCode.COLOUR)
        tables.append(table)
    bits = max(table.bits for table in tables)
    every = np.arange(int(values.min()), int(values.max()) + 1)
    kind = np.uint8 if bits <= 8 else np.uint16
    greys = np.stack([table(every) for table in tables], -1).astype(kind)[values.astype(np.int32) - every[0]]
    return grey_channel([greys], bits), bits


def _spread(reading: NDArray) -> NDArray:
    return np.asarray(reading.max(axis=2) - reading.min(axis=2))


def _chroma(reading: NDArray) -> NDArray:
    """(H, W): the difference of the second and third channel from their medians."""
    middle = np.median(reading[::4, ::4, 1:], axis=(0, 1)).astype(np.int32)
    return np.asarray(np.abs(reading[:, :, 1:].astype(np.int32) - middle).max(axis=2))


def _is_mild(reading: NDArray, bits: int) -> bool:
    """Whether the second and third channel lie in the middle half of the range, as chroma does."""
    middle = np.median(reading[::4, ::4, 1:], axis=(0, 1)) / (1 << bits)
    return bool((np.abs(middle - 0.5) <= 0.25).all())


def _unevenness(reading: NDArray) -> float:
    return float(min(_spread(reading).mean(), _chroma(reading).mean()))
