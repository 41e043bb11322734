"""Columns that say which piece of its file an utterance is, in every spelling, and what becomes of the piece."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from featurestore.audio import Clip
from featurestore.corpora.table import read_table
from featurestore.corpus.audit import audit
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ManifestError


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000 * 10).astype(np.float32)
    soundfile.write(tmp_path / "r.flac", samples, 16_000)
    return tmp_path


def manifest(root: Path, **columns: list[object]) -> Manifest:
    n = len(next(iter(columns.values())))
    table = {"utterance_id": [f"u{i}" for i in range(n)], "path": ["r.flac"] * n, **columns}
    return Manifest(pa.table({name: pa.array(values, from_pandas=True) for name, values in table.items()}), root=root)


def test_an_end_by_start_and_duration_has_no_noise(recording: Path) -> None:
    pieces = manifest(recording, start=[0.1, 1.1], duration=[0.2, 2.2])
    assert pieces.column("end_s").tolist() == [0.3, 3.3]


def test_durations_of_the_files_become_those_of_the_pieces(recording: Path) -> None:
    pieces = manifest(
        recording, duration_s=[10.0, 2.52, 10.0, 10.0, None], start_s=[0.1, 1.0, 0.0, 1.5, 2.0],
        end_s=[0.3, 3.5, None, None, 2.5],
    )  # fmt: skip
    np.testing.assert_array_equal(pieces.column("duration_s"), [0.2, 2.52, 10.0, np.nan, 0.5])
    whole = manifest(recording, duration_s=[10.0])
    assert whole.column("duration_s").tolist() == [10.0]


SPELLINGS = {
    "seconds": {"start_s": [1.0, 3.5], "end_s": [3.5, 4.25]},
    "start-end": {"start": [1.0, 3.5], "end": [3.5, 4.25]},
    "capitals": {"Start": [1.0, 3.5], "End": [3.5, 4.25]},
    "emobox": {"start_time": [1.0, 3.5], "end_time": [3.5, 4.25]},
    "onset-offset": {"onset": [1.0, 3.5], "offset": [3.5, 4.25]},
    "onset-duration": {"onset": [1.0, 3.5], "duration": [2.5, 0.75]},
    "start-duration": {"start": [1.0, 3.5], "duration": [2.5, 0.75]},
    "offset-duration": {"offset": [1.0, 3.5], "duration": [2.5, 0.75]},
    "audformat": {
        "start": ["0 days 00:00:01", "0 days 00:00:03.500000"], "end": ["0 days 00:00:03.5", "0 days 00:00:04.25"],
    },
    "clock": {"start": ["00:00:01", "00:00:03.5"], "end": ["00:00:03.5", "00:00:04.25"]},
    "texts": {"start": ["1", "3.5"], "end": ["3.5", "4.25"]},
    "durations": {
        "start": [timedelta(seconds=1), timedelta(seconds=3.5)],
        "end": [timedelta(seconds=3.5), timedelta(seconds=4.25)],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_the_same_pieces(recording: Path, name: str) -> None:
    result = manifest(recording, **SPELLINGS[name])
    assert result.column("start_s").tolist() == [1.0, 3.5]
    assert result.column("end_s").tolist() == [3.5, 4.25]
    assert result.audio(0) == Clip(recording / "r.flac", 1.0, 3.5)
    result.write(recording / "m.csv")
    reread = Manifest.read(recording / "m.csv")
    assert reread.audio(1) == Clip(recording / "r.flac", 3.5, 4.25)


def test_days_alone_are_what_pandas_writes_of_zeros(recording: Path) -> None:
    result = manifest(recording, start=["0 days", "0 days"], end=["0 days 00:00:03.5", ""])
    assert result.audio(0) == Clip(recording / "r.flac", 0.0, 3.5)
    assert result.audio(1) == recording / "r.flac"


def test_parquet_keeps_durations_and_pieces(recording: Path) -> None:
    table = {"utterance_id": ["a"], "path": ["r.flac"], "start": [timedelta(seconds=2)], "end": [None]}
    schema = pa.schema(
        [("utterance_id", pa.string()), ("path", pa.string()), ("start", pa.duration("us")), ("end", pa.duration("us"))]
    )
    pq.write_table(pa.table(table, schema=schema), recording / "m.parquet")
    assert Manifest.read(recording / "m.parquet").audio(0) == Clip(recording / "r.flac", 2.0, None)


def test_an_empty_start_is_the_files_and_an_empty_end_too(recording: Path) -> None:
    result = manifest(recording, start_s=[None, 2.0, None], end_s=[1.5, None, None])
    assert result.audio(0) == Clip(recording / "r.flac", 0.0, 1.5)
    assert result.audio(1) == Clip(recording / "r.flac", 2.0, None)
    assert result.audio(2) == recording / "r.flac"


def test_duration_and_offset_alone_are_descriptions(recording: Path) -> None:
    for name in ("duration", "offset", "duration_s"):
        result = manifest(recording, **{name: [1.0, 2.0]})
        assert not result.has_pieces
        assert result.audio(0) == recording / "r.flac"
        assert result.column(name).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "columns",
    [
        {"start_ms": [1000.0]},
        {"start": [1.0], "end_frame": [30]},
        {"StartTime": ["00:16:16,059"], "EndTime": ["00:16:21,731"]},
        {"start": ["one"], "end": ["two"]},
        {"end": [2.0]},
        {"start": [3.0], "end": [2.0]},
        {"start": [-1.0], "end": [2.0]},
        {"start": [1.0], "end": [float("inf")]},
        {"begin_sample": [3]},
        {"stop": [3.0]},
        {"timestamp": [[0.5, 1.5]]},
        {"segment": [{"start": 0.5, "end": 1.5}]},
        {"start (ms)": [0.5], "end (ms)": [1.5]},
        {"t0": [0.5], "t1": [1.5]},
        {"from": [0.5], "to": [1.5]},
        {"tmin": [0.5], "tmax": [1.5]},
        {"xmin": ["0.5"], "xmax": ["1.5"]},
        {"ts_start": [0.5], "ts_end": [1.5]},
        {"time_begin": [0.5], "time_end": [1.5]},
        {"start_offset": [0.5], "end_offset": [1.5]},
        {"length": [1.0], "start_s": [0.5]},
        {"duration_ms": [1000.0], "start": [0.5]},
        {"duration_ms": [1000.0], "offset": [0.5]},
        {"finish": [1.5], "start_s": [0.5]},
        {"end_ms": [1500], "start_s": [0.5]},
        {"ts_start": [0.5], "end_s": [1.5]},
        {"start_time_sec": [0.5], "end_time_sec": [1.5]},
        {"Timestamps": ["[0.5, 1.5]"]},
        {"interval": ["0:00:01 --> 0:00:02"]},
        {"time": ["0.5 - 1.5"]},
        {"segment": ["0.5_1.5"]},
        {"span": [{"from": 0.5, "to": 1.5}]},
        {"ts": [0.5], "te": [1.5]},
        {"from_s": [0.5], "to_s": [1.5]},
        {"cue_in": [0.5], "cue_out": [1.5]},
        {"beg": [0.5], "fin": [1.5]},
        {"Anfang": ["0,5"], "Ende": ["1,5"]},
        {"frame_offset": [8000], "num_frames": [16000]},
        {"offset_s": [0.5], "duration_s": [1.0]},
        {"tbeg": [0.5], "tdur": [1.0]},
        {"start_hms": ["00:00:01"], "end_hms": ["00:00:02"]},
        {"Begin Time - ss.msec": [0.5], "End Time - ss.msec": [1.5]},
        {"start_min": [1, 1], "start_sec": [5, 6], "end_min": [1, 1], "end_sec": [6, 7]},
        {"start_h": [0, 1], "start_m": [0, 2], "start_s": [3.0, 4.0], "end_s": [5.0, 6.0]},
        {"end_s": [3.0], "duration": [1.0]},
        {"start_s": ["1_0"], "end_s": ["1_5"]},
    ],
    ids=lambda columns: "-".join(columns),
)
def test_what_is_not_understood_is_an_error_that_names_the_column(
    recording: Path, columns: dict[str, list[object]]
) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest(recording, **columns)
    assert any(name in str(caught.value) for name in columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"xmin": [10.0], "xmax": [20.0], "ymin": [10.0], "ymax": [20.0]},
        {"from": ["anna"], "to": ["ben"]},
        {"t0": [0.75], "t1": [0.25]},
        {"ts_start": ["2024-05-01 10:00:00"], "ts_end": ["2024-05-01 10:00:05"]},
        {"ts_start": [1714557600.0], "ts_end": [1714557605.0]},
        {"finish": ["yes"]},
        {"finish": [True]},
        {"finish": [0, 1]},
        {"length": [4.0]},
        {"timestamps": [[0.5, 1.5, 2.0], [0.5]]},
        {"segments": [["a", "b"]]},
        {"times": [3]},
        {"time": ["2024-05-01"]},
        {"segment": ["3-4"]},
        {"interval": ["2019-2020"]},
        {"in": ["studio"], "out": ["street"]},
        {"from": [7], "to": [3]},
        {"min": [0.5], "max": [1.5]},
        {"num_frames": [160_000]},
    ],
    ids=lambda columns: "-".join(columns),
)
def test_columns_of_such_names_that_hold_no_times_are_kept(recording: Path, columns: dict[str, list[object]]) -> None:
    result = manifest(recording, **columns)
    assert not result.has_pieces
    table = result.to_arrow()
    assert all(table.column(name).to_pylist() == values for name, values in columns.items())


@pytest.mark.parametrize(
    "columns",
    [
        {"start_s": [0.5], "end_s": [1.5], "start_ms": [500], "end_ms": [1500], "t0": [0.5], "t1": [1.5]},
        {"start": [0.5], "end": [1.5], "length": [1.0], "time_start": [30.0], "timestamp": ["[30.5, 31.5]"]},
        {"start": [0.5], "duration": [1.0], "finish": [9.0]},
        {"start_s": [0.5], "duration_s": [1.0]},
        {"start_s": ["0,5"], "end_s": ["1,5"]},
        {"start_s": ["00:00:00,500"], "end_s": ["00:00:01,500"], "start_min": [0.00833], "end_min": [0.025]},
    ],
    ids=lambda columns: "-".join(columns),
)
def test_beside_a_start_and_an_end_that_are_understood_others_are_kept(
    recording: Path, columns: dict[str, list[object]]
) -> None:
    result = manifest(recording, **columns)
    assert result.audio(0) == Clip(recording / "r.flac", 0.5, 1.5)
    assert set(result.to_arrow().column_names) >= columns.keys() - {"start", "end"}


def test_pieces_of_one_file_under_two_names_overlap(recording: Path) -> None:
    (recording / "link.flac").symlink_to(recording / "r.flac")
    (recording / "there").symlink_to(recording)
    above = f"./there/../{recording.name}/r.flac"  # of the folder that the link leads to, as the system opens it
    for spelling in ("link.flac", "there/r.flac", above):
        parts = {"path": ["r.flac", spelling], "split": ["train", "test"]}
        leaky = audit(manifest(recording, start_s=[0.0, 1.5], end_s=[2.0, 3.0], **parts), audio=False)
        assert [overlap.kind for overlap in leaky.leaks] == ["audio"], spelling


@pytest.mark.parametrize("length", [["short"], [11], [2]], ids=["words", "letters", "number-of-words"])
def test_the_length_of_a_text_is_not_a_pieces(recording: Path, length: list[object]) -> None:
    result = manifest(recording, start_s=[0.5], text=["hello there"], length=length)
    assert result.audio(0) == Clip(recording / "r.flac", 0.5, None)
    assert result.column("length").tolist() == length


@pytest.mark.parametrize(
    "name", ["startle", "weekend", "end_of_turn", "started_by", "text_start", "start_date", "gender"]
)
def test_other_columns_are_kept_as_they_are(recording: Path, name: str) -> None:
    assert manifest(recording, **{name: ["x"]}).column(name).tolist() == ["x"]


def test_a_text_corpus_has_no_pieces() -> None:
    table = pa.table({"utterance_id": ["a"], "text": ["hello"], "start": [3.0]})
    assert not Manifest(table).has_pieces


def test_prepare_csv_reads_pieces(recording: Path) -> None:
    (recording / "t.csv").write_text(
        "name,wav,start,end,emotion\na,r.flac,0 days 00:00:00,0 days 00:00:03,angry\nb,r.flac,0 days 00:00:03,,sad\n"
    )
    columns = {"utterance_id": "name", "path": "wav", "label": "emotion"}
    result = read_table(recording / "t.csv", columns=columns)
    assert result.audio(0) == Clip(recording / "r.flac", 0.0, 3.0)
    assert result.audio(1) == Clip(recording / "r.flac", 3.0, None)


def test_overlapping_pieces_of_one_recording_in_two_parts_are_a_leak(recording: Path) -> None:
    parts = {"split": ["train", "test", "test"]}
    leaky = audit(manifest(recording, start_s=[0.0, 1.5, 4.0], end_s=[2.0, 3.0, 5.0], **parts))
    assert [(overlap.kind, overlap.n_utterances) for overlap in leaky.leaks] == [("audio", 2)]
    clean = audit(manifest(recording, start_s=[0.0, 2.0, 4.0], end_s=[2.0, 3.0, 5.0], **parts))
    assert clean.leaks == []
    assert clean.clean
    by_path = audit(manifest(recording, start_s=[0.0, 1.5, 4.0], end_s=[2.0, 3.0, 5.0], **parts), audio=False)
    assert [overlap.kind for overlap in by_path.leaks] == ["audio"]


def test_a_piece_and_its_whole_file_overlap(recording: Path) -> None:
    leaky = audit(manifest(recording, start_s=[0.0, 1.5], end_s=[None, 3.0], split=["train", "test"]))
    assert [overlap.kind for overlap in leaky.leaks] == ["audio"]


def test_audit_names_a_piece_beyond_the_recording_and_reads_the_others(recording: Path) -> None:
    report = audit(manifest(recording, start_s=[0.0, 9.0, 20.0], end_s=[2.0, 11.0, 21.0]))
    assert [key for key, _ in report.unreadable] == ["u1", "u2"]
    assert all("10.000 s" in reason for _, reason in report.unreadable)


def test_an_end_and_a_length_that_disagree_are_an_error_unless_the_length_is_the_files(recording: Path) -> None:
    with pytest.raises(ManifestError, match=r"'start' and 'duration'.*'end'.*row 2 '3 \+ 2 is not 4'"):
        manifest(recording, start=[1.0, 3.0], end=[2.5, 4.0], duration=[1.5, 2.0])
    with_durations = manifest(recording, start=[1.0, 3.0], end=[2.5, 4.0], duration=[10.0, 10.0])
    assert [with_durations.audio(i) for i in range(2)] == [
        Clip(recording / "r.flac", 1.0, 2.5), Clip(recording / "r.flac", 3.0, 4.0)
    ]  # fmt: skip
