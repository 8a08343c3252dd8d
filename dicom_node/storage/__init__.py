"""All state of the node: SQLite (jobs, results, deliveries, associations) and the spool of files.

A queue message only wakes a worker; what these files say is what happens. No network here.
"""
