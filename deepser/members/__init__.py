"""A member of an ensemble: its preset, folds, run directory, fitting and posteriors."""
