"""Films that are not processed for display: skipped, or answered from the X-ray intensity (PS3.3 C.8.11.3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gate_films import SETTINGS, changed, for_processing
from small_film import picture

from segmenter.film.decode import decode
from segmenter.film.gate import SkipCode, gate
from segmenter.notes import NoteCode

ANSWER = replace(SETTINGS, for_processing="answer")
RAW = {
    "DX for processing": for_processing(),
    "DX for presentation that says otherwise": changed("DX", PresentationIntentType="FOR PROCESSING"),
    "CR with an intent": changed(PresentationIntentType="FOR PROCESSING"),
    "CR, raw by its image type": changed(ImageType=["ORIGINAL", "PRIMARY", "RAW"]),
    "secondary capture by its name": changed("SC", SeriesDescription="Chest PA for processing"),
}
PROCESSED = {
    "DX for presentation, LOG": changed("DX", PixelIntensityRelationship="LOG", PixelIntensityRelationshipSign=-1),
    "DX for presentation, LIN": changed("DX", PixelIntensityRelationship="LIN", PixelIntensityRelationshipSign=1),
    "processed by its image type": changed(ImageType=["DERIVED", "PRIMARY", "POST_PROCESSED"]),
}


@pytest.mark.parametrize("dataset", RAW.values(), ids=RAW.keys())
def test_what_is_not_processed_for_display_is_skipped_unless_it_is_asked_for(dataset):
    assert gate(dataset, SETTINGS) == SkipCode.FOR_PROCESSING.skip()
    assert gate(dataset, ANSWER) is None and NoteCode.FOR_PROCESSING in decode(dataset).notes


@pytest.mark.parametrize("dataset", PROCESSED.values(), ids=PROCESSED.keys())
def test_a_film_for_presentation_is_taken_as_it_is_whatever_it_says_of_its_values(dataset):
    assert gate(dataset, SETTINGS) is None
    decoded = decode(dataset)
    assert np.abs(decoded.image - picture()).max() < 0.01 and NoteCode.FOR_PROCESSING not in decoded.notes


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("linear", [False, True])
def test_logarithm_and_sign_give_the_picture_that_was_exposed(linear, sign):
    """Up to the two ends of the grey scale, which come from percentiles."""
    image = decode(for_processing(linear, sign)).image
    inside = (image > 0.02) & (image < 0.98)
    slope, offset = np.polyfit(picture()[inside], image[inside], 1)
    assert slope > 0.9, "lungs dark, and tissue grows with the logarithm"
    assert np.abs(slope * picture() + offset - image)[inside].max() < 0.03


def test_a_sign_that_contradicts_the_photometric_interpretation_is_settled_by_the_pixels():
    for sign in (1, -1):
        film = for_processing(sign=sign)
        right = decode(film).image
        film.PhotometricInterpretation = "MONOCHROME1" if sign == -1 else "MONOCHROME2"
        assert np.array_equal(decode(film).image, right)
        film.PixelIntensityRelationshipSign, film.PhotometricInterpretation = -sign, "MONOCHROME2"
        assert np.abs(decode(film).image - right).max() < 0.01


def test_what_is_said_of_the_values_enters_the_digest_of_such_films_only():
    linear, logarithmic = for_processing(linear=True), for_processing(linear=True)
    logarithmic.PixelIntensityRelationship = "LOG"
    assert decode(linear).content_sha256 != decode(logarithmic).content_sha256
    plain, said = changed("DX"), changed("DX", PixelIntensityRelationship="LIN")
    assert decode(plain).content_sha256 == decode(said).content_sha256
