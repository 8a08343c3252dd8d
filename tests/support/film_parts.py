"""Films as their elements, to be put together again with or without lies.

pydicom refuses to write most of what the tests want: elements are cut apart by hand here and written by hand.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import gdcm
import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from small_film import small_film, write

SHAPE = (168, 144)
UNDEFINED, PIXEL_DATA, SOP_INSTANCE_UID = 0xFFFFFFFF, 0x7FE00010, 0x00080018
ENCODERS = {
    "RLE": (RLELossless, "RLELossless"),
    "JPEG lossless": (JPEGLosslessSV1, "JPEGLosslessProcess14_1"),
    "JPEG baseline": (JPEGBaseline8Bit, "JPEGBaselineProcess1"),
    "JPEG-LS": (JPEGLSLossless, "JPEGLSLossless"),
    "JPEG 2000": (JPEG2000Lossless, "JPEG2000Lossless"),
}
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, *(s for s, _ in ENCODERS.values()))
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}  # 32-bit lengths


@dataclass
class Element:
    """One element; `length` is what its header says, when that is not the length of its value."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None


@dataclass
class Film:
    """A dataset cut apart. `fragments` are the items of encapsulated pixel data, the offset table first; None: native."""

    kind: str
    syntax: str
    sop_class_uid: str
    elements: list[Element]
    fragments: list[bytes] | None = None
    item_tags: dict[int, bytes] = field(default_factory=dict)  # of fragments that do not begin as items do
    item_lengths: dict[int, int] = field(default_factory=dict)  # of fragments whose length is a lie
    has_delimiter: bool = True
    damage: list[Callable[[bytearray], None]] = field(default_factory=list)  # done to the bytes at last

    def find(self, tag: int) -> Element | None:
        return next((one for one in self.elements if one.tag == tag), None)

    def put(self, tag: int, vr: bytes, value: bytes, length: int | None = None) -> None:
        """Set an element, in its place in the order of tags."""
        self.elements[:] = [one for one in self.elements if one.tag != tag] + [Element(tag, vr, value, length)]
        self.elements.sort(key=lambda one: one.tag)


def bases(folder: Path) -> dict[str, Film]:
    """The sound films, by what is special about them. `folder` is for files on the way."""
    plain = small_film(SHAPE, kind="DX", bits=12, photometric="MONOCHROME1")
    eight = small_film(SHAPE, kind="CR", bits=8)
    films = {
        "explicit": _cut(plain, "explicit"),
        "implicit": replace(_cut(plain, "implicit"), syntax=ImplicitVRLittleEndian),
        "deflated": replace(_cut(eight, "deflated"), syntax=DeflatedExplicitVRLittleEndian),
    }
    for name, (syntax, encoder) in ENCODERS.items():
        films[name] = _cut(gdcm_encoded(eight if name == "JPEG baseline" else plain, encoder, folder), name)
        assert films[name].syntax == syntax
    return films


def encoded(film: Film) -> bytes:
    """The dataset as bytes, its lies included."""
    implicit = film.syntax == ImplicitVRLittleEndian
    if film.fragments is not None and (pixels := film.find(PIXEL_DATA)):
        pixels.value, pixels.length = _items(film), UNDEFINED if pixels.length is None else pixels.length
    data = bytearray(b"".join(element(one, implicit) for one in film.elements))
    if film.syntax == DeflatedExplicitVRLittleEndian:
        squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = bytearray(squeeze.compress(bytes(data)) + squeeze.flush())
    for damage in film.damage:
        damage(data)
    return bytes(data) or b"\0\0"


def nested(depth: int, tag: int = 0x00081140, *, undefined: bool) -> bytes:
    """The value of a sequence that holds one item that holds the same sequence, `depth` times; explicit VR."""
    value = b""
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"SQ", 0)
    for level in range(depth):
        inner = value if not level else head + struct.pack("<L", UNDEFINED if undefined else len(value)) + value
        if undefined:
            value = item(inner, UNDEFINED) + bytes.fromhex("feff0de000000000") + bytes.fromhex("feffdde000000000")
        else:
            value = item(inner)
    return value


# -- bytes ----------------------------------------------------------------------------------------------------------


def even(value: bytes, padding: bytes = b" ") -> bytes:
    return value + padding * (len(value) % 2)


def item(value: bytes, length: int | None = None) -> bytes:
    return bytes.fromhex("feff00e0") + struct.pack("<L", len(value) if length is None else length) + value


def _items(film: Film) -> bytes:
    assert film.fragments is not None
    parts = []
    for number, fragment in enumerate(film.fragments):
        tag = film.item_tags.get(number, bytes.fromhex("feff00e0"))
        parts.append(tag + struct.pack("<L", film.item_lengths.get(number, len(fragment))) + fragment)
    return b"".join(parts) + (bytes.fromhex("feffdde000000000") if film.has_delimiter else b"")


def element(one: Element, implicit: bool) -> bytes:
    length = len(one.value) if one.length is None else one.length
    tag = struct.pack("<HH", one.tag >> 16, one.tag & 0xFFFF)
    if implicit:
        return tag + struct.pack("<L", length & 0xFFFFFFFF) + one.value
    if one.vr in LONG:
        return tag + one.vr + b"\0\0" + struct.pack("<L", length & 0xFFFFFFFF) + one.value
    return tag + one.vr + struct.pack("<H", length & 0xFFFF) + one.value


def _cut(dataset: pydicom.Dataset, kind: str) -> Film:
    """A sound explicit little endian dataset (or one with encapsulated pixels) as its elements."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    data, at, elements, fragments = file.getvalue(), 0, [], None
    while at < len(data):
        group, number, vr = struct.unpack_from("<HH2s", data, at)
        head = 12 if vr in LONG else 8
        [length] = struct.unpack_from("<L" if vr in LONG else "<H", data, at + head - (4 if vr in LONG else 2))
        at += head
        if length == UNDEFINED:
            assert group == 0x7FE0, "only pixels have no length here"
            fragments, length = _fragments_of(data[at:]), len(data) - at
        elements.append(Element(group << 16 | number, vr, data[at : at + length]))
        at += length
    return Film(kind, str(dataset.file_meta.TransferSyntaxUID), str(dataset.SOPClassUID), elements, fragments)


def _fragments_of(data: bytes) -> list[bytes]:
    at, fragments = 0, []
    while data[at : at + 4] == bytes.fromhex("feff00e0"):
        [length] = struct.unpack_from("<L", data, at + 4)
        fragments.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return fragments


def gdcm_encoded(dataset: pydicom.Dataset, encoder: str, folder: Path) -> pydicom.Dataset:
    """The film in the transfer syntax that GDCM calls `encoder`."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write(dataset, folder / "in.dcm")))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, encoder)))
    change.SetInput(reader.GetImage())
    assert change.Change(), encoder
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "out.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return pydicom.dcmread(BytesIO((folder / "out.dcm").read_bytes()))
