"""Ablations: what is taken out and what does not apply; members trained once; differences paired and by speaker."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from deepser.config import MemberConfig
from deepser.members.folds import plan_folds
from deepser.members.presets import PRESETS
from ensemble.evaluation.assess import ScoringOptions, assess
from ensemble.evaluation.bootstrap import MeanSums, bootstrap, compare
from ensemble.evaluation.systems import from_store
from ensemble.experiments.ablation import ABLATIONS, FULL, Variant, ablations_of, named, run_variants
from ensemble.experiments.ablation_report import ablation_markdown, ablation_table
from ensemble.experiments.presets import changes_of, members_of, preset_variants
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa
from tests.helpers.synthetic_corpus import corpus, member

SMALL = replace(member(), train=replace(member().train, stages=tuple(
    replace(stage, epochs=1) for stage in member().train.stages)))  # fmt: skip


def changes(full: MemberConfig, changed: MemberConfig) -> set[str]:
    """Return the settings in which two members differ."""
    of_network = {f"network.{k}" for k, v in vars(changed.network).items() if v != vars(full.network)[k]}
    return of_network | {f"train.{k}" for k, v in vars(changed.train).items() if v != vars(full.train)[k]}


def test_each_ablation_takes_out_one_thing(tmp_path: Path) -> None:
    _, manifest = corpus(tmp_path)
    full, *without = ablations_of([member()], manifest)
    assert (full.name, [each.name for each in without]) == (FULL, list(ABLATIONS))
    result = {each.name: changes(full.members[0], each.members[0]) for each in without}
    assert result == {
        "one-hot": {"train.targets"}, "late-fusion": {"network.kind"}, "no-mixup": {"train.mixup_p"},
        "no-multitask": {"train.stages"}, "no-stage2": {"train.stages"},
    }  # fmt: skip
    classes_only = without[3].members[0].train
    assert [stage.loss.attribute_weight for stage in classes_only.stages] == [0, 0]
    assert not classes_only.learns_attributes
    assert [stage.name for stage in without[4].members[0].train.stages] == ["stage1"]
    assert [each.table2 for each in without] == [-8.23, -6.31, -2.93, -2.18, -1.20]


def test_what_does_not_apply_is_left_out_with_the_reason(tmp_path: Path) -> None:
    _, manifest = corpus(tmp_path, attributes=False)
    labelled = manifest.rows(np.arange(len(manifest)) % 10 != 0)  # those on whom all annotators agree
    srpol = members_of(PRESETS["srpol-task1"], [("first", "second")], [0], {})
    for members, reasons in (
        ([member()], {"one-hot": "no votes that disagree", "no-multitask": "no attributes"}),
        (
            srpol,
            {"one-hot": "one-hot already", "late-fusion": "network is srpol", "no-mixup": "no MixUp",
             "no-multitask": "no attributes"},
        ),
    ):  # fmt: skip
        result = {each.name: each.why_not for each in ablations_of(members, labelled) if not each.members}
        assert result.keys() == reasons.keys()
        assert all(reasons[name] in result[name] for name in result)
    with pytest.raises(ConfigError, match=r"no ablation 'mixup'.*one-hot"):
        ablations_of([member()], manifest, ["mixup"])


def test_members_are_named_by_all_their_settings() -> None:
    names = [named(member(seed=0)), named(member(seed=1)), named(member(mixup_p=0.0)), named(member("other", seed=0))]
    assert len({each.name for each in names[:3]}) == 3
    assert names[0].name == names[3].name
    assert names[0].name.startswith("deepser-first.1+2_second.2-s0-")


def test_trained_and_compared_as_evaluate_would(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    plan = plan_folds(manifest, cv="fold")
    variants = ablations_of([SMALL], manifest, ["no-multitask", "late-fusion"])
    before, calls = store.names(), []
    actual = run_variants(
        store, manifest, variants, plan, tmp_path / "a", cv="fold", n_resamples=200,
        progress=lambda share, text: calls.append(share),
    )  # fmt: skip
    assert FeatureStore.open(store.path).names() == before  # nothing is written into the features' store
    assert calls == sorted(calls)
    assert calls[-1] == 1
    posteriors = FeatureStore.open(tmp_path / "a" / "posteriors")
    systems = [from_store(posteriors, each.members[0].name, manifest) for each in variants]
    for trained, system in zip(actual.trained, systems, strict=True):
        expected = assess(system, manifest, ScoringOptions(200), folds="fold", against=systems[0])
        result = trained.results["all folds"]
        assert result.row.scores == expected.evaluation.scores()
        assert result.row.folds == expected.evaluation.folds
        for score in ("macro_f1", "uar"):
            assert result.intervals[score] == expected.intervals[score]
            if system is not systems[0]:
                assert result.against is not None
                assert expected.against is not None
                difference = result.against.differences[score]
                assert difference == replace(expected.against.differences[score], p_holm=difference.p_holm)
                assert difference.p <= difference.p_holm <= 1
        assert trained.train_s > 0
        assert trained.n_parameters > 0
    # A second run trains nothing, and says the same.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    repeated = run_variants(store, manifest, variants, plan, tmp_path / "a", cv="fold", n_resamples=200)
    assert repeated == actual
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert json.loads(json.dumps(actual.to_dict()))["systems"][1]["name"] == "late-fusion"
    page = ablation_markdown(actual, "Ablations", "medusa ablate")
    assert page.count("\n| ") == 5  # header, rule, three systems
    assert "-6.3" in page
    assert ablation_table(actual).renderables


def test_speakers_of_whom_nothing_is_known_are_not_counted_and_one_speaker_has_no_interval(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    table = manifest.to_arrow()
    speakers = manifest.column("speaker")
    known = speakers == speakers[0]
    for name in table.column_names:
        if name == "label" or name.startswith(("vote_", "attr_")):
            column = pc.if_else(pa.array(known), table.column(name), pa.scalar(None, table.column(name).type))
            table = table.set_column(table.column_names.index(name), name, column)
    folds = pa.array([str(i % 2) for i in range(len(manifest))])
    manifest = Manifest.from_arrow(table.append_column("cut", folds), manifest.scheme, manifest.root)
    variants = [Variant(name, "", (named(replace(SMALL, train=replace(SMALL.train, seed=seed))),))
                for seed, name in enumerate(("a", "b"))]  # fmt: skip
    plan = plan_folds(manifest, cv="cut")
    result = run_variants(store, manifest, variants, plan, tmp_path / "a", cv="cut", n_resamples=20)
    assert result.n_speakers == {"all folds": 1}
    page = ablation_markdown(result, "Seeds")
    assert "nan" not in page
    assert ", 1 speakers" in page


@pytest.mark.slow
def test_scores_of_several_members_are_means_and_differences_are_paired(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    plan = plan_folds(manifest, cv="fold")
    members = [replace(SMALL, train=replace(SMALL.train, seed=seed)) for seed in (0, 1)]
    variants = ablations_of(members, manifest, ["no-stage2"])
    result = run_variants(store, manifest, variants, plan, tmp_path / "a", cv="fold", n_resamples=50)
    results = [
        run_variants(
            store, manifest, [Variant(v.name, v.about, (v.members[seed],)) for v in variants], plan, tmp_path / "a",
            cv="fold", n_resamples=50,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    for number in (0, 1):
        single = [one.trained[number].results["all folds"] for one in results]
        means = result.trained[number].results["all folds"]
        for score in ("macro_f1", "uar", "accuracy"):
            mean = np.mean([one.row.scores[score] for one in single])
            assert means.row.scores[score] == pytest.approx(mean)
            assert means.intervals[score].value == pytest.approx(mean)
            if number:
                changes = [one.against.differences[score].value for one in single if one.against]
                assert means.against is not None
                assert means.against.differences[score].value == pytest.approx(np.mean(changes))


def test_a_mean_over_the_same_system_twice_is_that_system(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    from ensemble.evaluation.bootstrap import Scored

    labels, predicted = rng.integers(0, 3, (2, 60))
    no_values = np.zeros((60, 0))
    sums = Scored(("a", "b", "c"), labels, predicted, (), no_values, no_values, np.arange(60) // 6).sums()
    perfect = Scored(("a", "b", "c"), labels, labels, (), no_values, no_values, np.arange(60) // 6).sums()
    twice = MeanSums.of([sums, sums])
    assert bootstrap(twice, 100) == bootstrap(sums, 100)
    values = compare(MeanSums.of([perfect, perfect]), twice, ("a", "b"), 100)
    assert values == compare(perfect, sums, ("a", "b"), 100)


def test_presets_side_by_side_take_their_own_settings() -> None:
    texts = ["network.d=16", "network.n_heads=2", "unimodal:network.d=8", "medusa:train.stages.1.lr=0.1"]
    variants = preset_variants(["medusa", "unimodal", "baseline-frozen"], [("a", "b")], [3], texts)
    assert [each.name for each in variants] == ["medusa", "unimodal a", "unimodal b", "baseline-frozen"]
    assert [each.members[0].network.d for each in variants] == [16, 8, 8, 16]
    assert [each.members[0].features for each in variants] == [("a", "b"), ("a",), ("b",), ("a", "b")]
    assert {each.members[0].train.seed for each in variants} == {3}
    assert variants[0].members[0].train.stages[1].lr == 0.1
    with pytest.raises(ConfigError, match=r"'srpol'.*medusa"):
        changes_of(["srpol:network.d=8"], "medusa", ["medusa"])
    with pytest.raises(ConfigError, match="name them with --features"):
        members_of(PRESETS["medusa"], [], [0], {})


def test_the_command(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    manifest.write(tmp_path / "c.csv")
    shared = ["ablate", "-m", tmp_path / "c.csv", "-s", store.path, "--cv", "fold", "--runs", tmp_path / "runs"]
    shared += ["--features", "first,second", "--set", "network.d=16", "--set", "network.n_heads=2", "--resamples", "20"]
    shared += ["--set", "train.stages.*.epochs=1", "--set", "train.select=last"]
    output = medusa(*shared, "--only", "no-mixup", "--markdown", tmp_path / "a.md").stdout
    assert "no-mixup" in output
    assert (tmp_path / "a.md").read_text().startswith("# Ablations on c\n")
    result = json.loads((tmp_path / "runs" / "ablations" / "ablations.json").read_text())
    assert [each["name"] for each in result["systems"]] == [FULL, "no-mixup"]
    assert [member["seed"] for member in result["systems"][0]["members"]] == [0]
    assert "how many (6), or which (1,2,3)" in medusa(*shared, "--seeds", "six", exit_code=2).stderr
    output = medusa(*shared, "--presets", "medusa,unimodal", "--json", tmp_path / "p.json").stdout
    assert "unimodal second" in output
    # The table of presets has a member of the ablations' in it.
    presets = json.loads((tmp_path / "p.json").read_text())
    assert presets["systems"][0]["members"] == result["systems"][0]["members"]
    assert "give one of the two" in medusa(*shared, "--presets", "medusa", "--only", "one-hot", exit_code=2).stderr
