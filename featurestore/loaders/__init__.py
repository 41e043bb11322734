"""Batches of rows for a training loop, read ahead in threads."""
