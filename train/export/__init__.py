"""From runs and thresholds to an artifact: weights, manifest, ONNX graphs and the model card."""
