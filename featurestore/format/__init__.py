"""The store's format on disk (FORMAT.md): segments in either container, their rows, and how they are committed."""
