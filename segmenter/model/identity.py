"""The identity of the model: weights, manifest and effective settings, as one frozen value that every result contains."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from segmenter.errors import Refused
from segmenter.model.artifact import COMPARE_ONLY, Artifact, OperatingPoint
from segmenter.settings import Settings


@dataclass(frozen=True)
class ModelIdentity:
    """Two workers with equal `digest` give the same answer to the same film."""

    name: str
    version: str
    demo: bool  # intended_use of the artifact: its results must not reach a clinical destination
    commit: str  # of the training run, from the manifest
    operating_point: str
    thresholds: OperatingPoint
    weights_sha256: str
    manifest_sha256: str
    settings_sha256: str
    digest: str

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the algorithm that objects contain beside name and version."""
        point = self.thresholds
        return {
            "model_digest": self.digest,
            "weights_sha256": self.weights_sha256,
            "manifest_sha256": self.manifest_sha256,
            "settings_sha256": self.settings_sha256,
            "training_commit": self.commit or "unknown",
            "operating_point": self.operating_point,
            "image_threshold": f"{point.image_threshold:g}",
            "mask_threshold": f"{point.mask_threshold:g}",
            "min_area_mm2": f"{point.min_area_mm2:g}",
            "min_area_px": f"{point.min_area_px:g}",
        }


def identify(artifact: Artifact, settings: Settings) -> ModelIdentity:
    """The identity of a model with its settings. Device, engine and threads are no part of it: they change the speed, not the
    answer. Nor are settings that only affect the objects.

    Raises Refused: `unknown-operating-point` for one that the manifest does not have, `comparison-only-operating-point`
    for one that must not answer a film (`artifact.COMPARE_ONLY`).
    """
    manifest = artifact.manifest
    name = settings.operating_point or manifest.operating_point
    known = ", ".join(manifest.servable_points) or "none that may be served"
    if name in COMPARE_ONLY:
        sentence = f"The operating point {name!r} exists only to compare with a published figure; the model has {known}."
        raise Refused("comparison-only-operating-point", sentence)
    if name not in manifest.operating_points:
        raise Refused("unknown-operating-point", f"The model has no operating point {name!r}; it has {known}.")
    effective = {
        "operating_point": asdict(manifest.operating_points[name]),
        "flips": manifest.flips,
        "temperature": manifest.temperature,
        "absurd_fraction": settings.absurd_fraction,
    }
    settings_sha256 = _sha256(json.dumps(effective, sort_keys=True))
    return ModelIdentity(
        name=manifest.name,
        version=manifest.version,
        demo=manifest.intended_use == "demo",
        commit=manifest.commit,
        operating_point=name,
        thresholds=manifest.operating_points[name],
        weights_sha256=artifact.sha256,
        manifest_sha256=artifact.manifest_sha256,
        settings_sha256=settings_sha256,
        digest=_sha256(f"{artifact.sha256}|{artifact.manifest_sha256}|{settings_sha256}"),
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
