"""Sets whose rows exceed the memory available are read by calls: the same rows, checks and errors as through maps."""

import os
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format.pieces import Piece, read_pieces
from featurestore.format.spec import FeatureSpec
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.rows.packed import Packed
from featurestore.sets import snapshot
from featurestore.sets.compact import compact
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

LAYERS = ("layer_00", "layer_01")
KEYS = [f"u{i}" for i in range(60)]
DIM = 320


def written(path: Path, dtype: str, **storage: str) -> FeatureStore:
    store = FeatureStore.create(path / "store")
    rng = np.random.default_rng(0)
    with store.writer(
        "x", FeatureSpec("audio", "x", "none", LAYERS, DIM, dtype=dtype), segment_bytes=200_000, **storage
    ) as writer:
        for i, key in enumerate(KEYS):
            writer.append(key, rng.standard_normal((2, i % 23, DIM), np.float32))
    return store


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "available_bytes", lambda: 1000)


def opened(store: FeatureStore) -> FeatureSet:
    return FeatureStore.open(store.path)["x"]


def batches(features: FeatureSet, orders: list[list[str]]) -> list[Packed]:
    """Read the keys of each order in every way."""
    return [
        features.read_layers(keys, layers, read_as, stride=stride)
        for keys in orders
        for layers in (LAYERS, LAYERS[1:])
        for read_as in ("float16", "float32")
        for stride in (1, 3)
    ]


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "int8"])
def test_rows_are_those_of_the_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, dtype: str) -> None:
    store = written(tmp_path, dtype, format=format)
    by_maps, orders = opened(store), [np.random.default_rng(i).permutation(KEYS)[:17].tolist() for i in range(3)]
    orders += [KEYS, ["u0"], ["u5", "u5", "u23"]]
    expected = batches(by_maps, orders)
    monkeypatch.setattr(snapshot, "available_bytes", lambda: 1000)
    by_calls = opened(store)
    assert by_calls._snapshot().exceeds_memory(1)
    result = batches(by_calls, orders)
    for packed, expected_batch in zip(result, expected, strict=True):
        np.testing.assert_array_equal(packed.offsets, expected_batch.offsets)
        np.testing.assert_array_equal(packed.values.view(np.uint8), expected_batch.values.view(np.uint8))
    assert [array.tobytes() for array in by_calls.arrays(KEYS)] == [array.tobytes() for array in by_maps.arrays(KEYS)]


def test_compressed_rows_are_left_to_the_maps(tmp_path: Path, small_memory: None) -> None:
    store = written(tmp_path, "float16", compress="zstd")
    features = opened(store)
    features.announce(KEYS)
    assert not features._snapshot().exceeds_memory(1)
    assert features.gather(KEYS).values.tobytes() == b"".join(array.tobytes() for array in features.arrays(KEYS))


def test_layers_that_fit_are_read_through_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = written(tmp_path, "float16")
    one_layer = sum(opened(store).lengths(KEYS).tolist()) * DIM * 2
    monkeypatch.setattr(snapshot, "available_bytes", lambda: int(1.5 * one_layer))
    now = opened(store)._snapshot()
    assert [now.exceeds_memory(1), now.exceeds_memory(2)] == [False, True]


@pytest.mark.parametrize("names", [["x@0"], ["x@0", "y@0"], ["x@0", "x@1"]])
def test_sets_that_fit_only_one_by_one_are_read_by_calls_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    store = written(tmp_path, "float16")
    with store.writer("y", FeatureSpec("audio", "y", "none", LAYERS, DIM)) as writer:
        for key in KEYS:
            writer.append(key, store["x"].read_layers([key], LAYERS, "float32").values + 1)
    refs = [FeatureRef.parse(name) for name in names]
    memory = int(1.5 * store["x"].n_bytes())
    monkeypatch.setattr(snapshot, "available_bytes", lambda: memory)
    by_calls = list[Path]()
    monkeypatch.setattr(
        snapshot,
        "read_pieces",
        lambda pieces, drop: (by_calls.extend(piece.path for piece in pieces), read_pieces(pieces, drop=drop)),
    )
    orders = [KEYS[:20], KEYS[20:]]
    batches = [[packed.values.copy() for packed in batch] for batch in BatchLoader(store, refs, orders)]
    read = {path.relative_to(store.path).parts[0] for path in by_calls}
    assert read == (set() if len(names) == 1 else {ref.name for ref in refs})
    for keys, batch in zip(orders, batches, strict=True):
        for ref, values in zip(refs, batch, strict=True):
            expected = store[ref.name].read_layers(keys, ref.resolve(store[ref.name]), "float32").values
            np.testing.assert_array_equal(values, expected)


def test_rows_are_dropped_once_more_was_read_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = written(tmp_path, "float16")
    all_bytes = sum(opened(store).lengths(KEYS).tolist()) * DIM * 2
    monkeypatch.setattr(snapshot, "available_bytes", lambda: all_bytes // 4)
    features, dropped = opened(store), list[bool]()
    monkeypatch.setattr(
        snapshot, "read_pieces", lambda pieces, drop: (dropped.append(drop), read_pieces(pieces, drop=drop))
    )
    for _ in range(5):  # a few of a large set, again and again
        features.gather(KEYS[:10], LAYERS[0])
    assert not any(dropped)
    for key in KEYS:
        features.gather([key], LAYERS[0])
    features.gather(KEYS[:10], LAYERS[0])
    assert dropped[-1]
    features.refresh()
    features.gather(KEYS[:10], LAYERS[0])
    assert dropped[-1]


def flip(store: FeatureStore, keep: float) -> Path:
    """Alter a byte of a file of rows, or cut it to a share of its size; returns the file."""
    file = max((path for path in store.path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    size = file.stat().st_size
    if keep < 1:
        os.truncate(file, int(size * keep))
    else:
        with open(file, "r+b") as handle:
            handle.seek(100)
            byte = handle.read(1)
            handle.seek(100)
            handle.write(bytes([byte[0] ^ 1]))
    return file


def test_altered_rows_are_found_when_first_read(tmp_path: Path, small_memory: None) -> None:
    store = written(tmp_path, "float16")
    file = flip(store, 1)
    layer = next(layer for layer in LAYERS if layer in file.parts)
    with pytest.raises(StoreError, match="altered"):
        opened(store).gather(KEYS, layer)


def test_a_file_cut_while_in_use_is_an_error(tmp_path: Path, small_memory: None) -> None:
    store = written(tmp_path, "float16")
    features = opened(store)
    features.read_layers(KEYS, LAYERS, "float16")
    file = flip(store, 0.3)
    with pytest.raises(StoreError, match="truncated") as raised:
        features.read_layers(KEYS, LAYERS, "float16")
    assert str(file) in str(raised.value)


def test_a_compacted_set_is_read_on(tmp_path: Path, small_memory: None) -> None:
    store = written(tmp_path, "float16")
    features = opened(store)
    before = features.gather(KEYS).values.copy()
    compact(opened(store))
    np.testing.assert_array_equal(features.gather(KEYS).values, before)


def test_no_file_stays_open(tmp_path: Path, small_memory: None) -> None:
    features = opened(written(tmp_path, "int8"))
    features.gather(KEYS)
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        features.gather(KEYS)
    assert len(os.listdir("/dev/fd")) == before


def test_pieces_in_any_order_and_joined_fill_their_targets(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 9_000_000, np.uint8)
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(content.tobytes())
    bounds = [0, 1, 1, 5000, 3_000_000, 3_000_001, 7_000_000, 9_000_000]
    targets = {(file, i): np.empty(bounds[i + 1] - bounds[i], np.uint8) for i in range(7) for file in reversed(files)}
    read_pieces([Piece(file, bounds[i], target) for (file, i), target in targets.items()], drop=True)
    for (_, i), target in targets.items():
        np.testing.assert_array_equal(target, content[bounds[i] : bounds[i + 1]])
