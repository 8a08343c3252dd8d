"""What a compressed stream says about itself, read before any decoder allocates memory for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000; bit stuffing keeps it out of the data

_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15, and SOF55 of JPEG-LS
_IN_THE_HEAD = {*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xF7, 0xF8, 0xFE}  # tables, frames, applications, comment
_START_OF_SCAN, _RESTART_INTERVAL, _JPEG_LS = 0xDA, 0xDD, 0xF7
# Behind an FF of the coded data stands 00; a marker that has no place in a scan means that bytes were changed, and an end
# of image before the end would leave the rest of the film grey (annex B.1.1).
_BAD_IN_SCAN = re.compile(rb"\xff([\x01-\xc3\xc5-\xcf\xd8\xde\xdf\xf0-\xfd]|\xd9(?=.{64}))", re.DOTALL)
_BAD_IN_SCAN_WITHOUT_RESTARTS = re.compile(rb"\xff([\x01-\xc3\xc5-\xcf\xd0-\xd8\xde\xdf\xf0-\xfd]|\xd9(?=.{64}))", re.DOTALL)
_UNKNOWN_JFIF = re.compile(rb"\xff\xe0..JFIF\0[^\x01]", re.DOTALL)  # GDCM ends the process on another version than 1
_START_OF_TILE_PART = 0x90
_MOST_TILES = 65535  # their numbers have two bytes
_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 annex A)


@dataclass(frozen=True)
class Frame:
    """Size of the picture inside the stream."""

    rows: int
    columns: int
    samples: int
    precision: int  # bits per sample


def frame_of(stream: bytes) -> Frame | None:
    """The frame header of a JPEG, JPEG-LS or JPEG 2000 stream (in a JP2 box or bare); None when there is none."""
    if stream[:2] == b"\xff\xd8":
        return _jpeg(stream)
    at = stream.find(_J2K_START, 0, 4096)
    return _jpeg2000(stream, at + 4) if at >= 0 else None


def _jpeg(stream: bytes) -> Frame | None:
    """Walk the marker segments up to the scan (ISO/IEC 10918-1 annex B.2). A header that can not be walked is answered with
    None: GDCM ends the whole process on some of them."""
    at, frame = 2, None
    bad: re.Pattern[bytes] | None = _BAD_IN_SCAN_WITHOUT_RESTARTS
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4])
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _START_OF_SCAN:
            sound = bad is None or bad.search(stream, at + 2 + length) is None
            return frame if sound else None
        if marker == _RESTART_INTERVAL:
            bad = bad and _BAD_IN_SCAN
        if marker in _JPEG_FRAMES:
            rows, columns = int.from_bytes(stream[at + 5 : at + 7]), int.from_bytes(stream[at + 7 : at + 9])
            frame = Frame(rows, columns, samples=stream[at + 9], precision=stream[at + 4])
            bad = None if marker == _JPEG_LS else bad  # stuffs bits, not bytes
        if length < 2 or marker not in _IN_THE_HEAD or _UNKNOWN_JFIF.match(stream, at):
            return None
        at += 2 + length
    return None


def _jpeg2000(stream: bytes, at: int) -> Frame | None:
    """The SIZ segment: size of the reference grid less its offset (annex A.5.1). `at`: the segment's length field. None
    when a tile is missing: decoders leave it black, and say nothing."""
    if at + 39 > len(stream):
        return None
    width, height, left, top, across, down, first_x, first_y = (
        int.from_bytes(stream[at + i : at + i + 4]) for i in range(4, 36, 4)
    )
    if not across or not down:
        return None
    tiles = -(-(width - first_x) // across) * -(-(height - first_y) // down)
    if not 1 <= tiles <= _MOST_TILES or not _holds_tiles(stream, at + int.from_bytes(stream[at : at + 2]), tiles):
        return None
    samples = int.from_bytes(stream[at + 36 : at + 38])
    return Frame(height - top, width - left, samples, (stream[at + 38] & 0x7F) + 1)


def _holds_tiles(stream: bytes, at: int, tiles: int) -> bool:
    """Whether each tile has a tile-part; a cut stream counts up to its end. `at`: behind SIZ (annex A.4.2)."""
    missing = set(range(tiles))
    while missing and at + 12 <= len(stream) and stream[at] == 0xFF:
        length = int.from_bytes(stream[at + 2 : at + 4])
        if stream[at + 1] == _START_OF_TILE_PART:
            missing.discard(int.from_bytes(stream[at + 4 : at + 6]))
            length = int.from_bytes(stream[at + 6 : at + 10]) - 2  # 0: up to the end of the stream
        if length < 2:
            break
        at += 2 + length
    return not missing
