"""Presentation contexts: the SOP classes and transfer syntaxes that we accept and propose (PS3.8 7.1.1.13)."""

from __future__ import annotations

from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.dimse.commitment_report import PUSH_MODEL
from dicom_node.dimse.implicit_vr import EXPLICIT, IMPLICIT
from dicom_node.runtime.config_sections import Receive

VERIFICATION = "1.2.840.10008.1.1"
NOT_STORAGE = (VERIFICATION, PUSH_MODEL)  # their contexts are negotiated, but carry no film

SOP_CLASSES: dict[str, str] = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",  # for presentation
    "DX-PROCESSING": "1.2.840.10008.5.1.4.1.1.1.1.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "SC-MF-BYTE": "1.2.840.10008.5.1.4.1.1.7.2",  # multi-frame grayscale byte
    "SC-MF-WORD": "1.2.840.10008.5.1.4.1.1.7.3",  # multi-frame grayscale word
}

UNCOMPRESSED = (EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2")  # the last: Explicit VR Big Endian (retired)

# The order is our preference where a sender proposes several in one context.
TRANSFER_SYNTAXES: dict[str, str] = {
    "Explicit VR Little Endian": UNCOMPRESSED[0],
    "Implicit VR Little Endian": UNCOMPRESSED[1],
    "Explicit VR Big Endian": UNCOMPRESSED[2],
    "Deflated Explicit VR Little Endian": "1.2.840.10008.1.2.1.99",
    "JPEG Lossless SV1": "1.2.840.10008.1.2.4.70",
    "JPEG Lossless": "1.2.840.10008.1.2.4.57",
    "JPEG-LS Lossless": "1.2.840.10008.1.2.4.80",
    "JPEG 2000 Lossless": "1.2.840.10008.1.2.4.90",
    "RLE Lossless": "1.2.840.10008.1.2.5",
    "JPEG Extended": "1.2.840.10008.1.2.4.51",
    "JPEG Baseline": "1.2.840.10008.1.2.4.50",
    "JPEG-LS Near-lossless": "1.2.840.10008.1.2.4.81",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
}


def supported_contexts(receive: Receive) -> list[PresentationContext]:
    """What we accept: Verification always (PS3.2 7.1), and the storage classes of `receive.sop_classes`."""
    storage = [build_context(SOP_CLASSES[name], list(TRANSFER_SYNTAXES.values())) for name in receive.sop_classes]
    return [verification_context(), *storage]


def verification_context() -> PresentationContext:
    """What we accept of C-ECHO."""
    return build_context(VERIFICATION, list(UNCOMPRESSED))


def echo_context() -> PresentationContext:
    """What a C-ECHO of ours proposes."""
    return build_context(VERIFICATION)
