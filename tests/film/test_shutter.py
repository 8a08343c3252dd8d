"""What lies outside the display shutter is background (PS3.3 C.7.6.11, C.7.6.15)."""

from __future__ import annotations

import numpy as np
import pytest
from gate_films import RECTANGLE, changed
from small_film import SHAPE, picture

from segmenter.film.decode import decode
from segmenter.film.shutter import shutter_of
from segmenter.notes import NoteCode

Y, X = np.mgrid[1 : SHAPE[0] + 1, 1 : SHAPE[1] + 1]
INSIDE = (X >= 11) & (X <= 254) & (Y >= 21) & (Y <= 290)
CIRCLE = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [150, 132], "RadiusOfCircularShutter": 110}
ROUND = (Y - 150) ** 2 + (X - 132) ** 2 <= 110**2
POLYGON = {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [20, 132, 150, 250, 290, 132, 150, 14]}
DIAMOND = np.abs(X - 132) / 118 <= np.where(Y <= 150, (Y - 20) / 130, (290 - Y) / 140)


def bitmap() -> dict:
    """An overlay plane that shuts a strip at the left, and says so with ones."""
    shut = X <= 30
    return {"ShutterShape": "BITMAP", "ShutterOverlayGroup": 0x6002, "shut": np.packbits(shut, bitorder="little").tobytes()}


def film(**values):
    shut = values.pop("shut", None)
    dataset = changed("DX", **values)
    if shut is not None:
        dataset.add_new(0x60020010, "US", SHAPE[0])
        dataset.add_new(0x60020011, "US", SHAPE[1])
        dataset.add_new(0x60020040, "CS", "G")
        dataset.add_new(0x60020050, "SS", [1, 1])
        dataset.add_new(0x60020100, "US", 1)
        dataset.add_new(0x60020102, "US", 0)
        dataset.add_new(0x60023000, "OW", shut + b"\0" * (len(shut) % 2))
    return dataset


SHUTTERS = {
    "rectangular": (RECTANGLE, INSIDE),
    "rectangular, edges exchanged": (
        {**RECTANGLE, "ShutterLeftVerticalEdge": 254, "ShutterRightVerticalEdge": 11}, INSIDE,
    ),
    "rectangular, reaching beyond the film": (
        {**RECTANGLE, "ShutterLeftVerticalEdge": -40, "ShutterRightVerticalEdge": 900}, (Y >= 21) & (Y <= 290),
    ),
    "circular": (CIRCLE, ROUND),
    "polygonal": (POLYGON, DIAMOND),
    "a bitmap": (bitmap(), X > 30),
    "all that are said, together": (
        {**RECTANGLE, **CIRCLE, **POLYGON, "ShutterShape": ["RECTANGULAR", "CIRCULAR", "POLYGONAL"]}, INSIDE & ROUND & DIAMOND,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "open_"), SHUTTERS.values(), ids=SHUTTERS.keys())
def test_outside_is_background_whatever_lies_there(values, open_):
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        dataset = film(**values, PhotometricInterpretation=photometric, PresentationLUTShape="")
        dataset.WindowCenter = dataset.WindowWidth = ""
        image = picture() if photometric == "MONOCHROME2" else 1 - picture()
        dataset.PixelData = np.where(open_, np.round(image * 3000), 4095).astype("<u2").tobytes()  # bright outside
        decoded = decode(dataset)
        assert not decoded.image[~open_].any()
        low, high = np.percentile(picture()[open_], (0.5, 99.5))
        right = np.clip((picture() - low) / (high - low), 0, 1)
        assert np.abs(decoded.image - right)[open_].max() < 0.03, "outside has no part in the grey range"
        assert NoteCode.SHUTTER_APPLIED in decoded.notes and NoteCode.SHUTTER_IGNORED not in decoded.notes


SENSELESS = {
    "nothing left": {**RECTANGLE, "ShutterRightVerticalEdge": 20},
    "all edges zero": {key: value if key == "ShutterShape" else 0 for key, value in RECTANGLE.items()},
    "no edges": {"ShutterShape": "RECTANGULAR"},
    "no radius": {**CIRCLE, "RadiusOfCircularShutter": 0},
    "two corners": {**POLYGON, "VerticesOfThePolygonalShutter": [1, 1, 300, 264]},
    "no overlay": {"ShutterShape": "BITMAP", "ShutterOverlayGroup": 0x6000},
    "an unknown shape": {"ShutterShape": "STAR"},
}


@pytest.mark.parametrize("values", SENSELESS.values(), ids=SENSELESS.keys())
def test_a_senseless_shutter_is_ignored_and_said(values):
    decoded, plain = decode(film(**values)), decode(film())
    assert np.array_equal(decoded.image, plain.image) and decoded.content_sha256 == plain.content_sha256
    assert NoteCode.SHUTTER_IGNORED in decoded.notes and NoteCode.SHUTTER_APPLIED not in decoded.notes


def test_a_senseless_shutter_takes_no_other_with_it():
    values = {**RECTANGLE, **CIRCLE, "RadiusOfCircularShutter": 0, "ShutterShape": ["CIRCULAR", "RECTANGULAR"]}
    notes = decode(film(**values)).notes
    assert {NoteCode.SHUTTER_APPLIED, NoteCode.SHUTTER_IGNORED} <= set(notes)


def test_the_shutter_enters_the_digest_where_it_shuts_something():
    plain = decode(film()).content_sha256
    whole = {"ShutterLeftVerticalEdge": 1, "ShutterRightVerticalEdge": 264}
    whole |= {"ShutterUpperHorizontalEdge": 1, "ShutterLowerHorizontalEdge": 300}
    assert decode(film(ShutterShape="RECTANGULAR", **whole)).content_sha256 == plain
    assert len({plain, decode(film(**RECTANGLE)).content_sha256, decode(film(**CIRCLE)).content_sha256}) == 3


def test_the_radius_of_a_circle_counts_in_columns():
    open_, ignored = shutter_of(film(**CIRCLE), SHAPE, aspect=2.0)
    assert open_ is not None and not ignored
    assert (open_.any(axis=0).sum(), open_.any(axis=1).sum()) == (221, 111)
