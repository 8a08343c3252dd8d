-- The decision of [[rules]] when the film arrived: mode live, shadow or ignore; destinations as JSON, NULL for send.destinations.
ALTER TABLE jobs ADD COLUMN mode TEXT NOT NULL DEFAULT 'live';
ALTER TABLE jobs ADD COLUMN rule TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN why TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN destinations TEXT;
