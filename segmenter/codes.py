"""The coded concepts that our objects use (PS3.16 CID 7150, 7151, 7162; SNOMED CT)."""

from __future__ import annotations

from pydicom.sr.coding import Code

MORPHOLOGICALLY_ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
PLEURA = Code("3120008", "SCT", "Pleura")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
