"""Targets: votes become distributions, ties are nobody's first class."""

import numpy as np
import pandas as pd
import pytest

from deepser.training.targets import Targets
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.errors import ManifestError


def manifest(**columns: list[object]) -> Manifest:
    n = len(next(iter(columns.values())))
    frame = pd.DataFrame(
        {"utterance_id": [f"u{i}" for i in range(n)], "path": [f"{i}.wav" for i in range(n)], **columns}
    )
    return Manifest.from_pandas(frame)


def test_votes_become_soft_targets_and_plurality_labels() -> None:
    targets = Targets.from_manifest(manifest(vote_happy=[2, 1, 0], vote_neutral=[1, 1, 0], vote_sad=[0, 0, 0]))
    np.testing.assert_allclose(targets.soft, [[2 / 3, 1 / 3, 0], [0.5, 0.5, 0], [0, 0, 0]], rtol=1e-6)
    assert targets.labels.tolist() == [0, -1, -1]
    assert targets.usable.tolist() == [True, True, False]


def test_labels_alone_become_one_hot() -> None:
    targets = Targets.from_manifest(manifest(label=["sad", "angry", None]))
    assert targets.classes == ("angry", "sad")
    assert targets.soft.tolist() == [[0, 1], [1, 0], [0, 0]]
    np.testing.assert_array_equal(targets.one_hot, targets.soft)


def test_attributes_are_found_by_name_with_gaps_kept() -> None:
    targets = Targets.from_manifest(manifest(label=["a", "b"], attr_valence=[1.5, None], attr_arousal=[7.0, 2.0]))
    assert targets.attributes == ("valence", "arousal")
    np.testing.assert_array_equal(targets.attribute_values, np.array([[1.5, 7], [np.nan, 2]], np.float32))
    assert targets.attribute_ranges == ((1.0, 7.0), (1.0, 7.0))


def test_nothing_to_learn_is_an_error_that_says_so() -> None:
    with pytest.raises(ManifestError, match="label"):
        Targets.from_manifest(manifest(speaker=["a", "b"]))


def test_scheme_order_is_kept() -> None:
    scheme = LabelScheme(("sad", "angry"), {})
    frame = pd.DataFrame({"utterance_id": ["x"], "path": ["x.wav"], "label": ["angry"]})
    assert Targets.from_manifest(Manifest.from_pandas(frame, scheme)).labels.tolist() == [1]


def test_dropped_votes_are_a_distribution_of_some_of_the_votes_drawn_anew_each_epoch() -> None:
    votes = {"vote_happy": [2, 1, 0, 0], "vote_neutral": [1, 1, 0, 5], "vote_sad": [0, 3, 0, 0]}
    targets = Targets.from_manifest(manifest(**votes), ratings=True)
    drawn = np.stack([targets.of_epoch("vote-dropping", seed=1, epoch=e, drop_share=0.4) for e in range(60)])
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.sum(2), [[1, 1, 0, 1]] * 60, rtol=1e-6)
    np.testing.assert_array_equal(drawn[:, 3], targets.soft[[3]].repeat(60, 0))
    shares = {tuple(np.round(row.astype(float), 3).tolist()) for row in drawn[:, 0]}
    assert {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.5, 0.0), (0.667, 0.333, 0.0)} == shares
    repeated = targets.of_epoch("vote-dropping", seed=1, epoch=7, drop_share=0.4)
    np.testing.assert_array_equal(repeated, drawn[7])
    np.testing.assert_array_equal(targets.of_epoch("vote-dropping", drop_share=0.0), targets.soft)


def test_votes_are_dropped_under_the_classes_names_and_unrated_clips_keep_theirs() -> None:
    frame = pd.DataFrame(
        {"utterance_id": ["a", "b"], "path": ["a.wav", "b.wav"], "label": ["glad", "sad"],
         "vote_glad": [2, 0], "vote_sad": [0, 0]}
    )  # fmt: skip
    scheme = LabelScheme(("glad", "sad"), {}, {"happy": "glad", "joy": "glad", "other": None})
    ratings = Ratings.of(["a", "a", "a"], labels=["happy", "joy", "other"])
    targets = Targets.from_manifest(Manifest.from_pandas(frame, scheme, ratings=ratings), ratings=True)
    for epoch in range(10):
        soft = targets.of_epoch("vote-dropping", seed=0, epoch=epoch, drop_share=0.5)
        np.testing.assert_array_equal(soft, [[1, 0], [0, 1]])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_votes_are_dropped_with_the_secondary_labels_that_the_votes_count(weight: float) -> None:
    keys = ["a", "b"]
    ratings = Ratings.of(["a", "a", "b"], ["1", "2", "1"], ["sad", "sad", "glad"], also=[["glad"], [], ["sad"]])
    votes = ratings.counts(("glad", "sad"), also=weight)
    frame = pd.DataFrame({"utterance_id": keys, "path": keys, "vote_glad": votes[:, 0], "vote_sad": votes[:, 1]})
    targets = Targets.from_manifest(Manifest.from_pandas(frame, ratings=ratings), ratings=True)
    np.testing.assert_allclose(targets.of_epoch("vote-dropping", drop_share=0.0), targets.soft, rtol=1e-6)
    glad = {float(targets.of_epoch("vote-dropping", epoch=e, drop_share=0.5)[0, 0]) for e in range(40)}
    assert sorted(glad) == pytest.approx(sorted({0.0, weight / (1 + weight), weight / (2 + weight)}))


def test_one_hot_soft_and_smoothed_targets() -> None:
    targets = Targets.from_manifest(manifest(vote_happy=[3, 1, 0], vote_sad=[1, 1, 0]))
    np.testing.assert_array_equal(targets.of_epoch("one-hot"), [[1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(targets.of_epoch("soft"), targets.soft)
    smoothed = targets.of_epoch("soft", smoothing=0.2)
    np.testing.assert_allclose(smoothed, [[0.7, 0.3], [0.5, 0.5], [0, 0]], rtol=1e-6)


def test_votes_that_cannot_be_dropped_are_an_error() -> None:
    with pytest.raises(ManifestError, match=r"vote_<class>.*--targets soft"):
        Targets.from_manifest(manifest(label=["a", "b"]), ratings=True)
    with pytest.raises(ManifestError, match="whole numbers"):
        Targets.from_manifest(manifest(vote_a=[0.5], vote_b=[0.5]), ratings=True)
    with pytest.raises(ManifestError, match="ratings=True"):
        Targets.from_manifest(manifest(vote_a=[1], vote_b=[2])).of_epoch("vote-dropping")


def test_no_votes_are_dropped_of_shares_in_per_cent() -> None:
    shares = manifest(vote_a=[60, 0, 100], vote_b=[40, 0, 0])
    np.testing.assert_allclose(Targets.from_manifest(shares).soft, [[0.6, 0.4], [0, 0], [1, 0]], rtol=1e-6)
    with pytest.raises(ManifestError, match=r"shares of votes.*--targets soft"):
        Targets.from_manifest(shares, ratings=True)
    assert len(Targets.from_manifest(manifest(vote_a=[60, 0], vote_b=[40, 99]), ratings=True).ratings) == 199


def test_without_attributes_only_classes_are_left() -> None:
    targets = Targets.from_manifest(manifest(label=["a", None], attr_valence=[1.5, 2.0]))
    assert targets.usable.tolist() == [True, True]
    classes_only = targets.without_attributes()
    assert classes_only.attributes == ()
    assert classes_only.attribute_values.shape == (2, 0)
    assert classes_only.usable.tolist() == [True, False]
