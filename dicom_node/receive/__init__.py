"""The storage SCP. A connection is pending until its A-ASSOCIATE-RQ is whole (pending); the association is admitted or rejected
(storage_scp), counted (association_limit) and served (acceptor, server); each film goes bytes -> spool -> ledger -> status, by
the rules of this site (rules).
"""
