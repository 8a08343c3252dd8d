"""A finding -> a Grayscale Softcopy Presentation State (PS3.3 A.33.1): outline and text over the untouched film."""

from __future__ import annotations

import numpy as np
from highdicom import ModalityLUTTransformation, PresentationLUTTransformation
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian

from segmenter.envelope import Envelope
from segmenter.header import number, numbers, text
from segmenter.outline import parts_of
from segmenter.values import Finding

_TEXT_BOX = (0.02, 0.02, 0.7, 0.1)  # of the displayed area


def build_presentation(finding: Finding, envelope: Envelope) -> FileDataset:
    """The presentation state of one positive film. Raises ValueError for a finding without a mask."""
    source, decision, radiograph = envelope.view, finding.decision, finding.radiograph
    if decision is None or radiograph is None or not decision.positive:
        raise ValueError("only a positive film has a presentation state")
    header = _header(source, decision.mask.shape, envelope)
    said = envelope.words
    lines = [said.answer(decision, radiograph), said.notice]
    if envelope.identity.demo:
        lines.append(said.demo_notice)
    layer = GraphicLayer("AI", order=1, description="Artificial intelligence", display_color=None)
    annotation = GraphicAnnotation(
        referenced_images=[header],
        graphic_layer=layer,
        graphic_objects=[
            GraphicObject("POLYLINE", part.points.astype(np.float64), units="PIXEL") for part in parts_of(decision.mask, source)
        ],
        text_objects=[TextObject("\r\n".join(lines), units="DISPLAY", bounding_box=_TEXT_BOX, text_justification="LEFT")],
    )
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        content_label="PNEUMOTHORAX",
        content_description=said.notice,
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        modality_lut_transformation=_modality(source),
        voi_lut_transformations=_window(source),
        presentation_lut_transformation=PresentationLUTTransformation(presentation_lut_shape=_shape(source)),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **envelope.arguments,
        **envelope.maker,
    )
    state.BodyPartExamined = "CHEST"
    return envelope.finish(state, image=False)


def _header(source: Dataset, shape: tuple[int, ...], envelope: Envelope) -> Dataset:
    header = Dataset(envelope.header)
    header.Rows, header.Columns = shape
    header.SamplesPerPixel, header.NumberOfFrames = 1, 1
    return header


def _modality(source: Dataset) -> ModalityLUTTransformation | None:
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if slope is None or intercept is None or slope == 0:
        return None
    return ModalityLUTTransformation(rescale_intercept=intercept, rescale_slope=slope, rescale_type="US")


def _window(source: Dataset) -> list[SoftcopyVOILUTTransformation] | None:
    """The film's own first window, so that the film looks as it does without us."""
    centre, width = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    if not centre or not width or width[0] < 1:
        return None
    return [SoftcopyVOILUTTransformation(window_center=centre[0], window_width=width[0])]


def _shape(source: Dataset) -> str:
    """A presentation state overrides the film's own: what was inverted stays inverted (PS3.3 C.11.6)."""
    first_is_white = text(source, "PhotometricInterpretation").upper() == "MONOCHROME1"
    return "INVERSE" if first_is_white or text(source, "PresentationLUTShape").upper() == "INVERSE" else "IDENTITY"
