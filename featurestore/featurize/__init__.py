"""From a manifest to a feature set: plan, decode ahead, encode in batches, write, run in several processes."""
