"""What imported rows are: the specification that the user's words and the first utterance make, and who fits it."""

from dataclasses import dataclass

import numpy as np

from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.interchange.base import Loaded

# In FeatureSpec.weights: nobody can know which weights made the rows, so the set never mixes with one of our encoders.
IMPORTED = "imported"
# What each dtype can be stored as without rounding, its own first. float64 is always rounded, and a note says so.
EXACT = {
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "float32": ("float32",),
    "float64": ("float32",),
}


@dataclass(frozen=True)
class Description:
    """The user's description of imported rows, as in FeatureSpec. dtype None: what holds the first file's values."""

    encoder: str
    kind: str = "audio"
    frame_rate_hz: float = 0.0
    dtype: str | None = None
    pool: str = "none"
    columns: tuple[str, ...] = ()

    def spec(self, loaded: Loaded, place: str, stored: FeatureSpec | None) -> FeatureSpec:
        """Return the specification of a set whose first utterance is `loaded`.

        Stored: that of the set that is there.
        """
        dims = {rows.shape[1] for rows in loaded.layers.values()}
        if len(dims) != 1 or 0 in dims:
            raise StoreError(f"{place}: layers of {sorted(dims)} dims; the same number, 1 or more, expected.")
        dtype = self.dtype or EXACT[loaded.dtype][0]
        if self.dtype is None and stored is not None and stored.weights == IMPORTED:
            dtype = stored.dtype
        return FeatureSpec(
            self.kind, self.encoder, IMPORTED, tuple(loaded.layers), dims.pop(), self.frame_rate_hz, dtype, self.pool,
            columns=self.columns,
        )  # fmt: skip


@dataclass
class Fit:
    """Checks that an utterance is like the set's others. like: where the first lies; n_rounded: float64 utterances."""

    spec: FeatureSpec
    like: str
    may_round: bool
    n_rounded: int = 0

    def __call__(self, loaded: Loaded) -> dict[str, np.ndarray]:
        if set(loaded.layers) != set(self.spec.layers):
            expected = ", ".join(self.spec.layers)
            raise StoreError(f"layers {', '.join(loaded.layers)}; {expected} expected, as in {self.like}.")
        for layer, rows in loaded.layers.items():
            if rows.shape[1] != self.spec.dim:
                raise StoreError(f"{layer} has {rows.shape[1]} dims; {self.spec.dim} expected, as in {self.like}.")
            if self.spec.pool != "none" and len(rows) != 1:
                raise StoreError(f"{len(rows)} rows; one was expected of features pooled by {self.spec.pool}.")
        if self.spec.dtype not in EXACT[loaded.dtype] and not self.may_round:
            raise StoreError(
                f"{loaded.dtype} would be rounded to the set's {self.spec.dtype}; say --dtype to allow it."
            )
        self.n_rounded += loaded.dtype == "float64"
        return loaded.layers
