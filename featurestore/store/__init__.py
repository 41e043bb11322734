"""A store, opened by path or URL: feature sets by name, made, found, verified and removed."""
