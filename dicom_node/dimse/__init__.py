"""What the storage SCP and the storage SCU share: PDUs, messages, statuses, presentation contexts, TLS, transport with
deadlines.
"""
