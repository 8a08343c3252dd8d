"""Which way round the greys are: the header, and the pixels where it contradicts itself or is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from gate_films import SETTINGS, on_its_side
from small_film import picture, small_film
from tiny_network import tiny_artifact

from segmenter.engine import Segmenter
from segmenter.film.decode import decode
from segmenter.film.photometric import PolarityCheck, assess_polarity
from segmenter.film.polarity import polarity_score
from segmenter.indeterminate import IndeterminateCode
from segmenter.notes import NoteCode
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.values import Turn

INVERTED = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


@pytest.mark.parametrize("kind", ["DX", "CR", "SC"])
def test_a_wrong_photometric_interpretation_is_put_right(kind):
    for seed in range(2):
        drawn = draw_phantom(900 + seed, shape=(264, 300) if seed else (320, 264))
        for photometric, other in (("MONOCHROME1", "MONOCHROME2"), ("MONOCHROME2", "MONOCHROME1")):
            film = phantom_dataset(drawn, kind=kind, photometric=photometric, bits=(8, 12)[seed])
            right = decode(film)
            assert not {NoteCode.POLARITY_SUSPECT, NoteCode.POLARITY_CHANGED} & set(right.notes)
            film.PhotometricInterpretation, film.PresentationLUTShape = other, INVERTED[other] if kind == "DX" else ""
            wrong = decode(film)
            assert NoteCode.POLARITY_CHANGED in wrong.notes and wrong.indeterminate is None
            assert np.abs(wrong.image - right.image).max() < 0.02


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY"])
def test_where_the_header_contradicts_itself_the_pixels_say_it(photometric, shape):
    """PS3.3 C.8.11.3.1.2: MONOCHROME1 goes with INVERSE, MONOCHROME2 with IDENTITY."""
    for image in (picture(), 1 - picture()):
        film = small_film(kind="CR", image=image)
        film.PhotometricInterpretation, film.PresentationLUTShape = photometric, shape
        decoded = decode(film)
        assert np.abs(decoded.image - picture()).max() < 0.01
        assert (NoteCode.INVERSE_CONFLICT in decoded.notes) == (shape != INVERTED[photometric])


def test_where_the_header_is_silent_the_pixels_say_it_too():
    film = small_film(kind="CR", image=1 - picture())
    film.PhotometricInterpretation = ""
    decoded = decode(film)
    assert np.abs(decoded.image - picture()).max() < 0.01 and NoteCode.POLARITY_ASSUMED in decoded.notes


def test_a_divided_header_has_one_digest_whatever_was_decided_and_another_than_either_word():
    digests = set()
    for photometric, shape in (("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        film = small_film(kind="CR")
        film.PhotometricInterpretation, film.PresentationLUTShape = photometric, shape
        digests.add(decode(film).content_sha256)
    assert len(digests) == 3


def test_pixels_that_are_not_sure_leave_the_film_indeterminate(tmp_path):
    (finding,) = Segmenter(tiny_artifact(tmp_path), SETTINGS).segment([on_its_side()])
    assert (finding.outcome, finding.code) == ("indeterminate", IndeterminateCode.POLARITY)
    assert finding.radiograph is not None and NoteCode.POLARITY_SUSPECT in finding.radiograph.notes
    assert np.abs(finding.radiograph.image - np.rot90(picture())).max() < 0.01, "and nothing is inverted"


def test_a_phantom_on_its_side_is_never_inverted():
    for seed in range(900, 906):
        image = draw_phantom(seed, shape=(320, 264)).image
        for quarters in (0, 1, 2, 3):
            for divided in (False, True) if quarters == 0 else (False,):
                verdict = assess_polarity(np.rot90(image, quarters), None, Turn(), ambiguous=divided)
                assert verdict is not PolarityCheck.INVERT, (seed, quarters)


def test_the_polarity_of_a_film_on_its_side_is_judged_upright():
    for quarters, orientation in enumerate((["L", "F"], ["F", "R"], ["R", "H"], ["H", "L"])):
        for inverted in (False, True):
            right = np.rot90(picture(), -quarters)
            stored = np.ascontiguousarray(1 - right if inverted else right)
            film = small_film(image=stored, shape=stored.shape)
            film.PatientOrientation = orientation
            decoded = decode(film)
            assert np.abs(decoded.image - right).max() < 0.01
            assert (NoteCode.TURNED_UPRIGHT in decoded.notes, NoteCode.POLARITY_CHANGED in decoded.notes) == (
                quarters > 0, inverted,
            )  # fmt: skip


@pytest.mark.parametrize("rim", [0, 4095])
@pytest.mark.parametrize("stored_as", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_speaks_for_neither_side(rim, stored_as):
    """A rim of padding is shown black, whichever way round the film is."""
    for tagged in ("MONOCHROME1", "MONOCHROME2"):
        film = small_film(kind="CR", photometric=stored_as)
        pixels = np.frombuffer(film.PixelData, "<u2").reshape(300, 264).clip(1, 4094)
        pixels[:, :24], pixels[:, -24:] = rim, rim
        film.PixelData, film.PixelPaddingValue, film.PhotometricInterpretation = pixels.tobytes(), rim, tagged
        image = decode(film).image
        assert np.abs(image - picture())[:, 24:-24].max() < 0.01 and not image[:, :24].any() and not image[:, -24:].any()


def test_a_frame_of_collimators_or_of_a_scanner_does_not_matter():
    film = picture((320, 264))
    for grey in (0.0, 1.0):
        framed = np.full((400, 344), grey, np.float32)
        framed[20:340, 60:324] = film
        assert polarity_score(framed) == pytest.approx(polarity_score(film), abs=0.1)


def test_a_film_of_any_shape_has_a_polarity():
    for shape in ((1, 1), (1, 900), (900, 1), (7, 8), (40, 41)):
        for image in (np.zeros(shape, np.float32), np.random.default_rng(1).random(shape, np.float32)):
            assert np.isfinite(polarity_score(image))
    assert polarity_score(1 - picture()) < 0 <= polarity_score(picture())
