"""From a prepared data set and a recipe to a run: fit.py has the order of events."""
