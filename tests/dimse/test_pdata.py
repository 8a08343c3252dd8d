"""What is read in place is what the library would have read; what it would have tripped over is left to it."""

from __future__ import annotations

import random
import struct

import pytest
from pynetdicom.pdu import P_DATA_TF

from dicom_node.dimse.pdata import Fragments


def _pdu(*items: tuple[int, bytes]) -> bytearray:
    body = b"".join(struct.pack(">LB", len(fragment) + 1, context_id) + fragment for context_id, fragment in items)
    return bytearray(struct.pack(">BBL", 4, 0, len(body)) + body)


def test_the_same_items_as_the_library():
    draw = random.Random(5)
    for _ in range(200):
        items = [(2 * draw.randrange(128) + 1, draw.randbytes(draw.randint(1, 300))) for _ in range(draw.randint(1, 5))]
        theirs = P_DATA_TF()
        theirs.decode(bytes(_pdu(*items)))
        ours = Fragments(_pdu(*items)).to_primitive().presentation_data_value_list
        assert [(context_id, bytes(fragment)) for context_id, fragment in ours] == items
        assert items == theirs.to_primitive().presentation_data_value_list


@pytest.mark.parametrize("missing", [*range(1, 10), 11])  # the second item has 10 bytes
def test_a_pdu_that_ends_too_early_is_left_to_the_library(missing):
    whole = _pdu((1, b"\x02abc"), (3, b"\x00defg"))
    with pytest.raises(ValueError):
        Fragments(whole[:-missing])


@pytest.mark.parametrize(
    "body", [b"", struct.pack(">LB", 1, 1), struct.pack(">L", 0), struct.pack(">LB", 2**32 - 1, 1) + b"\x02"]
)
def test_an_item_without_a_control_header_or_longer_than_its_pdu_too(body):
    with pytest.raises(ValueError):
        Fragments(bytearray(struct.pack(">BBL", 4, 0, len(body)) + body))
