"""The commands on corpora, features and stores: arguments, one library call, and what came of it."""
