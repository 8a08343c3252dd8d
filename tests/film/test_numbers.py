"""Numbers as they are really written, and the windows that they make (fo-dicom#1296, fo-dicom#1915,
dcmjs#287, dicom-rs#826)."""

from __future__ import annotations

import numpy as np
import pytest
from encapsulated_films import base, put, stored
from pydicom.dataset import Dataset
from small_film import raw, read_back

from segmenter.film.decode import decode
from segmenter.film.geometry import aspect_of, spacing_of
from segmenter.film.header import integer, number, numbers
from segmenter.film.number_text import as_number, as_pair
from segmenter.notes import NoteCode


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("1", 1), ("-1.5", -1.5), ("+.5", 0.5), ("5.", 5), ("1.43E-1", 0.143), ("0.14300000000000000001", 0.143),
        ("1,0", 1), ("-1,0", -1), (",5", 0.5), ("5,", 5), ("0,1430", 0.143), ("1,43E-1", 0.143), ("1,43e-01", 0.143),
        ("1.43D-1", 0.143), ("1.43 E-1", 0.143), ("- 1", -1), ("\u22121,5", -1.5),
        ("1.234,5", 1234.5), ("1,234.5", 1234.5), ("1 234,5", 1234.5), ("1'234.5", 1234.5), ("1\xa0234,5", 1234.5),
        ("1,234,567", 1234567), ("1.234.567", 1234567), ("12.345.678,9", 12345678.9),
        ("[2048]", 2048), ("(2048)", 2048), ("['0.143']", 0.143), ('"0.143"', 0.143), ("<2048>", 2048), ("=2048", 2048),
        ("0.143 mm", 0.143), ("0,143mm", 0.143), ("0.143 mm2", 0.143), ("0.143 mm/pixel", 0.143), ("2048 HU", 2048),
        ("W: 2048", 2048), ("2048;", 2048), ("~2048", 2048), ("2048 (auto)", 2048),
        ("", None), ("x", None), ("NaN", None), ("nan", None), ("inf", None), ("-Infinity", None), ("1.#QNAN", None),
        ("1.#IND", None), ("1e999", None), ("1.2.3", None), ("1,2,3", None), ("12abc34", None), ("2020-01-02", None),
        ("1-2", None), ("--", None), (".", None), (",", None), ("1_000", None), ("0x10", None), ("N/A", None), ("1/2", None),
    ],
)  # fmt: skip
def test_a_number_is_read_as_it_was_meant(said: str, meant: float | None) -> None:
    assert as_number(said) == (None if meant is None else pytest.approx(meant))


@pytest.mark.parametrize(
    "said",
    ["0.2;0.1", "0.2 0.1", "0.2, 0.1", "0.2,0.1", "0,2;0,1", "0,2 0,1", "0,2, 0,1", "0,2,0,1", "[0.2, 0.1]", "0.2x0.1",
     "0.2/0.1", "0.2 x 0.1", "0.2|0.1"],
)  # fmt: skip
def test_two_numbers_in_one_text(said: str) -> None:
    assert as_pair(said) == (0.2, 0.1)
    film = raw(base(), PixelSpacing=said.encode() + b" " * (len(said) % 2))
    assert numbers(film, "PixelSpacing") == (0.2, 0.1)
    assert spacing_of(film).row_mm == 0.2 and NoteCode.NUMBER_REPAIRED in decode(film).notes


def test_one_number_is_no_pair() -> None:
    for said in ("0.143", "0,143", "1,5", "0.1 0.2 0.3", "", "x"):
        assert as_pair(said) is None


BYTES = {
    "PixelSpacing": {
        b"0,2\\0,1 ": (0.2, 0.1), b"0.2\\0.1\\": (0.2, 0.1), b"0.2mm\\0.1mm ": (0.2, 0.1), b"[0.2\\0.1]": (0.2, 0.1),
        b"0.2 \\ 0.1 ": (0.2, 0.1), b"0.2\\0.1\0": (0.2, 0.1), b"0.2\\": (0.2,), b"\\0.1": (), b"0.2\\x ": (), b"  ": (),
    },
    "PixelAspectRatio": {b"2\\1 ": (2, 1), b"2,0\\1,0 ": (2, 1), b"2:1 ": (2, 1), b"2.0\\1.0 ": (2, 1), b"2/1 ": (2, 1)},
}  # fmt: skip


@pytest.mark.parametrize(("keyword", "said", "meant"), [(k, b, m) for k, one in BYTES.items() for b, m in one.items()])
def test_values_of_an_element(keyword: str, said: bytes, meant: tuple[float, ...]) -> None:
    film = raw(base(), **{keyword: said + b" " * (len(said) % 2)})
    assert numbers(film, keyword) == pytest.approx(meant)
    if keyword == "PixelAspectRatio":
        del film.ImagerPixelSpacing
        assert aspect_of(film, None) == (2, 1)


def test_the_first_number_and_whole_numbers() -> None:
    film = raw(base(), RescaleSlope=b"\\-1,0 ", NumberOfFrames=b"1,0 ", WindowCenter=b"\xff\xfe1 ")
    assert number(film, "RescaleSlope") == -1 and integer(film, "NumberOfFrames") == 1 and number(film, "WindowCenter") == 1


def dull() -> Dataset:
    """Its pixels fill a fifth of the range, so that it needs its window; a black and a white part, so that percentiles do not
    help."""
    found = base(stored_range=(0.3, 0.5))
    cells = stored(found).copy()
    cells[:26, :52], cells[-26:] = 4095, 0
    return put(found, cells)


def window(film: Dataset, centre: bytes, width: bytes) -> Dataset:
    return read_back(raw(film, **{k: v + b" " * (len(v) % 2) for k, v in (("WindowCenter", centre), ("WindowWidth", width))}))


C, W = (str(dull()[k].value).encode() for k in ("WindowCenter", "WindowWidth"))
WINDOWS = {
    "second empty": (C + b"\\", W + b"\\"),
    "second blank": (C + b"\\ ", W + b"\\ "),
    "second NaN": (C + b"\\NaN", W + b"\\NaN"),
    "second is text": (C + b"\\x", W + b"\\y"),
    "first empty": (b"\\" + C, b"\\" + W),
    "first NaN": (b"NaN\\" + C, b"100\\" + W),
    "first width NaN": (b"100\\" + C, b"nan\\" + W),
    "first width 0": (b"100\\" + C, b"0\\" + W),
    "first width negative": (b"100\\" + C, b"-5\\" + W),
    "more centres": (C + b"\\1\\2", W),
    "more widths": (C, W + b"\\1\\2"),
    "decimal comma": (C.replace(b".", b",") + b",0" * (b"." not in C), W.replace(b".", b",") + b",0" * (b"." not in W)),
    "brackets": (b"[" + C + b"]", b"[" + W + b"]"),
    "units": (C + b" HU", W + b" HU"),
    "NUL behind": (C + b"\0\0", W + b"\0\0"),
    "third good": (b"\\x\\" + C, b"1\\2\\" + W),
}


@pytest.mark.parametrize("how", WINDOWS)
def test_the_first_window_that_can_be_read_is_used(how: str) -> None:
    right = decode(dull())
    assert not {NoteCode.WINDOW_IGNORED, NoteCode.GREYS_ASSUMED} & set(right.notes)
    found = decode(window(dull(), *WINDOWS[how]))
    assert found.content_sha256 == right.content_sha256 and np.array_equal(found.image, right.image)
    assert (NoteCode.NUMBER_REPAIRED in found.notes) == (how in ("decimal comma", "brackets", "units"))


def scaled(k: float, centre: float, width: float, function: str = "") -> Dataset:
    film = dull()
    film.RescaleSlope, film.RescaleIntercept, film.RescaleType = f"{k:.10f}", "0", "US"
    film.WindowCenter, film.WindowWidth = f"{centre * k:.10f}", f"{width * k:.10f}"
    if function:
        film.VOILUTFunction = function
    return film


@pytest.mark.parametrize("function", ["", "LINEAR", "LINEAR_EXACT", "LINEAR EXACT", "linear_exact", "LINEAR\\LINEAR", "LOG"])
@pytest.mark.parametrize("k", [1 / 4095, 1e-5, 1 / 500, 1 / 820])
def test_a_window_over_small_values_is_exact(k: float, function: str) -> None:
    """Slopes that bring the pixels to 0..1 and the width below 1, or a little above it."""
    found = decode(scaled(k, float(C) - 0.5, float(W) - 1, function))
    assert NoteCode.GREYS_ASSUMED not in found.notes
    tolerance = 0.01 if k < 1 / 820 or "EXACT" in function.upper() else 1
    assert np.abs(found.image - decode(dull()).image).max() < tolerance


def test_half_and_one_over_values_of_0_to_1() -> None:
    """As LINEAR, a width of 1 is a threshold: such a window can only be meant to show everything."""
    film = base()
    film.RescaleSlope, film.RescaleIntercept, film.RescaleType = f"{1 / 4095:.12f}", "0", "US"
    film.WindowCenter, film.WindowWidth = "0.5", "1"
    found = decode(film)
    assert np.abs(found.image - stored(base()) / 4095).max() < 0.01
    assert not {NoteCode.WINDOW_IGNORED, NoteCode.GREYS_ASSUMED} & set(found.notes)


def test_a_negative_slope_with_a_decimal_comma_inverts() -> None:
    film = base(window=False)
    right = decode(film).image
    put(film, 4095 - stored(film))
    film = read_back(raw(film, RescaleSlope=b"-1,0", RescaleIntercept=b"4095,0"))
    found = decode(film)
    assert np.abs(found.image - right).max() < 0.001 and NoteCode.NUMBER_REPAIRED in found.notes
