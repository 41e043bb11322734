"""Small feature stores of known content, in every form of storage, and the checks that hold for them at any time."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from featurestore.format.spec import FeatureSpec
from featurestore.rows.rowtypes import encode
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store

STORAGES = [("zarr", ""), ("hdf5", ""), ("zarr", "zstd"), ("zarr", "blosc"), ("hdf5", "gzip")]
NAME = "set/a"
SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 16, 50.0)


def key(i: int) -> str:
    return f"ses{i % 5}/ütt {i}"


def rows(i: int, spec: FeatureSpec = SPEC) -> np.ndarray:
    """Return the rows (L, T, D) of utterance i; about every fifth has none."""
    n = i * 7 % 11 if i % 5 else 0
    return np.random.default_rng(i).standard_normal((len(spec.layers), n, spec.dim)).astype(np.float32)


def write(
    path: Path, storage: tuple[str, str], utterances: Iterable[int], segment_bytes: int, spec: FeatureSpec = SPEC
) -> None:
    """Append the missing ones of `utterances`, as `medusa featurize` does: a second run completes the first."""
    store = FeatureStore.open_or_create(path)
    with store.writer(NAME, spec, segment_bytes=segment_bytes, format=storage[0], compress=storage[1]) as writer:
        for i in utterances:
            if key(i) not in writer:
                writer.append(key(i), rows(i, spec), float(i))


def same_rows(features: FeatureSet, i: int, layers: Iterable[str] | None = None) -> bool:
    """Return whether utterance i is stored exactly as it was written."""
    for layer in layers or features.layers:
        expected, scales = encode(rows(i, features.spec)[features.layers.index(layer)], features.spec.row_type)
        stored, stored_scales = features.stored_rows([key(i)], layer)
        if stored[0].tobytes() != expected.tobytes() or stored[0].shape != expected.shape:
            return False
        if scales is not None and (stored_scales is None or stored_scales[0].tobytes() != scales.tobytes()):
            return False
    return True


def check(path: Path, n: int) -> int:
    """Return how many of utterances 0..n-1 are stored; assert that each of them is whole."""
    if not (path / "zarr.json").exists():
        return 0
    assert {name: found for name, found in verify_store(path).items() if found} == {}
    store = FeatureStore.open(path)
    if NAME not in store:
        return 0
    features = store[NAME]
    number_of = {key(i): i for i in range(n)}
    for each in features:
        assert same_rows(features, number_of[each]), each
        assert features.durations_s([each])[0] == number_of[each]
    return len(features)


def segments(path: Path) -> dict[str, bytes]:
    """Return the bytes of every file of every segment; temporary ones left out."""
    files = sorted(entry for entry in (path / NAME).rglob("*") if entry.is_file())
    values = {str(entry.relative_to(path)): entry for entry in files}
    return {name: entry.read_bytes() for name, entry in values.items() if "/.tmp-" not in name}


def with_dtype(dtype: str) -> FeatureSpec:
    return replace(SPEC, dtype=dtype)


@contextmanager
def quick_directory() -> Iterator[Path]:
    """Open a directory in memory where there is one: hundreds of stores with an fsync per file take a second there."""
    shared = Path("/dev/shm")
    memory = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="medusa-test-", dir=memory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
