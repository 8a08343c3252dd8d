"""The storage SCP. A connection waits until its A-ASSOCIATE-RQ is whole (pending), is admitted or rejected (storage_scp),
counted (association_limit), served (acceptor), and each film goes bytes -> spool -> ledger -> status, by the rules of this
site.
"""
