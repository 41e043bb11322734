"""Tables of segments that other tools write."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from featurestore.errors import ManifestError
from featurestore.recordings.segment_tables import read_segments


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_rttm_gives_speakers_and_leaves_other_types_out(tmp_path: Path) -> None:
    text = (
        ";; a comment\n"
        "SPKR-INFO call 1 <NA> <NA> <NA> adult_female anna <NA> <NA>\n"
        "SPEAKER call 1 0.10 2.20 <NA> <NA> anna 0.9 <NA>\n"
        "\n"
        "SPEAKER other 1 1 0.5 <NA> <NA> <NA> <NA>\n"
        "SPEAKER call 1 3 0 <NA> <NA> ben <NA> <NA>\n"
    )
    table, notes = read_segments(written(tmp_path / "a.rttm", text))
    assert table.to_pydict() == {
        "path": ["call", "other"],
        "start_s": [0.1, 1.0],
        "end_s": [2.3, 1.5],
        "speaker": ["anna", None],
    }
    assert any("SPKR-INFO" in note for note in notes)
    assert any("without length" in note for note in notes)


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan"])
def test_names_in_rttm_that_pandas_takes_for_missing_values_are_names(tmp_path: Path, name: str) -> None:
    text = f"SPEAKER {name} 1 0.0 1.5 <NA> <NA> {name} <NA> <NA>\n"
    table, _ = read_segments(written(tmp_path / "a.rttm", text))
    assert (table.column("path").to_pylist(), table.column("speaker").to_pylist()) == ([name], [name])


def test_audacitys_labels_are_of_one_recording_and_may_have_frequencies_and_decimal_commas(tmp_path: Path) -> None:
    text = "0.5\t2.5\tang\u2028ry\n\\\t120.0\t4000.0\n3,25\t4,5\t\n7\t7\ta point\n"
    table, notes = read_segments(written(tmp_path / "Label Track.txt", text))
    assert table.to_pydict() == {"start_s": [0.5, 3.25], "end_s": [2.5, 4.5], "annotation": ["ang\u2028ry", None]}
    assert len(notes) == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_may_call_its_columns_otherwise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    if suffix == ".csv":
        written(path, "file;start;end;speaker\na.wav;0;0 days 00:00:03.5;anna\nb.wav;1;;\n")
    else:
        columns = {"file": ["a.wav", "b.wav"], "start": [0.0, 1.0], "end": [3.5, math.nan], "speaker": ["anna", None]}
        pyarrow.parquet.write_table(pa.table(columns), path)
    table, _ = read_segments(path)
    assert table.select(["path", "start_s", "end_s", "speaker"]).to_pydict() == {
        "path": ["a.wav", "b.wav"], "start_s": [0.0, 1.0], "end_s": [3.5, None], "speaker": ["anna", None],
    }  # fmt: skip


def test_a_table_without_a_column_of_recordings_is_of_one(tmp_path: Path) -> None:
    table, _ = read_segments(written(tmp_path / "t.csv", "start_s,end_s\n0,1\n"))
    assert table.column_names == ["start_s", "end_s"]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.rttm", "SPEAKER call 1 0.1 2.2\n", "line 1.*found 5"),
        ("a.rttm", "\nSPEAKER call 1 x 2.2 <NA> <NA> a <NA> <NA>\n", "line 2.*'x'"),
        ("a.rttm", "SPEAKER call 1 -1 2.2 <NA> <NA> a <NA> <NA>\n", "line 1.*'-1'"),
        ("a.rttm", "LEXEME call 1 0 1 hi lex a <NA> <NA>\n", "no segment"),
        ("a.txt", "0.5 2.5 angry\n", "line 1.*tab"),
        ("a.txt", "3\t2\tangry\n", "line 1.*before"),
        ("a.txt", "nan\t2\tangry\n", "line 1.*'nan'"),
        ("a.txt", "", "no segment"),
        ("a.csv", "file,label\na.wav,sad\n", "start_s"),
        ("a.csv", "file,start_s,end_s\na.wav,3,1\n", "row 1"),
        ("a.csv", "file,start_s,end_s\n,0,1\n", "file is empty.*row 1"),
        ("a.json", "{}", r"\.rttm"),
    ],
)
def test_what_is_wrong_is_named_by_line(tmp_path: Path, name: str, text: str, named: str) -> None:
    with pytest.raises(ManifestError, match=named):
        read_segments(written(tmp_path / name, text))
