"""A corpus as one validated table: manifest, label scheme, ratings, splits and audit."""
