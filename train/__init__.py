"""The training code: makes the artifacts that `segmenter` loads."""
