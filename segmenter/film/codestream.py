"""The header of a compressed stream, read before any decoder allocates memory for it: its transfer syntax, the size of its
picture, and where it ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.uid import (
    JPEG2000,
    UID,
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

END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000; bit stuffing keeps it out of the data

_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15, and SOF55 of JPEG-LS
_BEFORE_SCAN = {*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xF7, 0xF8, 0xFE}  # tables, frames, applications, comment
_START_OF_SCAN, _RESTART_INTERVAL, _JPEG_LS = 0xDA, 0xDD, 0xF7
# In coded data 00 follows FF; a marker that cannot occur in a scan means that bytes were changed (ISO/IEC 10918-1 B.1.1.5).
_BAD_IN_SCAN = re.compile(rb"\xff[\x01-\xc3\xc5-\xcf\xd8\xde\xdf\xf0-\xfd]")
_BAD_IN_SCAN_WITHOUT_RESTARTS = re.compile(rb"\xff[\x01-\xc3\xc5-\xcf\xd0-\xd8\xde\xdf\xf0-\xfd]")
_CODED = re.compile(rb"([^\xff]|\xff[\x00-\x7f\xd0-\xd7])*+(\xff\xd9.{0,64})?", re.DOTALL)  # of JPEG, or of JPEG-LS
_UNKNOWN_JFIF = re.compile(rb"\xff\xe0..JFIF\0[^\x01]", re.DOTALL)  # GDCM ends the process on any version but 1
_START_OF_TILE_PART = 0x90
_MOST_TILES = 65535  # tile numbers have two bytes
_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 annex A)
_JPEG_START = b"\xff\xd8\xff"
_MOST_TRAILER = 64  # bytes after an end of image that are ignored without looking at them
_MOST_ZEROS = 16  # at the end of a tile-part
_RLE_HEAD = 64  # bytes of the RLE header: number of segments and their offsets (PS3.5 annex G.5)

_BY_FRAME = {
    0xC0: (JPEGBaseline8Bit, JPEGExtended12Bit),
    0xC1: (JPEGExtended12Bit, JPEGBaseline8Bit),
    0xC2: (JPEGBaseline8Bit, JPEGExtended12Bit),  # progressive: retired in DICOM, but baseline decoders read it
    0xC3: (JPEGLossless, JPEGLosslessSV1),
    _JPEG_LS: (JPEGLSNearLossless, JPEGLSLossless),
}
_J2K = (JPEG2000, JPEG2000Lossless)
ENCAPSULATED = frozenset({RLELossless, *_J2K}.union(*_BY_FRAME.values()))  # the compressed transfer syntaxes that are read


@dataclass(frozen=True)
class FrameHeader:
    """Size of the picture, as the frame header (JPEG, JPEG-LS) or the SIZ segment (JPEG 2000) gives it."""

    rows: int
    columns: int
    samples: int
    precision: int  # bits per sample


@dataclass(frozen=True)
class Codestream:
    """One complete compressed picture: `data` from its start to its end, and nothing else. `frame` None: RLE, whose header does
    not contain the size; it has one of the `segments` for each byte of a pixel. `surplus`: bytes after the end."""

    syntax: UID
    data: bytes
    frame: FrameHeader | None
    surplus: int = 0
    segments: int = 0


def is_codestream(data: bytes) -> bool:
    """Whether these bytes are the beginning of a compressed picture (and not of an offset table, or of pixels)."""
    return data.startswith(_JPEG_START) or data.find(_J2K_START, 0, 4096) >= 0 or _segments(data) is not None


def read_codestream(data: bytes, declared: UID) -> Codestream:
    """The picture that `data` begins with. Its actual syntax counts; `declared`, the transfer syntax of the file, decides where
    several syntaxes share one stream format.

    Raises Refused: `undecodable-pixel-data`, `truncated-pixel-data`.
    """
    if data.startswith(_JPEG_START):
        return _jpeg(data, declared)
    start = data.find(_J2K_START, 0, 4096)  # bare, or in the boxes of JP2
    if start >= 0:
        return _jpeg2000(data[start:], declared)
    segments = _segments(data)
    if segments is None:
        raise _truncated() if len(data) < _RLE_HEAD else _unreadable()
    if segments[-1] >= len(data):
        raise _truncated()
    return Codestream(RLELossless, data, None, segments=len(segments))


def _unreadable() -> Refused:
    return Refused("undecodable-pixel-data", "The head of the compressed stream cannot be read.")


def _truncated() -> Refused:
    return Refused("truncated-pixel-data", "The compressed stream stops before its end.")


def _segments(data: bytes) -> list[int] | None:
    """The offsets of the segments of an RLE picture (PS3.5 annex G.5); None when `data` is not one."""
    if len(data) < _RLE_HEAD:
        return None
    count, *offsets = (int.from_bytes(data[i : i + 4], "little") for i in range(0, _RLE_HEAD, 4))
    begins = offsets[:count]
    is_one = 1 <= count <= 15 and begins[0] == _RLE_HEAD and begins == sorted(set(begins))
    return begins if is_one else None


def _jpeg(data: bytes, declared: UID) -> Codestream:
    """Read the marker segments up to the scan (ISO/IEC 10918-1 annex B.2), then find the end of the image. A header that cannot
    be read is refused: GDCM ends the whole process on some of them."""
    at, frame, kind = 2, None, 0
    bad = _BAD_IN_SCAN_WITHOUT_RESTARTS
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _START_OF_SCAN and frame is not None:
            end = _end_of_scan(data, at + 2 + length, None if kind == _JPEG_LS else bad)
            candidates = _BY_FRAME.get(kind, ())
            if not candidates:
                raise _unreadable()
            return Codestream(declared if declared in candidates else candidates[0], data[:end], frame, _surplus(data[end:]))
        if marker == _RESTART_INTERVAL:
            bad = _BAD_IN_SCAN
        if marker in _JPEG_FRAMES:
            rows, columns = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            frame, kind = FrameHeader(rows, columns, samples=data[at + 9], precision=data[at + 4]), marker
        if length < 2 or marker not in _BEFORE_SCAN or _UNKNOWN_JFIF.match(data, at):
            raise _unreadable()
        at += 2 + length
    raise _truncated() if at + 10 > len(data) else _unreadable()


def _end_of_scan(data: bytes, begin: int, bad: re.Pattern[bytes] | None) -> int:
    """The position after the first end of image. Anything may follow but more coded data: an end of image in the middle would
    leave the rest of the film grey."""
    end = data.find(END_OF_IMAGE, begin) + len(END_OF_IMAGE)
    if end < len(END_OF_IMAGE):
        raise _truncated()
    if bad and bad.search(data, begin, end):
        raise _unreadable()
    rest = data[end:].rstrip(b"\0\xff")
    if len(rest) > _MOST_TRAILER and _CODED.fullmatch(rest) and (b"\xff\x00" in rest or END_OF_IMAGE in rest[-_MOST_TRAILER:]):
        raise Refused("undecodable-pixel-data", "An end of image stands in the middle of the compressed stream.")
    return end


def _surplus(rest: bytes) -> int:
    return len(rest) if rest.strip(b"\0") else 0


def _jpeg2000(data: bytes, declared: UID) -> Codestream:
    """The SIZ segment: size of the reference grid less its offset (ISO/IEC 15444-1 annex A.5.1); then the tile-parts. Refused
    when a tile is missing: decoders leave it black without an error."""
    at = len(_J2K_START)
    if at + 39 > len(data):
        raise _truncated()
    width, height, left, top, across, down, first_x, first_y = (
        int.from_bytes(data[at + i : at + i + 4]) for i in range(4, 36, 4)
    )
    if not across or not down:
        raise _unreadable()
    tiles = -(-(width - first_x) // across) * -(-(height - first_y) // down)
    if not 1 <= tiles <= _MOST_TILES:
        raise _unreadable()
    frame = FrameHeader(height - top, width - left, int.from_bytes(data[at + 36 : at + 38]), (data[at + 38] & 0x7F) + 1)
    end = _end_of_tiles(data, at + int.from_bytes(data[at : at + 2]), tiles)
    rest = data[end:]
    if rest.startswith(END_OF_IMAGE):
        rest = rest[len(END_OF_IMAGE) :]
    syntax = declared if declared in _J2K else _J2K[0]
    return Codestream(syntax, data[:end] + END_OF_IMAGE, frame, _surplus(rest))


def _end_of_tiles(data: bytes, at: int, tiles: int) -> int:
    """Where the last tile-part ends (ISO/IEC 15444-1 annex A.4.2). `at`: the position after SIZ."""
    missing = set(range(tiles))
    while at + 12 <= len(data) and data[at] == 0xFF and data[at : at + 2] != END_OF_IMAGE:
        length = int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] == _START_OF_TILE_PART:
            missing.discard(int.from_bytes(data[at + 4 : at + 6]))
            length = int.from_bytes(data[at + 6 : at + 10]) - 2
            if length == -2:  # up to the end of the stream
                length = data.find(END_OF_IMAGE, at) - at - 2
                if length < 0:
                    raise _truncated()
        if length < 2:
            break
        at += 2 + length
        if at > len(data):
            raise _truncated()
    if missing:
        raise _unreadable() if END_OF_IMAGE in data[at:] else _truncated()
    end = data.find(END_OF_IMAGE, at)
    if end < 0 and (len(data) - at > 1 or not data[at - _MOST_ZEROS : at].strip(b"\0")):  # filled up, or more was to come
        raise _truncated()
    return max(at, end)
