"""The training code: makes the artifacts that the core loads."""
