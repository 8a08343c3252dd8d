"""The workshop: makes the artifacts that the core loads."""
