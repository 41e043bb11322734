"""MSP-Podcast in each form its labels have had becomes one manifest; what is not documented is named and refused."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurestore.corpora import CORPORA
from featurestore.corpora.challenge import read_challenge
from featurestore.corpora.msp_podcast import read_msp_podcast
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ManifestError
from tests.helpers.corpus_trees import (
    MSP_CONSENSUS,
    MSP_FORMS,
    MSP_RATINGS,
    MSP_ROWS,
    msp_detailed,
    msp_tree,
    write_csv,
    write_files,
)
from tests.helpers.small_corpus import medusa

N8, N9, X1, O2 = (row[0] for row in MSP_ROWS)
HIDDEN = "MSP-PODCAST_test3_0001.wav"


@pytest.mark.parametrize("form", MSP_FORMS)
def test_every_form_of_the_labels_gives_the_same_manifest(tmp_path: Path, form: str) -> None:
    manifest = CORPORA["msp-podcast"](msp_tree(tmp_path, form))
    assert manifest.keys == [N8, N9, X1, O2, HIDDEN, "MSP-PODCAST_test3_0002.wav"]
    assert manifest.scheme.classes == ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
    assert manifest.labels == ["neutral", "happy", None, None, None, None]
    assert manifest.column("corpus_label").tolist() == ["N", "H", "X", "O", None, None]
    assert manifest.column("split").tolist() == ["train", "train", "development", "test1", "test3", "test3"]
    assert manifest.column("speaker").tolist() == ["30", "31", None, "30", "77", None]
    assert manifest.column("gender").tolist() == ["male", "female", None, "male", "female", None]
    assert manifest.texts == ["Well, that's it.", "", "", "", "Who knows?", ""]
    assert all(manifest.audio_path(i).is_file() for i in range(6))
    votes = dict(zip(manifest.keys, manifest.votes, strict=True))
    np.testing.assert_array_equal(votes[N8], [0, 1, 0, 0, 0, 0, 0, 2])
    np.testing.assert_array_equal(votes[X1], [1, 0, 0, 0, 0, 0, 1, 0])
    assert votes[O2].sum() == 0
    assert np.isnan(manifest.column("vote_angry")[4:]).all(), "nobody rated the hidden files"
    assert "4 utterances without a transcript" in " ".join(manifest.notes)

    ratings = manifest.ratings
    assert ratings is not None
    assert len(ratings) == len(MSP_RATINGS)
    assert ratings.annotators == ("WORKER00000001", "WORKER00000002", "WORKER00000003")
    np.testing.assert_allclose(ratings.attribute_means()[0], [7 / 3, 4, 8 / 3])
    assert dict(zip(ratings.attributes, ratings.values[-1], strict=True)) == {
        "arousal": 4,
        "valence": 2,
        "dominance": 3,
    }
    assert ratings.counts(["other"]).ravel().tolist() == [0, 0, 0, 2, 0, 0]
    tags = ["concerned", "excited", "disappointed", "other"]
    np.testing.assert_array_equal(ratings.counts(tags, also=1)[:3], [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])


def test_attributes_are_addressed_by_name(tmp_path: Path) -> None:
    root = msp_tree(tmp_path)
    order = (7, 4, 0, 3, 2, 6, 5, 1)  # another release may have them in another order
    rows = [[row[i] for i in order] for row in MSP_ROWS]
    write_csv(root / "Labels/labels_consensus.csv", [MSP_CONSENSUS[i] for i in order], rows)
    manifest = read_msp_podcast(root)
    assert list(manifest.scheme.attributes) == ["arousal", "valence", "dominance"]
    assert manifest.scheme.attributes["arousal"] == (1.0, 7.0)
    np.testing.assert_array_equal(manifest.attributes[1], [5.5, 6.0, 4.5])
    assert np.isnan(manifest.attributes[4:]).all()


def test_other_may_be_a_class_and_secondary_emotions_may_weigh(tmp_path: Path) -> None:
    root = msp_tree(tmp_path)
    manifest = read_msp_podcast(root, scheme="9", secondary=0.5)
    assert manifest.scheme.classes[-1] == "other"
    assert manifest.scheme.corpus_labels == {**manifest.scheme.corpus_labels, "O": "other", "X": None}
    assert manifest.labels[:4] == ["neutral", "happy", None, "other"]
    votes = dict(zip(manifest.keys, manifest.votes, strict=True))
    np.testing.assert_array_equal(votes[N9], [0, 0, 2, 0.5, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(votes[X1], [1, 0, 0, 0, 0, 0.5, 1, 0, 0])
    with pytest.raises(ManifestError, match="one of 8, 9, found '10'"):
        read_msp_podcast(root, scheme="10")


def test_what_is_not_there_is_left_out_and_noted(tmp_path: Path) -> None:
    root = msp_tree(tmp_path)
    (root / "Audios" / N9).unlink()
    manifest = read_msp_podcast(root)
    assert N9 not in manifest.keys
    notes = " ".join(manifest.notes)
    assert re.search(rf"1 utterances .*audio file.*: {N9}", notes)
    assert re.search(rf"1 rated files .*: {N9}", notes)
    assert N9 in read_msp_podcast(root, check_audio=False).keys
    (root / "Labels/labels_detailed.csv").unlink()
    bare = read_msp_podcast(root, transcripts=False, durations=True)
    assert bare.votes is None
    assert bare.ratings is None
    assert not bare.has("text")
    assert bare.column("duration_s").tolist() == [0.1] * 5
    assert "no votes" in bare.notes[-1]


def rewritten(root: Path, i: int, column: str, value: str) -> None:
    position = MSP_CONSENSUS.index(column)
    rows = [
        [value if (j, k) == (i, position) else cell for k, cell in enumerate(row)] for j, row in enumerate(MSP_ROWS)
    ]
    write_csv(root / "Labels/labels_consensus.csv", MSP_CONSENSUS, rows)


def rated(root: Path, form: str, field: int, value: object) -> None:
    changed = [*MSP_RATINGS]
    changed[5] = (*changed[5][:field], value, *changed[5][field + 1 :])
    msp_detailed(root / "Labels/labels_detailed.csv", form, changed)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "class": (lambda root: rewritten(root, 2, "EmoClass", "Z"), r"'EmoClass' has an unknown value.*'X'.*row 3 'Z'"),
    "split": (lambda root: rewritten(root, 1, "Split_Set", "Test9"), r"'Split_Set' has an unknown value.*row 2 'Te"),
    "gender": (lambda root: rewritten(root, 0, "Gender", "m"), r"'Gender' has an unknown value.*row 1 'm'"),
    "attribute": (lambda root: rewritten(root, 3, "EmoVal", "7.5"), r"'EmoVal' out of range, expected 1 to 7.*4 7.5"),
    "number": (lambda root: rewritten(root, 3, "EmoDom", "high"), r"'EmoDom' is not a number.*row 4 'high'"),
    "column": (
        lambda root: write_csv(root / "Labels/labels_consensus.csv", (*MSP_CONSENSUS, "Mood"), [[*MSP_ROWS[0], "x"]]),
        r"labels_consensus.csv: unknown columns \['Mood'\], expected only FileName",
    ),
    "missing column": (
        lambda root: write_csv(root / "Labels/labels_consensus.csv", MSP_CONSENSUS[:4], [MSP_ROWS[0][:4]]),
        r"no column 'EmoDom'",
    ),
    "partition": (
        lambda root: write_files(root, {"Partitions.txt": "\nTrain; a.wav\nBoth; b.wav\n"}), "txt:3: unknown .*'Both'",
    ),
    "two releases": (
        lambda root: write_files(root, {"Partitions.txt": f"Test1; {N8}\n"}), f"{N8} in test1 instead of train",
    ),
    "speaker": (
        lambda root: write_files(root, {"Speaker_ids.txt": "Speaker_1; Neither\n"}), "txt:1: unknown gender 'Neither'",
    ),
    "fields": (lambda root: write_files(root, {"Speaker_ids.txt": "a; b; c\n"}), "txt:1: expected two fields"),
    "primary": (lambda root: rated(root, "2.0", 2, "Hapy"), r"'EmoClass_Major' has an unknown primary.*row 6 'Hapy'"),
    "primary in a detail": (lambda root: rated(root, "1.11", 2, "Hapy"), r"'EmoDetail' has an unknown .*row 6 'Hapy'"),
    "rating": (lambda root: rated(root, "1.6", 4, 9), r"'EmoAct' out of range, expected 1 to 7.*row 6 9.0"),
    "rating in a detail": (lambda root: rated(root, "1.11", 5, 0), r"'EmoDetail V' out of range.*row 6 0.0"),
    "detail": (
        lambda root: write_csv(root / "Labels/labels_detailed.csv", ("FileName", "EmoDetail"), [(N8, "Happy")]),
        r"labels_detailed.csv: column 'EmoDetail' is not like .*row 1 'Happy'",
    ),
    "form": (
        lambda root: write_csv(root / "Labels/labels_detailed.csv", ("FileName", "Emotion"), [(N8, "Happy")]),
        r"labels_detailed.csv has 2? ?.*no column 'Workers'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_not_documented_is_named(tmp_path: Path, kind: str) -> None:
    spoil, message = STRANGE[kind]
    spoil(msp_tree(tmp_path))
    with pytest.raises(ManifestError) as caught:
        read_msp_podcast(tmp_path)

    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not a directory"):
        read_msp_podcast(tmp_path / "nowhere")
    (tmp_path / "Audios").mkdir()
    with pytest.raises(ManifestError, match=r"Labels or labels or label.*Audios"):
        read_msp_podcast(tmp_path)
    root = msp_tree(tmp_path / "msp")
    for path in (root / "Audios").iterdir():
        path.unlink()
    with pytest.raises(ManifestError, match=r"no file .*--no-check-audio"):
        read_msp_podcast(root)


def test_votes_and_ratings_come_back_from_disk(tmp_path: Path) -> None:
    manifest = read_msp_podcast(msp_tree(tmp_path / "msp"))
    manifest.write(tmp_path / "m.csv")
    reread = Manifest.read(tmp_path / "m.csv")
    assert reread.scheme == manifest.scheme
    np.testing.assert_array_equal(reread.votes, manifest.votes)
    assert reread.ratings is not None
    assert reread.ratings.annotators == manifest.ratings.annotators
    assert reread.audio_path(0).is_file()


# --- label tables in circulation

BASELINE = "FileName,Angry,Sad,Happy,Surprise,Fear,Disgust,Contempt,Neutral,Split_Set\n"
MEDUSA = "FileName,Angry,Sad,Happy,Surprise,Fear,Disgust,Contempt,Neutral,EmoAct,EmoVal,EmoDom,Split_Set\n"
SUPERB = "FileName,angry,sad,neutral,SpkrID,Gender,Split_Set\n"


def test_the_baselines_one_hot_table_has_labels_and_no_votes(tmp_path: Path) -> None:
    rows = "a.wav,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,Train\nb.wav,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,Development\n"
    write_files(tmp_path, {"processed_labels.csv": BASELINE + rows})
    manifest = read_challenge(tmp_path / "processed_labels.csv", check_audio=False)
    assert manifest.labels == ["happy", "angry"]
    assert manifest.votes is None
    assert manifest.scheme.classes == ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
    assert manifest.column("split").tolist() == ["train", "development"]


def test_medusas_table_has_shares_and_attributes_by_name(tmp_path: Path) -> None:
    rows = "a.wav,0,0,0,0,0.6,0,0,0.4,4.0,3.8,4.1,Train\nb.wav,0.0,0.2,0.2,0,0,0.2,0.2,0.2,5.2,4.4,5.3,Test\n"
    write_files(tmp_path, {"soft.csv": MEDUSA + rows})
    manifest = CORPORA["challenge"](tmp_path / "soft.csv", audio=tmp_path / "Audios", check_audio=False)
    assert manifest.labels == ["fear", None]
    assert manifest.votes[0].tolist() == [0, 0, 0, 0, 0.6, 0, 0, 0.4]
    assert manifest.attributes[1].tolist() == [5.2, 4.4, 5.3]
    assert manifest.column("split").tolist() == ["train", "test"]
    assert manifest.audio_path(0) == tmp_path / "Audios" / "a.wav"


def test_emo_superbs_table_has_speakers(tmp_path: Path) -> None:
    write_files(tmp_path, {"labels_consensus_1.csv": SUPERB + "a.wav,0.39,0.01,0.6,1037,Female,Train\n"})
    manifest = read_challenge(tmp_path / "labels_consensus_1.csv", check_audio=False)
    assert manifest.scheme.classes == ("angry", "sad", "neutral")
    assert manifest.labels == ["neutral"]
    assert manifest.column("speaker").tolist() == ["1037"]
    assert manifest.column("gender").tolist() == ["female"]


def test_other_columns_and_shares_are_refused(tmp_path: Path) -> None:
    for text, message in {
        BASELINE.replace("Sad", "Sadness") + "a.wav,0,0,1,0,0,0,0,0,Train\n": r"unknown columns \['Sadness'\]",
        BASELINE + "a.wav,0,0,0.5,0,0,0,0,0,Train\n": r"shares do not sum to 1 \(1 row\): row 1 0.5",
        BASELINE + "a.wav,0,0,2,0,0,0,0,0,Train\n": r"column 'Happy' out of range, expected 0 to 1.*row 1 2.0",
        BASELINE + "a.wav,0,0,1,0,0,0,0,0,Trial\n": r"'Split_Set' has an unknown value.*row 1 'Trial'",
        "FileName,Happy\na.wav,1\n": "columns of two classes or more",
        BASELINE + "a.wav,0,0,1,0,0,0,0,0,Train\n": r"audio file not found.*row 1 'a.wav'",
    }.items():
        write_files(tmp_path, {"t.csv": text})
        with pytest.raises(ManifestError, match=message):
            read_challenge(tmp_path / "t.csv")


IMPROV = "FileName,depressed,angry,excited,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
IMPROV_ROWS = "F.wav,0.1,0.9,0.0,5.0,1.0,3.0,02,Female,Train\nM.wav,0.1,0.0,0.9,2.0,4.0,3.0,02,Male,Test\n"
SCALE = '{"dimensional": {"max_score": 5, "min_score": 1}}'


def test_the_range_of_attributes_is_read_from_the_config_or_requested(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"t.csv": IMPROV + IMPROV_ROWS}) / "t.csv"
    with pytest.raises(ManifestError, match="--attribute-range LOW:HIGH"):
        read_challenge(path, check_audio=False, speaker_by_gender=True)
    for text in ("1", "5:x", "1:2:3"):
        with pytest.raises(ManifestError, match=f"--attribute-range {text}:"):
            read_challenge(path, check_audio=False, speaker_by_gender=True, attribute_range=text)
    requested = read_challenge(path, check_audio=False, speaker_by_gender=True, attribute_range="0:6")
    assert requested.scheme.attributes == dict.fromkeys(("arousal", "valence", "dominance"), (0.0, 6.0))
    write_files(tmp_path, {"config.json": SCALE})
    manifest = read_challenge(path, check_audio=False, speaker_by_gender=True)
    assert manifest.scheme.attributes["arousal"] == (1.0, 5.0)
    assert manifest.scheme.classes == ("depressed", "angry", "excited")
    assert manifest.labels == ["angry", "excited"]
    write_files(tmp_path, {"config.json": '{"dimensional": {"max": 5}}'})
    with pytest.raises(ManifestError, match=r"config.json, dimensional"):
        read_challenge(path, check_audio=False, speaker_by_gender=True)
    rows = IMPROV_ROWS.replace("F.wav", N8).replace("M.wav", N9)
    ours = write_files(tmp_path / "p", {"t.csv": IMPROV + rows}) / "t.csv"
    manifest = read_challenge(ours, check_audio=False, speaker_by_gender=True)
    assert manifest.scheme.attributes["valence"] == (1.0, 7.0)


def test_a_range_of_1_to_7_that_is_assumed_is_noted_with_the_option_and_no_other_range_is(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"t.csv": MEDUSA + "a.wav,0,0,1,0,0,0,0,0,4.0,3.8,4.1,Train\n"}) / "t.csv"
    manifest = read_challenge(path, check_audio=False)
    assert manifest.scheme.attributes["arousal"] == (1.0, 7.0)
    (note,) = [note for note in manifest.notes if "scale" in note]
    assert "1 to 7" in note
    assert "--attribute-range" in note
    printed = " ".join(
        medusa("prepare", "challenge", path, "-o", tmp_path / "m.csv", "--no-check-audio").stdout.split()
    )
    assert "1 to 7; say --attribute-range" in printed
    assert not any("scale" in note for note in read_challenge(path, check_audio=False, attribute_range="1:7").notes)
    path.write_text(path.read_text().replace("a.wav", N8))
    assert not any("scale" in note for note in read_challenge(path, check_audio=False).notes), "MSP-Podcast's own"


def test_a_speaker_of_two_genders_is_two_speakers_or_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, {"t.csv": IMPROV + IMPROV_ROWS, "config.json": SCALE})
    with pytest.raises(ManifestError, match=r"1 speakers.*\(02\).*--speaker-by-gender"):
        read_challenge(tmp_path / "t.csv", check_audio=False)
    out = tmp_path / "m.csv"
    medusa("prepare", "challenge", tmp_path / "t.csv", "-o", out, "--no-check-audio", "--speaker-by-gender")
    assert Manifest.read(out).column("speaker").tolist() == ["Female_02", "Male_02"]


def test_a_column_of_file_names_may_have_no_name(tmp_path: Path) -> None:
    rows = ",angry,relax,joy,EmoAct,SpkrID,Gender,Split_Set\nn_1.wav,0.1,0.9,0,1,22,Female,Train\n"
    write_files(tmp_path, {"t.csv": rows, "config.json": SCALE})
    manifest = read_challenge(tmp_path / "t.csv", check_audio=False)
    assert manifest.keys == ["n_1.wav"]
    assert manifest.labels == ["relax"]


def test_the_command_that_a_refusal_prints_reads_the_table(tmp_path: Path) -> None:
    text = IMPROV.replace("depressed", "melancholy and woe").replace("FileName", "") + IMPROV_ROWS
    write_files(tmp_path, {"t.csv": text})
    output = medusa("prepare", "challenge", tmp_path / "t.csv", "-o", tmp_path / "m.csv", exit_code=2).stderr
    assert "melancholy and woe" in output
    command = shlex.split(output[output.index("medusa prepare csv") :].replace("LOW:HIGH", "1:5"))
    command[command.index("-o") + 1] = str(tmp_path / "m.csv")
    medusa(*command[1:], "--no-check-audio")
    manifest = Manifest.read(tmp_path / "m.csv")
    assert manifest.keys == ["F.wav", "M.wav"]
    assert manifest.scheme.classes == ("melancholy and woe", "angry", "excited")
    assert manifest.scheme.attributes["arousal"] == (1, 5)
