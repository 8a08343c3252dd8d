"""A finding -> a Comprehensive SR (PS3.3 A.35.3) by TID 1500 (PS3.16): present, absent or indeterminate, area, probability with
its threshold, and the outline as SCOORD.

Negative and indeterminate films have a report, too. The groups: the finding of the whole film (TID 1501); one region with its
outline per connected component (TID 1410); the SEG, where the destination gets it (TID 1410); what was assumed about the film
(TID 1501).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.codedict import codes as dictionary
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from segmenter.equipment import MANUFACTURER, MODEL_NAME
from segmenter.model.artifact import LO_CHARACTERS
from segmenter.notes import NoteCode
from segmenter.objects import codes
from segmenter.objects.common_header import ObjectContext
from segmenter.objects.outline import Region, Side, regions_on, sides_of
from segmenter.objects.uids import derived_uid
from segmenter.values import Decision, Finding, Radiograph

_PATIENT_SIDES = {Side.LEFT: codes.LEFT, Side.RIGHT: codes.RIGHT}


def build_sr(finding: Finding, context: ObjectContext) -> FileDataset:
    """The report of one film, whatever the answer, ready to be written. Raises ValueError without a decision."""
    decision, radiograph = finding.decision, finding.radiograph
    if decision is None or radiograph is None:
        raise ValueError("only a film with an answer has a report")
    segmentation = context.kind.segmentation if decision.positive else None
    evidence = [context.header]
    if segmentation is not None:
        evidence.append(context.header_of(segmentation))
    groups = _Groups(context, finding, decision, radiograph)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(context)),
        procedure_reported=codes.CHEST_RADIOGRAPHY,
        # Without a region to draw, OHIF shows an empty measurement report, but any other report as text.
        title=codes.IMAGING_MEASUREMENT_REPORT if decision.positive else codes.DIAGNOSTIC_IMAGING_REPORT,
        imaging_measurements=list(groups.all(evidence[1] if segmentation is not None else None)),
        language_of_content_item_and_descendants=_language(context),
    )
    # highdicom copies the content and traverses it four times, to find its evidence and coordinates, which are known here.
    # Adding the content afterwards saves half of the time.
    root = report[0]
    content = root["ContentSequence"]
    root["ContentSequence"] = DataElement(content.tag, content.VR, [])
    sr = ComprehensiveSR(
        evidence=evidence,
        content=root,
        is_complete=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **context.common_arguments,
    )
    sr["ContentSequence"] = content
    # highdicom writes it beside ReferencedSegmentNumber; PS3.3 C.18.4 and dciodvfy allow only one of the two.
    _drop_frame_numbers(sr)
    return context.as_file(sr, image=False)


class _Groups:
    """The measurement groups of one report."""

    def __init__(self, context: ObjectContext, finding: Finding, decision: Decision, radiograph: Radiograph) -> None:
        self._context = context
        self._finding = finding
        self._decision = decision
        self._radiograph = radiograph
        self._parts = regions_on(radiograph, decision.mask)
        header = context.header
        self._film = (str(header.SOPClassUID), str(header.SOPInstanceUID))
        self._parameters = [f"{name}={value}" for name, value in context.identity.parameters.items()]

    def all(self, segmentation: Dataset | None) -> Iterator[Any]:
        """The groups in their order; `segmentation`: a header of the SEG to refer to."""
        yield self._film_as_a_whole()
        for number, part in enumerate(self._parts, start=1):
            yield self._region(number, part)
        if segmentation is not None:
            yield self._segment(segmentation)
        if self._radiograph.notes:
            yield self._quality()

    def _film_as_a_whole(self) -> Any:
        decision, identity = self._decision, self._context.identity
        measurements = [
            Measurement(codes.PROBABILITY, round(decision.image_probability * 100, 2), codes.PERCENT),
            Measurement(codes.THRESHOLD, round(decision.image_threshold * 100, 2), codes.PERCENT),
        ]
        if decision.positive:
            measurements.append(self._area(int(np.count_nonzero(decision.mask))))
        words = self._context.words
        answer = words.answer(self._finding, sides_of(self._parts))
        # Viewers that show a report as text show the tracking identifier first: without a region it holds the answer.
        first = self._unit if decision.positive else answer
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking("film", first),
            finding_type=codes.PNEUMOTHORAX,
            finding_category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
            algorithm_id=self._algorithm(self._parameters),
            measurements=measurements,
            qualitative_evaluations=[QualitativeEvaluation(codes.PRESENCE, self._presence)],
            source_images=[SourceImageForMeasurementGroup(*self._film)],
        )
        sentences = [answer, words.notice, f"{words.operating_point}: {identity.operating_point}"]
        if self._finding.outcome == "indeterminate":
            sentences.insert(1, f"{self._finding.code}: {self._finding.sentence}")
        _comment(group, [words.demo_notice, *sentences] if identity.demo else sentences)
        return group

    def _region(self, number: int, part: Region) -> Any:
        side = _PATIENT_SIDES.get(part.side)
        words = [self._unit] if side else [str(part.side), self._unit]  # only the patient's sides have codes
        return PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(f"region {number}", *words),
            referenced_region=ImageRegion("POLYLINE", part.points, SourceImageForRegion(*self._film)),
            finding_type=codes.PNEUMOTHORAX,
            algorithm_id=self._algorithm_by_digest,
            finding_sites=[FindingSite(codes.PLEURA, laterality=side)],
            measurements=[self._area(part.area_px)],
        )

    def _segment(self, segmentation: Dataset) -> Any:
        uids = (str(segmentation.SOPClassUID), str(segmentation.SOPInstanceUID))
        return PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking("segmentation", self._unit),
            referenced_segment=ReferencedSegmentationFrame(
                *uids, frame_number=1, segment_number=1, source_image=SourceImageForSegmentation(*self._film)
            ),
            finding_type=codes.PNEUMOTHORAX,
            algorithm_id=self._algorithm_by_digest,
        )

    def _quality(self) -> Any:
        """What was assumed, guessed or repaired about the film: "code: sentence"."""
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking("input quality"),
            source_images=[SourceImageForMeasurementGroup(*self._film)],
        )
        _comment(group, [_sentence(note) for note in self._radiograph.notes])
        return group

    @property
    def _presence(self) -> Code:
        if self._finding.outcome == "indeterminate":
            return codes.INDETERMINATE
        return codes.PRESENT if self._decision.positive else codes.ABSENT

    @cached_property
    def _algorithm_by_digest(self) -> AlgorithmIdentification:
        return self._algorithm(self._parameters[:1])

    def _algorithm(self, parameters: Sequence[str]) -> AlgorithmIdentification:
        """The algorithm (TID 4019): with all parameters in the first group, with the digest only in the others."""
        identity = self._context.identity
        return AlgorithmIdentification(
            name=identity.name,
            version=identity.version,
            parameters=parameters,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MANUFACTURER,
        )

    def _area(self, area_px: int) -> Measurement:
        spacing = self._radiograph.spacing
        if spacing is None:
            return Measurement(codes.AREA, float(area_px), codes.PIXELS)
        return Measurement(codes.AREA, round(area_px * spacing.pixel_area_mm2, 2), codes.SQUARE_MILLIMETRE)

    @property
    def _unit(self) -> str:
        """The plane in which the area is measured; "" without an area or a known plane."""
        return self._context.words.plane(self._radiograph) if self._decision.positive else ""

    def _tracking(self, name: str, *more: str) -> TrackingIdentifier:
        """The groups about the finding share one tracking UID; further regions have their own. OHIF merges groups of one UID,
        and shows a black viewport for a group that then has no coordinates."""
        identifier = ", ".join(["Pneumothorax " + name, *filter(None, more)])
        own = name if name.startswith("region") and name != "region 1" else "finding"
        return TrackingIdentifier(derived_uid("tracking", *self._context.uid_parts(own)), identifier)


def _comment(group: Any, sentences: Sequence[str]) -> None:
    """Add sentences for people to a measurement group (TID 1501 is extensible)."""
    for sentence in sentences:
        group[0].ContentSequence.append(TextContentItem(codes.COMMENT, sentence, RelationshipTypeValues.CONTAINS))


def _sentence(note: NoteCode) -> str:
    return f"{note.value}: {note.sentence}"


def _observer(context: ObjectContext) -> ObserverContext:
    identity = context.identity
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", identity.digest),
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=f"{identity.name} {identity.version}"[:LO_CHARACTERS],
        serial_number=identity.digest,
    )
    return ObserverContext(observer_type=dictionary.DCM.Device, observer_identifying_attributes=device)


def _language(context: ObjectContext) -> LanguageOfContentItemAndDescendants:
    words = context.words
    return LanguageOfContentItemAndDescendants(CodedConcept(words.code, "RFC5646", words.name))


def _drop_frame_numbers(item: Dataset) -> None:
    for reference in item.get("ReferencedSOPSequence", ()):
        if "ReferencedSegmentNumber" in reference and "ReferencedFrameNumber" in reference:
            del reference.ReferencedFrameNumber
    for child in item.get("ContentSequence", ()):
        _drop_frame_numbers(child)
