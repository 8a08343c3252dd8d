"""Frontal or not? The view by the header, the element it comes from, and whether another contradicts.

ViewPosition is absent in a third of all chest films (CR may leave it empty, PS3.3 C.8.1.1): then the view code, the
descriptions of the image, and the patient orientation are read, in this order. A study's description names the views of the
whole examination: it is read last, and only where it names one view that is not frontal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from pydicom.dataset import Dataset

from segmenter.film import terms
from segmenter.film.header import items, normalised, text, words
from segmenter.notes import NoteCode

# Written by the device for this one image.
IMAGE_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_WRITTEN = (*IMAGE_DESCRIPTIONS, "AcquisitionDeviceProcessingCode", "BodyPartExamined")
_EXAMINATION = ("StudyDescription", "PerformedProcedureStepDescription", "RequestedProcedureDescription")
_SIDES = {"L", "R", "LT", "RT", "LEFT", "RIGHT"}  # as a view: the side next to the detector
# The encodings of texts in other than Latin letters whose SpecificCharacterSet is absent or wrong.
_ENCODINGS = ("gb18030", "shift_jis", "euc_kr", "cp1251", "cp1253")

# SNOMED CT and its older form (PS3.16 CID 4010), for meanings in a language that `terms` does not know.
_FRONTAL_CODES = {
    "399033003", "R-10202", "399348003", "R-10206", "272479007", "R-40888", "R-10214", "272460009",
}  # fmt: skip
_LATERAL_CODES = {
    "399067008", "R-102CD", "399173006", "R-10236", "399198007", "R-10232", "399352003", "399260004", "30730003",
}  # fmt: skip
_OBLIQUE_CODES = {
    "399182000", "R-102C1", "399184004", "R-10238", "399236003", "R-10234", "399135007", "R-10220", "399356000", "R-40985",
    "399006002", "R-10212", "399038007", "R-10210", "399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204",
    "260427002", "399099002", "399368009", "260426006", "399132005", "399004004", "399225005", "399288005", "399325008",
}  # fmt: skip


class View(Enum):
    """The projections that are told apart; only frontal films are read."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    OBLIQUE = "oblique"
    OTHER = "decubitus or lordotic"


@dataclass(frozen=True)
class ViewEvidence:
    """The view, and the note for the element that decided (None: ViewPosition). `contradictory`: another element names another
    view."""

    view: View
    note: NoteCode | None
    contradictory: bool


def view_of(dataset: Dataset) -> ViewEvidence:
    """The view by the first element that names one; a film without any is assumed to be frontal. Never raises."""
    written = [_views(wording) for wording in _texts(dataset, _WRITTEN)]
    examination = _of_examination(dataset)
    sources = (
        (None, _of_position(dataset)),
        (NoteCode.VIEW_BY_CODE, _of_code(dataset)),
        (NoteCode.VIEW_BY_TEXT, _one(written)),
        (NoteCode.VIEW_BY_AXES, _of_axes(dataset)),
        (NoteCode.VIEW_BY_TEXT, _of_side(dataset)),
        (NoteCode.VIEW_BY_TEXT, examination if examination is not View.FRONTAL else None),
    )
    named = [(note, view) for note, view in sources if view is not None]
    note, view = named[0] if named else (NoteCode.VIEW_ASSUMED, View.FRONTAL)
    others = {view for _, view in named} | ({examination} - {None})
    undecided = note is NoteCode.VIEW_BY_TEXT and len(set().union(*written)) > 1
    return ViewEvidence(view, note, undecided or bool(others - {view}))


def view_notes(dataset: Dataset) -> tuple[NoteCode, ...]:
    """The notes about the view of a film that is read as frontal."""
    seen = view_of(dataset)
    return (*((seen.note,) if seen.note else ()), *((NoteCode.VIEW_CONFLICT,) if seen.contradictory else ()))


def _texts(dataset: Dataset, keywords: tuple[str, ...]) -> list[str]:
    """The normalised texts of these elements, without empty ones."""
    found = (text(dataset, keyword) for keyword in keywords)
    return [normalised(_apart(wording)) + _otherwise(wording) for wording in found if wording]


def _apart(wording: str) -> str:
    """With a blank between words that only a capital separates: ChestLat."""
    return re.sub(r"(?<=[a-z\u00df-\u00ff])(?=[A-Z])", " ", wording)


def _otherwise(wording: str) -> str:
    """The same bytes in other character sets, in case they were read as Latin-1 by mistake; "" for plain ASCII."""
    if wording.isascii():
        return ""
    found = []
    for encoding in ("utf-8", *_ENCODINGS):
        try:
            found.append(wording.encode("latin-1").decode(encoding))
        except UnicodeError:
            continue
        if encoding == "utf-8":  # no other text is valid UTF-8
            break
    return "".join(" | " + normalised(one) for one in found)


def _views(wording: str, *, of_chest: bool | None = None) -> frozenset[View]:
    """The views that a normalised text names. `of_chest`: whether words count that mean a lateral view only beside a word for
    the chest (side, bok, yan); None: if the text has such a word, or nothing else."""
    wording = terms.NO_VIEW.sub(" ", terms.BOTH_VIEWS.sub(" ", wording))
    if terms.OTHER.search(wording) or terms.OBLIQUE.search(wording):
        return frozenset({View.OTHER if terms.OTHER.search(wording) else View.OBLIQUE})
    if of_chest is None:
        alone = terms.LATERAL_BESIDE_CHEST.fullmatch(wording.strip(" ."))
        of_chest = bool(terms.CHEST.search(wording) or terms.CHEST_IN_SHORT.search(wording) or alone)
    lateral = terms.LATERAL.search(wording) or (of_chest and terms.LATERAL_BESIDE_CHEST.search(wording))
    frontal = terms.FRONTAL.search(wording)
    return frozenset({View.FRONTAL} if frontal else ()) | frozenset({View.LATERAL} if lateral else ())


def _one(named: list[frozenset[View]]) -> View | None:
    """The view of several texts: one that names a single view goes before one that names two. Of several views, a view that is
    neither frontal nor lateral comes first, because it is not named by accident; then frontal."""
    single = {view for views in named if len(views) == 1 for view in views}
    found = single or set().union(*named)
    return next((view for view in (View.OTHER, View.OBLIQUE, View.FRONTAL, View.LATERAL) if view in found), None)


def _of_position(dataset: Dataset) -> View | None:
    wording = _texts(dataset, ("ViewPosition",))
    return View.LATERAL if wording and wording[0] in _SIDES else _one([_views(one, of_chest=True) for one in wording])


def _of_code(dataset: Dataset) -> View | None:
    """The view by ViewCodeSequence (PS3.3 C.8.11.5): its code, else its meaning; a modifier may change it."""
    found = items(dataset, "ViewCodeSequence")
    modifiers = [modifier for one in found for modifier in items(one, "ViewModifierCodeSequence")]
    modified = _one([_views(wording) for one in modifiers for wording in _texts(one, ("CodeMeaning",))])
    if modified in (View.OTHER, View.OBLIQUE):
        return modified
    values = {text(one, "CodeValue").upper() for one in found}
    for view, known in ((View.OBLIQUE, _OBLIQUE_CODES), (View.FRONTAL, _FRONTAL_CODES), (View.LATERAL, _LATERAL_CODES)):
        if values & known:
            return view
    return _one([_views(wording, of_chest=True) for one in found for wording in _texts(one, ("CodeMeaning",))])


def _of_axes(dataset: Dataset) -> View | None:
    """The view by PatientOrientation (PS3.3 C.7.6.1.1.1), whose first letter is the main direction of rows or columns. Anterior
    or posterior is the main direction on a lateral film, and a secondary one (LA\\F) on an oblique or lordotic film."""
    axes = (*words(dataset, "PatientOrientation"), "", "")[:2]
    across, down = (axis[:1] for axis in axes)
    if across in ("A", "P") or (down in ("A", "P") and across in ("H", "F")):
        return View.OBLIQUE if any({*axis} & {*"AP"} and {*axis} & {*"LR"} for axis in axes) else View.LATERAL
    if not ({across, down} & {"L", "R"} and {across, down} & {"H", "F"}):
        return None
    tilted = [axis[0] for axis in axes if {*axis[1:]} & {*"AP"}]
    if not tilted:
        return View.FRONTAL
    return View.OBLIQUE if {*tilted} & {"L", "R"} else View.OTHER


def _of_side(dataset: Dataset) -> View | None:
    """Lateral when a text names a side of the whole chest and nothing else: "Thorax sin"."""
    wording = _texts(dataset, ("SeriesDescription", "ProtocolName"))
    return View.LATERAL if any(terms.ONE_SIDE.fullmatch(one.strip(" .")) for one in wording) else None


def _of_examination(dataset: Dataset) -> View | None:
    """The view that the descriptions of the examination name; None when they name several, or none."""
    wording = _texts(dataset, _EXAMINATION)
    if any(terms.BOTH_VIEWS.search(one) for one in wording):
        return None
    named = frozenset().union(*(_views(one, of_chest=False) for one in wording))
    return next(iter(named)) if len(named) == 1 else None
