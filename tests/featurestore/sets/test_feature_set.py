"""One feature set: which of many keys it lacks, keys looked up once, and several layers read at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format.rowfile import MappedRows
from featurestore.format.segment import Segment
from featurestore.format.spec import FeatureSpec
from featurestore.rows.kernels import pool_rows
from featurestore.sets import snapshot
from featurestore.sets.key_index import REMEMBERED
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_store import NAME, SPEC, STORAGES, key, rows, write


def test_missing_names_each_key_that_is_lacking_in_the_order_requested(tmp_path: Path) -> None:
    spec: FeatureSpec = SPEC
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("a", spec) as writer:
        for key in ("b", "a", "ü"):
            writer.append(key, np.zeros((len(spec.layers), 2, spec.dim), np.float32))
    assert store["a"].missing(["z", "a", "y", "ü", "z"]) == ["z", "y", "z"]
    assert store["a"].missing(key for key in ("a", "b")) == []
    assert store["a"].missing([]) == []


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Two segments of ten utterances each."""
    for part in (range(10), range(10, 20)):
        write(tmp_path / "s", ("zarr", ""), part, 1 << 20)
    return FeatureStore.open(tmp_path / "s")


def test_a_selection_reads_its_keys_by_place(store: FeatureStore) -> None:
    features = store[NAME]
    keys = [key(i) for i in (3, 19, 7, 12)]
    selection = features.select(keys)
    for places in ([2, 0], [1], [], [3, 3]):
        chosen = selection.of(places)
        assert list(chosen) == [keys[i] for i in places]
        by_key, by_place = features.gather(list(chosen)), features.gather(chosen)
        np.testing.assert_array_equal(by_place.values, by_key.values)
        np.testing.assert_array_equal(by_place.offsets, by_key.offsets)
        assert features.lengths(chosen).tolist() == features.lengths(list(chosen)).tolist()
    assert features.select(keys) is selection


def test_a_selection_names_what_is_missing(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        store[NAME].select([key(1), "nowhere"])


def test_a_selection_outlives_the_segments_that_it_was_made_from(store: FeatureStore) -> None:
    """A compaction moves every row; the next reading finds them where they are now."""
    features = store[NAME]
    selection = features.select([key(i) for i in range(20)])
    before = features.gather(selection.of([18, 3])).values.copy()
    store.compact(NAME)
    features.refresh()
    assert len(features.segments) == 1
    np.testing.assert_array_equal(features.gather(selection.of([18, 3])).values, before)
    store.remove(NAME)
    write(store.path, ("zarr", ""), range(5), 1 << 20)
    features.refresh()
    with pytest.raises(StoreError, match="lacks 15 of 20 keys"):
        features.gather(selection.of([1]))


@pytest.mark.parametrize("storage", STORAGES, ids="-".join)
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("stride", [1, 3])
def test_layers_read_at_once_are_those_read_alone(
    tmp_path: Path, storage: tuple[str, str], dtype: str, stride: int
) -> None:
    """The first reading, which compares checksums, and the second, in any order of layers and keys."""
    spec = replace(SPEC, dtype=dtype)
    write(tmp_path / "s", storage, range(9), 1 << 20, spec)
    keys = [key(i) for i in (8, 0, 3, 3, 6)]
    for layers in (("l1", "l0"), ("l0",)):
        features = FeatureStore.open(tmp_path / "s")[NAME]
        for out in ("float32", "float16"):
            expected = [
                np.concatenate([pool_rows(part.astype(np.float32), stride) for part in features.arrays(keys, layer)])
                for layer in layers
            ]
            for _ in range(2):
                packed = features.read_layers(keys, layers, out, stride=stride)
                assert packed.values.dtype == out
                for actual, expected_rows in zip(packed.values, expected, strict=True):
                    np.testing.assert_allclose(
                        actual, expected_rows, rtol=2e-3, atol=2e-3
                    )  # int8 rows are rounded to float16


def test_altered_rows_are_found_when_several_layers_are_read(store: FeatureStore) -> None:
    segment = store[NAME].segments[0].path
    with open(segment / "l0" / "c" / "0" / "0", "r+b") as file:
        file.seek(40)
        file.write(b"\xff\x7b")
    features = FeatureStore.open(store.path)[NAME]
    keys = list(features)[:10]
    for layers in (("l1", "l0"), ("l0",)):
        with pytest.raises(StoreError, match="were altered"):
            features.read_layers(keys, layers, "float32")
    assert features.read_layers(keys, ("l1",), "float32").values.shape[0] == 1


def test_utterances_that_lie_beside_each_other_are_announced_at_once(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, announced = store[NAME], []
    monkeypatch.setattr(MappedRows, "announce", lambda self, runs: announced.append(list(runs)))
    keys = [name for segment in (range(10), range(10, 20)) for name in map(key, segment)]
    starts = np.concatenate([[0], np.cumsum(features.lengths(keys[:10]))]).tolist()
    features.announce(keys)
    assert announced == [[(0, starts[10])], [(0, int(features.lengths(keys[10:]).sum()))]]
    announced.clear()
    features.announce([keys[i] for i in (3, 4, 7, 2)])
    assert announced == [
        [(starts[3], starts[5] - starts[3]), (starts[7], starts[8] - starts[7]), (starts[2], starts[3] - starts[2])]
    ]


def test_a_store_that_keeps_its_sets_gives_the_same_one_again(store: FeatureStore) -> None:
    keeping = store.keeping_sets()
    assert keeping[NAME] is keeping[NAME]
    assert keeping.keeping_sets()[NAME] is keeping[NAME]
    assert store[NAME] is not store[NAME]
    with pytest.raises(StoreError, match="no feature set"):
        keeping["another"]


def test_a_refresh_reads_new_segments_alone_and_finds_what_opening_anew_finds(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = store[NAME]
    features.gather([key(i) for i in range(20)])
    loaded: list[str] = []
    load_index = Segment.load_index
    monkeypatch.setattr(Segment, "load_index", lambda self: (loaded.append(self.name), load_index(self))[1])
    for part in (range(20, 25), range(30, 34)):
        before = {segment.name for segment in features.segments}
        write(store.path, ("zarr", ""), part, 1 << 20)
        loaded.clear()
        features.refresh()
        assert set(loaded) == {segment.name for segment in features.segments} - before
        anew = FeatureStore.open(store.path)[NAME]
        assert list(features) == list(anew)
        keys = list(anew)
        assert features.index.positions(keys).tolist() == anew.index.positions(keys).tolist()
        np.testing.assert_array_equal(features.gather(keys).values, anew.gather(keys).values)
    checksums: list[object] = []
    monkeypatch.setattr(snapshot, "row_checksum", lambda *rows: checksums.append(rows))
    features.gather([key(i) for i in range(20)])
    assert not checksums  # compared before the refresh


def test_a_writer_sees_its_own_segments_and_leaves_others_to_a_refresh(store: FeatureStore) -> None:
    with store.writer(NAME, SPEC) as writer:
        assert key(50) not in writer
        write(store.path, ("zarr", ""), [60], 1 << 20)
        writer.append(key(50), rows(50))
        writer.commit()
        assert key(50) in writer
        assert key(60) not in writer
        writer.set.refresh()
        assert key(60) in writer


def test_layers_are_read_into_a_part_of_a_larger_array(store: FeatureStore) -> None:
    features, keys = store[NAME], [key(i) for i in (3, 8)]
    n_rows = int(features.lengths(keys).sum())
    for _ in range(2):  # compared with checksums, and not
        buffer = np.zeros((2, n_rows + 5, features.dim), np.float32)

        def memory(shape: tuple[int, ...], dtype: str, buffer: np.ndarray = buffer) -> np.ndarray:
            return np.empty(shape, dtype) if len(shape) == 1 else buffer[:, 3 : 3 + n_rows]

        features.read_layers(keys, ("l0", "l1"), "float32", memory=memory)
        assert not buffer[:, :3].any()
        assert not buffer[:, 3 + n_rows :].any()
        for layer, rows_of_layer in zip(("l0", "l1"), buffer, strict=True):
            np.testing.assert_array_equal(rows_of_layer[3 : 3 + n_rows], features.gather(keys, layer).values)


def test_a_long_question_that_is_asked_again_has_the_same_answer_as_new_ones(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    spec = FeatureSpec("audio", "x", "none", ("layer_00",), 2)
    with store.writer("x", spec) as writer:
        for i in range(REMEMBERED):
            writer.append(f"k{i}", np.zeros((1, 1, 2), np.float16))
    features = store["x"]
    requested = [*(f"k{i}" for i in range(REMEMBERED)), "absent"]
    assert features.missing(requested) == features.missing(requested) == ["absent"]
    assert features.missing(requested[::-1]) == ["absent"]
    with store.writer("x", spec) as writer:
        writer.append("absent", np.zeros((1, 1, 2), np.float16))
    features.refresh()
    assert features.missing(requested) == []
