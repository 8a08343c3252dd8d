"""What was assumed or repaired about a film that was answered. An answer carries its notes, so that its reader can see a wrong
assumption.

A code fits a Code Value (SH, 16 characters), a sentence a Code Meaning (LO, 64 characters; PS3.5 section 6.2). Neither contains
patient data but the two age groups.
"""

from __future__ import annotations

from segmenter.reason import Reason


class NoteCode(Reason):
    """The code, and the sentence that a reader of the report sees."""

    # patient and examination
    VIEW_BY_CODE = "view-by-code", "ViewPosition says nothing; the view code says frontal."
    VIEW_BY_TEXT = "view-by-text", "ViewPosition says nothing; a description says frontal."
    VIEW_BY_AXES = "view-by-axes", "ViewPosition says nothing; PatientOrientation says frontal."
    VIEW_ASSUMED = "view-assumed", "Nothing names the view; a frontal film was assumed."
    VIEW_CONFLICT = "view-conflict", "The header contradicts itself about the view."
    REGION_BY_CODE = "region-by-code", "BodyPartExamined says nothing; the region code says chest."
    REGION_BY_TEXT = "region-by-text", "BodyPartExamined says nothing; a description says chest."
    REGION_ASSUMED = "region-assumed", "Nothing names the body part; a chest was assumed."
    REGION_CONFLICT = "region-conflict", "The header contradicts itself about the body part."
    DUAL_ENERGY = "dual-energy", "A dual-energy exposure; taken for its standard image."
    MODALITY_ASSUMED = "modality-assumed", "Modality says nothing; a radiograph was assumed."
    YOUNG_CHILD = "young-child", "Patient under 3 years; the model is meant for adults."
    MINOR = "minor", "Patient under 18 years; the model is meant for adults."
    AGE_UNKNOWN = "age-unknown", "The patient's age is not known; an adult was assumed."
    AGE_CONFLICT = "age-conflict", "PatientAge and PatientBirthDate contradict each other."

    # stored pixels
    SYNTAX_CONFLICT = "syntax-conflict", "The pixels are in another transfer syntax than is said."
    SAMPLES_ASSUMED = "samples-assumed", "SamplesPerPixel is absent or wrong; found from the pixels."
    PLANAR_ASSUMED = "planar-assumed", "PlanarConfiguration absent or wrong; found from the pixels."
    BITS_ASSUMED = "bits-assumed", "BitsStored is absent or senseless; all bits were taken."
    HIGH_BIT_ASSUMED = "high-bit-assumed", "HighBit is absent or senseless; the lowest bits were taken."
    SIGN_ASSUMED = "sign-assumed", "PixelRepresentation says nothing; unsigned was assumed."
    SIGN_CONFLICT = "sign-conflict", "PixelRepresentation does not fit the pixels; they decided."
    UNUSED_BITS = "unused-bits", "Bits outside BitsStored were set; they were cut off."
    WIDER_VALUES = "wider-values", "Pixel values are wider than BitsStored; taken as they are."
    SURPLUS_PIXELS = "surplus-pixels", "There is more pixel data than pixels; the rest was ignored."
    GREY_FROM_COLOUR = "grey-from-colour", "A grey film stored in colour; its brightness was taken."

    # grey scale
    POLARITY_ASSUMED = "polarity-assumed", "PhotometricInterpretation says nothing; taken as MONOCHROME2."
    POLARITY_SUSPECT = "polarity-suspect", "Lungs look bright: polarity or position may be wrong."
    POLARITY_CHANGED = "polarity-changed", "Inverted against the header: the lungs were bright."
    INVERSE_CONFLICT = "inverse-conflict", "PresentationLUTShape contradicts PhotometricInterpretation."
    TABLE_REPAIRED = "table-repaired", "A lookup table has another size or depth than it says."
    NUMBER_REPAIRED = "number-repaired", "A number of the header is malformed; read as it was meant."
    RESCALE_IGNORED = "rescale-ignored", "Rescale slope or modality LUT is senseless; not applied."
    WINDOW_IGNORED = "window-ignored", "A window or VOI LUT of the header shows nothing; not used."
    GREYS_ASSUMED = "greys-assumed", "No usable window; the grey range was taken from the pixels."
    PADDING_IGNORED = "padding-ignored", "The padding value covers nearly all of the film; ignored."
    FOR_PROCESSING = "for-processing", "Not processed for display; greys by the X-ray intensity."
    SHUTTER_APPLIED = "shutter-applied", "What lies outside the display shutter is background."
    SHUTTER_IGNORED = "shutter-ignored", "The display shutter is senseless or hides the film; ignored."

    # geometry
    SPACING_UNKNOWN = "spacing-unknown", "Pixel spacing unknown: no areas; SEG uses a 1 mm placeholder."
    SPACING_IGNORED = "spacing-ignored", "A pixel spacing of the header is senseless; not used."
    DETECTOR_SPACING = "detector-spacing", "Spacing is the detector's; areas read too large."
    SPACING_DERIVED = "spacing-derived", "Detector spacing was divided by the magnification factor."
    UPRIGHT_ASSUMED = "upright-assumed", "PatientOrientation is absent or unclear; upright was assumed."
    TURNED_UPRIGHT = "turned-upright", "Turned or mirrored for reading, as PatientOrientation says."
