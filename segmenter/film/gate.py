"""Is this a frontal chest radiograph that the model may read? Decided by the header before pixels are decoded; a few codes
need the pixels (`SkippedFilm`). A film that is skipped is no error: it has a code that an administrator can list and count.

Headers are wrong and incomplete: an absent BodyPartExamined or ViewPosition never causes a skip, and what is present is
compared with the descriptions. `RULES` holds the rules in their order; `gate_notes` gives what was assumed about a film that
passed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pydicom.dataset import Dataset

from segmenter.equipment import MANUFACTURER, MODEL_NAME
from segmenter.film.age import age_notes, is_under
from segmenter.film.derived import is_derived, is_dual_energy
from segmenter.film.header import integer, is_uid, items, joined_text, normalised, text, words
from segmenter.film.intensity import is_for_processing
from segmenter.film.projection import IMAGE_DESCRIPTIONS, View, view_notes, view_of
from segmenter.film.terms import CHEST, NOT_CHEST
from segmenter.notes import NoteCode
from segmenter.reason import Reason
from segmenter.settings import Settings
from segmenter.values import Skip


class SkipCode(Reason):
    """Why a film is skipped: the code, and the sentence that an administrator reads."""

    MISSING_UID = "missing-uid", "The SOP Class, SOP Instance, Series or Study Instance UID is missing."
    INVALID_UID = "invalid-uid", "A UID holds other characters than digits and dots, or more than 64 of them."
    PRESENTATION_STATE = "presentation-state", "A presentation state, not an image."
    STRUCTURED_REPORT = "structured-report", "A structured report, not an image."
    NOT_AN_IMAGE_CLASS = "not-an-image-class", "Its SOP class is not CR, DX or Secondary Capture."
    DERIVED_BY_US = "derived-by-us", "A result of this software; results are not read again."
    NOT_A_RADIOGRAPH = "not-a-radiograph", "Its Modality is not a projection radiograph's (CR, DX, RG)."
    BURNED_IN_RESULT = "burned-in-result", "A secondary capture with a result burned into it, not a film."
    DERIVED_IMAGE = "derived-image", "Made from a film: bone or soft tissue, subtraction, tomosynthesis, a result."
    FOR_PROCESSING = "for-processing", "Not processed for display; for_processing says whether these are read."
    NOT_HUMAN = "not-human", "A veterinary film: species, breed or description name an animal."
    NOT_A_CHEST = "not-a-chest", "Body part or description name another region than the chest."
    LATERAL_VIEW = "lateral-view", "A lateral view; only frontal views are read."
    OBLIQUE_VIEW = "oblique-view", "An oblique view; only frontal views are read."
    NOT_FRONTAL = "not-frontal", "A decubitus or lordotic view; only frontal views are read."
    TOO_YOUNG = "too-young", "The patient is younger than min_age_years."
    NO_PIXELS = "no-pixels", "It holds no pixel data."
    MULTI_FRAME = "multi-frame", "It has more than one frame."
    COLOUR = "colour", "A colour picture, not a grey film."
    TOO_SMALL = "too-small", "Its shorter side has fewer pixels than min_side_px."
    TOO_LARGE = "too-large", "It has more pixels than max_pixels."
    BLANK = "blank", "All of its pixels have one value."

    def skip(self) -> Skip:
        """The code and the sentence as a value."""
        return Skip(self.value, self.sentence)


class SkippedFilm(Exception):
    """Raised where only decoding shows that a film must be skipped. `skip`: the code and its sentence."""

    def __init__(self, code: SkipCode) -> None:
        super().__init__(code.sentence)
        self.skip = code.skip()


_SECONDARY_CAPTURE = {
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",  # multi-frame grayscale byte
    "1.2.840.10008.5.1.4.1.1.7.3",  # multi-frame grayscale word
}
_IMAGE_CLASSES = _SECONDARY_CAPTURE | {
    "1.2.840.10008.5.1.4.1.1.1",  # CR
    "1.2.840.10008.5.1.4.1.1.1.1",  # DX for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # DX for processing
}
_RADIOGRAPHS = {"CR", "DX", "RG", "DR", "XR"}  # DR and XR are no defined terms (PS3.3 C.7.3.1.1.1), but occur
_UNSPECIFIC = {"", "OT", "SC"}
_NOTHING_SAID = {"", "UNKNOWN", "OTHER", "NONE", "DEFAULT", "NULL", "N/A", "UNDEFINED", "UNSPECIFIED"}
_DESCRIPTIONS = (
    *IMAGE_DESCRIPTIONS, "StudyDescription", "PerformedProcedureStepDescription", "RequestedProcedureDescription",
    "ImageComments",
)  # fmt: skip

_CHEST_CODES = {"51185008", "T-D3000", "43799004", "T-D3200"}  # thorax, thoracic cavity (SNOMED CT and its older form)
_OTHER_REGION = re.compile(
    r"\b(ABDOMEN|PELVIS|HIP|KNEE|HAND|WRIST|FOOT|ANKLE|SKULL|SPINE|[CLT]SPINE|SHOULDER|ELBOW|FEMUR|TIBIA|HUMERUS|FOREARM"
    r"|FINGER|TOE|MANDIBLE|SINUS(ES)?|MAMMO\w*|BREAST|LEG|ARM|CLAVICLE|HEEL|CALCANEUS|PATELLA|KUB|NECK|HEAD|TEETH|DENTAL)\b"
)
# Not DOG (bites) and not CAT (scans).
_ANIMAL = re.compile(r"\b(CANINE|FELINE|EQUINE|BOVINE|PORCINE|AVIAN|CANIS|FELIS|VETERINARY)\b")
_HUMAN = re.compile(r"HUMAN|HOMO|SAPIENS|337915000|L-85B00")
_RESULT = re.compile(r"\bAI\b.*\b(RESULT|OVERLAY)|\bCAD\b|HEAT ?MAP|SCREEN ?SAVE|\bRESULT OVERLAY\b")

_SKIPPED_VIEWS = {
    View.LATERAL: SkipCode.LATERAL_VIEW, View.OBLIQUE: SkipCode.OBLIQUE_VIEW, View.OTHER: SkipCode.NOT_FRONTAL,
}  # fmt: skip


def _descriptions(dataset: Dataset) -> str:
    return joined_text(dataset, _DESCRIPTIONS)


def _identity(dataset: Dataset, settings: Settings) -> SkipCode | None:
    uids = [text(dataset, k) for k in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    if not all(uids):
        return SkipCode.MISSING_UID
    return None if all(is_uid(u) for u in uids) else SkipCode.INVALID_UID


def _sop_class(dataset: Dataset, settings: Settings) -> SkipCode | None:
    uid = text(dataset, "SOPClassUID")
    if uid.startswith("1.2.840.10008.5.1.4.1.1.11."):
        return SkipCode.PRESENTATION_STATE
    if uid.startswith("1.2.840.10008.5.1.4.1.1.88."):
        return SkipCode.STRUCTURED_REPORT
    return None if uid in _IMAGE_CLASSES else SkipCode.NOT_AN_IMAGE_CLASS


def _maker(dataset: Dataset, settings: Settings) -> SkipCode | None:
    for equipment in (dataset, *items(dataset, "ContributingEquipmentSequence")):
        if text(equipment, "Manufacturer") == MANUFACTURER or text(equipment, "ManufacturerModelName") == MODEL_NAME:
            return SkipCode.DERIVED_BY_US
    return SkipCode.DERIVED_BY_US if text(dataset, "SeriesDescription").startswith(MODEL_NAME) else None


def _modality(dataset: Dataset, settings: Settings) -> SkipCode | None:
    """SOP class and Modality disagree in one film of eight; either is enough for a radiograph, but a Modality of another kind
    (MG, CT, US ...) excludes it."""
    modality = text(dataset, "Modality").upper()
    if modality in _RADIOGRAPHS:
        return None
    if modality not in _UNSPECIFIC:
        return SkipCode.NOT_A_RADIOGRAPH
    captured = text(dataset, "SOPClassUID") in _SECONDARY_CAPTURE
    chest = CHEST.search(_descriptions(dataset) + " | " + normalised(text(dataset, "BodyPartExamined")))
    return SkipCode.NOT_A_RADIOGRAPH if captured and not chest else None


def _burned_in(dataset: Dataset, settings: Settings) -> SkipCode | None:
    """Secondary captures only: a CR with its own markers burned in is a film. A digitised film is ORIGINAL."""
    if text(dataset, "SOPClassUID") not in _SECONDARY_CAPTURE:
        return None
    kinds = words(dataset, "ImageType")
    derived = "DERIVED" in kinds and text(dataset, "BurnedInAnnotation").upper() == "YES"
    named = _RESULT.search(" ".join(kinds) + " | " + joined_text(dataset, ("SeriesDescription", "DerivationDescription")))
    return SkipCode.BURNED_IN_RESULT if derived or named else None


def _derived(dataset: Dataset, settings: Settings) -> SkipCode | None:
    return SkipCode.DERIVED_IMAGE if is_derived(dataset) else None


def _processing(dataset: Dataset, settings: Settings) -> SkipCode | None:
    """As a rule the version for presentation is sent, too."""
    return SkipCode.FOR_PROCESSING if settings.for_processing == "skip" and is_for_processing(dataset) else None


def _species(dataset: Dataset, settings: Settings) -> SkipCode | None:
    codes = [text(i, "CodeValue") + text(i, "CodeMeaning") for i in items(dataset, "PatientSpeciesCodeSequence")]
    species = " ".join([text(dataset, "PatientSpeciesDescription"), *codes]).strip().upper()
    if species and not _HUMAN.search(species):
        return SkipCode.NOT_HUMAN
    breed = text(dataset, "PatientBreedDescription") or items(dataset, "BreedRegistrationSequence")
    return SkipCode.NOT_HUMAN if (breed and not species) or _ANIMAL.search(_descriptions(dataset)) else None


def _region(dataset: Dataset, settings: Settings) -> SkipCode | None:
    """BodyPartExamined decides when it has a meaningful value, else the code of the region; else a description that names
    another region and no chest."""
    part, coded = _body_part(dataset), _region_code(dataset)
    if part is not None or coded is not None:
        return None if (coded if part is None else part) else SkipCode.NOT_A_CHEST
    return SkipCode.NOT_A_CHEST if _names_another_region(_descriptions(dataset)) else None


def _body_part(dataset: Dataset) -> bool | None:
    """Whether BodyPartExamined is the chest; None: absent or without meaning."""
    part = normalised(text(dataset, "BodyPartExamined"))
    return None if part in _NOTHING_SAID else bool(CHEST.search(part) and not NOT_CHEST.search(part))


def _region_code(dataset: Dataset) -> bool | None:
    """Whether AnatomicRegionSequence (PS3.3 C.8.11.2) is the chest; None: absent, or a code that is not known here."""
    found = items(dataset, "AnatomicRegionSequence")
    meant = normalised(" ".join(text(one, "CodeMeaning") for one in found))
    if _names_another_region(meant):
        return False
    return True if CHEST.search(meant) or {text(one, "CodeValue").upper() for one in found} & _CHEST_CODES else None


def _names_another_region(descriptions: str) -> bool:
    return bool(NOT_CHEST.search(descriptions) or (_OTHER_REGION.search(descriptions) and not CHEST.search(descriptions)))


def _view(dataset: Dataset, settings: Settings) -> SkipCode | None:
    return _SKIPPED_VIEWS.get(view_of(dataset).view)


def _age(dataset: Dataset, settings: Settings) -> SkipCode | None:
    return SkipCode.TOO_YOUNG if is_under(dataset, settings.min_age_years) else None


def _pixels(dataset: Dataset, settings: Settings) -> SkipCode | None:
    pixels = dataset.get_item("PixelData", keep_deferred=True) if "PixelData" in dataset else None
    return SkipCode.NO_PIXELS if pixels is None or not pixels.value else None


def _shape(dataset: Dataset, settings: Settings) -> SkipCode | None:
    if (integer(dataset, "NumberOfFrames") or 1) > 1:
        return SkipCode.MULTI_FRAME
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    if min(rows, columns) < settings.min_side_px:
        return SkipCode.TOO_SMALL
    return SkipCode.TOO_LARGE if rows * columns > settings.max_pixels else None


RULES: tuple[Callable[[Dataset, Settings], SkipCode | None], ...] = (
    _identity, _sop_class, _maker, _species, _modality, _burned_in, _derived, _processing, _region, _view, _age, _pixels,
    _shape,
)  # fmt: skip


def gate(dataset: Dataset, settings: Settings) -> Skip | None:
    """None for a film to be read, else the first reason of `RULES` to skip it. Never raises for a bad header."""
    for rule in RULES:
        code = rule(dataset, settings)
        if code is not None:
            return code.skip()
    return None


def gate_notes(dataset: Dataset) -> tuple[NoteCode, ...]:
    """What the header leaves open, or contradicts itself in, about a film that `gate` let pass. Never raises."""
    unspecific = text(dataset, "Modality").upper() in _UNSPECIFIC
    modality = (NoteCode.MODALITY_ASSUMED,) if unspecific else ()
    energy = (NoteCode.DUAL_ENERGY,) if is_dual_energy(dataset) else ()
    return (*energy, *modality, *_region_notes(dataset), *view_notes(dataset), *age_notes(dataset))


def _region_notes(dataset: Dataset) -> tuple[NoteCode, ...]:
    part, coded, descriptions = _body_part(dataset), _region_code(dataset), _descriptions(dataset)
    decided: tuple[NoteCode, ...] = ()
    if part is None:
        by_text = NoteCode.REGION_BY_TEXT if CHEST.search(descriptions) else NoteCode.REGION_ASSUMED
        decided = (NoteCode.REGION_BY_CODE if coded else by_text,)
    conflict = coded is False or _names_another_region(descriptions)
    return (*decided, *((NoteCode.REGION_CONFLICT,) if conflict else ()))
