"""The format is what FORMAT.md says, and stores of every earlier version are read for ever."""

import hashlib
import importlib.util
import json
import re
import struct
from pathlib import Path
from types import ModuleType

import google_crc32c
import h5py
import numpy as np
import pytest
import zarr

import featurestore
from featurestore.format.spec import FeatureSpec
from featurestore.rows.rowtypes import ROW_TYPES
from featurestore.store.feature_store import FeatureStore

FORMAT = (Path(featurestore.__file__).parent / "format" / "FORMAT.md").read_text(encoding="utf-8")
EXAMPLE_FILES = re.findall(r"^\| `(\S+)` \| `([0-9a-f ]+)` \|", FORMAT, re.MULTILINE)
GOLDEN = Path(__file__).with_name("golden")
ROW_DTYPE = {"float16": "<f2", "float32": "<f4", "bfloat16": "<u2", "int8": "i1"}


def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLD = make()


def test_the_worked_example_decodes_by_the_rules() -> None:
    """With hashlib, struct and a CRC-32C alone, as another implementation would."""
    files = {
        name: bytes.fromhex(hexes) for name, hexes in re.findall(r"^\| `(\S+)` \| `([0-9a-f ]+)` \|", FORMAT, re.M)
    }
    fingerprint, name = re.findall(r"fingerprint `(\w{16})`", FORMAT)[0], re.findall(r"`(seg-\w{16})`:", FORMAT)[0]
    values = {"kind": "audio", "encoder": "example", "weights": "none", "layers": ["layer_00"], "dim": 2}
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.blake2b(canonical, digest_size=8).hexdigest() == fingerprint
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=8)
    sizes = {"offsets": 8, "keys": 1, "key_offsets": 8, "key_hashes": 8, "checksums": 4, "durations_s": 8}
    for array, size in sizes.items():
        data = files[f"{array}/c/0/0" if array == "checksums" else f"{array}/c/0"]
        digest.update(b"\n%s %d\n" % (array.encode(), len(data) // size) + data)
    assert "seg-" + digest.hexdigest() == name
    assert struct.unpack("<3q", files["offsets/c/0"]) == (0, 2, 2)
    assert files["keys/c/0"] == b"ab"
    assert struct.unpack("<3q", files["key_offsets/c/0"]) == (0, 1, 2)
    for key, stored in zip((b"a", b"b"), struct.unpack("<2Q", files["key_hashes/c/0"]), strict=True):
        assert int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") == stored
    shard = files["layer_00/c/0/0"]
    assert struct.unpack("<4e", shard[:8]) == (1, 2, 3, 4)
    assert struct.unpack("<2Q", shard[8:24]) == (0, 8)
    assert int.from_bytes(shard[24:], "little") == google_crc32c.value(shard[8:24])
    checksums = struct.unpack("<2I", files["checksums/c/0/0"])
    assert checksums == (google_crc32c.value(shard[:8]), google_crc32c.value(b""))
    first, second = struct.unpack("<2d", files["durations_s/c/0"])
    assert (first, second != second) == (0.04, True)


def test_the_worked_example_is_what_we_write(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("example", FeatureSpec("audio", "example", "none", ("layer_00",), 2)) as writer:
        writer.append("a", [np.array([[1, 2], [3, 4]])], 0.04)
        writer.append("b", [np.zeros((0, 2))])
    segment = store["example"].segments[0]
    assert f"`{segment.name}`:" in FORMAT
    for name, hexes in EXAMPLE_FILES:
        assert (segment.path / name).read_bytes() == bytes.fromhex(hexes)


def test_every_row_type_and_array_is_documented() -> None:
    for name in (
        *ROW_TYPES,
        "offsets",
        "keys",
        "key_offsets",
        "key_hashes",
        "checksums",
        "durations_s",
        "<layer>.scale",
    ):
        assert f"`{name}`" in FORMAT


def test_no_golden_file_is_missing_or_altered() -> None:
    listed = dict(reversed(line.split("  ")) for line in (GOLDEN / "SHA256SUMS").read_text().splitlines())
    assert len(listed) > 100
    for name, digest in listed.items():
        assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("name", list(GOLD.SETS))
def test_golden_stores_are_read(store_format: str, name: str) -> None:
    spec, zarr_codec, hdf5_codec = GOLD.SETS[name]
    store = FeatureStore.open(GOLDEN / "v1" / store_format)
    assert store.names() == sorted(GOLD.SETS)
    features = store[name]
    assert features.spec == spec
    assert features.provenance == {"made": "2026-11"}
    assert [segment.info.compress for segment in features.segments] == [
        zarr_codec if store_format == "zarr" else hdf5_codec
    ] * 2
    assert sorted(features) == sorted(GOLD.KEYS)
    for i, key in enumerate(GOLD.KEYS):
        for layer, layer_name in enumerate(spec.layers):
            assert np.array_equal(features.array(key, layer_name), GOLD.rows(layer, i))
    assert features.durations_s(GOLD.KEYS).tolist() == [i / 4 for i in range(5)]
    assert features.verify() == []


@pytest.mark.parametrize("name", list(GOLD.SETS))
def test_golden_stores_are_read_by_zarr_and_h5py_alone(store_format: str, name: str) -> None:
    spec, _, _ = GOLD.SETS[name]
    directory = GOLDEN / "v1" / store_format / name
    result: dict[str, list[np.ndarray]] = {}
    for path in sorted(directory.glob("seg-*")):
        segment = zarr.open_group(path, mode="r") if store_format == "zarr" else h5py.File(path, "r")
        bounds, offsets, keys = segment["key_offsets"][:], segment["offsets"][:], segment["keys"][:].tobytes()
        for i in range(len(bounds) - 1):
            key = keys[bounds[i] : bounds[i + 1]].decode()
            result[key] = []
            for layer in spec.layers:
                stored = segment[layer][offsets[i] : offsets[i + 1]]
                assert stored.dtype == np.dtype(ROW_DTYPE[spec.dtype])
                if spec.dtype == "bfloat16":
                    stored = (stored.astype("uint32") << 16).view("float32")
                elif spec.dtype == "int8":
                    stored = stored * segment[f"{layer}.scale"][offsets[i] : offsets[i + 1]][:, None]
                result[key].append(stored)
        if store_format == "hdf5":
            assert json.loads(segment.attrs["spec"])["encoder"] == spec.encoder
            segment.close()
    assert sorted(result) == sorted(GOLD.KEYS)
    for i, key in enumerate(GOLD.KEYS):
        for layer, stored in enumerate(result[key]):
            assert np.array_equal(stored, GOLD.rows(layer, i))


def test_what_we_write_today_is_the_same_segments(store_format: str, tmp_path: Path) -> None:
    GOLD.main(tmp_path)
    for name in GOLD.SETS:
        written_files = sorted(path.name for path in (tmp_path / store_format / name).iterdir())
        assert written_files == sorted(path.name for path in (GOLDEN / "v1" / store_format / name).iterdir())
