"""Pixel Data -> stored values, whatever the transfer syntax. Every size is compared with the number of bytes before memory is
allocated, because headers may be wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from segmenter.errors import Refused
from segmenter.film.codestream import ENCAPSULATED, Codestream, is_codestream, read_codestream
from segmenter.film.colour import COLOUR_SPACES, PALETTE, by_planar_configuration, colour_spaces, from_palette, grey_channel
from segmenter.film.decompress import decompress
from segmenter.film.encapsulated import ITEM, fragments
from segmenter.film.gate import SkipCode, SkippedFilm
from segmenter.film.header import integer, is_uid, text
from segmenter.film.stored_bits import StoredValues, stored_values_of_cells
from segmenter.notes import NoteCode

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
_MOST_PIXELS_PER_BYTE = 2000  # a film with noise compresses 100-fold; a large picture in a few bytes is blank or malicious
_ALWAYS_AFFORDABLE = 1 << 24  # pixels
_UNDEFINED = 0xFFFFFFFF  # length


@dataclass(frozen=True)
class StoredPixels:
    """The pixels of a film: `values` (H, W) int8, uint8, int16 or uint16, `bits` of them significant (PS3.3 C.7.6.3.1, PS3.5
    section 8.1.1). `monochrome1`: the lowest value is shown white (PS3.3 C.7.6.3.1.2)."""

    values: StoredValues
    bits: int
    signed: bool
    monochrome1: bool
    notes: tuple[NoteCode, ...] = ()


@dataclass(frozen=True)
class _Description:
    """The Image Pixel module (PS3.3 C.7.6.3). `bits` 0, `planar` None: absent from the header, or impossible."""

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
        """Number of pixel cells of an uncompressed frame (PS3.5 section 8.1.1)."""
        return self.rows * self.columns * (2 if self.photometric == "YBR_FULL_422" else self.samples)

    @property
    def needed(self) -> int:
        """Bytes that an uncompressed frame needs."""
        return self.cells * self.allocated // 8


def stored_values(dataset: Dataset) -> StoredPixels:
    """Decode the one frame of a film. Raises Refused (`missing-transfer-syntax`, `unsupported-transfer-syntax`,
    `bad-pixel-description`, `truncated-pixel-data`, `absurd-size`, `undecodable-pixel-data`) and SkippedFilm (`colour`,
    `no-pixels`)."""
    syntax, header = _syntax(dataset), _description(dataset)
    element = dataset.get_item("PixelData", keep_deferred=True) if "PixelData" in dataset else None
    if element is None or not element.value:
        raise SkippedFilm(SkipCode.NO_PIXELS)
    found = _found(element, syntax, header)
    if isinstance(found, Codestream):
        header = _as_in_stream(header, found)
        cells, more = _decompressed(found, header)
        is_other, is_surplus = found.syntax != syntax, found.surplus > 0
    else:
        header = _as_long(header, len(found))
        _refuse_contradiction(header)
        big_endian = syntax == ExplicitVRBigEndian
        cells, more = _native(found, header, big_endian, swapped=big_endian and dataset["PixelData"].VR == "OW")
        is_other, is_surplus = syntax not in NATIVE, len(found) > header.needed + 1  # 1: padded to be even
    notes = (
        *header.notes,
        *((NoteCode.SYNTAX_CONFLICT,) if is_other else ()),
        *((NoteCode.SURPLUS_PIXELS,) if is_surplus else ()),
        *more,
    )
    width = 8 * cells.dtype.itemsize
    if header.samples == 3:
        return StoredPixels(cells, width, False, False, (*notes, NoteCode.GREY_FROM_COLOUR))
    values, bits, signed, more = stored_values_of_cells(dataset, cells)
    if header.photometric == PALETTE:
        values, bits = from_palette(dataset, values)
        return StoredPixels(values, bits, False, False, (*notes, *more, NoteCode.GREY_FROM_COLOUR))
    return StoredPixels(values, bits, signed, header.photometric == "MONOCHROME1", (*notes, *more))


def _syntax(dataset: Dataset) -> UID:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if not syntax:
        raise Refused("missing-transfer-syntax", "The file does not say in which transfer syntax it is written.")
    if syntax not in NATIVE | ENCAPSULATED:
        name = syntax if is_uid(str(syntax)) else "(not a UID)"
        raise Refused("unsupported-transfer-syntax", f"Transfer syntax {name} is not one that is read here.")
    return UID(syntax)


def _description(dataset: Dataset) -> _Description:
    """The header's description of the pixels, with a note for each type 1 element that is missing."""
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


def _refuse_contradiction(header: _Description) -> None:
    is_grey = "MONOCHROME" in header.photometric or header.photometric == PALETTE
    if (header.samples == 3) != (header.photometric in COLOUR_SPACES) or (header.samples == 1 and not is_grey):
        raise Refused("bad-pixel-description", f"SamplesPerPixel {header.samples} does not fit PhotometricInterpretation.")


def _found(element: Any, syntax: UID, header: _Description) -> Codestream | bytes:
    """The compressed stream, or the uncompressed pixels: the actual content of the element, whatever the transfer syntax."""
    data: bytes = element.value
    has_items = element.length == _UNDEFINED if isinstance(element, RawDataElement) else element.is_undefined_length
    if syntax in NATIVE and not has_items and len(data) >= header.needed:
        return data
    if has_items or data.startswith(ITEM):
        parts = fragments(data)
        has_table = bool(parts) and not is_codestream(parts[0])  # else the offset table was left out
        data = b"".join(parts[has_table:])
    elif not is_codestream(data) and (syntax in NATIVE or len(data) >= header.needed):
        return data
    elif not is_codestream(data):
        raise Refused("undecodable-pixel-data", "The pixel data is not encapsulated as it should be.")
    if not is_codestream(data) and header.needed <= len(data) <= header.needed + 1:
        return data
    if header.rows * header.columns > max(_ALWAYS_AFFORDABLE, len(data) * _MOST_PIXELS_PER_BYTE):
        size = f"{header.rows} x {header.columns} pixels"
        raise Refused("absurd-size", f"{size} are announced and only {len(data)} bytes are there.")
    return read_codestream(data, syntax)


def _as_long(header: _Description, length: int) -> _Description:
    """When SamplesPerPixel and PhotometricInterpretation contradict each other, the number of bytes of uncompressed pixels
    shows which is wrong."""
    is_colour, plane = header.photometric in COLOUR_SPACES, header.rows * header.columns * header.allocated // 8
    if is_colour == (header.samples == 3) or length < plane:
        return header
    samples, photometric = (3, "RGB") if length >= 3 * plane else (1, "MONOCHROME2")
    photometric = header.photometric if is_colour == (samples == 3) else photometric
    return replace(header, samples=samples, photometric=photometric, notes=(*header.notes, NoteCode.SAMPLES_ASSUMED))


def _as_in_stream(header: _Description, stream: Codestream) -> _Description:
    """The samples of a stream that gives its size and samples go before the header's; its size must be the header's."""
    frame = stream.frame
    if frame is not None and (frame.rows, frame.columns) != (header.rows, header.columns):
        raise Refused(
            "undecodable-pixel-data",
            f"The header says {header.rows} x {header.columns}, the compressed stream {frame.rows} x {frame.columns}.",
        )
    if frame is not None and frame.samples != header.samples and frame.samples in (1, 3):
        photometric = "YBR_FULL" if frame.samples == 3 else "MONOCHROME2"
        notes = (*header.notes, NoteCode.SAMPLES_ASSUMED)
        header = replace(header, samples=frame.samples, photometric=photometric, notes=notes)
    _refuse_contradiction(header)
    return header


def _decompressed(stream: Codestream, header: _Description) -> tuple[NDArray, tuple[NoteCode, ...]]:
    """(H, W) pixel cells; of three samples the grey channel."""
    precision = stream.frame.precision if stream.frame is not None else 0
    allocated = _allocated(stream, header)
    bits = max(min(header.bits or allocated, allocated), precision)  # GDCM would cut the values to BitsStored
    shape = header.rows, header.columns, header.samples
    is_colour = header.photometric in COLOUR_SPACES

    def read(photometric: str, *, raw: bool = False) -> NDArray:
        return decompress(stream, shape, allocated=allocated, bits=bits, signed=header.signed, photometric=photometric, raw=raw)

    if not is_colour:
        return read("MONOCHROME2"), ()
    # By PhotometricInterpretation, then the samples as they are in the stream.
    ways = ((header.photometric, False), ("YBR_FULL", True))
    return grey_channel((read(name, raw=raw) for name, raw in ways), header.bits or bits), ()


def _allocated(stream: Codestream, header: _Description) -> int:
    """Bits of the pixel cells that the decoder fills, by the stream's own precision where it has one."""
    if stream.frame is not None:
        lossy = stream.syntax in (JPEGBaseline8Bit, JPEGExtended12Bit)
        return 16 if stream.frame.precision > 8 else 8 if lossy else header.allocated
    if stream.segments not in (header.samples, 2 * header.samples):
        raise Refused("undecodable-pixel-data", f"The RLE stream has {stream.segments} segments, for {header.samples} samples.")
    return 8 * stream.segments // header.samples


def _native(data: bytes, header: _Description, big_endian: bool, *, swapped: bool) -> tuple[NDArray, tuple[NoteCode, ...]]:
    """(H, W) pixel cells; of three samples the grey channel. `swapped`: the bytes of 16-bit words are in the other order (OW in
    Big Endian, PS3.5 section 7.3)."""
    if header.samples == 3 and len(data) >= 3 * header.rows * header.columns * header.allocated // 8 > header.needed:
        header = replace(header, photometric="YBR_FULL")  # declared YBR_FULL_422, but not subsampled
    if len(data) < header.needed:
        raise Refused("truncated-pixel-data", f"The pixels need {header.needed} bytes and only {len(data)} are there.")
    if header.allocated == 8 and swapped:
        words = np.frombuffer(data, np.uint8, header.needed + header.needed % 2).reshape(-1, 2)
        cells = words[:, ::-1].reshape(-1)[: header.needed]
    else:
        kind = np.dtype(np.uint8 if header.allocated == 8 else ">u2" if big_endian else "<u2")
        cells = np.frombuffer(data, kind, header.cells)
    if header.samples == 1:
        return cells.reshape(header.rows, header.columns), ()
    notes: tuple[NoteCode, ...] = ()
    if header.photometric == "YBR_FULL_422":
        samples = _upsampled(cells, header)
    else:
        samples, planar = by_planar_configuration(cells, header.rows, header.columns, header.planar)
        notes = (NoteCode.PLANAR_ASSUMED,) if planar != header.planar else ()
    return grey_channel(colour_spaces(samples, header.photometric), header.bits or header.allocated), notes


def _upsampled(cells: NDArray, header: _Description) -> NDArray:
    """(H, W, 3) of YBR_FULL_422: two luminance samples, then the two chroma samples they share (PS3.3 C.7.6.3.1.2)."""
    if len(cells) % 4:
        raise Refused("bad-pixel-description", "YBR_FULL_422 needs an even number of pixels.")
    pairs = cells.reshape(-1, 4)
    chroma = np.repeat(pairs[:, 2:], 2, axis=0)
    return np.concatenate([pairs[:, :2].reshape(-1, 1), chroma], axis=1).reshape(header.rows, header.columns, 3)
