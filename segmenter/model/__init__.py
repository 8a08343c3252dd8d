"""From a radiograph to a decision: the artifact and its identity, the network, its engines, placement on the model's grid, the
mask.
"""
