"""Helpers that several test files share: small corpora, models and stores, servers, and faults to inject."""
