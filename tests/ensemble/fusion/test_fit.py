"""The whole fit: honest divisions, every row of the table, and predictions that go back into the store."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import f1_score

from deepser.scores.metrics import classification
from deepser.training.targets import Targets
from ensemble.evaluation.align import load_posteriors
from ensemble.evaluation.parts import evaluate_parts
from ensemble.evaluation.posteriors import evaluate_posteriors
from ensemble.evaluation.systems import from_store
from ensemble.fusion.config import ForestConfig, MetaConfig, config_of
from ensemble.fusion.fit import fit_ensemble
from ensemble.fusion.kinds import load_meta, predict_meta
from ensemble.fusion.selection import Selection
from ensemble.fusion.votes import majority_vote, soft_vote
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AlignmentError, ConfigError, ManifestError, StoreError
from featurestore.store.feature_store import FeatureStore

SHORT = MetaConfig(rounds=3, steps_per_round=15, seeds=(0, 1), select="last")
ROWS = ["m0", "m1", "m2", "m3", "majority vote", "soft vote", "meta (single)", "meta (soup)"]


def without(manifest: Manifest, *columns: str) -> Manifest:
    return Manifest(manifest.to_arrow().drop_columns(list(columns)), manifest.scheme, name=manifest.name)


def test_an_ensemble_is_speaker_adapted_where_a_member_that_it_chose_is(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    plain = store["posteriors/m1"].spec
    spec = dataclasses.replace(plain, encoder="own", extra=(*plain.extra, ("adapted", "speaker")))
    with store.writer("posteriors/own", spec) as writer:
        for i, key in enumerate(corpus.manifest.keys):
            row = corpus.posteriors[1, i : i + 1]
            writer.append(key, {"posteriors": row, "logits": row})
    for chosen, adapted in (((0,), False), ((0, 1), True)):
        _, report = fit_ensemble(
            store, corpus.manifest, ["m0", "own"], config=config_of("soft", SHORT), folds="fold",
            select=lambda _, members=chosen: Selection(members),
        )  # fmt: skip
        names = [row.name for row in report.parts["all folds"]]
        assert names[:2] == ["m0", "own, speaker-adapted"]
        assert [name.endswith("speaker-adapted") for name in names[2:]] == [adapted] * len(names[2:])
        assert ("adapted" in dict(store["posteriors/meta"].spec.extra)) is adapted


def test_splits_outside_the_folds_are_judged_by_the_fit_on_all_folds(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    split = corpus.manifest.column("split")
    folds = [
        fold if part == "train" else None for fold, part in zip(corpus.manifest.column("fold"), split, strict=True)
    ]
    table = without(corpus.manifest, "fold").to_arrow().append_column("fold", [folds])
    manifest = Manifest(table, corpus.manifest.scheme, name="made")
    meta, report = fit_ensemble(store, manifest, ["m0", "m1"], config=SHORT, folds="fold")
    assert list(report.parts) == ["all folds", "development", "test"]
    assert report.n_fitted == 360
    assert report.evaluations["all folds"].classification.n == 360
    assert list(report.evaluations["all folds"].folds["uar"].values) == ["1", "2", "3"]
    assert evaluate_parts(store, manifest, "meta", cv="fold") == report.evaluations
    (whole,) = evaluate_parts(store, manifest, "meta", cv="fold", split="test").values()
    assert whole == report.evaluations["test"]
    at = np.flatnonzero(split == "test")
    of_test = predict_meta(meta, corpus.aligned().choose([0, 1]).rows(at)).probabilities
    stored = load_posteriors(store, ["posteriors/meta"], [manifest.keys[i] for i in at]).values[0, :, :4]
    np.testing.assert_allclose(stored, of_test, rtol=1e-5)


def test_over_folds_every_row_of_the_table_is_what_it_says(
    store: FeatureStore, write: Callable, corpus, tmp_path: Path
) -> None:
    write(corpus)
    meta, report = fit_ensemble(
        store, corpus.manifest, ["m0", "m1", "m2", "m3"], config=SHORT, folds="fold", directory=tmp_path / "run"
    )
    rows = {row.name: row for row in report.parts["all folds"]}
    assert list(rows) == ROWS
    p = corpus.posteriors[..., :4]
    for name, predicted in {
        "m2": p[2].argmax(1),
        "majority vote": majority_vote(p),
        "soft vote": soft_vote(p).argmax(1),
    }.items():
        assert rows[name].scores["macro_f1"] == pytest.approx(f1_score(corpus.labels, predicted, average="macro"))
        assert list(rows[name].folds["uar"].values) == ["1", "2", "3", "4", "5"]
    assert set(rows["meta (single)"].seeds["macro_f1"].values) == {"0", "1"}
    assert rows["meta (soup)"].scores["mean_ccc"] > rows["m3"].scores["mean_ccc"]
    assert not report.in_sample
    (note,) = report.notes  # this corpus is one on which the soup is no better than the vote, by a thousandth
    assert rows["soft vote"].scores["macro_f1"] > rows["meta (soup)"].scores["macro_f1"]
    assert re.search(r"soft vote .* meta \(soup\)", note)
    assert evaluate_posteriors(store, corpus.manifest, "meta", folds="fold") == report.evaluations["all folds"]
    saved = json.loads((tmp_path / "run" / "report.json").read_text())
    assert saved["parts"]["all folds"][-1]["scores"]["uar"] == rows["meta (soup)"].scores["uar"]
    assert np.array_equal(load_meta(tmp_path / "run").tensors["weight"], meta.tensors["weight"])
    assert meta.tensors["weight"].shape == (1, 4 * 5, 5)


def test_a_fold_is_predicted_without_its_labels(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    fit_ensemble(store, corpus.manifest, corpus.members, name="right", config=SHORT, folds="fold")
    table = corpus.manifest.to_arrow()
    wrong = pc.if_else(pc.equal(table["fold"], "3"), "angry", table["label"])
    changed = Manifest(table.set_column(table.column_names.index("label"), "label", wrong), corpus.manifest.scheme)
    fit_ensemble(store, changed, corpus.members, name="wrong", config=SHORT, folds="fold")
    posteriors = load_posteriors(store, ["posteriors/right", "posteriors/wrong"], corpus.manifest.keys).values
    third = corpus.manifest.column("fold") == "3"
    assert np.array_equal(posteriors[0, third], posteriors[1, third])
    assert not np.allclose(posteriors[0, ~third], posteriors[1, ~third], atol=1e-4)


def test_members_out_of_fold_on_train_are_fitted_on_train(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    _, report = fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT)
    assert report.fitted_on == "train"
    assert report.n_fitted == 360
    assert sorted(report.parts) == ["development", "test"]
    assert [row.name for row in report.parts["test"]] == ROWS
    held_out = {
        key
        for key, split in zip(corpus.manifest.keys, corpus.manifest.column("split"), strict=True)
        if split != "train"
    }
    assert set(store["posteriors/meta"]) == held_out
    assert dict(store["posteriors/meta"].spec.extra)["oof"] == "none"


def test_members_without_posteriors_of_train_are_fitted_on_development_and_scored_there_by_cross_fitting(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus, oof="none", rows=corpus.manifest.column("split") != "train")
    _, report = fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT)
    assert report.fitted_on == "development"
    assert "cross-fitted" in report.notes[0]
    assert not report.in_sample
    # Labels of one development speaker do not reach its own predictions, though the final map learns from them.
    before = load_posteriors(store, ["posteriors/meta"]).values
    table = corpus.manifest.to_arrow()
    speaker = corpus.manifest.column("speaker")[corpus.manifest.column("split") == "development"][0]
    labels = pc.if_else(pc.equal(table["speaker"], speaker), "angry", table["label"])
    changed = Manifest(table.set_column(table.column_names.index("label"), "label", labels), corpus.manifest.scheme)
    fit_ensemble(store, changed, corpus.members, config=SHORT)
    after = load_posteriors(store, ["posteriors/meta"])
    of_speaker = np.array(
        [corpus.manifest.column("speaker")[corpus.manifest.index(key)] == speaker for key in after.keys]
    )
    assert np.array_equal(before[0, of_speaker], after.values[0, of_speaker])
    assert not np.array_equal(before, after.values)


def test_in_sample_posteriors_are_refused_unless_requested_and_then_recorded(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus, oof="in-sample")
    for folds in ("fold", None):
        with pytest.raises(ConfigError, match=r"posteriors/m0.*out of fold.*in-sample"):
            fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, folds=folds)
        assert "posteriors/meta" not in store
    _, report = fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, in_sample=True)
    assert report.in_sample
    assert report.fitted_on == "train"
    assert "In-sample posteriors" in report.notes[0]
    assert dict(store["posteriors/meta"].spec.extra)["oof"] == "in-sample"
    with pytest.raises(ConfigError, match=r"posteriors/meta .*out of fold"):
        fit_ensemble(store, corpus.manifest, ["meta"], name="again", config=SHORT)


def test_one_missing_row_stops_the_fit_and_names_the_utterance(store: FeatureStore, write: Callable, corpus) -> None:
    lost = corpus.manifest.keys[100]
    write(corpus, leave_out={"posteriors/m1": [lost]})
    with pytest.raises(AlignmentError, match=f"'posteriors/m1' misses '{lost}'"):
        fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, folds="fold")
    with pytest.raises(AlignmentError, match=lost):
        evaluate_posteriors(store, corpus.manifest, "m1")


def test_the_order_of_the_manifest_does_not_change_any_utterances_prediction_of_a_member(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    shuffled = corpus.manifest.rows(np.random.default_rng(0).permutation(600))
    straight, mixed = (evaluate_posteriors(store, m, "m0", folds="fold") for m in (corpus.manifest, shuffled))
    assert straight.classification == mixed.classification
    assert straight.concordance.mean == pytest.approx(mixed.concordance.mean)


def test_votes_are_targets_and_clips_without_consensus_are_counted_not_scored(
    store: FeatureStore, write: Callable, make_corpus: Callable
) -> None:
    corpus = make_corpus(400, 3, seed=2, no_consensus=0.2)
    write(corpus)
    _, report = fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, folds="fold")
    result = report.evaluations["all folds"].classification
    assert result.n_no_consensus == (corpus.labels < 0).sum() > 0
    assert len(store["posteriors/meta"]) == 400
    p = load_posteriors(store, ["posteriors/meta"], corpus.manifest.keys).values[0, :, :4]
    assert result == classification(p, Targets.from_manifest(corpus.manifest).labels, result.classes)


def test_selection_holds_speakers_out(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    config = MetaConfig(rounds=2, seeds=(0,), select="macro_f1", inputs="logits")
    meta, _ = fit_ensemble(store, corpus.manifest, corpus.members, config=config)
    assert [row["round"] for row in meta.history] == [0, 1, 2]


def test_an_ensembles_predictions_are_replaced_and_nothing_else_is(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, folds="fold")
    fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT)
    assert len(store["posteriors/meta"]) == 240
    with pytest.raises(StoreError, match=r"'posteriors/m0'.*not .*ensemble"):
        fit_ensemble(store, corpus.manifest, corpus.members, name="m0", config=SHORT)
    assert len(store["posteriors/m0"]) == 600


def test_a_stack_of_stacks_and_an_unlabelled_test_part_work(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, folds="fold")
    table = corpus.manifest.to_arrow()
    label = pc.if_else(pc.equal(table["split"], "test"), None, table["label"])
    blind = Manifest(table.set_column(table.column_names.index("label"), "label", label), corpus.manifest.scheme)
    _, report = fit_ensemble(store, blind, ["m0", "meta"], name="second", config=SHORT)
    assert list(report.parts) == ["development", "test"]
    assert set(report.parts["test"][-1].scores) == {"mean_ccc"}
    table = blind.to_arrow()
    arousal = pc.if_else(pc.equal(table["split"], "test"), None, table["attr_arousal"])
    nothing = Manifest(
        table.set_column(table.column_names.index("attr_arousal"), "attr_arousal", arousal), blind.scheme
    )
    _, report = fit_ensemble(store, nothing, ["m0", "meta"], name="second", config=SHORT)
    assert list(report.parts) == ["development"]
    assert len(store["posteriors/second"]) == 240


def test_speakers_in_two_folds_are_reported(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    table = corpus.manifest.to_arrow()
    mixed = np.arange(600) % 5 + 1.0  # a column of numbers works as folds too
    manifest = Manifest(table.append_column("part", [mixed]), corpus.manifest.scheme)
    _, report = fit_ensemble(store, manifest, corpus.members, config=SHORT, folds="part")
    (shared,) = (each for each in report.protocol["findings"] if each["kind"] == "speaker")
    assert shared["n_items"] == 60
    assert list(report.parts["all folds"][0].folds["uar"].values) == ["1", "2", "3", "4", "5"]


def test_what_the_manifest_lacks_is_named(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus, oof="none", rows=corpus.manifest.column("split") == "test")
    test_only = corpus.manifest.rows(corpus.manifest.column("split") == "test")
    with pytest.raises(ManifestError, match=r"'development'.*fit-deepser --folds N"):
        fit_ensemble(store, test_only, corpus.members, config=SHORT)
    with pytest.raises(ManifestError, match="neither a 'split' nor a 'fold'"):
        fit_ensemble(store, without(test_only, "split", "fold"), corpus.members, config=SHORT)
    with pytest.raises(ManifestError, match="one value only, '5'"):
        fit_ensemble(store, test_only, corpus.members, config=SHORT, folds="fold")
    with pytest.raises(ManifestError, match="flod"):
        fit_ensemble(store, test_only, corpus.members, config=SHORT, folds="flod")
    with pytest.raises(ConfigError, match="at least one member"):
        fit_ensemble(store, test_only, [], config=SHORT)
    with pytest.raises(ManifestError, match=r"split 'test3'.*test"):
        evaluate_posteriors(store, test_only, "m0", split="test3")


@pytest.mark.parametrize(
    "kind",
    [
        "linear",
        "mlp",
        "forest",
        "ridge",
        "soft",
        "majority",
        "weighted",
        "best",
        pytest.param("auto", marks=pytest.mark.slow),
    ],
)
def test_an_attribute_that_nobody_rated_has_no_output_whatever_fuses(
    kind: str, store: FeatureStore, write: Callable, make_corpus: Callable
) -> None:
    small = make_corpus(n=60, n_members=2)
    write(small)
    table = small.manifest.to_arrow()
    index = table.column_names.index("attr_arousal")
    unrated = table.set_column(index, "attr_arousal", pa.nulls(60, pa.float64()))
    config = config_of(kind, SHORT, ForestConfig(n_trees=4, n_folds=2))
    meta, report = fit_ensemble(
        store, Manifest(unrated, small.manifest.scheme), small.members, config=config, folds="fold"
    )
    assert meta.attributes == {}
    assert store["posteriors/meta"].spec.columns == small.manifest.scheme.classes
    assert any("arousal" in note and "nobody rated" in note for note in report.notes)


def test_scores_say_when_a_member_was_fitted_again_since(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    fit_ensemble(store, corpus.manifest, ["m0", "m1"], config=config_of("soft", SHORT), folds="fold")
    assert from_store(store, "meta", corpus.manifest).notes == ()
    features, rows = store["posteriors/m1"], {}
    for key in features:
        rows[key] = {layer: features.array(key, layer).copy() for layer in features.layers}
    store.remove("posteriors/m1")
    with store.writer("posteriors/m1", dataclasses.replace(features.spec, weights="sha256:other")) as writer:
        for key, layers in rows.items():
            writer.append(key, layers)
    (note,) = from_store(store, "meta", corpus.manifest).notes
    assert re.search(r"before m1 was fitted again.*fit-meta", note)
    assert from_store(store, "m1", corpus.manifest).notes == ()
    fit_ensemble(store, corpus.manifest, ["m0", "m1"], config=config_of("soft", SHORT), folds="fold")
    assert from_store(store, "meta", corpus.manifest).notes == ()
