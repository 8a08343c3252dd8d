"""From a decision to DICOM objects: SEG, SR, presentation state, secondary capture, with one common header; and the picture.
"""
