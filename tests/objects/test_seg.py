"""The SEG: on the right pixels, of the right patient byte for byte, and clean in dciodvfy as far as its source is."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from object_judges import dcmqi, dcmqi_program
from pydicom.dataset import Dataset
from small_film import SHAPE, raw, read_back, small_film, stored_bytes, write

from segmenter.film.decode import decode
from segmenter.model.artifact import OperatingPoint
from segmenter.model.identity import ModelIdentity
from segmenter.objects.common_header import ObjectContext
from segmenter.objects.kinds import ObjectKind
from segmenter.objects.seg import build_seg
from segmenter.objects.sentences import ENGLISH
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID
from segmenter.settings import Settings
from segmenter.values import Decision, Finding

FILMS = os.environ.get("SEGMENTER_FILMS")

IDENTITY = ModelIdentity(
    name="ptx-unet-effb4", version="1.2.0", demo=False, commit="0123abc", operating_point="balanced",
    thresholds=OperatingPoint(0.6, 0.45, 20, 24), weights_sha256="a" * 64, manifest_sha256="b" * 64,
    settings_sha256="c" * 64, digest="d" * 64,
)  # fmt: skip
MASK = np.zeros(SHAPE, bool)
MASK[40:90, 20:61] = MASK[100:103, 200:260] = True
COPIED = ("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "StudyDescription", "PatientName",
          "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyID",
          "ReferringPhysicianName")  # fmt: skip


def seg_of(film: Dataset, identity=IDENTITY, revision=1, settings=Settings(), kind=ObjectKind.SEG):
    radiograph = decode(film)
    mask = np.zeros(radiograph.image.shape, bool)
    mask[: SHAPE[0], : SHAPE[1]] = MASK
    decision = Decision(True, 0.97, mask, 830.0, 2, 0.5)
    envelope = ObjectContext.of(kind, film, radiograph.content_sha256, identity, revision, settings)
    return build_seg(Finding("done", radiograph=radiograph, decision=decision), envelope)


def complaints(path: Path, tool) -> set[str]:
    done = subprocess.run([tool("dciodvfy"), path], capture_output=True, check=False)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    return {line for line in text.splitlines() if line.startswith(("Error", "Warning"))}


HEADERS = {
    "plain": {},
    "accession of 56 characters": {"AccessionNumber": b"d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f"},
    "hashed dates": {"PatientBirthDate": b"d14a028c2a3a2bc9", "StudyDate": b"26eae465a3069d7d94e44c519d9c7aae"},
    "Latin-1": {"SpecificCharacterSet": b"ISO_IR 100", "PatientName": "Ærøskøbing^Jürgen ".encode("latin-1")},
    "Greek": {"SpecificCharacterSet": b"ISO_IR 126", "PatientName": "Διονυσιος^Α".encode("iso8859-7") + b" "},
    "Cyrillic": {"SpecificCharacterSet": b"ISO_IR 144", "PatientName": "Люкceмбypг".encode("iso8859-5")},
    "cp1251 without a character set": {"SpecificCharacterSet": b"", "PatientName": "Иванов^Пётр ".encode("cp1251")},
    "UTF-8": {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": "Wang^XiaoDong=王^小東".encode()},
    "GB18030": {"SpecificCharacterSet": b"GB18030 ", "PatientName": "Wang^XiaoDong=王^小东 ".encode("gb18030")},
    "kanji, first value empty": {
        "SpecificCharacterSet": b"\\ISO 2022 IR 87 ",
        "PatientName": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    },
    "half-width katakana": {
        "SpecificCharacterSet": b"ISO 2022 IR 13\\ISO 2022 IR 87 ",
        "PatientName": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    },
    "hangul": {
        "SpecificCharacterSet": b"\\ISO 2022 IR 149",
        "PatientName": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    },
    "a character set nobody knows": {"SpecificCharacterSet": b"LATIN-ONE ", "PatientName": b"M\xfcller^X"},
    "blanks and zeros as they came": {"PatientID": b"  007 ", "StudyID": b"7\0", "PatientName": b"DOE^JOHN^^^ "},
    "names without sense": {"PatientSex": b"UNKNOWN ", "PatientAge": b"81", "StudyTime": b"25:99 "},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_study_and_patient_go_back_byte_for_byte(name, tool, tmp_path):
    film = write(raw(small_film(kind="CR"), **HEADERS[name]), tmp_path / "film.dcm")
    seg = write(seg_of(pydicom.dcmread(film)), tmp_path / "seg.dcm")
    for keyword in COPIED:
        assert stored_bytes(seg, keyword) == stored_bytes(film, keyword), keyword
    assert complaints(seg, tool) <= complaints(film, tool)
    assert np.array_equal(highdicom.seg.segread(seg).pixel_array.squeeze(), MASK)


@pytest.mark.parametrize("kind", ["DX", "CR", "SC"])
def test_the_seg_is_clean_and_refers_to_its_film(kind, tool, tmp_path):
    film = small_film(kind=kind)
    path = write(seg_of(film), tmp_path / "seg.dcm")
    assert complaints(path, tool) == set()
    seg = highdicom.seg.segread(path)
    assert np.array_equal(
        seg.get_pixels_by_source_instance([film.SOPInstanceUID], ignore_spatial_locations=True)[0, :, :, 0], MASK
    )
    assert (seg.Rows, seg.Columns) == SHAPE and seg.SegmentationType == "BINARY"
    assert seg.StudyInstanceUID == film.StudyInstanceUID and seg.SeriesInstanceUID != film.SeriesInstanceUID
    shared, frame = seg.SharedFunctionalGroupsSequence[0], seg.PerFrameFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.4, 0.4]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    assert "SegmentIdentificationSequence" not in shared and "FrameOfReferenceUID" not in seg
    derivation = (frame if "DerivationImageSequence" in frame else shared).DerivationImageSequence[0]
    assert derivation.SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert seg.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID and seg.SeriesNumber == 9100


def test_the_maker_stands_in_the_object(tmp_path):
    seg = pydicom.dcmread(write(seg_of(small_film()), tmp_path / "seg.dcm"))
    segment = seg.SegmentSequence[0]
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "36118008"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ptx-unet-effb4", "1.2.0")
    for fact in ("d" * 64, "a" * 64, "b" * 64, "c" * 64, "0123abc", "balanced", "mask_threshold=0.45"):
        assert fact in algorithm.AlgorithmParameters
    assert "ptx-unet-effb4 1.2.0" in seg.SeriesDescription and segment.SegmentLabel == "Pneumothorax"


def test_a_demo_model_says_so_and_another_revision_too():
    long_name = dataclasses.replace(IDENTITY, demo=True, name="n" * 64, version="v" * 64)
    seg = seg_of(small_film(), long_name, revision=2)
    assert ENGLISH.demo_notice in seg.SeriesDescription and seg.SeriesDescription.endswith(" rev 2")
    assert ENGLISH.demo_notice in seg.SegmentSequence[0].SegmentLabel
    for element in seg.iterall():
        if element.VR in ("LO", "SH") and isinstance(element.value, str):
            assert len(element.value) <= (64 if element.VR == "LO" else 16), element.keyword


def test_uids_follow_from_film_content_and_model_alone():
    def uids(film, identity=IDENTITY):
        seg = seg_of(film, identity)
        return seg.SOPInstanceUID, seg.SeriesInstanceUID

    first = uids(small_film())
    renamed = small_film()
    renamed.PatientName = "Married^Name"
    assert uids(renamed) == first
    inverted = small_film()
    inverted.PhotometricInterpretation = "MONOCHROME1"
    other_model = dataclasses.replace(IDENTITY, digest="e" * 64)
    different = [uids(inverted), uids(small_film(), other_model), uids(small_film(seed=8)), first]
    assert len({uid for pair in different for uid in pair}) == 8
    assert all(re.fullmatch(r"2\.25\.[1-9][0-9]*", uid) and len(uid) <= 64 for pair in different for uid in pair)


def test_missing_type_2_elements_zero_spacing_and_a_frame_of_reference(tool, tmp_path):
    film = small_film(kind="SC")
    for keyword in (*COPIED, "PatientOrientation"):
        if keyword in film and keyword != "StudyInstanceUID":
            del film[keyword]
    film.PixelSpacing, film.FrameOfReferenceUID = ["0", "0"], "1.2.3.4"
    film.ImagePositionPatient, film.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 0, -1]
    path = write(seg_of(read_back(film)), tmp_path / "seg.dcm")
    seg = pydicom.dcmread(path)
    assert "FrameOfReferenceUID" not in seg, "in it, the orientation that viewers need would be an axial plane of the patient"
    assert seg.PatientName == "" and seg.StudyDate == ""
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [1, 1]
    said = (seg.ContentDescription, seg.SegmentSequence[0].SegmentDescription)
    assert all("spacing unknown: do not measure" in one for one in said) and len(said[0]) <= 64
    assert not [c for c in complaints(path, tool) if "DICOMDIR" not in c]


@pytest.mark.parametrize("keyword", ["PixelSpacing", "PixelMeasuresSequence"])
def test_why_a_seg_without_known_spacing_holds_a_placeholder(keyword, tool, tmp_path):
    """No form without one passes all readers: highdicom refuses the first, OHIF the second (`make viewer`), dcmqi both. When
    highdicom reads the first, `seg` can go without a placeholder (docs/use/viewing.md)."""
    film = small_film(kind="SC")
    film.pop("PixelSpacing", None)
    film.pop("ImagerPixelSpacing", None)
    for kind in (ObjectKind.SEG, ObjectKind.SEG_POSITIONED):
        sent = seg_of(film, kind=kind)
        assert sent.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [1, 1]
        path = write(sent, tmp_path / "seg.dcm")
        assert complaints(path, tool) == set() and np.array_equal(highdicom.seg.segread(path).pixel_array.squeeze(), MASK)
        assert kind is ObjectKind.SEG or not dcmqi(path)
        shared = sent.SharedFunctionalGroupsSequence[0]
        del (shared if keyword in shared else shared.PixelMeasuresSequence[0])[keyword]
        path = write(sent, tmp_path / "less.dcm")
        assert complaints(path, tool) == set(), "the standard does not ask for it"
        assert dcmqi_program() is None or dcmqi(path)
        if keyword == "PixelSpacing":
            with pytest.raises(AttributeError, match="Pixel Measures"):
                highdicom.seg.segread(path)


@pytest.mark.parametrize("option", ["+ti", "+tb", "+td"])
def test_the_source_may_be_in_another_encoding_or_already_read(option, tool, tmp_path):
    film = write(raw(small_film(kind="CR", bits=8), **HEADERS["Greek"]), tmp_path / "film.dcm")
    subprocess.run([tool("dcmconv"), option, film, tmp_path / "other.dcm"], check=True)
    other = pydicom.dcmread(tmp_path / "other.dcm")
    for looked_at in (False, True):
        if looked_at:
            assert str(other.PatientName).startswith("Διονυσιος") and other.PatientID and other.StudyDate
        seg = write(seg_of(other), tmp_path / "seg.dcm")
        for keyword in COPIED:
            assert stored_bytes(seg, keyword) == stored_bytes(film, keyword), keyword


def test_the_compatibility_orientation_can_be_switched_off():
    seg = seg_of(small_film(), settings=Settings(plane_orientation=False, series_number=77))
    assert "PlaneOrientationSequence" not in seg.SharedFunctionalGroupsSequence[0] and seg.SeriesNumber == 77


def test_a_film_without_a_mask_has_no_seg():
    nothing = Decision(False, 0.1, np.zeros(SHAPE, bool), 0.0, 0, 0.5)
    finding = Finding("done", radiograph=decode(small_film()), decision=nothing)
    with pytest.raises(ValueError, match="only a positive film"):
        build_seg(finding, ObjectContext.of(ObjectKind.SEG, small_film(), "c", IDENTITY, 1, Settings()))


if FILMS is not None:  # real films, where somebody has some

    def test_real_films(tool, tmp_path):
        for film in sorted(Path(FILMS).glob("*.dcm")):
            if "dog" not in film.name:
                seg = write(seg_of(pydicom.dcmread(film)), tmp_path / "seg.dcm")
                assert complaints(seg, tool) <= complaints(film, tool), film.name
                for keyword in COPIED:
                    stored = stored_bytes(film, keyword)
                    assert stored is None or stored_bytes(seg, keyword) == stored, (film.name, keyword)
