"""Bits outside BitsStored: cut, unless the picture says that the header is wrong (PS3.5 8.1.1; vtk-dicom#134, pydicom#2066,
pydicom#2260)."""

from __future__ import annotations

import numpy as np
import pytest
from encapsulated_films import base, put, stored
from pydicom.dataset import Dataset
from small_film import picture, small_film

from segmenter.film.decode import decode
from segmenter.notes import NoteCode

SHAPE = (300, 264)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def textured() -> np.ndarray:
    """(H, W) float32 [0, 1]: the picture with the noise of a detector, all black at a corner and all white at another."""
    image = picture(SHAPE) + np.random.default_rng(5).normal(0, 0.01, SHAPE)
    image[-20:, -60:], image[-20:, :60] = 0, 1
    return np.clip(image, 0, 1).astype(np.float32)


IMAGE = textured()


def film(bits: int = 12, *, window: bool = False) -> Dataset:
    return small_film(SHAPE, image=IMAGE, kind="CR", bits=bits, window=window)


def letters() -> np.ndarray:
    """(H, W) bool: bars as thin as letters, in the lungs and in the corner."""
    found = np.zeros(SHAPE, bool)
    for top, left in ((20, 20), (120, 60), (130, 170)):
        for bar in range(5):
            found[top : top + 16, left + 6 * bar : left + 6 * bar + 3] = True
    return found


ABOVE = {
    "a constant": np.full(SHAPE, 0xA),
    "the left half": SHAPE[1] // 2 > X,
    "a gradient": X * 16 // SHAPE[1],
    "a checkerboard": (X + Y) % 2 * 5,
    "noise": np.random.default_rng(1).integers(0, 16, SHAPE),
    "a box": ((Y > 60) & (Y < 200) & (X > 60) & (X < 150)) * 8,
    "letters": letters() * 8,
    "all bits of letters": letters() * 15,
    "the sign bit of what is bright": (IMAGE >= 0.5) * 15,
    "one pixel": (X == 50) & (Y == 50),
}


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("above", ABOVE)
def test_bits_above_the_value_are_cut(above: str, window: bool) -> None:
    plain = film(window=window)
    right = decode(plain)
    cells = stored(plain) | (ABOVE[above].astype(np.uint16) << 12)
    found = decode(put(film(window=window), cells))
    assert found.content_sha256 == right.content_sha256 and np.array_equal(found.image, right.image)
    assert set(found.notes) - set(right.notes) == {NoteCode.UNUSED_BITS}


@pytest.mark.parametrize("bits", [9, 11, 13, 14, 15])
@pytest.mark.parametrize("burned", [False, True])
def test_a_picture_with_more_bits_than_its_header_keeps_them(bits: int, burned: bool) -> None:
    right = film(16)
    cells = stored(right).copy()
    if burned:
        cells[letters()] = cells.max()
    put(right, cells)
    wrong = put(film(16), cells)
    wrong.BitsStored, wrong.HighBit = bits, bits - 1
    found = decode(wrong)
    assert np.array_equal(found.image, decode(right).image) and NoteCode.WIDER_VALUES in found.notes


def test_values_at_the_other_end_of_the_cell() -> None:
    """HighBit 11 and values in the upper twelve bits, HighBit 15 and values in the lower twelve."""
    right = decode(film())
    upper = put(film(), stored(film()) << 4)
    lower = film()
    lower.HighBit = 15
    honest = put(film(), stored(film()) << 4 | (X % 16).astype(np.uint16))
    honest.HighBit = 15
    for one, note in ((upper, NoteCode.HIGH_BIT_ASSUMED), (lower, NoteCode.HIGH_BIT_ASSUMED), (honest, NoteCode.UNUSED_BITS)):
        found = decode(one)
        assert found.content_sha256 == right.content_sha256
        assert set(found.notes) - set(right.notes) == {note}


def signed(film: Dataset, bits: int) -> Dataset:
    film.BitsStored, film.HighBit, film.PixelRepresentation = bits, bits - 1, 1
    return film


@pytest.mark.parametrize("bits", [12, 16])
def test_the_sign_is_the_picture_s(bits: int) -> None:
    """Result: a film of values around zero, its sign extended or cut, and one that only says so, are the same picture."""
    centred = (stored(film(bits)).astype(np.int32) - (1 << (bits - 1))).astype(np.int16)
    right = decode(film(bits)).image
    extended, cut = centred.view(np.uint16), centred.view(np.uint16) & ((1 << bits) - 1)
    for cells in (extended, cut):
        assert np.abs(decode(put(signed(film(bits), bits), cells)).image - right).max() < 1e-4
    untrue = decode(put(signed(film(bits), bits), stored(film(bits))))
    assert NoteCode.SIGN_CONFLICT in untrue.notes and np.abs(untrue.image - right).max() < 1e-4
    if bits < 16:  # else nothing but the sign tells, and the header is believed
        unsaid = decode(put(film(bits), extended))
        assert NoteCode.SIGN_CONFLICT in unsaid.notes and np.abs(unsaid.image - right).max() < 1e-4


def test_padding_loses_the_bits_that_its_pixels_lose() -> None:
    cells = stored(film()).copy()
    cells[:, :40] = 0xF123
    padded = put(film(), cells)
    padded.PixelPaddingValue = 0xF123
    found = decode(padded)
    assert found.image[:, :40].max() == 0 and NoteCode.PADDING_IGNORED not in found.notes


def test_a_film_of_eight_bits_with_seven_said() -> None:
    plain = base(bits=8)
    right = decode(plain).image
    plain.BitsStored, plain.HighBit = 7, 6
    assert np.array_equal(decode(plain).image, right)
