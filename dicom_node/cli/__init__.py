"""`segmenter-worker`: thin verbs, the processes they start, the supervisor of `run`, the demo and the conformance statement."""
