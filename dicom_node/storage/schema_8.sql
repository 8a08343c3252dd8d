-- How often in a row the sender raised, or its process died, while it sent this object.
ALTER TABLE deliveries ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_suspect ON deliveries (next_try_at) WHERE state = 'pending' AND crashes >= 2;
