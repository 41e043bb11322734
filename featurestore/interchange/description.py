"""What imported rows are: the specification that the user's words and the first utterance make, and who fits it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.interchange.base import Loaded

# In FeatureSpec.weights: nobody can know which weights made the rows, so the set never mixes with one of our encoders.
IMPORTED = "imported"
# Fields of a set that an export of ours records and an import keeps, unless options say otherwise.
RECORDED = ("kind", "frame_rate_hz", "pool", "window", "source", "columns", "extra")
# What each dtype can be stored as without rounding, its own first. float64 is always rounded, and a note says so.
EXACT = {
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "float32": ("float32",),
    "float64": ("float32",),
}


@dataclass(frozen=True)
class Description:
    """The user's description of imported rows, as in FeatureSpec. dtype None: what holds the first file's values.

    The others, where None or empty: as the export recorded that wrote the source, else audio, 0, none and no names.
    """

    encoder: str
    kind: str | None = None
    frame_rate_hz: float | None = None
    dtype: str | None = None
    pool: str | None = None
    columns: tuple[str, ...] = ()

    def spec(
        self, loaded: Loaded, place: str, stored: FeatureSpec | None, recorded: FeatureSpec | None = None
    ) -> FeatureSpec:
        """Return the specification of a set whose first utterance is `loaded`.

        stored: that of the set that is there. recorded: that of the set that an export wrote to the source.
        """
        dims = {rows.shape[1] for rows in loaded.layers.values()}
        if len(dims) != 1 or 0 in dims:
            raise StoreError(f"{place}: layers of {sorted(dims)} dims; the same number, 1 or more, expected.")
        dtype = self.dtype or EXACT[loaded.dtype][0]
        if self.dtype is None and stored is not None and stored.weights == IMPORTED:
            dtype = stored.dtype
        fields: dict[str, Any] = {"kind": "audio"}
        dim = dims.pop()
        if recorded is not None and recorded.dim == dim:
            fields |= {name: getattr(recorded, name) for name in RECORDED}
        given: dict[str, Any] = {"kind": self.kind, "frame_rate_hz": self.frame_rate_hz, "pool": self.pool}
        given["columns"] = self.columns or None
        fields |= {name: value for name, value in given.items() if value is not None}
        return FeatureSpec(
            encoder=self.encoder, weights=IMPORTED, layers=tuple(loaded.layers), dim=dim, dtype=dtype, **fields
        )

    def as_recorded(self, spec: FeatureSpec) -> str:
        """Return the options for what no option gave, but the record of an export; "" for a frame rate at most."""
        taken = [] if self.kind is not None or spec.kind == "audio" else [f"--kind {spec.kind}"]
        taken += [] if self.pool is not None or spec.pool == "none" else [f"--pool {spec.pool}"]
        rate = spec.frame_rate_hz
        taken += [] if self.frame_rate_hz is not None or not rate else [f"--frame-rate {rate:g}"]
        taken += [] if self.columns or not spec.columns else [f"--columns {','.join(spec.columns)}"]
        return "" if all(option.startswith("--frame-rate") for option in taken) else " ".join(taken)


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
