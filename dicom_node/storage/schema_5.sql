-- Whether the process that claimed it had no other film in work: only then is its death charged to the film.
ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 1;
