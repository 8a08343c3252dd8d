"""The General Equipment module (PS3.3 C.7.5.1) of our objects, by which our own results are recognised."""

MANUFACTURER = "Segmenter Worker"
MODEL_NAME = "Pneumothorax Segmenter"
