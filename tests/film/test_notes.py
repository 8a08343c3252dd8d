"""What was assumed about a film is told: every note has a film that gets it, and notes change nothing but themselves."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gate_films import NOTED, SETTINGS, plain
from small_film import small_film
from tiny_network import tiny_artifact

from dicom_node.storage.local_queue import IGNORED, IGNORED_SENTENCE
from segmenter.engine import Segmenter
from segmenter.film.decode import decode
from segmenter.film.gate import SkipCode
from segmenter.indeterminate import IndeterminateCode
from segmenter.notes import NoteCode

GUIDE = Path(__file__).parents[2] / "docs" / "use" / "gate.md"


def test_a_film_that_leaves_nothing_open_has_no_notes():
    assert decode(plain()).notes == ()


def test_every_note_has_a_film_that_gets_it_and_no_other(tmp_path):
    settings = replace(SETTINGS, for_processing="answer")
    findings = Segmenter(tiny_artifact(tmp_path), settings).segment([film for _, film in NOTED])
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
