"""What is written under a key is read back under it, whatever happens to the writer."""

import dataclasses
import functools
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.errors import SpecMismatch, StoreError
from featurestore.format import write_behind
from featurestore.format.segment_info import SMALL_ARRAYS, content_name
from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

SPEC = FeatureSpec("audio", "wavlm-large", "sha256:00", ("layer_06", "layer_12"), 4, 50.0)
ODD_KEYS = [
    "a/b/c",
    "../../etc/passwd",
    "..",
    "",
    " ",
    "two words",
    "話者/感情",
    "nul\x00",
    "\n",
    "ü" * 200,
    "zarr.json",
]


def utterances(n: int, spec: FeatureSpec = SPEC, seed: int = 0, prefix: str = "u") -> dict[str, np.ndarray]:
    """Keys and (L, T, D) rows; some of no rows at all."""
    rng = np.random.default_rng(seed)
    shape = len(spec.layers), spec.dim
    return {
        f"{prefix}{i}": rng.standard_normal((shape[0], int(rng.integers(0, 9)), shape[1])).astype(spec.dtype)
        for i in range(n)
    }


def fill(
    store: FeatureStore, name: str, data: dict[str, np.ndarray], spec: FeatureSpec = SPEC, **options: Any
) -> FeatureSet:
    with store.writer(name, spec, **options) as writer:
        for i, (key, rows) in enumerate(data.items()):
            writer.append(key, rows, duration_s=i / 4)
    return store[name]


@pytest.fixture(autouse=True)
def _format(store_format: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of this module runs over both formats: what a writer writes unless told."""
    monkeypatch.setattr(FeatureStore, "writer", functools.partialmethod(FeatureStore.writer, format=store_format))
    return store_format


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store")


def same(features: FeatureSet, data: dict[str, np.ndarray]) -> None:
    assert len(features) == len(data)
    assert set(features) == set(data)
    for key, rows in data.items():
        for layer, expected in zip(features.layers, rows, strict=True):
            assert features.array(key, layer).tobytes() == expected.tobytes()
            assert features.array(key, layer).shape == expected.shape


class TestRoundTrip:
    def test_odd_keys_are_ordinary(self, store: FeatureStore) -> None:
        data = dict(zip(ODD_KEYS, utterances(len(ODD_KEYS)).values(), strict=True))
        before = sorted(store.path.parent.iterdir())
        same(fill(store, "a", data), data)
        assert sorted(store.path.parent.iterdir()) == before
        assert store["a"].verify() == []

    @settings(max_examples=40)
    @given(data=st.data())
    def test_anything_finite_comes_back(self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        dtype = data.draw(st.sampled_from(["float16", "float32"]))
        n_layers, dim = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
        spec = dataclasses.replace(SPEC, dtype=dtype, dim=dim, layers=tuple(f"l{i}" for i in range(n_layers)))
        values = st.floats(allow_nan=False, allow_infinity=False, width=int(dtype[5:]))  # type: ignore[arg-type]
        rows = st.integers(0, 6).flatmap(lambda t: hnp.arrays(dtype, (n_layers, t, dim), elements=values))
        keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        rows_of = data.draw(st.dictionaries(keys, rows, max_size=8))
        store = FeatureStore.create(tmp_path_factory.mktemp("s") / "store")
        features = fill(store, "a", rows_of, spec, segment_bytes=data.draw(st.sampled_from([1, 200, 1 << 20])))
        same(features, rows_of)
        assert features.verify() == []
        chosen = data.draw(st.lists(st.sampled_from(sorted(rows_of)), max_size=12)) if rows_of else []
        for layer in range(n_layers):
            packed = features.gather(chosen, spec.layers[layer])
            expected = [rows_of[key][layer] for key in chosen]
            assert packed.values.tobytes() == b"".join(part.tobytes() for part in expected)
            assert packed.lengths.tolist() == [len(part) for part in expected] == features.lengths(chosen).tolist()

    def test_zarr_finds_sets_and_segments_by_itself(self, store: FeatureStore) -> None:
        data = utterances(20)
        features = fill(store, "posteriors/m1", data, segment_bytes=100, format="zarr")
        group = zarr.open_group(store.path, mode="r")["posteriors/m1"]
        assert group.attrs["spec"]["encoder"] == "wavlm-large"
        segments = dict(group.groups())
        assert sorted(segments) == [segment.name for segment in features.segments]
        assert sum(segment["layer_12"].shape[0] for segment in segments.values()) == features.lengths(list(data)).sum()

    def test_posteriors_are_features_of_one_row(self, store: FeatureStore) -> None:
        spec = FeatureSpec(
            "posteriors", "m1", "none", ("posteriors", "logits"), 3, dtype="float32", columns=("a", "b", "c")
        )
        rng = np.random.default_rng(0)
        data = {f"u{i}": rng.random((2, 1, 3), dtype=np.float32) for i in range(500)}
        features = fill(store, "posteriors/m1", data, spec, segment_bytes=2000)
        assert len(features.segments) > 3
        keys = list(data)
        rng.shuffle(keys)
        packed = features.gather(keys, "posteriors")
        assert np.array_equal(packed.values, np.stack([data[key][0, 0] for key in keys]))

    def test_rows_by_layer_name_and_durations(self, store: FeatureStore) -> None:
        low, high = np.zeros((3, 4), np.float32), np.ones((3, 4), np.float64)
        with store.writer("a", SPEC) as writer:
            writer.append("k", {"layer_12": high, "layer_06": low}, 1.5)
            writer.append("no duration", [low, high])
        features = store["a"]
        assert features["k"].dtype == np.float16
        assert np.array_equal(features["k"], high)
        assert np.array_equal(features.array("k", "layer_06"), low)
        assert features.durations_s(["no duration", "k"])[1] == 1.5
        assert np.isnan(features.durations_s(["no duration"])[0])

    def test_provenance_is_kept_from_the_first_writer(self, store: FeatureStore) -> None:
        store.writer("a", SPEC, provenance={"medusa": "1", "command": "x"}).commit()
        store.writer("a", SPEC, provenance={"medusa": "2"}).commit()
        assert store["a"].provenance == {"medusa": "1", "command": "x"}


class TestReading:
    def test_a_mapping_of_read_only_views(self, store: FeatureStore) -> None:
        data = utterances(10)
        features = fill(store, "a", data)
        key = next(key for key, rows in data.items() if rows.shape[1])
        rows = features[key]
        assert not rows.flags.writeable
        assert not rows.flags.owndata
        assert list(features) == list(data)
        assert dict(features.items()).keys() == data.keys()
        assert key in features
        assert "none" not in features
        assert 3 not in features
        assert features.get("none") is None

    def test_gather_into_a_reused_buffer(self, store: FeatureStore) -> None:
        data = utterances(30)
        features = fill(store, "a", data, segment_bytes=300)
        out = np.full((1000, 4), 7, dtype=np.float16)
        packed = features.gather(list(data), out=out)
        assert np.shares_memory(packed.values, out)
        assert (out[len(packed.values) :] == 7).all()
        for bad in (out[:3], out[:, :3], np.asfortranarray(out)):
            with pytest.raises(StoreError, match="buffer"):
                features.gather(list(data), out=bad)
        wide = features.gather(list(data), out=np.empty((1000, 4), np.float32))
        assert np.array_equal(wide.values, packed.values.astype(np.float32))
        for dtype in ("float64", "int8"):
            with pytest.raises(StoreError, match=f"float16 or float32, not as {dtype}"):
                features.gather(list(data), dtype=dtype)

    def test_large_and_small_utterances_gather_alike(self, store: FeatureStore) -> None:
        spec = dataclasses.replace(SPEC, dim=900, layers=("l",))
        rng = np.random.default_rng(0)
        data = {str(i): rng.standard_normal((1, n, 900)).astype(np.float16) for i, n in enumerate([1, 40, 0, 2, 50, 1])}
        features = fill(store, "a", data, spec, segment_bytes=60_000)
        assert len(features.segments) > 1
        for keys in (["1", "4", "0", "1"], ["0", "3", "2", "5", "0"], ["2"], []):
            expected = np.concatenate([data[key][0] for key in keys] or [np.empty((0, 900), np.float16)])
            assert np.array_equal(features.gather(keys).values, expected)

    def test_missing_keys_are_counted_and_named(self, store: FeatureStore) -> None:
        features = fill(store, "a", utterances(3))
        with pytest.raises(StoreError, match=r"7 of 8 keys.*'x0'.*'x4', \.\.\."):
            features.gather(["u1", *(f"x{i}" for i in range(7))])
        with pytest.raises(StoreError, match="lacks 1 of 1 keys: 'x'"):
            features["x"]
        with pytest.raises(StoreError, match=r"'layer_07'.*layer_06, layer_12"):
            features.array("u1", "layer_07")
        with pytest.raises(StoreError, match="single key"):
            features.gather("u1")

    def test_packed_utterances_by_index(self, store: FeatureStore) -> None:
        data = utterances(5)
        packed = fill(store, "a", data).gather(list(data))
        assert len(packed) == 5
        assert np.array_equal(packed[-1], data["u4"][1])
        with pytest.raises(IndexError):
            packed[5]
        padded, lengths = packed.pad()
        assert padded.shape == (5, lengths.max(), 4)
        assert padded.dtype == np.float32

    def test_refresh_sees_new_segments_and_keeps_views(self, store: FeatureStore) -> None:
        data = utterances(4)
        features = fill(store, "a", data)
        view = features["u1"]
        fill(store, "a", utterances(3, prefix="v"))
        assert "v1" not in features
        features.refresh()
        assert "v1" in features
        assert np.shares_memory(features["u1"], view)

    def test_the_smallest_segment_name_wins(self, store: FeatureStore) -> None:
        """Two writers that did not know of each other wrote the same keys: every reader decides alike."""
        first, second = store.writer("a", SPEC), store.writer("a", SPEC)
        for seed, writer in enumerate((first, second)):
            for key, rows in utterances(6, seed=seed).items():
                writer.append(key, rows)
        second.append("only", np.zeros((2, 1, 4)))
        first.commit()
        second.commit()
        features = store["a"]
        assert len(features.segments) == 2
        assert len(features) == 7
        assert sorted(features) == sorted(["only", *(f"u{i}" for i in range(6))])
        winner = int(features.segments[0].n_utterances == 7)  # whose segment has the smaller name
        for key, rows in utterances(6, seed=winner).items():
            assert np.array_equal(features[key], rows[1])
        (problem,) = features.verify()
        assert "'u0' and 5 more" in problem

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_other_processes_read_it(self, store: FeatureStore, method: str) -> None:
        data = utterances(20)
        features = fill(store, "a", data)
        features["u1"]
        with multiprocessing.get_context(method).Pool(2) as pool:
            result = pool.map(features.array, list(data))
        for rows, key in zip(result, data, strict=True):
            assert np.array_equal(rows, data[key][1])

    def test_pickles_by_path(self, store: FeatureStore) -> None:
        features = fill(store, "a", utterances(2000))
        assert len(pickle.dumps(features)) < 1000
        assert np.array_equal(pickle.loads(pickle.dumps(features))["u3"], features["u3"])
        assert pickle.loads(pickle.dumps(store)).names() == ["a"]

    def test_opening_reads_no_segment(self, store: FeatureStore) -> None:
        features = fill(store, "a", utterances(3))
        for segment in features.segments:
            (segment.path / "zarr.json" if segment.format == "zarr" else segment.path).write_text("{")
        lazy = FeatureStore.open(store.path)["a"]
        assert lazy.dim == 4
        with pytest.raises(StoreError, match=features.segments[0].name):
            len(lazy)

    def test_colliding_hashes_are_distinguished(self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("featurestore.format.segment_writer", "featurestore.sets.key_index"):
            monkeypatch.setattr(f"{module}.hash_keys", lambda keys: np.array([len(key) for key in keys], np.uint64))
        data = utterances(30)
        features = fill(store, "a", data, segment_bytes=500)
        assert len(features.segments) > 1
        same(features, data)
        assert "u99" not in features
        assert "u9999" not in features


class TestWriting:
    @pytest.mark.parametrize(
        ("value", "expected"), [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (7e4, "70000")]
    )
    def test_rows_that_float16_cannot_hold_are_refused(self, store: FeatureStore, value: float, expected: str) -> None:
        rows = np.zeros((2, 5, 4), np.float32)
        bad = rows.copy()
        bad[1, 3, 2] = value
        with store.writer("a", SPEC) as writer:
            writer.append("before", rows)
            with pytest.raises(
                StoreError, match=rf"'spoilt', layer 'layer_12', row 3 of 5.*{expected}.*--dtype .*float32"
            ):
                writer.append("spoilt", bad)
            writer.append("after", rows)
        assert list(store["a"]) == ["before", "after"]
        if np.isfinite(value):
            fill(store, "b", {"spoilt": bad}, dataclasses.replace(SPEC, dtype="float32"))
            assert store["b"]["spoilt"][3, 2] == value

    def test_the_largest_values_are_kept(self, store: FeatureStore) -> None:
        rows = np.array([[[65504.0, -65504.0, 6e-8, 65519.0]]] * 2)
        assert fill(store, "a", {"k": rows})["k"][0].tolist() == [65504.0, -65504.0, 5.960464477539063e-08, 65504.0]

    def test_a_key_is_written_once(self, store: FeatureStore) -> None:
        rows = np.zeros((2, 1, 4))
        with store.writer("a", SPEC) as writer:
            writer.append("k", rows)
            assert "k" in writer
            with pytest.raises(StoreError, match=r"'k' .*'a'.*already"):
                writer.append("k", rows)
            writer.commit()
            with pytest.raises(StoreError, match="already"):
                writer.append("k", rows)
        with store.writer("a", SPEC) as writer, pytest.raises(StoreError, match="already"):
            writer.append("k", rows)

    @pytest.mark.parametrize(
        "rows",
        [
            np.zeros((1, 3, 4)),
            np.zeros((2, 3, 5)),
            np.zeros((3, 4)),
            [np.zeros((3, 4)), np.zeros((2, 4))],
            {"layer_06": np.zeros((3, 4))},
            [],
        ],
    )
    def test_wrong_shapes_are_refused(self, store: FeatureStore, rows: object) -> None:
        with store.writer("a", SPEC) as writer, pytest.raises(StoreError, match=r"'k'.*expected"):
            writer.append("k", rows)  # type: ignore[arg-type]

    @pytest.mark.parametrize("key", ["\ud800", 3, b"bytes"])
    def test_keys_that_are_no_text_are_refused(self, store: FeatureStore, key: object) -> None:
        with store.writer("a", SPEC) as writer, pytest.raises(StoreError, match=r"[Kk]ey"):
            writer.append(key, np.zeros((2, 1, 4)))  # type: ignore[arg-type]

    def test_a_mismatch_names_each_field_and_the_remedy(self, store: FeatureStore) -> None:
        fill(store, "a", utterances(2))
        with pytest.raises(SpecMismatch) as caught:
            store.writer("a", dataclasses.replace(SPEC, dtype="float32", layers=("layer_12",)))
        message = str(caught.value)
        assert "dtype: stored float16, asked float32" in message
        assert "layers: stored layer_06,layer_12, asked layer_12" in message
        assert "medusa store rm a" in message

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_an_exception_keeps_what_was_appended(self, store: FeatureStore, error: type[BaseException]) -> None:
        data = utterances(3)
        with pytest.raises(error), store.writer("a", SPEC) as writer:  # noqa: PT012
            for key, rows in data.items():
                writer.append(key, rows)
            raise error
        same(store["a"], data)

    def test_nothing_appended_is_no_segment(self, store: FeatureStore) -> None:
        with store.writer("a", SPEC):
            pass
        assert len(store["a"]) == 0
        assert [path.name for path in (store.path / "a").iterdir()] == ["zarr.json"]

    def test_memory_does_not_grow_with_the_rows(self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        import tracemalloc

        monkeypatch.setattr(write_behind, "STAGED_BYTES", 1 << 20)  # 64 MB else, of every segment
        spec = dataclasses.replace(SPEC, layers=("l",), dim=1000)
        rows = np.zeros((1, 500, 1000), np.float16)
        tracemalloc.start()
        with store.writer("a", spec, segment_bytes=1 << 40) as writer:
            for i in range(40):
                writer.append(str(i), rows)
            peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * rows.nbytes < 40 * rows.nbytes / 2

    def test_uncommitted_work_is_invisible(self, store: FeatureStore) -> None:
        writer = store.writer("a", SPEC)
        for key, rows in utterances(5).items():
            writer.append(key, rows)
        assert len(store["a"]) == 0
        assert store["a"].verify() == []
        assert store.names() == ["a"]
        writer.commit()
        assert len(store["a"]) == 5


class TestStores:
    def test_create_open_names_remove(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "store"
        store = FeatureStore.open_or_create(path)
        assert store.names() == []
        for name in ("b", "posteriors/m1", "posteriors/m2"):
            fill(store, name, utterances(2))
        assert FeatureStore.open(path).names() == ["b", "posteriors/m1", "posteriors/m2"]
        assert "b" in store
        assert "posteriors" not in store
        assert "../x" not in store
        views = store["b"]["u1"]
        before = views.copy()
        store.remove("b")
        assert np.array_equal(views, before)
        assert FeatureStore.open_or_create(path).names() == ["posteriors/m1", "posteriors/m2"]
        with pytest.raises(StoreError, match="no feature set 'b'"):
            store.remove("b")
        with pytest.raises(StoreError, match="2 entries"):
            FeatureStore.create(path)

    def test_what_is_no_store_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="nothing was found"):
            FeatureStore.open(tmp_path / "none")
        with pytest.raises(StoreError, match="empty directory"):
            FeatureStore.open(tmp_path)
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(StoreError, match=r"1 entries \(notes.txt\)"):
            FeatureStore.open(tmp_path)
        with pytest.raises(StoreError, match="a file was found"):
            FeatureStore.open(tmp_path / "notes.txt")
        with pytest.raises(StoreError, match="not a feature store"):
            FeatureStore.open_or_create(tmp_path)
        zarr.open_group(tmp_path / "other.zarr", mode="w")
        with pytest.raises(StoreError, match="another kind"):
            FeatureStore.open(tmp_path / "other.zarr")
        newer = tmp_path / "newer"
        FeatureStore.create(newer)
        (newer / "zarr.json").write_text(
            (newer / "zarr.json").read_text().replace('"medusa_store": 1', '"medusa_store": 9')
        )
        with pytest.raises(StoreError, match="version 9"):
            FeatureStore.open(newer)

    def test_places_that_cannot_be_written_are_named(self, store: FeatureStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match="file/store can't be created"):
            FeatureStore.create(tmp_path / "file" / "store")
        (store.path / "a").write_text("x")
        with pytest.raises(StoreError, match="a can't be created"):
            store.writer("a", SPEC)
        writer = store.writer("b", SPEC)
        (store.path / "b").rename(store.path / "c")
        with pytest.raises(StoreError, match=r"b/\.tmp-.*can't be written"):
            writer.append("k", np.zeros((2, 1, 4)))

    def test_near_names_are_offered(self, store: FeatureStore) -> None:
        with pytest.raises(StoreError, match="empty"):
            store["wavlm-large"]
        fill(store, "wavlm-large", utterances(1))
        fill(store, "logmel", utterances(1))
        with pytest.raises(StoreError, match="did you mean wavlm-large"):
            store["wavlm_large"]
        with pytest.raises(StoreError, match="it has logmel, wavlm-large"):
            store["zzz"]

    def test_a_set_never_lies_inside_another(self, store: FeatureStore) -> None:
        fill(store, "a/b", utterances(1))
        for name in ("a", "a/b/c"):
            with pytest.raises(StoreError, match="beside 'a/b'"):
                store.writer(name, SPEC)

    def test_damaged_set_metadata_is_named(self, store: FeatureStore) -> None:
        fill(store, "a", utterances(1))
        path = store.path / "a" / "zarr.json"
        good = path.read_text()
        path.write_text(good.replace("wavlm-large", "wavlm-lerge"))
        with pytest.raises(StoreError, match="damaged"):
            store["a"]
        for text in (
            "",
            "[]",
            "null",
            good[:-20],
            json.dumps({"zarr_format": 3, "node_type": "group", "attributes": 3}),
        ):
            path.write_text(text)
            with pytest.raises(StoreError, match=r"a/zarr\.json"):
                store["a"]

    def test_verify_names_damaged_segments_and_foreign_files(self, store: FeatureStore) -> None:
        features = fill(store, "a", utterances(30), segment_bytes=300, format="zarr")
        first, second, *_ = (segment.path for segment in features.segments)
        shard = first / "layer_12/c/0/0"
        data = bytearray(shard.read_bytes())
        data[5] ^= 4
        shard.write_bytes(data)
        (second / "keys/c/0").unlink()
        (store.path / "a" / "notes").write_text("x")
        problems = store["a"].verify()
        assert len(problems) == 3
        assert any(first.name in problem and "layer_12" in problem for problem in problems)
        assert any(f"{second.name}/keys/c/0" in problem and "no file" in problem for problem in problems)
        assert any("notes" in problem for problem in problems)

    def test_offsets_that_lead_astray_are_refused_on_open(self, store: FeatureStore) -> None:
        """Also where the segment's name says that they are meant."""
        features = fill(store, "a", utterances(5), format="zarr")
        segment = features.segments[0]
        small = {name: segment.small(name) for name in SMALL_ARRAYS}
        small["offsets"] = small["offsets"].copy()
        small["offsets"][2] = 1 << 40
        small["offsets"].tofile(segment.path / "offsets/c/0")
        with pytest.raises(StoreError, match="were altered"):
            store["a"]["u1"]
        segment.path.rename(segment.path.with_name(content_name(features.spec.fingerprint, small)))
        with pytest.raises(StoreError, match="offsets must rise"):
            store["a"]["u1"]


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[3]
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def test_importing_loads_nothing_heavy() -> None:
    code = """
        import sys
        import featurestore
        from featurestore import FeatureSpec, FeatureStore
        heavy = {"torch", "transformers", "whisper", "zarr", "h5py", "numba", "pyarrow", "scipy"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment(), check=True)


def test_every_public_name_loads() -> None:
    import featurestore

    for name in featurestore.__all__:
        assert getattr(featurestore, name).__module__.startswith("featurestore.")
        assert name in dir(featurestore)
    with pytest.raises(AttributeError, match="nothing"):
        featurestore.nothing  # noqa: B018


def test_damaged_segments_go_and_can_be_written_again(store: FeatureStore) -> None:
    data = utterances(30)
    features = fill(store, "a", data, segment_bytes=300)
    segments = features.segments
    assert store.remove_damaged("a") == []
    victim = next(segment for segment in segments if segment.n_rows)
    file = victim.path if victim.path.is_file() else victim.path / "layer_12/c/0/0"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert store.remove_damaged("a") == [victim.name]
    repaired = store["a"]
    missing = {key: rows for key, rows in data.items() if key not in repaired}
    assert len(missing) == victim.n_utterances
    fill(store, "a", missing)
    same(store["a"], data)
    assert store["a"].verify() == []


def test_a_set_whose_own_metadata_is_damaged_can_be_removed(store: FeatureStore) -> None:
    fill(store, "a", utterances(3))
    (store.path / "a" / "zarr.json").write_text("{")
    store.remove("a")
    assert list(store) == []
    assert len(store) == 0
    with pytest.raises(StoreError, match="no feature set"):
        store.remove("a")
