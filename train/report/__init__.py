"""Figures, intervals, tables and pictures of predictions."""
