"""Compressed films as dcmtk and GDCM read them: wrong or missing offset tables, many fragments, bytes behind the end, another
transfer syntax than the file says (pydicom#1942, fo-dicom#992, dcm4chee-arc-light#752)."""

from __future__ import annotations

import struct
import subprocess

import numpy as np
import pydicom
import pytest
from encapsulated_films import END, LOSSLESS, base, part10, pieces, read, stored, whole
from film_parts import ENCODERS, item
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from small_film import write

from segmenter.errors import Refused
from segmenter.film.decode import decode
from segmenter.film.parse import parse
from segmenter.notes import NoteCode


def odd(stream: bytes) -> bytes:
    """Fragments of 511 bytes, padded, their lengths not: the padding belongs to no item."""
    parts = [stream[at : at + 511] for at in range(0, len(stream), 511)]
    return b"".join(item(part, len(part)) + b"\0" * (len(part) % 2) for part in parts)


ITEMS = {
    "no table": lambda s: item(s) + END,
    "no table, many": lambda s: pieces(s) + END,
    "a table of 4096": lambda s: item(struct.pack("<I", 4096)) + pieces(s) + END,
    "a table of two": lambda s: item(struct.pack("<II", 0, len(s) // 2)) + pieces(s) + END,
    "a table of the last byte": lambda s: item(struct.pack("<I", 0xFFFFFFFF)) + pieces(s) + END,
    "a table of three bytes": lambda s: item(b"\0\0\0") + pieces(s) + END,
    "a table of one offset a fragment": lambda s: (
        item(struct.pack(f"<{-(-len(s) // 512)}I", *range(0, 520 * -(-len(s) // 512), 520))) + pieces(s) + END
    ),
    "two empty tables": lambda s: item(b"") + item(b"") + pieces(s) + END,
    "empty fragments": lambda s: item(b"") + item(s[:100]) + item(b"") + item(s[100:]) + item(b"") + END,
    "odd fragments": lambda s: item(b"") + odd(s) + END,
    "a last fragment longer than the file": lambda s: item(b"") + item(s, len(s) + 4096),
    "a last fragment that is too short": lambda s: item(b"") + item(s, len(s) - 20) + END,
    "zeros behind the end": lambda s: whole(s + bytes(3000)),
    "FF behind the end": lambda s: whole(s + b"\xff" * 3000),
    "text behind the end": lambda s: whole(s + b"made by a console " * 200),
    "the stream twice": lambda s: whole(s + s),
}


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("how", ITEMS)
def test_the_fragments_of_a_film_are_one_stream(how: str, name: str, film: Dataset, streams: dict[str, bytes]) -> None:
    found = read(part10(film, ENCODERS[name][0], ITEMS[how](streams[name])))
    assert found.content_sha256 == decode(film).content_sha256
    assert (NoteCode.SURPLUS_PIXELS in found.notes) == (how[:2] in ("FF", "te", "th") and name != "RLE")


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_stream_alone_and_items_with_a_length_are_read(name: str, film: Dataset, streams: dict[str, bytes]) -> None:
    stream, syntax = streams[name], ENCODERS[name][0]
    for value in (stream, whole(stream), whole(stream)[:-8]):
        assert read(part10(film, syntax, value, items=False)).content_sha256 == decode(film).content_sha256


@pytest.mark.parametrize("said", [ExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_pixels_are_decoded_by_what_they_are(said: str, film: Dataset, streams: dict[str, bytes]) -> None:
    expected = decode(film).content_sha256
    for name in LOSSLESS:
        found = read(part10(film, said, whole(streams[name])))
        assert found.content_sha256 == expected
        assert (NoteCode.SYNTAX_CONFLICT in found.notes) == (said != ENCODERS[name][0])
    for value, items in ((stored(film).tobytes(), False), (whole(stored(film).tobytes()), True)):
        found = read(part10(film, said, value, items=items))
        assert found.content_sha256 == expected
        assert (NoteCode.SYNTAX_CONFLICT in found.notes) == (said != ExplicitVRLittleEndian)


@pytest.mark.parametrize("name", LOSSLESS)
def test_half_a_stream_is_truncated_however_it_is_put(name: str, film: Dataset, streams: dict[str, bytes]) -> None:
    stream = streams[name]
    for share in (0.3, 0.6, 0.95):
        half = stream[: int(share * len(stream)) // 2 * 2]
        for value in (
            item(b"") + item(half) + END,
            item(half) + END,
            item(b"") + pieces(half),
            item(b"") + item(half + bytes(900)) + END,
        ):
            with pytest.raises(Refused) as refused:
                read(part10(film, ENCODERS[name][0], value))
            assert refused.value.code == "truncated-pixel-data"


def test_an_end_in_the_middle_is_no_end(film: Dataset, streams: dict[str, bytes]) -> None:
    """Decoders would leave the rest of the film grey. Result: refused, wherever it stands and whatever follows."""
    for name in ("JPEG lossless", "JPEG-LS"):
        stream = streams[name]
        for share in (0.2, 0.5, 0.8):
            at = int(share * len(stream))
            for broken in (stream[:at] + b"\xff\xd9" + stream[at:], stream[:at] + b"\xff\xd9" + stream[at + 2 :]):
                with pytest.raises(Refused):
                    read(part10(film, ENCODERS[name][0], whole(broken)))


@pytest.mark.parametrize(
    ("command", "bits", "said"),
    [
        (("dcmcjpeg", "+eb", "+q", "95"), 8, JPEGLosslessSV1),
        (("dcmcjpeg", "+eb", "+q", "95"), 8, JPEGExtended12Bit),
        (("dcmcjpeg", "+ee", "+q", "98"), 12, JPEGBaseline8Bit),
        (("dcmcjpeg", "+el"), 12, JPEGLosslessSV1),
        (("dcmcjpls", "+en", "+md", "4"), 12, JPEGLSLossless),
    ],
)  # fmt: skip
def test_lossy_streams_under_another_name(command, bits, said, tool, tmp_path) -> None:
    film = base(bits=bits)
    source, target = write(film, tmp_path / "in.dcm"), tmp_path / "out.dcm"
    subprocess.run([tool(command[0]), *command[1:], source, target], check=True, capture_output=True)
    made = pydicom.dcmread(target)
    right = decode(made)
    made.file_meta.TransferSyntaxUID = said
    assert np.array_equal(decode(made).image, right.image)
    stream = next(generate_frames(made.PixelData, number_of_frames=1))
    made.PixelData = encapsulate([stream + b"\xff\xff" * 500], has_bot=False)
    assert np.array_equal(decode(made).image, right.image)


def test_a_jpeg_2000_stream_in_boxes_or_without_its_end(film: Dataset, streams: dict[str, bytes]) -> None:
    stream, expected = streams["JPEG 2000"].rstrip(b"\0"), decode(film).content_sha256
    assert stream.endswith(b"\xff\xd9")
    boxes = bytes.fromhex("0000000c6a5020200d0a870a00000014667479706a703220000000006a703220") + struct.pack(">L4s", 0, b"jp2c")
    for one in (stream[:-2], boxes + stream, boxes + stream + b"\0\0\0\x0cxml <a/>" + bytes(400)):
        assert read(part10(film, JPEG2000Lossless, whole(one))).content_sha256 == expected


def test_the_film_of_a_broken_file_has_its_own_header(film: Dataset, streams: dict[str, bytes]) -> None:
    found = parse(part10(film, RLELossless, item(b"") + pieces(streams["RLE"])))
    assert (found.PatientID, found.SOPInstanceUID) == (film.PatientID, film.SOPInstanceUID)
