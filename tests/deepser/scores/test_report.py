"""Reports show the figures they are given, name what was left out, and need no window system."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from deepser.scores.calibration import calibration
from deepser.scores.metrics import ScoreRow, classification, evaluate
from deepser.scores.report import (
    confusion_png,
    confusion_text,
    evaluation_report,
    matrix_png,
    reliability_png,
    scores_table,
)

CLASSES = ("angry", "[b]sad", "surprised")


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.fixture(scope="module")
def rows() -> list[ScoreRow]:
    labels = np.arange(60) % 3
    folds = [str(i % 2) for i in range(60)]
    good = evaluate(labels, labels, CLASSES, folds=folds)
    poor = evaluate(labels * 0, labels, CLASSES, folds=folds)
    seeds = ScoreRow.over_seeds("meta (single)", {"0": good, "1": poor})
    return [ScoreRow.of("m01", poor), seeds, ScoreRow.of("meta (soup)", good)]


def test_the_table_fits_eighty_columns_and_shows_every_system(rows: list[ScoreRow]) -> None:
    text = shown(scores_table(rows, "all folds"))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    soup = next(line for line in text.splitlines() if line.strip().startswith("meta (soup)"))
    assert soup.split()[2:] == ["1.000", "1.000", "1.000", "1.000±.000", "1.000±.000"]
    single = next(line for line in text.splitlines() if line.strip().startswith("meta (single)"))
    assert single.split()[3] == "0.667±.471"


def test_the_confusion_text_holds_each_count_at_its_true_class() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 0])
    lines = confusion_text(classification(predicted, labels, CLASSES)).splitlines()
    assert lines[1].split() == ["angry", "1", "1", "0", "50.0"]
    assert lines[2].split() == ["[b]sad", "1", "2", "0", "66.7"]
    assert lines[3].split() == ["surprised", "1", "0", "0", "0.0"]
    assert len({len(line) for line in lines}) == 1


def test_an_evaluation_says_what_it_left_out_and_keeps_odd_class_names() -> None:
    labels = np.array([0, 0, 1, -1])
    attributes = np.array([[1.0], [2.0], [3.0], [np.nan]])
    evaluation = evaluate(labels.clip(0), labels, CLASSES, attributes.copy(), attributes, ("arousal",))
    text = " ".join(shown(evaluation_report("m01", evaluation)).split())
    assert re.search(r"3 utterances.*1 without.*surprised", text)
    assert "[b]sad" in text
    assert "arousal" in text


def test_the_picture_is_a_png_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "confusion.png"
    confusion_png(classification(np.array([0, 1]), np.array([0, 2]), CLASSES), path, "m01")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_attributes_alone_are_reported_without_classes() -> None:
    target = np.random.default_rng(0).normal(4, 1, (30, 1))
    evaluation = evaluate(None, np.full(30, -1), CLASSES, target, target, ("arousal",))
    text = shown(evaluation_report("m01", evaluation))
    assert "arousal" in text
    assert "1.000" in text
    assert "macro-F1" not in text
    assert "precision" not in text


def test_the_intervals_of_f1_stand_beside_it() -> None:
    labels = np.arange(60) % 3
    intervals = {"angry": "0.987 to 1.000"}
    text = shown(evaluation_report("m01", evaluate(labels, labels, CLASSES), intervals), 120)
    line = next(line for line in text.splitlines() if line.strip().startswith("angry"))
    assert line.split() == ["angry", "1.000", "1.000", "1.000", "0.987", "to", "1.000", "20"]


def test_reliability_curves_are_drawn_with_empty_bins_left_out(tmp_path: Path) -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.2, 0.2, 0.6]])
    curve = calibration(p, np.array([0, 1, 2]))
    assert [each.n for each in curve.bins] == [1, 1, 1]
    reliability_png({"as given": curve, "scaled": curve}, tmp_path / "new" / "r.png", "m01")
    assert (tmp_path / "new" / "r.png").read_bytes().startswith(b"\x89PNG")
    matrix_png(("1-2", "2-3"), ((3, 0), (0, 0)), tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_tables_over_folds_say_over_how_many_and_show_macro_f1_by_both_conventions() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 1])  # the last four are a fold without the third class
    folds = ["1"] * 3 + ["2"] * 3 + ["3"] * 4
    evaluation = evaluate(labels, labels, CLASSES, folds=folds)
    assert evaluation.absent_by_fold == {"3": ("surprised",)}
    assert evaluation.folds["macro_f1"].values["3"] == pytest.approx(2 / 3)
    assert evaluation.folds["macro_f1_present"].values["3"] == 1
    text = shown(evaluation_report("m01", evaluation), 120)
    assert text.count("of 3 folds") == 3
    assert "3 no surprised" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("m01"))
    assert {"0.889±.192", "1.000±.000"} <= set(row.split())


def test_a_mean_over_the_folds_where_a_score_is_defined_says_how_many_these_are() -> None:
    targets = np.array([[1.0], [2.0], [3.0], [np.nan], [np.nan], [5.0]])
    evaluation = evaluate(None, np.full(6, -1), CLASSES, targets, targets, ("arousal",), ["1"] * 3 + ["2"] * 3)
    assert "(1 of 2)" in shown(scores_table([ScoreRow.of("m01", evaluation)]))
