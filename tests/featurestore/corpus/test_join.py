"""Several corpora become one manifest in which nobody and nothing is taken for another's."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore.corpus.join import join_manifests
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.protocol import check_manifest
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.splits import speaker_groups
from featurestore.errors import ManifestError
from tests.helpers.corpus_trees import write_wav
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa


def corpus(root: Path, keys: list[str], labels: list[str], high: float = 5.0, **columns: list) -> Manifest:
    for key in keys:
        write_wav(root / f"{key}.wav")
    table = {
        "utterance_id": keys, "path": [f"{key}.wav" for key in keys], "label": labels,
        "speaker": ["1"] * len(keys), "attr_arousal": [1.0, high][: len(keys)],
    }  # fmt: skip
    classes = tuple(dict.fromkeys(labels))
    return Manifest(pa.table(table | columns), LabelScheme(classes, {"arousal": (1.0, high)}), root)


def test_ids_that_repeat_and_all_speakers_are_distinguished_and_the_audio_is_found(tmp_path: Path) -> None:
    a, b = corpus(tmp_path / "x", ["1", "2"], ["sad", "happy"]), corpus(tmp_path / "y/z", ["2", "3"], ["sad", "fear"])
    joined = join_manifests({"A": a, "B": b})
    assert joined.keys == ["A:1", "A:2", "B:2", "B:3"]
    assert joined.column("speaker").tolist() == ["A:1", "A:1", "B:1", "B:1"]
    assert joined.column("corpus").tolist() == ["A", "A", "B", "B"]
    assert joined.scheme.classes == ("sad", "happy", "fear")
    assert joined.labels == ["sad", "happy", "sad", "fear"]
    assert all(joined.audio_path(i).is_file() for i in range(4))
    assert any(re.search(r"1 ids .* 2\b", note) for note in joined.notes)
    assert any(mentions(note, "A", "no class fear") for note in joined.notes)
    assert "speaker" not in {finding.kind for finding in check_manifest(joined, "corpus").findings}


def test_utterances_of_unknown_speakers_do_not_become_one_person(tmp_path: Path) -> None:
    a = corpus(tmp_path / "a", ["1", "2"], ["sad", "happy"], speaker=["Unknown", "Unknown"])
    b = corpus(tmp_path / "b", ["3", "4"], ["sad", "fear"], speaker=["", "7"])
    joined = join_manifests({"A": a, "B": b})
    assert joined.column("speaker").tolist() == [None, None, None, "B:7"]
    assert len(set(speaker_groups(joined).tolist())) == 4


def test_a_file_of_two_corpora_is_noted_and_columns_of_two_types_become_text(tmp_path: Path) -> None:
    a = corpus(tmp_path / "x", ["1", "2"], ["sad", "happy"], age=["20", None])
    b = a.with_table(a.to_arrow().set_column(0, "utterance_id", pa.array(["3", "4"])).drop_columns(["age"]))
    b = b.with_table(b.to_arrow().append_column("age", pa.array([20.0, 31.0])))
    joined = join_manifests({"A": a, "B": b})
    assert joined.column("age").tolist() == ["20", None, "20", "31"]
    (note,) = joined.notes
    assert mentions(note, "2 audio files are in several corpora", "1.wav")


def test_ids_that_are_unique_stay_so_that_stored_features_are_found(tmp_path: Path) -> None:
    a, b = corpus(tmp_path / "x", ["1", "2"], ["sad", "happy"]), corpus(tmp_path / "y", ["3", "4"], ["sad", "happy"])
    joined = join_manifests({"A": a, "B": b})
    assert joined.keys == ["1", "2", "3", "4"]
    assert joined.notes == []


def test_common_classes_leave_out_the_others_and_count_them(tmp_path: Path) -> None:
    a, b = corpus(tmp_path / "x", ["1", "2"], ["sad", "happy"]), corpus(tmp_path / "y", ["3", "4"], ["fear", "sad"])
    joined = join_manifests({"A": a, "B": b}, common_classes=True)
    assert (joined.keys, joined.scheme.classes) == (["1", "4"], ("sad",))
    assert any(mentions(note, "left out", 2, "happy, fear") for note in joined.notes)
    capitalised = corpus(tmp_path / "z", ["5"], ["Sad"])
    with pytest.raises(ManifestError, match=r"no class in common.*--merge"):
        join_manifests({"A": a, "C": capitalised}, common_classes=True)
    assert any("--merge Sad=sad" in note for note in join_manifests({"A": a, "C": capitalised}).notes)


def test_attributes_of_different_ranges_are_refused_or_rescaled(tmp_path: Path) -> None:
    a = corpus(tmp_path / "x", ["1", "2"], ["sad", "happy"])
    b = corpus(tmp_path / "y", ["3", "4"], ["sad", "happy"], high=7.0)
    with pytest.raises(ManifestError, match=r"arousal.* 1 to 7 in B.* 1 to 5.*--rescale-attributes"):
        join_manifests({"A": a, "B": b})
    joined = join_manifests({"A": a, "B": b}, rescale_attributes=True)
    assert joined.scheme.attributes == {"arousal": (1.0, 5.0)}
    np.testing.assert_allclose(joined.attributes[:, 0], [1, 5, 1, 5])


def test_ratings_are_rescaled_as_the_attributes_are(tmp_path: Path) -> None:
    def rated(root: Path, key: str, high: float, values: list[float]) -> Manifest:
        plain = corpus(root, [key], ["sad"], high, vote_sad=[2.0])
        ratings = Ratings.of([key, key], ["w1", "w2"], ["sad", "sad"], attributes={"arousal": values})
        return Manifest(plain.to_arrow(), plain.scheme, root, ratings=ratings)

    a, b = rated(tmp_path / "a", "1", 5.0, [1.0, 5.0]), rated(tmp_path / "b", "2", 7.0, [4.0, 7.0])
    joined = join_manifests({"A": a, "B": b}, rescale_attributes=True)
    assert joined.ratings is not None
    np.testing.assert_allclose(joined.ratings.values[:, 0], [1.0, 5.0, 3.0, 5.0])


def test_votes_and_ratings_stay_where_all_have_them_under_one_scheme(tmp_path: Path) -> None:
    def rated(root: Path, key: str, word: str) -> Manifest:
        ratings = Ratings.of([key, key], ["w1", "w2"], [word, word])
        table = {"utterance_id": [key], "text": ["x"], "label": ["sad"], "vote_sad": [2.0], "vote_happy": [0.0]}
        scheme = LabelScheme(("sad", "happy"), {}, {word: "sad"})
        return Manifest(pa.table(table), scheme, root, ratings=ratings)

    a, b = rated(tmp_path, "1", "S"), rated(tmp_path, "2", "SAD")
    joined = join_manifests({"A": a, "B": b})
    np.testing.assert_array_equal(joined.votes, [[2, 0], [2, 0]])
    assert joined.ratings is not None
    np.testing.assert_array_equal(joined.ratings.counts(joined.scheme.classes), [[2, 0], [2, 0]])
    assert joined.ratings.annotators == ("A:w1", "A:w2", "B:w1", "B:w2")
    without = join_manifests({"A": a, "C": corpus(tmp_path / "c", ["9"], ["sad"])})
    assert without.votes is None
    assert any(mentions(note, "votes", "left out", "C") for note in without.notes)


def test_corpora_of_votes_alone_are_labelled_by_their_plurality(tmp_path: Path) -> None:
    def voted(root: Path, keys: list[str], **votes: list[float]) -> Manifest:
        table = {"utterance_id": keys, "text": keys, **{f"vote_{name}": of for name, of in votes.items()}}
        return Manifest(pa.table(table), LabelScheme(tuple(votes)), root)

    a = voted(tmp_path, ["1", "2", "3"], sad=[2.0, 0.0, 2.0], happy=[1.0, 3.0, 0.0], fear=[3.0, 0.0, 2.0])
    b = voted(tmp_path, ["4", "5"], sad=[3.0, 0.0], happy=[0.0, 3.0])
    joined = join_manifests({"A": a, "B": b})
    assert not joined.has("label")
    np.testing.assert_array_equal(joined.votes[0], [2, 1, 3])
    common = join_manifests({"A": a, "B": b}, common_classes=True)
    assert common.keys == ["2", "3", "4", "5"], "1 is fear, and not sad once nobody's fear counts"
    assert common.labels == ["happy", None, "sad", "happy"]
    assert any(mentions(note, "left out 1 utterances of fear") for note in common.notes)
    beside_labels = join_manifests({"A": a, "C": corpus(tmp_path / "c", ["9"], ["sad"])})
    assert beside_labels.labels == ["fear", "happy", None, "sad"]
    assert any(mentions(note, "A has votes and no labels") for note in beside_labels.notes)


def test_the_command_joins_files_under_their_names_and_merges_in_each(tmp_path: Path) -> None:
    corpus(tmp_path / "x", ["1", "2"], ["sad", "happy"]).write(tmp_path / "a.csv")
    corpus(tmp_path / "y", ["2", "3"], ["Sadness", "fear"]).write(tmp_path / "b/a.csv")
    out = tmp_path / "out/both.csv"
    path_a, path_b = tmp_path / "a.csv", tmp_path / "b/a.csv"
    assert "NAME=" in medusa("prepare", "join", path_a, path_b, "-o", out, exit_code=2).stderr
    output = medusa(
        "prepare", "join", path_a, f"B={path_b}", "-o", out, "--merge", "Sadness=sad", "--drop", "fear"
    ).stdout
    joined = Manifest.read(out)
    assert joined.keys == ["a:1", "a:2", "B:2"]
    assert joined.labels == ["sad", "happy", "sad"]
    assert all(joined.audio_path(i).is_file() for i in range(3))
    assert mentions(output, "left out", 1, "fear")
    assert (
        "mad" in medusa("prepare", "join", path_a, f"B={path_b}", "-o", out, "--merge", "mad=sad", exit_code=2).stderr
    )
    medusa("prepare", "join", path_a, "-o", out, exit_code=2)
