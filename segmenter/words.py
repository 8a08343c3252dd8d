"""The sentences that stand in our objects, by language. Coded meanings are not among them: codes carry their own."""

from __future__ import annotations

from dataclasses import dataclass

from segmenter.values import Decision, Radiograph


@dataclass(frozen=True)
class Words:
    """One language. `code` is of RFC 5646, `name` its meaning (PS3.16 CID 5000). Plain ASCII in every language: the objects
    carry the character set of the film, whatever it is."""

    code: str
    name: str
    notice: str
    demo_notice: str
    finding: str
    no_finding: str
    detector_plane: str
    corrected: str
    operating_point: str

    def answer(self, decision: Decision, radiograph: Radiograph) -> str:
        """One line, such as "pneumothorax 0.97, 1234 mm2 (detector plane)"."""
        if not decision.positive:
            return f"{self.no_finding} ({decision.image_probability:.2f})"
        said = f"{self.finding} {decision.image_probability:.2f}"
        if decision.area_mm2 is None:
            return said
        plane = self.plane(radiograph)
        return f"{said}, {decision.area_mm2:.0f} mm2" + (f" ({plane})" if plane else "")

    def plane(self, radiograph: Radiograph) -> str:
        """Where lengths on the film lie; "" when nothing is known of it (PS3.3 10.7.1.3)."""
        if radiograph.spacing is not None and radiograph.spacing.corrected:
            return self.corrected
        return self.detector_plane if radiograph.in_detector_plane else ""


ENGLISH = Words(
    code="en",
    name="English",
    notice="AI result - not for primary diagnosis",
    demo_notice="DEMO - NOT FOR CLINICAL USE",
    finding="pneumothorax",
    no_finding="no pneumothorax found",
    detector_plane="in the detector plane",
    corrected="corrected for magnification",
    operating_point="operating point",
)
WORDS = {words.code: words for words in (ENGLISH,)}
