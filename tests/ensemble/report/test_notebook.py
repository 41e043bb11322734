"""What a notebook shows of feature sets, predictions and scores: their numbers, every text escaped."""

from pathlib import Path

import numpy as np

from ensemble.evaluation.assess import ScoringOptions
from ensemble.evaluation.parts import assess_parts
from ensemble.evaluation.protocol import check_systems
from ensemble.evaluation.systems import open_system
from ensemble.evaluation.table import tables_of
from ensemble.prediction.predictions import Predictions
from featurestore.corpus.manifest import Manifest
from featurestore.runtime.html import html_table
from featurestore.store.feature_store import FeatureStore
from tests.helpers.report_runs import N


def test_every_text_of_a_table_is_escaped() -> None:
    html = html_table(["<a>"], [["<b>&"]], "<c>", 3)
    assert "&lt;a&gt;" in html
    assert "&lt;b&gt;&amp;" in html
    assert "&lt;c&gt;" in html
    assert "and 3 more" in html


def test_a_feature_set_shows_what_it_is(run: Path) -> None:
    features = FeatureStore.open(run / "store")["tone"]
    html = features._repr_html_()
    assert features.spec.fingerprint in html
    assert f"<td>{N}</td>" in html


def test_predictions_show_the_first_and_count_the_others() -> None:
    n = 25
    p = np.tile(np.float32([[0.25, 0.75]]), (n, 1))
    values = np.full((n, 1), 3.5, np.float32)
    keys = tuple(f"<u{i}>" for i in range(n))
    result = Predictions(keys, ("calm", "<angry>"), ("arousal",), p, values, ("m",), np.zeros((1, n, 3)), (("x", "y"),))
    html = result._repr_html_()
    assert html.count("<td>&lt;angry&gt;</td>") == 20
    assert "<td>&lt;u0&gt;</td>" in html
    assert "<td>0.750</td><td>3.500</td>" in html
    assert "and 5 more" in html
    assert "1 failed" in html


def test_scores_show_values_intervals_and_differences(run: Path) -> None:
    table = Manifest.read(run / "manifest.csv")
    systems = [open_system(name, table, run / "store") for name in ("m1", "meta")]
    (actual,) = assess_parts(systems[0], table, ScoringOptions(20), against=systems[1]).values()
    html = actual._repr_html_()
    accuracy = actual.intervals["accuracy"]
    assert f"<td>{accuracy.value:.3f}</td><td>{accuracy.low:.3f} to {accuracy.high:.3f}</td>" in html
    assert "paired differences" in html
    assert "<img" not in html
    assert actual.evaluation.classification is not None
    assert f"{actual.evaluation.classification.macro_f1:.3f}" in actual.evaluation._repr_html_()


def test_a_table_of_systems_and_the_check_of_a_division_show_themselves(run: Path) -> None:
    table = Manifest.read(run / "manifest.csv")
    systems = {name: open_system(name, table, run / "store") for name in ("m1", "m2", "meta")}
    (actual,) = tables_of(systems, table, n_resamples=20).values()
    html = actual._repr_html_()
    row = actual.rows[1]
    assert f"{row.score('uar').value:.3f} ({row.score('uar').low:.3f} to" in html
    assert f"<td>{row.differences['uar'].p_holm:.3f}</td>" in html
    assert "<img" not in html
    report = check_systems(table, systems.values())
    assert report.findings
    html = report._repr_html_()
    assert report.findings[0].severity in html
    assert "<img" not in html
