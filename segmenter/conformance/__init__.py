"""What the conformance statement says of our objects, found out by making them."""
