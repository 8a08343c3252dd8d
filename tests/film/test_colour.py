"""A grey film that is stored in colour is a film, in whatever colour space, planes or palette; a coloured picture is none
(dcm4che#565, pydicom#2280, dicom-rs#829)."""

from __future__ import annotations

import io

import numpy as np
import pytest
from encapsulated_films import SHAPE, base
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from small_film import picture, read_back

from segmenter.film.decode import decode
from segmenter.film.gate import SkippedFilm, gate
from segmenter.notes import NoteCode
from segmenter.settings import Settings

GREY = np.rint(picture(SHAPE) * 255).astype(np.uint8)
SMOOTH = np.rint((0.2 + 0.6 * picture(SHAPE)) * 255).astype(np.uint8)  # as dull as a film can be
RIGHT = decode(base(kind="SC", bits=8, window=False)).image
FLAT = np.full_like(GREY, 128)


def film(photometric: str, pixels: np.ndarray | bytes, planar: int | None = 0, *, bits: int = 8) -> Dataset:
    found = base(kind="SC", bits=8, window=False)
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, photometric
    found.BitsAllocated, found.BitsStored, found.HighBit = (8 if bits == 8 else 16), bits, bits - 1
    if planar is not None:
        found.PlanarConfiguration = planar
    if isinstance(pixels, bytes):
        found.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        found.PixelData = encapsulate([pixels])
    else:
        found.PixelData = np.ascontiguousarray(pixels).tobytes()
    found["PixelData"].VR = "OB" if bits == 8 else "OW"
    return found


def jpeg(pixels: np.ndarray, *, jfif: bool = True, ids: bytes = b"", **how) -> bytes:
    """With a JFIF marker or without, its components named by `ids`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **how)
    made = buffer.getvalue()
    if not jfif and made[2:4] == b"\xff\xe0":
        made = made[:2] + made[4 + int.from_bytes(made[4:6]) :]
    for marker, step, first in ((b"\xff\xc0", 3, 10), (b"\xff\xda", 2, 5)):
        at = made.index(marker)
        for number, name in enumerate(ids):
            made = made[: at + first + step * number] + bytes([name]) + made[at + first + step * number + 1 :]
    return made


RGB = np.stack([GREY] * 3, 2)
TINTED = np.stack([GREY, np.full_like(GREY, 118), np.full_like(GREY, 140)], 2)
GREY_FILMS = {
    "RGB": lambda: film("RGB", RGB),
    "RGB of 12 bits": lambda: film("RGB", RGB.astype(np.uint16) * 16, bits=12),
    "planes": lambda: film("RGB", RGB.transpose(2, 0, 1), 1),
    "planes that are not said": lambda: film("RGB", RGB.transpose(2, 0, 1), None),
    "PlanarConfiguration absent": lambda: film("RGB", RGB, None),
    "PlanarConfiguration 2": lambda: film("RGB", RGB, 2),
    "planes that are said and are none": lambda: film("RGB", RGB, 1),
    "no planes that are said to be": lambda: film("RGB", RGB.transpose(2, 0, 1), 0),
    "YBR_FULL": lambda: film("YBR_FULL", np.stack([GREY, FLAT, FLAT], 2)),
    "YBR_FULL without PlanarConfiguration": lambda: film("YBR_FULL", np.stack([GREY, FLAT, FLAT], 2), None),
    "YBR_FULL in planes, not said": lambda: film("YBR_FULL", np.stack([GREY, FLAT, FLAT]), None),
    "YBR that is said to be RGB": lambda: film("RGB", np.stack([GREY, FLAT, FLAT], 2)),
    "RGB that is said to be YBR": lambda: film("YBR_FULL", RGB),
    "a constant tint": lambda: film("YBR_FULL", TINTED),
    "YBR_FULL_422": lambda: film("YBR_FULL_422", np.stack([GREY[:, ::2], GREY[:, 1::2], FLAT[:, ::2], FLAT[:, ::2]], 2)),
    "YBR_FULL_422 that is whole": lambda: film("YBR_FULL_422", np.stack([GREY, FLAT, FLAT], 2)),
    "three samples, MONOCHROME2": lambda: film("MONOCHROME2", RGB),
    "three samples, nothing": lambda: film("", RGB),
    "JPEG": lambda: film("YBR_FULL_422", jpeg(RGB)),
    "JPEG, RGB said": lambda: film("RGB", jpeg(RGB)),
    "JPEG, RGB said, no JFIF": lambda: film("RGB", jpeg(RGB, jfif=False)),
    "JPEG, RGB said, no JFIF, no planes said": lambda: film("RGB", jpeg(RGB, jfif=False), None),
    "JPEG, no JFIF": lambda: film("YBR_FULL", jpeg(RGB, jfif=False)),
    "JPEG of RGB": lambda: film("RGB", jpeg(RGB, keep_rgb=True)),
    "JPEG of RGB, YBR said": lambda: film("YBR_FULL_422", jpeg(RGB, keep_rgb=True)),
    "JPEG of RGB, components 1 2 3": lambda: film("RGB", jpeg(RGB, keep_rgb=True, ids=b"\1\2\3")),
    "JPEG of RGB, components 1 2 3, YBR said": lambda: film("YBR_FULL", jpeg(RGB, keep_rgb=True, ids=b"\1\2\3")),
    "JPEG, components 0 1 2, RGB said": lambda: film("RGB", jpeg(RGB, jfif=False, ids=b"\0\1\2")),
    "JPEG of one sample, three said": lambda: film("RGB", jpeg(GREY)),
    "JPEG of one sample, YBR said": lambda: film("YBR_FULL_422", jpeg(GREY)),
}


@pytest.mark.parametrize("name", GREY_FILMS)
def test_a_grey_film_in_colour_is_read(name: str) -> None:
    dataset = GREY_FILMS[name]()
    found = decode(read_back(dataset))
    assert np.abs(found.image - RIGHT).max() < (0.05 if "JPEG" in name else 0.011)
    assert (NoteCode.GREY_FROM_COLOUR in found.notes) == ("one sample" not in name)
    unsaid = "JPEG" not in name and any(
        word in name for word in ("absent", "without", "not said", "are none", "said to be", " 2")
    )
    assert (NoteCode.PLANAR_ASSUMED in found.notes) == (unsaid and "YBR that" not in name and "RGB that" not in name)


def test_the_number_of_bytes_says_how_many_samples_there_are() -> None:
    right = decode(base(kind="SC", bits=8, window=False)).content_sha256
    one = base(kind="SC", bits=8, window=False)
    one.SamplesPerPixel = 3
    three = film("RGB", RGB)
    three.SamplesPerPixel = 1
    for dataset in (one, three):
        found = decode(read_back(dataset))
        assert NoteCode.SAMPLES_ASSUMED in found.notes and found.content_sha256 == right


@pytest.mark.parametrize("samples", [1, None, ""])
def test_a_stream_of_three_samples_under_a_grey_header(samples: int | None) -> None:
    dataset = film("MONOCHROME2", jpeg(RGB))
    dataset.SamplesPerPixel = samples
    found = decode(read_back(dataset))
    assert np.abs(found.image - RIGHT).max() < 0.05 and NoteCode.SAMPLES_ASSUMED in found.notes


def test_smooth_planes_are_not_taken_for_colours() -> None:
    """Neighbours of a dull film are nearly equal, so that its planes nearly look like grey pixels side by side."""
    right = decode(film("RGB", np.stack([SMOOTH] * 3, 2))).content_sha256
    for planar in (0, 1, None):
        assert decode(film("RGB", np.stack([SMOOTH] * 3), planar)).content_sha256 == right


def coloured() -> np.ndarray:
    found = RGB.copy()
    found[:60, :, 0] //= 3
    return found


@pytest.mark.parametrize(
    "dataset",
    [
        film("RGB", coloured()),
        film("RGB", coloured(), None),
        film("RGB", coloured().transpose(2, 0, 1), 1),
        film("YBR_FULL_422", jpeg(coloured())),
        film("RGB", jpeg(coloured(), jfif=False)),
        film("RGB", jpeg(coloured(), keep_rgb=True)),
        film("RGB", np.stack([GREY, FLAT * 0, FLAT * 0], 2)),  # all red
    ],
)  # fmt: skip
def test_a_coloured_picture_is_none(dataset: Dataset) -> None:
    with pytest.raises(SkippedFilm) as skipped:
        decode(dataset)
    assert skipped.value.skip.code == "colour"


def palette(*entries: np.ndarray, bits: int, said: tuple[int, int, int] | None = None) -> Dataset:
    """The film as indices into three palettes."""
    found = base(kind="SC", bits=8, window=False)
    found.PhotometricInterpretation = "PALETTE COLOR"
    for name, one in zip(("Red", "Green", "Blue"), entries * (3 // len(entries)), strict=True):
        data = one.astype(np.uint8).tobytes() if bits == 8 else one.astype("<u2").tobytes()
        found.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", list(said or (len(one), 0, bits)))
        setattr(found, f"{name}PaletteColorLookupTableData", data)
    return found


RAMP = np.arange(256)


@pytest.mark.parametrize(
    ("dataset", "falls"),
    [
        (palette(RAMP, bits=8), False),
        (palette(255 - RAMP, bits=8), True),
        (palette(RAMP * 257, bits=16), False),
        (palette(65535 - RAMP * 257, bits=16), True),
        (palette(RAMP, bits=16, said=(256, 0, 16)), False),
        (palette(RAMP[:255], bits=8, said=(256, 0, 8)), False),
    ],
)  # fmt: skip
def test_a_palette_of_greys_is_applied(dataset: Dataset, falls: bool) -> None:
    assert gate(dataset, Settings(min_side_px=100)) is None
    found = decode(read_back(dataset))
    assert np.abs(found.image - RIGHT).max() < 0.03
    assert NoteCode.GREY_FROM_COLOUR in found.notes
    assert (NoteCode.POLARITY_CHANGED in found.notes) == falls, "shown with bright lungs; the pixels are sure"


def test_a_palette_of_colours_is_none() -> None:
    for dataset in (palette(RAMP, RAMP // 2, RAMP // 3, bits=8), base(kind="SC", bits=8)):
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        with pytest.raises(SkippedFilm) as skipped:
            decode(read_back(dataset))
        assert skipped.value.skip.code == "colour"
