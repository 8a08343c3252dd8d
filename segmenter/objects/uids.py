"""Derived UIDs: the same film and model give the same UIDs on every machine."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "pneumothorax.segmenter-worker")

IMPLEMENTATION_VERSION_NAME = "SEGWORKER_0_1"  # SH, at most 16 characters (PS3.7 annex D.3.3.2)


def derived_uid(*parts: str) -> str:
    """A UID 2.25.N (PS3.5 annex B.2) of the UUID version 5 of the parts, each with its length, so that no two lists are
    alike."""
    name = "".join(f"{len(part)}:{part};" for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


IMPLEMENTATION_CLASS_UID = derived_uid("implementation class")


def result_uid(sop_instance_uid: str, content_sha256: str, model_digest: str, role: str, variant: str = "") -> str:
    """SOP Instance UID of a result: one per film, content, model, role and variant."""
    return derived_uid("instance", sop_instance_uid, content_sha256, model_digest, role, variant)


def series_uid(sop_instance_uid: str, content_sha256: str, model_digest: str, role: str, variant: str = "") -> str:
    """Series Instance UID of a result. One series per film: results of two films of a study share no series date, frame of
    reference or description, and viewers bind a segmentation to one series."""
    return derived_uid("series", sop_instance_uid, content_sha256, model_digest, role, variant)
