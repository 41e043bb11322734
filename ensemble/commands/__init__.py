"""The commands on members and ensembles: arguments, one library call, and what came of it."""
