"""Pixel Data -> stored values, whatever the transfer syntax: every size is compared with the bytes that are there before
anything is allocated, because a header may lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from segmenter.codestream import END_OF_IMAGE, frame_of
from segmenter.errors import Refused
from segmenter.gate import NotOurs, SkipCode
from segmenter.header import integer, is_uid, text
from segmenter.notes import NoteCode

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
ENCAPSULATED = {
    RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless,
    JPEG2000Lossless, JPEG2000,
}  # fmt: skip
_COLOUR_SPACES = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"}
_MOST_PIXELS_PER_BYTE = 2000  # a film with noise compresses 100-fold; a large picture in a few bytes is an attack or blank
_ALWAYS_AFFORDABLE = 1 << 24  # pixels
_GREY_TOLERANCE = 6  # of 255: chroma that lossy compression leaves on a grey film

# pydicom wraps what a plugin raises in RuntimeError; the rest comes from descriptions that it can not make sense of.
_DECODER_ERRORS = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, BufferError, OSError, struct.error,
)  # fmt: skip


Values = NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.uint16] | NDArray[np.int16]


@dataclass(frozen=True)
class Stored:
    """`values` (H, W) as PS3.3 C.7.6.3.1 defines stored values, as narrow as they are stored: (u)int8 or (u)int16;
    `monochrome1`: the lowest is shown white."""

    values: Values
    bits: int
    signed: bool
    monochrome1: bool
    notes: tuple[NoteCode, ...] = ()


def stored_values(dataset: Dataset) -> Stored:
    """Decode the one frame of a film. Raises Refused (`missing-transfer-syntax`, `unsupported-transfer-syntax`,
    `bad-pixel-description`, `truncated-pixel-data`, `absurd-size`, `undecodable-pixel-data`) and NotOurs (`colour`)."""
    syntax = _syntax(dataset)
    rows, columns, samples = (integer(dataset, k) or 0 for k in ("Rows", "Columns", "SamplesPerPixel"))
    samples = samples or 1
    allocated = integer(dataset, "BitsAllocated") or 0
    photometric = text(dataset, "PhotometricInterpretation").upper() or "MONOCHROME2"
    if rows < 1 or columns < 1 or samples not in (1, 3) or allocated not in (8, 16):
        raise Refused(
            "bad-pixel-description",
            f"Rows {rows}, Columns {columns}, SamplesPerPixel {samples}, BitsAllocated {allocated} describe no film.",
        )
    if (samples == 3) != (photometric in _COLOUR_SPACES) or (samples == 1 and "MONOCHROME" not in photometric):
        raise Refused("bad-pixel-description", f"SamplesPerPixel {samples} does not fit PhotometricInterpretation.")
    data = dataset.get_item("PixelData", keep_deferred=True).value if "PixelData" in dataset else None
    if not data:
        raise NotOurs(SkipCode.NO_PIXELS)
    if syntax in NATIVE:
        raw = _native(dataset, data, (rows, columns, samples), allocated, photometric, syntax)
    else:
        raw = _decompressed(dataset, data, (rows, columns, samples), syntax)
    notes = _assumed(dataset)
    if syntax in NATIVE and len(data) > _needed((rows, columns, samples), allocated, photometric) + 1:  # 1: padded to be even
        notes = (*notes, NoteCode.SURPLUS_PIXELS)
    if samples == 3:
        width, bits = 8 * raw.dtype.itemsize, integer(dataset, "BitsStored") or 0
        grey = _grey(raw, bits if 1 <= bits <= width else width)
        return Stored(grey, width, False, False, (*notes, NoteCode.GREY_FROM_COLOUR))
    values, bits, signed, more = _meant(dataset, raw)
    return Stored(values, bits, signed, photometric == "MONOCHROME1", (*notes, *more))


def _syntax(dataset: Dataset) -> UID:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if not syntax:
        raise Refused("missing-transfer-syntax", "The file does not say in which transfer syntax it is written.")
    if syntax not in NATIVE | ENCAPSULATED:
        name = syntax if is_uid(str(syntax)) else "(not a UID)"
        raise Refused("unsupported-transfer-syntax", f"Transfer syntax {name} is not one that is read here.")
    return UID(syntax)


def _needed(shape: tuple[int, int, int], allocated: int, photometric: str) -> int:
    """Bytes of an uncompressed frame."""
    rows, columns, samples = shape
    return rows * columns * (2 if photometric == "YBR_FULL_422" else samples) * allocated // 8


def _assumed(dataset: Dataset) -> tuple[NoteCode, ...]:
    """What the pixel description left out, although it is of type 1 (PS3.3 C.7.6.3)."""
    photometric = text(dataset, "PhotometricInterpretation").upper()
    named = photometric in _COLOUR_SPACES or photometric in ("MONOCHROME1", "MONOCHROME2")
    unsaid = (
        (NoteCode.SAMPLES_ASSUMED, not integer(dataset, "SamplesPerPixel")),
        (NoteCode.POLARITY_ASSUMED, not named),
        (NoteCode.SIGN_ASSUMED, integer(dataset, "PixelRepresentation") not in (0, 1)),
    )
    return tuple(note for note, missing in unsaid if missing)


def _native(
    dataset: Dataset, data: bytes, shape: tuple[int, int, int], allocated: int, photometric: str, syntax: UID
) -> NDArray:
    rows, columns, samples = shape
    needed = _needed(shape, allocated, photometric)
    if len(data) < needed:
        raise Refused("truncated-pixel-data", f"The pixels need {needed} bytes and only {len(data)} are there.")
    if samples == 3:
        return _by_pydicom(dataset, syntax)
    big = syntax == ExplicitVRBigEndian
    if allocated == 8 and big and dataset["PixelData"].VR == "OW":  # bytes lie swapped inside 16-bit words
        return (
            np.frombuffer(data, np.uint8, needed + needed % 2)
            .reshape(-1, 2)[:, ::-1]
            .reshape(-1)[:needed]
            .reshape(rows, columns)
        )
    kind = np.dtype(np.uint8 if allocated == 8 else ">u2" if big else "<u2")
    return np.frombuffer(data, kind, rows * columns).reshape(rows, columns)


def _decompressed(dataset: Dataset, data: bytes, shape: tuple[int, int, int], syntax: UID) -> NDArray:
    rows, columns, samples = shape
    if rows * columns > max(_ALWAYS_AFFORDABLE, len(data) * _MOST_PIXELS_PER_BYTE):
        raise Refused("absurd-size", f"{rows} x {columns} pixels are announced and only {len(data)} bytes are there.")
    try:
        stream = next(generate_frames(data, number_of_frames=1)).rstrip(b"\0")
    except (StopIteration, *_DECODER_ERRORS) as error:
        raise Refused("undecodable-pixel-data", "The pixel data is not encapsulated as it should be.") from error
    frame = frame_of(stream)
    if syntax != RLELossless:
        if frame is None:
            raise Refused("undecodable-pixel-data", "The head of the compressed stream can not be read.")
        if (frame.rows, frame.columns, frame.samples) != shape:
            raise Refused(
                "undecodable-pixel-data",
                f"The header says {rows} x {columns} x {samples}, the compressed stream {frame.rows} x {frame.columns} x "
                f"{frame.samples}.",
            )
        if END_OF_IMAGE not in stream[-64:]:  # decoders fill up with grey what is missing, and say nothing
            raise Refused("truncated-pixel-data", "The compressed stream stops before its end.")
        if syntax == JPEGExtended12Bit and frame.precision > 8:
            return _extended_12_bit(stream, shape)
        if frame.precision > (integer(dataset, "BitsStored") or 0):  # GDCM would cut the values to BitsStored
            return _by_pydicom(dataset, syntax, bits_stored=frame.precision)
    return _by_pydicom(dataset, syntax)


def _by_pydicom(dataset: Dataset, syntax: UID, **said: Any) -> NDArray:
    """Decoded by the first plugin that can; three samples come back as RGB. Signed values keep their bit pattern.
    `said`: what the stream says of itself and the header does not."""
    said |= {"number_of_frames": 1, "correct_unused_bits": False}
    try:
        array, _ = get_decoder(syntax).as_array(dataset, index=0, raw=False, **said)
    except _DECODER_ERRORS as error:
        raise Refused(
            "undecodable-pixel-data", f"No decoder reads this stream of transfer syntax {syntax} ({type(error).__name__})."
        ) from error
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "i" else array


def _extended_12_bit(stream: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """JPEG Extended of 12 bits: GDCM can, but pydicom does not let it."""
    import gdcm

    rows, columns, samples = shape
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(samples, 16, 12, 11, 0))
    text_of_bytes = image.GetBuffer()  # GDCM hands bytes over as str, and None when it can not read them
    data = (text_of_bytes or "").encode("utf-8", "surrogateescape")
    if len(data) != 2 * rows * columns * samples:
        raise Refused("undecodable-pixel-data", "The 12-bit JPEG stream can not be decoded.")
    return np.frombuffer(data, "<u2").reshape(rows, columns)


def _meant(dataset: Dataset, raw: NDArray) -> tuple[Values, int, bool, tuple[NoteCode, ...]]:
    """The bits that are the value (PS3.5 section 8.1.1): BitsStored bits up to HighBit, sign extended.

    Bits above them are dropped when the header declares an overlay there; when it does not, BitsStored is wrong, and the
    values are taken as wide as they are.
    """
    width = 8 * raw.dtype.itemsize
    bits, high = integer(dataset, "BitsStored") or 0, integer(dataset, "HighBit")
    signed = integer(dataset, "PixelRepresentation") == 1
    notes: list[NoteCode] = []
    if not 1 <= bits <= width:
        bits = width
        notes.append(NoteCode.BITS_ASSUMED)
    shift = -1 if high is None else high + 1 - bits
    if not 0 <= shift <= width - bits:
        shift = 0
        notes.append(NoteCode.HIGH_BIT_ASSUMED)
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if shift == 0 and not signed and int(raw.max()) < 1 << bits:  # nothing to cut: no pass over the film but this one
        return raw, bits, signed, tuple(notes)
    values = raw.astype(np.int32) >> shift
    inside = values & ((1 << bits) - 1)
    if bits + shift < width and not _embedded_overlay(dataset):
        negative = (1 << (width - shift)) - (1 << bits)  # the bits above, all set: a sign already extended
        above = values & negative
        consistent = above == 0
        if signed:
            consistent |= (above == negative) & (inside >> (bits - 1) == 1)
        if not consistent.all():
            inside, bits = values, width - shift
            notes.append(NoteCode.WIDER_VALUES)
    if signed:
        inside = np.where(inside >> (bits - 1) == 1, inside - (1 << bits), inside)
    return inside.astype(f"{'i' if signed else 'u'}{raw.dtype.itemsize}"), bits, signed, tuple(notes)


def _embedded_overlay(dataset: Dataset) -> bool:
    """An overlay in unused bits of the pixels (retired, PS3.3 C.9.2): a group 60xx with a bit position and no data."""
    groups = {tag >> 16 for tag in dataset.keys() if 0x6000 <= tag >> 16 <= 0x601E}  # noqa: SIM118 (iterates over elements)
    return any((group << 16 | 0x0102) in dataset and (group << 16 | 0x3000) not in dataset for group in groups)


def _grey(rgb: NDArray, bits: int) -> Values:
    """(H, W, 3) of a grey film of `bits` bits -> its middle channel. Raises NotOurs(`colour`) when channels differ visibly."""
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    limit = _GREY_TOLERANCE * (1 << bits) // 256
    if float((spread > limit).mean()) > 0.001:
        raise NotOurs(SkipCode.COLOUR)
    return np.ascontiguousarray(rgb[:, :, 1])
