"""What goes out of a store in another format comes back bit for bit; what others wrote is taken, or a reason told."""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.errors import ConfigError, SpecMismatch, StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.interchange import EXPORTED
from featurestore.interchange.base import Written
from featurestore.interchange.description import Description
from featurestore.interchange.exporting import export_features
from featurestore.interchange.importing import ImportReport, import_features, parse_layers
from featurestore.interchange.names import escape, key_line, key_path, path_key, unescape
from featurestore.runtime.stopping import Interrupted
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa

SPEC = FeatureSpec("audio", "wavlm-large", "sha256:00", ("layer_06", "layer_12"), 3, 50.0, "float32")
ODD_KEYS = [
    *("", " ", ".", "..", "../../etc/passwd", "/root", "a", "a/b", "a//b", "a.npy/b", ".hidden", "~", "-rf", "a b\tc"),
    *(
        "%",
        "%41",
        "50%",
        "%2F",
        "a%",
        "back\\slash",
        "C:x",
        "nul\x00",
        "line\nend",
        "\r",
        "\x85",
        "話者/感情",
        "e\u0301",
    ),
    *("zarr.json", "medusa_layers", "__metadata__", "layer_06", "x/layer_12", "features", "ü" * 20),
]
EXACT_DTYPES = ["float16", "float32"]


def rows_of(*lengths: int, dim: int = 3, seed: int = 0, dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, dim)).astype(dtype) for n in lengths]


def filled(store: FeatureStore, name: str, data: Mapping[str, np.ndarray], spec: FeatureSpec = SPEC) -> FeatureSet:
    """Return a feature set of (L, T, D) by key."""
    with store.writer(name, spec) as writer:
        for key, rows in data.items():
            writer.append(key, rows)
    return store[name]


def same(features: FeatureSet, data: Mapping[str, np.ndarray], layers: Sequence[str]) -> None:
    assert sorted(features) == sorted(data)
    for key, stacked in data.items():
        for layer, expected in zip(layers, stacked, strict=True):
            rows = features.array(key, layer)
            assert rows.shape == expected.shape, key
            assert rows.dtype == expected.dtype
            assert rows.tobytes() == np.ascontiguousarray(expected).tobytes(), key


def where_layers_lie(format_name: str, layers: Sequence[str]) -> dict[str, str]:
    """Return what an import must be told to find again what an export wrote."""
    by_file = format_name in ("npy", "emotion2vec") and len(layers) > 1
    return {layer: layer if by_file else "" for layer in layers}


def taken(
    store: FeatureStore,
    path: Path,
    format_name: str = "npy",
    name: str = "in",
    dtype: str | None = None,
    **options: object,
) -> ImportReport:
    described = Description("wavlm-large", frame_rate_hz=50, dtype=dtype)
    return import_features(store, name, format_name, path, described, **options)  # type: ignore[arg-type]


def saved(directory: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Return a directory of .npy files."""
    for name, array in arrays.items():
        path = directory / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return directory


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store")


def assert_a_round_trip_is_bit_exact(format_name: str, data: st.DataObject | None, directory: Path) -> None:
    if data is None:
        dtype, n_layers, dim = "float32", 2, 3
        written = {key: np.stack(rows_of(len(key) % 4, len(key) % 4, seed=i)) for i, key in enumerate(ODD_KEYS)}
    else:
        dtype = data.draw(st.sampled_from(EXACT_DTYPES))
        n_layers, dim = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
        values = st.floats(allow_nan=False, allow_infinity=False, width=int(dtype[5:]))  # type: ignore[arg-type]
        rows = st.integers(0, 4).flatmap(lambda t: hnp.arrays(dtype, (n_layers, t, dim), elements=values))
        keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text("a./%\\ ~", max_size=5)
        written = data.draw(st.dictionaries(keys, rows, min_size=1, max_size=6))
    layers = tuple(f"layer_{i:02d}" for i in range(n_layers))
    spec = dataclasses.replace(SPEC, dtype=dtype, dim=dim, layers=layers)
    store = FeatureStore.create(directory / "store")
    features = filled(store, "out", written, spec)
    target = directory / "export" / "target"
    report = export_features(features, format_name, target)
    assert (report.done, report.failed) == (len(written), [])
    content = where_layers_lie(format_name, layers)
    imported = taken(store, target, format_name, layers=content)
    assert (imported.done, imported.failed) == (len(written), [])
    same(store["in"], written, layers)
    assert sorted(entry.name for entry in directory.iterdir()) == ["export", "store"]
    assert not [path for path in target.parent.rglob("*") if path.name.startswith(".tmp-")]


@pytest.mark.parametrize("names", [("feats",), ("layer_06", "layer_12")])
def test_ids_that_end_as_layers_do_come_with_a_note(
    store: FeatureStore, tmp_path: Path, names: tuple[str, ...]
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for key in ("s/a", "s/b", "s/c"):
            for name in names:
                file[f"{key}/{name}"] = rows_of(2)[0]
    (note,) = [note for note in taken(store, tmp_path / "f.h5", "hdf5").notes if "layers" in note]
    assert " ".join(f"--layer {name}" for name in names) in note
    layers = dict.fromkeys(names, "")
    assert not any("--layer" in n for n in taken(store, tmp_path / "f.h5", "hdf5", name="b", layers=layers).notes)
    assert list(store["b"]) == ["s/a", "s/b", "s/c"]


@pytest.mark.parametrize("format_name", EXPORTED)
class TestEveryFormat:
    @settings(max_examples=8)
    @given(data=st.data())
    @example(data=None)
    def test_a_round_trip_is_bit_exact(
        self, format_name: str, data: st.DataObject | None, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Of any keys, ragged lengths with empty ones, one layer or more."""
        assert_a_round_trip_is_bit_exact(format_name, data, tmp_path_factory.mktemp("s"))

    @pytest.mark.slow
    @settings(max_examples=30)
    @given(data=st.data())
    def test_more_round_trips_are_bit_exact(
        self, format_name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        assert_a_round_trip_is_bit_exact(format_name, data, tmp_path_factory.mktemp("s"))

    @pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
    def test_an_import_of_an_export_has_its_dtype_and_another_fingerprint(
        self, format_name: str, dtype: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        spec = dataclasses.replace(SPEC, dtype=dtype, layers=("layer_12",))
        features = filled(store, "out", {"a": np.stack(rows_of(4)), "b": np.stack(rows_of(2, seed=1))}, spec)
        notes = export_features(features, format_name, tmp_path / "e" / "x").notes
        assert bool(notes) == (dtype == "bfloat16" and format_name != "safetensors")
        values = {} if format_name == "safetensors" else {"layer_12": ""}
        native = dtype if format_name == "safetensors" or dtype != "bfloat16" else None
        taken(store, tmp_path / "e" / "x", format_name, layers=values, dtype=None if native else dtype)
        result = store["in"]
        assert result.spec.dtype == dtype
        assert result.layers == ("layer_12",)
        assert result.spec.weights == "imported"
        assert result.spec.fingerprint != features.spec.fingerprint
        assert result.provenance["imported_from"] == format_name
        for key in "ab":
            assert result[key].tobytes() == features[key].tobytes()

    def test_int8_goes_out_as_it_is_read(self, format_name: str, store: FeatureStore, tmp_path: Path) -> None:
        spec = dataclasses.replace(SPEC, dtype="int8", layers=("features",))
        features = filled(store, "out", {"a": np.stack(rows_of(4))}, spec)
        assert "int8" in export_features(features, format_name, tmp_path / "e" / "x").notes[0]
        taken(store, tmp_path / "e" / "x", format_name)
        assert store["in"].spec.dtype == "float16"
        assert store["in"]["a"].tobytes() == features["a"].tobytes()

    def test_some_keys_and_one_layer_in_the_order_requested(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        data = {key: np.stack(rows_of(n, n, seed=n)) for n, key in enumerate("abcd")}
        features = filled(store, "out", data)
        target = tmp_path / "e" / "x"
        export_features(features, format_name, target, keys=["d", "b"], layers=["layer_06"])
        taken(store, target, format_name, layers={"layer_06": ""})
        same(store["in"], {key: data[key][:1] for key in "db"}, ("layer_06",))
        with pytest.raises(StoreError, match="lacks 1 of 2 keys: 'z'"):
            export_features(features, format_name, tmp_path / "y", keys=["a", "z"])
        with pytest.raises(StoreError, match="layer_06, layer_12"):
            export_features(features, format_name, tmp_path / "y", layers=["layer_7"])
        assert not (tmp_path / "y").exists()

    def test_what_is_there_is_not_overwritten_unless_requested(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        first = filled(store, "one", {"a": np.stack(rows_of(2, 2))})
        second = filled(store, "two", {"a": np.stack(rows_of(2, 2, seed=9))})
        target = tmp_path / "e" / "x"
        export_features(first, format_name, target)
        before = {path: path.read_bytes() for path in target.parent.rglob("*") if path.is_file()}
        with pytest.raises(StoreError, match="exists already"):
            export_features(second, format_name, target)
        assert {path: path.read_bytes() for path in target.parent.rglob("*") if path.is_file()} == before
        export_features(second, format_name, target, overwrite=True)
        taken(store, target, format_name, layers=where_layers_lie(format_name, SPEC.layers))
        assert store["in"]["a"].tobytes() == second["a"].tobytes()

    def test_a_run_that_stops_leaves_no_half_file_and_what_it_replaced(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        features = filled(store, "out", {key: np.stack(rows_of(2, 2)) for key in "abc"})

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_features(features, format_name, tmp_path / "e" / "x", progress=stop)
        files = [path for path in (tmp_path / "e").rglob("*") if path.is_file()]
        assert [path.name for path in files] == (["a.npy", "a.npy"] if format_name == "npy" else [])

    def test_a_full_disk_is_an_error_and_leaves_nothing_behind(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        features = filled(store, "out", {"a": np.stack(rows_of(5)), "b": np.stack(rows_of(20_000))}, _one_layer())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # writing more is an error, as on a full disk
        try:
            with pytest.raises(StoreError, match="can't be written: File too large"):
                export_features(features, format_name, tmp_path / "e" / "x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        files = [path.name for path in (tmp_path / "e").rglob("*") if path.is_file()]
        assert files == (["a.npy"] if format_name == "npy" else [])

    def test_a_source_that_is_missing_or_damaged_is_an_error_that_names_it(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreError, match="nothing-here"):
            taken(store, tmp_path / "nothing-here", format_name)
        (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY no, it is not")
        (tmp_path / "bad").write_bytes(b"\x93NUMPY no, it is not")
        with pytest.raises(StoreError, match=r"bad"):
            taken(store, tmp_path / "bad", format_name)
        assert store.names() == []

    def test_an_interrupt_commits_what_is_finished_and_a_rerun_does_the_rest(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        data = {f"u{i}": np.stack(rows_of(3, 3, seed=i)) for i in range(8)}
        export_features(filled(store, "out", data), format_name, tmp_path / "e" / "x")
        layers = where_layers_lie(format_name, SPEC.layers)

        def stop(done: int, total: int) -> None:
            assert total == 8
            if done == 3:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted) as stopped:
            taken(store, tmp_path / "e" / "x", format_name, layers=layers, progress=stop)
        assert stopped.value.report.done == len(store["in"]) == 3
        resumed = taken(store, tmp_path / "e" / "x", format_name, layers=layers)
        assert (resumed.done, resumed.skipped) == (5, 3)
        same(store["in"], data, SPEC.layers)
        assert store["in"].verify() == []


class TestNames:
    @given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("a./%\\ ~2E"))
    def test_encoding_is_reversible_and_stays_below(self, key: str) -> None:
        assert unescape(escape(key)) == key
        assert len(key_line(key).split()) == 1
        assert path_key(key_line(key)) == key
        path = key_path(key, ".npy")
        assert path_key(str(path).removesuffix(".npy")) == key
        assert not path.is_absolute()
        for part in path.parts:
            assert not part.startswith(".")
            assert part.isprintable()
            assert "\\" not in part

    @given(st.lists(st.text("a.npy/%", max_size=8), unique=True, max_size=8))
    def test_no_file_stands_where_another_key_needs_a_directory(self, keys: list[str]) -> None:
        paths = [key_path(key, ".npy") for key in keys]
        assert len(set(paths)) == len(keys)
        assert not set(paths) & {parent for path in paths for parent in path.parents}

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("MSP-PODCAST_0001_0008", "MSP-PODCAST_0001_0008.npy"),
            ("Session1/Ses01F", "Session1/Ses01F.npy"),
            ("話者 1", "話者 1.npy"),
            ("50%", "50%25.npy"),
            ("../x", "%2E./x.npy"),
            ("/x", "%/x.npy"),
            ("", "%.npy"),
            ("a\x00", "a%00.npy"),
            ("a.npy/b", "a%2Enpy/b.npy"),
        ],
    )
    def test_the_rules_by_example(self, key: str, path: str) -> None:
        assert str(key_path(key, ".npy")) == path

    def test_names_that_were_never_encoded_are_taken_as_they_are(self) -> None:
        for name in ("50%", "%zz", "a%FFb", "%C3", "100% sure"):
            assert unescape(name) == name


class TestDirectoriesOfNpy:
    def test_medusas_files(self, store: FeatureStore, tmp_path: Path) -> None:
        """Frames as (T, D) float32, a single frame squeezed to (D,), an empty text as one float64 row of zeros."""
        frames, single = rows_of(5)[0], rows_of(1)[0][0]
        directory = saved(tmp_path / "f", {"m_1": frames, "m_2": single, "m_3": np.zeros((1, 3))})
        (directory / "readme.txt").write_text("not features")
        report = taken(store, directory)
        assert (report.done, report.failed) == (3, [])
        assert "1 utterances were float64" in report.notes[0]
        assert store["in"].spec == FeatureSpec(
            "audio", "wavlm-large", "imported", ("features",), 3, 50.0, "float32"
        )  # fmt: skip
        assert store["in"]["m_1"].tobytes() == frames.tobytes()
        assert store["in"]["m_2"].tolist() == [single.tolist()]
        assert store["in"]["m_3"].shape == (1, 3)

    def test_mertools_pooled_files(self, store: FeatureStore, tmp_path: Path) -> None:
        directory = saved(tmp_path / "wavlm-large-UTT", {"s1": np.arange(3.0), "s2": np.ones((1, 3))})
        np.save(directory / "s3.npy", np.ones((2, 3)))
        described = Description("wavlm-large", pool="mean")
        report = import_features(store, "in", "npy", directory, described)
        assert report.done == 2
        [(place, reason)] = report.failed
        assert place.endswith("s3.npy")
        assert "2 rows; one was expected" in reason
        assert store["in"].spec.pool == "mean"

    def test_emoboxs_directories_and_all_layers(self, store: FeatureStore, tmp_path: Path) -> None:
        layers = np.stack(rows_of(4, 4, 4))
        directory = saved(tmp_path / "f", {"Session1/a": layers, "Session2/b": layers[:, :1]})
        assert taken(store, directory).done == 2
        assert store["in"].layers == ("layer_00", "layer_01", "layer_02")
        same(store["in"], {"Session1/a": layers, "Session2/b": layers[:, :1]}, store["in"].layers)
        three_layers = parse_layers(["6", "12", "last"])
        assert taken(store, directory, name="named", layers=three_layers, flatten=True).done == 2
        assert store["named"].layers == ("layer_06", "layer_12", "last")
        assert sorted(store["named"]) == ["a", "b"]

    def test_a_directory_per_layer(self, store: FeatureStore, tmp_path: Path) -> None:
        data = {key: np.stack(rows_of(n, n, seed=n)) for n, key in enumerate(("a", "x/b"), 2)}
        saved(tmp_path / "06", {key: rows[0] for key, rows in data.items()} | {"only": rows_of(2)[0]})
        saved(tmp_path / "twelve", {key: rows[1] for key, rows in data.items()})
        report = taken(store, tmp_path, layers=parse_layers(["6=06", "12=twelve"]))
        same(store["in"], data, ("layer_06", "layer_12"))
        [(_, reason)] = report.failed
        assert str(tmp_path / "twelve" / "only.npy") in reason

    def test_layers_of_different_lengths_are_refused(self, store: FeatureStore, tmp_path: Path) -> None:
        saved(tmp_path / "a", {"u": rows_of(3)[0], "v": rows_of(2)[0]})
        saved(tmp_path / "b", {"u": rows_of(3)[0], "v": rows_of(1)[0]})
        report = taken(store, tmp_path, layers={"a": "a", "b": "b"})
        assert report.done == 1
        assert "(2, 3), (1, 3)" in report.failed[0][1]

    def test_any_order_and_byte_order(self, store: FeatureStore, tmp_path: Path) -> None:
        rows = rows_of(5)[0]
        saved(tmp_path / "f", {"f": np.asfortranarray(rows), "b": rows.astype(">f4"), "e": rows[:0]})
        assert taken(store, tmp_path / "f").done == 3
        assert store["in"]["f"].tobytes() == store["in"]["b"].tobytes() == rows.tobytes()
        assert store["in"]["e"].shape == (0, 3)

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (np.zeros((2, 4), np.float32), "features has 4 dims; 3 expected"),
            (np.zeros((2, 2, 3), np.float32), "layers layer_00, layer_01; features expected"),
            (np.zeros((1, 2, 2, 3), np.float32), r"shape \(1, 2, 2, 3\)"),
            (np.float32(1), r"shape \(\)"),
            (np.zeros(0, np.float32), r"shape \(0,\)"),
            (np.zeros((0, 2, 3), np.float32), "so 0 layers"),
            (np.zeros((2, 3), np.int16), "values of int16; float16, float32, float64 expected"),
            (np.zeros((2, 3), np.complex64), "values of complex64"),
            (np.zeros((2, 3), "V2"), "bfloat16 as numpy saves it"),
            (np.array([{"a": 1}, None], object), "pickled objects"),
            (np.full((2, 3), np.nan, np.float32), "NaN or infinity"),
        ],
    )
    def test_an_array_of_another_kind_is_a_failure_and_the_rest_goes_on(
        self, array: np.ndarray, reason: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        directory = saved(tmp_path / "f", {"a": rows_of(2)[0], "c": rows_of(4)[0]})
        np.save(directory / "b.npy", array, allow_pickle=True)
        report = taken(store, directory)
        assert (report.done, sorted(store["in"])) == (2, ["a", "c"])
        [(place, message)] = report.failed
        assert place == str(directory / "b.npy")
        assert place in message
        with pytest.raises(StoreError, match=reason):
            raise StoreError(message)

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda data: data[:-1], r"takes 24 bytes, 23 follow"),
            (lambda data: data + b"\0", r"takes 24 bytes, 25 follow"),
            (lambda data: data[:40], "no .npy file, or a damaged one"),
            (lambda data: b"", "no .npy file, or a damaged one"),
            (lambda data: b"PK\x03\x04" + data, "no .npy file, or a damaged one"),
            (lambda data: data[:6] + b"\x09\x00" + data[8:], "no .npy file, or a damaged one"),
            (lambda data: data.replace(b"(2, 3)", b"(-2,-3"), "no .npy file, or a damaged one"),
            (lambda data: data.replace(b"(2, 3), ", b"(-2,-3),"), "no .npy file, or a damaged one"),
            (lambda data: data.replace(b"(2, 3), }     ", b"(99999999, 3)}"), "takes 1199999988 bytes, 24 follow"),
        ],
    )
    def test_a_damaged_file_is_named(
        self, spoil: Callable[[bytes], bytes], reason: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        directory = saved(tmp_path / "f", {"a": rows_of(2)[0], "b": rows_of(2)[0]})
        path = directory / "a.npy"
        path.write_bytes(spoil(path.read_bytes()))
        report = taken(store, directory)
        [(place, message)] = report.failed
        assert place == str(path)
        assert reason in message
        assert list(store["in"]) == ["b"]

    @settings(max_examples=60)
    @given(cut=st.integers(0, 200), noise=st.binary(max_size=40))
    def test_no_bytes_make_it_crash(self, cut: int, noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
        directory = saved(tmp_path_factory.mktemp("n") / "f", {"a": rows_of(2)[0]})
        path = directory / "a.npy"
        data = path.read_bytes()
        path.write_bytes(data[:cut] + noise + data[cut + len(noise) :])
        store = FeatureStore.create(directory.parent / "store")
        report = taken(store, directory)
        assert report.done + len(report.failed) == 1

    def test_two_files_of_one_key_are_reported(self, store: FeatureStore, tmp_path: Path) -> None:
        directory = saved(tmp_path / "f", {"x/a": rows_of(1)[0], "y/a": rows_of(2)[0], "b": rows_of(3)[0]})
        report = taken(store, directory, flatten=True)
        assert report.done == 2
        [(place, reason)] = report.failed
        assert place.endswith("y/a.npy")
        assert "'a' is that of" in reason
        assert "x/a.npy" in reason
        repeated = taken(store, directory, flatten=True)
        assert (repeated.done, repeated.skipped, repeated.failed) == (0, 2, report.failed)

    def test_a_name_that_is_not_utf8_and_a_linked_directory_are_failures(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        directory = saved(tmp_path / "f", {"a": rows_of(1)[0]})
        saved(tmp_path / "g", {"b": rows_of(1)[0]})
        os.rename(directory / "a.npy", os.fsencode(directory) + b"/\xff.npy")
        (directory / "link").symlink_to(tmp_path / "g")
        (directory / "c.npy").symlink_to(tmp_path / "g" / "b.npy")
        report = taken(store, directory)
        assert list(store["in"]) == ["c"]
        values = " ".join(reason for _, reason in report.failed)
        assert "link to a directory" in values
        assert "\\udcff.npy: its name is not utf-8" in values
        values.encode()

    def test_a_directory_without_npy_says_what_it_holds(self, store: FeatureStore, tmp_path: Path) -> None:
        (tmp_path / "a.pt").touch()
        with pytest.raises(StoreError, match=r"no \.npy files, and"):
            taken(store, tmp_path)

    def test_when_nothing_can_be_read_no_set_is_made(self, store: FeatureStore, tmp_path: Path) -> None:
        directory = saved(tmp_path / "f", {"a": np.zeros(3, int), "b": np.zeros(3, int)})
        report = taken(store, directory)
        assert (report.done, len(report.failed)) == (0, 2)
        assert store.names() == []

    def test_an_export_that_was_cut_short_goes_on(self, store: FeatureStore, tmp_path: Path) -> None:
        data = {key: np.stack(rows_of(n, n, seed=n)) for n, key in enumerate(("a", "b", "x/c", "d"), 1)}
        features = filled(store, "out", data)
        target = tmp_path / "t"
        export_features(features, "npy", target)
        status = (target / "layer_06" / "a.npy").stat()
        (target / "layer_12" / "x" / "c.npy").unlink()
        torn = target / "layer_06" / "b.npy"
        torn.write_bytes(torn.read_bytes()[:-2])
        with pytest.raises(StoreError, match="--resume"):
            export_features(features, "npy", target)
        report = export_features(features, "npy", target, resume=True)
        assert (report.done, report.skipped) == (2, 2)
        assert (target / "layer_06" / "a.npy").stat().st_mtime_ns == status.st_mtime_ns
        taken(store, target, layers=where_layers_lie("npy", SPEC.layers))
        same(store["in"], data, SPEC.layers)

    def test_resuming_over_another_sets_files_is_refused(self, store: FeatureStore, tmp_path: Path) -> None:
        spec = dataclasses.replace(SPEC, layers=("features",))
        features = filled(store, "out", {"a": np.stack(rows_of(3))}, spec)
        directory = saved(tmp_path / "t", {"a": rows_of(2)[0]})
        report = export_features(features, "npy", directory, resume=True)
        assert "written from another" in report.failed[0][1]
        assert len(np.load(directory / "a.npy")) == 2

    @pytest.mark.parametrize("layers", [SPEC.layers[:1], SPEC.layers])
    def test_resuming_over_another_layers_files_of_the_same_shapes_is_refused(
        self, store: FeatureStore, tmp_path: Path, layers: tuple[str, ...]
    ) -> None:
        data = {key: np.stack(rows_of(n, n, seed=n)) for n, key in enumerate(("a", "b", "c"), 1)}
        features = filled(store, "out", data)
        target = tmp_path / "t"
        export_features(features, "npy", target, layers=layers)
        other = filled(store, "other", {key: rows + 1 for key, rows in data.items()})
        place = target if len(layers) == 1 else target / layers[0]
        (place / "a.npy").unlink()
        for source, chosen in ((features, SPEC.layers[1:2]), (other, layers)):
            if len(chosen) == len(layers):
                with pytest.raises(StoreError, match=r"b\.npy holds other rows than layer_.*--overwrite"):
                    export_features(source, "npy", target, layers=chosen, resume=True)
                assert not (place / "a.npy").exists()
        assert export_features(features, "npy", target, layers=layers, resume=True).done == 1

    def test_what_a_stopped_overwrite_left_of_another_layer_is_found_wherever_it_lies(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        features = filled(store, "out", {f"u{i:02d}": np.stack(rows_of(2, 2, seed=i)) for i in range(40)})
        target, (first, second) = tmp_path / "t", SPEC.layers
        export_features(features, "npy", target, layers=[first])
        keys = list(features)

        def stop(done: int, total: int) -> None:
            if done == len(keys) - 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_features(features, "npy", target, layers=[second], overwrite=True, progress=stop)
        with pytest.raises(StoreError, match=rf"{keys[-1]}\.npy holds other rows than {second}"):
            export_features(features, "npy", target, layers=[second], resume=True)

    def test_nothing_is_written_behind_a_link(self, store: FeatureStore, tmp_path: Path) -> None:
        features = filled(store, "out", {"x/a": np.stack(rows_of(3)), "b": np.stack(rows_of(1))}, _one_layer())
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "t").mkdir()
        (tmp_path / "t" / "x").symlink_to(tmp_path / "elsewhere")
        report = export_features(features, "npy", tmp_path / "t", resume=True)
        assert report.done == 1
        assert "behind a link" in report.failed[0][1]
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_a_key_too_long_for_a_file_name_is_reported_and_others_take_it(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        data = {"ü" * 200: np.stack(rows_of(2)), "b": np.stack(rows_of(1))}
        features = filled(store, "out", data, _one_layer())
        report = export_features(features, "npy", tmp_path / "t")
        assert report.done == 1
        assert "too long for a file name" in report.failed[0][1]
        for name in ("hdf5", "safetensors"):
            export_features(features, name, tmp_path / name)
            taken(store, tmp_path / name, name, name=name)
            same(store[name], data, ("features",))

    @pytest.mark.parametrize("format_name", ["npy", "hdf5"])
    def test_a_damaged_utterance_is_reported_and_the_rest_written(
        self, format_name: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        data = {key: np.stack(rows_of(400, seed=i)) for i, key in enumerate("abc")}
        path = filled(store, "out", data, _one_layer()).path
        damaged = data["b"].tobytes()[:-1] + bytes([data["b"].tobytes()[-1] ^ 1])
        files = [each for each in path.rglob("*") if each.is_file() and data["b"].tobytes() in each.read_bytes()]
        for file in files:
            file.write_bytes(file.read_bytes().replace(data["b"].tobytes(), damaged))
        report = export_features(FeatureStore.open(store.path)["out"], format_name, tmp_path / "t")
        assert (len(files), report.done) == (1, 2)
        assert [key for key, _ in report.failed] == ["b"]
        taken(store, tmp_path / "t", format_name)
        same(store["in"], {key: data[key] for key in "ac"}, ("features",))


def _one_layer() -> FeatureSpec:
    return dataclasses.replace(SPEC, layers=("features",))


class TestHdf5:
    def test_the_file_reads_with_h5py_alone(self, store: FeatureStore, tmp_path: Path) -> None:
        data = {"a": np.stack(rows_of(2, 2)), "x/b": np.stack(rows_of(3, 3))}
        features = filled(store, "out", data)
        export_features(features, "hdf5", tmp_path / "all.h5")
        export_features(features, "hdf5", tmp_path / "one.h5", layers=["layer_12"])
        with h5py.File(tmp_path / "all.h5") as file:
            assert sorted(file) == ["a", "x%2Fb"]
            assert file["x%2Fb/layer_06"][:].tobytes() == data["x/b"][0].tobytes()
            assert json.loads(file.attrs["medusa_spec"])["encoder"] == "wavlm-large"
        with h5py.File(tmp_path / "one.h5") as file:
            assert file["a"][:].tobytes() == data["a"][1].tobytes()
        taken(store, tmp_path / "one.h5", "hdf5")
        assert store["in"].layers == ("layer_12",)  # the file says so

    def test_others_files(self, store: FeatureStore, tmp_path: Path) -> None:
        """Datasets in nested groups; groups with a dataset per layer and something else; (L, T, D) datasets."""
        rows = np.stack(rows_of(4, 4))
        with h5py.File(tmp_path / "nested.h5", "w") as file:
            file["Session1/a"], file["b"] = rows[0], rows[1][0]
            file["soft"] = h5py.SoftLink("/b")
            file["out"] = h5py.ExternalLink("/etc/passwd", "/")
        assert taken(store, tmp_path / "nested.h5", "hdf5", name="nested").done == 2
        assert sorted(store["nested"]) == ["Session1/a", "b"]
        with h5py.File(tmp_path / "grouped.h5", "w") as file:
            for key in ("a", "x/b"):
                file[f"{key}/hidden6"], file[f"{key}/hidden12"], file[f"{key}/label"] = rows[0], rows[1], "happy"
            file["c/hidden6"] = rows[0]
        values = parse_layers(["6=hidden6", "12=hidden12"])
        report = taken(store, tmp_path / "grouped.h5", "hdf5", name="grouped", layers=values)
        same(store["grouped"], {"a": rows, "x/b": rows}, ("layer_06", "layer_12"))
        assert "'c' lacks the layers layer_12" in report.failed[0][1]
        taken(store, tmp_path / "grouped.h5", "hdf5", name="single", layers={"x": "hidden12"})
        assert store["single"]["a"].tobytes() == rows[1].tobytes()
        with pytest.raises(StoreError, match=r"/nothing.*'a/hidden12'"):
            taken(store, tmp_path / "grouped.h5", "hdf5", layers={"x": "nothing"})
        with h5py.File(tmp_path / "stacked.h5", "w") as file:
            file["a"] = rows
        taken(store, tmp_path / "stacked.h5", "hdf5", name="stacked", layers={"p": "", "q": ""})
        same(store["stacked"], {"a": rows}, ("p", "q"))

    def test_datasets_of_another_kind_are_failures(self, store: FeatureStore, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["good"], file["text"], file["whole"] = rows_of(2)[0], "words", np.arange(3)
            file["scalar"], file["cube"] = np.float32(1), np.zeros((1, 1, 1, 3), np.float32)
            file.create_dataset("null", data=h5py.Empty("f4"))
        report = taken(store, tmp_path / "x.h5", "hdf5")
        assert list(store["in"]) == ["good"]
        values = {place.split("'")[1]: reason for place, reason in report.failed}
        assert sorted(values) == ["cube", "null", "scalar", "text", "whole"]
        assert "values of object" in values["text"]
        assert "values of int64" in values["whole"]
        assert all(str(tmp_path / "x.h5") in reason for reason in values.values())

    def test_a_truncated_or_empty_file_is_named(self, store: FeatureStore, tmp_path: Path) -> None:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            file["a"] = rows_of(2000)[0]
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(StoreError, match=r"x.h5 can't be read as HDF5"):
            taken(store, path, "hdf5")
        h5py.File(path, "w").close()
        with pytest.raises(StoreError, match="no datasets"):
            taken(store, path, "hdf5")


class TestSafetensors:
    def test_the_file_reads_with_the_library_alone(self, store: FeatureStore, tmp_path: Path) -> None:
        data = {"a": np.stack(rows_of(2, 2)), "x/b": np.stack(rows_of(3, 3)), "": np.stack(rows_of(0, 0))}
        export_features(filled(store, "out", data), "safetensors", tmp_path / "x")
        tensors = safetensors.numpy.load_file(tmp_path / "x")
        assert sorted(tensors) == ["/layer_06", "/layer_12", "a/layer_06", "a/layer_12", "x/b/layer_06", "x/b/layer_12"]
        assert tensors["x/b/layer_12"].tobytes() == data["x/b"][1].tobytes()

    def test_bfloat16_is_bf16_to_torch(self, store: FeatureStore, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        features = filled(
            store, "out", {"a": np.stack(rows_of(5))}, dataclasses.replace(_one_layer(), dtype="bfloat16")
        )
        export_features(features, "safetensors", tmp_path / "x")
        tensor = load_file(tmp_path / "x")["a/features"]
        assert tensor.dtype == torch.bfloat16
        assert tensor.float().numpy().tobytes() == features["a"].tobytes()
        save_file({"b": tensor}, tmp_path / "torch")
        taken(store, tmp_path / "torch", "safetensors")
        assert store["in"].spec.dtype == "bfloat16"
        assert store["in"]["b"].tobytes() == features["a"].tobytes()

    def test_others_files(self, store: FeatureStore, tmp_path: Path) -> None:
        rows = np.stack(rows_of(4, 4))
        tensors = {"a": rows[0], "x/b": rows[1], "whole": np.arange(3), "v": rows[0, 0], "deep": rows}
        safetensors.numpy.save_file(tensors, tmp_path / "flat")
        report = taken(store, tmp_path / "flat", "safetensors", name="flat")
        values = {place.split("'")[1]: reason for place, reason in report.failed}
        # What lies first in the file says what the set is like; the library sorts by alignment, then name.
        assert "values of I64" in values.pop("whole")
        assert "layers layer_00, layer_01; features expected" in values.pop("deep")
        assert not values
        assert sorted(store["flat"]) == ["a", "v", "x/b"]
        grouped = {"a/h6": rows[0], "a/h12": rows[1], "b/h6": rows[0]}
        safetensors.numpy.save_file(grouped, tmp_path / "grouped")
        report = taken(store, tmp_path / "grouped", "safetensors", name="g", layers=parse_layers(["6=h6", "12=h12"]))
        same(store["g"], {"a": rows}, ("layer_06", "layer_12"))
        assert "'b' lacks the layers layer_12" in report.failed[0][1]

    @pytest.mark.parametrize("cut", [0, 4, 8, 60, -1])
    def test_a_truncated_file_is_named(self, cut: int, store: FeatureStore, tmp_path: Path) -> None:
        safetensors.numpy.save_file({"a": rows_of(9)[0]}, tmp_path / "x")
        (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:cut])
        with pytest.raises(StoreError, match="x can't be read as safetensors"):
            taken(store, tmp_path / "x", "safetensors")

    @settings(max_examples=60)
    @given(place=st.integers(0, 300), noise=st.binary(min_size=1, max_size=30))
    def test_no_bytes_make_it_crash(self, place: int, noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
        directory = tmp_path_factory.mktemp("n")
        safetensors.numpy.save_file({"a": rows_of(4)[0], "b": rows_of(2)[0]}, directory / "x")
        data = (directory / "x").read_bytes()
        (directory / "x").write_bytes((data[:place] + noise + data[place + len(noise) :])[: len(data)])
        with contextlib.suppress(StoreError):
            report = taken(FeatureStore.create(directory / "store"), directory / "x", "safetensors")
            assert report.done + len(report.failed) >= 1

    def test_tensors_that_overlap_are_refused(self, store: FeatureStore, tmp_path: Path) -> None:
        values = {"dtype": "F32", "shape": [1, 3], "data_offsets": [0, 12]}
        header = json.dumps({"a": values, "b": values}).encode()
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 12)
        with pytest.raises(StoreError, match="can't be read as safetensors"):
            taken(store, tmp_path / "x", "safetensors")


class TestEmotion2vec:
    def make(self, directory: Path, **files: str) -> Path:
        """Utterances of 2, 0 and 3 rows."""
        directory.mkdir()
        np.save(directory / "train.npy", np.concatenate(rows_of(2, 0, 3)))
        for suffix, text in {"lengths": "2\n0\n3\n", **files}.items():
            (directory / f"train.{suffix}").write_text(text)
        return directory / "train"

    def test_their_files_with_labels_or_with_fairseqs_manifest(self, store: FeatureStore, tmp_path: Path) -> None:
        rows = rows_of(2, 0, 3)
        emo = self.make(tmp_path / "e", emo="Ses01F_1\tneu\nSes01F_2\thap\nSes01F_3\tsad\n")
        report = taken(store, emo, "emotion2vec")
        assert "train.emo are no features" in report.notes[0]
        same(store["in"], {f"Ses01F_{i}": [each] for i, each in enumerate(rows, 1)}, ("features",))
        tsv = self.make(tmp_path / "t", tsv="/corpus\ns1/a.wav\t9\ns1/b.wav\t7\ns2/c.wav\t8\n")
        taken(store, tsv.with_suffix(".npy"), "emotion2vec", name="tsv")
        assert sorted(store["tsv"]) == ["s1/a", "s1/b", "s2/c"]
        taken(store, tsv, "emotion2vec", name="flat", flatten=True)
        assert sorted(store["flat"]) == ["a", "b", "c"]

    def test_what_is_written_is_what_their_loader_expects(self, store: FeatureStore, tmp_path: Path) -> None:
        data = {"b": np.stack(rows_of(2)), "a c": np.stack(rows_of(3, seed=1)), "d": np.stack(rows_of(0))}
        features = filled(store, "out", data, _one_layer())
        labels = {"b": "hap", "a c": "no agreement", "d": "sad"}
        order = ["a c", "d", "b"]
        export_features(features, "emotion2vec", tmp_path / "train", keys=order, labels=labels)
        values = np.load(tmp_path / "train.npy")
        lengths = [int(line) for line in (tmp_path / "train.lengths").read_text().split()]
        assert lengths == [3, 0, 2]
        assert values.tobytes() == b"".join(data[key].tobytes() for key in order)
        lines = (tmp_path / "train.emo").read_text().splitlines()
        assert [line.split() for line in lines] == [["a%20c", "no%20agreement"], ["d", "sad"], ["b", "hap"]]
        taken(store, tmp_path / "train", "emotion2vec")
        same(store["in"], data, ("features",))
        report = export_features(features, "emotion2vec", tmp_path / "some", labels={"b": "hap"})
        assert "no .emo was written" in report.notes[0]
        assert not (tmp_path / "some.emo").exists()

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({}, "Put a list of their keys beside it: train.keys"),
            ({"keys": "a\nb\n"}, "has 3 lines, but there are 2 keys"),
            ({"keys": "a\nb\nc\n", "lengths": "2\n0\n2\n"}, "has 5 rows, but the lengths beside it add up to 4"),
            ({"keys": "a\nb\nc\n", "lengths": "2\nx\n3\n"}, "train.lengths, line 2: 'x'; a number of rows expected"),
            ({"keys": "a\nb\nc\n", "lengths": f"2\n{9**30}\n3\n"}, "line 2"),
            ({"keys": "a\nb\nc\n", "lengths": "2\n-3\n6\n"}, "line 2: '-3'"),
            ({"emo": "a x\n\nb y\n"}, "train.emo, line 2 is empty"),
        ],
    )
    def test_files_that_disagree_are_reported(
        self, files: dict[str, str], reason: str, store: FeatureStore, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreError) as error:
            taken(store, self.make(tmp_path / "e", **files), "emotion2vec")
        assert reason in str(error.value)

    def test_an_array_that_is_no_run_of_rows_is_refused(self, store: FeatureStore, tmp_path: Path) -> None:
        source = self.make(tmp_path / "e", keys="a\nb\nc\n")
        for bad, reason in ((np.zeros(5), r"shape \(5,\)"), (np.zeros((5, 3), int), "values of int64")):
            np.save(source.with_suffix(".npy"), bad)
            with pytest.raises(StoreError, match=reason):
                taken(store, source, "emotion2vec")

    def test_layers_must_be_of_the_same_utterances(self, store: FeatureStore, tmp_path: Path) -> None:
        self.make(tmp_path / "p", keys="a\nb\nc\n")
        self.make(tmp_path / "q", keys="a\nc\nb\n")
        with pytest.raises(StoreError, match=r"different utterances.*order"):
            taken(store, tmp_path, "emotion2vec", layers={"p": "p/train", "q": "q/train"})
        with pytest.raises(ConfigError, match="LAYER=NAME"):
            taken(store, tmp_path / "p" / "train", "emotion2vec", layers={"p": "", "q": ""})


class TestWhatAnImportSays:
    def test_it_never_rounds_unless_requested(self, store: FeatureStore, tmp_path: Path) -> None:
        half, single = rows_of(2, dtype="float16")[0], rows_of(2)[0]
        directory = saved(tmp_path / "f", {"a": half, "b": single, "c": np.zeros((1, 3))})
        report = taken(store, directory)
        assert store["in"].spec.dtype == "float16"
        reasons = [reason for _, reason in report.failed]
        assert ["float32 would be rounded" in reasons[0], "float64 would be rounded" in reasons[1]] == [True, True]
        assert taken(store, directory, name="wide", dtype="float32").done == 3
        assert store["wide"]["b"].tobytes() == single.tobytes()
        assert taken(store, directory, dtype="float16").done == 2
        assert store["in"]["b"].tobytes() == single.astype(np.float16).tobytes()

    def test_it_never_mixes_with_other_features(self, store: FeatureStore, tmp_path: Path) -> None:
        spec = dataclasses.replace(_one_layer(), encoder="wavlm-large")
        filled(store, "featurized", {"a": np.stack(rows_of(2))}, spec)
        directory = saved(tmp_path / "f", {"a": rows_of(2)[0], "b": rows_of(1)[0]})
        with pytest.raises(SpecMismatch, match=r"weights: .*sha256:00.*imported"):
            taken(store, directory, name="featurized")
        taken(store, directory)
        with pytest.raises(SpecMismatch, match=r"encoder: .*wavlm-large.*hubert-large"):
            import_features(store, "in", "npy", directory, Description("hubert-large", frame_rate_hz=50))
        with pytest.raises(SpecMismatch, match="dim: stored 3, asked 4"):
            taken(store, saved(tmp_path / "g", {"a": rows_of(2, dim=4)[0]}))
        source = saved(tmp_path / "h", {"0": rows_of(2)[0], "b": rows_of(1, seed=7)[0]})
        with pytest.raises(StoreError, match="other rows for 'b'"):
            taken(store, source)
        assert sorted(store["in"]) == ["a", "b"]

    @pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
    def test_files_that_were_made_again_are_not_taken_for_those_that_are_stored(
        self, store: FeatureStore, tmp_path: Path, dtype: str | None
    ) -> None:
        """A few of many, as a mended encoder or corpus leaves them; sixteen are compared, whatever the first is."""
        arrays = {f"u{i:02d}": rows_of(2, seed=i)[0] for i in range(16)}
        directory = saved(tmp_path / "f", arrays)
        taken(store, directory, dtype=dtype)
        assert taken(store, directory, dtype=dtype).skipped == 16
        saved(tmp_path / "f", arrays | {"u09": rows_of(2, seed=99)[0], "v": rows_of(2)[0]})
        with pytest.raises(StoreError, match=r"other rows for 'u09' than .*u09\.npy.*store rm in"):
            taken(store, directory, dtype=dtype)
        assert "v" not in store["in"]

    def test_it_compares_keys_with_those_expected(self, store: FeatureStore, tmp_path: Path) -> None:
        directory = saved(tmp_path / "f", {"s/a": rows_of(2)[0], "s/b": rows_of(1)[0]})
        with pytest.raises(StoreError, match=r"2 utterances.*'a', 'c'.*'s/a', 's/b'"):
            taken(store, directory, expected_keys=["a", "c"])
        assert store.names() == []
        report = taken(store, directory, expected_keys=["a", "c"], flatten=True)
        assert (report.done, report.missing, report.surplus) == (2, ["c"], ["b"])
        source = saved(tmp_path / "g", {"c": rows_of(1)[0]})
        assert taken(store, source, expected_keys=["a", "c"]).missing == []

    def test_a_name_of_two_ids_is_refused_and_of_one_is_stored_under_it(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        directory = saved(tmp_path / "f", {"a": rows_of(2)[0], "b": rows_of(3)[0]})
        with pytest.raises(StoreError, match=r"a\.npy may be of 'a\.wav' or of 'a\.flac'"):
            taken(store, directory, expected_keys=["a.wav", "b.wav", "a.flac"])
        assert store.names() == []
        assert taken(store, directory, expected_keys=["a.wav", "b.wav", "c.flac"]).missing == ["c.flac"]
        assert sorted(store["in"]) == ["a.wav", "b.wav"]

    def test_layers_as_they_are_requested(self) -> None:
        assert parse_layers(["6", "12=h12", "last=x/y=z"]) == {"layer_06": "", "layer_12": "h12", "last": "x/y=z"}
        for bad in ([""], ["=x"], ["a="], ["6", "layer_06"]):
            with pytest.raises(ConfigError, match="LAYER=WHERE"):
                parse_layers(bad)

    def test_a_fault_of_the_stores_disk_ends_the_run(
        self, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next files would fail for the same reason, so it is one error and not one per file."""
        directory = saved(tmp_path / "f", {key: rows_of(2)[0] for key in "abc"})
        n_done = []

        def lose_the_directory(n: int, total: int) -> None:
            n_done.append(n)
            (store.path / "in").rename(store.path / "gone")

        with pytest.raises(StoreError):
            taken(store, directory, segment_bytes=1, progress=lose_the_directory)
        assert n_done == [1]

    def test_an_unknown_format_lists_those_there_are(self, store: FeatureStore, tmp_path: Path) -> None:
        listed = "npy, hdf5, emotion2vec, safetensors"
        with pytest.raises(ConfigError, match=listed):
            taken(store, tmp_path, "kaldi")
        with pytest.raises(ConfigError, match=listed):
            export_features(filled(store, "a", {}), "kaldi", tmp_path / "x")


def test_only_a_directory_can_be_resumed(store: FeatureStore, tmp_path: Path) -> None:
    features = filled(store, "out", {"a": np.stack(rows_of(2, 2))})
    with pytest.raises(ConfigError, match=r"--resume: hdf5 .*--overwrite"):
        export_features(features, "hdf5", tmp_path / "x", resume=True)
    assert isinstance(export_features(features, "npy", tmp_path / "y", resume=True), Written)


class TestCommands:
    def test_in_and_out_again(self, store: FeatureStore, tmp_path: Path) -> None:
        data = {f"s{i % 2}/u{i}": np.stack(rows_of(i, i, seed=i)) for i in range(4)}
        saved(tmp_path / "f" / "06", {key: rows[0] for key, rows in data.items()})
        saved(tmp_path / "f" / "12", {key: rows[1] for key, rows in data.items()})
        manifest = tmp_path / "corpus.csv"
        manifest.write_text("utterance_id,text,label\n" + "".join(f"{key},hi,happy\n" for key in reversed(data)))
        shared = ["-s", store.path, "-m", manifest]
        layers = ["--layer", "6=06", "--layer", "12=12"]
        values = ["--encoder", "wavlm-large", "--frame-rate", "50", "--format", "hdf5"]
        output = medusa("store", "import", "npy", tmp_path / "f", "w", *layers, *values, *shared).stdout
        assert "4 taken, 0 there already, 0 failed" in output
        assert "missing" not in output
        same(store["w"], data, ("layer_06", "layer_12"))
        assert store["w"].spec.frame_rate_hz == 50
        output = medusa(
            "store", "export", "w", "emotion2vec", tmp_path / "e" / "train", "--layer", "12", *shared
        ).stdout
        assert "4 written" in output
        assert (tmp_path / "e" / "train.emo").read_text().splitlines()[0] == "s1/u3\thappy"
        medusa("store", "import", "emotion2vec", tmp_path / "e" / "train", "x", "--layer", "12", "-s", store.path)
        same(store["x"], {key: rows[1:] for key, rows in data.items()}, ("layer_12",))

    def test_failures_and_what_the_manifest_lacks(self, store: FeatureStore, tmp_path: Path) -> None:
        directory = saved(tmp_path / "f", {"a": rows_of(1)[0], "b": rows_of(2)[0], "odd": np.arange(3)})
        manifest = tmp_path / "corpus.csv"
        manifest.write_text("utterance_id,text\na,hi\nc,hi\n")
        call = ["store", "import", "npy", directory, "w", "-s", store.path, "-m", manifest]
        result = medusa(*call, exit_code=1)
        assert "2 taken, 0 there already, 1 failed" in result.stdout
        assert mentions(result.stdout, "missing", 1, "'c'", "surplus", 2, "'b', 'odd'")
        assert mentions(result.stderr, "odd.npy", "int64")
        (directory / "odd.npy").unlink()
        assert "0 taken, 2 there already" in medusa(*call, exit_code=1).stdout  # one is still missing
        np.save(directory / "c.npy", rows_of(1)[0])
        assert "1 taken, 2 there already" in medusa(*call).stdout

    def test_a_target_that_is_not_free(self, store: FeatureStore, tmp_path: Path) -> None:
        filled(store, "w", {"a": np.stack(rows_of(2, 2))})
        (tmp_path / "x.h5").write_text("mine")
        call = ["store", "export", "w", "hdf5", tmp_path / "x.h5", "-s", store.path]
        assert "--overwrite replaces it" in medusa(*call, exit_code=2).stderr
        assert (tmp_path / "x.h5").read_text() == "mine"
        assert "1 written" in medusa(*call, "--overwrite").stdout


def test_utterances_without_rows_are_taken_and_named(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy" / "a.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "npy" / "b.npy", np.ones((0, 3), np.float32))
    report = taken(store, tmp_path / "npy", "npy")
    assert (report.done, report.empty) == (2, ["b"])
    assert any(mentions(note.lower(), "no rows", 1, "'b'") for note in report.notes)
    assert store["in"]["b"].shape == (0, 3)
