"""Segments that are committed behind the writer: in order, visible at the end, their errors raised."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format.segment_writer import SegmentWriter
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_store import SPEC, key, rows, same_rows


def test_the_next_segment_is_appended_to_while_one_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit, commit = threading.Event(), SegmentWriter.commit

    def held_up(segment: SegmentWriter) -> Any:
        assert may_commit.wait(10)
        return commit(segment)

    monkeypatch.setattr(SegmentWriter, "commit", held_up)
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("a", SPEC) as writer:
        writer.commits_behind = True
        for i in range(1, 4):
            writer.append(key(i), rows(i))
        writer.end_segment()
        writer.append(key(6), rows(6))
        assert key(1) in writer
        with pytest.raises(StoreError, match="written once"):
            writer.append(key(1), rows(1))
        may_commit.set()
    features = FeatureStore.open(tmp_path / "s")["a"]
    assert all(same_rows(features, i) for i in (1, 2, 3, 6))
    assert len(list((tmp_path / "s" / "a").glob("seg-*"))) == 2


def test_an_error_of_a_commit_behind_is_raised_and_the_segment_after_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = SegmentWriter.commit, []

    def failing_once(segment: SegmentWriter) -> Any:
        calls.append(segment)
        if len(calls) == 1:
            segment.discard()
            raise StoreError("the disk is full")
        return commit(segment)

    monkeypatch.setattr(SegmentWriter, "commit", failing_once)
    store = FeatureStore.create(tmp_path / "s")

    def write() -> None:
        with store.writer("a", SPEC) as writer:
            writer.commits_behind = True
            writer.append(key(1), rows(1))
            writer.end_segment()
            writer.append(key(2), rows(2))

    with pytest.raises(StoreError, match="the disk is full"):
        write()
    features = FeatureStore.open(tmp_path / "s")["a"]
    assert key(1) not in features
    assert same_rows(features, 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_in_the_stored_type_are_stored_as_those_that_are_cast_here(tmp_path: Path, dtype: str) -> None:
    from tests.helpers.small_store import with_dtype

    values = rows(3) * 100
    bits = values.astype(np.float16)
    if dtype == "bfloat16":
        from featurestore.rows.kernels import to_bfloat16

        bits = np.stack([to_bfloat16(layer) for layer in values])
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("a", with_dtype(dtype)) as writer:
        writer.append("cast", values)
        writer.append("stored", bits, stored=True)
        bits = bits.copy()
        bits[0, 1, 2] = np.inf if dtype == "float16" else 0x7F80
        with pytest.raises(StoreError, match=r"row 1 of .*too large for"):
            writer.append("infinite", bits, stored=True)
        bits[0, 1, 2] = np.nan if dtype == "float16" else 0x7FC0
        with pytest.raises(StoreError, match="NaN"):
            writer.append("nan", bits, stored=True)
    features = FeatureStore.open(tmp_path / "s")["a"]
    for layer in SPEC.layers:
        np.testing.assert_array_equal(features.array("cast", layer), features.array("stored", layer))
    assert len(features) == 2
