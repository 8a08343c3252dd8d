"""The bytes of a received film: where the dataset begins, its sha256, its header."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from dicom_node.runtime.errors import SourceDamaged
from dicom_node.storage.records import Job
from segmenter.errors import Refused
from segmenter.film.parse import UNREADABLE, parse, read_elements

_MAX_HEADER_BYTES = 256 * 1024


def read_film(data: bytes, job: Job) -> pydicom.FileDataset:
    """The film of a job from the bytes of its Part 10 file.

    Raises SourceDamaged when it is not what arrived, Refused when it is cut off before its pixels, would inflate beyond
    reason or begins with a File Meta group of its own, and UNREADABLE when it is not DICOM.
    """
    if dataset_sha256(data) != job.arrival.dataset_sha256:
        raise SourceDamaged("The stored film does not have the sha256 with which it arrived: it was damaged on disk.")
    film = parse(data)
    # Elements of group 0002 at the head of a dataset would pass for ours: the sender would name a second transfer syntax.
    if film.file_meta.get("TransferSyntaxUID") != job.arrival.transfer_syntax_uid:
        raise Refused("not-dicom", "The dataset begins with File Meta elements that name another transfer syntax.")
    return film


def dataset_sha256(part10: bytes) -> str:
    """sha256 (hexadecimal) of the dataset of a Part 10 file that this node wrote."""
    return hashlib.sha256(dataset_bytes(part10)).hexdigest()


def dataset_bytes(part10: bytes) -> memoryview:
    """All after the File Meta group (PS3.10 7.1): 128 bytes of preamble, DICM, (0002,0000) UL with the group's length."""
    return memoryview(part10)[144 + int.from_bytes(part10[140:144], "little") :]


def header(
    data: bytes | memoryview, transfer_syntax_uid: str, keywords: Sequence[str], most: int = _MAX_HEADER_BYTES
) -> Dataset:
    """The elements `keywords` of an encoded dataset, from its first `most` bytes, as far as these are readable."""
    syntax, tags = UID(transfer_syntax_uid), [Tag(keyword) for keyword in keywords]
    last = max(tags)
    try:
        begin = bytes(data[:most])
        if syntax.is_deflated:
            begin = zlib.decompressobj(-zlib.MAX_WBITS).decompress(begin, most)
        found, _ = read_elements(begin, 0, syntax.is_implicit_VR, syntax.is_little_endian, lambda tag: tag > last, tags)
        return Dataset(found)
    except UNREADABLE:
        return Dataset()
