"""A P-DATA-TF PDU read in place: its fragments are views of the bytes that came, where the library copies each four times.

Only what is well formed; the rest is the library's, and so is what becomes of it (PS3.8 9.3.5).
"""

from __future__ import annotations

import struct
from typing import Any

from pynetdicom.pdu_primitives import P_DATA

_PDU_HEADER = 6  # bytes: type, reserved, length
_ITEM_HEADER = struct.Struct(">LB")  # length, which counts the id in; presentation context id


class Fragments:
    """Stands where the library has its own P-DATA-TF. Raises ValueError when `pdu` is none that is well formed."""

    def __init__(self, pdu: bytearray) -> None:
        self._items: list[tuple[int, memoryview]] = []
        view, place = memoryview(pdu), _PDU_HEADER
        while place < len(view):
            if len(view) - place < _ITEM_HEADER.size:
                raise ValueError("the PDU ends in the header of an item")
            length, context_id = _ITEM_HEADER.unpack_from(view, place)
            end = place + 4 + length
            if length < 2 or end > len(view):
                raise ValueError("an item is longer than the PDU, or holds no control header")
            self._items.append((context_id, view[place + _ITEM_HEADER.size : end]))
            place = end
        if not self._items:
            raise ValueError("a PDU without an item")

    def to_primitive(self) -> P_DATA:
        """What the state machine hands on to DIMSE."""
        primitive = P_DATA()
        items: list[Any] = primitive.presentation_data_value_list  # the library says bytes; it only reads and slices them
        items.extend(self._items)
        return primitive
