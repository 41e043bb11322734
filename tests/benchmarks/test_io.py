"""`bench io` reads and writes the same rows with every way that is installed, says so in numbers, and cleans up."""

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.io import IoSettings, io_report, plot_io, run_io
from benchmarks.io.disk import make_cold, resident_bytes
from benchmarks.io.measure import check, measure, shares
from benchmarks.io.ours import MEDUSA_WAYS, write_store
from benchmarks.io.report import summary
from benchmarks.io.rows import Batch, Rows, Shape
from benchmarks.io.run import LAYOUTS, WAYS, _groups
from benchmarks.io.ways import FLOOR, MEMCPY, OURS, PEER, Memcpy, Place, per_thread
from featurestore.errors import ConfigError

SMALL = IoSettings(n_utterances=40, dims=(16,), mean_s=(0.8,), batch=7, repeats=2)
SHAPE = Shape(40, 16, 0.8)


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """Return a directory whose files leave the page cache when they are asked to."""
    probe = tmp_path / "probe"
    probe.mkdir()
    (probe / "file").write_bytes(bytes(1 << 20))
    try:
        make_cold([probe / "file"])
    except ConfigError as error:
        pytest.skip(f"temporary files here can't be dropped from the page cache: {error}")
    return tmp_path


def text_of(result: dict[str, Any]) -> str:
    with open("/dev/null", "w") as nowhere:
        console = Console(width=220, record=True, file=nowhere)
        console.print(*io_report(result), sep="\n")
        return " ".join(console.export_text().split())


@pytest.mark.slow
def test_every_way_is_measured_on_the_same_rows_warm_cold_and_in_threads(on_disk: Path) -> None:
    calls: list[str] = []
    work = on_disk / "work"
    settings = replace(SMALL, cold=True, threads=(1, 2), write=True)
    result = run_io(settings, work, json_path=on_disk / "io.json", progress=calls.append)
    assert list(work.iterdir()) == []
    assert json.loads((on_disk / "io.json").read_text()) == json.loads(json.dumps(result))
    assert calls

    (shape,) = result["shapes"]
    actual = {(figure["id"], figure["state"], figure["threads"]): figure for figure in shape["figures"]}
    assert len(actual) == len(shape["figures"])
    for way in (way for way in WAYS if way.installed and way.id != "disk-direct"):
        for state in way.states:
            for n_threads in (1, 2) if way.threads else (1,):
                figure = actual.pop((way.id, state, n_threads))
                assert len(figure["seconds"]) == 2
                assert 0 < figure["gb_per_s_least"] <= figure["gb_per_s"] <= figure["gb_per_s_most"]
                assert figure["utterances_per_s"] * 1e-9 * shape["n_bytes"] / 40 == pytest.approx(figure["gb_per_s"])
    assert {id for id, _, _ in actual} <= {"disk-direct"}
    absent = [way for way in WAYS if not way.installed]
    assert [told["id"] for told in result["absent"]] == [way.id for way in absent]

    text = text_of(result)
    assert all(way.name in text for way in WAYS)
    assert all(entry["name"] in text for entry in shape["writing"])
    plot_io(result, on_disk / "io.png")
    assert (on_disk / "io.png").read_bytes().startswith(b"\x89PNG")


def test_ratios_are_those_of_the_figures() -> None:
    def figure(id: str, group: str, rate: float) -> dict[str, Any]:
        return {"id": id, "name": id, "group": group, "threads": 1, "gb_per_s": rate, "rows_per_s": rate,
                "ratio_to_floor": rate / 10}  # fmt: skip

    figures = [figure("memcpy", FLOOR, 10), figure("medusa", OURS, 9), figure("medusa-int8", OURS, 6)]
    assert summary(figures) == {1: {"floor": 0.9, "peer": None, "best_peer": None, "npy": None, "int8": 6 / 9}}
    peers = [figure("npy", PEER, 1.5), figure("lmdb", PEER, 4.5)]
    assert summary([*figures, *peers])[1] == {"floor": 0.9, "peer": 2, "best_peer": "lmdb", "npy": 6, "int8": 6 / 9}


def test_only_the_readers_requested_beside_floors_and_ours(tmp_path: Path) -> None:
    result = run_io(replace(SMALL, readers=("npy", "hdf5")), tmp_path)
    assert [figure["id"] for figure in result["shapes"][0]["figures"]] == ["memcpy", "medusa", "npy", "hdf5"]
    stages = {stage["stage"]: stage["us_per_utterance"] for stage in result["shapes"][0]["npy_stages"]}
    assert len(stages) == 6
    assert stages["opening and closing files"] > 0 < stages["memcpy of the same utterances"]
    with pytest.raises(ConfigError, match=r"sqlite.*memcpy, .*npy"):
        run_io(replace(SMALL, readers=("sqlite",)), tmp_path)


def test_shapes_have_the_same_bytes(tmp_path: Path) -> None:
    settings = replace(SMALL, dims=(16, 64), mean_s=(1.0, 2.0), readers=("medusa",), repeats=1)
    assert [shape.n_utterances for shape in settings.shapes] == [320, 160, 80, 40]
    result = run_io(settings, tmp_path)
    assert [(shape["dim"], shape["mean_s"]) for shape in result["shapes"]] == [(16, 1), (16, 2), (64, 1), (64, 2)]
    assert all(shape["figures"][0]["id"] == "memcpy" for shape in result["shapes"])


# Some peers leave files open, which isn't ours to mend.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", [way for way in WAYS if way.installed], ids=lambda way: way.id)
def test_other_rows_are_found(tmp_path: Path, way: Any) -> None:
    """Rows that differ in one bit from those written, read by every way."""
    rows = Rows.random(SHAPE, seed=0)
    if way.layout:
        LAYOUTS[way.layout](tmp_path, rows)
    changed = Rows(rows.values.copy(), rows.offsets)
    changed.values.view(np.uint16)[-1, -1] ^= 0x2000  # far enough for int8's bound, too
    place = Place(tmp_path, rows, SMALL.batch)
    for read_back, wrong in ((rows, False), (changed, True)):
        # memcpy reads the rows it is given; all others the files.
        readers = way.open(place)
        try:
            if wrong:
                with pytest.raises(AssertionError, match="bench io"):
                    check(way, readers, replace(place, rows=read_back), SMALL)
            else:
                check(way, readers, place, SMALL)
        finally:
            for reader in readers:
                reader.close()


def test_threads_share_the_batches_and_their_errors_are_raised(tmp_path: Path) -> None:
    rows = Rows.random(SHAPE, seed=0)
    batches = rows.random_batches(7, 0, 0)
    assert sorted(batch.keys[0] for share in shares(batches, 2) for batch in share) == sorted(
        b.keys[0] for b in batches
    )

    class Failing(Memcpy):
        calls = 0

        def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
            Failing.calls += 1
            if Failing.calls > 2:  # the check reads once per thread
                raise OSError("gone")
            yield from super().read(batches)

    way = replace(MEMCPY, open=per_thread(Failing))
    with pytest.raises(OSError, match="gone"):
        measure([way], tmp_path, rows, SMALL, 2, False, lambda _: None)


def test_batches_hold_every_utterance_once_and_differ_between_repeats() -> None:
    rows = Rows.random(SHAPE, seed=0)
    first, second = (rows.random_batches(7, 0, repeat) for repeat in range(2))
    assert first == rows.random_batches(7, 0, 0) != second
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch.numbers) == list(range(40))
        assert sum(batch.n_rows for batch in batches) == len(rows.values)
    assert max(batch.n_rows for batch in first) <= rows.largest_batch(7)


def test_a_disk_with_little_room_takes_one_layout_at_a_time() -> None:
    assert list(_groups(WAYS, n_bytes=10**6, free=10**9)) == [WAYS]
    groups = list(_groups(WAYS, n_bytes=10**6, free=10**6))
    assert [{way.layout for way in group if way.group != FLOOR} for group in groups] == [
        {layout} for layout in dict.fromkeys(way.layout for way in WAYS if way.layout)
    ]
    assert all(MEMCPY in group for group in groups)


def test_little_room_gives_the_same_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SMALL, readers=("npy", "memmap", "medusa-int8"), repeats=1)
    alike = [[figure["id"] for figure in run_io(settings, tmp_path)["shapes"][0]["figures"]]]
    monkeypatch.setattr("benchmarks.io.run.ROOM_PER_LAYOUT", 10**6)
    with pytest.raises(ConfigError, match=r"GB in .*--directory"):
        run_io(settings, tmp_path)
    monkeypatch.setattr("benchmarks.io.run._check_room", lambda *_: None)
    alike.append([figure["id"] for figure in run_io(settings, tmp_path)["shapes"][0]["figures"]])
    assert sorted(alike[0]) == sorted(alike[1]) == ["medusa", "medusa-int8", "memcpy", "memmap", "npy"]
    assert list(tmp_path.iterdir()) == []


def test_dropped_files_are_out_of_the_cache(on_disk: Path) -> None:
    path = on_disk / "file"
    path.write_bytes(bytes(1 << 20))
    assert resident_bytes(path) == 1 << 20
    make_cold([path])
    assert resident_bytes(path) < 1 << 14


def test_pages_that_someone_maps_are_no_cold_start(on_disk: Path) -> None:
    path = on_disk / "file"
    path.write_bytes(bytes(1 << 20))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        with pytest.raises(ConfigError, match=r"stay in memory .*--directory"):
            make_cold([path])


def test_int8_is_compared_with_what_was_written(tmp_path: Path) -> None:
    rows = Rows.random(SHAPE, seed=0)
    write_store(tmp_path, rows, dtype="int8")
    way = next(way for way in MEDUSA_WAYS if way.id == "medusa-int8")
    place = Place(tmp_path, rows, SMALL.batch)
    assert way.expect is not None
    exact = way.expect(place)(0)
    assert exact.dtype == np.float16
    assert np.abs(exact.astype(np.float32) - rows.of(0)).max() < 1 / 200
    with pytest.raises(AssertionError, match=r"int8.*MSP-PODCAST_0000_000000"):
        way.expect(replace(place, rows=Rows(1 - rows.values, rows.offsets)))(0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_utterances", 0), ("dims", (256, 0)), ("mean_s", ()), ("threads", (0,)), ("batch", 0), ("repeats", -1)],
)
def test_impossible_settings_are_named(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is .*must be more than 0"):
        replace(SMALL, **{setting: value})


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GB in .*--directory"):
        run_io(replace(SMALL, n_utterances=10**10), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_layouts_and_ways_fit() -> None:
    assert {way.layout for way in WAYS if way.layout} == set(LAYOUTS)
    assert len({way.id for way in WAYS}) == len({way.name for way in WAYS}) == len(WAYS)
