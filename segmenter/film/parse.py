"""A DICOM file (PS3.10) -> its dataset, also where the end of the file cannot be parsed.

pydicom returns an empty dataset for an end that it cannot parse (a stream without its delimiter, a truncated file, surplus
bytes that look like the head of an element). Here the elements before PixelData are kept, PixelData is as much of it as the
file holds, and later elements are read as far as possible: elements are in the order of their tags (PS3.5 section 7.1), and
none that matters to a film follows its pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import NamedTuple

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from segmenter.errors import Refused
from segmenter.film.encapsulated import end_of_items
from segmenter.film.header import without_warnings

MAX_INFLATED_BYTES = 512 * 2**20
_INFLATED_AT_ONCE = 16 * 2**20  # bytes
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA = Tag("PixelData")
_FIRST_GROUP = 0x0008  # of a dataset
_PART10_PREFIX = 132  # bytes

# What pydicom raises for bytes that are not a dataset.
UNREADABLE = (
    InvalidDicomError, BytesLengthException, OSError, ValueError, EOFError, NotImplementedError, struct.error, LookupError,
    TypeError, AttributeError, RecursionError, OverflowError, zlib.error,
)  # fmt: skip

Elements = dict[BaseTag, DataElement | RawDataElement]


def parse(part10: bytes) -> FileDataset:
    """The dataset of a DICOM file; its elements are raw and keep the bytes they arrived in.

    Raises one of UNREADABLE when it is not DICOM, Refused when it is truncated before its pixels (`truncated-dataset`,
    `truncated-pixel-data`) or inflates to more than MAX_INFLATED_BYTES (`absurd-size`).
    """
    with without_warnings():
        file = BytesIO(part10)
        file.seek(_PART10_PREFIX)
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 0x0002)
        data, at, deflated = part10, file.tell(), meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        if deflated:
            data, at, file = _inflated(part10[at:]), 0, BytesIO(part10[:at])
        file.seek(0)
        opened = read_partial(file, stop_when=lambda *_: True)  # preamble and File Meta
        implicit_vr, little_endian = (False, True) if deflated else (bool(one) for one in opened.original_encoding)
        found = _film(data, at, implicit_vr, little_endian)
        film = FileDataset(file, found, opened.preamble, opened.file_meta, implicit_vr, little_endian)
        film.set_original_encoding(implicit_vr, little_endian, found._character_set)
    return film


class _Head(NamedTuple):
    """Tag, VR and length of the last element that was begun; `value`: the offset of its value."""

    tag: BaseTag
    vr: str | None
    length: int
    value: int


def read_elements(
    data: bytes,
    at: int,
    implicit_vr: bool,
    little_endian: bool,
    stop: Callable[[BaseTag], bool],
    tags: Iterable[BaseTag] = (),
) -> tuple[Dataset, _Head | None]:
    """The elements of an encoded dataset from `at` up to one that `stop` selects, or that cannot be read; and the head of the
    element that was begun last. `tags`: only these. Raises one of UNREADABLE when nothing can be read."""
    last: list[_Head] = []

    def note_and_stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        last[:] = [_Head(tag, vr, length, file.tell())]
        return stop(tag)

    def read() -> Dataset:
        file.seek(at)
        most = len(data) - at
        return read_dataset(file, implicit_vr, little_endian, most, note_and_stop, specific_tags=list(tags) or None)  # type: ignore[arg-type]

    file = BytesIO(data)
    try:
        found = read()
    except RecursionError:
        raise
    except UNREADABLE:
        if not last:
            raise
        failed = last[0]
        file = BytesIO(data[: failed.value - (12 if failed.vr in EXPLICIT_VR_LENGTH_32 else 8)])  # PS3.5 section 7.1.2
        found = read()
        last[:] = [failed]
    return found, last[0] if last else None


def _film(data: bytes, at: int, implicit_vr: bool, little_endian: bool) -> Dataset:
    found, last = read_elements(data, at, implicit_vr, little_endian, lambda tag: tag == _PIXEL_DATA)
    if last is None or last.tag != _PIXEL_DATA:
        if not _is_whole(data, found, last):
            raise Refused("truncated-dataset", "The dataset stops before its end: it was cut off, or a length in it is wrong.")
        return found
    if last.length == _UNDEFINED_LENGTH:
        end, behind = end_of_items(data, last.value)
    else:
        end = behind = min(last.value + last.length, len(data))
    if end == last.value and last.length:
        raise Refused("truncated-pixel-data", "The file stops where its pixels begin.")
    pixels = RawDataElement(
        _PIXEL_DATA, last.vr, last.length, data[last.value : end], last.value, last.vr is None, little_endian
    )
    film = Dataset(_behind(data, behind, implicit_vr, little_endian) | _raw(found) | {_PIXEL_DATA: pixels})
    film.set_original_encoding(implicit_vr, little_endian, found._character_set)
    return film


def _raw(dataset: Dataset) -> Elements:
    return {tag: dataset.get_item(tag, keep_deferred=True) for tag in dataset.keys()}  # noqa: SIM118 (iterates over elements)


def _is_whole(data: bytes, found: Dataset, last: _Head | None) -> bool:
    """Whether a dataset without pixels ends where its last element ends."""
    if last is None or last.tag not in found:
        return False
    return last.length == _UNDEFINED_LENGTH or last.value + last.length == len(data)


def _behind(data: bytes, at: int, implicit_vr: bool, little_endian: bool) -> Elements:
    """The elements after the pixels that can be read: those of a film whose tags are out of order, or none."""

    def stop(tag: BaseTag) -> bool:
        return not _FIRST_GROUP <= tag.group < _PIXEL_DATA.group

    try:
        found, _ = read_elements(data, at, implicit_vr, little_endian, stop)
    except UNREADABLE:
        return {}
    return {
        tag: one for tag, one in _raw(found).items() if isinstance(one, RawDataElement) and len(one.value or b"") == one.length
    }


def _inflated(deflated: bytes) -> bytes:
    """As much as can be inflated (PS3.5 section A.5). Kilobytes may inflate to any size, so the size is measured first."""
    if sum(len(part) for part in _parts(deflated)) > MAX_INFLATED_BYTES:
        raise Refused("absurd-size", f"The deflated dataset inflates to more than {MAX_INFLATED_BYTES // 2**20} MiB.")
    return b"".join(_parts(deflated))


def _parts(deflated: bytes) -> Iterator[bytes]:
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while deflated and not inflater.eof and size <= MAX_INFLATED_BYTES:
        try:
            part = inflater.decompress(deflated, _INFLATED_AT_ONCE)
        except zlib.error:
            if not size:
                raise
            return  # damaged: the part before is kept
        size, deflated = size + len(part), inflater.unconsumed_tail
        yield part
