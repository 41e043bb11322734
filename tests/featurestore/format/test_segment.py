"""A segment is what any Zarr or HDF5 reader reads, its name is its content, and damage to it is named.

One suite for every way to store one: both containers, compressed and not, all row types.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from featurestore.errors import SegmentGone, StoreError
from featurestore.format.segment import Segment
from featurestore.format.segment_writer import SegmentWriter, remove_stale
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import CHUNK_BYTES, ShardLayout, chunk_file
from featurestore.rows.rowtypes import ROW_TYPES, encode
from tests.helpers.small_store import STORAGES

KEYS = ["plain", "a/b c/../ü", "", "話者\x00", "x" * 300]


def make_spec(dtype: str = "float16", dim: int = 3, layers: tuple[str, ...] = ("layer_00", "layer_01")) -> FeatureSpec:
    return FeatureSpec("audio", "e", "none", layers, dim, dtype=dtype)


def write(
    directory: Path, spec: FeatureSpec, lengths: list[int], seed: int = 0, format: str = "zarr", compress: str = ""
) -> tuple[Path, list[list[np.ndarray]]]:
    """Return a committed segment, and its rows as they are stored: per utterance, per layer."""
    rng = np.random.default_rng(seed)
    writer = SegmentWriter(directory, spec, format, compress)
    written = []
    for i, n_rows in enumerate(lengths):
        pairs = [encode(rng.standard_normal((n_rows, spec.dim)), spec.row_type) for _ in spec.layers]
        layers = [rows for rows, _ in pairs]
        scales = [scale for _, scale in pairs if scale is not None]
        writer.append(KEYS[i % len(KEYS)].encode() + str(i).encode(), layers, float(i), scales)
        written.append(layers)
    return writer.commit(), written


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open the segment as zarr-python or h5py see it, with no help from us."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            yield file
    else:
        yield zarr.open_group(path, mode="r")


LONG = [5000, 3, 2500]


def takes_long(dtype: str, format: str, compress: str) -> bool:
    return dtype != "int8" and (dtype, format, compress) != ("float16", "zarr", "")


@pytest.mark.parametrize(
    ("lengths", "dtype", "format", "compress"),
    [
        pytest.param(lengths, dtype, *storage, marks=pytest.mark.slow if long and takes_long(dtype, *storage) else ())
        for lengths in ([4, 0, 1, 7], [0, 0], [1], LONG)
        for dtype in ROW_TYPES
        for storage in STORAGES
        for long in (lengths is LONG,)
    ],
)
def test_other_readers_read_every_array_bit_for_bit(
    tmp_path: Path, dtype: str, lengths: list[int], format: str, compress: str
) -> None:
    dim = 300 if max(lengths) > 1000 else 3  # the long ones take several inner chunks
    spec = make_spec(dtype, dim)
    path, written = write(tmp_path, spec, lengths, format=format, compress=compress)
    segment = Segment(path, spec)
    assert segment.verify() == []
    assert segment.format == format
    with opened(path) as group:
        for layer, name in enumerate(spec.layers):
            array = group[name]
            expected = np.concatenate([layers[layer] for layers in written])
            assert array.dtype == np.dtype(ROW_TYPES[dtype].stored)
            assert array.shape == expected.shape
            assert array[:].tobytes() == expected.tobytes()
            rows = segment.layer(name)
            rows.fetch([(0, len(expected))])
            assert rows.slice(0, len(expected)).tobytes() == expected.tobytes()
            first, n = len(expected) // 3, len(expected) // 2
            assert rows.slice(first, n).tobytes() == expected[first : first + n].tobytes()
            assert dict(array.attrs).get("medusa_dtype", dtype) == dtype
            if dtype == "int8":
                assert array.attrs["scale"] == f"{name}.scale"
                np.testing.assert_array_equal(group[f"{name}.scale"][:], segment.scales(name).array)
        offsets = group["offsets"][:]
        assert offsets.tolist() == [0, *np.cumsum(lengths).tolist()]
        assert offsets.dtype == np.int64
        blob, bounds = group["keys"][:].tobytes(), group["key_offsets"][:]
        keys = [blob[bounds[i] : bounds[i + 1]].decode() for i in range(len(lengths))]
        assert keys == [KEYS[i % len(KEYS)] + str(i) for i in range(len(lengths))]
        assert group["durations_s"][:].tolist() == [float(i) for i in range(len(lengths))]
        assert group["checksums"].shape == (len(lengths), 2)
        assert group["key_hashes"].dtype == np.uint64
        if format == "zarr":
            assert sorted(group.array_keys()) == sorted(p.name for p in path.iterdir() if p.is_dir())


@pytest.mark.parametrize(("format", "compress"), STORAGES)
def test_the_same_content_is_the_same_bytes(tmp_path: Path, format: str, compress: str) -> None:
    contents = []
    for directory in (tmp_path / "a", tmp_path / "b"):
        directory.mkdir()
        path, _ = write(directory, make_spec("int8"), [3, 2], format=format, compress=compress)
        files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
        contents.append({str(entry.relative_to(directory)): entry.read_bytes() for entry in files})
    assert contents[0] == contents[1]


def test_zarr_reads_single_rows_of_a_large_layer(tmp_path: Path) -> None:
    spec = make_spec(dim=300, layers=("layer_00",))
    path, written = write(tmp_path, spec, [9000])
    array = zarr.open_array(path / "layer_00", mode="r")
    assert array.chunks[0] * 300 * 2 <= CHUNK_BYTES
    for row in (0, array.chunks[0] - 1, array.chunks[0], 8999):
        assert np.array_equal(array[row], written[0][0][row])


@pytest.mark.parametrize(("format", "compress"), [("zarr", "zstd"), ("zarr", "blosc"), ("hdf5", "gzip")])
def test_compression_makes_repetitive_rows_small(tmp_path: Path, format: str, compress: str) -> None:
    spec = make_spec(dim=64, layers=("layer_00",))
    writer = SegmentWriter(tmp_path, spec, format, compress)
    writer.append(b"k", [np.ones((20_000, 64), np.float16)], 1.0)
    path = writer.commit()
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    assert sum(entry.stat().st_size for entry in files) < 20_000 * 64 * 2 / 20


@pytest.mark.parametrize(("n_rows", "dim"), [(1, 1), (3495, 300), (3496, 300), (100_000, 1024), (7, 2_000_000)])
def test_padding_is_less_than_one_row_per_chunk(n_rows: int, dim: int) -> None:
    layout = ShardLayout.balanced(n_rows, dim, 2)
    assert layout.n_chunks * layout.chunk_rows >= n_rows
    assert layout.padding_bytes < layout.n_chunks * dim * 2
    assert layout.file_bytes == layout.data_bytes + len(layout.tail())


def test_the_same_content_is_one_segment(tmp_path: Path, store_format: str) -> None:
    first, _ = write(tmp_path, make_spec(), [3, 2], format=store_format)
    second, _ = write(tmp_path, make_spec(), [3, 2], format=store_format)
    other_seed, _ = write(tmp_path, make_spec(), [3, 2], seed=1, format=store_format)
    assert first == second != other_seed
    assert sorted(tmp_path.iterdir()) == sorted([first, other_seed])


def test_an_interrupted_append_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an append: the utterance is left out, those before and after it are whole."""
    spec = make_spec()
    writer = SegmentWriter(tmp_path, spec)
    rows = [np.full((4, 3), value, dtype=np.float16) for value in range(4)]
    writer.append(b"first", rows[:2], 0.0)

    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr("featurestore.format.segment.google_crc32c.value", interrupt)
        writer.append(b"broken", rows[1:3], 0.0)
    writer.append(b"second", rows[2:], 0.0)
    segment = Segment(writer.commit(), spec)
    assert segment.n_utterances == 2
    assert segment.layer("layer_01").slice(0, 8)[:, 0].tolist() == [1.0] * 4 + [3.0] * 4
    assert segment.verify() == []


SMALL_FILES = ["offsets/c/0", "keys/c/0", "key_offsets/c/0", "key_hashes/c/0", "checksums/c/0/0", "durations_s/c/0"]
JSON_FILES = [f"{name}/zarr.json" for name in ("layer_00", "offsets", "keys", "checksums")]


@pytest.mark.parametrize("file", ["layer_01/c/0/0", *SMALL_FILES])
def test_truncated_and_missing_files_are_named(tmp_path: Path, file: str) -> None:
    path, _ = write(tmp_path, make_spec(), [3, 2])
    size = (path / file).stat().st_size
    with open(path / file, "r+b") as handle:
        handle.truncate(size - 1)

    def read_all() -> None:
        segment = Segment(path, make_spec())
        assert segment.verify()
        for name in ("offsets", "keys", "key_offsets", "key_hashes", "checksums", "durations_s"):
            segment.small(name)

    with pytest.raises(StoreError, match=f"{file}.*{size} bytes.* {size - 1} bytes"):
        read_all()
    (path / file).unlink()
    with pytest.raises(StoreError, match=f"{file}.*{size} bytes.* no file"):
        read_all()


def damage_found(path: Path, spec: FeatureSpec) -> list[str]:
    try:
        return Segment(path, spec).verify()
    except StoreError as error:
        return [str(error)]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 600, -1])
def test_a_cut_hdf5_segment_is_named(tmp_path: Path, size: int) -> None:
    path, _ = write(tmp_path, make_spec(), [3, 2], format="hdf5")
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(StoreError, match=path.name):
        Segment(path, make_spec())
    path.write_bytes(data + b"x")
    with pytest.raises(StoreError, match=f"{len(data)} bytes.* {len(data) + 1} bytes"):
        Segment(path, make_spec())


def test_a_file_cut_under_a_live_map_is_an_error(tmp_path: Path, store_format: str) -> None:
    path, _ = write(tmp_path, make_spec(dim=300), [3000], format=store_format)
    segment = Segment(path, make_spec(dim=300))
    rows = segment.layer("layer_00")
    rows.fetch([(0, 3000)])
    with open(path if store_format == "hdf5" else path / "layer_00/c/0/0", "r+b") as file:
        file.truncate(4096)
    with pytest.raises(StoreError, match=r"truncated.* 4096 bytes"):
        rows.fetch([(0, 3000)])


def test_a_removed_segment_is_distinguished_from_a_damaged_one(tmp_path: Path, store_format: str) -> None:
    path, _ = write(tmp_path, make_spec(), [3], format=store_format)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SegmentGone):
        Segment(path, make_spec())


def test_a_renamed_segment_is_found(tmp_path: Path) -> None:
    path, _ = write(tmp_path, make_spec(), [3])
    renamed = path.rename(path.with_name("seg-0123456789abcdef"))
    assert any("renamed" in problem for problem in Segment(renamed, make_spec()).verify())


@pytest.mark.parametrize("file", ["zarr.json", *JSON_FILES])
def test_altered_metadata_is_found(tmp_path: Path, file: str) -> None:
    path, _ = write(tmp_path, make_spec(), [3, 2])
    text = (path / file).read_text()
    for i, old in enumerate(text):
        if old.isdigit():
            (path / file).write_text(text[:i] + str((int(old) + 1) % 10) + text[i + 1 :])
            assert damage_found(path, make_spec()), text[: i + 1]


def test_a_foreign_segment_and_foreign_files_are_named(tmp_path: Path) -> None:
    path, _ = write(tmp_path, make_spec(), [3])
    with pytest.raises(StoreError, match=r"another feature set.*fingerprint"):
        Segment(path, make_spec("float32"))
    (path / "notes.txt").write_text("mine")
    assert any("notes.txt" in problem for problem in Segment(path, make_spec()).verify())
    shutil.rmtree(path / "layer_00")
    with pytest.raises(StoreError, match="layer_00/c/0/0"):
        Segment(path, make_spec())


def test_more_segments_than_the_limit_of_open_files(tmp_path: Path) -> None:
    """A store of hundreds of segments must not fail at the usual limit of 1024 files; maps hold one each."""
    import resource

    spec = make_spec(layers=("layer_00",))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path, _ = write(tmp_path, spec, [2])
    if hard != resource.RLIM_INFINITY and hard < 300:
        pytest.skip("the hard limit is too low to try")
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        maps = [Segment(path, spec).layer("layer_00") for _ in range(200)]
        assert all(len(rows.slice(0, 2)) == 2 for rows in maps)
    finally:
        maps = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stale_directories_go_and_live_ones_stay(tmp_path: Path) -> None:
    import os

    alive = SegmentWriter(tmp_path, make_spec())
    dead, young = tmp_path / ".tmp-1-dead", tmp_path / ".tmp-2-young"
    for path in (dead, young):
        (path / "layer_00").mkdir(parents=True)
        (path / "layer_00" / "part").write_bytes(b"rows")
    removed = tmp_path / ".tmp-removed-3"  # a file: an HDF5 segment
    removed.write_bytes(b"rows")
    for path in (dead, alive.path, removed):
        for entry in (*path.rglob("*"), path):
            os.utime(entry, (1.0, 1.0))
    remove_stale(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([alive.path.name, young.name])
    alive.discard()
    assert chunk_file(Path("a"), 2) == Path("a/c/0/0")
