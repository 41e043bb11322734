"""What is told of a linear meta-classifier is what it does with a member's word."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from deepser.scores.metrics import ccc
from deepser.training.targets import Targets
from ensemble.experiments.compare_report import learned_picture
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.kinds import predict_meta
from ensemble.fusion.learned import learned, own_weights, reliability_of
from ensemble.fusion.problem import Problem
from ensemble.fusion.training import fit_meta


@pytest.fixture(scope="module")
def fitted(corpus):
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    meta = fit_meta(aligned, targets, MetaConfig(rounds=20, seeds=(0, 1), select="last")).soup()
    return meta, Problem(aligned, None, targets, np.array(targets.keys))


def test_the_soft_vote_weighs_all_members_alike(fitted) -> None:
    meta, _ = fitted
    weight = torch.zeros(1, 20, 5)
    for m in range(4):
        weight[0, m * 5 : m * 5 + 4, :4] = 3 * torch.eye(4) / 4
        weight[0, m * 5 + 4, 4] = 0.5
    result = own_weights(dataclasses.replace(meta, tensors={**meta.tensors, "weight": weight}))
    assert np.allclose(result, [[0.75] * 4 + [0.5]] * 4)


def test_weights_that_do_the_same_are_shown_alike(fitted) -> None:
    """All logits may rise together, and a member's probabilities sum to one: neither can be seen in a prediction."""
    meta, problem = fitted
    generator = torch.Generator().manual_seed(0)
    weight = meta.tensors["weight"].clone()
    for m in range(4):
        block = weight[0, m * 5 : m * 5 + 4, :4]
        block += torch.randn(4, 1, generator=generator) + torch.randn(1, 4, generator=generator)
    shifted = dataclasses.replace(meta, tensors={**meta.tensors, "weight": weight})
    before, after = (predict_meta(each, problem.posteriors).probabilities for each in (meta, shifted))
    assert np.allclose(before, after, atol=1e-5)
    assert np.allclose(own_weights(meta), own_weights(shifted), atol=1e-5)


def test_reliability_is_the_members_f1_and_concordance_and_weights_follow_it(fitted, corpus) -> None:
    meta, problem = fitted
    result = learned(meta, problem)
    assert result.members == ("m0", "m1", "m2", "m3")
    assert result.columns == ("angry", "sad", "happy", "neutral", "arousal")
    for m in range(4):
        f1 = f1_score(corpus.labels, corpus.logits[m].argmax(1), average=None)
        assert result.reliability[m][:4] == pytest.approx(f1.tolist(), abs=1e-5)
        expected = ccc(corpus.arousal[m].astype(np.float32), problem.targets.attribute_values[:, 0])
        assert result.reliability[m][4] == pytest.approx(expected, abs=1e-5)
    # By construction the first member hears arousal best and the last worst.
    arousal = [row[4] for row in result.weights]
    assert max(arousal) == arousal[0]
    assert min(arousal) == arousal[3]
    absent = dataclasses.replace(
        problem.targets, labels=np.where(problem.targets.labels == 2, -1, problem.targets.labels)
    )
    assert np.isnan(reliability_of(dataclasses.replace(problem, targets=absent))[:, 2]).all()


def test_it_is_drawn_also_where_a_class_has_no_reliability(fitted, tmp_path: Path) -> None:
    meta, problem = fitted
    result = learned(meta, problem)
    holes = dataclasses.replace(result, reliability=tuple((None, *row[1:]) for row in result.reliability))
    learned_picture(holes, tmp_path / "a" / "w.png", "title")
    assert (tmp_path / "a" / "w.png").read_bytes().startswith(b"\x89PNG")
