"""Whatever lies in a store's files: a reader raises StoreError or returns what was written, and never crashes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.damaged import KINDS, NAME, Stores, damage_and_read, repair
from featurestore.errors import StoreError
from featurestore.format.compression import CODECS
from featurestore.format.segment_info import SMALL_ARRAYS, SegmentInfo
from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store
from tests.helpers.small_store import quick_directory
from tests.helpers.warm_python import run_warm

ROOT = Path(__file__).resolve().parents[3]
SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 3, 50.0)
SET_ATTRIBUTES = {"medusa_set": 1, "spec": "right", "fingerprint": "right", "provenance": {}, "storage": {}}
numbers = st.integers() | st.floats() | st.sampled_from([2**31, 2**49, 2**63, 10**400])
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed(expected: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return the same object with a few values replaced by anything, or taken away."""
    replaced = st.dictionaries(st.sampled_from(sorted(expected)), anything, max_size=3)
    return st.builds(
        lambda new, removed: {name: value for name, value in (expected | new).items() if name not in removed},
        replaced,
        st.sets(st.sampled_from(sorted(expected)), max_size=1),
    )


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with quick_directory() as directory:
        yield Stores(directory)


class TestHypothesis:
    @settings(max_examples=50)
    @given(changed(SPEC.to_json()))
    def test_a_specification_is_read_or_refused(self, values: dict[str, Any]) -> None:
        try:
            spec = FeatureSpec.from_json(values)
        except StoreError:
            return
        assert FeatureSpec.from_json(spec.to_json()) == spec
        assert len(spec.fingerprint) == 16

    @settings(max_examples=300)
    @given(changed(SegmentInfo.of(SPEC, 3, 20, 9, "zstd").attributes()))
    def test_attributes_of_a_segment_are_read_or_refused(self, expected: dict[str, Any]) -> None:
        try:
            info = SegmentInfo.from_attributes(expected, SPEC, Path("seg-0"))
        except StoreError:
            return
        assert info.layout.n_rows == expected["n_rows"]
        assert all(size >= 0 for shape, _ in info.shapes().values() for size in shape)
        assert json.loads(json.dumps(info.attributes())).keys() >= {"n_rows", "chunk_rows"}

    @settings(max_examples=100)
    @given(
        attributes=changed({"medusa_set": 1, "spec": "right", "fingerprint": "right", "provenance": {}, "storage": {}})
    )
    def test_a_feature_set_opens_or_is_refused(
        self, attributes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("s") / "a"
        path.mkdir()
        correct = {"spec": SPEC.to_json(), "fingerprint": SPEC.fingerprint}
        values = {name: correct.get(name, value) if value == "right" else value for name, value in attributes.items()}
        text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": values})
        (path / "zarr.json").write_text(text)
        try:
            features = FeatureSet(path, "a")
            features.verify()
        except StoreError:
            return
        assert len(features) == 0

    @settings(max_examples=300)
    @given(codec=st.sampled_from(sorted(CODECS)), data=st.data(), itemsize=st.sampled_from([1, 2, 4]))
    def test_compressed_bytes_are_decoded_or_refused(self, codec: str, data: st.DataObject, itemsize: int) -> None:
        """Also those with a right checksum, which a decompressor in C then sees."""
        n_bytes = 64 * itemsize
        raw = bytearray(data.draw(st.binary(min_size=n_bytes, max_size=n_bytes)))
        packed = bytearray(CODECS[codec].encode(bytes(raw), itemsize))
        assert CODECS[codec].decoded(bytes(packed), n_bytes, itemsize, "here") == raw
        for _ in range(data.draw(st.integers(1, 3))):
            packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
        packed = packed[: data.draw(st.integers(0, len(packed)))] if data.draw(st.booleans()) else packed
        if codec != "gzip" and data.draw(st.booleans()):
            packed[-4:] = google_crc32c.value(bytes(packed[:-4])).to_bytes(4, "little")
        try:
            decoded = CODECS[codec].decoded(bytes(packed), n_bytes, itemsize, "here")
        except StoreError:
            return
        assert len(decoded) == n_bytes

    @settings(max_examples=100)
    @given(inputs=st.binary(max_size=60))
    @example(b"")
    def test_edits_of_files_never_lead_to_wrong_rows(self, stores: Stores, inputs: bytes) -> None:
        n_read, n_refused = damage_and_read(stores, inputs)
        assert n_read + n_refused > 0

    @pytest.mark.slow
    @settings(max_examples=300)
    @given(inputs=st.binary(max_size=60))
    def test_more_edits_of_files_never_lead_to_wrong_rows(self, stores: Stores, inputs: bytes) -> None:
        n_read, n_refused = damage_and_read(stores, inputs)
        assert n_read + n_refused > 0


def with_small(files: dict[str, bytes], **arrays: np.ndarray) -> dict[str, bytes]:
    """Zarr files with other small arrays."""
    (segment,) = {name.split("/")[1] for name in files if "/seg-" in name}
    for name, values in arrays.items():
        files[f"{NAME}/{segment}/{name}/c/0" + ("/0" if name == "checksums" else "")] = values.astype(
            SMALL_ARRAYS[name]
        ).tobytes()
    return files


def with_json(files: dict[str, bytes], within: str, **values: Any) -> dict[str, bytes]:
    """Attributes of the set ("set") or of the segment replaced, spec's fields too."""
    for name, data in files.items():
        if name == f"{NAME}/zarr.json" if within == "set" else name.count("/") == 2 and name.endswith("zarr.json"):
            record = json.loads(data)
            target = (
                record["attributes"]["spec"] if within == "set" and values.keys() <= SPEC.to_json().keys() else None
            )
            (record["attributes"] if target is None else target).update(values)
            files[name] = json.dumps(record, indent=1).encode() + b"\n"
    return files


def zstd_bomb(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return a chunk of a few bytes whose frame says that it holds 32 TiB."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + (1 << 45).to_bytes(8, "little") + b"\x01\x00\x00"
    for name in files:
        if name.endswith("l0/c/0/0"):
            index = np.array([0, len(frame) + 4], "<u8").tobytes()
            files[name] = frame + bytes(4) + index + bytes(4)
    return files


# What a checksum protects from chance, but not from somebody who writes the checksum too.
CRAFTED: dict[str, tuple[int, Callable[[dict[str, bytes]], dict[str, bytes]]]] = {
    "keys that are no utf-8": (2, lambda files: with_small(files, keys=np.full(9, 0xFF))),
    "a key twice": (2, lambda files: with_small(files, keys=np.frombuffer(b"u/0u/0u/0", np.uint8))),
    "wrong hashes": (2, lambda files: with_small(files, key_hashes=np.zeros(3))),
    "offsets that fall": (2, lambda files: with_small(files, offsets=np.array([0, 3, 1, 3]))),
    "offsets beyond the rows": (2, lambda files: with_small(files, offsets=np.array([0, 1, 3, 1 << 40]))),
    "key offsets below zero": (2, lambda files: with_small(files, key_offsets=np.array([0, -(1 << 62), 6, 9]))),
    "rows without end": (
        2,
        lambda files: with_small(
            with_json(files, "segment", n_rows=1 << 49, chunk_rows=1 << 49), offsets=np.array([0, 0, 1, 1 << 49])
        ),
    ),
    "chunks without end": (2, lambda files: with_json(files, "segment", chunk_rows=1 << 49)),
    "a compression that is a list": (2, lambda files: with_json(files, "segment", compress=["zstd"])),
    "dim without end": (2, lambda files: with_json(files, "set", dim=1 << 62)),
    "dim of any size": (2, lambda files: with_json(files, "set", dim=1 << 24)),
    "a rate without end": (2, lambda files: with_json(files, "set", frame_rate_hz=10**400)),
    "a storage that is a list": (2, lambda files: with_json(files, "set", storage=[1])),
    "a provenance that is a list": (2, lambda files: with_json(files, "set", provenance=[1])),
    "a format that is none": (2, lambda files: with_json(files, "set", storage={"format": [], "compress": {}})),
    "a layer's name that is a path": (2, lambda files: with_json(files, "set", layers=["../../l0", "l1"])),
    "metadata nested without end": (2, lambda files: files | {f"{NAME}/zarr.json": b"[" * 200_000}),
    "a frame of 32 TiB": (2, zstd_bomb),
}


@pytest.mark.parametrize("what", list(CRAFTED))
def test_crafted_files_are_refused(tmp_path: Path, stores: Stores, what: str) -> None:
    """Every checksum and name is right; a reader still raises nothing but StoreError."""
    number, craft = CRAFTED[what]
    assert KINDS[number][1] == "zstd"
    files = repair(craft(dict(stores.files[number])))
    for name, data in files.items():
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(data)
    assert verify_store(tmp_path / "s")[NAME], "verify is silent"
    refused = 0
    try:
        features = FeatureStore.open(tmp_path / "s")[NAME]
        keys = list(features)
    except StoreError:
        return
    for key in keys:
        for layer in features.layers:
            for reader in (features.array, features.stored):
                try:
                    result = reader(key, layer)
                except StoreError:
                    refused += 1
                else:
                    assert len(result) <= 3
            try:
                features.gather([key], layer, dtype="float32")
            except StoreError:
                refused += 1
    assert refused or what in ("a key twice", "a format that is none")


def run_fuzzer(*options: object) -> str:
    process = run_warm(
        "from benchmarks.fuzz_store import main; raise SystemExit(main())", *options, cwd=ROOT, timeout=600
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_random_damages_neither_crash_nor_mislead() -> None:
    """In a process of its own, which may crash. The long run, guided by coverage: python -m benchmarks.fuzz_store."""
    output = run_fuzzer("--random", "--runs", 40, "--seconds", 60, "--seed", os.getpid())
    assert "no crash, no wrong row" in output


@pytest.mark.slow
def test_more_random_damages_neither_crash_nor_mislead() -> None:
    output = run_fuzzer("--random", "--runs", 400, "--seconds", 60, "--seed", os.getpid())
    assert "no crash, no wrong row" in output


@pytest.mark.slow
def test_damages_that_reached_new_code_in_long_runs() -> None:
    """Of libFuzzer's corpus as many as reach every edge of the code; each line is an input of `damage_and_read`."""
    output = run_fuzzer("--replay", Path(__file__).with_name("fuzz_inputs.txt"))
    assert "no crash, no wrong row" in output
