"""`segmenter-worker conformance`: the conformance statement by PS3.2, of this configuration and this code."""
