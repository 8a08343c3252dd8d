-- queue: urgent or normal. remote: the worker's name when it is on another machine. finisher: the token that finished.
ALTER TABLE jobs ADD COLUMN queue TEXT NOT NULL DEFAULT 'normal';
ALTER TABLE jobs ADD COLUMN remote TEXT;
ALTER TABLE jobs ADD COLUMN finisher TEXT;
ALTER TABLE jobs ADD COLUMN claimed_at REAL;
DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs (queue, received_at) WHERE state = 'received';
-- For retention: finished jobs whose film is still on disk.
CREATE INDEX jobs_kept ON jobs (finished_at) WHERE finished_at IS NOT NULL AND path IS NOT NULL;
CREATE INDEX associations_opened ON associations (opened_at);
-- kept_since: when the film of a job whose files were removed arrived again.
ALTER TABLE jobs ADD COLUMN kept_since REAL;
-- Totals are counted in a covering index; latencies are those of a recent window.
DROP INDEX jobs_state;
CREATE INDEX jobs_outcome ON jobs (state, code, finding);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_resent ON jobs (resends) WHERE resends > 0;
CREATE INDEX contents_conflicts ON contents (sop_instance_uid) WHERE revision > 1;
DROP INDEX deliveries_state;
CREATE INDEX deliveries_outcome ON deliveries (state, destination, status);
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

-- Workers on other machines. The token itself is shown once and not stored.
CREATE TABLE workers (
    name TEXT PRIMARY KEY, token_sha256 TEXT NOT NULL,
    added_at REAL NOT NULL, revoked_at REAL, seen_at REAL, model TEXT, model_digest TEXT
) WITHOUT ROWID;

-- Storage commitment (PS3.4 J): one row per N-ACTION; a delivery names the request that covers it.
CREATE TABLE commitments (
    transaction_uid TEXT PRIMARY KEY, destination TEXT NOT NULL, state TEXT NOT NULL,
    requested_at REAL NOT NULL, answered_at REAL
) WITHOUT ROWID;
ALTER TABLE deliveries ADD COLUMN commitment TEXT;
ALTER TABLE deliveries ADD COLUMN committed_at REAL;
ALTER TABLE deliveries ADD COLUMN commit_failures INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_commitment ON deliveries (commitment) WHERE commitment IS NOT NULL;
CREATE INDEX deliveries_uncommitted ON deliveries (destination, finished_at)
    WHERE state = 'delivered' AND committed_at IS NULL;
-- The deliveries of each request, earlier ones too: a late report still counts.
CREATE TABLE commitment_items (
    transaction_uid TEXT NOT NULL, delivery_id INTEGER NOT NULL, PRIMARY KEY (transaction_uid, delivery_id)
) WITHOUT ROWID;
CREATE INDEX commitment_items_delivery ON commitment_items (delivery_id);
