"""Targets: votes become distributions, ties are nobody's first class."""

import numpy as np
import pandas as pd
import pytest

from deepser.targets import Targets
from featurestore.errors import ManifestError
from featurestore.manifest import LabelScheme, Manifest


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
