"""Tables of several systems: the same utterances and draws for all, figures of one system alone, text that is safe."""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from ensemble.evaluation.assess import ScoringOptions, assess
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import from_store
from ensemble.evaluation.table import SystemTable, tables_of
from ensemble.evaluation.table_report import escape_latex, terminal_tables, text_of
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import AlignmentError, ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions

N = 50


@pytest.fixture
def systems(store: FeatureStore, write: Callable, corpus) -> dict[str, System]:
    write(corpus)
    return {name: from_store(store, name, corpus.manifest) for name in ("m0", "m1", "m2")}


def of_folds(systems: dict[str, System], manifest: Manifest, **options) -> SystemTable:
    return tables_of(systems, manifest, cv="fold", n_resamples=N, **options)["all folds"]


def test_every_figure_is_that_of_the_system_alone_with_the_same_resamples(systems: dict, corpus) -> None:
    table = of_folds(systems, corpus.manifest)
    for row in table.rows:
        single = assess(systems[row.name], corpus.manifest, ScoringOptions(N))
        assert row.scores == {name: own for name, own in single.intervals.items() if name in row.scores}
        assert {"macro_f1", "uar", "accuracy", "mean_ccc", "ccc_arousal"} <= set(row.scores)


def test_differences_are_those_of_the_paired_comparison_with_the_first_system(systems: dict, corpus) -> None:
    table = of_folds(systems, corpus.manifest)
    assert table.rows[0].differences == {}
    against = assess(systems["m2"], corpus.manifest, ScoringOptions(N), against=systems["m0"]).against
    for score in ("macro_f1", "uar", "ccc_arousal", "mean_ccc"):
        difference = table.rows[2].differences[score]
        assert difference == replace(against.differences[score], p_holm=difference.p_holm)


def test_another_reference_turns_the_difference_around(systems: dict, corpus) -> None:
    to_m0, to_m1 = (of_folds(systems, corpus.manifest, reference=name) for name in ("m0", "m1"))
    assert to_m1.rows[1].differences == {}
    assert to_m0.rows[1].differences["uar"].value == -to_m1.rows[0].differences["uar"].value
    with pytest.raises(ConfigError, match="'m7'"):
        of_folds(systems, corpus.manifest, reference="m7")


def test_systems_of_other_utterances_are_refused_with_counts_and_with_common_scored_on_the_shared_ones(
    systems: dict, corpus
) -> None:
    keys = corpus.manifest.keys
    systems["m1"] = systems["m1"].of(keys[:590])
    systems["m2"] = systems["m2"].of(keys[20:])
    with pytest.raises(AlignmentError, match=r"m0 600 of 600, m1 590 of 600, m2 580 of 600; 570 .*--common") as error:
        of_folds(systems, corpus.manifest)
    assert error.value.missing["m1"] == list(keys[590:])
    table = of_folds(systems, corpus.manifest, common=True)
    assert table.n_utterances == 570
    expected = assess(systems["m0"], corpus.manifest.rows(np.arange(20, 590)), ScoringOptions(N)).intervals
    assert table.rows[0].scores["macro_f1"] == expected["macro_f1"]
    assert any("570 of 600" in note for note in table.notes)


def test_a_split_that_one_system_lacks_altogether_is_left_out_and_named(systems: dict, corpus) -> None:
    test = [key for key, split in zip(corpus.manifest.keys, corpus.manifest.column("split"), strict=True)
            if split == "test"]  # fmt: skip
    systems["m1"] = systems["m1"].of(test)
    tables = tables_of(systems, corpus.manifest, n_resamples=0)
    assert list(tables) == ["test"]
    assert any(mentions(note, "development", "left out", "m1") for note in tables["test"].notes)


def test_systems_without_a_part_in_common_are_refused_with_counts(systems: dict, corpus) -> None:
    split = corpus.manifest.column("split")
    of = {name: [k for k, s in zip(corpus.manifest.keys, split, strict=True) if s == name] for name in set(split)}
    pair = {"m0": systems["m0"].of(of["train"]), "m1": systems["m1"].of(of["test"])}
    with pytest.raises(AlignmentError, match=r"train: m0 360 of 360, m1 0 of 360"):
        tables_of(pair, corpus.manifest)


def labels_alone(system: System) -> System:
    return replace(system, probabilities=None, attributes=(), values=np.empty((len(system.keys), 0)))


def test_a_score_that_one_system_has_not_is_a_dash_with_a_note(systems: dict, corpus) -> None:
    systems["m1"] = labels_alone(systems["m1"])
    table = of_folds(systems, corpus.manifest)
    assert "ccc_arousal" not in table.rows[1].scores
    assert "ccc_arousal" in table.rows[2].differences
    assert "ccc_arousal" not in table.rows[1].differences
    assert any(mentions(note, "dash", "m1") for note in table.notes)
    line = next(line for line in text_of({"": table}, "markdown", {}, ()).splitlines() if line.startswith("| m1 "))
    assert line.rstrip("| ").endswith("-")


def test_the_mean_ccc_is_over_the_same_attributes_for_every_system(systems: dict, corpus) -> None:
    table = corpus.manifest.to_arrow().append_column("attr_valence", [8 - corpus.arousal[0]])
    scheme = LabelScheme(corpus.manifest.scheme.classes, {"arousal": (1.0, 7.0), "valence": (1.0, 7.0)})
    manifest = Manifest(table, scheme, name="two")
    system = systems["m0"]
    two_attributes = replace(system, attributes=("arousal", "valence"), values=np.repeat(system.values, 2, 1))
    result = of_folds({"m0": two_attributes, "m1": systems["m1"]}, manifest)
    assert result.rows[0].scores["ccc_valence"].value < 0
    assert result.rows[0].scores["mean_ccc"] == result.rows[0].scores["ccc_arousal"]
    assert result.rows[1].differences["mean_ccc"] == result.rows[1].differences["ccc_arousal"]
    assert any(mentions(note, "mean CCC", "arousal") and "valence" not in note.split(",")[0] for note in result.notes)


def test_macro_f1_of_present_classes_stands_beside_macro_f1_where_a_class_is_absent(systems: dict, corpus) -> None:
    without_sad = corpus.manifest.rows(corpus.labels != 1)
    table = of_folds(systems, without_sad)
    row = table.rows[0]
    assert table.absent == ("sad",)
    assert row.scores["macro_f1"].value == pytest.approx(row.scores["macro_f1_present"].value * 3 / 4)
    assert table.scores[:2] == ("macro_f1", "macro_f1_present")
    assert any(mentions(note, "no utterance", "sad") for note in table.notes)
    assert "macro_f1_present" not in of_folds(systems, corpus.manifest).scores


def test_the_ccc_of_an_attribute_rated_once_is_undefined_everywhere(systems: dict, corpus) -> None:
    values = np.full(600, np.nan)
    values[3] = 4.0
    table = corpus.manifest.to_arrow().drop_columns(["attr_arousal"]).append_column("attr_arousal", [values])
    result = of_folds(systems, Manifest(table, corpus.manifest.scheme, name="once"))
    assert math.isnan(result.rows[0].scores["ccc_arousal"].value)
    assert any(mentions(note, "CCC", "arousal", "undefined") for note in result.notes)
    assert json.loads(text_of({"": result}, "json", {}, ()))[""]["systems"][0]["scores"]["ccc_arousal"] == [None] * 3
    rows = list(csv.DictReader(io.StringIO(text_of({"": result}, "csv", {}, ()))))
    assert rows[0]["ccc_arousal"] == ""


def named(systems: dict[str, System], name: str) -> dict[str, System]:
    return {name: systems["m0"], "m1": systems["m1"]}


HARD = "a|b & c_d 50% #1 {x} ~y^ <z> \\"


def test_names_are_escaped_in_latex(systems: dict, corpus) -> None:
    text = text_of({"": of_folds(named(systems, HARD), corpus.manifest)}, "latex", {}, ("warning: 3 % shared",))
    row = next(line for line in text.splitlines() if line.startswith(r"a\textbar{}b"))
    assert row.startswith(
        r"a\textbar{}b \& c\_d 50\% \#1 \{x\} \textasciitilde{}y\textasciicircum{} \textless{}z\textgreater{} "
        r"\textbackslash{} & "
    )
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    n_columns = body[0].count(" & ") + 1
    assert all(line.replace(r"\&", "").count("&") + 1 == n_columns for line in body)
    assert "% warning: 3 % shared" in text
    assert escape_latex("\n".join(("two", "lines"))) == "two lines"


def test_names_are_escaped_in_markdown_and_every_row_has_as_many_cells(systems: dict, corpus) -> None:
    text = text_of({"": of_folds(named(systems, HARD), corpus.manifest)}, "markdown", {}, ())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert r"a\|b \& c\_d 50% \#1 {x} \~y^ \<z\> \\" in lines[2]
    bars = [line.replace(r"\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1


def test_csv_has_every_digit_and_a_row_for_each_system(systems: dict, corpus) -> None:
    table = of_folds(named(systems, 'a,"b"'), corpus.manifest)
    rows = list(csv.DictReader(io.StringIO(text_of({"": table}, "csv", {}, ()))))
    assert [row["system"] for row in rows] == ['a,"b"', "m1"]
    assert float(rows[0]["uar"]) == table.rows[0].scores["uar"].value
    assert float(rows[1]["uar_difference_low"]) == table.rows[1].differences["uar"].low
    assert rows[0]["uar_difference"] == ""


def test_the_terminal_shows_scores_intervals_differences_and_p(systems: dict, corpus) -> None:
    table = of_folds(systems, corpus.manifest)
    console = Console(width=140)
    with console.capture() as capture:
        console.print(terminal_tables({"all folds": table}))
    text = capture.get()
    interval, difference = table.rows[1].scores["uar"], table.rows[1].differences["uar"]
    for figure in (
        f"{interval.value:.3f}",
        f"{interval.low:.3f} to {interval.high:.3f}",
        f"{difference.value:+.3f}",
        f"p {difference.p:.3f}",
    ):
        assert figure in text
    assert "minus m0" in text
