"""A corpus in its own layout becomes a manifest; a directory or table that is not one is refused with the reason."""

import csv
import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from featurestore.audio import duration_s
from featurestore.corpora import CORPORA
from featurestore.corpora.audiofolder import read_audiofolder
from featurestore.corpora.ravdess import FOLDS, read_ravdess
from featurestore.corpora.table import read_table
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.summary import summary_lines
from featurestore.errors import ManifestError
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa

OTHER_NAMES = {"fear": "fearful", "surprise": "surprised"}  # the corpus's words, which the reference table keeps


# --- RAVDESS


def test_the_complete_corpus_agrees_with_the_reference_table(ravdess_dir: Path) -> None:
    manifest = read_ravdess(ravdess_dir)
    with open(ravdess_dir / "manifest.csv", newline="") as file:
        reference = {row["utterance_id"]: row for row in csv.DictReader(file)}
    assert len(manifest) == 1440
    assert set(manifest.keys) == set(reference)
    assert manifest.notes == []
    for name in ("path", "speaker", "gender", "intensity", "text", "fold"):
        assert manifest.column(name).tolist() == [reference[key][name] for key in manifest.keys], name
    emotions = [reference[key]["emotion"] for key in manifest.keys]
    assert [OTHER_NAMES.get(label, label) for label in manifest.column("label")] == emotions
    seconds = [float(reference[key]["duration_s"]) for key in manifest.keys]
    np.testing.assert_allclose(manifest.column("duration_s"), seconds, atol=2e-3)


def test_the_demo_corpus_has_each_actor_and_emotion_twice(demo_corpus: Path) -> None:
    manifest = CORPORA["ravdess"](demo_corpus)
    pairs = list(zip(manifest.column("speaker"), manifest.column("label"), strict=True))
    assert len(pairs) == 384
    assert len(set(pairs)) == 24 * 8
    assert all(pairs.count(pair) == 2 for pair in set(pairs))
    assert set(manifest.column("intensity")) == {"normal"}
    classes = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
    assert manifest.scheme.classes == classes
    files = [path for path in demo_corpus.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert soundfile.info(manifest.audio_path(0)).samplerate == 16_000
    notice = (demo_corpus / "NOTICE.md").read_text()
    for words in ("CC BY-NC-SA 4.0", "Livingstone SR, Russo FA (2018)", "e0196391", "1188976", "Changes made"):
        assert words in notice


def test_no_speaker_is_in_two_folds() -> None:
    actors = [actor for fold in FOLDS.values() for actor in fold]
    assert sorted(actors) == [f"{actor:02d}" for actor in range(1, 25)]


@pytest.fixture
def small_corpus(tmp_path: Path, demo_corpus: Path) -> Path:
    """Two actors, two clips each."""
    for actor in ("01", "02"):
        target = tmp_path / "ravdess" / f"Actor_{actor}"
        target.mkdir(parents=True)
        for emotion in ("03", "04"):
            name = f"03-01-{emotion}-01-01-01-{actor}.ogg"
            shutil.copy(demo_corpus / f"Actor_{actor}" / name, target / name)
    return tmp_path / "ravdess"


def test_a_part_of_the_corpus_is_read_and_noted_as_one(small_corpus: Path) -> None:
    manifest = read_ravdess(small_corpus)
    assert manifest.labels == ["happy", "happy", "sad", "sad"]
    assert manifest.column("gender").tolist() == ["male", "female", "male", "female"]
    assert manifest.notes == ["4 of the corpus's 1,440 speech clips, 2 of 24 actors"]
    assert len(manifest.scheme.classes) == 8


def test_the_published_parent_folder_is_accepted_and_a_second_copy_is_not_counted_twice(small_corpus: Path) -> None:
    parent = small_corpus.parent / "download"
    shutil.copytree(small_corpus, parent / "Audio_Speech_Actors_01-24")
    manifest = read_ravdess(parent)
    assert len(manifest) == 4
    assert manifest.audio_path(0).is_file()
    shutil.copytree(small_corpus / "Actor_01", parent / "Actor_01")
    assert len(read_ravdess(parent)) == 2


def test_songs_and_video_sound_are_left_out_and_counted(small_corpus: Path) -> None:
    clip = small_corpus / "Actor_01" / "03-01-03-01-01-01-01.ogg"
    shutil.copy(clip, clip.with_name("03-02-03-01-01-01-01.ogg"))
    shutil.copy(clip, clip.with_name("01-01-03-01-01-01-01.ogg"))
    (clip.parent / "._03-01-03-01-01-01-01.wav").write_bytes(b"\0")
    manifest = read_ravdess(small_corpus)
    assert len(manifest) == 4
    assert any(mentions(note, "left out", 1, "audio only song") for note in manifest.notes)
    assert any(mentions(note, "left out", 1, "full audio-video speech") for note in manifest.notes)


def test_an_unreadable_clip_stays_without_a_duration_and_is_named(small_corpus: Path) -> None:
    clip = small_corpus / "Actor_02" / "03-01-04-01-01-01-02.ogg"
    clip.write_bytes(b"not audio")
    manifest = read_ravdess(small_corpus)
    assert np.isnan(manifest.column("duration_s")[manifest.index(clip.stem)])
    assert any(str(clip) in note for note in manifest.notes)


BAD_NAMES = {
    "03-01-09-01-01-01-01": "unknown emotion code '09', expected one of 01, 02",
    "03-01-01-01-01-01-25": "unknown actor code '25'",
    "03-01-01-01-01-01-02": "the name says actor 02, the folder Actor_01",
    "happy_01": "expected a name of seven codes",
}


@pytest.mark.parametrize("stem", BAD_NAMES)
def test_a_name_with_unknown_codes_is_named(small_corpus: Path, stem: str) -> None:
    (small_corpus / "Actor_01" / f"{stem}.ogg").write_bytes(b"")
    with pytest.raises(ManifestError, match=BAD_NAMES[stem]):
        read_ravdess(small_corpus)


def test_another_directory_gets_the_expected_layout(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"empty.*Actor_01 to Actor_24"):
        read_ravdess(tmp_path)
    with pytest.raises(ManifestError, match="is not a directory"):
        read_ravdess(tmp_path / "nowhere")
    (tmp_path / "Session1").mkdir()
    with pytest.raises(ManifestError, match=r"found Session1.*Actor_01 to Actor_24"):
        read_ravdess(tmp_path)


# --- a table that a user already has


def written(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_renamed_and_one_may_serve_twice(tmp_path: Path) -> None:
    path = written(tmp_path, "FileName,EmoClass,EmoAct,label\na.wav,H,5.5,1\nb.wav,S,1,2\n")
    names = {"utterance_id": "FileName", "path": "FileName", "label": "EmoClass", "attr_arousal": "EmoAct"}
    manifest = read_table(path, columns=names, classes=["S", "H", "N"], check_audio=False)
    assert manifest.keys == ["a.wav", "b.wav"]
    assert manifest.audio_path(0) == tmp_path / "a.wav"
    assert manifest.labels == ["H", "S"]
    assert manifest.scheme.classes == ("S", "H", "N")
    assert manifest.scheme.attributes == {"arousal": (1.0, 7.0)}
    assert manifest.column("label_was").tolist() == ["1", "2"]
    renamed, speakers, scale = manifest.notes
    assert mentions(scale, "arousal", "1 to 5.5")
    assert mentions(renamed, "'label'", "'EmoClass'", "'label_was'")
    assert "--column speaker=YOURS" in speakers


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_are_recognised(tmp_path: Path, separator: str) -> None:
    path = written(tmp_path, "utterance_id,text,label\na,x,sad\n".replace(",", separator))
    manifest = read_table(path)
    assert manifest.labels == ["sad"]
    manifest.write(tmp_path / "out.csv")
    assert Manifest.read(tmp_path / "out.csv").labels == ["sad"]


def test_split_names_become_uniform_and_unknown_ones_are_named(tmp_path: Path) -> None:
    rows = ["Train", "dev", "Validation", "Development", "Test1", "test", ""]
    text = "utterance_id,text,split\n" + "".join(f"u{i},x,{name}\n" for i, name in enumerate(rows))
    splits = read_table(written(tmp_path, text), require_label=False).column("split").tolist()
    assert splits == ["train", "development", "development", "development", "test1", "test", None]
    with pytest.raises(ManifestError, match=r"unknown split.*row 8 'holdout'"):
        read_table(written(tmp_path, text + "u8,x,holdout\n"), require_label=False)


def test_a_missing_column_names_the_option_that_says_which_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\na.wav,sad\nb.wav,angry\n")
    command = ("prepare", "csv", tmp_path / "t.csv", "-o", tmp_path / "m.csv", "--no-check-audio")
    assert "--column" in " ".join(medusa(*command, exit_code=2).stderr.split())
    medusa(*command, "--column", "path=file")
    assert Manifest.read(tmp_path / "m.csv").keys == ["a.wav", "b.wav"]


def test_columns_in_a_spreadsheets_spelling_are_offered(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("File Name;Emotion;Speaker ID\na.wav;sad;1\n")
    shown = medusa("prepare", "csv", tmp_path / "t.csv", "-o", tmp_path / "m.csv", exit_code=2).stderr
    assert "--column 'path=File Name' --column label=Emotion" in " ".join(shown.split())
    shown = medusa(
        "prepare", "csv", tmp_path / "t.csv", "-o", tmp_path / "m.csv", "--column", "path=File Name", exit_code=2
    ).stderr
    assert "--column label=Emotion" in " ".join(shown.split())


def test_a_missing_label_column_names_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path, "utterance_id,text,emotion\na,x,sad\n")
    with pytest.raises(ManifestError, match=r"no column 'label'.*'text', 'emotion'.*--column label=emotion"):
        read_table(path)
    assert read_table(path, require_label=False).scheme.classes == ()
    with pytest.raises(ManifestError, match=r"'emotoin', .*'emotion'\?.*'label'"):
        read_table(path, columns={"label": "emotoin"})
    with pytest.raises(ManifestError, match=r"'lable'.*did you mean 'label'"):
        read_table(path, columns={"lable": "emotion"})


def test_missing_audio_and_every_other_problem_are_listed_together(tmp_path: Path, demo_corpus: Path) -> None:
    shutil.copy(next(demo_corpus.glob("Actor_01/*.ogg")), tmp_path / "there.ogg")
    text = "utterance_id,path,label,vote_sad,vote_happy\na,there.ogg,sad,1,0\na,gone.ogg,angry,-1,x\n"
    with pytest.raises(ManifestError) as caught:
        read_table(written(tmp_path, text))
    message = str(caught.value)
    assert "has 5 problems" in message
    for part in ("row 2 'a'", "row 2 'angry'", "row 2 -1.0", "row 2 'x'", "not found", "row 2 'gone.ogg'"):
        assert part in message
    good = read_table(written(tmp_path, text.rsplit("\n", 2)[0] + "\n"))
    assert duration_s(good.audio_path(0)) > 1


def test_relative_paths_may_start_elsewhere(tmp_path: Path, demo_corpus: Path) -> None:
    clip = next(demo_corpus.glob("Actor_01/*.ogg")).relative_to(demo_corpus)
    path = written(tmp_path, f"utterance_id,path,label\na,{clip},sad\n")
    with pytest.raises(ManifestError, match=r"audio file not found.*--root"):
        read_table(path)
    manifest = read_table(path, root=demo_corpus)
    manifest.write(tmp_path / "out.csv")
    assert Manifest.read(tmp_path / "out.csv").audio_path(0).is_file()


def test_an_index_without_a_name_is_the_id_unless_it_only_counts_rows(tmp_path: Path) -> None:
    manifest = read_table(written(tmp_path, ",text,label\na.wav,x,sad\nb.wav,y,sad\n"))
    assert manifest.keys == ["a.wav", "b.wav"]
    assert any("without a name" in note for note in manifest.notes)
    with pytest.raises(ManifestError, match="no column 'utterance_id'"):
        read_table(written(tmp_path, ",text,label\n0,x,sad\n1,y,sad\n"))
    table = written(tmp_path, ",text,label\n0,x,sad\n1,y,sad\n")
    assert read_table(table, columns={"utterance_id": ""}).keys == ["0", "1"]
    medusa("prepare", "csv", table, "-o", tmp_path / "m.csv", "--column", "id=")
    assert Manifest.read(tmp_path / "m.csv").keys == ["0", "1"]


def test_splits_of_other_names_are_mapped_by_an_option_that_the_error_names(tmp_path: Path) -> None:
    table = written(tmp_path, "utterance_id,text,label,split\na,x,sad,0\nb,y,sad,1\nc,z,sad,2\n")
    output = medusa("prepare", "csv", table, "-o", tmp_path / "m.csv", exit_code=2).stderr
    assert "--split-name 0=train" in " ".join(output.split())
    names = [part for name in ("0=train", "1=dev", "2=test") for part in ("--split-name", name)]
    medusa("prepare", "csv", table, "-o", tmp_path / "m.csv", *names)
    assert Manifest.read(tmp_path / "m.csv").column("split").tolist() == ["train", "development", "test"]
    with pytest.raises(ManifestError, match="--split-name: 'hold' is no split"):
        read_table(table, split_names={"0": "hold"})


def test_a_second_table_is_joined_by_a_column_that_both_have(tmp_path: Path) -> None:
    table = written(tmp_path, "utterance_id,text,label,who\na,x,sad,01\nb,y,sad,02\nc,z,sad,03\n")
    people = written(tmp_path, "ActorID,gender,text\n01,female,T\n02,male,U\n", "people.csv")
    out = tmp_path / "m.csv"
    join = f"{people}:who=ActorID"
    output = medusa("prepare", "csv", table, "-o", out, "--join", join, "--column", "speaker=who").stdout
    manifest = Manifest.read(out)
    assert manifest.column("gender").tolist() == ["female", "male", None]
    assert manifest.texts == ["x", "y", "z"]
    assert manifest.column("people_text").tolist() == ["T", "U", None]
    assert re.search(r"1 values of who .*people\.csv: 03", output)
    people.write_text("ActorID,gender\n01,female\n01,male\n")
    with pytest.raises(ManifestError, match=r"people\.csv: ActorID .*'01' twice"):
        read_table(table, joined=[(people, "who", "ActorID")])
    with pytest.raises(ManifestError, match=r"--join: .*people\.csv .*no column 'actor'"):
        read_table(table, joined=[(people, "who", "actor")])
    assert "expected FILE:YOURS" in medusa("prepare", "csv", table, "-o", out, "--join", "people", exit_code=2).stderr


def test_a_class_may_hold_a_comma_in_drop_and_in_classes(tmp_path: Path) -> None:
    table = written(tmp_path, 'utterance_id,text,label\na,x,"pain, groan"\nb,y,sad\nc,z,happy\n')
    out = tmp_path / "m.csv"
    medusa("prepare", "csv", table, "-o", out, "--drop", "pain, groan,sad")
    assert Manifest.read(out).labels == ["happy"]
    medusa("prepare", "csv", table, "-o", out, "--classes", "sad,pain, groan,happy")
    assert Manifest.read(out).scheme.classes == ("sad", "pain, groan", "happy")
    medusa("prepare", "csv", table, "-o", out, "--merge", "pain, groan=sad")
    assert Manifest.read(out).labels == ["sad", "sad", "happy"]


def test_cells_that_look_like_formulas_are_exact_unless_they_are_to_be_escaped(tmp_path: Path) -> None:
    table = written(tmp_path, "utterance_id,text,label,x\n-a,=1+1,sad,@b\n+c,-2,sad,d\n")
    out = tmp_path / "m.csv"
    medusa("prepare", "csv", table, "-o", out)
    assert Manifest.read(out).texts == ["=1+1", "-2"]
    assert "'" not in out.read_text()
    medusa("prepare", "csv", table, "-o", out, "--escape-formulas")
    assert Manifest.read(out).texts == ["'=1+1", "'-2"]
    assert Manifest.read(out).keys == ["-a", "+c"]
    assert Manifest.read(out).column("x").tolist() == ["'@b", "d"]


def test_speakers_of_two_genders_are_noted_and_two_columns_can_be_joined(tmp_path: Path) -> None:
    table = written(tmp_path, "utterance_id,text,label,who,gender\na,x,sad,1,female\nb,y,Sad,1,male\nc,z,fear,2,male\n")
    out = tmp_path / "m.csv"
    output = medusa("prepare", "csv", table, "-o", out, "--column", "speaker=who").stdout
    assert mentions(output, "1 speakers", "two genders", 1)
    assert "--merge 'sad=Sad'" in output
    output = medusa("prepare", "csv", table, "-o", out, "--column", "speaker=gender+who", "--merge", "Sad=sad").stdout
    assert "two genders" not in output
    assert "--merge" not in output
    assert Manifest.read(out).column("speaker").tolist() == ["female_1", "male_1", "male_2"]


def test_speakers_of_two_corpora_by_one_name_are_noted_and_can_be_told_apart(tmp_path: Path) -> None:
    rows = "a,x,sad,1,A\nb,y,fear,1,B\nc,z,fear,2,B\nd,z,sad,Unknown,A\ne,z,sad,Unknown,B\n"
    table, out = written(tmp_path, "utterance_id,text,label,who,corpus\n" + rows), tmp_path / "m.csv"
    output = medusa("prepare", "csv", table, "-o", out, "--column", "speaker=who").stdout
    assert mentions(output, "1 speakers are in several corpora: 1;", "--column speaker=corpus+SPEAKER")
    output = medusa("prepare", "csv", table, "-o", out, "--column", "speaker=corpus+who").stdout
    assert "several corpora" not in output
    assert Manifest.read(out).column("speaker").tolist() == ["A_1", "B_1", "B_2", None, None]


def test_a_scale_that_nobody_named_is_noted_where_the_values_do_not_reach_its_ends(tmp_path: Path) -> None:
    path = written(tmp_path, "utterance_id,text,label,attr_arousal,attr_valence\na,x,sad,1,1.5\nb,y,fear,5,6.5\n")
    noted = [note for note in read_table(path).notes if "scale" in note]
    assert len(noted) == 1
    assert mentions(noted[0], "arousal", "1 to 5", "1 to 7", "--attribute arousal:LOW:HIGH")
    named = read_table(path, attributes={"arousal": (1, 5)})
    assert not [note for note in named.notes if "scale" in note]
    named.write(tmp_path / "m.csv")
    assert not [note for note in read_table(tmp_path / "m.csv").notes if "scale" in note]


def test_unknown_speakers_are_no_person_whether_counted_or_joined(tmp_path: Path) -> None:
    rows = "a,x,sad,Unknown,female\nb,y,sad,Unknown,male\nc,z,fear,2,male\nd,z,fear,Unknown,male\n"
    table, out = written(tmp_path, "utterance_id,text,label,who,gender\n" + rows), tmp_path / "m.csv"
    output = medusa("prepare", "csv", table, "-o", out, "--column", "speaker=who").stdout
    assert "two genders" not in output
    assert dict(summary_lines(Manifest.read(out)))["speakers"] == "1"
    medusa("prepare", "csv", table, "-o", out, "--column", "speaker=gender+who")
    assert Manifest.read(out).column("speaker").tolist() == [None, None, "male_2", None]


def test_a_speaker_called_as_what_is_missing_is_noted(tmp_path: Path) -> None:
    rows = "a,x,sad,n/a\nb,y,fear,n/a\nc,z,sad,Unknown\nd,z,sad,Unknown\ne,z,fear,\nf,z,sad,unknown\ng,z,sad,Ann\n"
    table = written(tmp_path, f"utterance_id,text,label,speaker\n{rows}")
    output = " ".join(medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout.split())
    assert mentions(output, "speaker 'n/a'", 2, "one person", "Unknown")
    assert output.count("one person") == 1  # one utterance alone is nobody's other clip


def test_names_that_look_like_mistakes_are_noted(tmp_path: Path) -> None:
    rows = "a,x,sad,Ann,1\nb,y,nan,ann ,1\nc,z,angry,Bob, 1\n"
    table = written(tmp_path, f"utterance_id,text,label,speaker,fold\n{rows}")
    output = " ".join(medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout.split())
    assert "speakers 'Ann' and 'ann '" in output
    assert "folds '1' and ' 1'" in output
    assert "'nan': taken for a class" in output
    assert "--drop 'nan'" in output
    output = medusa("prepare", "csv", table, "-o", tmp_path / "m.csv", "--drop", "nan").stdout
    assert "taken for a class" not in output


def test_columns_in_another_spelling_are_named_with_the_options_that_read_them(tmp_path: Path) -> None:
    rows = "a,x,sad,train,1,ann\nb,y,fear,test,2,bob\n"
    table = written(tmp_path, f"utterance_id,text,label,Split, fold,Speaker\n{rows}")
    (note,) = [note for note in read_table(table).notes if "not read" in note]
    assert mentions(note, "'Split'", "' fold'", "'Speaker'", "--column split=Split", "--column 'fold= fold'")
    columns = {"split": "Split", "fold": " fold", "speaker": "Speaker"}
    assert not [note for note in read_table(table, columns=columns).notes if "not read" in note]
    assert read_table(table, columns=columns).column("split").tolist() == ["train", "test"]


def test_names_of_two_unicode_forms_are_noted_and_merged_by_the_option_that_is_printed(tmp_path: Path) -> None:
    typed, macos = "Überraschung", unicodedata.normalize("NFD", "Überraschung")
    rows = f"a,x,{typed},René\nb,y,{macos},{unicodedata.normalize('NFD', 'René')}\nc,z,sad,Ann\n"
    table = written(tmp_path, f"utterance_id,text,label,speaker\n{rows}")
    output = " ".join(medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout.split())
    assert mentions(output, "classes", "Unicode form", f"--merge '{typed}={macos}'", "speakers", "Unicode form")
    medusa("prepare", "csv", table, "-o", tmp_path / "m.csv", "--merge", f"{typed}={macos}")
    assert Manifest.read(tmp_path / "m.csv").labels == [macos, macos, "sad"]


def test_one_file_under_a_relative_and_an_absolute_path_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.full(800, 0.1), 16_000)
    written(tmp_path, f"id,path,label\nx,a.wav,sad\ny,./a.wav,fear\nz,{tmp_path / 'a.wav'},sad\n", "t.csv")
    (note,) = [each for each in read_table("t.csv", columns={"utterance_id": "id"}).notes if "share" in each]
    assert mentions(note, 3, "x, y, z")


def test_names_of_codes_that_datasets_records_in_parquet_are_noted(tmp_path: Path) -> None:
    features = {"emotion": {"names": ["sad", "happy", "very angry"], "_type": "ClassLabel"}}
    table = pa.table({"utterance_id": ["a", "b", "c"], "text": ["x"] * 3, "emotion": [2, 0, None]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    manifest = read_table(tmp_path / "t.parquet", columns={"label": "emotion"})
    assert manifest.labels == ["2", "0", None]
    assert any("--merge 0=sad --merge '2=very angry'" in note for note in manifest.notes)


def test_numbers_written_in_two_ways_are_noted(tmp_path: Path) -> None:
    rows = "a,x,0,7,1\nb,y,0.0,007,1.0\nc,z,10,8,2\nd,z,1,8.5,02\n"
    table = written(tmp_path, f"utterance_id,text,label,speaker,fold\n{rows}")
    output = " ".join(medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout.split())
    assert mentions(
        output, "classes '0' and '0.0'", "--merge '0.0=0'", "speakers '7' and '007'", "'1' and '1.0', and 1 more"
    )
    assert "'10'" not in output


def test_labels_that_got_fewer_votes_than_another_class_are_counted(tmp_path: Path) -> None:
    rows = "a,x,sad,0,2\nb,y,sad,1,1\nc,z,angry,0,3\nd,z,angry,0,0\n"
    table = written(tmp_path, f"utterance_id,text,label,vote_sad,vote_angry\n{rows}")
    output = " ".join(medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout.split())
    assert "1 of 3 labels" in output


@pytest.mark.parametrize(
    ("column", "values"), [("label", [["sad"], ["happy"]]), ("path", [{"path": "a.wav"}, {"path": "b.wav"}])]
)
def test_lists_and_records_in_place_of_names_are_refused(tmp_path: Path, column: str, values: list[Any]) -> None:
    table = {"utterance_id": ["a", "b"], "path": ["a.wav", "b.wav"], "label": ["sad", "happy"]} | {column: values}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    for read in (read_table, Manifest.read):
        with pytest.raises(ManifestError, match=rf"'{column}'.*(list|struct)<"):
            read(tmp_path / "t.parquet")
    named = {"file_name" if name == "path" else name: column for name, column in table.items()}
    pyarrow.parquet.write_table(pa.table(named), tmp_path / "metadata.parquet")
    with pytest.raises(ManifestError, match=r"metadata table.*(list|struct)<"):
        read_audiofolder(tmp_path, check_audio=False)


def test_a_corpus_without_speakers_is_noted_once_whatever_the_reader(tmp_path: Path) -> None:
    table = written(tmp_path, "utterance_id,text,label\na,x,sad\nb,y,fear\n")
    for name in ("sad/a.wav", "fear/b.wav"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / name, np.zeros(800), 16_000)
    folder = ("prepare", "audiofolder", "--root", tmp_path / "clips", "-o", tmp_path / "m.csv")
    assert medusa(*folder).stdout.count("no column of speakers") == 1
    assert "no column of speakers" not in medusa(*folder, "--layout", "speaker").stdout
    assert medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout.count("no column of speakers") == 1


def test_a_single_class_is_noted(tmp_path: Path) -> None:
    table = written(tmp_path, "utterance_id,text,label\na,x,flac\nb,y,flac\n")
    assert "a single class, 'flac'" in medusa("prepare", "csv", table, "-o", tmp_path / "m.csv").stdout


@pytest.mark.parametrize("columns", [{}, {"utterance_id": "path"}])
def test_paths_serve_as_ids_where_there_are_none_and_pieces_of_a_file_have_ids_with_their_ends(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    table = written(tmp_path, "path,start,end,label\na.wav,0 days 00:00:00,0 days 00:00:03,sad\na.wav,3,6,happy\n")
    result = read_table(table, columns=columns, check_audio=False)
    assert result.keys == ["a.wav[0-3]", "a.wav[3-6]"]
    assert result.column("path").tolist() == ["a.wav", "a.wav"]
