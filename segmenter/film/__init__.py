"""From a dataset to a radiograph, or a coded skip: the header, the pixels of any syntax, the grey scale, the geometry.

Knows no model and makes no object.
"""
