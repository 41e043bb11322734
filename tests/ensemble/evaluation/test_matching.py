"""Predictions are matched to utterances by id or path, and never to two."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ensemble.evaluation.prediction_files import read_predictions
from ensemble.evaluation.systems import open_system
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import AlignmentError, PredictionsError

CLASSES = ("angry", "sad")


def manifest() -> Manifest:
    """Ids that are no file names; file names repeat in the splits, as MELD's do."""
    columns = {
        "utterance_id": ["t0", "t1", "e0", "e1"],
        "path": ["meld/train/d0.mp4", "meld/train/d1.mp4", "meld/test/d0.mp4", "meld/test/d1.mp4"],
        "split": ["train", "train", "test", "test"],
        "label": ["angry", "sad", "sad", "angry"],
        "attr_arousal": [1.0, 2.0, 3.0, 4.0],
    }
    return Manifest(pa.table(columns), LabelScheme(CLASSES, {"arousal": (1.0, 7.0)}), name="made")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_paths_that_differ_in_their_first_folders_are_matched(tmp_path: Path) -> None:
    file = written(tmp_path / "p.csv", "file,label\n/data/x/test/d1.mp4,sad\n/data/x/train/d0.mp4,angry\n")
    result = read_predictions(file, manifest())
    assert result.keys == ("e1", "t0")
    assert any("path" in note for note in result.notes)


def test_file_names_that_repeat_are_matched_within_the_split_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "p.csv", "file,label\nd1.mp4,sad\nd0.mp4,angry\n")
    with pytest.raises(AlignmentError):
        read_predictions(file, manifest())
    assert open_system(str(file), manifest(), tmp_path, split="test").keys == ("e1", "e0")


def test_a_packed_column_that_contradicts_the_columns_of_classes_is_refused(tmp_path: Path) -> None:
    packed = ",".join(["0.9", "0.1", *["0"] * 6, "1", "2", "3"])
    file = written(tmp_path / "p.csv", f'FileName,Prediction,p_angry,p_sad\nt0,"{packed}",0.2,0.8\n')
    with pytest.raises(PredictionsError, match=r"1 of 1 rows.*--column scores=p_"):
        read_predictions(file, manifest())
    chosen = read_predictions(file, manifest(), {"scores": "p_"})
    np.testing.assert_allclose(chosen.probabilities, [[0.2, 0.8]], atol=1e-6)


def test_an_attribute_called_as_a_prediction_is_read_and_beside_the_truth_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "p.csv", "file,arousal_pred\nt0,4.5\n")
    assert read_predictions(file, manifest()).values.tolist() == [[4.5]]
    two_columns = written(tmp_path / "q.csv", "file,arousal,arousal_pred\nt0,1.0,4.5\n")
    with pytest.raises(PredictionsError, match="arousal_pred"):
        read_predictions(two_columns, manifest())


def test_ids_in_another_letter_case_or_with_blanks_are_matched_unless_that_makes_two_alike(tmp_path: Path) -> None:
    file = written(tmp_path / "p.csv", "file,label\nT0 ,sad\n E1,angry\n")
    result = read_predictions(file, manifest())
    assert result.keys == ("t0", "e1")
    assert any("letter case" in note for note in result.notes)
    twice = written(tmp_path / "q.csv", "file,label\nT0,sad\nt0,angry\n")
    with pytest.raises(AlignmentError, match="'T0'"):
        read_predictions(twice, manifest())


@pytest.mark.parametrize("keys", [["u1", "u2", "u3"], ["call.wav[0-2]", "call.wav[2-4.5]", "call.wav[4.5-]"]])
@pytest.mark.parametrize("file", ["call.wav", "/data/x/call.wav"])
def test_rows_of_windows_are_matched_by_file_start_and_end(tmp_path: Path, keys: list[str], file: str) -> None:
    columns = {
        "utterance_id": keys, "path": ["x/call.wav"] * 3, "start_s": [0.0, 2.0, 4.5], "end_s": [2.0, 4.5, None],
        "label": ["angry", "sad", "sad"],
    }  # fmt: skip
    text = f"file,start_s,end_s,label\n{file},2.0,4.5,sad\n{file},0,2,angry\n{file},4.50,,angry\n"
    result = read_predictions(written(tmp_path / "p.csv", text), Manifest(pa.table(columns), LabelScheme(CLASSES)))
    assert result.keys == (keys[1], keys[0], keys[2])


def test_windows_that_the_manifest_does_not_have_are_refused(tmp_path: Path) -> None:
    text = "file,start_s,end_s,label\nmeld/test/d0.mp4,0,2,sad\nmeld/test/d0.mp4,2,4,sad\n"
    with pytest.raises(AlignmentError, match=r"d0\.mp4\[0-2\]"):
        read_predictions(written(tmp_path / "p.csv", text), manifest())
