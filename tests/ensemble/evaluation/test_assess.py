"""What is said of a system is about the utterances asked for, and no temperature has seen labels it is scored on."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from deepser.scores.calibration import calibration, fit_temperature, scale, soft_scores
from deepser.training.targets import Targets
from ensemble.evaluation.assess import ScoringOptions, assess, scored
from ensemble.evaluation.bootstrap import bootstrap
from ensemble.evaluation.parts import assess_parts, evaluate_parts
from ensemble.evaluation.posteriors import evaluate_posteriors
from ensemble.evaluation.report import assessment_report, write_pictures
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import from_store, open_system
from ensemble.evaluation.table import tables_of
from ensemble.report.scores import Scoring, score_systems
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.votes import soft_targets
from featurestore.errors import AlignmentError, ConfigError, ManifestError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions

FEW = ScoringOptions(n_resamples=50)


def without(manifest: Manifest, *columns: str) -> Manifest:
    return Manifest(manifest.to_arrow().drop_columns(list(columns)), manifest.scheme, name=manifest.name)


def column(manifest: Manifest, name: str, values: list) -> Manifest:
    table = manifest.to_arrow()
    if name in table.column_names:
        table = table.drop_columns([name])
    return Manifest(table.append_column(name, [values]), manifest.scheme, name=manifest.name)


def shown(renderable: object) -> str:
    console = Console(width=150)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.fixture
def systems(store: FeatureStore, write: Callable, corpus) -> list[System]:
    write(corpus)
    return [from_store(store, name, corpus.manifest) for name in ("m0", "posteriors/m1")]


def test_the_scores_are_those_of_evaluate_and_the_intervals_the_bootstraps(
    systems: list[System], store: FeatureStore, corpus
) -> None:
    assessment = assess(systems[0], corpus.manifest, FEW, folds="fold")
    assert assessment.evaluation == evaluate_posteriors(store, corpus.manifest, "m0", folds="fold")
    assert assessment.n_clusters == 60
    expected = f1_score(corpus.labels, corpus.logits[0].argmax(1), average="macro")
    assert assessment.intervals["macro_f1"].value == pytest.approx(expected)
    assert assessment.intervals["macro_f1"].low < expected < assessment.intervals["macro_f1"].high
    assert assessment.intervals["ccc_arousal"].value == pytest.approx(assessment.evaluation.concordance.ccc["arousal"])
    assert sum(map(sum, assessment.bins["arousal"].confusion)) == 600
    assert assessment.soft is None  # no votes
    assert assessment.notes == ()
    saved = json.loads(json.dumps(assessment.to_dict(), allow_nan=False))
    assert saved["classification"]["macro_f1"] == pytest.approx(expected)
    assert saved["intervals"]["uar"][1] < saved["intervals"]["uar"][2]


def test_a_class_of_few_speakers_is_noted_since_resamples_lack_it(systems: list[System], corpus) -> None:
    speakers = corpus.manifest.column("speaker")
    labels = np.array(corpus.manifest.labels, object)
    labels[(labels == corpus.manifest.scheme.classes[0]) & (speakers != speakers[0])] = None
    labels[np.flatnonzero(speakers == speakers[0])[0]] = corpus.manifest.scheme.classes[0]
    manifest = column(corpus.manifest, "label", labels.tolist())
    note = assess(systems[0], manifest, FEW).notes[-1]
    assert mentions(note, "36%", f"no {corpus.manifest.scheme.classes[0]} (1 speaker)", "macro-F1")
    drawn = bootstrap(scored(systems[0], manifest, ()).sums(), 4000)["macro_f1"]
    present = bootstrap(scored(systems[0], manifest, ()).sums(), 4000)["macro_f1_present"]
    assert drawn.low < present.low
    assert (
        note in tables_of({"m0": systems[0], "m1": systems[1]}, manifest, cv="fold", n_resamples=50)["all folds"].notes
    )
    assert assess(systems[0], manifest, ScoringOptions(0)).notes == ()


def test_a_part_without_labels_keeps_no_other_part_from_being_calibrated(systems: list[System], corpus) -> None:
    split = np.array(["train", "development", "test"])[np.arange(600) % 3]
    labels = [None if part == "test" else name for part, name in zip(split, corpus.manifest.labels, strict=True)]
    hidden = column(column(corpus.manifest, "split", split.tolist()), "label", labels)
    parts = assess_parts(systems[0], hidden, ScoringOptions(0, calibration=True))
    whole = assess_parts(
        systems[0], column(corpus.manifest, "split", split.tolist()), ScoringOptions(0, calibration=True)
    )
    assert parts["development"].calibration == whole["development"].calibration
    assert parts["train"].calibration == whole["train"].calibration
    assert parts["test"].calibration is None
    assert parts["test"].evaluation.concordance == whole["test"].evaluation.concordance
    assert "no utterance has a label" in parts["test"].notes[-1]


def test_labels_in_one_fold_alone_leave_no_temperature_but_every_score(systems: list[System], corpus) -> None:
    first = corpus.manifest.column("fold")[0]
    pairs = zip(corpus.manifest.column("fold"), corpus.manifest.labels, strict=True)
    manifest = column(corpus.manifest, "label", [name if fold == first else None for fold, name in pairs])
    options = ScoringOptions(0, calibration=True)
    with pytest.raises(ConfigError, match=r"all labels are in one part.*column 'fold'"):
        assess_parts(systems[0], manifest, options, cv="fold")
    (row,) = score_systems(systems[:1], manifest, Scoring(0, cv="fold"))
    (part,) = row["parts"].values()
    assert part["assessment"]["classification"]["n"] == sum(corpus.manifest.column("fold") == first)
    assert "all labels are in one part" in part["notes"][0]


def test_rows_are_found_by_key_in_any_order(systems: list[System], corpus) -> None:
    mixed = corpus.manifest.rows(np.random.default_rng(0).permutation(600))
    straight, mixed_result = (assess(systems[0], m, ScoringOptions(0), against=None) for m in (corpus.manifest, mixed))
    assert straight.evaluation.classification == mixed_result.evaluation.classification
    assert straight.intervals == {}


def test_two_systems_are_compared_on_the_same_utterances(systems: list[System], corpus) -> None:
    assessment = assess(systems[0], corpus.manifest, FEW, against=systems[1])
    assert assessment.against is not None
    assert (assessment.against.first, assessment.against.second) == ("posteriors/m0", "posteriors/m1")
    difference = assessment.against.differences["uar"]
    single = assess(systems[1], corpus.manifest, FEW)
    assert difference.first == pytest.approx(assessment.evaluation.classification.uar)
    assert difference.second == pytest.approx(single.evaluation.classification.uar)
    assert assessment.against.differences["ccc_arousal"].p < 0.05  # by construction m1 hears arousal worse
    short = systems[1].of(corpus.manifest.keys[1:])
    with pytest.raises(AlignmentError, match=f"'posteriors/m1' misses '{corpus.manifest.keys[0]}'"):
        assess(systems[0], corpus.manifest, FEW, against=short)
    labels_alone = replace(systems[1], probabilities=None, attributes=(), values=np.empty((600, 0)))
    beside_labels = assess(systems[0], corpus.manifest, FEW, against=labels_alone)
    assert beside_labels.evaluation == assessment.evaluation
    assert beside_labels.against is not None
    assert "mean_ccc" not in beside_labels.against.differences
    assert beside_labels.against.differences["uar"] == difference
    attributes_alone = replace(systems[1], predicted=None, probabilities=None)
    beside_attributes = assess(systems[0], corpus.manifest, FEW, against=attributes_alone).against
    assert beside_attributes is not None
    assert set(beside_attributes.differences) == {"ccc_arousal", "mean_ccc"}
    with pytest.raises(ConfigError, match="nothing in common"):
        assess(labels_alone, corpus.manifest, FEW, against=attributes_alone)
    with pytest.raises(ManifestError, match="Nothing that"):
        assess(replace(labels_alone, predicted=None), corpus.manifest, FEW)


def test_classes_that_are_left_out_are_noted_of_every_system_that_is_compared(systems: list[System], corpus) -> None:
    rows = np.flatnonzero(corpus.labels > 0)
    three = LabelScheme(corpus.manifest.scheme.classes[1:], corpus.manifest.scheme.attributes)
    manifest = Manifest(corpus.manifest.to_arrow().take(pa.array(rows)), three, name="three")
    note = "classes left out: angry"
    assert note in assess(systems[0], manifest, FEW).notes
    assert f"posteriors/m1: {note}" in assess(systems[0], manifest, FEW, against=systems[1]).notes
    (table,) = tables_of({"a": systems[0], "b": systems[1]}, manifest, cv="fold", n_resamples=5).values()
    assert {f"a: {note}", f"b: {note}"} <= set(table.notes)


def test_votes_give_soft_scores(make_corpus: Callable, store: FeatureStore, write: Callable) -> None:
    corpus = make_corpus(300, 2, seed=1, no_consensus=0.2)
    write(corpus)
    assessment = assess(from_store(store, "m0", corpus.manifest), corpus.manifest, FEW)
    p = corpus.posteriors[0, :, :4]
    assert assessment.soft == soft_scores(p, Targets.from_manifest(corpus.manifest).soft)
    assert assessment.soft.n == 300  # those without consensus too
    assert assessment.intervals["jensen_shannon"].value == pytest.approx(assessment.soft.jensen_shannon)
    assert "Jensen-Shannon" in shown(assessment_report("m0", assessment))


def test_soft_scores_are_of_utterances_that_have_votes_alone(
    make_corpus: Callable, store: FeatureStore, write: Callable
) -> None:
    corpus = make_corpus(300, 2, seed=1, no_consensus=0.2)
    write(corpus)
    voted = np.arange(300) % 3 > 0
    manifest = corpus.manifest
    for name in manifest.scheme.classes:
        votes = np.where(voted, manifest.column(f"vote_{name}"), np.nan).tolist()
        manifest = column(manifest, f"vote_{name}", [None if vote != vote else vote for vote in votes])
    assessment = assess(from_store(store, "m0", manifest), manifest, FEW)
    counts = corpus.manifest.votes
    assert counts is not None
    assert assessment.soft == soft_scores(corpus.posteriors[0, voted, :4], soft_targets(counts[voted]))
    assert assessment.soft.n == 200  # a label is no vote
    assert assessment.intervals["cross_entropy"].value == pytest.approx(assessment.soft.cross_entropy)


def test_a_folds_temperature_is_fitted_on_the_others(systems: list[System], corpus) -> None:
    assessment = assess(systems[0], corpus.manifest, ScoringOptions(0, calibration=True), folds="fold").calibration
    assert assessment is not None
    p, folds = corpus.posteriors[0, :, :4], corpus.manifest.column("fold")
    assert assessment.unscaled == calibration(p, corpus.labels)
    assert set(assessment.temperatures) == set("12345")
    for fold, temperature in assessment.temperatures.items():
        other_folds = folds != fold
        assert temperature == pytest.approx(fit_temperature(p[other_folds], corpus.labels[other_folds]))
    assert assessment.fitted_on == "the other folds of column 'fold'"
    assert assessment.scaled.accuracy == assessment.unscaled.accuracy


def test_a_split_that_is_one_of_the_folds_has_no_spread(systems: list[System], corpus) -> None:
    over_folds = replace(systems[0], fold_column="fold")  # split test is fold 5
    (part,) = assess_parts(over_folds, corpus.manifest, ScoringOptions(0, calibration=True), split="test").values()
    assert part.evaluation.folds == {}
    at = np.flatnonzero(corpus.manifest.column("split") == "test")
    scored_part = part.evaluation.classification
    assert scored_part is not None
    assert scored_part.accuracy == (corpus.posteriors[0, at, :4].argmax(1) == corpus.labels[at]).mean()
    assert part.calibration is not None
    (table,) = tables_of({"m": over_folds}, corpus.manifest, split="test", n_resamples=0).values()
    assert table.rows[0].score("uar").value == pytest.approx(scored_part.uar)


def test_without_folds_it_is_fitted_on_other_speakers(systems: list[System], corpus) -> None:
    assessment = assess(systems[0], corpus.manifest, ScoringOptions(0, calibration=True)).calibration
    assert assessment is not None
    assert assessment.fitted_on == "other speakers, 5 parts"
    assert len(assessment.temperatures) == 5
    one_speaker = column(corpus.manifest, "speaker", ["s"] * 600)
    with pytest.raises(ConfigError, match="of one speaker"):
        assess(systems[0], one_speaker, ScoringOptions(0, calibration=True))
    with pytest.raises(ConfigError, match="no probabilities"):
        assess(replace(systems[0], probabilities=None), corpus.manifest, ScoringOptions(0, calibration=True))


def test_the_temperature_of_a_test_part_is_fitted_on_development_alone(systems: list[System], corpus) -> None:
    options = ScoringOptions(0, calibration=True)
    parts = assess_parts(systems[0], corpus.manifest, options)
    assert set(parts) == {"train", "development", "test"}
    split, p = corpus.manifest.column("split"), corpus.posteriors[0, :, :4]
    temperature = fit_temperature(p[split == "development"], corpus.labels[split == "development"])
    test = parts["test"].calibration
    assert test.temperatures == {"development": pytest.approx(temperature)}
    expected = calibration(scale(p[split == "test"], temperature), corpus.labels[split == "test"])
    assert test.scaled.ece == pytest.approx(expected.ece, abs=1e-6)
    assert parts["development"].calibration.fitted_on == "other speakers, 5 parts"
    # Whatever the labels of the test part are, its temperature stays.
    labels = np.array(corpus.manifest.labels, object)
    labels[split == "test"] = "angry"
    spoiled = assess_parts(systems[0], column(corpus.manifest, "label", labels.tolist()), options, split="test")
    assert spoiled["test"].calibration.temperatures == test.temperatures
    assert spoiled["test"].calibration.unscaled.accuracy != test.unscaled.accuracy


def test_groups_are_those_of_the_column(systems: list[System], corpus) -> None:
    gender = [("female", "male", None)[int(s[1:]) % 3] for s in corpus.manifest.column("speaker")]
    manifest = column(corpus.manifest, "gender", gender)
    table = assess(systems[0], manifest, replace(FEW, by="gender")).groups
    assert table is not None
    assert [(row.name, row.n_clusters) for row in table.rows] == [("female", 20), ("male", 20)]
    assert table.n_without == 200
    speakers = assess(systems[0], manifest, replace(FEW, by="speaker")).groups
    assert speakers is not None
    assert len(speakers.rows) == 60
    with pytest.raises(ManifestError, match="no column 'sex'"):
        assess(systems[0], manifest, replace(FEW, by="sex"))
    text = shown(assessment_report("m0", assess(systems[0], manifest, replace(FEW, by="speaker"))))
    assert "... 50 more" in text
    assert "gap in accuracy" in text


def test_speakers_that_are_unknown_or_few_are_reported(systems: list[System], corpus) -> None:
    speakers = ["Unknown" if i < 100 else f"s{i % 7}" for i in range(600)]
    assessment = assess(systems[0], column(corpus.manifest, "speaker", speakers), FEW)
    assert assessment.n_clusters == 107
    assert assessment.notes == ("100 utterances have no known speaker and are resampled one by one",)
    few = assess(systems[0], column(corpus.manifest, "speaker", [f"s{i % 7}" for i in range(600)]), FEW)
    assert "7 speakers are few" in few.notes[0]
    nobody = assess(systems[0], without(corpus.manifest, "speaker"), FEW)
    assert nobody.n_clusters == 600
    assert assess(systems[0], without(corpus.manifest, "speaker"), ScoringOptions(0)).notes == ()


def test_attributes_alone_are_scored_where_there_are_no_labels(systems: list[System], corpus) -> None:
    unlabelled = without(corpus.manifest, "label")
    attributes_alone = Manifest(unlabelled.to_arrow(), LabelScheme((), {"arousal": (1.0, 7.0)}), name="task2")
    for manifest in (attributes_alone, column(corpus.manifest, "label", pa.nulls(600, pa.string()).to_pylist())):
        assessment = assess(systems[0], manifest, FEW)
        assert assessment.evaluation.classification is None
        assert assessment.evaluation.scores()["mean_ccc"] == pytest.approx(assessment.intervals["mean_ccc"].value)
        assert "macro-F1" not in shown(assessment_report("m0", assessment))
    table = corpus.manifest.to_arrow().drop_columns(["label", "attr_arousal"])
    blind = Manifest(table, LabelScheme(("angry", "sad", "happy", "neutral")), name="blind")
    with pytest.raises(ManifestError, match="nothing to score"):
        assess(systems[0], column(blind, "label", [None] * 600), FEW)


def test_classes_are_matched_by_name(systems: list[System], corpus) -> None:
    system = systems[0]
    assert system.probabilities is not None
    turned = replace(system, classes=system.classes[::-1], probabilities=system.probabilities[:, ::-1],
                     predicted=system.probabilities[:, ::-1].argmax(1))  # fmt: skip
    straight, turned_result = (assess(s, corpus.manifest, ScoringOptions(0)) for s in (system, turned))
    assert straight.evaluation.classification == turned_result.evaluation.classification
    wider = np.concatenate([system.probabilities / 2, np.full((600, 1), 0.5)], 1).astype(np.float32)
    with_other = replace(system, classes=(*system.classes, "other"), probabilities=wider, predicted=wider.argmax(1))
    assessment = assess(with_other, corpus.manifest, ScoringOptions(0, calibration=True))
    assert assessment.evaluation.classification == straight.evaluation.classification
    assert assessment.calibration.unscaled.nll == pytest.approx(
        calibration(system.probabilities, corpus.labels).nll, rel=1e-5
    )
    assert assessment.notes == ("classes left out: other",)
    narrower = replace(system, classes=system.classes[:3], probabilities=None, predicted=np.zeros(600, int))
    with pytest.raises(AlignmentError, match="but not neutral"):
        assess(narrower, corpus.manifest, ScoringOptions(0))


def test_a_file_and_the_store_give_the_same_assessment(systems: list[System], corpus, tmp_path: Path) -> None:
    system = systems[0]
    head = [*(f"p_{name}" for name in system.classes), "attr_arousal"]
    rows = np.concatenate([system.probabilities, system.values], 1)
    lines = [f"{key},{','.join(f'{x:.9g}' for x in row)}" for key, row in zip(system.keys, rows.tolist(), strict=True)]
    (tmp_path / "m0.csv").write_text("\n".join([",".join(["utterance_id", *head]), *lines]))
    from_file = open_system(str(tmp_path / "m0.csv"), corpus.manifest, tmp_path / "no store")
    of_file, ours = (assess(s, corpus.manifest, FEW).to_dict() for s in (from_file, system))
    assert of_file.pop("system") == str(tmp_path / "m0.csv")
    assert ours.pop("system") == "posteriors/m0"
    assert of_file == ours


def test_the_parts_are_those_that_are_predicted(store: FeatureStore, write: Callable, corpus) -> None:
    test_part = corpus.manifest.column("split") == "test"
    write(corpus, rows=test_part)
    system = from_store(store, "m0", corpus.manifest)
    assert list(assess_parts(system, corpus.manifest, FEW)) == ["test"]
    assert list(evaluate_parts(store, corpus.manifest, "m0")) == ["test"]
    with pytest.raises(AlignmentError, match="misses"):
        assess_parts(system, corpus.manifest, FEW, split="train")
    with pytest.raises(ManifestError, match=r"manifest made"):
        assess_parts(system.of(system.keys[:0]), corpus.manifest, FEW)
    training = corpus.manifest.rows(~test_part)
    with pytest.raises(AlignmentError, match="misses every utterance"):
        from_store(store, "m0", training)


def test_pictures_are_drawn_for_what_there_is(systems: list[System], corpus, tmp_path: Path) -> None:
    assessment = assess(systems[0], corpus.manifest, ScoringOptions(0, calibration=True))
    paths = write_pictures("m0", assessment, tmp_path / "c.png", tmp_path / "r.png")
    assert [path.name for path in paths] == ["c.png", "c-arousal.png", "r.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert write_pictures("m0", replace(assessment, calibration=None), None, tmp_path / "none.png") == []


def test_a_report_has_every_section(systems: list[System], corpus) -> None:
    options = replace(FEW, calibration=True)
    assessment = assess(systems[0], corpus.manifest, options, folds="fold", against=systems[1])
    text = shown(assessment_report("m0", replace(assessment, notes=("read with care",))))
    for part in ("macro-F1", "95 % of F1", "true \\ pred.", "by resampling 60 speakers", "CCC arousal", "ECE",
                 "temperature-scaled", "the other folds of column 'fold'", "A posteriors/m0, B posteriors/m1",
                 "note: read with care", "mean of predicted less true: 1-2"):  # fmt: skip
        assert part in text, part
    assert not math.isnan(assessment.intervals["uar"].low)


def test_predictions_on_another_scale_are_noted_with_correlation_and_ranges(systems: list[System], corpus) -> None:
    rescaled = replace(systems[0], values=(1 + (systems[0].values - 1) * 2 / 3).astype(np.float32))  # 1-5 for 1-7
    (note,) = [each for each in assess(rescaled, corpus.manifest, ScoringOptions(0)).notes if "scale" in each]
    assert "arousal" in note
    assert not any("scale" in each for each in assess(systems[0], corpus.manifest, ScoringOptions(0)).notes)
