"""Lookup tables whose descriptors do not fit their data, and what outlives a table that cannot be used (PS3.3 C.11.1, C.11.2;
dicom-rs#825, cornerstoneWADOImageLoader#36)."""

from __future__ import annotations

import numpy as np
import pytest
from encapsulated_films import base, put, stored
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian
from small_film import read_back

from segmenter.film.decode import decode
from segmenter.notes import NoteCode

X = np.arange(4096)
CURVES = {"rise": np.round((X / 4095) ** 0.25 * 4095), "fall": 4095 - X}
STORED = {"rise": lambda cells: np.round((cells / 4095) ** 4 * 4095), "fall": lambda cells: 4095 - cells}


def table(said: list[int], data: np.ndarray | bytes, vr: str = "OW") -> Dataset:
    found = Dataset()
    found.add_new("LUTDescriptor", "US", said)
    raw = data if isinstance(data, bytes) else np.asarray(data, "<u2").tobytes()
    found.add_new("LUTData", vr, raw if vr == "OW" else np.frombuffer(raw, "<u2").tolist())
    return found


def film(curve: str, *tables: Dataset, keyword: str = "VOILUTSequence") -> Dataset:
    """The film's stored values need the curve to look like the plain film."""
    found = base(window=False)
    put(found, STORED[curve](stored(found).astype(float)).astype("<u2"))
    for one in tables:
        if keyword == "ModalityLUTSequence":
            one.ModalityLUTType = "US"
    setattr(found, keyword, Sequence(tables))
    return found


EMPTY = Dataset()
SHORT = {
    "16 bits said": lambda y: [table([4096, 0, 16], y)],
    "14 bits said": lambda y: [table([4096, 0, 14], y)],
    "10 bits said": lambda y: [table([4096, 0, 10], y)],
    "8 bits said": lambda y: [table([4096, 0, 8], y)],
    "0 bits said": lambda y: [table([4096, 0, 0], y)],
    "255 bits said": lambda y: [table([4096, 0, 255], y)],
    "as US": lambda y: [table([4096, 0, 16], y, "US")],
    "one entry short": lambda y: [table([4096, 0, 12], y[:-1])],
    "one entry short, 8 bits said": lambda y: [table([4096, 0, 8], y[:-1])],
    "100 entries short": lambda y: [table([4096, 0, 12], y[:-100])],
    "65,536 entries said": lambda y: [table([0, 0, 12], y)],
    "an odd byte behind": lambda y: [table([4096, 0, 12], np.asarray(y, "<u2").tobytes() + b"\xff\xff")],
    "first item empty": lambda y: [Dataset(), table([4096, 0, 12], y)],
    "first item without data": lambda y: [table([4096, 0, 12], b""), table([4096, 0, 16], y)],
    "first item without descriptor": lambda y: [table([], y), table([4096, 0, 12], y)],
    "8 bits in words": lambda y: [table([4096, 0, 8], y // 16)],
    "8 bits, two to a word": lambda y: [table([4096, 0, 8], (y // 16).astype(np.uint8).tobytes())],
    "8 bits in words, one short": lambda y: [table([4096, 0, 8], (y // 16)[:-1])],
    "8 bits, two to a word, one short": lambda y: [table([4096, 0, 8], (y // 16)[:-1].astype(np.uint8).tobytes() + b"\0")],
}  # fmt: skip
HONEST = {"first item empty", "8 bits, two to a word", "8 bits in words", "an odd byte behind", "first item without descriptor",
          "8 bits, two to a word, one short"}  # fmt: skip


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("how", SHORT)
def test_a_table_is_read_as_its_data_are(how: str, curve: str, keyword: str) -> None:
    right = decode(read_back(film(curve, table([4096, 0, 12], CURVES[curve]), keyword=keyword)))
    assert np.abs(right.image - decode(base(window=keyword == "VOILUTSequence")).image).max() < 0.06
    found = decode(read_back(film(curve, *SHORT[how](CURVES[curve]), keyword=keyword)))
    assert np.abs(found.image - right.image).max() < (0.05 if "100" in how else 0.01)
    repaired = NoteCode.TABLE_REPAIRED in found.notes
    assert repaired == (how not in HONEST)
    assert not {NoteCode.WINDOW_IGNORED, NoteCode.RESCALE_IGNORED} & set(found.notes)


def test_a_table_in_big_endian_words_is_the_same() -> None:
    little = film("fall", table([4096, 0, 16], CURVES["fall"]))
    big = film("fall", table([4096, 0, 16], np.asarray(CURVES["fall"], "<u2").byteswap().tobytes()))
    put(big, stored(big).byteswap())
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert decode(big).content_sha256 == decode(read_back(little)).content_sha256


def test_the_width_of_an_honest_table_is_its_own() -> None:
    """Result: a table of 12 bits that ends at 3000 is as dark as it was made."""
    full = decode(read_back(film("fall", table([4096, 0, 12], CURVES["fall"])))).image
    found = decode(read_back(film("fall", table([4096, 0, 12], CURVES["fall"] * 3000 // 4095))))
    assert np.abs(found.image - full * 3000 / 4095).max() < 0.001 and NoteCode.TABLE_REPAIRED not in found.notes


DROPPED = {
    "a VOI LUT for other pixels": ("VOILUTSequence", lambda: [table([4096, 60000, 12], CURVES["fall"])]),
    "a VOI LUT of which little is left": ("VOILUTSequence", lambda: [table([4096, 0, 12], CURVES["fall"][:50])]),
    "a VOI LUT and a window for other pixels": ("VOILUTSequence", lambda: [table([4096, 60000, 12], CURVES["fall"])]),
    "a modality LUT for other pixels": ("ModalityLUTSequence", lambda: [table([4096, 60000, 12], CURVES["fall"])]),
    "a slope without end": ("", lambda: []),
}  # fmt: skip


@pytest.mark.parametrize("how", DROPPED)
def test_the_polarity_of_what_is_dropped_survives_it(how: str) -> None:
    keyword, tables = DROPPED[how]
    dataset = film("fall", *tables(), keyword=keyword or "VOILUTSequence")
    if not keyword:
        dataset.RescaleSlope, dataset.RescaleIntercept = "-1e12", "4095"
    if "window" in how:
        dataset.WindowCenter, dataset.WindowWidth = "-30000", "100"
    found = decode(read_back(dataset))
    assert np.abs(found.image - decode(base(window=False)).image).max() < 0.01
    assert {NoteCode.WINDOW_IGNORED, NoteCode.RESCALE_IGNORED} & set(found.notes) and NoteCode.GREYS_ASSUMED in found.notes
