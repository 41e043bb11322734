"""A YAML recipe turned into commands and a run that resumes; the one package that knows the command line."""
