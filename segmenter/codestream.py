"""What a compressed stream says about itself, read before any decoder allocates memory for it."""

from __future__ import annotations

from dataclasses import dataclass

END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000; bit stuffing keeps it out of the data

_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0-15, and SOF55 of JPEG-LS
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
    """Walk the marker segments to the frame header (ISO/IEC 10918-1 annex B.2.2)."""
    at = 2
    while at + 10 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_FRAMES:
            word = int.from_bytes
            return Frame(word(stream[at + 5 : at + 7]), word(stream[at + 7 : at + 9]), stream[at + 9], stream[at + 4])
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4])
    return None


def _jpeg2000(stream: bytes, at: int) -> Frame | None:
    """The SIZ segment: size of the reference grid less its offset (annex A.5.1). `at`: the segment's length field."""
    if at + 39 > len(stream):
        return None
    width, height, left, top = (int.from_bytes(stream[at + 4 + i : at + 8 + i]) for i in (0, 4, 8, 12))
    samples = int.from_bytes(stream[at + 36 : at + 38])
    return Frame(height - top, width - left, samples, (stream[at + 38] & 0x7F) + 1)
