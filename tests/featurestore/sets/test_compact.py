"""Compaction changes where rows lie and nothing else, whoever reads and writes meanwhile."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format.identity import Identity
from featurestore.format.segment_writer import SegmentWriter
from featurestore.format.spec import FeatureSpec
from featurestore.sets.compact import compact, drop
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 5, dtype="int8")


def fill(store: FeatureStore, spec: FeatureSpec, n: int, seed: int = 0, **options: str) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    for first in range(0, n, 3):
        with store.writer("a", spec, **options) as writer:  # type: ignore[arg-type]
            for i in range(first, min(first + 3, n)):
                writer.append(f"{seed}-{i}", rng.normal(size=(2, int(rng.integers(0, 6)), 5)), duration_s=i / 2)
    return contents(store["a"])


def contents(features: FeatureSet) -> dict[str, bytes]:
    return {
        key: b"".join(features.stored(key, layer).tobytes() for layer in features.layers)
        + features.durations_s([key]).tobytes()
        for key in features
    }


@pytest.mark.parametrize(("format", "compress"), [("zarr", ""), ("hdf5", ""), ("zarr", "blosc")])
def test_many_small_segments_become_one(tmp_path: Path, format: str, compress: str) -> None:
    store = FeatureStore.create(tmp_path / "s")
    rows_of = fill(store, SPEC, 20, format=format, compress=compress)
    reader = store["a"]
    before = reader.array("0-4").copy()
    view = reader.stored("0-4")
    assert len(reader.segments) == 7
    calls: list[tuple[int, int]] = []
    report = store.compact("a", progress=lambda done, total: calls.append((done, total)))
    assert (report.n_before, report.n_after, report.n_copied, report.n_dropped) == (7, 1, 20, 0)
    assert calls[-1] == (20, 20)
    assert contents(store["a"]) == rows_of
    assert store["a"].verify() == []
    assert sorted(path.name for path in (store.path / "a").iterdir()) == sorted(
        ["zarr.json", store["a"].segments[0].name]
    )
    # A reader from before goes on with what it mapped, and finds what it had not opened yet.
    assert view.shape == (len(before), 5)
    assert np.array_equal(reader.array("0-4"), before)
    assert contents(reader) == rows_of
    assert store.compact("a").n_copied == 0


def test_segment_size_is_kept_and_large_ones_stay(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    rows_of = fill(store, SPEC, 30)
    store.compact("a", segment_bytes=300)
    features = store["a"]
    assert 1 < len(features.segments) < 10
    assert contents(features) == rows_of
    names = {segment.name for segment in features.segments if segment.n_rows * 18 >= 150}
    store.compact("a", segment_bytes=300)
    assert names <= {segment.name for segment in store["a"].segments}


def test_a_set_can_change_its_format(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    rows_of = fill(store, SPEC, 9)
    store.compact("a", segment_bytes=1, format="hdf5", compress="gzip")
    assert {(segment.format, segment.info.compress) for segment in store["a"].segments} == {("hdf5", "gzip")}
    assert contents(store["a"]) == rows_of


def test_copies_that_do_not_count_are_dropped(tmp_path: Path) -> None:
    """Two writers wrote the same key with different rows: what a reader finds stays what it was."""
    store = FeatureStore.create(tmp_path / "s")
    spec = FeatureSpec("audio", "e", "none", ("l",), 2)
    for value in range(6):
        path = store.writer("a", spec).set.path
        segment = SegmentWriter(path, spec)
        segment.append(b"both", [np.full((300, 2), value, np.float16)], 1.0)
        segment.append(f"own{value}".encode(), [np.full((1, 2), value, np.float16)], 1.0)
        segment.commit()
    winner = float(store["a"]["both"][0, 0])
    assert len(store["a"]) == 7
    report = store.compact("a", segment_bytes=1500)  # every segment is large, and all hold a copy
    assert report.n_dropped == 5
    assert float(store["a"]["both"][0, 0]) == winner
    assert sorted(store["a"]) == ["both", *(f"own{value}" for value in range(6))]
    assert store["a"].verify() == []


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_it_writes_what_appending_one_by_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Whatever the blocks: the same segments, with identities and without, but for utterances that are dropped."""
    spec = dataclasses.replace(SPEC, dtype=dtype)
    rng = np.random.default_rng(0)
    identities = [
        None if i % 3 == 0 else Identity(bytes([i]) * 16, n_bytes=i, start_s=i / 2, decoder=f"decoder {7 - i % 5}")
        for i in range(40)
    ]
    stores = [FeatureStore.create(tmp_path / name) for name in ("merged", "appended", "dropped")]
    rows = [rng.normal(size=(2, int(rng.integers(0, 6)), 5)) for _ in identities]
    with stores[0].writer("a", spec) as writer:
        for i, identity in enumerate(identities):
            writer.append(f"ü{i}", rows[i], i / 4, identity if i < 20 else None)
            if i % 7 == 0:
                writer.commit()
    features = stores[0]["a"]
    for store, left_out in ((stores[1], set()), (stores[2], {"ü3", "ü4", "ü39"})):
        with store.writer("a", spec, segment_bytes=1500) as writer:
            for key in features:
                i = int(key[1:])
                if key not in left_out:
                    writer.append(key, rows[i], i / 4, identities[i] if i < 20 else None)
    monkeypatch.setattr("featurestore.format.segment.BLOCK_BYTES", 100)
    assert len(features.segments) == 7
    compact(features, segment_bytes=1500, format="zarr", compress="")
    assert [segment.name for segment in features.segments] == [segment.name for segment in stores[1]["a"].segments]
    monkeypatch.setattr("featurestore.sets.compact.SEGMENT_BYTES", 1500)
    assert drop(features, ["ü3", "ü4", "ü39", "none"]) == 3
    assert sorted(features) == sorted(stores[2]["a"])
    assert contents(features) == contents(stores[2]["a"])
    keys = list(features)
    assert [repr(one) for one in each_identity(features, keys)] == [
        repr(one) for one in each_identity(stores[2]["a"], keys)
    ]
    assert features.verify() == []


def each_identity(features: FeatureSet, keys: list[str]) -> list[Identity]:
    identities = features.identities(keys)
    return [identities[i] for i in range(len(keys))]


def test_copies_are_told_from_other_keys_of_the_same_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("featurestore.format.segment_writer", "featurestore.sets.key_index"):
        monkeypatch.setattr(f"{module}.hash_keys", lambda keys: np.array([len(key) for key in keys], np.uint64))
    store = FeatureStore.create(tmp_path / "s")
    spec = FeatureSpec("audio", "e", "none", ("l",), 2)
    for value in range(4):
        path = store.writer("a", spec).set.path
        segment = SegmentWriter(path, spec)
        for i in range(value, 9, value + 1):
            segment.append(f"{i}".encode(), [np.full((1, 2), value, np.float16)], 1.0)
        segment.commit()
    features = store["a"]
    keys_of = [{f"{i}" for i in range(value, 9, value + 1)} for value in range(4)]
    counting = {key: float(features[key][0, 0]) for key in features}
    assert sorted(counting) == [f"{i}" for i in range(9)]
    assert len(features.index.shadowed) == sum(map(len, keys_of)) - 9
    assert all(key in keys_of[int(value)] for key, value in counting.items())
    report = store.compact("a")
    assert (report.n_copied, report.n_dropped) == (9, sum(map(len, keys_of)) - 9)
    assert {key: float(rows[0, 0]) for key, rows in store["a"].items()} == counting


def test_damaged_rows_stop_it_and_nothing_is_lost(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    fill(store, SPEC, 9)
    segments = store["a"].segments
    shard = next(s for s in segments if s.n_rows).path / "l1/c/0/0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="nothing was removed"):
        store.compact("a")
    assert [segment.name for segment in store["a"].segments] == [segment.name for segment in segments]


@pytest.mark.slow
def test_readers_and_a_writer_meanwhile(quick_path: Path) -> None:
    store = FeatureStore.create(quick_path / "s")
    rows_of = fill(store, SPEC, 60)
    keys = list(rows_of)
    wrong: list[str] = []
    finished = threading.Event()

    def read() -> None:
        rng = np.random.default_rng(threading.get_ident() % 2**32)
        try:
            while not finished.is_set():
                features = store["a"]
                for key in rng.choice(keys, 8).tolist():
                    result = b"".join(features.stored(key, layer).tobytes() for layer in features.layers)
                    if not rows_of[key].startswith(result) or len(rows_of[key]) - len(result) != 8:
                        wrong.append(key)
        except BaseException as error:
            wrong.append(repr(error))

    def write() -> None:
        try:
            for seed in range(1, 6):
                fill(store, SPEC, 6, seed=seed)
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=read) for _ in range(3)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for size in (100, 200, 400, 800, 1 << 20):
        compact(store["a"], segment_bytes=size)
    threads[-1].join()
    finished.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(store["a"]) == 90
    assert store["a"].verify() == []


def test_the_digest_of_rows_follows_their_values_and_not_where_they_lie(tmp_path: Path) -> None:
    store, spec = FeatureStore.create(tmp_path / "s"), dataclasses.replace(SPEC, dtype="float32")
    fill(store, spec, 20)
    keys = [f"0-{i}" for i in range(20)]
    before = store["a"].rows_digest(keys)
    of_one, of_other = (store["a"].rows_digest(keys, [layer]) for layer in SPEC.layers)
    assert len({before, of_one, of_other, store["a"].rows_digest(keys[::-1]), store["a"].rows_digest(keys[:-1])}) == 5
    store.compact("a")
    assert store["a"].rows_digest(keys) == before
    rows = [store["a"].array("0-7", layer).copy() for layer in SPEC.layers]
    drop(store["a"], ["0-7"])
    with pytest.raises(StoreError, match="'0-7'"):
        store["a"].rows_digest(keys)
    with store.writer("a", spec) as writer:
        writer.append("0-7", [rows[0], rows[1] + 1])
    assert store["a"].rows_digest(keys) != before
    assert store["a"].rows_digest(keys, ["l1"]) != of_other
    assert store["a"].rows_digest(keys, ["l0"]) == of_one
