"""Builds the DICOM object of a kind for a finding."""

from __future__ import annotations

from pydicom.dataset import Dataset, FileDataset

from segmenter.film.colour import PALETTE
from segmenter.film.header import integer, text
from segmenter.model.identity import ModelIdentity
from segmenter.objects.common_header import ObjectContext
from segmenter.objects.kinds import ObjectKind
from segmenter.objects.presentation_state import build_presentation
from segmenter.objects.secondary_capture import build_capture
from segmenter.objects.seg import build_seg
from segmenter.objects.sr import build_sr
from segmenter.settings import Settings
from segmenter.values import Finding

_BUILDERS = {"seg": build_seg, "sr": build_sr, "capture": build_capture, "presentation": build_presentation}


def applies(kind: ObjectKind, dataset: Dataset, finding: Finding, settings: Settings) -> bool:
    """Whether a finding has an object of this kind. A film without a region has at most a report and a picture; an
    indeterminate film always has them. A grey film that is stored in colour has no presentation state, which is for grey pixels
    (PS3.3 A.33.1)."""
    is_grey = (integer(dataset, "SamplesPerPixel") or 1) == 1 and text(dataset, "PhotometricInterpretation").upper() != PALETTE
    if kind is ObjectKind.PRESENTATION and not is_grey:
        return False
    if finding.decision is not None and finding.decision.positive:
        return True
    return kind.role in ("sr", "capture") and (settings.report_negative or finding.outcome == "indeterminate")


def build(
    kind: ObjectKind, film: Dataset, finding: Finding, identity: ModelIdentity, settings: Settings, *, revision: int = 1
) -> FileDataset:
    """The object, ready to be written. `film`: the dataset as it arrived; `revision`: 2 and higher for other pixels under a
    used SOP Instance UID. Raises ValueError for a finding without an answer, or without a mask where the kind needs one."""
    if finding.radiograph is None:
        raise ValueError("only a film with an answer has objects")
    context = ObjectContext.of(kind, film, finding.radiograph.content_sha256, identity, revision, settings)
    return _BUILDERS[kind.role](finding, context)
