"""Dataset -> `Radiograph`: the film in its native matrix, lungs dark, whatever its transfer syntax, photometric interpretation
and bit depth."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.gate import SkipCode, SkippedFilm, gate_notes
from segmenter.film.geometry import aspect_of, geometry_notes, spacing_of, turn_of
from segmenter.film.greyscale import render, transform_notes, transform_of
from segmenter.film.header import integer, malformed
from segmenter.film.intensity import Intensity, intensity_of, logarithm
from segmenter.film.photometric import invert, photometric_of, resolve_polarity
from segmenter.film.pixels import StoredPixels, stored_values
from segmenter.film.shutter import shutter_of
from segmenter.film.stored_bits import StoredValues
from segmenter.notes import NoteCode
from segmenter.transformations import AS_STORED, GreyscaleTransform
from segmenter.values import Radiograph, Spacing, Turn

_MOST_PADDING = 0.9  # of the film: if more has the padding value, the value is the film's own black
_DIGEST_PIXELS = 1 << 16  # at a time: so many stay in the processor's cache
_NUMBERS = (
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelSpacing", "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor", "PixelAspectRatio", "NominalScannedPixelSpacing",
)  # fmt: skip


def decode(dataset: Dataset) -> Radiograph:
    """Pixels and geometry of one film that passed the gate: image (H, W) float32 in [0, 1] on the native matrix.

    Raises Refused when pixels cannot be read (codes in `segmenter.film.pixels`), SkippedFilm for a colour or blank picture.
    """
    stored = stored_values(dataset)
    transform, padding, raw = transform_of(dataset, stored.signed), _padding(dataset, stored), intensity_of(dataset)
    declared = photometric_of(dataset, monochrome1=stored.monochrome1, intensity=raw)
    spacing, turn = spacing_of(dataset), turn_of(dataset)
    aspect = aspect_of(dataset, spacing)
    shutter, shut_notes = _shutter(dataset, stored, spacing)
    with ThreadPoolExecutor(1) as beside:  # the digest takes as long as all the rest, and needs no interpreter
        more = _more(raw, shutter)
        digest = beside.submit(_digest, stored, transform, padding, declared.digest_part(), turn, spacing or aspect, more)
        film = padded = _film(stored.values, padding)
        if shutter is not None:
            film = shutter if padded is None else padded & shutter
        values, used = stored.values, transform
        if raw is not None and raw.linear:
            values, used = logarithm(values, stored.bits, transform, raw.sign), AS_STORED
        try:
            image, rendering, assumed = render(values, used, film, declared.inverted)
        except ValueError as error:
            raise SkippedFilm(SkipCode.BLANK) from error
        if film is not None:
            image[~film] = 0
        if used is AS_STORED:  # the logarithm is made here: viewers have the film's own values
            rendering = replace(rendering, transform=transform)
        polarity = resolve_polarity(image, film, turn, declared)
        if polarity.exchanged:
            image, rendering = invert(image, film), rendering.inverse
    processing = (NoteCode.FOR_PROCESSING,) if raw is not None else ()
    notes = (
        *gate_notes(dataset), *stored.notes, *processing, *_repaired(dataset), *transform_notes(dataset, transform), *assumed,
        *_grey_notes(stored, padding, padded), *shut_notes, *geometry_notes(dataset, spacing, turn), *polarity.notes,
    )  # fmt: skip
    distinct = tuple(dict.fromkeys(notes))
    return Radiograph(image, turn, spacing, digest.result(), rendering, distinct, aspect, polarity.unclear)


def _shutter(
    dataset: Dataset, stored: StoredPixels, spacing: Spacing | None
) -> tuple[NDArray[np.bool_] | None, tuple[NoteCode, ...]]:
    """The open part of the display shutter (H, W), None when all is open, and the notes about it."""
    height, width = aspect_of(dataset, spacing)
    shutter, ignored = shutter_of(dataset, stored.values.shape, height / width)  # type: ignore[arg-type]
    applied = (NoteCode.SHUTTER_APPLIED,) if shutter is not None else ()
    return shutter, (*applied, *((NoteCode.SHUTTER_IGNORED,) if ignored else ()))


def _padding(dataset: Dataset, stored: StoredPixels) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2)."""
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(v, stored) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, stored: StoredPixels) -> int:
    """The padding value as a stored value. Its element may be US where pixels are signed, or SS where they are not; bits that
    were removed from the pixels are removed from it, too."""
    bits = stored.bits if NoteCode.UNUSED_BITS in stored.notes else 16
    value &= (1 << bits) - 1
    return value - (1 << bits) if stored.signed and value >> (bits - 1) else value


def _film(values: StoredValues, padding: tuple[int, int] | None) -> NDArray[np.bool_] | None:
    """(H, W) bool, False at padding; None when there is no padding, or so much that the header must be wrong."""
    if padding is None:
        return None
    film = (values < padding[0]) | (values > padding[1])
    share = float(film.mean())
    return None if share == 1 or share < 1 - _MOST_PADDING else film


def _grey_notes(stored: StoredPixels, padding: tuple[int, int] | None, film: NDArray[np.bool_] | None) -> tuple[NoteCode, ...]:
    ignored = padding is not None and film is None
    if ignored and padding:
        ignored = bool(((stored.values >= padding[0]) & (stored.values <= padding[1])).any())  # else the film has no padding
    return (NoteCode.PADDING_IGNORED,) if ignored else ()


def _repaired(dataset: Dataset) -> tuple[NoteCode, ...]:
    return (NoteCode.NUMBER_REPAIRED,) if any(malformed(dataset, keyword) for keyword in _NUMBERS) else ()


def _more(raw: Intensity | None, shutter: NDArray[np.bool_] | None) -> bytes:
    """The part of the content digest that few films have; empty for the others, whose digest thus stays as in earlier
    versions."""
    shut = np.packbits(shutter).tobytes() if shutter is not None else b""
    return (f"|{raw}|".encode() if raw is not None else b"") + shut


def _digest(
    stored: StoredPixels,
    transform: GreyscaleTransform,
    padding: tuple[int, int] | None,
    inverted: str,
    turn: Turn,
    pixel: Spacing | tuple[int, int],
    more: bytes,
) -> str:
    """sha256 of the stored values and of all that affects decoding, as effective values: the same film in another lossless
    transfer syntax or VR has the same digest, a film with changed elements has another. The reprs of `Turn`, `Spacing`,
    `Window` and `Intensity` are part of it: renaming these classes or their fields would change every digest."""
    pixel_size = None if pixel == (1, 1) else pixel  # square pixels of unknown size add nothing
    digest = hashlib.sha256(f"1|{stored.values.shape}|{padding}|{inverted}|{turn}|{pixel_size}|".encode())
    digest.update(transform.digest_part())
    digest.update(more)
    rows = max(1, _DIGEST_PIXELS // stored.values.shape[1])
    for top in range(0, len(stored.values), rows):
        digest.update(np.ascontiguousarray(stored.values[top : top + rows], "<i4").data)
    return digest.hexdigest()
