"""From raw films and masks to a prepared data set: sources, cases, folds by patient, phantoms."""
