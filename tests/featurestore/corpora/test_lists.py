"""Lists that people already have (EmoBox, lhotse, Kaldi, audiofolder) become manifests; relabelling works on any."""

import gzip
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.corpora import CORPORA
from featurestore.corpora.audiofolder import read_audiofolder
from featurestore.corpora.emobox import read_emobox
from featurestore.corpora.kaldi import read_kaldi
from featurestore.corpora.lhotse import read_lhotse
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.relabel import relabelled
from featurestore.errors import ManifestError
from featurestore.recordings.cut import cut as cut_recordings
from featurestore.recordings.manifest_of import recordings_of
from featurestore.recordings.segment_tables import read_segments
from tests.helpers.corpus_trees import write_csv, write_files, write_wav
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa

# --- EmoBox


def line(key: str, emo: str = "neu", **fields: Any) -> dict[str, Any]:
    wav = f"downloads/c/{key}.wav"
    return {"key": key, "dataset": "c", "wav": wav, "type": "raw", "sample_rate": 16000, "num_frame": 1600.0,
            "task": "category", "length": 0.1, "emo": emo, "channel": 1} | fields  # fmt: skip


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def emobox(tmp_path: Path) -> Path:
    """EmoBox/data/c: four clips, two folds."""
    a, b, c, d = (line(key, emo) for key, emo in zip("abcd", ("exc", "hap", "neu", "exc"), strict=True))
    for key in "abcd":
        write_wav(tmp_path / f"downloads/c/{key}.wav")
    return write_files(
        tmp_path / "data/c",
        {
            "c.jsonl": lines(a, b, c, d),
            "label_map.json": '{"neu": "Neutral", "hap": "Happy", "exc": "Happy"}',
            "fold_1/c_test_fold_1.jsonl": lines(a, b),
            "fold_1/c_train_fold_1.jsonl": lines(c, d),
            "fold_2/c_test_fold_2.jsonl": lines(c, d),
            "fold_2/c_train_fold_2.jsonl": lines(a, b),
            "fold_2/c_test_fold2.jsonl": lines(a),  # an older spelling that lies beside it in some corpora
        },
    )


def test_emoboxs_folds_and_label_map(emobox: Path) -> None:
    manifest = CORPORA["emobox"](emobox)
    assert manifest.keys == list("abcd")
    assert manifest.scheme.classes == ("Neutral", "Happy")
    assert manifest.labels == ["Happy", "Happy", "Neutral", "Happy"]
    assert manifest.column("corpus_label").tolist() == ["exc", "hap", "neu", "exc"]
    assert manifest.column("fold").tolist() == ["1", "1", "2", "2"]
    assert manifest.audio_path(0).is_file()
    assert "names no speakers" in manifest.notes[0]


def test_the_parts_of_one_fold_are_splits_and_validation_leaves_training(emobox: Path) -> None:
    for path in (emobox / "fold_2").iterdir():
        path.unlink()
    write_files(emobox, {"fold_1/c_valid_fold_1.jsonl": lines(line("d"))})
    manifest = read_emobox(emobox)
    assert manifest.column("split").tolist() == ["test", "test", "train", "development"]
    assert mentions(manifest.notes[-1], 1, "validation", "training", "d")
    write_files(emobox, {"fold_1/c_valid_fold_1.jsonl": lines(line("a"))})
    with pytest.raises(ManifestError, match=r"'a'.*test part"):
        read_emobox(emobox)


def test_a_map_under_another_name_is_used_and_none_at_all_is_reported(emobox: Path) -> None:
    (emobox / "label_map.json").rename(emobox / "label_dict.json")
    manifest = read_emobox(emobox)
    assert manifest.labels == ["Happy", "Happy", "Neutral", "Happy"]
    (emobox / "label_dict.json").unlink()
    manifest = read_emobox(emobox)
    assert manifest.labels == ["exc", "hap", "neu", "exc"]
    assert any(mentions(note, "label_map.json", "label_dict.json") for note in manifest.notes)


def test_labels_that_the_map_spells_in_another_case_are_counted(emobox: Path) -> None:
    records = [line("a", "Exc"), line("b", "hap"), line("c", "NEU"), line("d", "NEU")]
    write_files(emobox, {"c.jsonl": lines(*records)})
    manifest = read_emobox(emobox)
    assert manifest.labels == ["Happy", "Happy", "Neutral", "Neutral"]
    assert manifest.column("corpus_label").tolist() == ["Exc", "hap", "NEU", "NEU"]
    assert any(mentions(note, 2, "'NEU'", "Neutral") for note in manifest.notes)


def test_three_test_parts_are_three_splits_and_a_part_that_repeats_one_of_them_gives_way(emobox: Path) -> None:
    for path in [*emobox.glob("fold_*/*"), emobox / "c.jsonl"]:
        path.unlink()
    test = [
        {{"wav": "audio", "emo": "label"}.get(name, name): value for name, value in line(key).items()} for key in "abc"
    ]
    parts = {"train": [line("d")], "test": [line("a")], "test1": test[:1], "test2": test[1:2], "test3": test[2:]}
    write_files(emobox, {f"fold_1/c_{part}_fold_1.jsonl": lines(*records) for part, records in parts.items()})
    manifest = read_emobox(emobox)
    assert dict(zip(manifest.keys, manifest.column("split"), strict=True)) == {
        "a": "test1", "b": "test2", "c": "test3", "d": "train"
    }  # fmt: skip
    assert manifest.labels == ["Neutral"] * 4


def test_a_missing_train_part_and_folds_that_train_on_something_else_are_noted(emobox: Path) -> None:
    write_files(emobox, {"fold_1/c_train_fold_1.jsonl": lines(line("c"))})
    assert any(mentions(note, "fold 1", "other clips", "1 differ") for note in read_emobox(emobox).notes)
    for name in ("fold_1/c_train_fold_1.jsonl", *(f"fold_2/{path.name}" for path in (emobox / "fold_2").iterdir())):
        (emobox / name).unlink()
    write_files(emobox, {"fold_1/c_test_fold_1.jsonl": lines(*(line(key) for key in "abcd"))})
    (note,) = [note for note in read_emobox(emobox).notes if "train part" in note]
    assert "fold_1/c_train_fold_1.jsonl" in note
    assert "no model can learn" in note


def test_clips_that_are_pieces_of_a_long_file_have_their_ends(emobox: Path) -> None:
    wav = "downloads/c/a.wav"
    records = [line(key, wav=wav, start_time=0.02 * i, end_time=0.02 * (i + 1)) for i, key in enumerate("abcd")]
    write_files(emobox, {"c.jsonl": lines(*records)})
    manifest = read_emobox(emobox)
    np.testing.assert_allclose(manifest.column("start_s"), [0, 0.02, 0.04, 0.06])
    np.testing.assert_allclose(manifest.column("end_s"), [0.02, 0.04, 0.06, 0.08])
    assert set(manifest.column("path")) == {"downloads/c/a.wav"}


def test_emobox_with_gaps_or_strangers_is_refused(emobox: Path) -> None:
    for files, message in (
        ({"c.jsonl": lines(line("a", "bored"))}, r"c.jsonl:1: label 'bored' is not in label_map.json: \['neu'"),
        ({"c.jsonl": lines(line("a", mood=1))}, r"c.jsonl:1: unknown fields \['mood'\]"),
        ({"c.jsonl": lines(line("a"), line("b", start_time=1))}, r"c.jsonl:2: no field 'end_time'"),
        ({"c.jsonl": lines(line("a", type="feature"))}, r"type is 'feature', expected 'raw'"),
        ({"c.jsonl": '{"key": "a"\n'}, r"c.jsonl:1: expected one JSON object per line"),
        ({"c.jsonl": '{"key": "a", "wav": "a.wav"}\n'}, r"c.jsonl:1: no field 'emo', only 'key', 'wav'"),
        ({"c.jsonl": lines(line("e"))}, "1 clips are in no part: e"),
        ({"c.jsonl": lines(line("a", wav="gone.wav"))}, r"audio file not found.*row 1 'gone.wav'"),
        ({"fold_1/c_test_fold_1.jsonl": lines(line("c"))}, "'c' is tested in folds 1 and 2"),
        ({"c.jsonl": lines(line("a", length=[1]), line("b"))}, "c.jsonl: duration_s mixes numbers, texts or lists"),
        ({"label_map.json": "[1]"}, r"label_map.json: expected JSON like"),
        ({"fold_1/list.jsonl": ""}, r"expected a name like c_test_fold_1.jsonl"),
    ):
        saved = {path: path.read_text() for path in emobox.rglob("*.json*")}
        write_files(emobox, files)
        with pytest.raises(ManifestError, match=message):
            read_emobox(emobox)
        for name in files:
            (emobox / name).unlink()
        for path, text in saved.items():
            path.write_text(text)
    with pytest.raises(ManifestError, match=r"--root .*EmoBox/data/CORPUS"):
        read_emobox(emobox.parent)


# --- lhotse


def cut(key: str, **fields: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": f"{key}.wav"}
    recording = {"id": key, "sources": [source], "sampling_rate": 16000, "num_samples": 1600, "duration": 0.1}
    values = {"id": key, "recording_id": key, "start": 0, "duration": 0.1, "text": "hello", "speaker": "s1",
            "gender": "female", "custom": {"emotion": "sad", "rater": 3}}  # fmt: skip
    return {"id": key, "start": 0, "duration": 0.1, "channel": 0, "supervisions": [values], "recording": recording,
            "type": "MonoCut"} | fields  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lhotses_cuts(tmp_path: Path, suffix: str) -> None:
    write_wav(tmp_path / "a.wav")
    write_wav(tmp_path / "b.wav")
    path = tmp_path / f"cuts.jsonl{suffix}"
    text = lines(cut("a"), cut("b", supervisions=[], custom={"emotion": "happy"})).encode()
    path.write_bytes(gzip.compress(text) if suffix else text)
    manifest = CORPORA["lhotse"](path)
    assert manifest.keys == ["a", "b"]
    assert manifest.labels == ["sad", "happy"]
    assert manifest.column("speaker").tolist() == ["s1", None]
    assert manifest.texts == ["hello", ""]
    assert manifest.column("rater").tolist()[0] == 3
    assert manifest.name == "cuts"
    assert manifest.column("duration_s").tolist() == [0.1, 0.1]
    manifest_of_mood = read_lhotse(path, label="mood")
    assert manifest_of_mood.scheme.classes == ()
    assert "no labels" in manifest_of_mood.notes[0]


def test_cuts_that_are_no_stretch_of_one_mono_file_are_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    stereo = cut("a")["recording"] | {"sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}]}
    remote = cut("a")["recording"] | {"sources": [{"type": "url", "channels": [0], "source": "http://x/a.wav"}]}
    for record, message in (
        (cut("a", start=0.05), "cuts.jsonl:2: seconds 0.05 to 0.15 of a recording of 0.1"),
        (cut("a", start=-0.01, duration=0.05), "seconds -0.01 to 0.04 of a recording of 0.1"),
        (cut("a", type="MixedCut"), "a MixedCut, expected a MonoCut"),
        (cut("a", recording=stereo), "several channels"),
        (cut("a", recording=remote), "the source is a 'url', expected a file"),
        (cut("a", supervisions=[{}, {}]), "2 supervisions"),
        ({"id": "a"}, "no field 'recording', only 'id'"),
        (cut("a")["recording"], r"a recording, expected a cut.*from_manifests"),
        ({"id": "s", "recording_id": "a"}, r"a supervision, expected a cut.*from_manifests"),
        (cut("a", duration="long"), "cuts.jsonl:2: not a cut as lhotse writes it .*'long'"),
        (cut("a", supervisions=[], custom={"rater": "nobody"}), "cuts.jsonl: rater mixes numbers, texts or lists"),
    ):
        write_files(tmp_path, {"cuts.jsonl": lines(cut("z"), record)})
        with pytest.raises(ManifestError, match=message):
            read_lhotse(tmp_path / "cuts.jsonl")
    with pytest.raises(ManifestError, match="is not a file"):
        read_lhotse(tmp_path / "no.jsonl")


def test_a_cut_that_is_a_piece_of_its_recording_has_its_ends(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    piece = cut("b", start=0.02, duration=0.05, recording=cut("a")["recording"])
    write_files(tmp_path, {"cuts.jsonl": lines(cut("a"), piece)})
    manifest = read_lhotse(tmp_path / "cuts.jsonl")
    assert manifest.column("path").tolist() == ["a.wav", "a.wav"]
    np.testing.assert_allclose(np.nan_to_num(manifest.column("start_s")), [0, 0.02])
    np.testing.assert_allclose(manifest.column("end_s")[1], 0.07)
    assert manifest.column("duration_s").tolist() == [0.1, 0.05]


# --- Kaldi

KALDI = {
    "wav.scp": "a1 audio/a 1.wav\na2 audio/a2.wav\n",
    "utt2spk": "a1 anna\na2 anna\n",
    "spk2gender": "anna f\n",
    "text": "a1 hello there\na2\n",
    "utt2emo": "a1\tsad\n",
    "utt2dur": "a1 0.1\na2 0.2\n",
}


def test_a_kaldi_directory(tmp_path: Path) -> None:
    root = write_files(tmp_path / "train", KALDI)
    write_wav(tmp_path / "audio/a 1.wav")
    write_wav(tmp_path / "audio/a2.wav")
    manifest = CORPORA["kaldi"](root, audio=tmp_path)
    assert manifest.keys == ["a1", "a2"]
    assert manifest.name == "train"
    assert manifest.labels == ["sad", None]
    assert manifest.texts == ["hello there", ""]
    assert manifest.column("gender").tolist() == ["female", "female"]
    assert manifest.column("duration_s").tolist() == [0.1, 0.2]
    assert manifest.audio_path(0).is_file()


def test_segments_are_pieces_of_the_recordings(tmp_path: Path) -> None:
    files = {
        "wav.scp": "r1 r1.wav\nr2 r2.wav\n",
        "segments": "u1 r1 0 0.05\nu2 r1 0.05 -1\nu3 r2 0.01 0.09\n",
        "utt2spk": "u1 anna\nu2 ben\nu3 anna\n",
        "utt2emo": "u1 sad\nu2 happy\nu3 sad\n",
    }
    root = write_files(tmp_path / "d", files)
    for name in ("r1", "r2"):
        write_wav(tmp_path / f"{name}.wav")
    manifest = read_kaldi(root, audio=tmp_path)
    assert manifest.keys == ["u1", "u2", "u3"]
    assert manifest.column("path").tolist() == ["r1.wav", "r1.wav", "r2.wav"]
    assert manifest.column("start_s").tolist() == [0, 0.05, 0.01]
    np.testing.assert_array_equal(manifest.column("end_s"), [0.05, np.nan, 0.09])
    assert manifest.labels == ["sad", "happy", "sad"]
    assert manifest.column("speaker").tolist() == ["anna", "ben", "anna"]


def test_channels_that_are_named_and_averaged_are_noted(tmp_path: Path) -> None:
    """By Kaldi's list, a table's column, or a table of segments; files of one channel are no matter."""
    for name, shape in (("one", (1600,)), ("two", (1600, 2))):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(shape) + 0.1, 16_000)
    files = {"segments": "a r 0 0.05\nb r 0.05 0.1\n", "utt2emo": "a sad\nb happy\n"}
    for name, noted in (("one", False), ("two", True)):
        scp = {"wav.scp": f"r {name}.wav\n", "reco2file_and_channel": "r call B\n"}
        manifest = CORPORA["kaldi"](write_files(tmp_path / f"of {name}", files | scp), audio=tmp_path)
        assert manifest.column("channel").tolist() == ["B", "B"]
        (tmp_path / "t.csv").write_text(f"file,Channel,start,end\n{name}.wav,0,0,0.05\n{name}.wav,1,0,0.05\n")
        segments = cut_recordings(
            recordings_of([str(tmp_path / f"{name}.wav")]).manifest, read_segments(tmp_path / "t.csv")
        )
        for notes in (manifest.notes, segments.notes):
            assert any("mean" in note and f"{name}.wav has 2 channels" in note for note in notes) == noted
        assert any("differ in Channel" in note for note in segments.notes)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav.scp": "a1 sph2pipe -f wav a.sph |\n"}, r"wav.scp:1: .* is a command, expected a file"),
        ({"wav.scp": "a1 a.wav\na1 b.wav\n"}, r"wav.scp:2: 'a1' has a line already"),
        ({"wav.scp": "a1\n"}, r"wav.scp:1: expected an id, a space and a value"),
        ({"utt2spk": "a1 x\na9 y\n"}, r"utt2spk:2: 'a9' is not in wav.scp"),
        ({"spk2gender": "anna w\n"}, r"unknown gender 'w'"),
        ({"segments": "u1 r 0 1\n"}, r"segments:1: recording 'r' is not in wav.scp"),
        ({"segments": "a1 a1 0\n"}, r"segments:1: expected a recording, a start and an end in seconds, found 'a1 0'"),
        ({"segments": "u1 a1 0 1\n"}, r"utt2spk:1: 'a1' is not in segments"),
        ({}, r"audio file not found"),
    ],
)
def test_a_kaldi_directory_with_mistakes(tmp_path: Path, files: dict[str, str], message: str) -> None:
    root = write_files(tmp_path, KALDI | files)
    with pytest.raises(ManifestError, match=message):
        read_kaldi(root, audio=tmp_path)


# --- audiofolder


def test_folders_named_after_classes_in_splits(tmp_path: Path) -> None:
    for file in ("train/sad/1.wav", "train/happy/2.wav", "validation/sad/3.wav"):
        write_wav(tmp_path / file)
    manifest = CORPORA["audiofolder"](tmp_path)
    assert manifest.keys == ["train/happy/2.wav", "train/sad/1.wav", "validation/sad/3.wav"]
    assert manifest.labels == ["happy", "sad", "sad"]
    assert manifest.column("split").tolist() == ["train", "train", "development"]
    assert manifest.audio_path(2).is_file()
    write_wav(tmp_path / "train/loose.wav")
    with pytest.raises(ManifestError, match=r"train/loose.wav.* 1 .*train/happy/2.wav 2"):
        read_audiofolder(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_metadata_table_in_each_split_or_one_at_the_root(tmp_path: Path, kind: str) -> None:
    def table(directory: Path, rows: list[dict[str, str]]) -> None:
        if kind == "jsonl":
            write_files(directory, {"metadata.jsonl": lines(*rows)})
        else:
            write_csv(directory / "metadata.csv", list(rows[0]), [list(row.values()) for row in rows])

    for part in ("train", "test"):
        write_wav(tmp_path / "each" / part / "clips/1.wav")
        table(tmp_path / "each" / part, [{"file_name": "clips/1.wav", "mood": "sad", "text": "hi", "speaker": part}])
    manifest = read_audiofolder(tmp_path / "each", label="mood")
    assert manifest.keys == ["test/clips/1.wav", "train/clips/1.wav"]
    assert manifest.labels == ["sad", "sad"]
    assert manifest.column("speaker").tolist() == ["test", "train"]
    assert manifest.column("split").tolist() == ["test", "train"]

    write_wav(tmp_path / "one/train/1.wav")
    table(tmp_path / "one", [{"file_name": "train/1.wav", "label": "3"}])
    one_class = read_audiofolder(tmp_path / "one")
    assert one_class.labels == ["3"]
    assert one_class.column("split").tolist() == ["train"]


def test_labels_that_are_numbers_in_one_split_and_text_in_another_are_text(tmp_path: Path) -> None:
    for part, label in (("train", 1), ("test", "2")):
        write_wav(tmp_path / part / "a.wav")
        write_files(tmp_path / part, {"metadata.jsonl": lines({"file_name": "a.wav", "label": label})})
    assert read_audiofolder(tmp_path).labels == ["2", "1"]


def test_an_audiofolder_with_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no audio"):
        read_audiofolder(tmp_path)
    write_csv(tmp_path / "metadata.csv", ("name", "label"), [("a.wav", "x")])
    with pytest.raises(ManifestError, match=r"no column 'file_name', only 'name'"):
        read_audiofolder(tmp_path)
    write_csv(tmp_path / "metadata.csv", ("file_name", "label"), [("a.wav", "x")])
    with pytest.raises(ManifestError, match=r"audio file not found.*row 1 'a.wav'"):
        read_audiofolder(tmp_path)
    write_files(tmp_path / "j", {"metadata.jsonl": '{"file_name": "a.wav"}\n{"file_name": 3}\n'})
    with pytest.raises(ManifestError, match="field mixes"):
        read_audiofolder(tmp_path / "j")
    write_files(tmp_path, {"metadata.jsonl": ""})
    with pytest.raises(ManifestError, match=r"metadata\.csv and metadata\.jsonl"):
        read_audiofolder(tmp_path)


def test_splits_below_the_classes_are_splits_and_the_class_is_the_level_of_emotions(tmp_path: Path) -> None:
    for speaker in ("s1", "s2"):
        for place in ("Angry/train/a", "Angry/test/b", "Sad/train/c", "Sad/evaluation/d"):
            write_wav(tmp_path / f"{speaker}/{place}.wav")
    manifest = read_audiofolder(tmp_path)
    assert manifest.scheme.classes == ("Angry", "Sad")
    assert manifest.labels == ["Angry", "Angry", "Sad", "Sad"] * 2
    assert manifest.column("split").tolist() == ["test", "train", "development", "train"] * 2
    assert not manifest.has("speaker")
    assert any("s1, s2" in note and "--layout speaker/label/split" in note for note in manifest.notes)
    assert any(mentions(note, "'evaluation'", "development") for note in manifest.notes)
    values = read_audiofolder(tmp_path, layout="speaker/label/split")
    assert values.column("speaker").tolist() == ["s1"] * 4 + ["s2"] * 4
    assert values.labels == manifest.labels


@pytest.mark.parametrize(
    ("files", "layout", "message"),
    [
        (["flac/a.flac", "flac/b.flac"], None, "no class, only splits or formats: level 1: flac"),
        (["angry/a.wav"], None, "a single class, 'angry'"),
        (["angry/s1/a.wav", "angry/s2/b.wav"], None, "a single class, 'angry'"),
        (["angry/wav/a.wav", "angry/mp3/b.wav"], None, "a single class, 'angry'"),
        (["train/a.wav", "angry/b.wav"], None, r"classes named like splits or formats \(train\) beside angry"),
        (["angry/a.wav", "wav/b.wav"], None, r"like splits or formats \(wav\)"),
        (["x/s1/a.wav", "y/s2/b.wav"], None, "2 levels of folders may be the class: level 1: x, y; level 2: s1, s2"),
        (["train/test/a.wav", "test/train/b.wav"], None, "splits on 2 levels"),
        (["x/a.wav", "y/b.wav"], "speaker/label", "has 2 levels, .* has 1: level 1: x, y"),
        (["x/a.wav", "y/b.wav"], "mood", "--layout mood: expected label, split, speaker"),
        (["x/a.wav", "y/b.wav"], "split", "unknown split 'x'"),
    ],
)
def test_folders_that_can_not_be_recognised_as_classes_are_refused(
    tmp_path: Path, files: list[str], layout: str | None, message: str
) -> None:
    for file in files:
        write_wav(tmp_path / file)
    with pytest.raises(ManifestError, match=message):
        read_audiofolder(tmp_path, layout=layout)


def test_folders_of_which_none_is_a_known_emotion_are_classes_with_a_note(tmp_path: Path) -> None:
    for file in ("s1/train/a.wav", "s2/train/b.wav"):
        write_wav(tmp_path / file)
    manifest = read_audiofolder(tmp_path)
    assert manifest.labels == ["s1", "s2"]
    assert any("s1, s2" in note and "--layout speaker/split" in note for note in manifest.notes)
    assert read_audiofolder(tmp_path, layout="speaker/split").column("speaker").tolist() == ["s1", "s2"]


def test_a_level_of_formats_is_no_class_and_a_layout_decides_what_names_do_not(tmp_path: Path) -> None:
    for file in ("x/s1/wav/a.wav", "y/s2/wav/b.wav"):
        write_wav(tmp_path / file)
    manifest = read_audiofolder(tmp_path, layout="label/speaker/_")
    assert manifest.labels == ["x", "y"]
    assert manifest.column("speaker").tolist() == ["s1", "s2"]
    assert read_audiofolder(tmp_path / "x", layout="_/_").scheme.classes == ()
    write_wav(tmp_path / "e/Anger/flac/a.flac")
    write_wav(tmp_path / "e/Joy/flac/b.flac")
    assert read_audiofolder(tmp_path / "e").labels == ["Anger", "Joy"]


def test_a_table_of_another_name_beside_the_audio_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "manifest.csv", ("path", "emotion"), [("flac/a.flac", "sad")])
    write_wav(tmp_path / "flac/a.flac")
    with pytest.raises(ManifestError, match=r"manifest.csv.*medusa prepare csv"):
        read_audiofolder(tmp_path)
    for file in ("sad/1.wav", "happy/2.wav"):
        write_wav(tmp_path / "b" / file)
    write_csv(tmp_path / "b/labels.csv", ("path",), [("x",)])
    assert any("labels.csv" in note for note in read_audiofolder(tmp_path / "b").notes)


def test_the_command_printed_for_a_table_of_another_name_reads_it_as_it_is(tmp_path: Path) -> None:
    rows = [("flac/a.flac", "sad"), ("flac/b.flac", "angry")]
    write_csv(tmp_path / "my corpus/manifest.csv", ("file", "emotion"), rows)
    for file, _ in rows:
        write_wav(tmp_path / "my corpus" / file)
    with pytest.raises(ManifestError) as refused:
        read_audiofolder(tmp_path / "my corpus")
    command = shlex.split(str(refused.value).rpartition("medusa ")[2])
    manifest_path = tmp_path / "m.csv"
    medusa(*command[: command.index("-o")], "-o", manifest_path)
    assert Manifest.read(manifest_path).column("label").tolist() == ["sad", "angry"]


def test_audio_that_a_table_does_not_list_is_counted(tmp_path: Path) -> None:
    write_csv(tmp_path / "metadata.csv", ("file_name", "label"), [("a.wav", "sad")])
    for file in ("a.wav", "b.wav", "c/d.wav"):
        write_wav(tmp_path / file)
    (note,) = read_audiofolder(tmp_path).notes
    assert re.search(r"2 audio files .*: b\.wav, c/d\.wav", note)


# --- merging and dropping classes


def ten_classes() -> Manifest:
    columns = {
        "utterance_id": list("abcdef"),
        "path": ["x.wav"] * 6,
        "label": ["happy", "excited", "other", None, None, "sad"],
        "split": ["train"] * 4 + ["test3", "train"],
        "vote_happy": [2, 1, 0, 1, None, 0],
        "vote_excited": [1, 2, 0, 1, None, 0],
        "vote_other": [0, 0, 3, 1, None, 1],
        "vote_sad": [0, 0, 0, 0, None, 2],
    }
    ratings = Ratings.of(["a", "a", "c"], ["w1", "w2", "w1"], ["happy", "excited", "other"])
    corpus_labels = {"hap": "happy", "exc": "excited", "oth": "other", "sad": "sad", "xxx": None}
    scheme = LabelScheme(("happy", "excited", "other", "sad"), corpus_labels=corpus_labels)
    return Manifest(pa.table(columns), scheme, ratings=ratings)


def test_classes_are_merged_by_name_in_labels_votes_scheme_and_ratings() -> None:
    merged = relabelled(ten_classes(), {"excited": "happy"})
    assert merged.scheme.classes == ("happy", "other", "sad")
    assert merged.scheme.corpus_labels == {"hap": "happy", "exc": "happy", "oth": "other", "sad": "sad", "xxx": None}
    assert merged.labels == ["happy", "happy", "other", None, None, "sad"]
    np.testing.assert_array_equal(merged.votes[:4], [[3, 0, 0], [3, 0, 0], [0, 3, 0], [2, 1, 0]])
    np.testing.assert_array_equal(merged.ratings.counts(["happy"]).ravel(), [2, 0, 0, 0, 0, 0])
    renamed = relabelled(ten_classes(), {"happy": "joy", "excited": "joy"})
    assert renamed.scheme.classes == ("joy", "other", "sad")
    assert renamed.labels[:2] == ["joy", "joy"]


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_an_annotator_who_gave_two_classes_that_are_merged_has_one_vote(weight: float) -> None:
    classes, keys = ("happy", "excited", "sad"), ["a", "b"]
    ratings = Ratings.of(
        ["a", "a", "b"], ["1", "2", "1"], ["hap", "sad", "exc"], also=[["exc", "joy"], ["exc"], ["hap", "sad"]]
    )
    scheme = LabelScheme(classes, {}, {"hap": "happy", "exc": "excited"})
    votes = ratings.renamed(scheme.corpus_labels).counts(classes, also=weight)
    table = pa.table({"utterance_id": keys, "text": keys, "label": ["happy", "excited"]})
    for name, column in zip(classes, votes.T, strict=True):
        table = table.append_column(f"vote_{name}", pa.array(column))
    merged = relabelled(Manifest(table, scheme, ratings=ratings), {"happy": "joy", "excited": "joy"})
    np.testing.assert_allclose(merged.votes, [[1 + weight, 1], [1, weight]])
    of_votes = relabelled(Manifest(table, scheme), {"happy": "joy", "excited": "joy"})
    np.testing.assert_allclose(of_votes.votes, [[1 + 2 * weight, 1], [1 + weight, weight]])


def test_dropped_classes_and_unlabelled_clips_are_left_out_and_noted() -> None:
    dropped = relabelled(ten_classes(), drop=["other"])
    assert dropped.keys == ["a", "b", "d", "e", "f"]
    assert dropped.scheme.classes == ("happy", "excited", "sad")
    assert dropped.scheme.corpus_labels["oth"] is None
    assert dropped.notes == ["left out 1 utterances of other"]
    np.testing.assert_array_equal(dropped.votes[2], [1, 1, 0])
    labelled = relabelled(ten_classes(), labelled_only=True)
    assert labelled.keys == ["a", "b", "c", "e", "f"], "a hidden test set has no labels and stays"
    assert labelled.notes == ["left out 1 utterances without a label"]
    with pytest.raises(ManifestError, match=r"'hapy'.*[Dd]id you mean 'happy'"):
        relabelled(ten_classes(), drop=["hapy"])


def test_of_votes_alone_those_whose_plurality_is_dropped_are_left_out_and_ties_with_it_stay_ties() -> None:
    votes = np.array([[1, 3, 2], [0, 3, 1], [1, 2, 2], [3, 0, 2]], float)
    columns = {f"vote_{name}": votes[:, c] for c, name in enumerate(("happy", "sad", "other"))}
    table = pa.table({"utterance_id": list("abcd"), "text": list("abcd"), **columns})
    manifest = Manifest(table, LabelScheme(("happy", "sad", "other")))
    dropped = relabelled(manifest, drop=["sad"])
    assert dropped.keys == ["c", "d"]
    assert dropped.labels == [None, "happy"]
    np.testing.assert_array_equal(dropped.votes, [[1, 2], [3, 2]])
    assert dropped.notes[0] == "left out 2 utterances of sad"
    assert not relabelled(manifest, {"other": "happy"}).has("label")
    assert relabelled(manifest, labelled_only=True).keys == ["a", "b", "d"]


# --- the commands


def test_each_corpus_is_a_command_with_its_own_options(tmp_path: Path) -> None:
    for file in ("sad/1.wav", "happy/2.wav", "glad/3.wav"):
        write_wav(tmp_path / "clips" / file)
    out = tmp_path / "m.csv"
    output = medusa("prepare", "audiofolder", "--root", tmp_path / "clips", "-o", out, "--merge", "glad=happy").stdout
    assert "happy 2, sad 1" in output
    assert Manifest.read(out).labels == ["happy", "happy", "sad"]
    output = medusa("prepare", "audiofolder", "--root", tmp_path / "clips", "-o", out, "--drop", "sad,glad").stdout
    assert re.search(r"2 utterances of sad, glad", output)
    assert Manifest.read(out).keys == ["happy/2.wav"]
    assert "no class 'mad'" in medusa(
        "prepare", "audiofolder", "--root", tmp_path / "clips", "-o", out, "--drop", "mad", exit_code=2
    ).stderr.replace("\n", " ")
    write_files(tmp_path / "clips", {"cuts.jsonl": lines(cut("x"))})
    cuts = tmp_path / "clips/cuts.jsonl"
    medusa("prepare", "lhotse", cuts, "-o", out, "--no-check-audio", "--label", "rater", "--audio", "/data")
    assert Manifest.read(out).labels == ["3"]
    assert str(Manifest.read(out).audio_path(0)) == "/data/x.wav"


def test_a_file_name_that_is_not_utf8_is_left_out_and_named_and_the_rest_is_read(tmp_path: Path) -> None:
    for file in ("sad/1.wav", "happy/2.wav"):
        write_wav(tmp_path / file)
    bad = os.path.join(os.fsencode(tmp_path), b"sad", b"caf\xe9.wav")
    shutil.copy(tmp_path / "sad/1.wav", bad)
    manifest = CORPORA["audiofolder"](tmp_path)
    assert manifest.keys == ["happy/2.wav", "sad/1.wav"]
    (note,) = manifest.notes
    assert re.search(r"1 files .*UTF-8", note)
    assert "caf" in note
