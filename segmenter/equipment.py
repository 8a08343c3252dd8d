"""Who we are in the General Equipment module (PS3.3 C.7.5.1) of what we write, by which our own results are known again."""

MANUFACTURER = "Segmenter Worker"
MODEL_NAME = "Pneumothorax Segmenter"
