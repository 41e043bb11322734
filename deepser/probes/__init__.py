"""Closed-form classifiers and regressors over pooled rows: which layer of which encoder carries emotion, in seconds."""
