"""Explicit VR Little Endian -> Implicit VR Little Endian, element by element (PS3.5 7.1, A.1), without looking at a value.

For a destination that takes only the default transfer syntax (PS3.5 10.1). Nothing but headers changes, so equal bytes in are
equal bytes out, in every version of every library: a SOP Instance UID that was sent converted has the same bytes when it is
sent again.
"""

from __future__ import annotations

import struct

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # PS3.5 table 7.1-1
_TAG, _SHORT_LENGTH, _LONG_LENGTH = struct.Struct("<HH"), struct.Struct("<H"), struct.Struct("<L")
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 32  # sequences in sequences


def implicit(dataset: bytes) -> bytes:
    """A dataset without File Meta. Raises ValueError when it is no Explicit VR Little Endian that can be read to its end."""
    out, place = bytearray(), 0
    while place < len(dataset):
        place = _element(dataset, place, len(dataset), out, 0)
    return bytes(out)


def _element(data: bytes, place: int, end: int, out: bytearray, depth: int) -> int:
    """One element appended to `out`; where the next one begins."""
    tag = _TAG.unpack_from(_piece(data, place, 4, end))
    vr = _piece(data, place + 4, 2, end)
    if not vr.isalpha() or not vr.isupper():
        raise ValueError(f"({tag[0]:04X},{tag[1]:04X}) has no VR")
    if vr in _LONG:
        (length,) = _LONG_LENGTH.unpack(_piece(data, place + 8, 4, end))
        start = place + 12
    else:
        (length,) = _SHORT_LENGTH.unpack(_piece(data, place + 6, 2, end))
        start = place + 8
    if vr == b"SQ":
        inner = bytearray()
        stop = _sequence(data, start, end if length == _UNDEFINED else _end(start, length, end), length, inner, depth + 1)
        out += _TAG.pack(*tag) + _LONG_LENGTH.pack(length if length == _UNDEFINED else len(inner)) + inner
        return stop
    if length == _UNDEFINED:
        raise ValueError(f"({tag[0]:04X},{tag[1]:04X}) is encapsulated")
    out += _TAG.pack(*tag) + _LONG_LENGTH.pack(length) + _piece(data, start, length, end)
    return start + length


def _sequence(data: bytes, place: int, end: int, length: int, out: bytearray, depth: int) -> int:
    """The items of a sequence, up to `end` or to its delimiter; where what follows begins."""
    if depth > _DEEPEST:
        raise ValueError("sequences in sequences without end")
    while length == _UNDEFINED or place < end:
        tag = _TAG.unpack(_piece(data, place, 4, end))
        (size,) = _LONG_LENGTH.unpack(_piece(data, place + 4, 4, end))
        place += 8
        if tag == _SEQUENCE_END and length == _UNDEFINED:
            out += _TAG.pack(*tag) + _LONG_LENGTH.pack(0)
            return place
        if tag != _ITEM:
            raise ValueError(f"({tag[0]:04X},{tag[1]:04X}) stands where an item should")
        inner = bytearray()
        place = _item(data, place, end if size == _UNDEFINED else _end(place, size, end), size, inner, depth)
        out += _TAG.pack(*tag) + _LONG_LENGTH.pack(size if size == _UNDEFINED else len(inner)) + inner
    return place


def _item(data: bytes, place: int, end: int, length: int, out: bytearray, depth: int) -> int:
    while length == _UNDEFINED or place < end:
        if length == _UNDEFINED and _TAG.unpack(_piece(data, place, 4, end)) == _ITEM_END:
            out += _TAG.pack(*_ITEM_END) + _LONG_LENGTH.pack(0)
            return place + 8
        place = _element(data, place, end, out, depth)
    return place


def _end(start: int, length: int, end: int) -> int:
    if start + length > end:
        raise ValueError("a sequence or item is longer than what holds it")
    return start + length


def _piece(data: bytes, start: int, size: int, end: int) -> bytes:
    if start + size > end:
        raise ValueError("the dataset ends in the middle of an element")
    return data[start : start + size]
