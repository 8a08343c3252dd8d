"""Lookup tables of a header (PS3.3 C.11.1.1.1, C.11.2.1.1, C.7.6.3.1.5), read by their data, because their descriptors are
often wrong."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.header import numbers, value
from segmenter.transformations import LookupTable


def first_table(
    holders: Iterable[Dataset], descriptor: str, data: str, *, signed: bool, big_endian: bool = False
) -> LookupTable | None:
    """The first table that can be read; the others are alternatives. `signed`: its inputs may be below 0."""
    for holder in holders:
        table = _table(holder, descriptor, data, signed, big_endian)
        if table is not None:
            return table
    return None


def _table(holder: Dataset, descriptor: str, data: str, signed: bool, big_endian: bool) -> LookupTable | None:
    """0 entries in the descriptor mean 65,536. The largest entry gives the number of bits: with an output range that the data
    do not fill, the film would be nearly black."""
    described, held = _descriptor(holder, descriptor, big_endian), value(holder, data)
    if len(described) != 3 or held is None:
        return None
    count, first, bits = described
    count = count % 65536 or 65536
    first = first - 65536 if signed and first > 32767 else first % 65536 if not signed else first
    entries = _entries(held, count, bits, big_endian)[:count]
    if len(entries) == 0:
        return None
    needed = max(8, int(entries.max()).bit_length())
    return LookupTable(entries, first, needed, needed != bits or len(entries) < count)


def _descriptor(holder: Dataset, keyword: str, big_endian: bool) -> tuple[int, ...]:
    """Number of entries, first input, bits; from 16-bit words where the VR is OB, OW or UN."""
    held = value(holder, keyword)
    if isinstance(held, bytes):
        return tuple(int(word) for word in _words(held, big_endian))
    return tuple(int(one) for one in numbers(holder, keyword))


def _entries(held: object, count: int, bits: int, big_endian: bool) -> NDArray[np.int64]:
    """LUTData is US, or OW in the byte order of the file. Two entries of 8 bits may share a word, and do so where there are
    about as many bytes as entries."""
    if isinstance(held, bytes):
        words = _words(held, big_endian)
        packed = bits <= 8 and len(held) < 1.5 * count
        return (np.stack([words & 255, words >> 8], 1).ravel() if packed else words).astype(np.int64)
    try:
        return np.atleast_1d(np.asarray(held, dtype=np.int64)) & 0xFFFF
    except (TypeError, ValueError, OverflowError):
        return np.zeros(0, np.int64)


def _words(held: bytes, big_endian: bool) -> NDArray[np.uint16]:
    return np.frombuffer(held[: len(held) // 2 * 2], ">u2" if big_endian else "<u2")
