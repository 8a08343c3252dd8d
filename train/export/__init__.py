"""From runs and their calibration to an artifact: weights, manifest, ONNX graphs and the model card."""
