"""Dataset -> `Radiograph`: the film in its native matrix, lungs dark, whatever transfer syntax, photometric interpretation
and bit depth it came in."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.gate import NotOurs, SkipCode, assumptions
from segmenter.header import integer, malformed, number, numbers, present, words
from segmenter.intensity import Intensity, intensity_of, logarithm
from segmenter.notes import NoteCode
from segmenter.photometric import negative, photometric_of, settle
from segmenter.pixels import Stored, Values, stored_values
from segmenter.shutter import shutter_of
from segmenter.tone import AS_STORED, Tone, greys, tone_of, unread
from segmenter.values import Radiograph, Spacing, Turn

_MOST_PADDING = 0.9  # of the film: such a padding value is the film's own black
_SPACING_MM = (0.01, 10.0)
_LONGEST_MM = 800.0  # no chest film is nearly as long
_DIGEST_PIXELS = 1 << 16  # at a time: they stay in the cache
_PROPORTIONS = ("PixelAspectRatio", "NominalScannedPixelSpacing", "PixelSpacing", "ImagerPixelSpacing")
_NUMBERS = (
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelSpacing", "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor", "PixelAspectRatio", "NominalScannedPixelSpacing",
)  # fmt: skip
_OPPOSITE = {"L": "R", "R": "L", "H": "F", "F": "H"}


def decode(dataset: Dataset) -> Radiograph:
    """Pixels and geometry of one film that passed the gate.

    Raises Refused when pixels cannot be read (codes in `segmenter.pixels`), NotOurs for a colour or blank picture.
    """
    stored = stored_values(dataset)
    tone, padding, raw = tone_of(dataset, stored.signed), _padding(dataset, stored), intensity_of(dataset)
    said = photometric_of(dataset, monochrome1=stored.monochrome1, intensity=raw)
    spacing, turn = spacing_of(dataset), turn_of(dataset)
    aspect = aspect_of(dataset, spacing)
    shutter, shut_notes = _shutter(dataset, stored, spacing)
    with ThreadPoolExecutor(1) as beside:  # the digest takes as long as all the rest, and needs no interpreter
        more = _more(raw, shutter)
        digest = beside.submit(_digest, stored, tone, padding, said.described(), turn, spacing or aspect, more)
        film = padded = _film(stored.values, padding)
        if shutter is not None:
            film = shutter if padded is None else padded & shutter
        values, used = stored.values, tone
        if raw is not None and raw.linear:
            values, used = logarithm(values, stored.bits, tone, raw.sign), AS_STORED
        try:
            image, shown, assumed = greys(values, used, film, said.inverted)
        except ValueError as error:
            raise NotOurs(SkipCode.BLANK) from error
        if film is not None:
            image[~film] = 0
        if used is AS_STORED:  # the logarithm is ours: viewers have the film's own values
            shown = replace(shown, tone=tone)
        settled = settle(image, film, turn, said)
        if settled.exchanged:
            image, shown = negative(image, film), shown.exchanged
    processing = (NoteCode.FOR_PROCESSING,) if raw is not None else ()
    notes = (
        *assumptions(dataset), *stored.notes, *processing, *_repaired(dataset), *unread(dataset, tone), *assumed,
        *_grey_notes(stored, padding, padded), *shut_notes, *_place_notes(dataset, spacing, turn), *settled.notes,
    )  # fmt: skip
    said_once = tuple(dict.fromkeys(notes))
    return Radiograph(image, turn, spacing, digest.result(), shown, said_once, aspect, settled.unclear)


def spacing_of(dataset: Dataset) -> Spacing | None:
    """PixelSpacing; else ImagerPixelSpacing, divided by the radiographic magnification where it is known (PS3.3 10.7.1.3,
    C.8.11.3.1.1). [0, 0] occurs, and 1 as a word for nothing: what is not between .01 and 10 mm, or makes a film of more than
    .8 m, is answered like an absent one. NominalScannedPixelSpacing never counts."""
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        found = numbers(dataset, keyword)
        if len(found) != 2:
            continue
        factor = number(dataset, "EstimatedRadiographicMagnificationFactor") if keyword == "ImagerPixelSpacing" else None
        corrected = factor is not None and 1 < factor < 4
        row, column = (v / factor for v in found) if corrected and factor else found
        sound = all(_SPACING_MM[0] <= v <= _SPACING_MM[1] for v in (row, column))
        if sound and max(rows * row, columns * column) <= _LONGEST_MM:
            return Spacing(row, column, keyword, corrected)
    return None


def aspect_of(dataset: Dataset, spacing: Spacing | None) -> tuple[int, int]:
    """Height to width of a pixel, from its spacing, else PixelAspectRatio (PS3.3 C.7.6.3.1.7), else a spacing that says
    nothing of lengths on the body: the scanner's, or one that is no chest film's; (1, 1) when none says it."""
    said = [numbers(dataset, keyword) for keyword in _PROPORTIONS]
    for tall, wide in ((spacing.row_mm, spacing.column_mm),) if spacing else (one for one in said if len(one) == 2):
        if tall > 0 and wide > 0 and 0.1 <= tall / wide <= 10:
            ratio = Fraction(tall / wide).limit_denominator(1000)
            return ratio.numerator, ratio.denominator
    return 1, 1


def turn_of(dataset: Dataset) -> Turn:
    """How to bring the film upright from PatientOrientation (PS3.3 C.7.6.1.1.1): a frontal film read face to face has rows
    towards the patient's left and columns towards the feet, L\\F. What is absent or no frontal orientation is left as it
    is."""
    return _said_turn(dataset) or Turn()


def _said_turn(dataset: Dataset) -> Turn | None:
    found = words(dataset, "PatientOrientation")
    if len(found) != 2 or not all(found):
        return None
    rows, columns = (v[0] for v in found)
    for mirror in (False, True):
        across, down = (_OPPOSITE.get(rows, "") if mirror else rows), columns
        for quarters in range(4):
            if (across, down) == ("L", "F"):
                return Turn(mirror, quarters)
            across, down = down, _OPPOSITE.get(across, "")  # np.rot90 turns counter-clockwise
    return None


def _shutter(
    dataset: Dataset, stored: Stored, spacing: Spacing | None
) -> tuple[NDArray[np.bool_] | None, tuple[NoteCode, ...]]:
    """What the display shutter leaves open; None when it shuts nothing."""
    height, width = aspect_of(dataset, spacing)
    shutter, ignored = shutter_of(dataset, stored.values.shape, height / width)  # type: ignore[arg-type]
    applied = (NoteCode.SHUTTER_APPLIED,) if shutter is not None else ()
    return shutter, (*applied, *((NoteCode.SHUTTER_IGNORED,) if ignored else ()))


def _padding(dataset: Dataset, stored: Stored) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2)."""
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(v, stored) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, stored: Stored) -> int:
    """The element may be US where pixels are signed, or SS where they are not; bits that were cut from the pixels are cut from
    it, too."""
    bits = stored.bits if NoteCode.UNUSED_BITS in stored.notes else 16
    value &= (1 << bits) - 1
    return value - (1 << bits) if stored.signed and value >> (bits - 1) else value


def _film(values: Values, padding: tuple[int, int] | None) -> NDArray[np.bool_] | None:
    """(H, W) bool, False at padding; None when there is none, or so much that the header must be wrong."""
    if padding is None:
        return None
    film = (values < padding[0]) | (values > padding[1])
    share = float(film.mean())
    return None if share == 1 or share < 1 - _MOST_PADDING else film


def _grey_notes(stored: Stored, padding: tuple[int, int] | None, film: NDArray[np.bool_] | None) -> tuple[NoteCode, ...]:
    ignored = padding is not None and film is None
    if ignored and padding:
        ignored = bool(((stored.values >= padding[0]) & (stored.values <= padding[1])).any())  # else there is none in the film
    return (NoteCode.PADDING_IGNORED,) if ignored else ()


def _repaired(dataset: Dataset) -> tuple[NoteCode, ...]:
    return (NoteCode.NUMBER_REPAIRED,) if any(malformed(dataset, keyword) for keyword in _NUMBERS) else ()


def _place_notes(dataset: Dataset, spacing: Spacing | None, turn: Turn) -> tuple[NoteCode, ...]:
    """PixelSpacing equal to ImagerPixelSpacing was not corrected for magnification (PS3.3 10.7.1.3)."""
    source = spacing.source if spacing else ""
    ignored = present(dataset, "PixelSpacing") and source != "PixelSpacing"
    ignored = ignored or (present(dataset, "ImagerPixelSpacing") and spacing is None)
    copied = source == "PixelSpacing" and numbers(dataset, "PixelSpacing") == numbers(dataset, "ImagerPixelSpacing")
    where: tuple[NoteCode, ...] = ()
    if spacing is None:
        where = (NoteCode.SPACING_UNKNOWN,)
    elif spacing.corrected or spacing.in_detector_plane or copied:
        where = (NoteCode.SPACING_DERIVED if spacing.corrected else NoteCode.DETECTOR_SPACING,)
    upright: tuple[NoteCode, ...] = (NoteCode.TURNED_UPRIGHT,) if turn != Turn() else ()
    if _said_turn(dataset) is None:
        upright = (NoteCode.UPRIGHT_ASSUMED,)
    return (*((NoteCode.SPACING_IGNORED,) if ignored else ()), *where, *upright)


def _more(raw: Intensity | None, shutter: NDArray[np.bool_] | None) -> bytes:
    """What few films have, for the content digest; empty for all others, whose digest stays what it always was."""
    shut = np.packbits(shutter).tobytes() if shutter is not None else b""
    return (f"|{raw}|".encode() if raw is not None else b"") + shut


def _digest(
    stored: Stored,
    tone: Tone,
    padding: tuple[int, int] | None,
    inverted: str,
    turn: Turn,
    pixel: Spacing | tuple[int, int],
    more: bytes,
) -> str:
    """sha256 over the stored values and all that changes what is made of them, as effective values: the same film in
    another lossless transfer syntax or VR has the same digest, a retagged one has not."""
    said = None if pixel == (1, 1) else pixel  # square pixels of unknown size say nothing
    digest = hashlib.sha256(f"1|{stored.values.shape}|{padding}|{inverted}|{turn}|{said}|".encode())
    digest.update(tone.described())
    digest.update(more)
    rows = max(1, _DIGEST_PIXELS // stored.values.shape[1])
    for top in range(0, len(stored.values), rows):
        digest.update(np.ascontiguousarray(stored.values[top : top + rows], "<i4").data)
    return digest.hexdigest()
