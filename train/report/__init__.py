"""Figures, intervals, tables and pictures of what a network says: no network runs here."""
