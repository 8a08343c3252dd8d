-- What was assumed about a segmented film: codes, as JSON.
ALTER TABLE jobs ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';
-- A delivery to the sender of a film names it.
UPDATE OR IGNORE deliveries SET destination = (SELECT calling_ae FROM jobs WHERE id = job_id) WHERE destination = '@sender';
DELETE FROM commitment_items WHERE delivery_id IN (SELECT id FROM deliveries WHERE destination = '@sender');
DELETE FROM deliveries WHERE destination = '@sender';
-- Due deliveries are searched destination by destination: one that hangs does not delay the others.
DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (destination, next_try_at) WHERE state = 'pending';
