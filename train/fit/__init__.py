"""From a prepared data set and a recipe to a run: read fit.py from top to bottom."""
