"""A vote that is saved is the vote that was fitted, on the rows it was fitted on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from deepser.scores.metrics import ccc
from deepser.training.targets import Targets
from ensemble.fusion.config import VoteConfig
from ensemble.fusion.kinds import load_meta, predict_meta, save_meta
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import Selection
from ensemble.fusion.vote_meta import fit_vote
from ensemble.fusion.votes import majority_vote, soft_vote
from featurestore.errors import AlignmentError, ConfigError


@pytest.fixture(scope="module")
def problem(corpus) -> Problem:
    targets = Targets.from_manifest(corpus.manifest)
    return Problem(corpus.aligned(), None, targets, np.array(targets.keys))


def test_every_rule_is_the_plain_one(problem: Problem, corpus) -> None:
    p, arousal = problem.probabilities, problem.attributes[..., 0]
    predicted = {
        rule: predict_meta(fit_vote(problem, VoteConfig(rule, n_best=2)), problem.posteriors)
        for rule in ("majority", "soft", "weighted", "attributes")
    }
    assert np.array_equal(predicted["majority"].probabilities.argmax(1), majority_vote(p))
    assert np.array_equal(predicted["soft"].probabilities, soft_vote(p))
    for rule in ("majority", "soft"):
        assert np.allclose(predicted[rule].attributes[:, 0], arousal.mean(0), atol=1e-6)
    above = [f1_score(corpus.labels, own.argmax(1), average="macro") - 1 / 4 for own in p]
    assert np.allclose(predicted["weighted"].probabilities, np.average(p, axis=0, weights=above), atol=1e-6)
    concordance = [ccc(own, problem.targets.attribute_values[:, 0]) for own in arousal]
    assert np.allclose(
        predicted["weighted"].attributes[:, 0], np.average(arousal, axis=0, weights=concordance), atol=1e-5
    )
    best = np.argsort(concordance)[-2:]
    assert np.allclose(predicted["attributes"].attributes[:, 0], arousal[best].mean(0), atol=1e-6)
    assert np.array_equal(predicted["attributes"].probabilities, predicted["soft"].probabilities)
    counted = fit_vote(problem, VoteConfig("weighted"), Selection((0, 1, 2, 3), (3, 1, 1, 2)))
    expected = np.average(p, axis=0, weights=[3, 1, 1, 2])
    assert np.allclose(predict_meta(counted, problem.posteriors).probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("rule", ["majority", "weighted", "attributes"])
def test_it_is_saved_and_loaded_whole(problem: Problem, tmp_path: Path, rule: str) -> None:
    meta = fit_vote(problem, VoteConfig(rule))
    save_meta(tmp_path, meta)
    reloaded = load_meta(tmp_path)
    assert reloaded.kind == "vote"
    assert (reloaded.config, reloaded.members, reloaded.layer) == (meta.config, meta.members, "posteriors")
    before, after = (predict_meta(each, problem.posteriors) for each in (meta, reloaded))
    assert np.array_equal(before.probabilities, after.probabilities)
    assert np.array_equal(before.attributes, after.attributes)
    assert np.isfinite(after.logits).all()
    with pytest.raises(AlignmentError, match="reads members"):
        predict_meta(reloaded, problem.posteriors.choose([1, 0, 2, 3]))


def test_rules_that_are_none_are_refused(problem: Problem) -> None:
    classes = problem.posteriors.columns[: problem.n_classes]
    posteriors = replace(problem.posteriors, columns=classes, values=problem.probabilities)
    targets = replace(
        problem.targets, attributes=(), attribute_ranges=(), attribute_values=problem.targets.attribute_values[:, :0]
    )
    without = Problem(posteriors, None, targets, problem.groups)
    with pytest.raises(ConfigError, match="no attributes"):
        fit_vote(without, VoteConfig("attributes"))
    with pytest.raises(ConfigError, match="majority, soft, weighted, attributes"):
        VoteConfig("loud")
    with pytest.raises(ConfigError, match="n_best"):
        VoteConfig("attributes", 0)
