"""Table 3: every cell is what it says, and nothing of a fold's own labels reaches its cells."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score

from ensemble.evaluation.bootstrap import Scored, bootstrap
from ensemble.evaluation.markdown import comparison_markdown
from ensemble.experiments.compare import Comparison, columns_of, compare
from ensemble.experiments.compare_report import comparison_table
from ensemble.fusion.config import ForestConfig, MetaConfig
from ensemble.fusion.cross_fit import cross_fit
from ensemble.fusion.division import divide
from ensemble.fusion.fit import fit_ensemble
from ensemble.fusion.problem import load_problem
from ensemble.fusion.selection import greedy, top
from ensemble.fusion.techniques import techniques_of
from ensemble.fusion.votes import majority_vote, soft_vote
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa

SHORT = MetaConfig(rounds=3, steps_per_round=15, seeds=(0, 1), select="last")
FOREST = ForestConfig(n_trees=4, n_folds=2)
TABLE3 = "majority,soft,linear"


def shown(actual: Comparison) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(comparison_table(actual))
    return capture.get()


def test_every_cell_over_folds_is_what_it_says(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    columns = columns_of(4, [4, 2], greedily=True)
    techniques = techniques_of("majority,soft,weighted,attributes,linear,linear:logits,mlp,forest", SHORT, FOREST)
    comparison = compare(store, corpus.manifest, ["m0", "m1", "m2", "m3"], techniques, columns, folds="fold")
    cells = comparison.parts["all folds"]
    assert list(cells) == ["4", "top-2", "greedy"]
    assert list(cells["4"]) == [
        *("majority vote", "soft vote", "weighted vote", "best 3 per attribute", "meta (single)", "meta (soup)"),
        *("meta on logits (single)", "meta on logits (soup)", "MLP (single)", "MLP (mean)", "forest"),
    ]
    p = corpus.posteriors[..., :4]
    for name, predicted in (("majority vote", majority_vote(p)), ("soft vote", soft_vote(p).argmax(1))):
        cell_scores = cells["4"][name].scores
        assert cell_scores["macro_f1"] == pytest.approx(f1_score(corpus.labels, predicted, average="macro"))
        assert cell_scores["accuracy"] == pytest.approx(accuracy_score(corpus.labels, predicted))
    # The two best are chosen on the other folds, fold by fold.
    fold = corpus.manifest.column("fold")
    predicted = np.empty(600, np.int64)
    for name in sorted(set(fold)):
        train = fold != name
        scores = [f1_score(corpus.labels[train], cell_scores[train].argmax(1), average="macro") for cell_scores in p]
        best = sorted(range(4), key=lambda m: -scores[m])[:2]
        assert comparison.chosen["top-2"][f"fold {name}"] == tuple(f"posteriors/m{m}" for m in best)
        predicted[~train] = soft_vote(p[best][:, ~train]).argmax(1)
    expected = f1_score(corpus.labels, predicted, average="macro")
    assert cells["top-2"]["soft vote"].scores["macro_f1"] == pytest.approx(expected)
    assert set(cells["4"]["meta (single)"].seeds["macro_f1"].values) == {"0", "1"}
    _, report = fit_ensemble(store, corpus.manifest, corpus.members, config=SHORT, folds="fold")
    assert cells["4"]["meta (soup)"].scores == report.parts["all folds"][-1].scores
    assert cells["4"]["best 3 per attribute"].scores["mean_ccc"] > cells["4"]["soft vote"].scores["mean_ccc"]
    output = shown(comparison)
    first, second, *_ = output.split("mean CCC")
    assert "best 3 per attribute" not in first
    assert "best 3 per attribute" in second
    assert f"{expected:.3f}" in first
    saved = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert saved["parts"]["all folds"]["top-2"]["soft vote"]["scores"]["macro_f1"] == pytest.approx(expected)
    assert saved["chosen"]["greedy"]["fold 1"]


@pytest.mark.parametrize(
    "rule", [pytest.param(top(2), marks=pytest.mark.slow), pytest.param(greedy(), marks=pytest.mark.slow), greedy(True)]
)
def test_a_folds_own_labels_change_nothing_in_its_figures(
    store: FeatureStore, write: Callable, corpus, rule: Callable
) -> None:
    write(corpus)
    techniques = techniques_of("soft,weighted,attributes,linear,mlp,forest", SHORT, FOREST)
    table = corpus.manifest.to_arrow()
    third = pc.equal(table["fold"], "3")
    table = table.set_column(table.column_names.index("label"), "label", pc.if_else(third, "angry", table["label"]))
    arousal = pc.if_else(third, 1.0, table["attr_arousal"])
    changed = Manifest(
        table.set_column(table.column_names.index("attr_arousal"), "attr_arousal", arousal), corpus.manifest.scheme
    )
    calls = []
    for manifest in (corpus.manifest, changed):
        division = divide(store, manifest, corpus.members, "fold")
        problem = load_problem(store, division.manifest, corpus.members, logits=True)
        calls.append(cross_fit(problem, division, {"column": rule}, techniques, keep_fit=False))
    judged = corpus.manifest.column("fold") == "3"
    assert calls[0].chosen["column"]["fold 3"] == calls[1].chosen["column"]["fold 3"]
    for key, parts in calls[0].predictions.items():
        before, after = parts["all folds"].whole, calls[1].predictions[key]["all folds"].whole
        assert np.array_equal(before.probabilities[judged], after.probabilities[judged]), key
        assert np.array_equal(before.attributes[judged], after.attributes[judged]), key
    before, after = (each.predictions["column", "meta (soup)"]["all folds"].whole for each in calls)
    assert not np.allclose(before.probabilities[~judged], after.probabilities[~judged], atol=1e-4)


def test_a_weighted_vote_of_a_greedy_choice_with_replacement_counts_the_choices(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    division = divide(store, corpus.manifest, corpus.members)
    problem = load_problem(store, division.manifest, corpus.members)
    judged = cross_fit(problem, division, {"g": greedy(True)}, techniques_of("weighted"), keep_fit=False)
    selection = judged.chosen["g"]["train"]
    rows = division.rows("test")
    chosen = problem.rows(rows).probabilities[list(selection.members)]
    expected = np.average(chosen, axis=0, weights=selection.counts)
    result = judged.predictions["g", "weighted vote"]["test"].whole.probabilities
    assert np.allclose(result, expected, atol=1e-6)


def test_with_splits_members_are_chosen_on_train_and_scored_elsewhere(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    comparison = compare(store, corpus.manifest, corpus.members, techniques_of(TABLE3, SHORT), columns_of(4))
    assert comparison.fitted_on == "train"
    assert sorted(comparison.parts) == ["development", "test"]
    assert {column: list(passes) for column, passes in comparison.chosen.items()} == {
        "4": ["train"], "top-2": ["train"], "top-1": ["train"],
    }  # fmt: skip
    rows = corpus.manifest.column("split") == "test"
    expected = f1_score(corpus.labels[rows], soft_vote(corpus.posteriors[:, rows, :4]).argmax(1), average="macro")
    assert comparison.parts["test"]["4"]["soft vote"].scores["macro_f1"] == pytest.approx(expected)
    assert "test: macro-F1, UAR and accuracy" in shown(comparison)


def test_in_sample_posteriors_are_refused_or_recorded(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus, oof="in-sample")
    techniques, columns = techniques_of("soft"), columns_of(4, [4])
    with pytest.raises(ConfigError, match=r"posteriors/m0.*out of fold.*in-sample"):
        compare(store, corpus.manifest, corpus.members, techniques, columns)
    comparison = compare(store, corpus.manifest, corpus.members, techniques, columns, in_sample=True)
    assert comparison.in_sample
    assert "In-sample posteriors" in comparison.notes[0]


def test_a_corpus_of_attributes_alone_has_its_own_table(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    table = corpus.manifest.to_arrow().drop_columns(["label"])
    manifest = Manifest(table, LabelScheme((), {"arousal": (1.0, 7.0)}), name="task2")
    for m, member in enumerate(corpus.members):
        spec = store[member].spec
        rows = [(key, corpus.arousal[m, i : i + 1, None]) for i, key in enumerate(corpus.manifest.keys)]
        of = {"kind": "posteriors", "encoder": f"a{m}", "weights": "none", "dtype": "float32", "extra": spec.extra}
        with store.writer(
            f"posteriors/a{m}", type(spec)(layers=("posteriors",), dim=1, columns=("attr:arousal",), **of)
        ) as writer:
            for key, values in rows:
                writer.append(key, [values])
    techniques = techniques_of("majority,soft,weighted,attributes,linear", SHORT)
    comparison = compare(store, manifest, ["a0", "a1", "a2", "a3"], techniques, columns_of(4, [4, 2], greedily=True))
    cells = comparison.parts["test"]["4"]
    assert set(cells["soft vote"].scores) == {"mean_ccc"}
    assert cells["best 3 per attribute"].scores["mean_ccc"] > cells["soft vote"].scores["mean_ccc"]
    assert cells["meta (soup)"].scores["mean_ccc"] > cells["soft vote"].scores["mean_ccc"]
    output = shown(comparison)
    assert "macro-F1" not in output
    assert "test: mean CCC" in output


def test_what_can_not_be_compared_is_named() -> None:
    with pytest.raises(ConfigError, match=r"top 9 .* 4"):
        columns_of(4, [9])
    with pytest.raises(ConfigError, match=r"'loud'.*majority"):
        techniques_of("soft,loud")
    with pytest.raises(ConfigError, match="each once"):
        techniques_of("soft,soft")
    with pytest.raises(ConfigError, match=r"inputs .*logits"):
        techniques_of("linear:faces")
    with pytest.raises(ConfigError, match="votes read posteriors"):
        techniques_of("soft:logits")
    assert list(columns_of(14)) == ["14", "top-7", "top-5"]
    assert list(columns_of(2)) == ["2", "top-1"]
    assert [way.name for way in techniques_of("all", attributes=False)] == [
        *("majority vote", "soft vote", "weighted vote", "meta (soup)", "meta on logits (soup)", "MLP (mean)"),
        *("forest", "ridge"),
    ]
    assert [way.name for way in techniques_of("all", classes=False)] == [
        *("soft vote", "weighted vote", "best 3 per attribute", "meta (soup)", "MLP (mean)", "ridge")
    ]


def test_the_command_prints_the_table_and_writes_it(
    store: FeatureStore, write: Callable, corpus, tmp_path: Path
) -> None:
    write(corpus)
    corpus.manifest.write(tmp_path / "m.csv")
    shared = ["-m", tmp_path / "m.csv", "-s", store.path]
    options = ["--top", "4,2", "--greedy", "--seeds", "1", "--rows", "majority,soft,linear"]
    output = medusa("compare", *shared, *options, "--cv", "fold", "--json", tmp_path / "out" / "t.json").stdout
    table = json.loads((tmp_path / "out" / "t.json").read_text())
    assert list(table["parts"]["all folds"]) == ["4", "top-2", "greedy"]
    for name in ("majority vote", "soft vote", "meta (single)", "meta (soup)"):
        assert f"{table['parts']['all folds']['top-2'][name]['scores']['macro_f1']:.3f}" in output
    assert "chosen in so many passes" in output
    for wrong, expected in ((["--top", "4,x"], "numbers of members"), (["--rows", "x"], "is not one of linear")):
        assert expected in " ".join(medusa("compare", *shared, *wrong, exit_code=2).stderr.split())


@pytest.mark.parametrize("meta", ["linear", "mlp", "forest", "majority", "weighted", "attributes"])
def test_fit_meta_fits_every_kind_on_chosen_members(
    store: FeatureStore, write: Callable, corpus, tmp_path: Path, meta: str
) -> None:
    write(corpus)
    corpus.manifest.write(tmp_path / "m.csv")
    shared = ["-m", tmp_path / "m.csv", "-s", store.path, "--runs", tmp_path / "runs", "--name", meta, "--meta", meta]
    plot = ["--weights-plot", tmp_path / "w.png"] if meta == "linear" else []
    output = medusa("fit-meta", *shared, "--top", "2", "--seeds", "2", "--rounds", "2", *plot).stdout
    report = json.loads((tmp_path / "runs" / meta / "report.json").read_text())
    assert len(report["members"]) == 2
    assert report["chosen"] == {"train": report["members"]}
    assert report["parts"]["test"][-1]["name"] in output
    assert len(store["posteriors/" + meta]) == 240
    if meta == "linear":
        assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
        assert "reliability" in output
        refused = medusa("fit-meta", *shared, "--top", "1", "--greedy", exit_code=2).stderr
        assert "give one of the two" in refused
    else:
        assert report["learned"] is None
        assert "--weights-plot" in medusa("fit-meta", *shared, "--weights-plot", "x.png", exit_code=2).stderr


def test_every_cell_has_an_interval_by_speaker_in_terminal_json_and_markdown(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    columns = columns_of(4, [4, 2])
    techniques = techniques_of(TABLE3, SHORT)
    comparison = compare(store, corpus.manifest, corpus.members, techniques, columns, folds="fold", n_resamples=50)
    for column, rows in comparison.parts["all folds"].items():
        for name, row in rows.items():
            ends = comparison.intervals["all folds"][column][name]
            for score in ("macro_f1", "uar", "accuracy", "mean_ccc"):
                assert ends[score].value == pytest.approx(row.scores[score])
                assert ends[score].low <= row.scores[score] <= ends[score].high
    vote = soft_vote(corpus.posteriors[..., :4]).argmax(1)
    arousal = np.zeros((600, 1))
    scored = Scored(
        corpus.manifest.scheme.classes, corpus.labels, vote, ("arousal",), arousal, arousal,
        corpus.manifest.column("speaker"),
    )  # fmt: skip
    interval = comparison.intervals["all folds"]["4"]["soft vote"]["uar"]
    assert interval == bootstrap(scored.sums(), 50)["uar"]
    assert f"{interval.low:.3f}-{interval.high:.3f}".replace("0.", ".") in shown(comparison)
    saved = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert saved["intervals"]["all folds"]["4"]["soft vote"]["uar"] == [interval.value, interval.low, interval.high]
    markdown = "\n".join(comparison_markdown(saved))
    assert f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})" in markdown
    assert "UAR, top-2" in markdown
