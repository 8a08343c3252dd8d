"""Synthetic chest films whose truth is known: drawn, exposed, written as DICOM. The demo, the tests and the training use them.
"""
