"""Attempts on a small corpus: what a fold's clips are scored by takes nothing from their labels."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.attempts import ATTEMPTS, Corpus, read, run, scores
from tests.helpers.synthetic_corpus import corpus


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    store, manifest = corpus(tmp_path_factory.mktemp("attempts"), attributes=False)
    result = read(manifest, store, ["first@1+2", "second@2"])
    assert 0 < len(result.labels) < len(manifest)  # every tenth has no consensus
    return result


def test_every_attempt_is_scored_and_a_plain_one_learns(small: Corpus) -> None:
    result = dict(run(small, list(ATTEMPTS)))
    assert result.keys() == ATTEMPTS.keys()
    assert result["plain"] > 0.8
    assert all(0 <= uar <= 1 for uar in result.values())


@pytest.mark.parametrize(
    "name", ["plain", "wccn", "within-speakers", "nap1", "restyled", "mixed", "laplace", "speaker"]
)
def test_labels_of_a_fold_change_none_of_its_scores(small: Corpus, name: str) -> None:
    judged = small.folds == 1
    labels = small.labels.copy()
    labels[judged] = np.roll(labels[judged], 1)
    before, after = scores(small, ATTEMPTS[name]), scores(replace(small, labels=labels), ATTEMPTS[name])
    np.testing.assert_array_equal(before[judged], after[judged])
    assert not np.array_equal(before[~judged], after[~judged])
