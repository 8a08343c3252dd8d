"""What every process of the node stands on: settings, errors, logging without patient data, threads, child processes, signals.

Knows nothing of DICOM and nothing of films.
"""
