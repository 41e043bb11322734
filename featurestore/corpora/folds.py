"""A corpus's folds, joined to fewer."""

import pyarrow as pa

from featurestore.corpus.manifest import Manifest
from featurestore.errors import ManifestError


def join_folds(manifest: Manifest, n_folds: int) -> Manifest:
    """The manifest with its folds joined to `n_folds`, neighbours first: six to three are 1+2, 3+4 and 5+6.

    No speaker gets into two folds who wasn't before. The former folds are kept as column `fold_was`.
    """
    former = manifest.column("fold").tolist()
    if None in former:
        raise ManifestError(f"Manifest {manifest.name}: {manifest.keys[former.index(None)]!r} has no fold; fill it.")
    names = sorted(set(former), key=lambda name: (len(name), name))
    if not 2 <= n_folds <= len(names):
        raise ManifestError(f"Manifest {manifest.name} has {len(names)} folds; they can't be joined to {n_folds}.")
    joined = {name: str(1 + i * n_folds // len(names)) for i, name in enumerate(names)}
    table = manifest.to_arrow()
    table = table.append_column("fold_was", table.column("fold"))
    fold = pa.array([joined[name] for name in former], pa.string())
    table = table.set_column(table.column_names.index("fold"), "fold", fold)
    return manifest.with_table(table)
