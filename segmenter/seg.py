"""A finding -> a DICOM SEG that viewers really show (PS3.3 A.51), on the native matrix of the film.

highdicom builds it from a header of our own making, so that no bad value of the source can stop it; the source's study
and patient elements are then put in as the bytes they arrived in, with their character set.
"""

from __future__ import annotations

from io import BytesIO

import highdicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from segmenter import codes
from segmenter.header import is_uid, readable, text
from segmenter.identity import ModelIdentity
from segmenter.settings import Settings
from segmenter.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MODEL_NAME,
    result_uid,
    series_uid,
)
from segmenter.values import Decision, Finding, Radiograph

DEMO_NOTICE = "DEMO - NOT FOR CLINICAL USE"
OUR_WORDS = "Pneumothorax, found by artificial intelligence"
_LO = 64  # characters of a Long String (PS3.5 section 6.2)
_COLOUR = (255, 64, 64)  # of the overlay, sRGB
# Type 2 of the Patient and General Study modules: present, if need be empty (PS3.3 C.7.1.1, C.7.2.1).
_ALWAYS = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyID",
)  # fmt: skip
_IF_THERE = (
    "SpecificCharacterSet", "StudyDescription", "IssuerOfPatientID", "PatientBirthTime", "PatientAge",
    "PatientSize", "PatientWeight", "EthnicGroup", "PatientIdentityRemoved", "DeidentificationMethod",
    "StudyInstanceUID",
)  # fmt: skip


def build_seg(source: Dataset, finding: Finding, identity: ModelIdentity, revision: int, settings: Settings) -> FileDataset:
    """The SEG of one positive film, ready to be written. `source` is the film's dataset; its Pixel Data is not touched.

    Raises ValueError for a finding without a mask: highdicom would write an empty frame, and viewers show nothing.
    """
    decision, radiograph = finding.decision, finding.radiograph
    if decision is None or radiograph is None or not decision.positive:
        raise ValueError("only a positive film has a SEG")
    header = _stand_in(readable(source), decision)
    names = (header.SOPInstanceUID, radiograph.content_sha256, identity.digest, "seg")
    seg = _segmentation(header, decision, radiograph, identity, names, settings)
    seg.SeriesDescription = series_description(identity, revision)
    seg.SeriesDate, seg.SeriesTime = seg.ContentDate, seg.ContentTime
    seg.BodyPartExamined = "CHEST"
    _make_viewers_show_it(seg, settings)
    _identify_segment_per_frame(seg)
    return _as_file(seg, source)


def series_description(identity: ModelIdentity, revision: int) -> str:
    """What the reading list shows: model and version, the demo notice, and "rev 2" for other pixels under a used UID."""
    before = f"{DEMO_NOTICE} " if identity.demo else f"{MODEL_NAME} "
    after = f" {identity.version[:16]}" + (f" rev {revision}" if revision > 1 else "")
    return before + identity.name[: _LO - len(before) - len(after)] + after


def _stand_in(source: Dataset, decision: Decision) -> Dataset:
    """A header with what highdicom reads from a source image, and nothing that it could stumble over."""
    header = Dataset()
    for keyword in _ALWAYS:
        setattr(header, keyword, "")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(header, keyword, text(source, keyword))
    if is_uid(frame := text(source, "FrameOfReferenceUID")):
        header.FrameOfReferenceUID = frame
    header.Modality = text(source, "Modality") or "OT"
    header.Rows, header.Columns = decision.mask.shape  # the source may hold several values in each
    return header


def _segmentation(
    header: Dataset,
    decision: Decision,
    radiograph: Radiograph,
    identity: ModelIdentity,
    names: tuple[str, str, str, str],
    settings: Settings,
) -> Segmentation:
    spacing = radiograph.spacing
    pixel_mm = (spacing.row_mm, spacing.column_mm) if spacing else (1.0, 1.0)
    return Segmentation(
        source_images=[header],
        pixel_array=decision.mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(identity, decision)],
        series_instance_uid=series_uid(*names),
        series_number=settings.series_number,
        sop_instance_uid=result_uid(*names),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=f"{identity.name} {identity.version}"[:_LO],
        device_serial_number=identity.digest,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="PNEUMOTHORAX",
        content_description=(DEMO_NOTICE if identity.demo else OUR_WORDS),
        # Without PixelMeasures OHIF crashes; without SliceThickness highdicom can not read its own object again.
        pixel_measures=highdicom.PixelMeasuresSequence(pixel_spacing=pixel_mm, slice_thickness=1.0),
    )


def _segment(identity: ModelIdentity, decision: Decision) -> SegmentDescription:
    point = identity.thresholds
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=identity.name,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=identity.version,
        source=MANUFACTURER,
        parameters={  # LT: digests are too long for the LO of a version
            "model_digest": identity.digest,
            "weights_sha256": identity.weights_sha256,
            "manifest_sha256": identity.manifest_sha256,
            "settings_sha256": identity.settings_sha256,
            "training_commit": identity.commit or "unknown",
            "operating_point": identity.operating_point,
            "image_threshold": f"{point.image_threshold:g}",
            "mask_threshold": f"{point.mask_threshold:g}",
            "min_area_mm2": f"{point.min_area_mm2:g}",
            "min_area_px": f"{point.min_area_px:g}",
            "image_probability": f"{decision.image_probability:.4f}",
        },
    )
    return SegmentDescription(
        segment_number=1,
        segment_label=f"Pneumothorax {DEMO_NOTICE}" if identity.demo else "Pneumothorax",
        segmented_property_category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        segmented_property_type=codes.PNEUMOTHORAX,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[codes.PLEURA],
        display_color=highdicom.color.CIELabColor.from_rgb(*_COLOUR),
    )


def _make_viewers_show_it(seg: Segmentation, settings: Settings) -> None:
    """OHIF waits for ever without a plane orientation. Without a frame of reference it means nothing: the identity is what
    viewers assume for a source that has none, and Derivation Image stays the geometry. No plane position and no invented
    frame of reference: Weasis would match by position and lose the overlay."""
    if settings.plane_orientation:
        plane = Dataset()
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = Sequence([plane])


def _identify_segment_per_frame(seg: Segmentation) -> None:
    """Weasis reads the segment's number from the per-frame groups only."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" not in shared:
        return
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence = shared.SegmentIdentificationSequence
    del shared.SegmentIdentificationSequence


def _as_file(seg: Segmentation, source: Dataset) -> FileDataset:
    """A plain dataset with our file meta, and the study and patient elements as the bytes of the source."""
    correct_ambiguous_vr(seg, True)
    file = FileDataset(BytesIO(), dict(seg.items()), b"\0" * 128, seg.file_meta, False, True)
    file.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    file.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    for keyword in (*_ALWAYS, *_IF_THERE):
        tag = Tag(keyword)
        if tag in source:
            file[tag] = _unchanged(source, tag)
    # Type 2C where no position is known (PS3.3 C.7.6.1); the same words as on the film, because the matrix is the same.
    orientation = Tag("PatientOrientation")
    file[orientation] = _unchanged(source, orientation) if orientation in source else DataElement(orientation, "CS", None)
    # Raw elements are written as they are only as long as pydicom believes that the character set never changed.
    file.set_original_encoding(False, True, _character_set(file))
    return file


def _character_set(file: Dataset) -> str | list[str]:
    """What pydicom writes text with. A SpecificCharacterSet that names none is taken out: no reader could use it, and it
    may even be a codec of Python that is no character set."""
    tag = Tag("SpecificCharacterSet")
    if tag not in file:
        return default_encoding
    try:
        named = convert_encodings(file[tag].value)
        if all(OUR_WORDS.encode(one, "replace") == OUR_WORDS.encode() for one in named):
            return named
    except (LookupError, UnicodeError, ValueError, TypeError, AttributeError):
        pass
    del file[tag]
    return default_encoding


def _unchanged(source: Dataset, tag: BaseTag) -> RawDataElement | DataElement:
    """The element with the bytes it arrived in, as long as nobody has converted it; else its value."""
    element = source.get_item(tag, keep_deferred=True)
    if not isinstance(element, RawDataElement):
        return element
    value = element.value or b""
    padding = (b"\0" if dictionary_VR(tag) == "UI" else b" ") if len(value) % 2 else b""
    return RawDataElement(tag, dictionary_VR(tag), len(value + padding), value + padding, 0, False, True)
