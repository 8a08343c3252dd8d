"""Films that the gate leaves out, by the code it gives, and films that are answered with notes, by these."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from small_film import picture, raw, small_film

from segmenter.equipment import MANUFACTURER, MODEL_NAME
from segmenter.film.gate import SkipCode
from segmenter.film.intensity import DX_FOR_PROCESSING
from segmenter.notes import NoteCode
from segmenter.settings import Settings

SETTINGS = Settings(min_side_px=200, max_pixels=1_000_000, min_age_years=1, device="cpu", threads=1, absurd_fraction=1.0)
SILENT = ("BodyPartExamined", "ViewPosition", "SeriesDescription", "StudyDescription", "PatientOrientation")


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


def rgb(channels: tuple[float, float, float]) -> Dataset:
    """A film of three samples, each the grey times a factor."""
    dataset = changed("SC", SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    grey = np.frombuffer(dataset.PixelData, np.uint16)[:, None] >> 4
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.WindowCenter, dataset.WindowWidth = "127.5", "256"
    dataset.PixelData = (grey * np.array(channels)).astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


SKIPPED = [
    (SkipCode.MISSING_UID, changed(without=("StudyInstanceUID",))),
    (SkipCode.MISSING_UID, changed(SOPInstanceUID="")),
    (SkipCode.INVALID_UID, changed(SeriesInstanceUID="1." + "2" * 64)),
    (SkipCode.INVALID_UID, changed(SOPInstanceUID="../../etc/passwd")),
    (SkipCode.PRESENTATION_STATE, changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1")),
    (SkipCode.STRUCTURED_REPORT, changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")),
    (SkipCode.NOT_AN_IMAGE_CLASS, changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")),
    (SkipCode.NOT_AN_IMAGE_CLASS, changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
    (SkipCode.DERIVED_BY_US, changed("SC", Manufacturer=MANUFACTURER)),
    (SkipCode.DERIVED_BY_US, changed("SC", ContributingEquipmentSequence=[item(ManufacturerModelName=MODEL_NAME)])),
    (SkipCode.NOT_A_RADIOGRAPH, changed(Modality="MG")),
    (SkipCode.NOT_A_RADIOGRAPH, changed("SC", Modality="CT")),
    (SkipCode.NOT_A_RADIOGRAPH, changed("SC", without=SILENT, Modality="OT")),
    (SkipCode.BURNED_IN_RESULT, changed("SC", ImageType=["DERIVED", "SECONDARY"], BurnedInAnnotation="YES")),
    (SkipCode.BURNED_IN_RESULT, changed("SC", SeriesDescription="AI RESULT chest")),
    (SkipCode.DERIVED_IMAGE, changed("DX", ImageType=["DERIVED", "PRIMARY", "", "SOFT_TISSUE"])),
    (SkipCode.DERIVED_IMAGE, changed("DX", SeriesDescription="Chest PA bone suppressed")),
    (SkipCode.FOR_PROCESSING, changed("DX", PresentationIntentType="FOR PROCESSING")),
    (SkipCode.FOR_PROCESSING, changed(ImageType=["ORIGINAL", "PRIMARY", "RAW"])),
    (SkipCode.NOT_HUMAN, changed(PatientSpeciesDescription="Canis lupus familiaris")),
    (SkipCode.NOT_HUMAN, changed(PatientBreedDescription="Beagle")),
    (SkipCode.NOT_HUMAN, changed(AcquisitionDeviceProcessingDescription="CANINE LATERAL THORAX 0-15cm")),
    (SkipCode.NOT_A_CHEST, changed(BodyPartExamined="HAND")),
    (SkipCode.NOT_A_CHEST, changed(BodyPartExamined="TSPINE", StudyDescription="thoracic spine")),
    (SkipCode.NOT_A_CHEST, changed(without=("BodyPartExamined",), SeriesDescription="L KNEE AP", StudyDescription="")),
    (SkipCode.NOT_A_CHEST, changed(without=SILENT, AnatomicRegionSequence=[item(CodeMeaning="Pelvis")])),
    (SkipCode.LATERAL_VIEW, changed(ViewPosition="LL")),
    (SkipCode.LATERAL_VIEW, changed(without=("ViewPosition",), SeriesDescription="Esaote S.p.A. lateral")),
    (SkipCode.LATERAL_VIEW, changed(ViewPosition="lateral")),
    (SkipCode.LATERAL_VIEW, changed(without=("ViewPosition",), SeriesDescription="CHEST_LAT")),
    (SkipCode.LATERAL_VIEW, changed(without=("ViewPosition",), ViewCodeSequence=[item(CodeMeaning="left lateral")])),
    (SkipCode.LATERAL_VIEW, changed(without=SILENT, ViewCodeSequence=[item(CodeValue="399173006", CodeMeaning="profil")])),
    (SkipCode.LATERAL_VIEW, changed(without=("ViewPosition", "SeriesDescription"), PatientOrientation=["A", "F"])),
    (SkipCode.LATERAL_VIEW, changed(without=("ViewPosition", "SeriesDescription"), PatientOrientation=["F", "A"])),
    (SkipCode.OBLIQUE_VIEW, changed(ViewPosition="RAO")),
    (SkipCode.OBLIQUE_VIEW, changed(ViewPosition="LLO")),
    (SkipCode.OBLIQUE_VIEW, changed(without=("ViewPosition", "SeriesDescription"), PatientOrientation=["LA", "F"])),
    (SkipCode.NOT_FRONTAL, changed(ViewPosition="LLD")),
    (SkipCode.TOO_YOUNG, changed(without=("PatientBirthDate",), PatientAge="011M")),
    (SkipCode.TOO_YOUNG, changed(StudyDate="20240229", PatientBirthDate="20230301")),
    (SkipCode.NO_PIXELS, changed(without=("PixelData",))),
    (SkipCode.MULTI_FRAME, changed(NumberOfFrames=2)),
    (SkipCode.COLOUR, changed(PhotometricInterpretation="PALETTE COLOR")),
    (SkipCode.COLOUR, rgb((1.0, 0.5, 0.2))),
    (SkipCode.TOO_SMALL, changed(Rows=180)),
    (SkipCode.TOO_SMALL, changed(Rows=0, Columns=0)),
    (SkipCode.TOO_LARGE, changed(Rows=65535, Columns=65535)),
    (SkipCode.BLANK, changed(PixelData=b"\7\0" * (300 * 264))),
]  # fmt: skip


def plain(without: tuple[str, ...] = (), **values) -> Dataset:
    """A film that leaves nothing open."""
    return changed("DX", without, **{"PixelSpacing": ["0.36", "0.36"], **values})


def padded() -> Dataset:
    """A padding value that stands in nearly all of the film."""
    dataset = plain(PixelPaddingValue=100, without=("WindowCenter", "WindowWidth"))
    pixels = np.full((300, 264), 100, np.uint16)
    pixels[:40, :40] = np.arange(1600).reshape(40, 40) + 200
    dataset.PixelData = pixels.tobytes()
    return dataset


def negative() -> Dataset:
    """Stored as MONOCHROME2 and tagged as MONOCHROME1, shape and all: nothing in the header speaks against it."""
    return plain(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")


def on_its_side() -> Dataset:
    """A film that lies on its side and does not say so: its lungs seem bright, and inverting it would be wrong."""
    image = np.ascontiguousarray(np.rot90(picture()))
    dataset = plain(("PatientOrientation",), Rows=image.shape[0], Columns=image.shape[1])
    dataset.PixelData = np.round(image * 4095).astype("<u2").tobytes()
    return dataset


def for_processing(linear: bool = False, sign: int = -1) -> Dataset:
    """The same picture as a detector measures it: through up to two decades of tissue, more of it where the picture is
    brighter; the logarithm of the intensity or the intensity, as it is or counted from above."""
    dataset = plain(
        ("WindowCenter", "WindowWidth", "PresentationLUTShape"),
        SOPClassUID=DX_FOR_PROCESSING, PresentationIntentType="FOR PROCESSING", BitsStored=16, HighBit=15,
        PixelIntensityRelationship="LIN" if linear else "LOG", PixelIntensityRelationshipSign=sign,
        PhotometricInterpretation="MONOCHROME1" if sign == 1 else "MONOCHROME2",
    )  # fmt: skip
    dataset.file_meta.MediaStorageSOPClassUID = DX_FOR_PROCESSING
    intensity = 10.0 ** (-2.0 * picture()) if linear else 1 - picture()
    stored = np.round(intensity * 60000 if sign == 1 else 65535 - intensity * 60000)
    dataset.PixelData = stored.astype("<u2").tobytes()
    return dataset


RECTANGLE = {
    "ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 11, "ShutterRightVerticalEdge": 254,
    "ShutterUpperHorizontalEdge": 21, "ShutterLowerHorizontalEdge": 290,
}  # fmt: skip


def above_the_value() -> Dataset:
    cells = np.frombuffer(plain().PixelData, np.uint16)
    return plain(PixelData=(cells | 0x8000).tobytes())


def misnamed() -> Dataset:
    """Uncompressed pixels that are said to be RLE."""
    dataset = plain()
    dataset.file_meta.TransferSyntaxUID = RLELossless
    return dataset


def without_planes() -> Dataset:
    dataset = rgb((1.0, 1.0, 1.0))
    del dataset.PlanarConfiguration
    return dataset


VIEW, REGION = ("ViewPosition", "ViewCodeSequence"), ("BodyPartExamined", "AnatomicRegionSequence")
NOTE = NoteCode
NOTED = [
    ({NOTE.VIEW_BY_CODE}, plain(("ViewPosition",))),
    ({NOTE.VIEW_BY_CODE}, plain(VIEW, SeriesDescription="x", ViewCodeSequence=[item(CodeValue="272479007", CodeMeaning="-")])),
    ({NOTE.VIEW_BY_TEXT}, plain(VIEW)),
    ({NOTE.VIEW_BY_AXES}, plain(VIEW, SeriesDescription="Chest", ViewPosition="ERECT")),
    ({NOTE.VIEW_ASSUMED, NOTE.UPRIGHT_ASSUMED}, plain((*VIEW, "PatientOrientation"), SeriesDescription="Chest")),
    ({NOTE.VIEW_CONFLICT}, plain(ViewPosition="PA", SeriesDescription="CHEST LATERAL")),
    ({NOTE.VIEW_CONFLICT}, plain(ViewPosition="PA", StudyDescription="Chest, lateral")),
    ({NOTE.VIEW_CONFLICT, NOTE.UPRIGHT_ASSUMED}, plain(ViewPosition="PA", PatientOrientation=["A", "F"])),
    ({NOTE.VIEW_BY_TEXT, NOTE.VIEW_CONFLICT}, plain(VIEW, SeriesDescription="CHEST PA LAT")),
    ({NOTE.REGION_BY_CODE}, plain(("BodyPartExamined",))),
    ({NOTE.REGION_BY_TEXT}, plain(REGION)),
    ({NOTE.REGION_ASSUMED}, plain(REGION, SeriesDescription="frontal", StudyDescription="Film", BodyPartExamined="UNKNOWN")),
    ({NOTE.REGION_CONFLICT}, plain(SeriesDescription="L KNEE AP", StudyDescription="Film")),
    ({NOTE.REGION_CONFLICT}, plain(AnatomicRegionSequence=[item(CodeMeaning="Pelvis")])),
    ({NOTE.MODALITY_ASSUMED}, plain(Modality="OT")),
    ({NOTE.YOUNG_CHILD, NOTE.AGE_CONFLICT}, plain(PatientAge="002Y")),
    ({NOTE.YOUNG_CHILD}, plain(("PatientBirthDate",), PatientAge="130W")),
    ({NOTE.YOUNG_CHILD}, plain(StudyDate="20240301", PatientBirthDate="20210302")),
    ({NOTE.MINOR}, plain(StudyDate="20240301", PatientBirthDate="20210228")),
    ({NOTE.MINOR}, plain(("PatientBirthDate",), PatientAge="17")),
    (set(), plain(("PatientBirthDate",), PatientAge="018Y")),
    ({NOTE.AGE_UNKNOWN}, plain(("PatientBirthDate",))),
    ({NOTE.AGE_UNKNOWN}, raw(plain(), PatientBirthDate=b"d14a028c2a3a", PatientAge=b"old ")),
    ({NOTE.SAMPLES_ASSUMED}, plain(("SamplesPerPixel",))),
    ({NOTE.BITS_ASSUMED}, plain(BitsStored=17, HighBit=15)),
    ({NOTE.BITS_ASSUMED, NOTE.HIGH_BIT_ASSUMED}, plain(("BitsStored", "HighBit"))),
    ({NOTE.SIGN_ASSUMED}, plain(("PixelRepresentation",))),
    ({NOTE.WIDER_VALUES}, plain(BitsStored=11, HighBit=10)),
    ({NOTE.UNUSED_BITS}, above_the_value()),
    ({NOTE.SIGN_CONFLICT}, plain(PixelRepresentation=1)),
    ({NOTE.SYNTAX_CONFLICT}, misnamed()),
    ({NOTE.SURPLUS_PIXELS}, plain(PixelData=plain().PixelData + b"\0\0")),
    ({NOTE.GREY_FROM_COLOUR, NOTE.VIEW_BY_TEXT}, rgb((1.0, 1.0, 1.0))),
    ({NOTE.GREY_FROM_COLOUR, NOTE.VIEW_BY_TEXT, NOTE.PLANAR_ASSUMED}, without_planes()),
    ({NOTE.POLARITY_ASSUMED}, plain(("PhotometricInterpretation",))),
    ({NOTE.POLARITY_ASSUMED}, plain(PhotometricInterpretation="MONOCHROME")),
    ({NOTE.POLARITY_CHANGED}, negative()),
    ({NOTE.POLARITY_SUSPECT, NOTE.UPRIGHT_ASSUMED}, on_its_side()),
    ({NOTE.INVERSE_CONFLICT}, plain(PresentationLUTShape="INVERSE")),
    ({NOTE.INVERSE_CONFLICT}, plain(PhotometricInterpretation="MONOCHROME1")),
    ({NOTE.FOR_PROCESSING, NOTE.GREYS_ASSUMED}, for_processing()),
    ({NOTE.SHUTTER_APPLIED}, plain(**RECTANGLE)),
    ({NOTE.SHUTTER_IGNORED}, plain(**{**RECTANGLE, "ShutterRightVerticalEdge": 20})),
    ({NOTE.DUAL_ENERGY}, plain(ProtocolName="Chest PA Dual Energy Standard")),
    ({NOTE.RESCALE_IGNORED}, plain(RescaleSlope="0")),
    ({NOTE.RESCALE_IGNORED}, plain(ModalityLUTSequence=[item(LUTDescriptor=[0, 0, 16])])),
    ({NOTE.WINDOW_IGNORED, NOTE.TABLE_REPAIRED}, plain(VOILUTSequence=[item(LUTDescriptor=[2, 0, 16], LUTData=[9, 9])])),
    ({NOTE.TABLE_REPAIRED}, plain(VOILUTSequence=[item(LUTDescriptor=[0, 0, 12], LUTData=list(range(4096)))])),
    ({NOTE.NUMBER_REPAIRED}, raw(plain(), RescaleSlope=b"1,0 ")),
    ({NOTE.WINDOW_IGNORED, NOTE.GREYS_ASSUMED}, plain(WindowCenter="60000", WindowWidth="200")),
    ({NOTE.WINDOW_IGNORED, NOTE.GREYS_ASSUMED}, plain(WindowWidth="0")),
    ({NOTE.GREYS_ASSUMED}, plain(("WindowCenter", "WindowWidth"))),
    ({NOTE.PADDING_IGNORED, NOTE.GREYS_ASSUMED}, padded()),
    ({NOTE.SPACING_UNKNOWN}, plain(("PixelSpacing", "ImagerPixelSpacing"), PixelSpacing="")),
    ({NOTE.SPACING_UNKNOWN, NOTE.SPACING_IGNORED}, plain(("ImagerPixelSpacing",), PixelSpacing=[0, 0])),
    ({NOTE.SPACING_IGNORED, NOTE.DETECTOR_SPACING}, plain(PixelSpacing=[0, 0])),
    ({NOTE.DETECTOR_SPACING}, changed("DX")),
    ({NOTE.DETECTOR_SPACING}, plain(PixelSpacing=["0.4", "0.4"])),  # as ImagerPixelSpacing says
    ({NOTE.SPACING_DERIVED}, changed("DX", EstimatedRadiographicMagnificationFactor="1.1")),
    ({NOTE.UPRIGHT_ASSUMED}, plain(("PatientOrientation",))),
    ({NOTE.UPRIGHT_ASSUMED}, plain(PatientOrientation=["L", "L"])),
    ({NOTE.TURNED_UPRIGHT}, plain(PatientOrientation=["R", "F"])),
]  # fmt: skip
