-- The threshold that the probability was compared with.
ALTER TABLE jobs ADD COLUMN threshold REAL;
