"""Pixel Data -> stored values, whatever the transfer syntax: every size is compared with the bytes that are there before
anything is allocated, because a header may lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
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

from segmenter.errors import Refused
from segmenter.film.codestream import Codestream, is_codestream, read_codestream
from segmenter.film.colour import COLOUR_SPACES, PALETTE, by_planar_configuration, colour_spaces, from_palette, grey_channel
from segmenter.film.decompress import decompress
from segmenter.film.encapsulated import ITEM, fragments
from segmenter.film.gate import SkipCode, SkippedFilm
from segmenter.film.header import integer, is_uid, text
from segmenter.film.stored_bits import StoredValues, stored_values_of_cells
from segmenter.notes import NoteCode

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
ENCAPSULATED = {
    RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless,
    JPEG2000Lossless, JPEG2000,
}  # fmt: skip
_MOST_PIXELS_PER_BYTE = 2000  # a film with noise compresses 100-fold; a large picture in a few bytes is an attack or blank
_ALWAYS_AFFORDABLE = 1 << 24  # pixels
_UNDEFINED = 0xFFFFFFFF  # length


@dataclass(frozen=True)
class StoredPixels:
    """`values` (H, W) as PS3.3 C.7.6.3.1 defines stored values, as narrow as they are stored: (u)int8 or (u)int16;
    `monochrome1`: the lowest is shown white."""

    values: StoredValues
    bits: int
    signed: bool
    monochrome1: bool
    notes: tuple[NoteCode, ...] = ()


@dataclass(frozen=True)
class _Description:
    """The Image Pixel module (PS3.3 C.7.6.3). `bits` 0, `planar` None: the header says nothing that can be."""

    rows: int
    columns: int
    samples: int
    allocated: int
    bits: int
    signed: bool
    photometric: str
    planar: int | None
    notes: tuple[NoteCode, ...]

    @property
    def cells(self) -> int:
        """Of an uncompressed frame."""
        return self.rows * self.columns * (2 if self.photometric == "YBR_FULL_422" else self.samples)

    @property
    def needed(self) -> int:
        """Bytes of an uncompressed frame."""
        return self.cells * self.allocated // 8


def stored_values(dataset: Dataset) -> StoredPixels:
    """Decode the one frame of a film. Raises Refused (`missing-transfer-syntax`, `unsupported-transfer-syntax`,
    `bad-pixel-description`, `truncated-pixel-data`, `absurd-size`, `undecodable-pixel-data`) and NotOurs (`colour`)."""
    syntax, said = _syntax(dataset), _description(dataset)
    element = dataset.get_item("PixelData", keep_deferred=True) if "PixelData" in dataset else None
    if element is None or not element.value:
        raise SkippedFilm(SkipCode.NO_PIXELS)
    found = _found(element, syntax, said)
    if isinstance(found, Codestream):
        said = _as_in_stream(said, found)
        cells, more = _decompressed(found, said)
        is_other, is_surplus = found.syntax != syntax, found.surplus > 0
    else:
        said = _as_long(said, len(found))
        _refuse_contradiction(said)
        big_endian = syntax == ExplicitVRBigEndian
        cells, more = _native(found, said, big_endian, swapped=big_endian and dataset["PixelData"].VR == "OW")
        is_other, is_surplus = syntax not in NATIVE, len(found) > said.needed + 1  # 1: padded to be even
    notes = (
        *said.notes,
        *((NoteCode.SYNTAX_CONFLICT,) if is_other else ()),
        *((NoteCode.SURPLUS_PIXELS,) if is_surplus else ()),
        *more,
    )
    width = 8 * cells.dtype.itemsize
    if said.samples == 3:
        return StoredPixels(cells, width, False, False, (*notes, NoteCode.GREY_FROM_COLOUR))
    values, bits, signed, more = stored_values_of_cells(dataset, cells)
    if said.photometric == PALETTE:
        values, bits = from_palette(dataset, values)
        return StoredPixels(values, bits, False, False, (*notes, *more, NoteCode.GREY_FROM_COLOUR))
    return StoredPixels(values, bits, signed, said.photometric == "MONOCHROME1", (*notes, *more))


def _syntax(dataset: Dataset) -> UID:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if not syntax:
        raise Refused("missing-transfer-syntax", "The file does not say in which transfer syntax it is written.")
    if syntax not in NATIVE | ENCAPSULATED:
        name = syntax if is_uid(str(syntax)) else "(not a UID)"
        raise Refused("unsupported-transfer-syntax", f"Transfer syntax {name} is not one that is read here.")
    return UID(syntax)


def _description(dataset: Dataset) -> _Description:
    """What the header says, and what it left out although it is of type 1."""
    rows, columns, samples, allocated, bits = (
        integer(dataset, k) or 0 for k in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    photometric = text(dataset, "PhotometricInterpretation").upper()
    named = photometric in (*COLOUR_SPACES, PALETTE, "MONOCHROME1", "MONOCHROME2")
    sign, planar = integer(dataset, "PixelRepresentation"), integer(dataset, "PlanarConfiguration")
    unsaid = (
        (NoteCode.SAMPLES_ASSUMED, not samples),
        (NoteCode.POLARITY_ASSUMED, not named),
        (NoteCode.SIGN_ASSUMED, sign not in (0, 1)),
    )
    samples = samples or (3 if photometric in COLOUR_SPACES else 1)
    if rows < 1 or columns < 1 or samples not in (1, 3) or allocated not in (8, 16):
        raise Refused(
            "bad-pixel-description",
            f"Rows {rows}, Columns {columns}, SamplesPerPixel {samples}, BitsAllocated {allocated} describe no film.",
        )
    return _Description(
        rows,
        columns,
        samples,
        allocated,
        bits if 1 <= bits <= allocated else 0,
        sign == 1,
        photometric or "MONOCHROME2",
        planar if planar in (0, 1) else None,
        tuple(note for note, missing in unsaid if missing),
    )


def _refuse_contradiction(said: _Description) -> None:
    is_grey = "MONOCHROME" in said.photometric or said.photometric == PALETTE
    if (said.samples == 3) != (said.photometric in COLOUR_SPACES) or (said.samples == 1 and not is_grey):
        raise Refused("bad-pixel-description", f"SamplesPerPixel {said.samples} does not fit PhotometricInterpretation.")


def _found(element: Any, syntax: UID, said: _Description) -> Codestream | bytes:
    """The compressed stream, or the uncompressed pixels: what the element holds, whatever the transfer syntax calls it."""
    data: bytes = element.value
    has_items = element.length == _UNDEFINED if isinstance(element, RawDataElement) else element.is_undefined_length
    if syntax in NATIVE and not has_items and len(data) >= said.needed:
        return data
    if has_items or data.startswith(ITEM):
        parts = fragments(data)
        has_table = bool(parts) and not is_codestream(parts[0])  # else it was left out
        data = b"".join(parts[has_table:])
    elif not is_codestream(data) and (syntax in NATIVE or len(data) >= said.needed):
        return data
    elif not is_codestream(data):
        raise Refused("undecodable-pixel-data", "The pixel data is not encapsulated as it should be.")
    if not is_codestream(data) and said.needed <= len(data) <= said.needed + 1:
        return data
    if said.rows * said.columns > max(_ALWAYS_AFFORDABLE, len(data) * _MOST_PIXELS_PER_BYTE):
        raise Refused("absurd-size", f"{said.rows} x {said.columns} pixels are announced and only {len(data)} bytes are there.")
    return read_codestream(data, syntax)


def _as_long(said: _Description, length: int) -> _Description:
    """Of uncompressed pixels whose SamplesPerPixel and PhotometricInterpretation contradict each other, the number of bytes
    says which is wrong."""
    is_colour, plane = said.photometric in COLOUR_SPACES, said.rows * said.columns * said.allocated // 8
    if is_colour == (said.samples == 3) or length < plane:
        return said
    samples, photometric = (3, "RGB") if length >= 3 * plane else (1, "MONOCHROME2")
    photometric = said.photometric if is_colour == (samples == 3) else photometric
    return replace(said, samples=samples, photometric=photometric, notes=(*said.notes, NoteCode.SAMPLES_ASSUMED))


def _as_in_stream(said: _Description, stream: Codestream) -> _Description:
    """A stream that names its size and samples is believed in its samples, and has to agree in its size."""
    frame = stream.frame
    if frame is not None and (frame.rows, frame.columns) != (said.rows, said.columns):
        raise Refused(
            "undecodable-pixel-data",
            f"The header says {said.rows} x {said.columns}, the compressed stream {frame.rows} x {frame.columns}.",
        )
    if frame is not None and frame.samples != said.samples and frame.samples in (1, 3):
        photometric = "YBR_FULL" if frame.samples == 3 else "MONOCHROME2"
        said = replace(said, samples=frame.samples, photometric=photometric, notes=(*said.notes, NoteCode.SAMPLES_ASSUMED))
    _refuse_contradiction(said)
    return said


def _decompressed(stream: Codestream, said: _Description) -> tuple[NDArray, tuple[NoteCode, ...]]:
    """(H, W) cells, of three samples the grey."""
    precision = stream.frame.precision if stream.frame is not None else 0
    allocated = _allocated(stream, said)
    bits = max(min(said.bits or allocated, allocated), precision)  # GDCM would cut the values to BitsStored
    shape = said.rows, said.columns, said.samples
    is_colour = said.photometric in COLOUR_SPACES

    def read(photometric: str, *, raw: bool = False) -> NDArray:
        return decompress(stream, shape, allocated=allocated, bits=bits, signed=said.signed, photometric=photometric, raw=raw)

    if not is_colour:
        return read("MONOCHROME2"), ()
    # As PhotometricInterpretation says, then the samples as they are in the stream.
    ways = ((said.photometric, False), ("YBR_FULL", True))
    return grey_channel((read(name, raw=raw) for name, raw in ways), said.bits or bits), ()


def _allocated(stream: Codestream, said: _Description) -> int:
    """Bits of the cells that the decoder fills, by the stream where it says so."""
    if stream.frame is not None:
        lossy = stream.syntax in (JPEGBaseline8Bit, JPEGExtended12Bit)
        return 16 if stream.frame.precision > 8 else 8 if lossy else said.allocated
    if stream.segments not in (said.samples, 2 * said.samples):
        raise Refused("undecodable-pixel-data", f"The RLE stream has {stream.segments} segments, for {said.samples} samples.")
    return 8 * stream.segments // said.samples


def _native(data: bytes, said: _Description, big_endian: bool, *, swapped: bool) -> tuple[NDArray, tuple[NoteCode, ...]]:
    """(H, W) cells, of three samples the grey. `swapped`: bytes lie swapped inside 16-bit words."""
    if said.samples == 3 and len(data) >= 3 * said.rows * said.columns * said.allocated // 8 > said.needed:
        said = replace(said, photometric="YBR_FULL")  # called YBR_FULL_422, and not subsampled
    if len(data) < said.needed:
        raise Refused("truncated-pixel-data", f"The pixels need {said.needed} bytes and only {len(data)} are there.")
    if said.allocated == 8 and swapped:
        words = np.frombuffer(data, np.uint8, said.needed + said.needed % 2).reshape(-1, 2)
        cells = words[:, ::-1].reshape(-1)[: said.needed]
    else:
        cells = np.frombuffer(data, np.dtype(np.uint8 if said.allocated == 8 else ">u2" if big_endian else "<u2"), said.cells)
    if said.samples == 1:
        return cells.reshape(said.rows, said.columns), ()
    notes: tuple[NoteCode, ...] = ()
    if said.photometric == "YBR_FULL_422":
        samples = _upsampled(cells, said)
    else:
        samples, planar = by_planar_configuration(cells, said.rows, said.columns, said.planar)
        notes = (NoteCode.PLANAR_ASSUMED,) if planar != said.planar else ()
    return grey_channel(colour_spaces(samples, said.photometric), said.bits or said.allocated), notes


def _upsampled(cells: NDArray, said: _Description) -> NDArray:
    """Two luminances, then the two chromas that both have (PS3.3 C.7.6.3.1.2)."""
    if len(cells) % 4:
        raise Refused("bad-pixel-description", "YBR_FULL_422 needs an even number of pixels.")
    pairs = cells.reshape(-1, 4)
    chroma = np.repeat(pairs[:, 2:], 2, axis=0)
    return np.concatenate([pairs[:, :2].reshape(-1, 1), chroma], axis=1).reshape(said.rows, said.columns, 3)
