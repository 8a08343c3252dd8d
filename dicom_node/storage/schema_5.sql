-- Whether the process that claimed it had no other film on its bench: only then is its death the film's fault.
ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 1;
