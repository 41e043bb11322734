"""What a page holds is what the evaluation finds, of the runs that were named."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from ensemble.evaluation.assess import ScoringOptions
from ensemble.evaluation.multiple import holm
from ensemble.evaluation.parts import assess_parts
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import open_system
from ensemble.report.agreement import annotator_agreement
from ensemble.report.collect import Collected, PageOptions, collect, hardest_first
from ensemble.report.made import step_rows
from ensemble.report.packing import pack_names
from ensemble.report.probes import probe_tables
from ensemble.report.projection import maps, methods_of, pca, umap
from ensemble.report.runs import Runs, find_runs
from ensemble.report.scores import Scoring, wilson
from ensemble.report.utterances import utterance_columns
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.errors import AlignmentError, ConfigError, ManifestError, ProtocolError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.report_runs import SYSTEMS, N

CLASSES = ("calm", "angry")


def system(keys: list[str], p_angry: list[float]) -> System:
    p = np.stack([1 - np.array(p_angry), np.array(p_angry)], 1).astype(np.float32)
    return System("s", tuple(keys), CLASSES, p.argmax(1), p, (), np.empty((len(keys), 0), np.float32))


def manifest(**columns: list[Any]) -> Manifest:
    return Manifest(pa.table(columns), LabelScheme(CLASSES, {}))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_scores_and_differences_are_those_of_the_evaluation(collected: Collected, run: Path) -> None:
    table = Manifest.read(run / "manifest.csv")
    system, reference = (open_system(name, table, run / "store") for name in ("m1", "meta"))
    (expected,) = assess_parts(system, table, ScoringOptions(50, 0, None, True), against=reference).values()
    (part,) = collected.payload["scores"][0]["parts"].values()
    result = copy.deepcopy(part["assessment"])
    for difference in result["against"]["differences"].values():
        difference["p_holm"] = None  # it depends on the other systems
    assert result == expected.to_dict()
    assert part["assessment"]["against"]["differences"]["macro_f1"]["value"] != 0
    assert "against" not in collected.payload["reference"]
    (last,) = collected.payload["scores"][-1]["parts"].values()
    assert last["assessment"]["against"] is None


def test_groups_are_scored_by_fold_gender_and_speaker(collected: Collected) -> None:
    (part,) = collected.payload["scores"][0]["parts"].values()
    assert set(part["groups"]) == {"fold", "gender", "speaker"}
    for row in part["groups"]["speaker"]["rows"]:
        accuracy = row["scores"]["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert sum(row["n"] for row in part["groups"]["fold"]["rows"]) == N


def test_a_speaker_in_two_folds_is_a_warning_and_strict_refuses(collected: Collected, runs: Runs) -> None:
    assert len(collected.warnings) == 1
    assert "1 speaker" in collected.warnings[0]
    with pytest.raises(ProtocolError, match="1 speaker"):
        collect(runs, PageOptions(Scoring(0), strict=True))


def test_predictions_that_are_not_known_to_be_out_of_fold_are_a_warning(copied: Path) -> None:
    store = FeatureStore.open(copied / "store")
    spec = replace(store["posteriors/m1"].spec, extra=(("folds", "cv:fold"),))
    with store.writer("posteriors/unknown", spec) as writer:
        for key in store["posteriors/m1"]:
            writer.append(key, store["posteriors/m1"].array(key)[None])
    payload = collect(find_runs(["unknown"], copied / "manifest.csv", copied / "store"), PageOptions(Scoring(0)))
    assert any("posteriors/unknown" in line for line in payload.warnings)


def test_attributes_alone_are_collected(copied: Path) -> None:
    table = Manifest.read(copied / "manifest.csv")
    (name,) = table.scheme.attributes
    columns = table.to_arrow().select(["utterance_id", "path", "speaker", "fold", f"attr_{name}"])
    Manifest(columns, LabelScheme((), dict(table.scheme.attributes)), copied).write(copied / "bare.csv")
    payload = collect(find_runs(["m1", "meta"], copied / "bare.csv", copied / "store"), PageOptions(Scoring(20)))
    (part,) = payload.payload["scores"][0]["parts"].values()
    assert part["assessment"]["classification"] is None
    assert f"ccc_{name}" in part["assessment"]["intervals"]
    assert payload.payload["utterances"]["systems"][0]["predicted"] is None


def test_a_system_that_lacks_an_utterance_is_an_error_that_names_it(copied: Path) -> None:
    table = Manifest.read(copied / "manifest.csv")
    rows = pa.concat_tables([table.to_arrow(), table.to_arrow().slice(0, 1).set_column(
        0, "utterance_id", pa.array(["not predicted"]))])  # fmt: skip
    Manifest(rows, table.scheme, copied).write(copied / "manifest.csv")
    with pytest.raises(AlignmentError, match="not predicted"):
        collect(find_runs(["meta"], copied / "manifest.csv", copied / "store"), PageOptions(Scoring(0)))


def test_predictions_of_other_columns_can_be_reported_from_a_file(copied: Path) -> None:
    table = Manifest.read(copied / "manifest.csv")
    labels = [str(label) for label in table.labels]
    pa.csv.write_csv(pa.table({"id": table.keys, "prediction": labels}), copied / "mine.csv")
    runs = find_runs([str(copied / "mine.csv")], copied / "manifest.csv", copied / "store")
    payload = collect(runs, PageOptions(Scoring(20), columns={"id": "id", "label": "prediction"}))
    (part,) = payload.payload["scores"][0]["parts"].values()
    assert part["assessment"]["classification"]["accuracy"] == 1
    assert part["assessment"]["calibration"] is None
    assert payload.payload["maps"] == []
    assert payload.payload["utterances"]["systems"][0]["probabilities"] is None


def test_a_whole_run_brings_its_manifest_store_and_run_directories(copied: Path) -> None:
    for name in ("meta", "m2", "m1", "m10"):
        (copied / "runs" / name).mkdir(parents=True)
        (copied / "runs" / name / "config.json").write_text("{}")
    (copied / "runs" / "meta" / "members.json").write_text("{}")
    result = find_runs([str(copied)])
    assert result.systems == ("posteriors/m1", "posteriors/m2", "posteriors/meta")  # members before ensembles
    assert (result.manifest, Path(result.store)) == (copied / "manifest.csv", copied / "store")
    assert result.unfinished == ("m10",)
    assert find_runs([str(copied / "runs" / "m1")]).systems == ("posteriors/m1",)


@pytest.mark.parametrize("place", ["empty", "nothing"])
def test_a_place_without_a_run_or_a_manifest_is_an_error_that_says_what_to_give(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run" if place == "empty" else "--manifest"):
        find_runs([str(tmp_path / place)])


def test_the_hardest_are_confidently_wrong_then_those_that_annotators_dispute() -> None:
    keys = ["right", "slightly wrong", "very wrong", "disputed", "unlabelled"]
    table = manifest(
        utterance_id=keys, text=keys, label=["calm", "calm", "angry", "angry", None], vote_calm=[3, 3, 0, 2, 0],
        vote_angry=[0, 0, 3, 1, 0],
    )  # fmt: skip
    order = hardest_first(table, system(keys, [0.1, 0.6, 0.05, 0.9, 0.5]))
    assert [keys[i] for i in order] == ["very wrong", "slightly wrong", "disputed"]


def test_a_systems_agreement_stands_beside_the_annotators_on_the_same_utterances() -> None:
    keys = ["a", "b", "c"]
    table = manifest(utterance_id=keys, text=keys, vote_calm=[2, 3, 1], vote_angry=[1, 0, 0])
    result = annotator_agreement(table, [system(keys, [0.9, 0.1, 0.9])])
    assert result is not None
    assert result["n"] == 2  # one vote pairs with none
    assert result["pairs"] == pytest.approx((1 / 3 + 1) / 2)
    assert result["systems"][0]["share"] == pytest.approx((1 / 3 + 1) / 2)
    assert result["annotators"]["n_ratings"] == 7


def test_two_labels_of_one_annotator_are_not_those_of_two() -> None:
    keys = ["a", "b"]
    votes = {"vote_calm": [2, 2], "vote_angry": [1, 0]}
    ratings = Ratings.of(["a", "a", "b", "b"], list("1212"), ["calm"] * 4, also=[["angry"], [], [], []])
    table = manifest(utterance_id=keys, text=keys, **votes)
    rated = Manifest(table.to_arrow(), table.scheme, ratings=ratings)
    result = annotator_agreement(rated, [system(keys, [0.1, 0.1])])
    assert result is not None
    assert (result["pairs"], result["systems"][0]["share"]) == (1, 1)


def test_no_agreement_without_counts_of_votes() -> None:
    keys = ["a", "b"]
    shares = manifest(utterance_id=keys, text=keys, vote_calm=[0.5, 1.0], vote_angry=[0.5, 0.0])
    assert annotator_agreement(shares, [system(keys, [0.1, 0.1])]) is None
    labels = manifest(utterance_id=keys, text=keys, label=["calm", "angry"])
    assert annotator_agreement(labels, [system(keys, [0.1, 0.1])]) is None


def test_maps_are_of_features_and_of_posteriors_by_every_method(collected: Collected) -> None:
    assert [(own["name"], own["method"]) for own in collected.payload["maps"]] == [
        ("meta", "pca"), ("meta", "tsne"), ("tone", "pca"), ("tone", "tsne"),
    ]  # fmt: skip


def test_principal_components_are_those_of_the_covariance() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 5)) * [5, 3, 1, 1, 1]
    points, shares = pca(rows, 5)
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    np.testing.assert_allclose(points.var(0, ddof=1), values)
    np.testing.assert_allclose(shares, values / values.sum())


def test_a_map_of_one_point_or_of_equal_points_is_drawn() -> None:
    for n in (1, 5):
        keys = [str(i) for i in range(n)]
        result = maps(None, keys, [system(keys, [0.5] * n)], ["s"], ["pca", "tsne"])
        assert result[0]["x"]["base64"]


def test_unknown_projections_and_maps_are_errors_that_say_what_there_is(run: Path) -> None:
    with pytest.raises(ConfigError, match="pca, tsne, umap"):
        methods_of(["isomap"], 10)
    assert methods_of(None, 100_000) == ["pca"]
    with pytest.raises(Exception, match="tone"):
        maps(FeatureStore.open(run / "store"), [], [], ["tonne"], ["pca"])


def test_the_times_of_steps_are_those_of_their_records(copied: Path) -> None:
    (copied / "steps").mkdir()
    (copied / "steps" / "members.m.1.json").write_text('{"attempts": 2, "seconds": 3.5}')
    (copied / "steps" / "meta.json").write_text('{"attempts": 1}')  # was cut off
    rows = step_rows(Runs(copied / "manifest.csv", copied / "store", (), whole=(copied,)), None)
    assert rows == [{"name": "members/m.1", "bytes": None, "seconds": 3.5, "attempts": 2}]


def test_the_layers_of_a_probe_are_a_grid(tmp_path: Path) -> None:
    def one(name: str, layers: int | None, nested: bool, uar: float) -> dict[str, Any]:
        return {"name": name, "part": "all folds", "layers": layers, "nested": nested, "scores": {"uar": uar}}

    systems = [one("nested", None, True, 0.5), one("a@10", 1, False, 0.3), one("a@2", 1, False, 0.4),
               one("b@2", 1, False, 0.6), one("all", 3, False, 0.7)]  # fmt: skip
    (tmp_path / "probe.json").write_text(json.dumps({"probe": {"name": "p"}, "systems": systems}))
    (actual,) = probe_tables([tmp_path / "probe.json"])
    part = actual["parts"]["all folds"]
    assert part == {"layers": ["2", "10"], "sets": ["a", "b"], "values": [[0.4, 0.3], [0.6, None]], "nested": 0.5}


DAMAGED = '{"systems": [{"name": "a@1", "part": "p", "nested": false, "layers": 1, "scores": {"uar": NaN}}]}'


def test_a_file_that_is_no_probe_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    systems = ('{"systems": []}', '{"systems": [{"name": "x"}]}', '{"systems": [1]}', DAMAGED)
    for text in (None, "[]", "{", "[" * 10_000, *systems):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=r"probe\.json"):
            probe_tables([path])


def test_utterances_are_in_the_manifests_order_with_labels_and_every_system(collected: Collected, run: Path) -> None:
    table = Manifest.read(run / "manifest.csv")
    columns = collected.payload["utterances"]
    assert columns["ids"] == table.keys
    assert [own["name"] for own in columns["systems"]] == [f"posteriors/{name}" for name in SYSTEMS]
    assert set(columns["groups"]) == {"speaker", "gender", "fold"}


def test_utterances_outside_the_folds_are_a_part_of_their_own() -> None:
    rows = manifest(
        utterance_id=["a", "b", "c", "d"], text=list("abcd"), label=[CLASSES[0]] * 4, fold=["1", "2", None, None],
        split=["train", "train", "test", None],
    )  # fmt: skip
    part = utterance_columns(rows.rows([0, 1, 2]), [], cv="fold")["groups"]["part"]
    assert part == pack_names(["all folds", "all folds", "test"])
    assert "part" not in utterance_columns(rows.rows([0, 1, 2]), [])["groups"]
    assert "part" not in utterance_columns(rows.rows([0, 1]), [], cv="fold")["groups"]


def test_a_manifest_without_labels_cannot_be_scored(copied: Path) -> None:
    table = Manifest.read(copied / "manifest.csv")
    bare = table.to_arrow().select(["utterance_id", "path", "speaker", "fold"])
    Manifest(bare, LabelScheme(table.scheme.classes, {}), copied).write(copied / "bare.csv")
    with pytest.raises(ManifestError, match="label"):
        collect(find_runs(["meta"], copied / "bare.csv", copied / "store"), PageOptions(Scoring(0)))


def test_p_values_are_corrected_over_the_systems_that_are_compared(collected: Collected) -> None:
    compared = [
        part["assessment"]["against"]
        for differences in collected.payload["scores"]
        for part in differences["parts"].values()
    ]
    for score in ("macro_f1", "accuracy"):
        differences = [each["differences"][score] for each in compared if each is not None]
        assert len(differences) > 1
        expected = holm(np.array([each["p"] for each in differences]))
        assert [each["p_holm"] for each in differences] == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (3, 10), (0, 50), (50, 50), (311, 1057)])
def test_a_speakers_interval_is_scipys_wilson_interval(n_right: int, n: int) -> None:
    expected = binomtest(n_right, n).proportion_ci(method="wilson")
    assert wilson(n_right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.slow
def test_umap_keeps_clusters_apart_and_repeats_itself() -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed")
    rng = np.random.default_rng(0)
    group = np.arange(60) % 2
    rows = rng.normal(size=(60, 5)) + 20 * group[:, None]
    first, second = umap(rows, 3), umap(rows, 3)
    np.testing.assert_array_equal(first, second)
    distances = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1e9 * np.eye(60)
    assert (group[distances.argmin(1)] == group).all()
