"""What the storage SCP and the storage SCU share: PDUs, messages, statuses, presentation contexts, TLS, and one adapter to
pynetdicom with transports that keep deadlines.
"""
