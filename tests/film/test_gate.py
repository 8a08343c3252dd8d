"""Which films are ours, decided on the header: the reasons an administrator will see."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from gate_films import SETTINGS, SILENT, SKIPPED, changed
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from small_film import small_film
from tiny_network import tiny_artifact

from segmenter.engine import Segmenter
from segmenter.film.gate import SkipCode, gate
from segmenter.settings import Settings

FILMS = os.environ.get("SEGMENTER_FILMS")


def numbers_for_sequences():
    """Elements of sequences that came with the VR of a number."""
    dataset = changed(without=("ViewPosition",))
    for keyword in (
        "ViewCodeSequence",
        "ContributingEquipmentSequence",
        "AnatomicRegionSequence",
        "PatientSpeciesCodeSequence",
    ):
        dataset[keyword] = RawDataElement(Tag(keyword), "US", 2, b"\1\0", 0, False, True)
    return dataset


OURS = {
    "CR": changed(),
    "DX": changed("DX"),
    "SIIM: secondary capture of modality CR": changed("SC", ConversionType="WSD", PatientOrientation=""),
    "nothing said at all": changed("SC", without=SILENT, Modality="DX"),
    "body part unknown, description says chest": changed(BodyPartExamined="UNKNOWN", StudyDescription="Thorax p.a."),
    "class and modality disagree": changed("DX", Modality="CR"),
    "modality OT on a CR class": changed(Modality="OT"),
    "secondary capture without modality, chest": changed("SC", without=("Modality",)),
    "study of two views, this one PA": changed(StudyDescription="CHEST PA AND LATERAL", ViewPosition="PA"),
    "study of two views, view not given": changed(without=("ViewPosition",), StudyDescription="CHEST PA/LAT"),
    "dog bite": changed(StudyDescription="Chest after dog bite"),
    "one frame": changed(NumberOfFrames=1),
    "garbled number of frames": changed(NumberOfFrames=""),
    "digitised film, name burned in": changed("SC", ImageType=["ORIGINAL", "PRIMARY"], BurnedInAnnotation="YES"),
    "CR with burned-in markers": changed(ImageType=["DERIVED", "PRIMARY"], BurnedInAnnotation="YES"),
    "human by species code": changed(PatientSpeciesDescription="Homo sapiens"),
    "both views, dotted": changed(without=("ViewPosition",), SeriesDescription="Thorax p.a./seitlich"),
    "both views, spaced": changed(without=("ViewPosition",), SeriesDescription="Thorax a.p. + lateral"),
    "view position with dots": changed(ViewPosition="P.A.", SeriesDescription="LATERAL"),
    "Spanish body part": changed(SpecificCharacterSet="ISO_IR 192", BodyPartExamined="TÓRAX"),
    "Portuguese description": changed(
        "SC", without=SILENT, Modality="OT", SpecificCharacterSet="ISO_IR 192", StudyDescription="Rx tórax"
    ),
    "empty values": changed(BodyPartExamined=["", ""], PatientSpeciesDescription="\\"),
    "numbers where a sequence belongs": numbers_for_sequences(),
    "Russian body part": changed(SpecificCharacterSet="ISO_IR 192", BodyPartExamined="ГРУДНАЯ КЛЕТКА"),
}


@pytest.mark.parametrize("dataset", OURS.values(), ids=OURS.keys())
def test_films_that_are_ours(dataset):
    assert gate(dataset, SETTINGS) is None


def test_every_skip_code_has_a_film_that_gets_it_and_its_sentence_from_the_one_door(tmp_path):
    """Through `Segmenter.segment`, because colour and blank show only in the pixels."""
    films = [dataset for _, dataset in SKIPPED]
    findings = Segmenter(tiny_artifact(tmp_path), SETTINGS).segment(films)
    got = [(one.outcome, one.code, one.sentence) for one in findings]
    assert got == [("skipped", code.value, code.sentence) for code, _ in SKIPPED]
    assert {code for code, _ in SKIPPED} == set(SkipCode), "a code that no film gets"
    assert all(code.sentence.endswith(".") for code in SkipCode)


def test_a_child_is_left_out_only_where_it_is_asked_for_and_nobody_says_otherwise():
    infant = changed(without=("PatientBirthDate",), PatientAge="003M")
    slip = changed(PatientAge="004D")  # and a birth date decades ago
    unknown = changed(without=("PatientBirthDate",), PatientAge="")
    for years, left_out in ((0, []), (0.2, []), (0.5, [infant]), (18, [infant])):
        settings = replace(SETTINGS, min_age_years=years)
        assert [film for film in (infant, slip, unknown) if gate(film, settings)] == left_out


def test_no_header_is_bad_enough_to_raise():
    """Every element in turn, and then all at once, holds bytes that do not fit its VR."""
    draw = random.Random(1)
    junk = [b"", b"\\", b"abc", b"\xff\xfe\x00", b"1e999", b"nan ", b"\x1b$B@\x1b(B", b"-" * 70]
    for _ in range(60):
        dataset = small_film(kind="CR")
        tags = [t for t in dataset.keys() if t.group != 0x7FE0]  # noqa: SIM118 (iterates over elements)
        for tag in draw.sample(tags, draw.choice([1, 3, len(tags)])):
            value, raw = draw.choice(junk), dataset.get_item(tag)
            dataset[tag] = RawDataElement(tag, raw.VR, len(value), value, 0, False, True)
        skip = gate(dataset, SETTINGS)
        assert skip is None or skip.code in set(SkipCode)


if FILMS is not None:  # real films, where somebody has some

    def test_real_films_pass_and_the_dog_does_not():
        for path in sorted(Path(FILMS).glob("*.dcm")):
            skip = gate(pydicom.dcmread(path), Settings())
            assert (skip is not None) == ("dog" in path.name), (path.name, skip)
