CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE associations (
    id INTEGER PRIMARY KEY,
    calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, host TEXT NOT NULL,
    opened_at REAL NOT NULL, closed_at REAL, received INTEGER NOT NULL DEFAULT 0, outcome TEXT
);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL, sop_class_uid TEXT NOT NULL, transfer_syntax_uid TEXT NOT NULL,
    dataset_sha256 TEXT NOT NULL, path TEXT, size INTEGER NOT NULL,
    calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, host TEXT NOT NULL, association_id INTEGER,
    state TEXT NOT NULL, received_at REAL NOT NULL, generation INTEGER NOT NULL DEFAULT 1,
    attempts INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
    resends INTEGER NOT NULL DEFAULT 0, resends_answered INTEGER NOT NULL DEFAULT 0,
    owner TEXT, worker TEXT, pid INTEGER, boot TEXT, lease_until REAL,
    finished_at REAL, code TEXT, sentence TEXT, finding TEXT, probability REAL, area_mm2 REAL,
    model TEXT, model_digest TEXT, same_as TEXT, revision INTEGER NOT NULL DEFAULT 1, seconds REAL,
    UNIQUE (sop_instance_uid, transfer_syntax_uid, dataset_sha256)
) WITHOUT ROWID;
CREATE INDEX jobs_ready ON jobs (received_at) WHERE state = 'received';
CREATE INDEX jobs_claimed ON jobs (lease_until) WHERE state = 'claimed';
CREATE INDEX jobs_received ON jobs (received_at);
CREATE INDEX jobs_state ON jobs (state);

-- One row per distinct content seen under a SOP Instance UID; revision 2 and up are conflicts.
CREATE TABLE contents (
    sop_instance_uid TEXT NOT NULL, content_sha256 TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (sop_instance_uid, content_sha256), UNIQUE (sop_instance_uid, revision)
) WITHOUT ROWID;

-- The identity of an answer; negative films have one too. Rows outlive jobs and files: they are the tombstones.
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL, content_sha256 TEXT NOT NULL, model_digest TEXT NOT NULL,
    job_id TEXT NOT NULL, answered_at REAL NOT NULL,
    UNIQUE (sop_instance_uid, content_sha256, model_digest)
);
CREATE INDEX answers_job ON answers (job_id);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    answer_id INTEGER NOT NULL REFERENCES answers (id),
    role TEXT NOT NULL, variant TEXT NOT NULL, sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, path TEXT, size INTEGER NOT NULL,
    intended_use TEXT NOT NULL,
    UNIQUE (answer_id, role, variant)
);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL, object_id INTEGER NOT NULL REFERENCES objects (id), destination TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, status INTEGER, reason TEXT,
    created_at REAL NOT NULL, next_try_at REAL NOT NULL, finished_at REAL,
    UNIQUE (object_id, destination)
);
CREATE INDEX deliveries_due ON deliveries (next_try_at) WHERE state = 'pending';
CREATE INDEX deliveries_job ON deliveries (job_id);
CREATE INDEX deliveries_state ON deliveries (state);
