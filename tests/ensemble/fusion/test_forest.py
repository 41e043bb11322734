"""The forests are scikit-learn's, their folds stratified, and what is saved says the same without scikit-learn."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepser.training.targets import Targets
from ensemble.fusion.config import ForestConfig
from ensemble.fusion.forest import fit_forest, fit_forests, forest_inputs
from ensemble.fusion.kinds import load_meta, predict_meta, save_meta
from featurestore.errors import AlignmentError, ConfigError, ManifestError

SMALL = ForestConfig(n_trees=8, n_folds=3)


@pytest.mark.parametrize("inputs", ["logits", "logits+attributes"])
def test_it_predicts_the_mean_of_scikit_learns_forests(make_corpus: Callable, inputs: str, tmp_path: Path) -> None:
    corpus = make_corpus(400, 3, seed=5, no_consensus=0.1)
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    aligned.values[..., :4] = corpus.logits
    config = dataclasses.replace(SMALL, inputs=inputs)
    forests = fit_forests(aligned, targets, config)
    assert [len(each.estimators_) for each in forests] == [8, 8, 8]
    x = forest_inputs(aligned.values, 4, config)
    assert x.shape == (400, 12 if inputs == "logits" else 15)
    expected = np.mean([forest.predict_proba(x) for forest in forests], 0)
    meta = fit_forest(aligned, targets, config)
    result = predict_meta(meta, aligned)
    assert np.allclose(result.probabilities, expected, atol=1e-6)
    assert np.allclose(result.attributes[:, 0], corpus.arousal.mean(0), atol=1e-5)
    assert np.isfinite(result.logits).all()
    save_meta(tmp_path, meta)
    reloaded = load_meta(tmp_path)
    assert reloaded.kind == "forest"
    assert (reloaded.config, reloaded.members, reloaded.layer) == (config, aligned.members, "logits")
    assert np.array_equal(predict_meta(reloaded, aligned).probabilities, result.probabilities)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(AlignmentError, match="reads members"):
        predict_meta(reloaded, aligned.choose([1, 0, 2]))


def test_the_filters_of_warnings_outlast_the_threads_of_a_forest(make_corpus: Callable) -> None:
    corpus = make_corpus(400, 3, seed=5)
    before = list(warnings.filters)
    for seed in range(3):
        config = dataclasses.replace(SMALL, n_trees=30, seed=seed)
        fit_forests(corpus.aligned(), Targets.from_manifest(corpus.manifest), config)
    assert list(warnings.filters) == before


def test_a_class_that_is_rarer_than_folds_is_still_a_class(make_corpus: Callable) -> None:
    corpus = make_corpus(200, 2, seed=6)
    targets = Targets.from_manifest(corpus.manifest)
    rare = np.flatnonzero(targets.labels == 3)
    labels = targets.labels.copy()
    labels[rare[1:]] = 0
    meta = fit_forest(corpus.aligned(), dataclasses.replace(targets, labels=labels), SMALL)
    p = predict_meta(meta, corpus.aligned()).probabilities
    assert p.shape == (200, 4)
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert p[rare[0], 3] > p[labels == 0, 3].mean()


def test_what_can_not_be_fitted_or_read_is_named(corpus, tmp_path: Path) -> None:
    targets = Targets.from_manifest(corpus.manifest)
    with pytest.raises(ManifestError, match=r"0 labelled.* 3 folds"):
        fit_forest(corpus.aligned(), dataclasses.replace(targets, labels=targets.labels * 0 - 1), SMALL)
    for wrong in ({"inputs": "scores"}, {"n_folds": 1}, {"min_leaf_share": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ForestConfig(**wrong)
    (tmp_path / "config.json").write_text('{"kind": "oracle"}')
    with pytest.raises(ConfigError, match=r"'oracle'.*forest"):
        load_meta(tmp_path)
    with pytest.raises(ConfigError, match="holds no meta-classifier"):
        load_meta(tmp_path / "none")
