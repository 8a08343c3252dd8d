"""A finding -> a Grayscale Softcopy Presentation State (PS3.3 A.33.1): outline and text over the untouched film."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from highdicom import VOILUT, ModalityLUT, ModalityLUTTransformation, PresentationLUTTransformation
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

from segmenter.film.header import number
from segmenter.objects.common_header import ObjectContext
from segmenter.objects.outline import regions_on, sides_of
from segmenter.transformations import GreyscaleTransform, LookupTable, Rendering, Window
from segmenter.values import Finding

T = TypeVar("T", VOILUT, ModalityLUT)
_WIDEST = 1e6  # of a window that a DS of 16 characters can say soundly
_TEXT_BOX = (0.02, 0.02, 0.7, 0.1)  # of the displayed area


def build_presentation(finding: Finding, envelope: ObjectContext) -> FileDataset:
    """The presentation state of one positive film. Raises ValueError for a finding without a mask."""
    source, decision, radiograph = envelope.view, finding.decision, finding.radiograph
    if decision is None or radiograph is None or not decision.positive:
        raise ValueError("only a positive film has a presentation state")
    header = _header(source, decision.mask.shape, envelope)
    shown = _in_stored_values(radiograph.rendering)
    said = envelope.words
    parts = regions_on(radiograph, decision.mask)
    lines = [said.answer(finding, sides_of(parts)), said.notice]
    if envelope.identity.demo:
        lines.append(said.demo_notice)
    layer = GraphicLayer("AI", order=1, description="Artificial intelligence", display_color=None)
    annotation = GraphicAnnotation(
        referenced_images=[header],
        graphic_layer=layer,
        graphic_objects=[GraphicObject("POLYLINE", part.points.astype(np.float64), units="PIXEL") for part in parts],
        text_objects=[TextObject("\r\n".join(lines), units="DISPLAY", bounding_box=_TEXT_BOX, text_justification="LEFT")],
    )
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        content_label="PNEUMOTHORAX",
        content_description=said.notice,
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        modality_lut_transformation=_modality(source, shown.transform),
        voi_lut_transformations=_voi(shown.transform),
        # A presentation state overrides the film's own: what was inverted stays inverted (PS3.3 C.11.6).
        presentation_lut_transformation=PresentationLUTTransformation("INVERSE" if shown.inverted else "IDENTITY"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **envelope.common_arguments,
        **envelope.equipment,
    )
    state.BodyPartExamined = "CHEST"
    if radiograph.aspect != (1, 1):
        state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio = list(radiograph.aspect)
    return envelope.as_file(state, image=False)


def _header(source: Dataset, shape: tuple[int, ...], envelope: ObjectContext) -> Dataset:
    header = Dataset(envelope.header)
    header.Rows, header.Columns = shape
    header.SamplesPerPixel, header.NumberOfFrames = 1, 1
    return header


# A presentation state stands in the place of all that the film says of its greys (PS3.4 N.2): the film must look as without us.


def _in_stored_values(shown: Rendering) -> Rendering:
    """The same without a rescale that makes small numbers: viewers, dcmtk among them, round what it gives to whole ones."""
    tone, window = shown.transform, shown.transform.window
    if tone.modality is not None or tone.voi is not None or window is None or not 0 < abs(tone.slope) < 1:
        return shown
    if window.function == "LINEAR" and not window.is_exact:
        window = Window(window.centre - 0.5, window.width - 1, "LINEAR_EXACT")
    stored = replace(window, centre=(window.centre - tone.intercept) / tone.slope, width=window.width / abs(tone.slope))
    return Rendering(replace(tone, slope=1.0, intercept=0.0, window=stored), shown.inverted != (tone.slope < 0))


def _modality(source: Dataset, tone: GreyscaleTransform) -> ModalityLUTTransformation | None:
    if tone.modality is not None:
        table = ModalityLUT("US", tone.modality.first % 65536, tone.modality.entries.astype(np.uint16))
        return ModalityLUTTransformation(modality_lut=_of_its_bits(table, tone.modality))
    is_said = number(source, "RescaleSlope") is not None and number(source, "RescaleIntercept") is not None
    if not is_said and (tone.slope, tone.intercept) == (1, 0):
        return None
    return ModalityLUTTransformation(rescale_intercept=tone.intercept, rescale_slope=tone.slope, rescale_type="US")


def _voi(tone: GreyscaleTransform) -> list[SoftcopyVOILUTTransformation] | None:
    """The VOI LUT or window that was used. A film that has none is shown by its whole range of bits, which may be much wider
    than its pixels: then the window is the one that was made up for reading it."""
    if tone.voi is not None:
        table = VOILUT(tone.voi.first % 65536, tone.voi.entries.astype(np.uint16))
        return [SoftcopyVOILUTTransformation(voi_luts=[_of_its_bits(table, tone.voi)])]
    window = tone.window
    if window is None or not (window.width <= _WIDEST and abs(window.centre) <= _WIDEST):
        return None
    if window.is_exact and window.function != "SIGMOID":  # in the words that every viewer knows (C.11.2.1.3.2)
        window = Window(window.centre + 0.5, window.width + 1, "LINEAR")
    function = None if window.function == "LINEAR" else window.function
    return [SoftcopyVOILUTTransformation(_decimal(window.centre), _decimal(window.width), voi_lut_function=function)]


def _decimal(said: float) -> float:
    """As a DS can say it, in 16 characters."""
    return float(f"{said:.8g}")


def _of_its_bits(made: T, table: LookupTable) -> T:
    """highdicom would say 16 bits, and a table of 12 would be shown nearly black."""
    made.LUTDescriptor = [made.LUTDescriptor[0], made.LUTDescriptor[1], table.bits]
    return made
