"""Stores at a URL: a local mirror that fetches what is read."""
