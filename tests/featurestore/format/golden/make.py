"""Writes the golden stores of the format's current version; run by hand, once per version, never by a test.

python tests/featurestore/format/golden/make.py tests/featurestore/format/golden/v1
python tests/featurestore/format/golden/make.py --identities tests/featurestore/format/golden/v1-identities
"""

import sys
from pathlib import Path

import numpy as np

from featurestore.format.identity import Identity
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

KEYS = ["first", "no rows", "a/b", "話者", "last"]
LENGTHS = [3, 0, 1, 700, 2]
SETS = {
    "wavlm": (FeatureSpec("audio", "wavlm", "sha256:0", ("layer_06", "layer_12"), 8, 50.0), "", ""),
    "wide": (FeatureSpec("audio", "wide", "none", ("layer_00",), 8, 50.0, "float32"), "", ""),
    "brain": (FeatureSpec("text", "brain", "none", ("layer_00",), 8, dtype="bfloat16", source="manifest"), "", ""),
    "small": (FeatureSpec("audio", "small", "none", ("layer_00",), 8, 50.0, "int8"), "", ""),
    "packed/one": (FeatureSpec("audio", "one", "none", ("layer_00",), 8, 50.0), "zstd", "gzip"),
    "packed/two": (FeatureSpec("audio", "two", "none", ("layer_00",), 8, 50.0, "int8"), "blosc", "gzip"),
}


def rows(layer: int, utterance: int) -> np.ndarray:
    """Return (T, 8) float32 that float16, bfloat16 and int8 hold exactly: each row's largest value is 127 / 16."""
    t, d = np.mgrid[0 : LENGTHS[utterance], 0:8]
    values = (t * 31 + d * 7 + layer * 5 + utterance * 3) % 255 - 127
    values[:, 0] = 127
    return (values / 16).astype(np.float32)


def main(directory: Path) -> None:
    for format in ("zarr", "hdf5"):
        store = FeatureStore.create(directory / format)
        for name, (spec, zarr_codec, hdf5_codec) in SETS.items():
            compress = zarr_codec if format == "zarr" else hdf5_codec
            for part in (range(3), range(3, 5)):
                with store.writer(
                    name, spec, provenance={"made": "2026-11"}, format=format, compress=compress
                ) as writer:
                    for i in part:
                        layers = [rows(layer, i) for layer in range(len(spec.layers))]
                        writer.append(KEYS[i], layers, duration_s=i / 4)


def identity(i: int) -> Identity | None:
    """Return the source of utterance i; the second has no record, the fourth is a piece of a file."""
    if i == 1:
        return None
    piece = (1.5, 2.25) if i == 3 else (float("nan"), float("nan"))
    digest = bytes([i + 1]) * 16
    return Identity(digest, digest[::-1], 1000 + i, 10**18 + i, *piece, i / 4, ["soundfile 0.13.1", "PyAV 18.1"][i % 2])


def main_identities(directory: Path) -> None:
    """Write a set whose first segment records identities and whose second, of the last utterance, does not."""
    spec = SETS["wavlm"][0]
    for format in ("zarr", "hdf5"):
        store = FeatureStore.create(directory / format)
        with store.writer("wavlm", spec, provenance={"made": "2026-11"}, format=format) as writer:
            for i, key in enumerate(KEYS):
                if i == 4:
                    writer.commit()
                layers = [rows(layer, i) for layer in range(len(spec.layers))]
                writer.append(key, layers, i / 4, None if i == 4 else identity(i))


if __name__ == "__main__":
    if sys.argv[1] == "--identities":
        main_identities(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
