"""From a run to thresholds and figures: calibration, the frozen exam, counterfactual pairs, the published baseline."""
