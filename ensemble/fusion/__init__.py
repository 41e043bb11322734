"""The ensembles themselves: votes, meta-classifiers, selection of members, and cross-fitting."""
