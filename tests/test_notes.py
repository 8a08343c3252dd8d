"""What was assumed about a film is told: every note has a film that gets it, and notes change nothing but themselves."""

import re
from pathlib import Path

import numpy as np
import pytest
from gate_films import NOTED, SETTINGS, negative, plain
from small_film import small_film
from test_predict_mask import tiny_artifact

from dicom_node.local import IGNORED, IGNORED_SENTENCE
from segmenter import phantom
from segmenter.decode import decode
from segmenter.engine import Segmenter
from segmenter.gate import SkipCode
from segmenter.indeterminate import IndeterminateCode
from segmenter.notes import NoteCode
from segmenter.polarity import looks_inverted

GUIDE = Path(__file__).parent.parent / "docs" / "gate.md"


def test_a_film_that_leaves_nothing_open_has_no_notes():
    assert decode(plain()).notes == ()


def test_every_note_has_a_film_that_gets_it_and_no_other(tmp_path):
    findings = Segmenter(tiny_artifact(tmp_path), SETTINGS).segment([film for _, film in NOTED])
    got = [set(one.radiograph.notes) if one.radiograph else one for one in findings]
    assert got == [notes for notes, _ in NOTED]
    assert set().union(*(notes for notes, _ in NOTED)) == set(NoteCode), "a note that no film gets"


def test_codes_and_sentences_fit_a_coded_concept():
    """Code Value is SH, Code Meaning LO (PS3.5 section 6.2, PS3.3 section 8.1)."""
    for note in NoteCode:
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", note.value) and len(note.value) <= 16, note
        assert note.sentence.endswith(".") and len(note.sentence) <= 64 and note.sentence.isascii(), note


def test_the_guide_lists_every_code_with_its_sentence():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+?) \|", GUIDE.read_text("utf-8"), re.M)
    skips, notes = ([(one.value, one.sentence) for one in codes] for codes in (SkipCode, NoteCode))
    unsure = [(one.value, one.sentence) for one in IndeterminateCode]
    assert rows == [*skips, (IGNORED, IGNORED_SENTENCE), *unsure, *notes]


IDENTITIES = [
    ({"kind": "DX", "photometric": "MONOCHROME1"}, "a02bfbb29c5a8b14868f1b544b49b378510f8243ea95e1e7c080738f35ec1b91"),
    ({"kind": "CR", "bits": 16, "window": False}, "7c69b1eb742092b6a01538d826e460eecdd6f73ff7efe2abe494b574f2bacb47"),
    ({"kind": "SC", "bits": 8, "stored_range": (0.2, 1)}, "b80dcc152e3b07f83647e6fd29bab0ec3bb8835f6a8cdcbc43f0f2f540d6351f"),
]


@pytest.mark.parametrize(("how", "digest"), IDENTITIES)
def test_the_identity_of_a_film_stays_what_it_was_before_there_were_codes(how, digest):
    """content_sha256 of the first release: another value would send a second result of every film that comes again."""
    y, x = np.mgrid[:300, :264]
    film = small_film(image=((7 * y + 3 * x) % 256 / 255).astype(np.float32), **how)
    before = decode(film)
    assert before.content_sha256 == digest
    del film.PatientBirthDate, film.BodyPartExamined, film.SeriesDescription, film.StudyDescription
    after = decode(film)
    assert after.notes != before.notes and after.content_sha256 == digest


@pytest.mark.parametrize("kind", ["DX", "CR", "SC"])
def test_a_wrong_photometric_interpretation_is_suspected_and_a_right_one_is_not(kind):
    for seed in range(2):
        drawn = phantom.draw(900 + seed, shape=(264, 300) if seed else (320, 264))
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            film = phantom.film(drawn, kind=kind, photometric=photometric, bits=(8, 12)[seed])
            right = decode(film)
            assert NoteCode.POLARITY_SUSPECT not in right.notes
            film.PhotometricInterpretation = "MONOCHROME2" if photometric == "MONOCHROME1" else "MONOCHROME1"
            film.PresentationLUTShape = ""
            wrong = decode(film)
            assert NoteCode.POLARITY_SUSPECT in wrong.notes
            assert np.abs(wrong.image - (1 - right.image)).max() < 0.02, "it is said, and nothing is turned round"


def test_the_polarity_of_a_film_on_its_side_is_judged_upright():
    image = decode(plain()).image
    for quarters, orientation in enumerate((["L", "F"], ["F", "R"], ["R", "H"], ["H", "L"])):
        for inverted in (False, True):
            turned = np.ascontiguousarray(np.rot90(1 - image if inverted else image, -quarters))
            film = small_film(image=turned, shape=turned.shape)
            film.PatientOrientation = orientation
            notes = decode(film).notes
            assert (NoteCode.TURNED_UPRIGHT in notes, NoteCode.POLARITY_SUSPECT in notes) == (quarters > 0, inverted)


def test_a_film_of_any_shape_has_a_polarity():
    for shape in ((1, 1), (1, 900), (900, 1), (7, 8), (40, 41)):
        for image in (np.zeros(shape, np.float32), np.random.default_rng(1).random(shape, np.float32)):
            assert looks_inverted(image) in (True, False)
    assert looks_inverted(decode(negative()).image)
