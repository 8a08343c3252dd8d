"""Files whose end cannot be parsed: what precedes the pixels is kept, a whole film is read, and a cut one is refused and never
skipped (pydicom#1799, pydicom#1942, dicom-rs#448)."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from encapsulated_films import END, LOSSLESS, part10, pieces, read, whole
from film_parts import ENCODERS, item
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.storage.part10 import header
from segmenter.errors import Refused
from segmenter.film.decode import decode
from segmenter.film.gate import gate
from segmenter.film.parse import UNREADABLE, parse
from segmenter.settings import Settings

SETTINGS = Settings(min_side_px=100)
BEHIND = {
    "nothing": b"",
    "words 0FFF": b"\xff\x0f" * 496,
    "black words": b"\x00\x08" * 496,
    "FF": b"\xff" * 992,
    "zeros": bytes(993),
    "an element without its value": b"\xfc\xff\xfc\xffOB\0\0\0\1\0\0",
    "a sequence that does not end": b"\xfa\xff\xfa\xffSQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff",
    "half a head": b"\xfc\xff\xfc",
    "another PhotometricInterpretation": b"\x28\0\4\0CS\x0c\0MONOCHROME1 ",
}


@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_the_pixels_does_no_harm(behind: str, film: Dataset, streams: dict[str, bytes]) -> None:
    expected = decode(film).content_sha256
    assert read(part10(film) + BEHIND[behind]).content_sha256 == expected
    for name in ("JPEG lossless", "JPEG 2000"):
        file = part10(film, ENCODERS[name][0], whole(streams[name])) + BEHIND[behind]
        assert read(file).content_sha256 == expected, name


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_stream_needs_no_delimiter(name: str, film: Dataset, streams: dict[str, bytes]) -> None:
    expected = decode(film).content_sha256
    for value in (whole(streams[name])[: -len(END)], whole(streams[name])[:-3], item(b"") + pieces(streams[name])):
        assert read(part10(film, ENCODERS[name][0], value)).content_sha256 == expected


def ends(file: bytes, at: int) -> str:
    """What becomes of the file's first `at` bytes."""
    try:
        found = parse(file[:at])
        skip = gate(found, SETTINGS)
        if skip is not None:
            return f"skipped: {skip.code}"
        decode(found)
    except Refused as refused:
        return refused.code
    except UNREADABLE:
        return "not-dicom"
    return "answered"


CUT = {"truncated-dataset", "truncated-pixel-data", "not-dicom"}


@pytest.mark.parametrize("name", [None, *LOSSLESS])
def test_a_film_that_is_cut_anywhere_fails_as_truncated(name: str | None, film: Dataset, streams: dict[str, bytes]) -> None:
    file = part10(film, ENCODERS[name][0], whole(streams[name])) if name else part10(film)
    pixels = file.index(b"\xe0\x7f\x10\x00")
    begin = 144 + int.from_bytes(file[140:144], "little")
    head = {at: ends(file, at) for at in (*range(begin + 1, pixels, 37), pixels - 1, *range(pixels + 1, pixels + 13))}
    assert set(head.values()) <= {"truncated-dataset", "truncated-pixel-data", "skipped: no-pixels", "skipped: missing-uid"}
    between = {at for at, end in head.items() if end.startswith("skipped")}  # nothing shows there that there was more
    assert len(between) <= 0.05 * len(head), between
    body = {at: ends(file, at) for at in np.linspace(pixels + 13, len(file) - 24, 12, dtype=int)}
    assert set(body.values()) <= {"truncated-pixel-data"}, body


def test_a_deflated_film_that_is_cut_is_truncated(film: Dataset) -> None:
    plain = part10(film)
    begin = 144 + int.from_bytes(plain[140:144], "little")
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    meta = part10(film, DeflatedExplicitVRLittleEndian)
    meta = meta[: 144 + int.from_bytes(meta[140:144], "little")]
    file = meta + squeeze.compress(plain[begin:]) + squeeze.flush()
    assert ends(file, len(file)) == "answered"
    for share in (0.2, 0.5, 0.9):
        assert ends(file, len(meta) + int(share * (len(file) - len(meta)))).startswith("truncated")


def test_an_implicit_film_without_its_last_bytes_is_truncated(film: Dataset) -> None:
    film = parse(part10(film))
    film.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    film.set_original_encoding(True, True, film._character_set)
    buffer = BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    file = buffer.getvalue()
    assert (ends(file, len(file)), ends(file, len(file) - 9)) == ("answered", "truncated-pixel-data")
    assert ends(file + b"\xff" * 99, len(file) + 99) == "answered"


def test_elements_behind_the_pixels_are_read_where_they_are_sound(film: Dataset) -> None:
    """A film whose elements are out of order: they count, unless the same stand before the pixels."""
    file = part10(film)
    begin, pixels = 144 + int.from_bytes(file[140:144], "little"), file.index(b"\xe0\x7f\x10\x00")
    turned = file[:begin] + file[pixels:] + file[begin:pixels]
    assert decode(parse(turned)).content_sha256 == decode(film).content_sha256
    assert parse(turned).PatientID == film.PatientID


def test_rules_see_what_precedes_an_element_that_cannot_be_read(film: Dataset) -> None:
    data = part10(film)[144 + int.from_bytes(part10(film)[140:144], "little") :]
    at = data.index(b"\x18\0\x15\0")  # BodyPartExamined
    broken = data[:at] + struct.pack("<HH2sHL", 0x0010, 0x9999, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\x08\0\0\0abc"
    found = header(broken, "1.2.840.10008.1.2.1", ["Modality", "Rows"])
    assert found.Modality == "CR" and "Rows" not in found
