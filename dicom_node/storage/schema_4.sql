-- Read several times a second when work.on_resend is redeliver.
CREATE INDEX jobs_resent_unanswered ON jobs (id) WHERE resends > resends_answered AND state = 'segmented';
