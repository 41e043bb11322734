"""Ensembles over cached posteriors: alignment by key, votes, and the linear meta-classifier with its soup."""
