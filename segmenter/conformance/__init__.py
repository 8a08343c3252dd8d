"""The description of our objects for the conformance statement, derived from example objects."""
