"""From a radiograph to a decision: artifact and identity, the network and its engines, placement on the model's grid, the
mask."""
