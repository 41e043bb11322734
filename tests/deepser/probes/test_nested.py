"""What is chosen in a pass, and said of its judged part, does not depend on that part's labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepser.members.folds import plan_folds
from deepser.probes.config import ProbeConfig
from deepser.probes.fit import NESTED, fit_probe
from deepser.probes.problem import Pass, Problem
from deepser.probes.rows import Source
from deepser.probes.select import Candidate, Chosen, ranked, scorer
from deepser.probes.solver import Part, Setting
from deepser.scores.metrics import classification, concordance
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError, ManifestError
from tests.helpers.synthetic_corpus import corpus

SETS = ("first", "second")


def shuffled_labels(manifest: Manifest, fold: str) -> Manifest:
    """Return the votes and attributes of one fold given to others of its utterances."""
    frame = manifest.to_arrow().to_pandas()
    rows = np.flatnonzero(frame["fold"] == fold)
    shuffled = np.random.default_rng(3).permutation(rows)
    columns = [name for name in frame.columns if name.startswith(("vote_", "attr_"))]
    frame.loc[rows, columns] = frame.loc[shuffled, columns].to_numpy()
    return Manifest.from_pandas(frame)


@pytest.mark.parametrize(
    ("solver", "refine"),
    [
        ("rbf", "none"),
        pytest.param("linear", "none", marks=pytest.mark.slow),
        ("streaming", "none"),
        pytest.param("rbf", "speaker", marks=pytest.mark.slow),
        ("rbf", "shares"),
    ],
)
def test_a_folds_own_labels_change_nothing_that_is_chosen_for_it_or_reported_of_it(
    tmp_path: Path, solver: str, refine: str
) -> None:
    store, manifest = corpus(tmp_path, 90)
    config = ProbeConfig("p", SETS, solver=solver, normalise=("none", "speaker"), refine=(refine,))
    plan = plan_folds(manifest, cv="fold")
    before = fit_probe(store, manifest, config, plan, device="cpu")
    after = fit_probe(store, shuffled_labels(manifest, "1"), config, plan, device="cpu")
    a, b = (next(c for c in found.passes if c.each.name == "1") for found in (before, after))
    assert a.best.parts == b.best.parts
    assert a.best.setting.refine == refine
    assert before.refines == (refine != "none")
    assert before.normalises_by_speaker == any(best.normalise == "speaker" for best in before.models)
    assert a.best.setting == b.best.setting
    judged = a.each.judged
    np.testing.assert_array_equal(before.nested.scores[judged], after.nested.scores[judged])
    np.testing.assert_array_equal(before.logits[judged], after.logits[judged])
    np.testing.assert_array_equal(before.attributes[judged], after.attributes[judged])
    unjudged = np.setdiff1d(np.arange(90), judged)
    assert not np.array_equal(before.nested.scores[unjudged], after.nested.scores[unjudged])


def test_on_features_that_carry_nothing_the_nested_score_is_chance_and_the_best_row_is_not(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, 180)
    frame = manifest.to_arrow().to_pandas()
    columns = [name for name in frame.columns if name.startswith(("vote_", "attr_"))]
    order = np.random.default_rng(5).permutation(180)  # 0 is the seed of the corpus itself
    frame[columns] = frame[columns].to_numpy()[order]
    noise = Manifest.from_pandas(frame)
    result = fit_probe(store, noise, ProbeConfig("p", SETS), plan_folds(noise, cv="fold"), device="cpu")
    score = scorer(result.problem, "uar")
    all_rows = np.arange(180)
    uars = [score(s.scores, all_rows) for s in result.systems if s.name != NESTED]
    assert abs(score(result.nested.scores, all_rows) - 1 / 3) < 0.12
    assert max(uars) >= score(result.nested.scores, all_rows) - 0.05


def test_the_nested_row_comes_first_and_only_rows_named_beforehand_follow(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    result = fit_probe(store, manifest, ProbeConfig("p", SETS), plan_folds(manifest, cv="fold"), device="cpu")
    names = [system.name for system in result.systems]
    assert names[0] == NESTED
    assert result.nested.nested
    assert set(names[1:]) == {
        "first@1", "first@2", "second@1", "second@2", "first, 2 layers", "second, 2 layers", "all 4 layers"
    }  # fmt: skip
    assert not any(system.nested for system in result.systems[1:])
    assert result.judged.all()


def test_attributes_of_a_single_layer_are_on_their_scale_as_those_of_the_nested_choice(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, 90)
    layer = f"first@{Source('first', store['first'].layers[-1]).short}"
    result = fit_probe(store, manifest, ProbeConfig("p", (layer,)), plan_folds(manifest, cv="fold"), device="cpu")
    nested, alone = result.systems  # there is nothing else to choose
    classes = slice(None, result.problem.n_classes)
    np.testing.assert_array_equal(alone.scores[:, classes], nested.scores[:, classes])
    np.testing.assert_array_equal(alone.scores[:, result.problem.n_classes :], result.attributes)


def test_with_a_split_one_pass_learns_from_train_and_judges_the_rest(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    frame = manifest.to_arrow().to_pandas()
    frame["split"] = np.where(frame["fold"] == "2", "test1", "train")
    manifest = Manifest.from_pandas(frame)
    result = fit_probe(store, manifest, ProbeConfig("p", SETS), plan_folds(manifest), device="cpu")
    assert [c.each.name for c in result.passes] == ["all"]
    np.testing.assert_array_equal(result.judged, frame["split"] == "test1")
    score = scorer(result.problem, "uar")
    assert score(result.nested.scores[result.judged], np.flatnonzero(result.judged)) > 0.9


def test_selection_scores_are_those_of_the_metrics(tmp_path: Path) -> None:
    _, manifest = corpus(tmp_path)
    from deepser.probes.problem import Problem
    from deepser.training.targets import Targets

    problem = Problem.of(Targets.from_manifest(manifest))
    rng = np.random.default_rng(0)
    rows, scores = np.arange(90), rng.normal(size=(90, 4)).astype(np.float32)
    truth = classification(scores[:, :3], problem.labels, problem.classes)
    for name, value in (("uar", truth.uar), ("macro_f1", truth.macro_f1), ("accuracy", truth.accuracy)):
        assert scorer(problem, name)(scores, rows) == pytest.approx(value)
    rated = ~np.isnan(problem.values[:, 3])
    predicted = scores[:, 3:].astype(np.float64)
    mended = (predicted - predicted[rated].mean()) / predicted[rated].std() * problem.values[
        rated, 3
    ].std() + problem.values[rated, 3].mean()
    expected = concordance(mended, problem.values[:, 3:], ("arousal",)).mean
    assert scorer(problem, "mean_ccc")(scores, rows) == pytest.approx(expected, abs=1e-6)


def test_a_seed_and_the_number_of_threads_change_nothing_but_the_inner_folds(tmp_path: Path) -> None:
    import torch

    store, manifest = corpus(tmp_path)
    plan = plan_folds(manifest, cv="fold")
    before, threads = fit_probe(store, manifest, ProbeConfig("p", SETS), plan, device="cpu"), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        after = fit_probe(store, manifest, ProbeConfig("p", SETS), plan, device="cpu")
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(before.systems, after.systems, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_what_cannot_be_probed_is_reported_before_the_work(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    plan, config = plan_folds(manifest, cv="fold"), ProbeConfig("p", SETS)
    frame = manifest.to_arrow().to_pandas()
    for changed, error, match in (
        (frame.assign(utterance_id=[f"x{key}" for key in frame["utterance_id"]]), ConfigError, r"'first' lacks 90"),
        (frame.drop(columns="speaker"), ManifestError, "no 'speaker' column"),
    ):
        adapted = replace(config, normalise=("speaker",))
        with pytest.raises(error, match=match):
            fit_probe(store, Manifest.from_pandas(changed), adapted, plan, device="cpu")
    unlabelled = Manifest.from_pandas(frame.assign(label=None))
    with pytest.raises(ManifestError, match=r"no training utterance .* has a label .* plurality"):
        fit_probe(store, unlabelled, replace(config, select="uar"), plan, device="cpu")
    with pytest.raises(ConfigError, match="names first@1 twice"):
        fit_probe(store, manifest, ProbeConfig("p", ("first", "first@1")), plan, device="cpu")
    with pytest.raises(ConfigError, match="normalise"):
        ProbeConfig("p", SETS, normalise=("person",))
    with pytest.raises(ConfigError, match="lambdas"):
        ProbeConfig("p", SETS, lambdas=(0.0,))


def test_of_candidates_within_a_standard_error_that_of_most_layers_comes_first() -> None:
    nothing, part = np.zeros((0, 0), np.float32), Part(Source("a", "layer_01"), Setting(1.0))
    systems = [
        Candidate(str(i), (part,) * n_layers, Setting(1.0), score, nothing, nothing)
        for i, (n_layers, score) in enumerate([(1, 0.80), (2, 0.79), (2, 0.788), (4, 0.70)])
    ]
    assert [each.name for each in ranked(systems, 1000)] == ["1", "2", "0", "3"]  # a standard error is 0.013
    assert ranked(systems, 100_000)[0].name == "0"
    assert ranked(systems, 15)[0].name == "3"


def test_clips_without_what_is_scored_make_no_standard_error_smaller() -> None:
    labels, nan = np.array([0, 1, -1, -1, 1, -1]), np.nan
    values = np.array([[1, 0, nan], [0, 1, nan], [nan, nan, 3], [nan, nan, nan], [0, 1, 2], [nan, nan, 4]])
    problem = Problem(tuple("abcdef"), ("calm", "angry"), ("arousal",), ((1.0, 5.0),), labels, values)
    assert scorer(problem, "uar").n_scored(np.arange(5)) == 3
    assert scorer(problem, "mean_ccc").n_scored(np.arange(6)) == 3
    nothing, part = np.zeros((0, 0), np.float32), Part(Source("a", "layer_01"), Setting(1.0))
    one, two = (
        Candidate(name, (part,) * n, Setting(1.0), score, nothing, nothing)
        for name, n, score in (("one", 1, 0.80), ("two", 2, 0.78))
    )
    each = Pass("1", np.arange(1000), np.zeros(1000, np.int64), np.zeros(0, np.int64))
    assert (Chosen(each, (one, two), 1000).best, Chosen(each, (one, two), 300).best) == (one, two)
