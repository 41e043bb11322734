"""Training on cached features: targets, order, losses, one run, and several runs on one stream of batches."""
