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
_WIDEST = 1e6  # a window that a DS of 16 characters can express exactly enough
_TEXT_BOX = (0.02, 0.02, 0.7, 0.1)  # of the displayed area


def build_presentation(finding: Finding, context: ObjectContext) -> FileDataset:
    """The presentation state of one positive film, ready to be written. Raises ValueError for a finding without a mask."""
    source, decision, radiograph = context.view, finding.decision, finding.radiograph
    if decision is None or radiograph is None or not decision.positive:
        raise ValueError("only a positive film has a presentation state")
    header = _header(source, decision.mask.shape, context)
    rendering = _in_stored_values(radiograph.rendering)
    words = context.words
    regions = regions_on(radiograph, decision.mask)
    lines = [words.answer(finding, sides_of(regions)), words.notice]
    if context.identity.demo:
        lines.append(words.demo_notice)
    layer = GraphicLayer("AI", order=1, description="Artificial intelligence", display_color=None)
    annotation = GraphicAnnotation(
        referenced_images=[header],
        graphic_layer=layer,
        graphic_objects=[GraphicObject("POLYLINE", region.points.astype(np.float64), units="PIXEL") for region in regions],
        text_objects=[TextObject("\r\n".join(lines), units="DISPLAY", bounding_box=_TEXT_BOX, text_justification="LEFT")],
    )
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        content_label="PNEUMOTHORAX",
        content_description=words.notice,
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        modality_lut_transformation=_modality(source, rendering.transform),
        voi_lut_transformations=_voi(rendering.transform),
        # Replaces the film's own polarity, so an inverted film must stay inverted (PS3.3 C.11.6).
        presentation_lut_transformation=PresentationLUTTransformation("INVERSE" if rendering.inverted else "IDENTITY"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **context.common_arguments,
        **context.equipment,
    )
    state.BodyPartExamined = "CHEST"
    if radiograph.aspect != (1, 1):
        state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio = list(radiograph.aspect)
    return context.as_file(state, image=False)


def _header(source: Dataset, shape: tuple[int, ...], context: ObjectContext) -> Dataset:
    header = Dataset(context.header)
    header.Rows, header.Columns = shape
    header.SamplesPerPixel, header.NumberOfFrames = 1, 1
    return header


# A presentation state replaces all greyscale transformations of the film (PS3.4 N.2): the film must look as without it.


def _in_stored_values(rendering: Rendering) -> Rendering:
    """The same without a rescale to small numbers: viewers, dcmtk among them, round its output to whole numbers."""
    transform, window = rendering.transform, rendering.transform.window
    if transform.modality is not None or transform.voi is not None or window is None or not 0 < abs(transform.slope) < 1:
        return rendering
    if window.function == "LINEAR" and not window.is_exact:
        window = Window(window.centre - 0.5, window.width - 1, "LINEAR_EXACT")
    slope, intercept = transform.slope, transform.intercept
    stored = replace(window, centre=(window.centre - intercept) / slope, width=window.width / abs(slope))
    return Rendering(replace(transform, slope=1.0, intercept=0.0, window=stored), rendering.inverted != (transform.slope < 0))


def _modality(source: Dataset, transform: GreyscaleTransform) -> ModalityLUTTransformation | None:
    if transform.modality is not None:
        table = ModalityLUT("US", transform.modality.first % 65536, transform.modality.entries.astype(np.uint16))
        return ModalityLUTTransformation(modality_lut=_of_its_bits(table, transform.modality))
    in_header = number(source, "RescaleSlope") is not None and number(source, "RescaleIntercept") is not None
    if not in_header and (transform.slope, transform.intercept) == (1, 0):
        return None
    return ModalityLUTTransformation(rescale_intercept=transform.intercept, rescale_slope=transform.slope, rescale_type="US")


def _voi(transform: GreyscaleTransform) -> list[SoftcopyVOILUTTransformation] | None:
    """The VOI LUT or window that was used. Without one a viewer shows the whole range of bits, which may be much wider than the
    pixel values: then the window from the pixels is written."""
    if transform.voi is not None:
        table = VOILUT(transform.voi.first % 65536, transform.voi.entries.astype(np.uint16))
        return [SoftcopyVOILUTTransformation(voi_luts=[_of_its_bits(table, transform.voi)])]
    window = transform.window
    if window is None or not (window.width <= _WIDEST and abs(window.centre) <= _WIDEST):
        return None
    if window.is_exact and window.function != "SIGMOID":  # as LINEAR, which every viewer knows (PS3.3 C.11.2.1.3.2)
        window = Window(window.centre + 0.5, window.width + 1, "LINEAR")
    function = None if window.function == "LINEAR" else window.function
    return [SoftcopyVOILUTTransformation(_decimal(window.centre), _decimal(window.width), voi_lut_function=function)]


def _decimal(words: float) -> float:
    """Rounded to what a DS of 16 characters can hold (PS3.5 section 6.2)."""
    return float(f"{words:.8g}")


def _of_its_bits(made: T, table: LookupTable) -> T:
    """The table with its own number of bits: highdicom writes 16, and a table of 12 bits would be shown nearly black."""
    made.LUTDescriptor = [made.LUTDescriptor[0], made.LUTDescriptor[1], table.bits]
    return made
