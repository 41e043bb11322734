"""Stacking by ridge regression, and the choice among ways of fusing: by held-out scores inside the fitting part."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deepser.scores.metrics import classification
from ensemble.evaluation.posteriors import targets_of
from ensemble.experiments.compare import compare
from ensemble.fusion.config import AutoConfig, MetaConfig, RidgeConfig, VoteConfig, check_inputs_of
from ensemble.fusion.fit import fit_ensemble
from ensemble.fusion.kinds import load_meta, predict_meta, save_meta
from ensemble.fusion.problem import Problem, load_problem
from ensemble.fusion.selection import everyone, member_scores
from ensemble.fusion.stacking import fit_ridge, inputs_of
from ensemble.fusion.techniques import FittedChoice, technique, techniques_of
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions

SHORT = MetaConfig(rounds=3, steps_per_round=15, seeds=(0, 1), select="last")
AUTO = AutoConfig(("soft", "best", "ridge", "linear"), SHORT)


@pytest.fixture
def problem(store: FeatureStore, write: Callable, corpus) -> Problem:
    write(corpus)
    return load_problem(store, corpus.manifest, corpus.members, logits=True)


def uar(problem: Problem, probabilities: np.ndarray) -> float:
    return classification(probabilities, problem.targets.labels, problem.targets.classes).uar


def test_ridge_is_read_back_and_learns_which_member_knows_which_class(problem: Problem, tmp_path: Path) -> None:
    rows = np.arange(len(problem.groups)) < 400
    meta = fit_ridge(problem.rows(rows), RidgeConfig("logits"))
    unseen = problem.rows(~rows)
    predicted = predict_meta(meta, unseen.inputs("logits"))
    save_meta(tmp_path, meta)
    reloaded = predict_meta(load_meta(tmp_path), unseen.inputs("logits"))
    np.testing.assert_array_equal(reloaded.probabilities, predicted.probabilities)
    np.testing.assert_array_equal(reloaded.attributes, predicted.attributes)
    assert uar(unseen, predicted.probabilities) > uar(unseen, unseen.probabilities.mean(0))
    np.testing.assert_allclose(predicted.probabilities.sum(1), 1, atol=1e-5)
    error = np.abs(predicted.attributes[:, 0] - unseen.targets.attribute_values[:, 0]).mean()
    assert error < np.abs(unseen.attributes.mean(0)[:, 0] - unseen.targets.attribute_values[:, 0]).mean()


def test_under_a_large_penalty_ridge_is_the_mean_of_logits(problem: Problem) -> None:
    meta = fit_ridge(problem, RidgeConfig("logits", penalties=(1e9,), structures=("own",)))
    predicted = predict_meta(meta, problem.inputs("logits"))
    centred = predicted.logits - predicted.logits.mean(1, keepdims=True)
    vote = inputs_of(problem.inputs("logits").values, problem.n_classes, "logits").mean(1)
    about = vote - vote.mean(0)
    slope = (centred * about).sum() / (about**2).sum()
    assert slope > 0
    offset = centred - slope * vote
    np.testing.assert_allclose(offset, np.broadcast_to(offset.mean(0), offset.shape), atol=2e-3)


def test_probabilities_of_ridge_are_calibrated_on_held_out_utterances(problem: Problem) -> None:
    rows = np.arange(len(problem.groups)) < 400
    unseen = problem.rows(~rows)
    predicted = predict_meta(
        fit_ridge(problem.rows(rows), RidgeConfig("logits")), unseen.inputs("logits")
    ).probabilities
    assert abs(predicted.max(1).mean() - (predicted.argmax(1) == unseen.targets.labels).mean()) < 0.06


def test_the_best_member_is_chosen_for_classes_and_for_attributes(problem: Problem) -> None:
    fit = technique(VoteConfig("best")).fit(problem, everyone(problem))
    best = int(np.argmax(member_scores(problem)))
    predicted = fit.predict(problem).whole
    np.testing.assert_allclose(predicted.probabilities, problem.probabilities[best], atol=1e-6)
    np.testing.assert_allclose(predicted.attributes, problem.attributes[0], atol=1e-6)  # member 0's noise is the least


def test_what_is_chosen_has_the_best_held_out_score(problem: Problem) -> None:
    fit = technique(AUTO).fit(problem, everyone(problem))
    assert isinstance(fit, FittedChoice)
    assert set(fit.scores) == {"soft vote", "best member", "ridge", "meta (soup)"}
    assert fit.scores[fit.name] == max(fit.scores.values())


def test_attributes_alone_are_stacked_and_chosen_among(problem: Problem, corpus) -> None:
    manifest = Manifest(corpus.manifest.to_arrow().drop_columns(["label"]), LabelScheme((), {"arousal": (1.0, 7.0)}))
    posteriors = replace(problem.posteriors, columns=("attr:arousal",), values=problem.attributes)
    alone = Problem(posteriors, None, targets_of(manifest, ("arousal",)), problem.groups)
    fit = technique(AutoConfig(("soft", "ridge"))).fit(alone, everyone(alone))
    assert isinstance(fit, FittedChoice)
    assert fit.name == "ridge"
    predicted = fit.predict(alone).whole
    assert predicted.probabilities.shape == (600, 0)
    np.testing.assert_allclose(
        predicted.attributes, predict_meta(fit_ridge(problem, RidgeConfig()), problem.posteriors).attributes, atol=0.05
    )


def test_of_one_speaker_utterances_are_held_out_and_the_report_says_so(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    table = corpus.manifest.to_arrow()
    one = table.set_column(table.column_names.index("speaker"), "speaker", pa.array(["s1"] * len(table)))
    manifest = Manifest(one, corpus.manifest.scheme)
    own = load_problem(store, manifest, corpus.members)
    meta = fit_ridge(own, RidgeConfig())
    predicted = predict_meta(meta, own.posteriors).probabilities
    assert abs(predicted.max(1).mean() - (predicted.argmax(1) == own.targets.labels).mean()) < 0.06
    config = AutoConfig(("soft", "best", "ridge"))
    fit = technique(config).fit(own, everyone(own))
    assert isinstance(fit, FittedChoice)
    assert fit.name == "ridge"
    assert fit.scores["ridge"] == max(fit.scores.values())
    _, report = fit_ensemble(store, manifest, corpus.members, config=RidgeConfig(), folds="fold")
    assert any(mentions(note, "fold 1", "all folds", "one speaker") for note in report.notes)
    columns = {"all": everyone}
    compared = [
        compare(store, manifest, corpus.members, techniques_of(rows), columns, folds="fold").notes
        for rows in ("soft,ridge", "soft")
    ]
    assert [[mentions(note, "fold 1", "one speaker", "ridge") for note in notes] for notes in compared] == [[True], []]


def test_members_classes_are_left_out_where_the_manifest_has_attributes_alone(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    table = corpus.manifest.to_arrow().drop_columns(["label"])
    manifest = Manifest(table, LabelScheme((), {"arousal": (1.0, 7.0)}), name="task2")
    meta, report = fit_ensemble(store, manifest, corpus.members, config=RidgeConfig(), folds="fold")
    assert (meta.classes, tuple(meta.attributes)) == ((), ("arousal",))
    assert any(mentions(note, "task2", *corpus.manifest.scheme.classes) for note in report.notes)
    comparison = compare(store, manifest, corpus.members, techniques_of("soft,ridge"), {"all": everyone}, folds="fold")
    assert set(comparison.parts["all folds"]["all"]["soft vote"].scores) == {"mean_ccc"}
    assert any(mentions(note, "task2") for note in comparison.notes)


@pytest.mark.slow
def test_the_labels_of_a_judged_fold_touch_neither_choice_nor_prediction(
    store: FeatureStore, write: Callable, corpus, make_corpus: Callable
) -> None:
    write(corpus)
    frame = corpus.manifest.to_arrow().to_pandas()
    rows = np.flatnonzero(frame["fold"] == "2")
    columns = ["label", "attr_arousal"]
    frame.loc[rows, columns] = frame.loc[np.random.default_rng(1).permutation(rows), columns].to_numpy()
    relabelled = Manifest(pa.Table.from_pandas(frame, preserve_index=False), corpus.manifest.scheme)
    keys, actual, choices = [corpus.manifest.keys[i] for i in rows], [], []
    for name, manifest in (("before", corpus.manifest), ("after", relabelled)):
        _, report = fit_ensemble(store, manifest, corpus.members, name=name, config=AUTO, folds="fold")
        actual.append(np.stack([store[f"posteriors/{name}"][key] for key in keys]))
        choices.append(report.choices)
    np.testing.assert_array_equal(*actual)
    assert choices[0]["fold 2"] == choices[1]["fold 2"]
    assert choices[0]["fold 1"] != choices[1]["fold 1"]


def test_the_table_shows_all_candidates_and_what_each_pass_chose(
    store: FeatureStore, write: Callable, corpus, tmp_path: Path
) -> None:
    write(corpus)
    meta, report = fit_ensemble(
        store, corpus.manifest, corpus.members, config=AUTO, folds="fold", directory=tmp_path / "run"
    )
    names = [row.name for row in report.parts["all folds"]]
    assert names[-1] == "chosen inside"
    assert {"soft vote", "best member", "ridge", "meta (soup)"} <= set(names)
    assert set(report.choices) == {*(f"fold {i}" for i in "12345"), "all folds"}
    assert any("Chosen inside each fitting part" in note for note in report.notes)
    assert load_meta(tmp_path / "run").kind == meta.kind


def test_settings_that_cannot_be_are_refused() -> None:
    for make in (
        lambda: AutoConfig(("auto",)),
        lambda: AutoConfig(()),
        lambda: RidgeConfig(penalties=(0.0,)),
        lambda: RidgeConfig("posteriors+attributes"),
        lambda: RidgeConfig(structures=("some",)),
        lambda: check_inputs_of("ridge", "logits+attributes"),
        lambda: check_inputs_of("soft", "logits"),
    ):
        with pytest.raises(ConfigError):
            make()
    for meta, inputs in (
        ("ridge", "logits"),
        ("soft", "posteriors"),
        ("linear", "logits+attributes"),
        ("auto", "logits"),
    ):
        check_inputs_of(meta, inputs)
