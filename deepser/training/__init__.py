"""Training on cached features: targets, order, losses, one run, several runs on one stream of batches."""
