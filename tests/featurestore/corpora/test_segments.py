"""Readers of pieces: every list that says where in a recording an utterance lies."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from featurestore.audio import Clip
from featurestore.corpora import CORPORA
from featurestore.corpora.audiofolder import read_audiofolder
from featurestore.corpora.kaldi import read_kaldi
from featurestore.corpora.lhotse import read_lhotse
from featurestore.corpora.table import read_table
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ManifestError
from tests.featurestore.corpora.test_lists import cut, line, lines
from tests.helpers.messages import mentions

DATA = Path(__file__).parents[1] / "audio" / "data"
PIECES = [(0.0, 1.25), (1.25, 2.5), (2.5, None)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("r.wav", "s.wav"):
        soundfile.write(tmp_path / name, np.random.default_rng(0).uniform(-0.1, 0.1, 48_000), 16_000)
    return tmp_path


def pieces(manifest: Manifest) -> list[tuple[str, float, float | None]]:
    result = [manifest.audio(i) for i in range(len(manifest))]
    return [(clip.path.name, clip.start_s, clip.end_s) for clip in result if isinstance(clip, Clip)]


def test_kaldis_segments_are_pieces_of_the_recordings_in_wav_scp(root: Path) -> None:
    (root / "wav.scp").write_text("rec1 r.wav\nrec2 s.wav\n")
    (root / "segments").write_text("u1 rec1 0.0 1.25\nu2 rec1 1.25 2.5\nu3 rec2 2.5 -1\n")
    (root / "utt2spk").write_text("u1 anna\nu2 ben\nu3 anna\n")
    (root / "utt2emo").write_text("u1 angry\nu2 sad\nu3 angry\n")
    manifest = read_kaldi(root, audio=root)
    assert manifest.keys == ["u1", "u2", "u3"]
    assert pieces(manifest) == [("r.wav", 0.0, 1.25), ("r.wav", 1.25, 2.5), ("s.wav", 2.5, None)]
    assert manifest.labels == ["angry", "sad", "angry"]
    assert manifest.column("speaker").tolist() == ["anna", "ben", "anna"]


def test_lhotses_cuts_of_part_of_a_recording_are_pieces(root: Path) -> None:
    recording = {
        "id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}],
        "sampling_rate": 16_000, "num_samples": 48_000, "duration": 3.0,
    }  # fmt: skip
    cuts = [
        cut("a", recording=recording, start=0.5, duration=1.0), cut("b", recording=recording, start=1.5, duration=1.5),
        cut("c", recording=recording, start=0, duration=3.0),
    ]  # fmt: skip
    (root / "cuts.jsonl").write_text(lines(*cuts))
    manifest = read_lhotse(root / "cuts.jsonl")
    assert pieces(manifest) == [("r.wav", 0.5, 1.5), ("r.wav", 1.5, 3.0)]
    assert manifest.audio(2) == root / "r.wav"
    assert manifest.column("duration_s").tolist() == [1.0, 1.5, 3.0]


@pytest.mark.parametrize("times", ["nan 1", "0 nan", "0 inf", "0 1 A", "0", "0:00 0:01", "0 1_0"])
def test_kaldis_segments_of_no_two_times_are_refused_with_their_line(root: Path, times: str) -> None:
    (root / "wav.scp").write_text("r r.wav\n")
    (root / "segments").write_text(f"u1 r 0 1\nu2 r {times}\n")
    with pytest.raises(ManifestError, match=r"segments:2: .*in seconds"):
        read_kaldi(root, audio=root)


@pytest.mark.parametrize("ends", [{"start": float("nan")}, {"duration": float("nan")}, {"start": 2.5}, {"start": -1}])
def test_a_cut_outside_its_recording_is_refused_with_its_line(root: Path, ends: dict[str, float]) -> None:
    recording = {
        "id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}],
        "sampling_rate": 16_000, "num_samples": 48_000, "duration": 3.0,
    }  # fmt: skip
    (root / "cuts.jsonl").write_text(lines(cut("a", recording=recording, **({"duration": 1.0} | ends))))
    with pytest.raises(ManifestError, match="jsonl:1"):
        read_lhotse(root / "cuts.jsonl")


@pytest.mark.parametrize(("start", "duration", "longer"), [(0, 3.0, False), (0.04, 2.95, False), (1.0, 1.0, True)])
def test_a_cut_longer_than_its_supervision_is_named(root: Path, start: float, duration: float, longer: bool) -> None:
    recording = {
        "id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}],
        "sampling_rate": 16_000, "num_samples": 48_000, "duration": 3.0,
    }  # fmt: skip
    supervision = {"id": "a", "start": start, "duration": duration, "custom": {"emotion": "sad"}}
    (root / "cuts.jsonl").write_text(lines(cut("a", recording=recording, duration=3.0, supervisions=[supervision])))
    notes = [note for note in read_lhotse(root / "cuts.jsonl").notes if "trim_to_supervisions" in note]
    assert len(notes) == longer
    assert all(": a" in note for note in notes)


def test_emoboxs_start_and_end_times_are_pieces(root: Path) -> None:
    place = root / "data" / "c"
    (place / "fold_1").mkdir(parents=True)
    records = [
        line("a", wav="r.wav", start_time=0.5, end_time=1.5),
        line("b", wav="r.wav", start_time=1.5, end_time=2.0),
    ]
    (place / "c.jsonl").write_text(lines(*records))
    (place / "label_map.json").write_text('{"neu": "Neutral"}')
    (place / "fold_1" / "c_test_fold_1.jsonl").write_text(lines(records[0]))
    (place / "fold_1" / "c_train_fold_1.jsonl").write_text(lines(records[1]))
    assert pieces(CORPORA["emobox"](place, audio=root)) == [("r.wav", 0.5, 1.5), ("r.wav", 1.5, 2.0)]


def test_audiofolders_metadata_has_pieces_with_ids_of_their_own(root: Path) -> None:
    rows = [{"file_name": "r.wav", "start": low, "end": high, "label": "sad"} for low, high in PIECES]
    rows.append({"file_name": "s.wav", "start": None, "end": None, "label": "sad"})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = read_audiofolder(root)
    assert pieces(manifest) == [("r.wav", low, high) for low, high in PIECES]
    assert manifest.keys[:2] == ["r.wav[0-1.25]", "r.wav[1.25-2.5]"]
    assert len(set(manifest.keys)) == 4


def test_nkululekos_csv_with_pieces_is_read_as_it_is(root: Path) -> None:
    (root / "nkulu.csv").write_text(
        "file,start,end,speaker,gender,emotion\n"
        "r.wav,0 days 00:00:00,0 days 00:00:01.25,anna,female,angry\n"
        "r.wav,0 days 00:00:01.250000,0 days 00:00:02.5,anna,female,sad\n"
    )
    columns = {"utterance_id": "file", "path": "file", "label": "emotion"}
    manifest = read_table(root / "nkulu.csv", columns=columns)
    assert pieces(manifest) == [("r.wav", 0.0, 1.25), ("r.wav", 1.25, 2.5)]
    assert manifest.keys == ["r.wav[0-1.25]", "r.wav[1.25-2.5]"]


# --- audformat

HEADER = """
name: calls
usage: research
schemes:
  emotion: {dtype: str, labels: [happy, sad, angry]}
  speaker: {dtype: str, labels: {anna: {gender: female}, ben: {gender: male}}}
splits:
  train: {type: train}
  test: {type: test}
  dev: {type: dev}
tables:
  emotion.train: {type: segmented, split_id: train, columns: {emotion: {scheme_id: emotion}, certainty: {}}}
  emotion.test: {type: segmented, split_id: test, columns: {emotion: {scheme_id: emotion}, certainty: {}}}
  files: {type: filewise, columns: {speaker: {scheme_id: speaker}, transcription: {}}}
"""


@pytest.fixture
def database(root: Path) -> Path:
    (root / "db.yaml").write_text(HEADER)
    seconds = [pa.array([low, high], pa.float64()) for low, high in ((0.0, 1.25), (1.25, 2.5))]
    (root / "db.emotion.train.csv").write_text(
        "file,start,end,emotion,certainty\n"
        "r.wav,0 days 00:00:00,0 days 00:00:01.250000,angry,0.5\nr.wav,0 days 00:00:01.250000,,sad,0.75\n"
    )
    times = [pa.array((column.to_numpy() * 1e9).astype("timedelta64[ns]")) for column in seconds]
    table = pa.table({
        "file": ["s.wav", "s.wav"], "start": times[0], "end": times[1], "emotion": ["sad", "angry"],
        "certainty": [1.0, 1.0],
    })  # fmt: skip
    pq.write_table(table, root / "db.emotion.test.parquet")
    (root / "db.files.csv").write_text("file,speaker,transcription\nr.wav,anna,hello\ns.wav,ben,\n")
    return root


def test_an_audformat_database_is_read_with_splits_speakers_and_pieces(database: Path) -> None:
    manifest = CORPORA["audformat"](database)
    assert manifest.name == "calls"
    assert pieces(manifest) == [("r.wav", 0.0, 1.25), ("r.wav", 1.25, None), ("s.wav", 0.0, 1.25), ("s.wav", 1.25, 2.5)]
    assert manifest.labels == ["angry", "sad", "sad", "angry"]
    assert manifest.scheme.classes == ("sad", "angry")
    assert manifest.column("split").tolist() == ["train", "train", "test", "test"]
    assert manifest.column("speaker").tolist() == ["anna", "anna", "ben", "ben"]
    assert manifest.column("gender").tolist() == ["female", "female", "male", "male"]
    assert manifest.texts == ["hello", "hello", "", ""]
    assert [float(value) for value in manifest.column("certainty")] == [0.5, 0.75, 1.0, 1.0]


def test_a_filewise_audformat_table_gives_whole_files(database: Path) -> None:
    header = (
        HEADER.replace("emotion.train", "e.train").replace("emotion.test", "other").replace("segmented", "filewise")
    )
    (database / "db.yaml").write_text(header)
    (database / "db.e.train.csv").write_text("file,emotion,certainty\nr.wav,happy,1\n")
    (database / "db.other.csv").write_text("file,emotion,certainty\ns.wav,sad,1\n")
    manifest = CORPORA["audformat"](database)
    assert manifest.keys == ["r.wav", "s.wav"]
    assert not manifest.has_pieces
    assert manifest.column("split").tolist() == ["train", "test"]


def test_an_audformat_table_of_two_formats_is_read_from_parquet_and_a_difference_noted(database: Path) -> None:
    before = CORPORA["audformat"](database)
    table = database / "db.emotion.test.csv"
    rows = "file,start,end,emotion,certainty\ns.wav,0 days,0 days 00:00:01.25,{},1\n"
    last = "s.wav,0 days 00:00:01.25,0 days 00:00:02.5,angry,1\n"
    table.write_text(rows.format("sad") + last)
    assert CORPORA["audformat"](database).notes == before.notes
    table.write_text(rows.format("happy") + last)
    after = CORPORA["audformat"](database)
    assert after.labels == before.labels
    (note,) = [note for note in after.notes if note not in before.notes]
    assert mentions(note, "db.emotion.test.parquet is read", "db.emotion.test.csv", "newer")


def test_audformat_columns_are_taken_by_name_whatever_the_order_of_header_and_table(database: Path) -> None:
    before = CORPORA["audformat"](database)
    table = database / "db.emotion.train.csv"
    table.write_text("\n".join(",".join(reversed(line.split(","))) for line in table.read_text().splitlines()) + "\n")
    after = CORPORA["audformat"](database)
    assert after.labels == before.labels
    assert pieces(after) == pieces(before)
    assert after.column("certainty").tolist() == before.column("certainty").tolist()


def test_labels_that_an_audformat_scheme_does_not_list_are_counted(database: Path) -> None:
    assert not any("does not list" in note for note in CORPORA["audformat"](database).notes)
    table = database / "db.emotion.train.csv"
    lines = table.read_text().splitlines()
    columns = lines[0].split(",")
    cells = lines[1].split(",")
    cells[columns.index("emotion")] = "joyful"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    manifest = CORPORA["audformat"](database)
    assert any("'joyful' (1)" in note for note in manifest.notes)


def test_labels_of_an_audformat_scheme_may_stand_in_a_table_and_codes_have_names(database: Path) -> None:
    before = CORPORA["audformat"](database)
    header = HEADER.replace("{anna: {gender: female}, ben: {gender: male}}", "people")
    header = header.replace("[happy, sad, angry]", "{1: {name: happy}, 2: {name: sad}, 3: {name: angry}}")
    header += "misc_tables:\n  people: {levels: {speaker: str}, columns: {gender: {}}}\n"
    (database / "db.yaml").write_text(header)
    (database / "db.people.csv").write_text("speaker,gender\nben,male\nanna,female\n")
    table = database / "db.emotion.train.csv"
    table.write_text(table.read_text().replace("angry", "3").replace("sad", "2"))
    other = pq.read_table(database / "db.emotion.test.parquet")
    codes = pa.array([2, 3])
    pq.write_table(other.set_column(3, "emotion", codes), database / "db.emotion.test.parquet")
    manifest = CORPORA["audformat"](database)
    assert manifest.column("gender").tolist() == before.column("gender").tolist()
    assert manifest.scheme.classes == ("2", "3")
    assert any("--merge 2=sad --merge 3=angry" in note for note in manifest.notes)


def test_an_audformat_database_with_mistakes_is_refused(database: Path) -> None:
    for name, content, message in (
        ("db.yaml", "[1]", "expected the fields of a database"),
        ("db.yaml", "a: [", "can't be read as YAML"),
        (
            "db.yaml",
            HEADER.replace("emotion: {scheme_id", "mood: {scheme_id"),
            "no table has a column 'emotion'.*--label",
        ),
        ("db.emotion.train.csv", "file,start,end,emotion\nr.wav,x,y,sad\n", "no time in seconds"),
        ("db.emotion.train.csv", "file,emotion\nr.wav,sad\n", "segmented.*no column 'start'"),
        ("db.emotion.train.csv", "file,start,emotion\nr.wav,0,sad\n", "segmented.*no column 'end'"),
        ("db.emotion.train.csv", "file,start,end,mood\nr.wav,0,1,sad\n", "'emotion'"),
        ("db.emotion.train.csv", "file,start,end,emotion\ngone.wav,0,1,sad\n", "audio file not found"),
        (
            "db.emotion.train.csv",
            "file,start,end,emotion\ns.wav,1.25,2.5,happy\ns.wav,0,1,sad\n",
            "in one table and .* in another",
        ),
    ):
        before = (database / name).read_text()
        (database / name).write_text(content)
        with pytest.raises(ManifestError, match=message):
            CORPORA["audformat"](database)
        (database / name).write_text(before)
    (database / "db.emotion.train.csv").rename(database / "db.emotion.train.pkl")
    with pytest.raises(ManifestError, match="pickle"):
        CORPORA["audformat"](database)


@pytest.mark.parametrize("columns", ["Start (s),End (s)", "start s,END_S", "Start Time,End Time", "Onset,Duration [s]"])
def test_starts_and_ends_are_found_in_a_spreadsheets_spelling(root: Path, columns: str) -> None:
    (root / "t.csv").write_text(f"path,{columns},label\nr.wav,0,1,sad\nr.wav,1,2,sad\n")
    manifest = read_table(root / "t.csv")
    ends = [2.0, 3.0] if "Duration" in columns else [1.0, 2.0]
    assert [manifest.column("start_s")[1], manifest.column("end_s")[1]] == [1.0, ends[1]]
    assert any("start and end" in note for note in manifest.notes)


@pytest.mark.parametrize("columns", ["Start (ms),End (ms)", "Start (min),End (min)"])
def test_other_units_are_refused_with_the_option_that_names_the_columns(root: Path, columns: str) -> None:
    (root / "t.csv").write_text(f"path,{columns},label\nr.wav,0,1,sad\nr.wav,1,2,sad\n")
    with pytest.raises(ManifestError, match=r"'Start.*--column start_s="):
        read_table(root / "t.csv")


TIMES = {"milliseconds": (500, 2_500), "samples": (8_000, 40_000), "nanoseconds": (500_000_000, 2_500_000_000)}


@pytest.mark.parametrize("unit", TIMES)
def test_times_far_beyond_the_recording_are_refused_with_the_unit_they_may_be_in(root: Path, unit: str) -> None:
    start, end = TIMES[unit]
    (root / "wav.scp").write_text(f"r {root / 'r.wav'}\n")
    (root / "segments").write_text(f"u1 r {start} {end}\n")
    with pytest.raises(ManifestError, match=rf"u1.*{end}.*r\.wav.*3\.000 s.*{unit}") as caught:
        CORPORA["kaldi"](root)
    assert "e+" not in str(caught.value)
    (root / "t.csv").write_text(f"file,start,end,emotion\nr.wav,{start},{end},sad\n")
    with pytest.raises(ManifestError, match=unit):
        read_table(root / "t.csv", columns={"path": "file", "label": "emotion"})
    assert len(CORPORA["kaldi"](root, check_audio=False)) == 1


def test_a_few_ends_somewhat_beyond_are_named_in_a_note(root: Path) -> None:
    (root / "t.csv").write_text(
        "path,start,end,label\nr.wav,0,1,sad\nr.wav,1,3.2,sad\ns.wav,3.0,,sad\nr.wav,1,3.04,sad\n"
    )
    (note,) = [note for note in read_table(root / "t.csv").notes if "beyond" in note]
    assert "r.wav[1-3.2], s.wav[3-]" in note
    assert "3.04" not in note


def test_a_recording_that_states_no_length_is_decoded_for_it(root: Path) -> None:
    (root / "a.amr").write_bytes((DATA / "narrow_dtx.amr").read_bytes())
    (root / "a.spx").write_bytes((DATA / "speex_dtx.spx").read_bytes())
    for name in ("a.amr", "a.spx"):
        (root / "t.csv").write_text(f"path,start,end,label\n{name},0,1,sad\n{name},500,1000,sad\n")
        with pytest.raises(ManifestError, match=r"beyond.*500-1000"):
            read_table(root / "t.csv")


def test_several_utterances_of_one_whole_file_are_noted(root: Path) -> None:
    (root / "t.csv").write_text("utterance_id,path,label\nu1,r.wav,sad\nu2,r.wav,happy\nu3,s.wav,sad\n")
    (note,) = [note for note in read_table(root / "t.csv").notes if "start_s" in note]
    assert "u1, u2" in note
    assert "u3" not in note


def test_files_that_are_not_as_long_as_the_table_says_are_noted(root: Path) -> None:
    (root / "t.csv").write_text("path,duration_s,label\nr.wav,1.5,sad\ns.wav,3.0,sad\n")
    (note,) = [note for note in read_table(root / "t.csv").notes if "long" in note]
    assert "r.wav 1.50 s" in note
    assert "s.wav" not in note


def test_a_field_that_the_first_record_of_a_metadata_file_lacks_is_read(root: Path) -> None:
    records = [
        {"file_name": "s.wav", "label": "sad"},
        {"file_name": "r.wav", "label": "sad", "start": 0.5, "end": 1.5, "speaker": "anna"},
    ]
    (root / "metadata.jsonl").write_text(lines(*records))
    manifest = read_audiofolder(root)
    assert pieces(manifest) == [("r.wav", 0.5, 1.5)]
    assert manifest.column("speaker").tolist() == [None, "anna"]


LHOTSES = {
    "id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}],
    "sampling_rate": 16_000, "num_samples": 48_000, "duration": 3.0,
}  # fmt: skip


@pytest.mark.parametrize("name", ["Speed", "Tempo", "Volume", "ReverbWithImpulseResponse"])
def test_a_recording_that_lhotse_transforms_is_refused(root: Path, name: str) -> None:
    recording = LHOTSES | {"transforms": [{"name": name, "kwargs": {"factor": 1.1}}]}
    (root / "cuts.jsonl").write_text(lines(cut("a", recording=recording, start=0.5, duration=1.0)))
    with pytest.raises(ManifestError, match=f"jsonl:1.*{name}"):
        read_lhotse(root / "cuts.jsonl")


@pytest.mark.parametrize(("rate_hz", "passes"), [(16_000, True), (48_000, True), (8_000, False)])
def test_a_rate_of_ours_or_more_is_no_transform(root: Path, rate_hz: int, passes: bool) -> None:
    kwargs = {"source_sampling_rate": 16_000, "target_sampling_rate": rate_hz}
    recording = LHOTSES | {"transforms": [{"name": "Resample", "kwargs": kwargs}]}
    (root / "cuts.jsonl").write_text(lines(cut("a", recording=recording, start=0.5, duration=1.0)))
    if passes:
        assert pieces(read_lhotse(root / "cuts.jsonl")) == [("r.wav", 0.5, 1.5)]
    else:
        with pytest.raises(ManifestError, match="Resample"):
            read_lhotse(root / "cuts.jsonl")


def test_times_among_a_cuts_own_fields_are_not_its_place(root: Path) -> None:
    custom = {"start_s": 1.0, "end_s": 2.0, "start": 1.0, "end": 2.0, "offset": 1.0, "mood": "low"}
    whole_cut = cut("a", recording=LHOTSES, start=0, duration=3.0, custom=custom)
    (root / "cuts.jsonl").write_text(lines(whole_cut))
    manifest = read_lhotse(root / "cuts.jsonl")
    assert manifest.audio(0) == root / "r.wav"
    assert manifest.column("mood").tolist() == ["low"]
    (root / "cuts.jsonl").write_text(
        lines(whole_cut, cut("b", recording=LHOTSES, start=0.5, duration=1.0, custom=custom))
    )
    assert pieces(read_lhotse(root / "cuts.jsonl")) == [("r.wav", 0.5, 1.5)]
