"""Files written behind hold what was appended, whatever interrupts an append; what the disk refuses is raised."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format import hdf5_segment, write_behind
from featurestore.format.hdf5_sink import Hdf5Sink
from featurestore.format.segment_writer import SegmentWriter
from featurestore.format.spec import FeatureSpec
from featurestore.format.write_behind import StagedFile, WriteBehind
from featurestore.store.feature_store import FeatureStore

SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 32)
ONE_LAYER = FeatureSpec("audio", "e", "none", ("l0",), 32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "STAGED_BYTES", 1 << 18)


def utterance(i: int) -> np.ndarray:
    """(L, T, D): some larger than a block, some of no rows."""
    n = (0, 3, 700, 5000)[i % 4]
    return np.random.default_rng(i).random((2, n, SPEC.dim)).astype(np.float16)


def test_rows_of_many_blocks_are_read_back(tmp_path: Path, small_blocks: None) -> None:
    with FeatureStore.create(tmp_path / "s").writer("a", SPEC) as writer:
        for i in range(40):
            writer.append(f"{i}", utterance(i))
    features = FeatureStore.open(tmp_path / "s")["a"]
    assert features.verify() == []
    for i in range(40):
        for rows, layer in zip(utterance(i), SPEC.layers, strict=True):
            assert features.array(f"{i}", layer).tobytes() == rows.tobytes()


@pytest.mark.parametrize("write_s", [0.0, 0.003])
def test_an_array_may_change_once_it_was_written_and_blocks_are_used_again(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, write_s: float
) -> None:
    """With a disk that keeps up, and with one that the blocks wait for."""
    blocks: set[int] = set()
    write = write_behind._write

    def slow(handle: int, start: int, data: np.ndarray, lasting: bool) -> None:
        blocks.add(data.ctypes.data)
        time.sleep(write_s)
        write(handle, start, data, lasting)

    monkeypatch.setattr(write_behind, "_write", slow)
    behind = WriteBehind(1)
    file = StagedFile(tmp_path / "file", behind)
    values, expected = np.empty(100_000, np.uint8), b""
    for i in range(30):
        values[:] = i
        file.write_at(i * values.size, values)
        expected += values.tobytes()
    behind.finish()
    file.finish()
    file.close()
    behind.close()
    assert (tmp_path / "file").read_bytes() == expected
    assert len(blocks) <= 4  # of 23: one that is filled, one that is written, two that wait


def write_one_layer(place: Path, dtype: str, n: int) -> Path:
    """Write n utterances as one HDF5 segment; returns its file."""
    with FeatureStore.create(place).writer("a", replace(ONE_LAYER, dtype=dtype), format="hdf5") as writer:
        for i in range(n):
            writer.append(f"{i}", utterance(i)[:1])
    (file,) = (place / "a").glob("*.h5")
    return file


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_rows_that_stay_in_their_file_are_those_that_are_copied(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Large segments of one layer become HDF5 around their rows: h5py reads what it reads of a copied one."""
    copied = write_one_layer(tmp_path / "copied", dtype, 12)
    monkeypatch.setattr(hdf5_segment, "IN_PLACE_BYTES", 1 << 18)
    around_rows = write_one_layer(tmp_path / "kept", dtype, 12)
    assert around_rows.name == copied.name
    with h5py.File(around_rows) as ours, h5py.File(copied) as theirs:
        assert (ours["l0"].id.get_offset(), theirs["l0"].id.get_offset() < 1 << 14) == (1 << 16, True)
        assert sorted(ours) == sorted(theirs)
        for name in theirs:
            np.testing.assert_array_equal(ours[name][()], theirs[name][()])
            assert dict(ours[name].attrs) == dict(theirs[name].attrs)
    for place in ("copied", "kept"):
        assert FeatureStore.open(tmp_path / place)["a"].verify() == []


@pytest.mark.parametrize("n_lines", range(1, 60, 3))
def test_an_interrupted_append_leaves_rows_that_stay_in_their_file_whole(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, n_lines: int
) -> None:
    """Half of a long utterance lies behind the others in the file that becomes the segment."""
    monkeypatch.setattr(hdf5_segment, "IN_PLACE_BYTES", 1 << 16)
    directory = tmp_path / "s"
    directory.mkdir()
    writer = SegmentWriter(directory, ONE_LAYER, "hdf5")
    parts = [np.random.default_rng(n).random((n, ONE_LAYER.dim)).astype(np.float16) for n in (700, 3000, 9000)]
    for i in range(2):
        writer.append(b"%d" % i, [parts[i]], 0.0)
    interrupted_after(n_lines, lambda: writer.append(b"half", [parts[2]], 0.0))
    n = writer.n_utterances
    with h5py.File(writer.commit()) as file:
        assert file["l0"].id.get_offset() == 1 << 16
        np.testing.assert_array_equal(file["l0"][()], np.concatenate(parts[:n]))


@pytest.mark.parametrize("other", [{"alignment_interval": 1 << 14}, {"libver": "latest"}])
def test_rows_that_libhdf5_places_elsewhere_are_copied(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, other: dict[str, object]
) -> None:
    """As another version of libhdf5 might: the segment holds the same either way."""
    monkeypatch.setattr(hdf5_segment, "IN_PLACE_BYTES", 1 << 16)
    open_file = h5py.File

    def opened(file: object, mode: str, **options: object) -> h5py.File:
        around_rows = options.get("userblock_size") == hdf5_segment.ROWS_AT // 2
        return open_file(file, mode, **(options | other if around_rows else options))

    monkeypatch.setattr(h5py, "File", opened)
    rows = np.random.default_rng(0).random((9000, ONE_LAYER.dim)).astype(np.float16)
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("a", ONE_LAYER, format="hdf5") as writer:
        writer.append("k", {"l0": rows})
    monkeypatch.undo()
    features = FeatureStore.open(tmp_path / "s")["a"]
    np.testing.assert_array_equal(features["k"], rows)
    assert features.verify() == []
    with h5py.File(features.segments[0].path) as file:
        assert (file["l0"].id.get_offset() == hdf5_segment.ROWS_AT) is ("libver" in other)
        np.testing.assert_array_equal(file["l0"][()], rows)
    assert sorted(path.name for path in (tmp_path / "s" / "a").iterdir()) == [features.segments[0].name, "zarr.json"]


def test_a_file_that_libhdf5_would_write_over_is_an_error(tmp_path: Path) -> None:
    with open(tmp_path / "rows", "w+b", buffering=0) as file:
        file.write(b"rows" * 8)
        for spoil in (lambda sink: sink.write(b"metadata"), lambda sink: sink.truncate(16)):
            sink = Hdf5Sink(file, (4, 32))
            spoil(sink)
            assert sink.error is not None
            assert sink.overwrites
    assert (tmp_path / "rows").read_bytes() == b"rows" * 8


@pytest.mark.parametrize("n_lines", range(1, 60, 2))
def test_an_append_interrupted_anywhere_leaves_the_others_whole(
    tmp_path: Path, small_blocks: None, n_lines: int
) -> None:
    """An interrupt between any two lines of the writer's own code, in the middle of a block and at its end."""
    directory = tmp_path / "s"
    directory.mkdir()
    writer = SegmentWriter(directory, SPEC)
    sizes = [700, 3000, 900, 2100, 40]
    parts = [np.random.default_rng(n).random((2, n, SPEC.dim)).astype(np.float16) for n in sizes]
    for i, part in enumerate(parts):
        if i == 3:
            interrupted_after(n_lines, lambda: writer.append(b"half", list(parts[3]), 0.0))
            if writer.n_utterances > 3:  # it was over before the interrupt
                return
        writer.append(b"%d" % i, list(part), 0.0)
    segment = writer.commit()
    for k, layer in enumerate(SPEC.layers):
        data = (segment / layer / "c" / "0" / "0").read_bytes()
        assert data[: sum(sizes) * 64] == b"".join(part[k].tobytes() for part in parts)


def interrupted_after(n_lines: int, call: Callable[[], None]) -> None:
    n_left = n_lines

    def trace(frame, event, argument):  # type: ignore[no-untyped-def]
        nonlocal n_left
        if event == "line" and "featurestore/format" in frame.f_code.co_filename:
            n_left -= 1
            if n_left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


def test_what_the_disk_refuses_is_raised_by_a_later_append(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def refusing(handle: int, data: bytes, position: int) -> int:
        if position > 1 << 20:
            raise OSError(28, "No space left on device")
        return real(handle, data, position)

    monkeypatch.setattr(os, "pwrite", refusing)
    store = FeatureStore.create(tmp_path / "s")
    writer = store.writer("a", SPEC)
    writer.append("kept", utterance(1))
    writer.commit()

    def fill() -> None:
        for i in range(100):
            writer.append(f"{i}", utterance(2))

    with pytest.raises(StoreError, match="No space left"):
        fill()
    assert not list((tmp_path / "s" / "a").glob(".tmp-*"))
    writer.append("again", utterance(1))
    writer.commit()
    assert sorted(FeatureStore.open(tmp_path / "s")["a"]) == ["again", "kept"]


def test_without_room_for_a_thread_blocks_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    behind = WriteBehind(1)
    file = StagedFile(tmp_path / "rows", behind)
    data = np.random.default_rng(0).integers(0, 256, 3 * behind.block_bytes + 5, dtype="u1")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        file.write_at(0, data[: 2 * behind.block_bytes + 1])
    assert (tmp_path / "rows").stat().st_size == 2 * behind.block_bytes
    file.write_at(2 * behind.block_bytes + 1, data[2 * behind.block_bytes + 1 :])  # there is room again
    behind.finish()
    file.finish()
    file.close()
    behind.close()
    assert (tmp_path / "rows").read_bytes() == data.tobytes()
