"""IEMOCAP, MELD and the acted corpora in their own layouts; CREMA-D with its real votes."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from featurestore.corpora import CORPORA
from featurestore.corpora.crema_d import N_CLIPS, OTHER_COLUMNS, read_crema_d, voice_votes
from featurestore.corpora.emodb import read_emodb
from featurestore.corpora.iemocap import read_iemocap
from featurestore.corpora.meld import read_meld
from featurestore.corpora.savee import read_savee
from featurestore.corpora.table import read_table
from featurestore.corpora.tess import read_tess
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.relabel import relabelled
from featurestore.corpus.votes import consensus
from featurestore.errors import ManifestError
from tests.helpers.corpus_trees import IEMOCAP_EVALUATION, iemocap_tree, write_csv, write_files, write_wav
from tests.helpers.messages import mentions

# --- IEMOCAP


def test_four_classes_merge_excitement_and_leave_out_the_rest(tmp_path: Path) -> None:
    manifest = CORPORA["iemocap"](iemocap_tree(tmp_path))
    assert manifest.keys == ["Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses05M_script01_1b_M003"]
    assert manifest.scheme.classes == ("angry", "happy", "sad", "neutral")
    assert manifest.scheme.corpus_labels["exc"] == manifest.scheme.corpus_labels["hap"] == "happy"
    assert manifest.scheme.corpus_labels["fru"] is None
    assert manifest.labels == ["neutral", "happy", "sad"]
    assert manifest.column("corpus_label").tolist() == ["neu", "exc", "sad"]
    assert manifest.column("speaker").tolist() == ["Ses01F", "Ses01M", "Ses05M"]
    assert manifest.column("gender").tolist() == ["female", "male", "male"]
    assert manifest.column("fold").tolist() == ["1", "1", "5"]
    assert manifest.texts == ["Excuse me.", "Do you have your forms?", "No."]
    assert manifest.column("duration_s").tolist() == [1.9456, 1.3825, 1.5]
    assert manifest.audio_path(2).is_file()
    # Frustration is no class here, excitement and happiness of one evaluator are one vote, and nobody judges himself.
    np.testing.assert_array_equal(manifest.votes, [[0, 0, 0, 3], [0, 2, 0, 0], [0, 0, 1, 0]])
    assert manifest.notes[0] == "left out: fru 1, xxx 1"
    assert "2 of 5 sessions" in manifest.notes


def test_attributes_have_names_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    manifest = read_iemocap(iemocap_tree(tmp_path), scheme="full")
    assert list(manifest.scheme.attributes.items()) == [(a, (1.0, 5.0)) for a in ("arousal", "valence", "dominance")]
    assert manifest.attributes[1].tolist() == [4.0, 4.5, 3.0]  # the file has valence first
    ratings = manifest.ratings
    assert ratings is not None
    second = ratings.key_of == 1
    by_annotator = {
        ratings.annotators[a]: v for a, v in zip(ratings.annotator_of[second], ratings.values[second], strict=True)
    }
    np.testing.assert_array_equal(by_annotator["E3"], [4, 5, np.nan])
    assert set(ratings.annotators) == {"E1", "E2", "E3", "E4"}


def test_a_manifest_that_is_prepared_again_keeps_its_annotators_and_their_words(tmp_path: Path) -> None:
    full = tmp_path / "full.csv"
    read_iemocap(iemocap_tree(tmp_path / "corpus"), scheme="full").write(full)
    before = Manifest.read(full)
    again = read_table(full)
    assert again.scheme == before.scheme
    assert again.ratings is not None
    assert before.ratings is not None
    assert again.ratings.to_table() == before.ratings.to_table()
    merged = relabelled(again, {"excited": "happy"})  # an evaluator who named both has one vote
    expected = relabelled(before, {"excited": "happy"})
    assert merged.votes is not None
    assert expected.votes is not None
    assert merged.votes.tolist() == expected.votes.tolist()
    changed = read_table(full, attributes={"arousal": (0, 6)})
    assert changed.ratings is None
    assert any(mentions(note, "full.ratings.parquet", "arousal") for note in changed.notes)


def test_the_full_scheme_keeps_every_turn(tmp_path: Path) -> None:
    manifest = read_iemocap(iemocap_tree(tmp_path), scheme="full")
    assert len(manifest) == 5
    assert manifest.labels == ["neutral", "excited", "frustrated", None, "sad"]
    votes = dict(zip(manifest.scheme.classes, manifest.votes.T, strict=True))
    assert votes["excited"].tolist() == [0, 2, 0, 0, 0]
    assert votes["happy"].tolist() == [0, 1, 0, 0, 0]
    assert votes["frustrated"].tolist() == [1, 0, 1, 0, 0]
    assert manifest.attributes[2].tolist() == [3.0, 5.0, 3.0]
    assert re.search(r"1 to 5.*: Ses01F_impro01_F001", " ".join(manifest.notes))


BAD_LINES = {
    ("\tneu\t", "\tbored\t"): r"Ses01F_impro01.txt:3: unknown label 'bored', expected one of ang, hap",
    ("C-E2:\tNeutral;", "C-E2:\tBoredom;"): r"txt:4: unknown category 'Boredom'",
    ("A-E3:\tval 3;", "A-E3:\tvalue 3;"): r"txt:8: expected val, act and dom with a number, found 'value 3'",
    ("[6.2901 - 8.2357]\t", ""): r"txt:3: expected a turn",
    ("C-F1:", "C-X1:"): r"txt:7: expected a turn, or an evaluator's",
}


@pytest.mark.parametrize("change", BAD_LINES)
def test_a_line_that_is_not_documented_is_named(tmp_path: Path, change: tuple[str, str]) -> None:
    iemocap_tree(tmp_path, IEMOCAP_EVALUATION.replace(*change, 1))
    with pytest.raises(ManifestError, match=BAD_LINES[change]):
        read_iemocap(tmp_path)


def test_missing_turns_and_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no Session1"):
        read_iemocap(tmp_path)
    root = iemocap_tree(tmp_path / "i")
    with pytest.raises(ManifestError, match=r"4, full.*'5'"):
        read_iemocap(root, scheme="5")
    (root / "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_M003.wav").unlink()
    with pytest.raises(ManifestError, match=r"audio file not found.*row 3 .*M003.wav"):
        read_iemocap(root)
    shutil.rmtree(root / "Session5/dialog/transcriptions")
    bare = read_iemocap(root, check_audio=False)
    assert bare.texts[-1] == ""
    assert "no transcripts in Session5" in bare.notes


# --- MELD

MELD_HEADER = (
    *("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
    *("Season", "Episode", "StartTime", "EndTime"),
)


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    for part, folder in (
        ("train", "train_splits"),
        ("dev", "dev_splits_complete"),
        ("test", "output_repeated_splits_test"),
    ):
        rows = [
            (1, "He\x92s lost it, hasn\x92t he?", "Phoebe", "sadness", "negative", 0, 0, 4, 7, "0", "1"),
            (2, "What?", "Monica", "joy", "positive", 0, 1, 4, 7, "0", "1"),
        ]
        write_csv(tmp_path / part / f"{part}_sent_emo.csv", MELD_HEADER, rows)
        write_wav(tmp_path / part / folder / "dia0_utt0.wav")
        write_wav(tmp_path / part / folder / "dia0_utt1.wav")
        write_files(tmp_path, {f"{part}/{folder}/dia0_utt0.mp4": ""})
    return tmp_path


def test_melds_parts_are_splits_and_its_quotes_are_mended(meld: Path) -> None:
    (meld / "dev/dev_splits_complete/dia0_utt1.wav").unlink()
    manifest = CORPORA["meld"](meld)
    assert manifest.keys == ["train_dia0_utt0", "train_dia0_utt1", "dev_dia0_utt0", "test_dia0_utt0", "test_dia0_utt1"]
    assert manifest.labels == ["sad", "happy", "sad", "sad", "happy"]
    assert manifest.column("split").tolist() == ["train", "train", "development", "test", "test"]
    assert manifest.texts[0] == "He’s lost it, hasn’t he?"
    assert manifest.column("dialogue")[2] == "dev_0"
    assert manifest.audio_path(2).parent.name == "dev_splits_complete"
    assert manifest.notes == ["1 utterances without sound left out: dev_dia0_utt1"]


def test_melds_videos_are_read_where_no_sound_was_extracted(meld: Path) -> None:
    (meld / "dev/dev_splits_complete/dia0_utt0.wav").unlink()
    manifest = read_meld(meld)
    assert [manifest.audio_path(i).suffix for i in range(5)] == [".wav", ".wav", ".mp4", ".wav", ".wav"]
    assert manifest.keys[2] == "dev_dia0_utt0"


def test_meld_without_clips_or_with_other_emotions_is_refused(meld: Path) -> None:
    table = meld / "test/test_sent_emo.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("joy", "glee"), encoding="utf-8")
    with pytest.raises(ManifestError, match=r"test_sent_emo.csv: column 'Emotion'.*row 2 'glee'"):
        read_meld(meld)
    table.write_text(table.read_text(encoding="utf-8").replace("glee", "joy"), encoding="utf-8")
    for path in [*meld.rglob("*.wav"), *meld.rglob("*.mp4")]:
        path.unlink()
    with pytest.raises(ManifestError, match=r"--root"):
        read_meld(meld)
    table.unlink()
    with pytest.raises(ManifestError, match=r"no test_sent_emo\.csv at any depth"):
        read_meld(meld)


# --- acted corpora whose file names say everything

ACTED = {
    "emodb": (
        {"wav/03a01Fa.wav": "happy", "wav/08b10Wc.wav": "angry", "wav/16a02Lb.wav": "boredom"},
        {"speaker": ["03", "08", "16"], "gender": ["male", "female", "female"], "fold": ["1", "1", "5"]},
        {"wav/03a01Xa.wav": "unknown emotion code 'X'", "wav/04a01Fa.wav": "unknown speaker code '04'",
         "notes.wav": "03a01Fa"},
    ),
    "savee": (
        {"AudioData/DC/a01.wav": "angry", "AudioData/DC/sa03.wav": "sad", "AudioData/KL/su15.wav": "surprise"},
        {"utterance_id": ["DC_a01", "DC_sa03", "KL_su15"], "speaker": ["DC", "DC", "KL"], "fold": ["1", "1", "4"]},
        {"DC_x01.wav": "unknown emotion code 'x'", "AB_a01.wav": "unknown speaker code 'AB'", "a1.wav": "DC_a01"},
    ),
    "tess": (
        {"OAF_neutral/OA_bite_neutral.wav": "neutral", "YAF_happy/YAF_dog_happy.wav": "happy",
         "x/YAF_dog_ps.wav": "surprise"},
        {"utterance_id": ["OAF_bite_neutral", "YAF_dog_happy", "YAF_dog_ps"], "fold": ["1", "2", "2"],
         "text": ["Say the word bite.", "Say the word dog.", "Say the word dog."]},
        {"OAF_dog_glad.wav": "unknown emotion code 'glad'", "MAF_dog_sad.wav": "unknown speaker code 'MAF'",
         "dog.wav": "OAF_back"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTED)
def test_file_names_say_who_and_what(tmp_path: Path, name: str) -> None:
    files, columns, _ = ACTED[name]
    for file in files:
        write_wav(tmp_path / file)
        write_files(tmp_path, {str(Path(file).with_name(f"._{Path(file).name}")): ""})
    manifest = CORPORA[name](tmp_path)
    assert manifest.labels == list(files.values())
    for column, values in columns.items():
        assert manifest.column(column).tolist() == values
    assert manifest.column("duration_s").tolist() == [0.1] * 3
    assert "3 of the corpus's" in manifest.notes[0]
    assert set(manifest.scheme.corpus_labels.values()) == set(manifest.scheme.classes)


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, (_, _, bad) in ACTED.items() for file in bad])
def test_unknown_names_are_named(tmp_path: Path, name: str, file: str) -> None:
    write_wav(tmp_path / file)
    with pytest.raises(ManifestError, match=ACTED[name][2][file]) as caught:
        CORPORA[name](tmp_path)
    assert file in str(caught.value)


@pytest.mark.parametrize("read", [read_emodb, read_savee, read_tess, read_crema_d])
def test_a_directory_without_audio_is_refused(tmp_path: Path, read) -> None:
    with pytest.raises(ManifestError, match=r"holds no audio\. Expected"):
        read(tmp_path)


def test_a_second_copy_is_left_out(tmp_path: Path) -> None:
    for place in ("TESS/OAF_angry", "TESS/TESS/OAF_angry"):
        write_wav(tmp_path / place / "OAF_back_angry.wav")
    manifest = read_tess(tmp_path)
    assert len(manifest) == 1
    assert mentions(manifest.notes[0], 1, "left out", "OAF_back_angry")


def test_no_speaker_is_in_two_folds_of_emodb() -> None:
    from featurestore.corpora.emodb import FOLD_OF, SPEAKERS

    assert sorted(FOLD_OF) == sorted(SPEAKERS)
    assert sorted(set(FOLD_OF.values())) == ["1", "2", "3", "4", "5"]


# --- CREMA-D


def crema_d_tree(root: Path, votes: list[tuple[str, list[int]]], audio: bool = True) -> Path:
    """Return the votes on the voice, and rows on face and both that say something else."""
    rows = []
    for condition, shift in ((1, 0), (2, 1), (3, 2)):
        for i, (name, counts) in enumerate(votes):
            shifted = counts[shift:] + counts[:shift]
            rows.append([100000 * condition + i + 1, *shifted, name, sum(shifted), 0.5, "N"])
    header = ["", "A", "D", "F", "H", "N", "S", "fileName", "numResponses", "agreement", "emoVote"]
    write_csv(root / "processedResults/tabulatedVotes.csv", header, rows)
    for name, _ in votes if audio else []:
        write_wav(root / "AudioWAV" / f"{name}.wav", 16)
    return root


@pytest.mark.slow
def test_the_real_votes_on_the_voice_have_the_known_figures(crema_d_votes: Path, tmp_path: Path) -> None:
    with open(crema_d_votes / "votes.csv", newline="") as file:
        votes = [(row["utterance_id"], [int(row[letter]) for letter in "ADFHNS"]) for row in csv.DictReader(file)]
    with open(crema_d_votes / "speakers.csv", newline="") as file:
        people = list(csv.DictReader(file))
    root = crema_d_tree(tmp_path, votes)
    write_csv(
        root / "VideoDemographics.csv",
        ("ActorID", "Age", "Sex", "Race", "Ethnicity"),
        [tuple(person.values()) for person in people],
    )
    manifest = read_crema_d(root, label="voice")
    assert len(manifest) == N_CLIPS == 7442
    assert manifest.notes == []
    assert manifest.votes.sum() == 68_568
    agreed = consensus(manifest.votes)
    assert agreed.tied.sum() == 644 == manifest.labels.count(None)
    agrees = [heard == acted for heard, acted in zip(manifest.labels, manifest.column("acted"), strict=True)]
    assert round(100 * float(np.mean(agrees)), 1) == 41.6
    assert len(manifest.ratings) == 68_568
    assert len(set(manifest.column("speaker"))) == 91
    assert set(manifest.column("gender")) == {"male", "female"}
    folds = set(zip(manifest.column("speaker"), manifest.column("fold"), strict=True))
    assert len(folds) == 91


CLIPS = [("1001_IEO_ANG_HI", [5, 1, 0, 0, 1, 0]), ("1002_TIE_NEU_XX", [1, 0, 2, 0, 2, 0])]


def test_the_label_is_what_was_requested(tmp_path: Path) -> None:
    root = crema_d_tree(tmp_path, CLIPS)
    acted = CORPORA["crema-d"](root)
    assert acted.labels == ["angry", "neutral"]
    assert acted.votes is None
    assert acted.column("level").tolist() == ["high", "unspecified"]
    assert acted.texts == ["It's eleven o'clock.", "That is exactly what happened."]
    voice = read_crema_d(root, label="voice")
    assert voice.labels == ["angry", None]
    assert voice.column("acted").tolist() == ["angry", "neutral"]
    np.testing.assert_array_equal(voice.votes, [counts for _, counts in CLIPS])
    with pytest.raises(ManifestError, match=r"acted, voice.*'face'"):
        read_crema_d(root, label="face")


def test_a_misnamed_file_and_missing_halves_are_reported(tmp_path: Path) -> None:
    root = crema_d_tree(
        tmp_path, [*CLIPS, ("1040_ITH_SAD_XX", [0, 0, 0, 0, 1, 8]), ("1091_WSI_SAD_XX", [0, 0, 0, 0, 9, 0])]
    )
    (root / "AudioWAV/1040_ITH_SAD_XX.wav").rename(root / "AudioWAV/1040_ITH_SAD_X.wav")
    (root / "AudioWAV/1091_WSI_SAD_XX.wav").rename(root / "AudioWAV/1090_WSI_SAD_XX.wav")
    manifest = read_crema_d(root, label="voice")
    assert manifest.labels[manifest.index("1040_ITH_SAD_XX")] == "sad"
    assert manifest.notes[1:] == [
        "1 clips without a vote: 1090_WSI_SAD_XX",
        "1 clips with votes but no audio: 1091_WSI_SAD_XX",
    ]


def test_other_votes_are_refused(tmp_path: Path) -> None:
    path = crema_d_tree(tmp_path, CLIPS) / "processedResults/tabulatedVotes.csv"
    text = path.read_text()
    for change, message in {
        (",emoVote", ",mood"): r"tabulatedVotes.csv: unknown columns \['mood'\]",
        ("100001,5", "100001,6"): r"1001_IEO_ANG_HI has 8 votes on the voice, numResponses says 7",
        ("100001,5", "100001,five"): r"column 'A' is not a number \(1 row\): row 1 'five'",
        (",A,D", "id,A,D"): r"unknown columns \['id'\]",
    }.items():
        path.write_text(text.replace(*change, 1))
        with pytest.raises(ManifestError, match=message):
            voice_votes(path)
    path.write_text(text.replace("100001,", "200001,").replace("100002,", "200002,"))
    with pytest.raises(ManifestError, match="no row's id starts with 1"):
        voice_votes(path)
    path.unlink()
    with pytest.raises(ManifestError, match=r"no processedResults/tabulatedVotes.csv.*--label acted"):
        read_crema_d(tmp_path, label="voice")
    assert "meanAngerRespNorm" in OTHER_COLUMNS
