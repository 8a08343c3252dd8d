"""The sentences of our objects, by language. Coded meanings are not among them: codes have their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segmenter.values import Decision, Finding, Radiograph


@dataclass(frozen=True)
class Words:
    """The sentences in one language. `code`: by RFC 5646, `name`: its meaning (PS3.16 CID 5000). Plain ASCII in every language:
    the objects have the character set of the film, whatever it is."""

    code: str
    name: str
    notice: str
    demo_notice: str
    finding: str
    no_finding: str
    indeterminate: str
    probability: str
    threshold: str
    detector_plane: str
    corrected: str
    operating_point: str
    unknown_spacing: str  # part of an LO of 64 characters

    def answer(self, finding: Finding, sides: Sequence[str] = ()) -> str:
        """One line, such as "pneumothorax (right), probability 97 % (threshold 11 %), 1234 mm2 (in the detector plane)";
        `sides`: of the regions. Raises ValueError without a decision."""
        decision, radiograph = finding.decision, finding.radiograph
        if decision is None or radiograph is None:
            raise ValueError("only a film with a decision has an answer")
        if finding.outcome == "indeterminate":
            return f"{self.indeterminate}, {self.of_pneumothorax(decision)}: {finding.sentence}"
        if not decision.positive:
            return f"{self.no_finding}, {self.of_pneumothorax(decision)}"
        where = f" ({', '.join(sides)})" if sides else ""
        said = f"{self.finding}{where}, {self.probability} {self.percent(decision)}"
        if decision.area_mm2 is None:
            return said
        plane = self.plane(radiograph)
        return f"{said}, {decision.area_mm2:.0f} mm2" + (f" ({plane})" if plane else "")

    def of_pneumothorax(self, decision: Decision) -> str:
        """The probability with its name, so that beside a negative answer it is not read as the probability of that answer."""
        return f"{self.probability} of {self.finding} {self.percent(decision)}"

    def percent(self, decision: Decision) -> str:
        """ "34 % (threshold 11 %)"."""
        return percent(decision.image_probability, decision.image_threshold, self.threshold)

    def plane(self, radiograph: Radiograph) -> str:
        """The plane in which lengths on the film are measured; "" when it is unknown (PS3.3 10.7.1.3)."""
        if radiograph.spacing is not None and radiograph.spacing.corrected:
            return self.corrected
        return self.detector_plane if radiograph.in_detector_plane else ""


def percent(probability: float, threshold: float | None, word: str) -> str:
    """ "34 % (threshold 11 %)", with as many digits as distinguish the two. Both in [0, 1]; `word`: for "threshold"."""
    if threshold is None:
        return f"{100 * probability:.0f} %"
    p, limit = 100 * probability, 100 * threshold
    digits = next((n for n in range(4) if p == limit or f"{p:.{n}f}" != f"{limit:.{n}f}"), 4)
    return f"{p:.{digits}f} % ({word} {limit:.{digits}f} %)"


ENGLISH = Words(
    code="en",
    name="English",
    notice="AI result - not for primary diagnosis",
    demo_notice="DEMO - NOT FOR CLINICAL USE",
    finding="pneumothorax",
    no_finding="no pneumothorax found",
    indeterminate="indeterminate",
    probability="probability",
    threshold="threshold",
    detector_plane="in the detector plane",
    corrected="corrected for magnification",
    operating_point="operating point",
    unknown_spacing="spacing unknown: do not measure",
)
WORDS = {words.code: words for words in (ENGLISH,)}
