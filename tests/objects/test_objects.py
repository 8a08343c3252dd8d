"""The objects beside the SEG: what they say is what was found, they lie where it lies, and dciodvfy has nothing to add."""

import dataclasses
import subprocess
from pathlib import Path

import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from small_film import SHAPE, picture, small_film, write
from test_seg import IDENTITY, complaints

from segmenter.film.decode import decode
from segmenter.film.geometry import turn_of_orientation
from segmenter.indeterminate import IndeterminateCode
from segmenter.notes import NoteCode
from segmenter.objects.build import applies, build
from segmenter.objects.kinds import ObjectKind, kinds_for
from segmenter.objects.outline import find_regions
from segmenter.objects.picture import captions, outline_png
from segmenter.objects.sentences import WORDS
from segmenter.settings import Settings
from segmenter.transformations import Rendering
from segmenter.values import Decision, Finding, Radiograph, Spacing, Turn

# A crescent with a notch in the image's left half and a small bar in its right half: not convex, not symmetric.
MASK = np.zeros(SHAPE, np.uint8)
cv2.ellipse(MASK, (70, 120), (45, 80), 20, 0, 360, 1, -1)
cv2.ellipse(MASK, (85, 130), (40, 70), 20, 0, 360, 0, -1)
MASK[200:204, 190:240] = 1
MASK = MASK.astype(bool)
PARTS = 2
PROBABILITY, THRESHOLD = 0.8125, 0.11


def made(
    kind: ObjectKind, film: Dataset, mask: np.ndarray = MASK, identity=IDENTITY, settings=Settings(), finding=None
) -> Dataset:
    radiograph = decode(film)
    area = None if radiograph.spacing is None else mask.sum() * radiograph.spacing.pixel_area_mm2
    decision = Decision(bool(mask.any()), PROBABILITY, mask, area, PARTS, THRESHOLD)
    finding = finding or Finding("done", radiograph=radiograph, decision=decision)
    return build(kind, film, finding, identity, settings)


def again(dataset: Dataset, path: Path) -> Dataset:
    return pydicom.dcmread(write(dataset, path))


def filled(points: np.ndarray, shape: tuple[int, int] = SHAPE, fine: int = 8) -> np.ndarray:
    """The pixels more than half inside the polygon, drawn `fine` times as large."""
    canvas = np.zeros((shape[0] * fine, shape[1] * fine), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * fine - 0.5).astype(np.int32)], 1)
    return canvas.reshape(shape[0], fine, shape[1], fine).mean((1, 3)) > 0.5


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def groups_of(sr: Dataset) -> list[Dataset]:
    imaging = next(item for item in sr.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    return list(imaging.ContentSequence)


def values_of(group: Dataset) -> dict[str, list]:
    """Concept -> values, whatever their type."""
    found: dict[str, list] = {}
    for item in group.ContentSequence:
        value = {
            "TEXT": lambda i: i.TextValue,
            "UIDREF": lambda i: i.UID,
            "CODE": lambda i: i.ConceptCodeSequence[0].CodeMeaning,
            "NUM": lambda i: (float(i.MeasuredValueSequence[0].NumericValue),
                              i.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue),
            "SCOORD": lambda i: np.array(i.GraphicData, float).reshape(-1, 2),
            "IMAGE": lambda i: i.ReferencedSOPSequence[0],
        }[item.ValueType](item)  # fmt: skip
        found.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, []).append(value)
    return found


def test_the_outline_encloses_what_was_found_and_names_the_side():
    sides = {
        ("L", "F"): ["right", "left"], ("R", "F"): ["left", "right"], (): ["image left", "image right"],
        ("L", "L"): ["image left", "image right"], ("L", "R"): ["image left", "image right"],
        ("A", "F"): ["image left", "image right"], ("F", "L"): ["right", "left"], ("F", "R"): ["left", "right"],
    }  # fmt: skip
    for orientation, expected in sides.items():
        film = Dataset()
        film.PatientOrientation = list(orientation)
        parts = find_regions(MASK, turn_of_orientation(film))
        assert sum(part.area_px for part in parts) == MASK.sum()
        assert dice(np.logical_or.reduce([filled(part.points) for part in parts]), MASK) > 0.985
        # Columns towards the left: the lower half, where the bar lies, is the left one; the crescent's centre lies above it.
        assert [str(part.side) for part in parts] == expected, orientation
    for lonely in ((0, 0), (SHAPE[0] - 1, SHAPE[1] - 1)):
        dot = np.zeros(SHAPE, bool)
        dot[lonely] = True
        (part,) = find_regions(dot, None)
        assert len(part.points) >= 4 and (part.points >= 0).all() and (part.points <= [SHAPE[1], SHAPE[0]]).all()


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_the_report_says_what_was_found_and_where(kind, tmp_path, tool):
    film = small_film(kind=kind)
    written = write(film, tmp_path / "film.dcm")
    sr = again(made(ObjectKind.SR, pydicom.dcmread(written)), tmp_path / "sr.dcm")
    assert complaints(tmp_path / "sr.dcm", tool) <= complaints(written, tool)
    assert highdicom.sr.srread(tmp_path / "sr.dcm").StudyInstanceUID == film.StudyInstanceUID
    whole, *regions, segment, quality = (values_of(group) for group in groups_of(sr))
    spacing = decode(film).spacing
    unit = 1.0 if spacing is None else spacing.pixel_area_mm2
    area = (pytest.approx(MASK.sum() * unit, abs=0.01), "{pixels}" if spacing is None else "mm2")
    assert whole["Finding"] == ["Pneumothorax"] and whole["Presence"] == ["Present"]
    assert whole["Probability of pneumothorax"] == [(PROBABILITY * 100, "%")] and whole["Area"] == [area]
    assert whole["Threshold Value"] == [(THRESHOLD * 100, "%")]
    assert whole["Algorithm Name"] == ["ptx-unet-effb4"] and whole["Algorithm Version"] == ["1.2.0"]
    assert f"model_digest={'d' * 64}" in whole["Algorithm Parameters"]
    assert "operating point: balanced" in whole["Comment"] and "AI result - not for primary diagnosis" in whole["Comment"]
    outlines = [one["Image Region"][0] for one in regions]
    assert len(regions) == PARTS and dice(np.logical_or.reduce([filled(points) for points in outlines]), MASK) > 0.985
    assert sum(one["Area"][0][0] for one in regions) == pytest.approx(MASK.sum() * unit, abs=0.02)
    seg = made(ObjectKind.SEG, film)
    reference = segment["Referenced Segmentation Frame"][0]
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (seg.SOPInstanceUID, 1)
    assert "ReferencedFrameNumber" not in reference and "Area" not in segment  # said once, of the film
    assert quality["Comment"] and sr.SeriesNumber == 9101


def test_an_area_says_in_which_plane_it_lies(tmp_path):
    for changes, unit, words in (
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": None}, "mm2", None),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.2]}, "mm2", "in the detector plane"),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25}, "mm2",
         "corrected for magnification"),
        ({"PixelSpacing": None, "ImagerPixelSpacing": None}, "{pixels}", None),
    ):  # fmt: skip
        film = small_film(kind="DX")
        for keyword, value in changes.items():
            film.pop(keyword, None) if value is None else setattr(film, keyword, value)
        whole, region, *_ = (values_of(group) for group in groups_of(made(ObjectKind.SR_ALONE, film)))
        assert whole["Area"][0][1] == unit
        for said in (whole["Tracking Identifier"][0], region["Tracking Identifier"][0]):
            assert said.endswith(words) if words else "plane" not in said and "magnification" not in said
        if words == "corrected for magnification":
            assert whole["Area"][0][0] == pytest.approx(MASK.sum() * 0.16**2, abs=0.01)


def test_a_film_without_pneumothorax_gets_a_report_that_says_so(tmp_path, tool):
    film = small_film()
    written = write(film, tmp_path / "film.dcm")
    sr = again(made(ObjectKind.SR, pydicom.dcmread(written), np.zeros(SHAPE, bool)), tmp_path / "sr.dcm")
    assert complaints(tmp_path / "sr.dcm", tool) <= complaints(written, tool)
    whole, _ = (values_of(group) for group in groups_of(sr))
    assert whole["Presence"] == ["Absent"] and "Area" not in whole
    assert "Certainty of Finding" not in whole, "beside Absent it would be read as the certainty of that"
    assert whole["Probability of pneumothorax"] == [(PROBABILITY * 100, "%")]
    assert "no pneumothorax found" in whole["Tracking Identifier"][0], "readers that show a report as text show this first"
    assert any("no pneumothorax found" in said for said in whole["Comment"])
    assert not [uid for uid in _references(sr) if uid != film.SOPInstanceUID]  # no SEG was made: none is named


@pytest.mark.parametrize("code", IndeterminateCode)
def test_an_indeterminate_film_gets_a_report_that_says_neither_yes_nor_no_and_why(code, tmp_path, tool):
    film = small_film()
    written = write(film, tmp_path / "film.dcm")
    film = pydicom.dcmread(written)
    decision = Decision(False, 0.97, np.zeros(SHAPE, bool), None, 0, THRESHOLD)
    finding = Finding("indeterminate", code.value, code.sentence, decode(film), decision)
    settings = Settings(report_negative=False)
    assert [kind for kind in ObjectKind if applies(kind, film, finding, settings)] == [
        ObjectKind.SR, ObjectKind.SR_POSITIONED, ObjectKind.SR_ALONE, ObjectKind.CAPTURE,
    ]  # fmt: skip
    sr = again(made(ObjectKind.SR, film, finding=finding), tmp_path / "sr.dcm")
    assert complaints(tmp_path / "sr.dcm", tool) <= complaints(written, tool)
    whole, _ = (values_of(group) for group in groups_of(sr))
    assert whole["Presence"] == ["Indeterminate"] and "Area" not in whole
    assert whole["Probability of pneumothorax"] == [(97, "%")]
    first = whole["Tracking Identifier"][0]
    assert "indeterminate, probability of pneumothorax 97 % (threshold 11 %)" in first and code.sentence in first
    assert f"{code.value}: {code.sentence}" in whole["Comment"] and len(code.value) <= 16 and len(code.sentence) <= 64
    assert not [uid for uid in _references(sr) if uid != film.SOPInstanceUID]


@pytest.mark.parametrize(("probability", "threshold", "said"), [
    (0.344, 0.11, "34 % (threshold 11 %)"), (0.1099, 0.11, "10.99 % (threshold 11.00 %)"),
    (0.104, 0.099, "10.4 % (threshold 9.9 %)"), (0.5, 0.5, "50 % (threshold 50 %)"), (1.0, 0.05, "100 % (threshold 5 %)"),
])  # fmt: skip
def test_a_probability_is_said_with_its_threshold_and_told_from_it(probability, threshold, said):
    decision = Decision(False, probability, np.zeros((1, 1), bool), None, 0, threshold)
    assert WORDS["en"].percent(decision) == said


def test_a_report_without_a_segmentation_at_its_side_names_none():
    film = small_film()
    segs, reports = (ObjectKind.SEG, ObjectKind.SEG_POSITIONED), (ObjectKind.SR, ObjectKind.SR_POSITIONED, ObjectKind.SR_ALONE)
    by_kind = {kind: made(kind, film) for kind in (*segs, *reports)}
    assert len({one.SOPInstanceUID for one in by_kind.values()} | {one.SeriesInstanceUID for one in by_kind.values()}) == 10
    assert all(film.SOPInstanceUID in _references(one) for one in by_kind.values())
    for report, seg in zip(reports, (*segs, None), strict=True):
        others = {uid for uid in _references(by_kind[report]) if uid != film.SOPInstanceUID}
        assert others == ({by_kind[seg].SOPInstanceUID} if seg else set())
    assert "PlanePositionSequence" in by_kind[ObjectKind.SEG_POSITIONED].PerFrameFunctionalGroupsSequence[0]
    assert kinds_for(("sr", "seg")) == (ObjectKind.SEG, ObjectKind.SR)
    assert kinds_for(("sr", "capture")) == (ObjectKind.SR_ALONE, ObjectKind.CAPTURE)
    assert kinds_for(("seg-positioned", "sr")) == (ObjectKind.SEG_POSITIONED, ObjectKind.SR_POSITIONED)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_picture_shows_film_outline_and_warning(photometric, tmp_path, tool):
    shape = (1500, 1300)
    film = small_film(shape, kind="DX", bits=12, photometric=photometric)
    written = write(film, tmp_path / "film.dcm")
    mask = cv2.resize(MASK.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    demo = dataclasses.replace(IDENTITY, demo=True)
    capture = again(made(ObjectKind.CAPTURE, pydicom.dcmread(written), mask, demo), tmp_path / "capture.dcm")
    assert complaints(tmp_path / "capture.dcm", tool) <= complaints(written, tool)
    assert (capture.BurnedInAnnotation, capture.ConversionType, capture.Modality) == ("YES", "WSD", "OT")
    assert capture.DerivationDescription == "AI result - not for primary diagnosis"
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    pixels = capture.pixel_array.astype(int)
    height, width = round(shape[0] * 1250 / shape[0]), round(shape[1] * 1250 / shape[0])
    picture, caption = pixels[:height], pixels[height:]
    assert pixels.shape[1] == width and (caption.max(2) > 100).sum() > 500  # there is text
    red = picture[..., 0] - picture[..., 1] > 60
    border = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8))
    near = cv2.resize(border, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    assert red.sum() > 500 and not (red & ~near).any()
    grey = cv2.resize(decode(film).image, (width, height), interpolation=cv2.INTER_AREA) * 255
    assert np.abs(picture[..., 1] - grey)[~near].max() <= 4  # lungs dark, whatever the film's polarity


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_presentation_state_leaves_the_film_as_it_looks_and_draws_on_it(photometric, tmp_path, tool):
    film = small_film(kind="DX", bits=12, photometric=photometric)
    written = write(film, tmp_path / "film.dcm")
    state = again(made(ObjectKind.PRESENTATION, pydicom.dcmread(written)), tmp_path / "pr.dcm")
    assert complaints(tmp_path / "pr.dcm", tool) <= complaints(written, tool)
    assert state.PresentationLUTShape == ("INVERSE" if photometric == "MONOCHROME1" else "IDENTITY")
    if "WindowCenter" in film:
        assert float(state.SoftcopyVOILUTSequence[0].WindowCenter) == float(film.WindowCenter)
    (annotation,) = state.GraphicAnnotationSequence
    assert annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    outlines = [np.array(one.GraphicData, float).reshape(-1, 2) for one in annotation.GraphicObjectSequence]
    assert dice(np.logical_or.reduce([filled(points) for points in outlines]), MASK) > 0.985
    assert "not for primary diagnosis" in annotation.TextObjectSequence[0].UnformattedTextValue


def _table(first: int, entries: np.ndarray, bits: int) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return table


def with_voi_lut(film: Dataset) -> None:
    film.VOILUTSequence = [_table(1000, np.linspace(0, 4095, 1500), 12)]


def with_falling_modality_lut(film: Dataset) -> None:
    """What is dark in the stored values is bright on the film."""
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        film.pop(keyword, None)
    film.ModalityLUTSequence = [_table(0, 4095 - np.arange(4096), 12)]
    film.ModalityLUTSequence[0].ModalityLUTType = "US"


def with_an_absurd_window(film: Dataset) -> None:
    film.WindowCenter, film.WindowWidth = "1e30", "1e30"


def without_a_window(film: Dataset) -> None:
    del film.WindowCenter, film.WindowWidth


def with_a_window_for_other_pixels(film: Dataset) -> None:
    film.WindowCenter, film.WindowWidth = "60000", "200"


def with_a_falling_voi_lut_for_other_pixels(film: Dataset) -> None:
    film.VOILUTSequence = [_table(60000, 4095 - np.arange(4096), 12)]
    without_a_window(film)


def with_a_window_below_1(film: Dataset) -> None:
    film.RescaleSlope, film.RescaleIntercept, film.RescaleType = f"{1 / 4095:.10f}", "0", "US"
    film.WindowCenter, film.WindowWidth = "0.25", "0.4"


def with_a_negative_slope_alone(film: Dataset) -> None:
    without_a_window(film)
    film.RescaleSlope = "-1"


def with_the_other_polarity(film: Dataset) -> None:
    """Shown as it was read: the other way round than the film says."""
    film.PhotometricInterpretation = "MONOCHROME1" if film.PhotometricInterpretation == "MONOCHROME2" else "MONOCHROME2"
    film.pop("PresentationLUTShape", None)


CHANGES = [
    with_voi_lut, with_falling_modality_lut, with_an_absurd_window, without_a_window, with_a_window_for_other_pixels,
    with_a_falling_voi_lut_for_other_pixels, with_a_window_below_1, with_a_negative_slope_alone, with_the_other_polarity,
]  # fmt: skip
FALLING = (with_falling_modality_lut, with_a_falling_voi_lut_for_other_pixels, with_a_negative_slope_alone)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_presentation_state_shows_the_film_as_it_was_read(change, photometric, tmp_path, tool):
    """Result: dcmtk draws the film by the presentation state as we decode it. A state stands in the place of all of the film's
    own tables (PS3.4 N.2): what it leaves out is gone, and a film of 12 bits of 16 without a window is nearly black."""
    image = 1 - picture() if change in FALLING else picture()  # shown with dark lungs
    film = small_film(kind="CR", bits=12, stored_range=(0.1, 0.3), photometric=photometric, image=image)
    film.BitsStored, film.HighBit = 16, 15
    change(film)
    written = write(film, tmp_path / "film.dcm")
    again(made(ObjectKind.PRESENTATION, pydicom.dcmread(written)), tmp_path / "pr.dcm")
    assert complaints(tmp_path / "pr.dcm", tool) <= complaints(written, tool)
    command = [tool("dcmp2pgm"), "-p", tmp_path / "pr.dcm", written, tmp_path / "shown.pgm"]
    subprocess.run(command, check=True, capture_output=True)
    shown = cv2.imread(str(tmp_path / "shown.pgm"), cv2.IMREAD_GRAYSCALE)
    off = np.abs(shown - decode(pydicom.dcmread(written)).image * 255)
    assert np.median(off) < 2 and np.percentile(off, 90) < 4  # the outline is not drawn by it


def test_the_presentation_state_names_the_function_of_the_window():
    film = small_film(kind="CR", bits=12)
    film.VOILUTFunction = "SIGMOID"
    assert made(ObjectKind.PRESENTATION, film).SoftcopyVOILUTSequence[0].VOILUTFunction == "SIGMOID"


@pytest.mark.parametrize("values", [{"ImagerPixelSpacing": ["0.2", "0.1"]}, {"PixelAspectRatio": [2, 1]}], ids=str)
def test_pixels_that_are_not_square_stay_so(values, tmp_path, tool):
    film = small_film(kind="CR", bits=12)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        film.pop(keyword, None)
    for keyword, value in values.items():
        setattr(film, keyword, value)
    written = write(film, tmp_path / "film.dcm")
    objects = {kind: again(made(kind, film), tmp_path / f"{kind}.dcm") for kind in ObjectKind}
    for kind in ObjectKind:
        assert complaints(tmp_path / f"{kind}.dcm", tool) <= complaints(written, tool), kind
    assert list(objects[ObjectKind.PRESENTATION].DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio) == [2, 1]
    shown = objects[ObjectKind.CAPTURE]
    assert "PixelAspectRatio" not in shown and shown.Columns == SHAPE[1] and shown.Rows > 2 * SHAPE[0]
    red = shown.pixel_array[: 2 * SHAPE[0]].astype(int)
    rows, columns = np.nonzero(red[..., 0] - red[..., 1] > 60)
    where = np.nonzero(MASK)
    assert np.abs([rows.min() / 2 - where[0].min(), rows.max() / 2 - where[0].max()]).max() <= 2
    assert np.abs([columns.min() - where[1].min(), columns.max() - where[1].max()]).max() <= 2
    measures = objects[ObjectKind.SEG].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.PixelSpacing[0] == 2 * measures.PixelSpacing[1]


@pytest.mark.parametrize(("bits", "sop_class"), [(8, "1.2.840.10008.5.1.4.1.1.7.2"), (12, "1.2.840.10008.5.1.4.1.1.7.3")])
def test_a_secondary_capture_of_one_frame_gets_every_object(bits, sop_class, tmp_path, tool):
    film = small_film(kind="SC", bits=bits)
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = sop_class
    film.NumberOfFrames = 1
    written = write(film, tmp_path / "film.dcm")
    for kind in ObjectKind:
        one = again(made(kind, pydicom.dcmread(written)), tmp_path / f"{kind}.dcm")
        assert complaints(tmp_path / f"{kind}.dcm", tool) <= complaints(written, tool), kind
        classes = {
            str(item.ReferencedSOPClassUID)
            for element in one.iterall() if element.VR == "SQ"
            for item in element.value if item.get("ReferencedSOPInstanceUID") == film.SOPInstanceUID
        }  # fmt: skip
        assert classes == {sop_class}, kind
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    found = seg.get_pixels_by_source_instance([film.SOPInstanceUID], ignore_spatial_locations=True)
    assert np.array_equal(found[0, :, :, 0] != 0, MASK)


def test_a_grey_film_in_colour_has_no_presentation_state():
    film = small_film(kind="SC", bits=8)
    decision = Decision(True, PROBABILITY, MASK, None, PARTS, THRESHOLD)
    positive = Finding("done", radiograph=None, decision=decision)
    assert applies(ObjectKind.PRESENTATION, film, positive, Settings())
    film.SamplesPerPixel = 3
    assert not applies(ObjectKind.PRESENTATION, film, positive, Settings())
    assert applies(ObjectKind.SEG, film, positive, Settings())


def test_every_object_is_of_the_same_study_and_names_its_maker(tmp_path, tool):
    film = small_film()
    for kind in ObjectKind:
        one = again(made(kind, film, identity=dataclasses.replace(IDENTITY, demo=True)), tmp_path / f"{kind}.dcm")
        assert (one.StudyInstanceUID, one.PatientID) == (film.StudyInstanceUID, film.PatientID)
        assert one.SeriesDescription.startswith("DEMO - NOT FOR CLINICAL USE") and one.DeviceSerialNumber == "d" * 64
        assert one.ContributingEquipmentSequence[0].Manufacturer == "Segmenter Worker", kind
        assert subprocess.run([tool("dcm2json"), tmp_path / f"{kind}.dcm"], capture_output=True, check=False).returncode == 0
    assert len({pydicom.dcmread(tmp_path / f"{kind}.dcm").SeriesNumber for kind in ObjectKind}) == 4


def _references(dataset: Dataset) -> set[str]:
    return {str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}


@pytest.mark.parametrize("shape", [(1024, 1024), (4300, 3500), (300, 264)], ids=str)
@pytest.mark.parametrize("outcome", ["pneumothorax", "none", "indeterminate"])
def test_pictures_say_the_answer_the_demo_and_what_was_assumed_in_letters_that_can_be_read(shape, outcome, tmp_path):
    """Side, probability with its threshold, area, each note; letters grow with the picture."""
    code = IndeterminateCode.NO_REGION
    notes = (NoteCode.VIEW_ASSUMED, NoteCode.DETECTOR_SPACING)
    image = cv2.resize(decode(small_film()).image, shape[::-1])
    radiograph = Radiograph(image, Turn(), Spacing(0.2, 0.2, "ImagerPixelSpacing"), "0", Rendering(IDENTITY), notes)
    mask = cv2.resize(MASK.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    mask[:, shape[1] // 2 :] = False
    positive = outcome == "pneumothorax"
    decision = Decision(positive, 0.344 if outcome != "none" else 0.02, mask & positive, 1234.4 if positive else None, 1, 0.11)
    finding = Finding("done", radiograph=radiograph, decision=decision)
    if outcome == "indeterminate":
        finding = Finding("indeterminate", code.value, code.sentence, radiograph, decision)
    said = [text for text, _ in captions(finding, WORDS["en"], demo=True)]
    assert (
        said[0]
        == {
            "pneumothorax": "pneumothorax (right), probability 34 % (threshold 11 %), 1234 mm2 (in the detector plane)",
            "none": "no pneumothorax found, probability of pneumothorax 2 % (threshold 11 %)",
            "indeterminate": f"indeterminate, probability of pneumothorax 34 % (threshold 11 %): {code.sentence}",
        }[outcome]
    )
    assert said[1:] == ["DEMO - NOT FOR CLINICAL USE", "AI result - not for primary diagnosis", *(n.sentence for n in notes)]
    assert "DEMO - NOT FOR CLINICAL USE" not in [text for text, _ in captions(finding, WORDS["en"], demo=False)]
    assert outline_png(finding, tmp_path / "film.png", demo=True) == (("right",) if positive else ())
    shown = cv2.imread(str(tmp_path / "film.png"))
    height, width = (round(side * min(1, 1024 / max(shape))) for side in shape)
    strip = shown[height:].max(axis=2) > 100
    assert shown.shape[1] == width and not strip[:, -3:].any(), "no line is cut off"
    rows = np.flatnonzero(np.diff(np.concatenate([[0], strip.any(axis=1), [0]])))
    tallest = int((rows[1::2] - rows[::2]).max())
    assert tallest >= max(10, 0.018 * width), "letters with their descenders"
    assert len(rows) // 2 >= len(said)
    red = (shown[:height, :, 2].astype(int) - shown[:height, :, 1] > 60).sum()
    assert (red > 50) == positive, "an outline where there is a region, and only there"


def test_a_destination_that_gets_pictures_only_is_not_left_without_a_negative_one(tmp_path, tool):
    film = small_film()
    written = write(film, tmp_path / "film.dcm")
    capture = again(made(ObjectKind.CAPTURE, film, np.zeros(SHAPE, bool)), tmp_path / "capture.dcm")
    assert complaints(tmp_path / "capture.dcm", tool) <= complaints(written, tool)
    assert capture.Rows > SHAPE[0] and (capture.pixel_array[SHAPE[0] :].max(axis=2) > 100).sum() > 300
    decision = Decision(False, 0.02, np.zeros(SHAPE, bool), 0.0, 0, THRESHOLD)
    negative = Finding("done", radiograph=decode(film), decision=decision)
    for report_negative in (True, False):
        settings = Settings(report_negative=report_negative)
        assert applies(ObjectKind.CAPTURE, film, negative, settings) == report_negative
        assert not applies(ObjectKind.PRESENTATION, film, negative, settings)
