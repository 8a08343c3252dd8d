"""One object of one finding, whatever its kind."""

from __future__ import annotations

from pydicom.dataset import Dataset, FileDataset

from segmenter.capture import build_capture
from segmenter.colour import PALETTE
from segmenter.envelope import Envelope
from segmenter.header import integer, text
from segmenter.identity import ModelIdentity
from segmenter.kinds import Kind
from segmenter.presentation import build_presentation
from segmenter.seg import build_seg
from segmenter.settings import Settings
from segmenter.sr import build_sr
from segmenter.values import Finding

_BUILDERS = {"seg": build_seg, "sr": build_sr, "capture": build_capture, "presentation": build_presentation}


def applies(kind: Kind, dataset: Dataset, finding: Finding, settings: Settings) -> bool:
    """A film without a region has nothing drawn on it: it has at most a report and a picture, which say so, and an
    indeterminate one always has them. A grey film that is stored in colour has no presentation state: that is of grey pixels
    (PS3.3 A.33.1)."""
    is_grey = (integer(dataset, "SamplesPerPixel") or 1) == 1 and text(dataset, "PhotometricInterpretation").upper() != PALETTE
    if kind is Kind.PRESENTATION and not is_grey:
        return False
    if finding.decision is not None and finding.decision.positive:
        return True
    return kind.role in ("sr", "capture") and (settings.report_negative or finding.outcome == "indeterminate")


def build(
    kind: Kind, film: Dataset, finding: Finding, identity: ModelIdentity, settings: Settings, *, revision: int = 1
) -> FileDataset:
    """Raises ValueError for a finding without an answer, and for one without a mask where the kind wants one."""
    if finding.radiograph is None:
        raise ValueError("only a film with an answer has objects")
    envelope = Envelope.of(kind, film, finding.radiograph.content_sha256, identity, revision, settings)
    return _BUILDERS[kind.role](finding, envelope)
