"""Synthetic chest films with known truth: drawn, exposed, written as DICOM. The demo, the tests and the training use them."""
