"""From a decision to DICOM objects: SEG, SR, presentation state, secondary capture, with a common header; and the PNG
picture."""
