"""From the [segment] section to the artifact and the settings of the segmenter; the rule for demo models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import segmenter
from dicom_node.dimse.hosts import is_loopback
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Segment
from dicom_node.runtime.errors import ConfigError
from dicom_node.storage.statistics import Model
from segmenter.errors import ArtifactError, Refused
from segmenter.model.artifact import COMPARE_ONLY, Artifact, load_artifact
from segmenter.model.identity import identify
from segmenter.model.predict import engine_for
from segmenter.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable


def model_folder(settings: Segment) -> Path:
    """The artifact's folder; "demo" is the one that is shipped."""
    if str(settings.model) == "demo":
        return Path(segmenter.__file__).parent / "artifacts" / "demo"
    return settings.model


def with_model(settings: Segment, folder: Path | None) -> Segment:
    """`settings` with the model folder of a command line, relative to the working directory; None: as they are."""
    return settings if folder is None else settings.model_copy(update={"model": folder.resolve()})


def load_model(settings: Segment) -> Artifact:
    """Load and verify the artifact. Raises ConfigError with what does not match, or an operating point that must not be
    served."""
    try:
        artifact = load_artifact(model_folder(settings))
    except ArtifactError as error:
        raise ConfigError(f"segment.model: {error}") from error
    name = settings.operating_point or artifact.manifest.operating_point
    known = ", ".join(artifact.manifest.servable_points) or "none that may be served"
    if name in COMPARE_ONLY:
        raise ConfigError(
            f"segment.operating_point: {name!r} exists only to compare with a published figure and must not answer films; "
            f"the model has {known}"
        )
    if name not in artifact.manifest.operating_points:
        raise ConfigError(f"segment.operating_point: the model has no {name!r}; it has {known}")
    return artifact


def runnable_model(settings: Segment) -> Artifact:
    """As `load_model`; raises ConfigError too when neither torch nor ONNX Runtime can run it here."""
    artifact = load_model(settings)
    try:
        engine_for(artifact, settings.device, settings.engine)
    except ArtifactError as error:
        raise ConfigError(f"segment.model: {error}") from error
    return artifact


def segment_settings(settings: Segment) -> Settings:
    """The section as the segmenter takes it."""
    return Settings(
        operating_point=settings.operating_point,
        device=settings.device,
        engine=settings.engine,
        threads=settings.threads,
        min_side_px=settings.min_side_px,
        max_pixels=settings.max_pixels,
        min_age_years=settings.min_age_years,
        for_processing=settings.for_processing,
        series_number=settings.series_number,
        plane_orientation=settings.plane_orientation,
        language=settings.language,
        report_negative=settings.report_negative,
    )


def refuse_demo_model(config: Config, intended_use: str) -> None:
    """Raises ConfigError when a demo model would send to a destination that is not this machine."""
    if intended_use != "demo" or config.segment.allow_demo_model:
        return
    outside = [name for name in _receivers(config) if not is_loopback(config.peers[name].host)]
    if outside:
        raise ConfigError(
            f"segment.model: a demo model (not for clinical use) would send to {', '.join(outside)}, which is not this "
            "machine; name a trained model, or set segment.allow_demo_model = true on a test system"
        )


def _receivers(config: Config) -> Iterable[str]:
    """Peers that results can reach."""
    named = [name for name in config.destinations if name != "@sender"]
    return config.peers if "@sender" in config.destinations else named


def model_in_force(config: Config) -> Model | None:
    """The configured model; None when it cannot be loaded (`check` says why). Reads the weights: call it once."""
    try:
        identity = identify(load_model(config.segment), segment_settings(config.segment))
    except (ConfigError, Refused):
        return None
    return Model(identity.name, identity.version, identity.digest)
