"""A finding -> a DICOM SEG (PS3.3 A.51) that viewers show, on the native matrix of the film."""

from __future__ import annotations

import highdicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from segmenter.equipment import MANUFACTURER
from segmenter.model.identity import ModelIdentity
from segmenter.objects import codes
from segmenter.objects.common_header import ObjectContext
from segmenter.objects.kinds import ObjectKind
from segmenter.values import Decision, Finding, Radiograph

OUR_WORDS = "Pneumothorax, found by artificial intelligence"
_COLOUR = (255, 64, 64)  # of the overlay, sRGB


def build_seg(finding: Finding, context: ObjectContext) -> FileDataset:
    """The SEG of one positive film, ready to be written.

    Raises ValueError for a finding without a mask: highdicom would write an empty frame, and viewers would show nothing.
    """
    decision, radiograph = finding.decision, finding.radiograph
    if decision is None or radiograph is None or not decision.positive:
        raise ValueError("only a positive film has a SEG")
    seg = _segmentation(decision, radiograph, context)
    seg.BodyPartExamined = "CHEST"
    if radiograph.spacing is None:
        seg.SegmentSequence[0].SegmentDescription = f"Placeholder of 1 mm: {context.words.unknown_spacing}."
    _make_viewers_show_it(seg, context)
    _identify_segment_per_frame(seg)
    return context.as_file(seg, image=True)


def _segmentation(decision: Decision, radiograph: Radiograph, context: ObjectContext) -> Segmentation:
    header = Dataset(context.header)
    header.Rows, header.Columns = decision.mask.shape  # the source may hold several values in each
    spacing, identity = radiograph.spacing, context.identity
    tall, wide = radiograph.aspect
    # A placeholder for an unknown spacing, with a text that says so. A SEG without a frame of reference may omit Pixel Measures
    # (PS3.3 table C.7.6.16-2), but highdicom reads no SEG whose PixelMeasures lack PixelSpacing, and OHIF shows none without
    # PixelMeasures.
    pixel_mm = (spacing.row_mm, spacing.column_mm) if spacing else (tall / wide, 1.0)
    # With the film's frame of reference, the orientation that viewers need would be a position in the patient.
    header.pop("FrameOfReferenceUID", None)
    return Segmentation(
        source_images=[header],
        pixel_array=decision.mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(identity, decision, context)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="PNEUMOTHORAX",
        content_description=_description(context, known=spacing is not None),
        # Without PixelMeasures OHIF crashes; without SliceThickness highdicom cannot read its own object again.
        pixel_measures=highdicom.PixelMeasuresSequence(pixel_spacing=pixel_mm, slice_thickness=1.0),
        **context.common_arguments,
        **context.equipment,
    )


def _description(context: ObjectContext, *, known: bool) -> str:
    """ContentDescription: LO, 64 characters (PS3.5 section 6.2)."""
    if context.identity.demo:
        return context.words.demo_notice + ("" if known else f"; {context.words.unknown_spacing}")
    return OUR_WORDS if known else f"Pneumothorax, by AI; {context.words.unknown_spacing}"


def _segment(identity: ModelIdentity, decision: Decision, context: ObjectContext) -> SegmentDescription:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=identity.name,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=identity.version,
        source=MANUFACTURER,
        # LT: digests are too long for the LO of a version
        parameters=identity.parameters | {"image_probability": f"{decision.image_probability:.4f}"},
    )
    return SegmentDescription(
        segment_number=1,
        segment_label=f"Pneumothorax {context.words.demo_notice}" if identity.demo else "Pneumothorax",
        segmented_property_category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        segmented_property_type=codes.PNEUMOTHORAX,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[codes.PLEURA],
        display_color=highdicom.color.CIELabColor.from_rgb(*_COLOUR),
    )


def _make_viewers_show_it(seg: Segmentation, context: ObjectContext) -> None:
    """OHIF never finishes loading without a plane orientation. Without a frame of reference it has no meaning: viewers assume
    the identity for a source without one, and Derivation Image gives the geometry. There is no invented frame of reference, and
    a plane position only in the variant for dcmqi: Weasis would match by position and lose the overlay."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    positioned = context.kind is ObjectKind.SEG_POSITIONED
    if context.settings.plane_orientation or positioned:
        plane = Dataset()
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PlaneOrientationSequence = Sequence([plane])
    if positioned:
        position = Dataset()
        position.ImagePositionPatient = [0, 0, 0]
        for frame in seg.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence = Sequence([position])


def _identify_segment_per_frame(seg: Segmentation) -> None:
    """Weasis reads the segment's number from the per-frame groups only."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" not in shared:
        return
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence = shared.SegmentIdentificationSequence
    del shared.SegmentIdentificationSequence
