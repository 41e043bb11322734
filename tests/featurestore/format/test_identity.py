"""What utterances were made from is part of the format: golden stores, the worked example, compaction, damage."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import zarr

import featurestore
from featurestore.audio.digest import digest_of_samples
from featurestore.errors import StoreError
from featurestore.format.identity import Identity, digest_of_text
from featurestore.format.spec import FeatureSpec
from featurestore.interchange.exporting import export_features
from featurestore.sets.compact import drop
from featurestore.store.feature_store import FeatureStore

FORMAT = (Path(featurestore.__file__).parent / "format" / "FORMAT.md").read_text(encoding="utf-8")
GOLDEN = Path(__file__).with_name("golden")
SPEC = FeatureSpec("audio", "example", "none", ("layer_00",), 2)
FIRST = Identity(b"\x11" * 16, b"\x22" * 16, 1280, 10**9, header_s=0.04, decoder="soundfile 0.13.1")


def _make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLD = _make()


def same(a: Identity, b: Identity) -> bool:
    return repr(a) == repr(b)  # NaN is NaN here


def store_of(path: Path, format: str = "zarr") -> FeatureStore:
    """Three segments: a with an identity and b without; c with another decoder; d in a segment without identities."""
    store = FeatureStore.create(path)
    with store.writer("x", SPEC, format=format) as writer:
        writer.append("a", [np.array([[1, 2], [3, 4]])], 0.04, FIRST)
        writer.append("b", [np.zeros((0, 2))])
        writer.commit()
        writer.append("c", [np.ones((1, 2))], 0.5, Identity(b"c" * 16, start_s=1.0, end_s=1.5, decoder="PyAV 18.1"))
        writer.commit()
        writer.append("d", [np.full((3, 2), 7.0)], 0.1)
    return store


def test_golden_identities_are_read_and_verified(store_format: str) -> None:
    features = FeatureStore.open(GOLDEN / "v1-identities" / store_format)["wavlm"]
    identities = features.identities(GOLD.KEYS)
    assert identities.recorded.tolist() == [True, False, True, True, False]
    for i in (0, 2, 3):
        assert same(identities[i], GOLD.identity(i))
    for i in (1, 4):
        assert same(identities[i], Identity())
    for i, key in enumerate(GOLD.KEYS):
        assert np.array_equal(features.array(key, "layer_12"), GOLD.rows(1, i))
    assert features.durations_s(GOLD.KEYS).tolist() == [i / 4 for i in range(5)]
    assert features.verify() == []


def test_what_we_write_today_is_the_same_segments_with_identities(tmp_path: Path) -> None:
    GOLD.main_identities(tmp_path)
    for format in ("zarr", "hdf5"):
        names = [sorted(path.name for path in (root / format / "wavlm").iterdir()) for root in
                 (tmp_path, GOLDEN / "v1-identities")]  # fmt: skip
        assert names[0] == names[1]


def test_zarr_and_h5py_alone_read_identities(store_format: str) -> None:
    paths = (GOLDEN / "v1-identities" / store_format / "wavlm").glob("seg-*")
    source_rows = []
    for path in paths:
        segment = zarr.open_group(path, mode="r") if store_format == "zarr" else h5py.File(path, "r")
        if "_source_files" in segment:
            source_rows.append(segment["_source_files"][:][:, 0].tolist())
            assert segment["_source_decoders"][:].tobytes().decode() == "PyAV 18.1\nsoundfile 0.13.1\n"
            assert segment["_source_digests"].shape == (4, 32)
    assert source_rows == [[1000, -1, 1002, 1003]]


def test_zarr_reads_the_names_of_axes(tmp_path: Path) -> None:
    segment = zarr.open_group(store_of(tmp_path / "s")["x"].segments[0].path, mode="r")
    assert segment["layer_00"].metadata.dimension_names == ("row", "dim")
    assert segment["checksums"].metadata.dimension_names == ("utterance", "layer")
    sizes: dict[str, set[int]] = {}
    for _, array in segment.arrays():
        for axis, size in zip(array.metadata.dimension_names, array.shape, strict=True):
            sizes.setdefault(axis, set()).add(size)
    assert all(len(found) == 1 for found in sizes.values())


def test_the_second_worked_example_is_what_we_write_and_decodes_by_the_rules(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("example", SPEC) as writer:
        writer.append("a", [np.array([[1, 2], [3, 4]])], 0.04, FIRST)
        writer.append("b", [np.zeros((0, 2))])
    path = store["example"].segments[0].path
    assert f"make `{path.name}`" in FORMAT
    digest = hashlib.blake2b(SPEC.fingerprint.encode(), digest_size=8)
    arrays = {
        "offsets": "c/0", "keys": "c/0", "key_offsets": "c/0", "key_hashes": "c/0", "checksums": "c/0/0",
        "durations_s": "c/0", "_source_digests": "c/0/0", "_source_files": "c/0/0", "_source_times_s": "c/0/0",
        "_source_decoders": "c/0",
    }  # fmt: skip
    for name, file in arrays.items():
        data = (path / name / file).read_bytes()
        itemsize = np.dtype(json.loads((path / name / "zarr.json").read_bytes())["data_type"]).itemsize
        digest.update(b"\n%s %d\n" % (name.encode(), len(data) // itemsize) + data)
        for hexes in re.findall(rf"^- `{name}`: `([0-9a-f ]+)`", FORMAT, re.M):
            assert data.startswith(bytes.fromhex(hexes))
    assert "seg-" + digest.hexdigest() == path.name


def test_compaction_keeps_identities(tmp_path: Path, store_format: str) -> None:
    store = store_of(tmp_path / "s", store_format)
    before = [store["x"].identities([*"abcd"])[i] for i in range(4)]
    store.compact("x")
    features = store["x"]
    assert len(features.segments) == 1
    after = features.identities([*"abcd"])
    assert all(same(after[i], before[i]) for i in range(4))
    assert features.verify() == []


def test_utterances_can_be_dropped_and_written_again(tmp_path: Path, store_format: str) -> None:
    store = store_of(tmp_path / "s", store_format)
    assert drop(store["x"], ["a", "c", "nobody"]) == 2
    features = store["x"]
    assert sorted(features) == ["b", "d"]
    assert np.array_equal(features["d"], np.full((3, 2), 7.0))
    with store.writer("x", SPEC) as writer:
        writer.append("a", [np.ones((1, 2))])
    assert np.array_equal(store["x"]["a"], np.ones((1, 2)))
    assert store["x"].verify() == []


def test_dropping_takes_copies_in_other_segments_too(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    first, second = store.writer("x", SPEC), store.writer("x", SPEC)
    for value, writer in ((1.0, first), (2.0, second)):
        writer.append("a", [np.full((1, 2), value)])
        writer.append(f"only in {value}", [np.full((1, 2), value)])
    first.commit()
    second.commit()
    assert drop(store["x"], ["a"]) == 1
    assert sorted(store["x"]) == ["only in 1.0", "only in 2.0"]


def test_an_altered_identity_is_found_when_the_segment_is_opened(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s")
    path = next(segment.path for segment in store["x"].segments if "a" in segment.small("keys").tobytes().decode())
    file = path / "_source_files" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="were altered"):
        store["x"].identities(["a"])
    assert any("were altered" in problem for problem in store["x"].verify())


def test_a_digest_is_of_values_not_of_signs_of_zero() -> None:
    assert digest_of_samples(np.array([-0.0, 1], np.float32)) == digest_of_samples(np.array([0.0, 1], np.float32))
    assert digest_of_samples(np.array([0, 1], np.float32)) != digest_of_samples(np.array([1, 0], np.float32))
    assert digest_of_text("a") == hashlib.blake2b(b"a", digest_size=16).digest()
    assert len(digest_of_text("\udcff")) == 16


@pytest.mark.slow
def test_a_hundred_segments_of_25_layers_are_read_exported_and_compacted_with_256_files(quick_path: Path) -> None:
    import resource

    layers = tuple(f"layer_{i:02d}" for i in range(25))
    spec = FeatureSpec("audio", "example", "none", layers, 2)
    store = FeatureStore.create(quick_path / "s")
    with store.writer("x", spec) as writer:
        for i in range(100):
            writer.append(f"u{i}", np.full((25, 1, 2), i, np.float32))
            writer.commit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        features = store["x"]
        arrays = [features.array(f"u{i}", layer) for i in range(100) for layer in layers]
        assert all(float(rows[0, 0]) == i // 25 for i, rows in enumerate(arrays))
        assert export_features(features, "hdf5", quick_path / "out.h5").done == 100
        report = store.compact("x")
        assert (report.n_before, report.n_after, report.n_copied) == (100, 1, 100)
        assert len(store["x"]) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
