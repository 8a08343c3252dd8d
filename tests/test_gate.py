"""Which films are ours, decided on the header: the reasons an administrator will see."""

import os
import random
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from small_film import small_film

from segmenter.gate import SkipCode, gate
from segmenter.settings import Settings
from segmenter.uids import MANUFACTURER, MODEL_NAME

FILMS = os.environ.get("SEGMENTER_FILMS")

SETTINGS = Settings(min_side_px=200, max_pixels=1_000_000)
CR, DX, SC = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.7"


def changed(kind: str = "CR", without: tuple[str, ...] = (), **values) -> Dataset:
    dataset = small_film(kind=kind)
    for keyword in without:
        if keyword in dataset:
            del dataset[keyword]
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def item(**values) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


SILENT = ("BodyPartExamined", "ViewPosition", "SeriesDescription", "StudyDescription", "PatientOrientation")

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
    "Russian body part": changed(SpecificCharacterSet="ISO_IR 192", BodyPartExamined="ГРУДНАЯ КЛЕТКА"),
}
NOT_OURS = [
    ("missing-uid", changed(without=("StudyInstanceUID",))),
    ("missing-uid", changed(SOPInstanceUID="")),
    ("invalid-uid", changed(SOPInstanceUID="../../etc/passwd")),
    ("invalid-uid", changed(SeriesInstanceUID="1." + "2" * 64)),
    ("presentation-state", changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1")),
    ("structured-report", changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")),
    ("not-an-image-class", changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")),
    ("not-an-image-class", changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
    ("derived-by-us", changed("SC", Manufacturer=MANUFACTURER)),
    ("derived-by-us", changed("SC", ContributingEquipmentSequence=[item(ManufacturerModelName=MODEL_NAME)])),
    ("not-a-radiograph", changed(Modality="MG")),
    ("not-a-radiograph", changed("SC", Modality="CT")),
    ("not-a-radiograph", changed("SC", without=SILENT, Modality="OT")),
    ("burned-in-result", changed("SC", ImageType=["DERIVED", "SECONDARY"], BurnedInAnnotation="YES")),
    ("burned-in-result", changed("SC", SeriesDescription="AI RESULT chest")),
    ("not-human", changed(PatientSpeciesDescription="Canis lupus familiaris")),
    ("not-human", changed(PatientBreedDescription="Beagle")),
    ("not-human", changed(AcquisitionDeviceProcessingDescription="CANINE LATERAL THORAX 0-15cm")),
    ("not-a-chest", changed(BodyPartExamined="HAND")),
    ("not-a-chest", changed(BodyPartExamined="TSPINE", StudyDescription="thoracic spine")),
    ("not-a-chest", changed(without=("BodyPartExamined",), SeriesDescription="L KNEE AP", StudyDescription="")),
    ("lateral-view", changed(ViewPosition="LL")),
    ("lateral-view", changed(ViewPosition="lateral")),
    ("lateral-view", changed(without=("ViewPosition",), SeriesDescription="CHEST_LAT")),
    ("lateral-view", changed(without=("ViewPosition",), ViewCodeSequence=[item(CodeMeaning="left lateral")])),
    ("lateral-view", changed(without=("ViewPosition", "SeriesDescription"), PatientOrientation=["A", "F"])),
    ("not-frontal", changed(ViewPosition="RAO")),
    ("not-frontal", changed(ViewPosition="LLD")),
    ("no-pixels", changed(without=("PixelData",))),
    ("multi-frame", changed(NumberOfFrames=2)),
    ("colour", changed(PhotometricInterpretation="PALETTE COLOR")),
    ("too-small", changed(Rows=180)),
    ("too-small", changed(Rows=0, Columns=0)),
    ("too-large", changed(Rows=65535, Columns=65535)),
]  # fmt: skip


@pytest.mark.parametrize("dataset", OURS.values(), ids=OURS.keys())
def test_films_that_are_ours(dataset):
    assert gate(dataset, SETTINGS) is None


@pytest.mark.parametrize(("code", "dataset"), NOT_OURS, ids=[f"{c}-{i}" for i, (c, _) in enumerate(NOT_OURS)])
def test_films_that_are_not_ours_say_why(code, dataset):
    skip = gate(dataset, SETTINGS)
    assert skip is not None and skip.code == code
    assert skip.sentence == SkipCode(code).sentence and skip.sentence.endswith(".")


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
