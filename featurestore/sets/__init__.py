"""One feature set: its segments read as a mapping from keys to rows, and added to, merged and looked up."""
