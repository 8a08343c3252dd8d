"""Frontal or lateral, in the words of many countries' consoles."""

from __future__ import annotations

import pytest
from gate_films import SETTINGS, changed, item
from small_film import raw
from view_words import FRONTAL, LATERAL, NEITHER, OBLIQUE, listed

from segmenter.film.gate import SkipCode, gate
from segmenter.film.projection import View, view_of

SILENT = ("ViewPosition", "ViewCodeSequence", "PatientOrientation", "StudyDescription")


@pytest.mark.parametrize(
    ("words", "view"), [(LATERAL, View.LATERAL), (FRONTAL, View.FRONTAL), (OBLIQUE, View.OBLIQUE), (NEITHER, View.OTHER)]
)
def test_what_consoles_write_names_the_view_in_any_case(words, view):
    film = changed(without=SILENT, SpecificCharacterSet="ISO_IR 192")
    wrong = []
    for one in listed(words):
        for said in (one, one.upper(), one.lower()):
            film.SeriesDescription = said
            if view_of(film).view is not view:
                wrong.append(said)
    assert not wrong


def test_text_without_its_character_set_is_read_all_the_same():
    for said, encoding in (
        ("胸部 侧位", "utf-8"), ("胸部 侧位", "gb18030"), ("胸部側面", "shift_jis"), ("흉부 측면", "euc_kr"),
        ("ОГК боковая", "cp1251"), ("Θώρακος πλάγια", "cp1253"), ("Akciğer yan", "utf-8"),
    ):  # fmt: skip
        data = said.encode(encoding)
        film = raw(changed(without=(*SILENT, "SpecificCharacterSet")), SeriesDescription=data + b" " * (len(data) % 2))
        assert gate(film, SETTINGS) == SkipCode.LATERAL_VIEW.skip(), (said, encoding)
    frontal = raw(changed(without=(*SILENT, "SpecificCharacterSet")), SeriesDescription="胸部 后前位".encode("gb18030") + b" ")
    assert gate(frontal, SETTINGS) is None


def film(**values):
    return changed(without=(*SILENT, "SeriesDescription"), **values)


ORDER = {
    "left lateral oblique, PS3.3 C.8.1.1": (View.OBLIQUE, film(ViewPosition="LLO")),
    "right lateral oblique": (View.OBLIQUE, film(ViewPosition="RLO")),
    "rows to the left and front": (View.OBLIQUE, film(PatientOrientation=["LA", "F"])),
    "rows to the right and back": (View.OBLIQUE, film(PatientOrientation=["RP", "F"])),
    "rows to the front and left": (View.OBLIQUE, film(PatientOrientation=["AL", "F"])),
    "columns to the left and front": (View.OBLIQUE, film(PatientOrientation=["F", "LA"])),
    "columns to the feet and front: lordotic": (View.OTHER, film(PatientOrientation=["L", "FA"])),
    "turned in its plane only": (View.FRONTAL, film(PatientOrientation=["LF", "FR"])),
    "from the side": (View.LATERAL, film(PatientOrientation=["AF", "FP"])),
    "a side as the view": (View.LATERAL, film(ViewPosition="L")),
    "the view in another language": (View.LATERAL, film(ViewPosition="Perfil")),
    "a body part with a view": (View.LATERAL, film(BodyPartExamined="CHEST_LAT")),
    "the series goes before a protocol of both": (
        View.LATERAL, film(SeriesDescription="Lateral", ProtocolName="Chest PA/LAT"),
    ),
    "both in one": (View.FRONTAL, film(SeriesDescription="Thorax p.a./seitlich")),
    "a study of one view, and no word of the film": (View.LATERAL, film(StudyDescription="Rx tórax perfil")),
    "a study of two views": (View.FRONTAL, film(StudyDescription="CHEST 2 VIEWS PA/LAT")),
    "a study's AIDS (es)": (View.FRONTAL, film(StudyDescription="Torax SIDA")),
    "an axis goes before a side": (View.FRONTAL, film(SeriesDescription="Thorax L", PatientOrientation=["L", "F"])),
    "oblique by its modifier": (
        View.OBLIQUE,
        film(ViewCodeSequence=[item(CodeValue="272460009", ViewModifierCodeSequence=[item(CodeMeaning="oblique")])]),
    ),
    "lateral oblique, SNOMED CT": (View.OBLIQUE, film(ViewCodeSequence=[item(CodeValue="260427002", CodeMeaning="-")])),
}  # fmt: skip


@pytest.mark.parametrize(("view", "dataset"), ORDER.values(), ids=ORDER.keys())
def test_the_witnesses_of_the_view(view, dataset):
    assert view_of(dataset).view is view


@pytest.mark.parametrize(
    "part", ["KLATKA PIERSIOWA", "Akciğer", "Mellkas", "ΘΏΡΑΚΑΣ", "Hrudník", "Keuhkot", "ＣＨＥＳＴ", "肺"]
)
def test_the_chest_in_other_languages_is_ours(part):
    assert gate(changed(SpecificCharacterSet="ISO_IR 192", BodyPartExamined=part), SETTINGS) is None


@pytest.mark.parametrize("part", ["胸椎", "Hrudní páteř", "Brustwirbelsäule", "COLUNA", "THORACIC SPINE"])
def test_the_thoracic_spine_is_not(part):
    assert gate(changed(SpecificCharacterSet="ISO_IR 192", BodyPartExamined=part), SETTINGS) == SkipCode.NOT_A_CHEST.skip()
