"""Frontal or not? What the header says of the view, who says it, and who contradicts.

ViewPosition is absent in a third of all chest films (CR may leave it empty, PS3.3 C.8.1.1): then the view code, what the
device wrote on the image, and the patient orientation are asked, in this order. A study's description names all views of the
examination: it decides nothing, but may contradict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from pydicom.dataset import Dataset

from segmenter.header import described, items, plain, text, words
from segmenter.notes import NoteCode

# Written by the device for this one image.
IMAGE_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_EXAMINATION = ("StudyDescription", "PerformedProcedureStepDescription", "RequestedProcedureDescription")

_LATERAL = re.compile(r"(?<!\w)(LAT|LATERAL|LATERALIS|LL|RL|SEITLICH|PROFIL|PROFILE|LLAT|RLAT|LATL|LATR)(?!\w)|БОКОВ|側面|측면")
_FRONTAL = re.compile(
    r"(?<!\w)(PA|AP|(?<!\.)(P\.A|A\.P)(\.|(?!\.))|FRONTAL|POSTERO-?ANTERIOR|ANTERO-?POSTERIOR)(?!\w)|ПРЯМ|正面"
)
_OBLIQUE = re.compile(r"\b(OBL|OBLIQUE|LAO|RAO|LPO|RPO|DECUB\w*|LLD|RLD|LORDOTIC|LINDBLOM)\b")

# SNOMED CT and its older form (PS3.16 CID 4010), for meanings in a language that these expressions do not know.
_FRONTAL_CODES = {
    "399033003", "R-10202", "399348003", "R-10206", "272479007", "R-40888", "R-10214", "272460009",
}  # fmt: skip
_LATERAL_CODES = {"399067008", "R-102CD", "399173006", "R-10236", "399198007", "R-10232"}
_OBLIQUE_CODES = {
    "399182000", "R-102C1", "399184004", "R-10238", "399236003", "R-10234", "399135007", "R-10220", "399356000", "R-40985",
    "399006002", "R-10212", "399038007", "R-10210", "399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204",
}  # fmt: skip


class View(Enum):
    FRONTAL = "frontal"
    LATERAL = "lateral"
    OTHER = "oblique, decubitus or lordotic"


@dataclass(frozen=True)
class Seen:
    """`note`: who decided, None when it was ViewPosition; `contradicted`: somebody says another view."""

    view: View
    note: NoteCode | None
    contradicted: bool


def view_of(dataset: Dataset) -> Seen:
    """The view by the first witness that speaks; a film of which nobody speaks is assumed to be frontal."""
    written = described(dataset, IMAGE_DESCRIPTIONS)
    witnesses = (
        (None, _named(described(dataset, ("ViewPosition",)))),
        (NoteCode.VIEW_BY_CODE, _coded(dataset)),
        (NoteCode.VIEW_BY_TEXT, _named(written)),
        (NoteCode.VIEW_BY_AXES, _by_axes(dataset)),
    )
    said = [(note, view) for note, view in witnesses if view is not None]
    note, view = said[0] if said else (NoteCode.VIEW_ASSUMED, View.FRONTAL)
    examination = described(dataset, _EXAMINATION)
    others = {view for _, view in said} | ({_named(examination)} - {None} if not _names_both(examination) else set())
    undecided = note is NoteCode.VIEW_BY_TEXT and _names_both(written)
    return Seen(view, note, undecided or bool(others - {view}))


def view_notes(dataset: Dataset) -> tuple[NoteCode, ...]:
    """Of a film that is read as a frontal one."""
    seen = view_of(dataset)
    return (*((seen.note,) if seen.note else ()), *((NoteCode.VIEW_CONFLICT,) if seen.contradicted else ()))


def _named(said: str) -> View | None:
    """A text that names a frontal view beside a lateral one is a frontal film's: `_names_both` tells them apart."""
    if _OBLIQUE.search(said):
        return View.OTHER
    if _FRONTAL.search(said):
        return View.FRONTAL
    return View.LATERAL if _LATERAL.search(said) else None


def _names_both(said: str) -> bool:
    return bool(_FRONTAL.search(said) and _LATERAL.search(said))


def _coded(dataset: Dataset) -> View | None:
    """ViewCodeSequence (PS3.3 C.8.11.5): its code, else its meaning."""
    found = items(dataset, "ViewCodeSequence")
    values = {text(one, "CodeValue").upper() for one in found}
    for view, known in ((View.OTHER, _OBLIQUE_CODES), (View.FRONTAL, _FRONTAL_CODES), (View.LATERAL, _LATERAL_CODES)):
        if values & known:
            return view
    return _named(plain(" ".join(text(one, "CodeMeaning") for one in found)))


def _by_axes(dataset: Dataset) -> View | None:
    """PatientOrientation (PS3.3 C.7.6.1.1.1): towards front or back only where the film was taken from the side."""
    across, down = (*(word[:1] for word in words(dataset, "PatientOrientation")), "", "")[:2]
    if across in ("A", "P") or (down in ("A", "P") and across in ("H", "F")):
        return View.LATERAL
    frontal = {across, down} & {"L", "R"} and {across, down} & {"H", "F"}
    return View.FRONTAL if frontal else None
