"""Feature sets made of segments: open, write, look up, compact and verify them."""
