"""Pictures that other makers derive from a film are not answered a second time; usual films are, whatever they say of their
processing."""

from __future__ import annotations

import pytest
from gate_films import SETTINGS, changed, item

from segmenter.film.gate import SkipCode, gate, gate_notes
from segmenter.notes import NoteCode


def typed(*values, kind="DX", **more):
    return changed(kind, ImageType=["DERIVED", "PRIMARY", *values], SpecificCharacterSet="ISO_IR 192", **more)


def named(said, keyword="SeriesDescription", kind="DX"):
    return changed(kind, SpecificCharacterSet="ISO_IR 192", **{keyword: said})


DERIVED = [
    typed("", "BONE"), typed("", "SOFT_TISSUE"), typed("BONE_SUPPRESSED"), typed("TOMOSYNTHESIS"), typed("", "SUBTRACTION"),
    typed("", "AI"), typed("HEATMAP"), typed("", "OVERLAY"), typed("CAD"),
    *(
        named(said)
        for said in (
            "Chest PA bone suppressed", "CHEST PA BONE SUPPRESSION", "Bone-suppressed PA", "Chest PA Soft Tissue",
            "CHEST_SOFTTISSUE",
            "Chest PA Dual Energy - Bone", "Chest DE Soft", "Chest PA Bone", "Rib suppressed", "ClearRead Bone Suppression",
            "Temporal subtraction", "Energy Subtraction Bone", "Thorax Weichteilbild", "Thorax Knochenunterdrückung",
            "Thorax tissus mous", "Thorax suppression osseuse", "Tórax partes blandas", "Supresión ósea",
            "Torace tessuti molli",
            "Torace soppressione ossea", "胸部 骨抑制", "胸部 軟部組織", "胸部 软组织", "Chest tomosynthesis",
            "CHEST TOMO", "Thorax Tomosynthese",
            "VolumeRAD", "Heat map", "AI result chest", "AI Findings", "qXR", "Lunit INSIGHT CXR", "CAD overlay",
            "Chest PA annotated",
            "PTX Visualization", "Tube and line enhancement", "Companion view", "Screenshot",
        )
    ),
    named("Bone image by dual-energy subtraction", "DerivationDescription"),
    named("CHEST PA BONE SUPPRESSION", "AcquisitionDeviceProcessingDescription"),
    named("Lunit Inc.", "Manufacturer"),
    named("Gleamer", "Manufacturer", "SC"),
    named("ChestX AI", kind="SC"),
    changed("DX", DerivationCodeSequence=[item(CodeValue="113062", CodingSchemeDesignator="DCM", CodeMeaning="x")]),
    changed("DX", DerivationCodeSequence=[item(CodeValue="129326", CodeMeaning="Material Suppressed Image")]),
    changed("DX", DerivationCodeSequence=[item(CodeValue="X", CodeMeaning="Bone suppression")]),
]  # fmt: skip

USUAL = [
    changed("DX", ImageType=["ORIGINAL", "PRIMARY"]), typed(), typed(""), typed("POST_PROCESSED"), typed("", "CHEST"),
    typed("CSA 2D"),
    changed("SC", ImageType=["DERIVED", "SECONDARY"]), changed("SC", SeriesDescription="Secondary capture of film"),
    *(
        named(said)
        for said in (
            "Chest PA", "Chest PA AI noise reduction", "Chest PA grid line suppression", "Chest PA scatter correction",
            "Chest for CAD",
            "Chest PA tube placement", "Chest PA line placement", "Bone survey chest AP", "Thorax Rippen a.p.",
            "Chest noise suppressed",
            "Chest PA no overlay", "Chest lung enhance", "Chest AP airway",
        )
    ),
    named("Edge enhanced, noise suppressed", "DerivationDescription"),
    changed("DX", DerivationCodeSequence=[item(CodeValue="113089", CodeMeaning="Unsharp mask")]),
    changed("DX", DerivationCodeSequence=[item(CodeValue="113040", CodeMeaning="Lossy Compression")]),
    changed("DX", StudyDescription="Chest soft tissue swelling"),
]  # fmt: skip


@pytest.mark.parametrize("dataset", DERIVED, ids=lambda one: f"{one.SeriesDescription} {list(one.ImageType)}")
def test_pictures_that_were_made_from_a_film_are_skipped(dataset):
    skip = gate(dataset, SETTINGS)
    assert skip is not None and skip.code in (SkipCode.DERIVED_IMAGE, SkipCode.BURNED_IN_RESULT)


@pytest.mark.parametrize("dataset", USUAL, ids=lambda one: f"{one.SeriesDescription} {list(one.ImageType)}")
def test_processed_films_are_films(dataset):
    assert gate(dataset, SETTINGS) is None


def test_the_standard_image_of_two_energies_is_answered_and_said():
    for said in ("Chest PA Dual Energy Standard", "Chest PA dual-energy", "Chest DE Std"):
        film = named(said)
        assert gate(film, SETTINGS) is None and NoteCode.DUAL_ENERGY in gate_notes(film)
    assert NoteCode.DUAL_ENERGY not in gate_notes(named("Chest PA"))
