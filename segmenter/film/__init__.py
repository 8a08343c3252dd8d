"""From a dataset to a radiograph, or a coded skip: the header, the pixels of any transfer syntax, the grey scale, the geometry.

Independent of models and objects.
"""
