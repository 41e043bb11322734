"""`bench io` reads what it wrote with every reader, says so in numbers, and cleans up."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import io as bench
from featurestore.errors import ConfigError

SMALL = {"n_utterances": 40, "dim": 16, "mean_s": 0.8, "batch": 7, "repeats": 2}


@pytest.mark.parametrize("cold", [False, True])
def test_every_reader_is_measured_on_the_same_bytes(tmp_path: Path, cold: bool) -> None:
    told: list[str] = []
    result = bench.run_io(tmp_path, **SMALL, cold=cold, json_path=tmp_path / "io.json", progress=told.append)
    names = [row["name"] for row in result["warm"]]
    assert names[:2] == [bench.FLOOR, bench.OURS]
    assert len(names) == len(set(names)) == 8
    assert result["warm"][0]["ratio_to_floor"] == 1.0
    for row in (*result["warm"], *(result["cold"] or [])):
        assert len(row["seconds"]) == 2
        assert row["gb_per_s"] > 0
        assert row["utterances_per_s"] * 1e-9 * result["n_bytes"] / 40 == pytest.approx(row["gb_per_s"])
    assert bool(result["cold"]) == cold
    assert json.loads((tmp_path / "io.json").read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["io.json"]
    assert told

    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(bench.io_table(result))
    text = console.export_text()
    assert all(name in text for name in names)
    console.file.close()


def test_a_reader_that_returns_other_rows_is_found() -> None:
    settings = bench.IoSettings(**SMALL)
    rows = bench.Rows.random(settings)
    batches = bench.batches_of(rows, settings, 0)

    class Wrong(bench.Memcpy):
        def read(self, batch: bench.Batch) -> np.ndarray:
            out = super().read(batch)
            out[-1, -1] += 1
            return out

    bench.check("right", bench.Memcpy(rows, settings), rows, batches)
    with pytest.raises(AssertionError, match="wrong returned other rows"):
        bench.check("wrong", Wrong(rows, settings), rows, batches)


def test_batches_hold_every_utterance_once_and_differ_between_repeats() -> None:
    settings = bench.IoSettings(**SMALL)
    rows = bench.Rows.random(settings)
    first, second = (bench.batches_of(rows, settings, repeat) for repeat in range(2))
    assert first == bench.batches_of(rows, settings, 0) != second
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch.numbers) == list(range(40))
        assert sum(batch.n_rows for batch in batches) == len(rows.values)
    assert max(batch.n_rows for batch in first) <= rows.largest_batch(settings.batch)


@pytest.mark.parametrize("setting", ["n_utterances", "dim", "mean_s", "batch", "repeats"])
def test_impossible_settings_are_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is 0"):
        bench.run_io(**{setting: 0})


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GB in .*--directory"):
        bench.run_io(tmp_path, n_utterances=10**9)
    assert not list(tmp_path.iterdir())
