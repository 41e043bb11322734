"""A segment is what any Zarr reader reads, its name is its content, and damage to it is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from featurestore.errors import StoreError
from featurestore.segment import Segment
from featurestore.segment_writer import SegmentWriter, remove_stale
from featurestore.spec import FeatureSpec
from featurestore.zarr3 import CHUNK_BYTES, ShardLayout, chunk_file

KEYS = ["plain", "a/b c/../ü", "", "話者\x00", "x" * 300]


def make_spec(dtype: str = "float16", dim: int = 3, layers: tuple[str, ...] = ("layer_00", "layer_01")) -> FeatureSpec:
    return FeatureSpec("audio", "e", "none", layers, dim, dtype=dtype)


def write(directory: Path, spec: FeatureSpec, lengths: list[int], seed: int = 0) -> tuple[Path, list[list[np.ndarray]]]:
    rng = np.random.default_rng(seed)
    writer = SegmentWriter(directory, spec)
    written = []
    for i, n_rows in enumerate(lengths):
        layers = [rng.standard_normal((n_rows, spec.dim)).astype(spec.dtype) for _ in spec.layers]
        writer.append(KEYS[i % len(KEYS)].encode() + str(i).encode(), layers, float(i))
        written.append(layers)
    return writer.commit(), written


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("lengths", [[4, 0, 1, 7], [0], [0, 0], [1], [5000, 3, 2500]])
def test_zarr_reads_every_array_bit_for_bit(tmp_path: Path, dtype: str, lengths: list[int]) -> None:
    dim = 300 if max(lengths) > 1000 else 3  # the long ones take several inner chunks
    spec = make_spec(dtype, dim)
    path, written = write(tmp_path, spec, lengths)
    group = zarr.open_group(path, mode="r")
    for layer, name in enumerate(spec.layers):
        array = group[name]
        expected = np.concatenate([layers[layer] for layers in written])
        assert array.dtype == np.dtype(dtype)
        assert array.shape == expected.shape
        assert array[:].tobytes() == expected.tobytes()
        assert Segment(path, spec).rows(name).tobytes() == expected.tobytes()
    offsets = group["offsets"][:]
    assert offsets.tolist() == [0, *np.cumsum(lengths).tolist()]
    assert offsets.dtype == np.int64
    blob, bounds = group["keys"][:].tobytes(), group["key_offsets"][:]
    keys = [blob[bounds[i] : bounds[i + 1]].decode() for i in range(len(lengths))]
    assert keys == [KEYS[i % len(KEYS)] + str(i) for i in range(len(lengths))]
    assert group["durations_s"][:].tolist() == [float(i) for i in range(len(lengths))]
    assert group["checksums"].shape == (len(lengths), 2)
    assert group["key_hashes"].dtype == np.uint64
    assert sorted(group.array_keys()) == sorted(p.name for p in path.iterdir() if p.is_dir())


def test_zarr_reads_single_rows_of_a_large_layer(tmp_path: Path) -> None:
    spec = make_spec(dim=300, layers=("layer_00",))
    path, written = write(tmp_path, spec, [9000])
    array = zarr.open_array(path / "layer_00", mode="r")
    assert array.chunks[0] * 300 * 2 <= CHUNK_BYTES
    for row in (0, array.chunks[0] - 1, array.chunks[0], 8999):
        assert np.array_equal(array[row], written[0][0][row])


@pytest.mark.parametrize(("n_rows", "dim"), [(1, 1), (3495, 300), (3496, 300), (100_000, 1024), (7, 2_000_000)])
def test_padding_is_less_than_one_row_per_chunk(n_rows: int, dim: int) -> None:
    layout = ShardLayout.balanced(n_rows, dim, 2)
    assert layout.n_chunks * layout.chunk_rows >= n_rows
    assert layout.padding_bytes < layout.n_chunks * dim * 2
    assert layout.file_bytes == layout.data_bytes + len(layout.tail())


def test_the_same_content_is_one_segment(tmp_path: Path) -> None:
    first, _ = write(tmp_path, make_spec(), [3, 2])
    second, _ = write(tmp_path, make_spec(), [3, 2])
    other, _ = write(tmp_path, make_spec(), [3, 2], seed=1)
    assert first == second != other
    assert sorted(tmp_path.iterdir()) == sorted([first, other])


def test_an_interrupted_append_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an append: the utterance is left out, those before and after it are whole."""
    spec = make_spec()
    writer = SegmentWriter(tmp_path, spec)
    rows = [np.full((4, 3), value, dtype=np.float16) for value in range(4)]
    writer.append(b"first", rows[:2], 0.0)

    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr("featurestore.segment_writer.google_crc32c.value", interrupt)
        writer.append(b"broken", rows[1:3], 0.0)
    writer.append(b"second", rows[2:], 0.0)
    segment = Segment(writer.commit(), spec)
    assert segment.n_utterances == 2
    assert segment.rows("layer_01")[:, 0].tolist() == [1.0] * 4 + [3.0] * 4
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

    with pytest.raises(StoreError, match=f"{file}.*expected {size} bytes, found {size - 1} bytes"):
        read_all()
    (path / file).unlink()
    with pytest.raises(StoreError, match=f"{file}.*expected {size} bytes, found no file"):
        read_all()


@pytest.mark.parametrize("file", ["layer_01/c/0/0", *SMALL_FILES])
def test_every_flipped_bit_of_the_data_is_found(tmp_path: Path, file: str) -> None:
    path, _ = write(tmp_path, make_spec(), [3, 2])
    data = bytearray((path / file).read_bytes())
    assert Segment(path, make_spec()).verify() == []
    for i in range(len(data)):
        damaged = data.copy()
        damaged[i] ^= 1 << (i % 8)
        (path / file).write_bytes(damaged)
        assert Segment(path, make_spec()).verify(), f"byte {i}"


@pytest.mark.parametrize("file", ["zarr.json", *JSON_FILES])
def test_altered_metadata_is_found(tmp_path: Path, file: str) -> None:
    path, _ = write(tmp_path, make_spec(), [3, 2])
    text = (path / file).read_text()
    for i, old in enumerate(text):
        if old.isdigit():
            (path / file).write_text(text[:i] + str((int(old) + 1) % 10) + text[i + 1 :])
            try:
                problems = Segment(path, make_spec()).verify()
            except StoreError as error:
                problems = [str(error)]
            assert problems, text[: i + 1]


def test_a_foreign_segment_and_foreign_files_are_named(tmp_path: Path) -> None:
    path, _ = write(tmp_path, make_spec(), [3])
    with pytest.raises(StoreError, match="belongs to another feature set"):
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
        opened = [Segment(path, spec).rows("layer_00") for _ in range(200)]
        assert all(len(rows) == 2 for rows in opened)
    finally:
        opened = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stale_directories_go_and_live_ones_stay(tmp_path: Path) -> None:
    import os

    alive = SegmentWriter(tmp_path, make_spec())
    dead, young = tmp_path / ".tmp-1-dead", tmp_path / ".tmp-2-young"
    for path in (dead, young):
        (path / "layer_00").mkdir(parents=True)
        (path / "layer_00" / "part").write_bytes(b"rows")
    for path in (dead, alive.path):
        for entry in (*path.rglob("*"), path):
            os.utime(entry, (1.0, 1.0))
    remove_stale(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([alive.path.name, young.name])
    alive.discard()
    assert chunk_file(Path("a"), 2) == Path("a/c/0/0")
