"""`segmenter-worker`: thin verbs, the processes that they start, the supervisor of `run`, the demo and the conformance
statement.
"""
