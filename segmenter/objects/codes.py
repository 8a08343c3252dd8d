"""The coded concepts of our objects (PS3.16; SNOMED CT). None is private: readers do not know private codes."""

from __future__ import annotations

from pydicom.sr.coding import Code

MORPHOLOGICALLY_ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
PNEUMOTHORAX = Code("36118008", "SCT", "Pneumothorax")
PLEURA = Code("3120008", "SCT", "Pleura")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
DIAGNOSTIC_IMAGING_REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
PRESENCE = Code("705057003", "SCT", "Presence")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("2667000", "SCT", "Absent")
INDETERMINATE = Code("82334004", "SCT", "Indeterminate")
AREA = Code("42798000", "SCT", "Area")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "mm2")
PIXELS = Code("{pixels}", "UCUM", "pixels")

# Not DCM 111012 "Certainty of Finding": on a negative film it would be read as the certainty of the negative answer. The
# meaning of the code is "Probability"; ours adds of what, as the group's Finding does (PS3.3 8.3: the meaning is for people).
PROBABILITY = Code("122157", "DCM", "Probability of pneumothorax")
THRESHOLD = Code("122411", "DCM", "Threshold Value")
PERCENT = Code("%", "UCUM", "percent")
COMMENT = Code("121106", "DCM", "Comment")
