"""Encapsulated Pixel Data (PS3.5 section A.4): items of fragments, and the one compressed stream that they hold.

A film has one frame, and all fragments are one stream: neither the Basic nor the Extended Offset Table is needed, and a wrong
one does no harm.
"""

from __future__ import annotations

ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_HEAD = 8  # bytes of an item's tag and length


def end_of_items(data: bytes, at: int) -> tuple[int, int]:
    """Where the items that begin at `at` end, and where the next element begins: after the Sequence Delimitation Item, or at
    the end of the data when there is none."""
    while data[at : at + 4] == ITEM and at + _HEAD <= len(data):
        at = min(at + _HEAD + _length(data, at), len(data))
        at += data[at : at + 4] not in (ITEM, DELIMITER) and data[at + 1 : at + 5] in (ITEM, DELIMITER)  # a pad byte
    end = at if data[at : at + 4] == DELIMITER else data.find(DELIMITER, at)
    return (end, min(end + _HEAD, len(data))) if end >= 0 else (len(data), len(data))


def fragments(value: bytes) -> list[bytes]:
    """The values of the items, the offset table first where there is one. Bytes between items are added to the item before
    them: its length was wrong."""
    found, at = [], 0
    while value[at : at + 4] == ITEM and at + _HEAD <= len(value):
        begin, at = at + _HEAD, min(at + _HEAD + _length(value, at), len(value))
        end = at
        if at + 1 < len(value) and value[at : at + 4] != ITEM:
            is_padded = value[at + 1 : at + 5] == ITEM
            at = at + 1 if is_padded else max(value.find(ITEM, at), 0) or len(value)
            end = at - 1 if is_padded else at
        found.append(value[begin:end])
    return found


def _length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + 4 : at + _HEAD], "little")
