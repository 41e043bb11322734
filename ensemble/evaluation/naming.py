"""How the feature sets of posteriors are named; loads nothing, so that a plan can be printed at once."""

PREFIX = "posteriors/"
