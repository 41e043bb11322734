"""Numbers computed from predictions: counts, metrics, calibration, bins, and their report."""
