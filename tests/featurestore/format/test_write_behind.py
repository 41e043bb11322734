"""Files written behind hold what was appended, whatever interrupts an append; what the disk refuses is raised."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format import write_behind
from featurestore.format.segment_writer import SegmentWriter
from featurestore.format.spec import FeatureSpec
from featurestore.format.write_behind import StagedFile, WriteBehind
from featurestore.store.feature_store import FeatureStore

SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 32)


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


def test_an_array_may_change_once_it_was_written(tmp_path: Path, small_blocks: None) -> None:
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
    left = n_lines

    def trace(frame, event, argument):  # type: ignore[no-untyped-def]
        nonlocal left
        if event == "line" and "featurestore/format" in frame.f_code.co_filename:
            left -= 1
            if left == 0:
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
