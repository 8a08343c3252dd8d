"""The bytes of a received film: where the dataset begins, its sha256, its header, and what must not be inflated."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_node.errors import SourceDamaged
from dicom_node.job import Job
from segmenter.errors import Refused

MAX_INFLATED_BYTES = 512 * 2**20
_MAX_HEADER_BYTES = 256 * 1024

# What pydicom raises on bytes that are no dataset.
UNREADABLE = (
    InvalidDicomError, BytesLengthException, OSError, ValueError, EOFError, NotImplementedError, struct.error, LookupError,
    TypeError, AttributeError, RecursionError, OverflowError, zlib.error,
)  # fmt: skip


def read_film(data: bytes, job: Job) -> pydicom.FileDataset:
    """The film of a job from the bytes of its Part 10 file.

    Raises SourceDamaged when it is not what arrived, Refused when it would inflate beyond reason or brings a File Meta
    group of its own, and UNREADABLE when it is no DICOM.
    """
    if dataset_sha256(data) != job.arrival.dataset_sha256:
        raise SourceDamaged("The stored film does not have the sha256 with which it arrived: the disk is not sound.")
    if job.arrival.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        _refuse_bomb(data)
    film = pydicom.dcmread(io.BytesIO(data))
    # Elements of group 0002 at the head of a dataset are taken for ours, and the sender would choose the syntax twice.
    if film.file_meta.get("TransferSyntaxUID") != job.arrival.transfer_syntax_uid:
        raise Refused("not-dicom", "The dataset begins with File Meta elements that name another transfer syntax.")
    return film


def dataset_sha256(part10: bytes) -> str:
    """sha256 of the dataset of a Part 10 file that we wrote."""
    return hashlib.sha256(dataset_bytes(part10)).hexdigest()


def dataset_bytes(part10: bytes) -> memoryview:
    """All that follows the File Meta group (PS3.10 7.1): 128 bytes preamble, DICM, (0002,0000) UL with the group's length."""
    return memoryview(part10)[144 + int.from_bytes(part10[140:144], "little") :]


def header(
    data: bytes | memoryview, transfer_syntax_uid: str, keywords: Sequence[str], most: int = _MAX_HEADER_BYTES
) -> Dataset:
    """The named elements of an encoded dataset, from its first `most` bytes; empty when these can not be read."""
    syntax, tags = UID(transfer_syntax_uid), [Tag(keyword) for keyword in keywords]
    last = max(tags)

    def beyond(tag: BaseTag, *_: object) -> bool:
        return tag > last

    try:
        begin = bytes(data[:most])
        if syntax.is_deflated:
            begin = zlib.decompressobj(-zlib.MAX_WBITS).decompress(begin, most)
        found = read_dataset(
            io.BytesIO(begin), syntax.is_implicit_VR, syntax.is_little_endian, stop_when=beyond, specific_tags=list(tags)
        )
        return Dataset(found)
    except UNREADABLE:
        return Dataset()


def _refuse_bomb(part10: bytes) -> None:
    """A deflated dataset of some kilobytes may inflate to any size: look before pydicom does it (PS3.5 A.5)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, rest = 0, bytes(dataset_bytes(part10))
    while rest and not inflater.eof:
        try:
            inflated += len(inflater.decompress(rest, 16 * 1024 * 1024))
        except zlib.error:
            return  # pydicom says it better
        if inflated > MAX_INFLATED_BYTES:
            raise Refused("absurd-size", f"The deflated dataset inflates to more than {MAX_INFLATED_BYTES // 2**20} MiB.")
        rest = inflater.unconsumed_tail
