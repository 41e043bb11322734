"""Recordings as people name them: files and folders as manifests, and their windows, speech or listed segments."""
