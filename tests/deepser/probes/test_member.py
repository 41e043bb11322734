"""A probe as a member: saved, read back, and predicting as it did; its calibration and its warnings."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from deepser.members.folds import plan_folds
from deepser.members.scales import ranges_of
from deepser.probes.calibrate import Calibration
from deepser.probes.config import ProbeConfig
from deepser.probes.confounding import Confounding
from deepser.probes.fit import ProbeResult, fit_probe
from deepser.probes.member import ProbeMember, is_probe
from deepser.probes.posteriors import check_free, write_probe_posteriors
from deepser.probes.problem import Pass, Problem
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.synthetic_corpus import CLASSES, corpus

SETS = ("first", "second")


def fitted(
    directory: Path, solver: str, normalise: tuple[str, ...], refine: tuple[str, ...] = ("none",)
) -> tuple[FeatureStore, Manifest, ProbeResult]:
    """Return a probe of a split: its final model judges the test part itself."""
    store, manifest = corpus(directory)
    frame = manifest.to_arrow().to_pandas()
    frame["split"] = np.where(frame["fold"] == "2", "test1", "train")
    manifest = Manifest.from_pandas(frame)
    config = ProbeConfig("p", SETS, solver=solver, normalise=normalise, refine=refine)
    return store, manifest, fit_probe(store, manifest, config, plan_folds(manifest), device="cpu")


@pytest.mark.parametrize("solver", ["rbf", "linear", "streaming", "logistic"])
def test_a_member_read_back_predicts_for_new_utterances_what_the_probe_gave(tmp_path: Path, solver: str) -> None:
    store, manifest, result = fitted(tmp_path, solver, ("none",))
    ProbeMember.save(result, store, tmp_path / "run")
    member = ProbeMember.load(tmp_path / "run")
    judged = np.flatnonzero(result.judged)
    keys = [manifest.keys[i] for i in judged]
    posteriors, logits = member.predict(store, keys)
    np.testing.assert_allclose(logits, np.hstack([result.logits, result.attributes])[judged], atol=2e-3)
    np.testing.assert_allclose(posteriors[:, :3], softmax(logits[:, :3], 1), atol=1e-6)
    single, _ = member.predict(store, keys[4:5])
    np.testing.assert_allclose(single, posteriors[4:5], atol=1e-5)
    assert member.columns == (
        ("calm", "angry", "sad") if solver == "logistic" else ("calm", "angry", "sad", "attr:arousal")
    )
    assert is_probe(tmp_path / "run")
    assert len(member.weights()) == 1


def test_the_number_of_utterances_is_that_of_the_final_model_not_of_a_fold(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    config = ProbeConfig("p", SETS[:1], solver="rbf")
    ProbeMember.save(fit_probe(store, manifest, config, plan_folds(manifest, cv="fold"), device="cpu"), store, tmp_path)
    (support,) = {len(piece.support) for piece in ProbeMember.load(tmp_path).fitted.pieces}
    assert json.loads((tmp_path / "config.json").read_text())["n_trained"] == support


@pytest.mark.parametrize(
    ("normalise", "refine", "tolerance"),
    [("speaker", "none", 5e-3), ("none", "speaker", 2e-2), ("none", "shares", 2e-2)],
    ids=["normalised", "refined", "refined by shares"],
)
def test_a_speaker_adapted_member_reads_the_speakers_other_clips_and_falls_back_without(
    tmp_path: Path, normalise: str, refine: str, tolerance: float
) -> None:
    store, manifest, result = fitted(tmp_path, "rbf", (normalise,), (refine,))
    assert result.speaker_adapted
    member = ProbeMember.save(result, store, tmp_path / "run")
    assert member.speaker_adapted
    judged = np.flatnonzero(result.judged)
    keys, speakers = [manifest.keys[i] for i in judged], manifest.column("speaker")[judged].tolist()
    logits = member.predict(store, keys, speakers=speakers)[1]
    expected = np.hstack([result.logits, result.attributes])[judged]
    np.testing.assert_allclose(logits, expected, atol=tolerance)
    nobody = member.predict(store, keys)[1]
    assert np.abs(nobody - expected).max() > 0.05
    single = member.predict(store, keys, speakers=[f"one of {key}" for key in keys])[1]
    np.testing.assert_array_equal(single, nobody)


def test_refining_without_the_rbf_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--refine.*rbf"):
        fitted(tmp_path, "streaming", ("none",), ("speaker",))


def test_posteriors_hold_what_was_judged_and_say_how(tmp_path: Path) -> None:
    store, manifest, result = fitted(tmp_path, "rbf", ("speaker",))
    member = ProbeMember.save(result, store, tmp_path / "run")
    for _ in range(2):  # a second run replaces the first
        check_free(store, "p", False)
        write_probe_posteriors(store, member, result)
    posteriors = store["posteriors/p"]
    assert set(posteriors) == {key for key, judged in zip(manifest.keys, result.judged, strict=True) if judged}
    extra = dict(posteriors.spec.extra)
    assert (extra["oof"], extra["adapted"]) == ("none", "speaker")
    assert ranges_of(posteriors) == dict(manifest.scheme.attributes)
    row = posteriors.array(manifest.keys[int(np.flatnonzero(result.judged)[0])], "posteriors")
    assert row[0, :3].sum() == pytest.approx(1, abs=1e-5)
    with store.writer("posteriors/other", posteriors.spec) as writer:
        writer.append("x", {"posteriors": row, "logits": row})
    with pytest.raises(ConfigError, match="posteriors/other"):
        check_free(store, "other", False)


def test_a_damaged_run_directory_is_named(tmp_path: Path) -> None:
    store, _, result = fitted(tmp_path, "rbf", ("none",))
    ProbeMember.save(result, store, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    del record["pieces"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"config\.json is damaged.*pieces"):
        ProbeMember.load(tmp_path / "run")
    assert not is_probe(tmp_path)


def test_weights_of_one_probe_beside_the_config_of_another_are_refused(tmp_path: Path) -> None:
    """What a kill between the two files leaves, or two runs in one directory: pieces go by their number alone."""
    store, _, result = fitted(tmp_path, "rbf", ("none",))
    ProbeMember.save(result, store, tmp_path / "run")
    path = tmp_path / "run" / "fold-all" / "model.safetensors"
    weights = load_file(path)
    weights["offsets"] = weights["offsets"][::-1].copy()
    save_file(weights, path)
    with pytest.raises(ConfigError, match=r"model\.safetensors .*config\.json.*medusa probe"):
        ProbeMember.load(tmp_path / "run")


def test_a_temperature_minimises_the_cross_entropy_and_attributes_get_their_targets_spread() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    truth = rng.normal(4, 1, 200)
    values = np.hstack([np.eye(3)[labels], truth[:, None]])
    problem = Problem(tuple(map(str, range(200))), ("a", "b", "c"), ("x",), ((1.0, 7.0),), labels, values)
    scores = np.hstack([np.eye(3)[labels] + rng.normal(size=(200, 3)), 0.1 * truth[:, None] + 3]).astype(np.float32)
    everyone = Pass("all", np.arange(200), np.arange(200) % 5, np.arange(0))
    result = Calibration.of(problem, everyone, scores, balanced=False)

    def loss(temperature: float) -> float:
        return -float(np.log(softmax(scores[:, :3] / temperature, 1)[np.arange(200), labels]).sum())

    assert loss(result.temperature) <= min(loss(result.temperature * 1.05), loss(result.temperature / 1.05))
    logits, attributes = result.outputs(problem, scores)
    np.testing.assert_allclose(logits, scores[:, :3] / result.temperature, rtol=1e-5)
    np.testing.assert_allclose(attributes[:, 0], np.clip(truth, 1, 7), atol=1e-3)


def test_speakers_with_an_emotion_of_their_own_are_noticed_and_few_clips_alone_are_not() -> None:
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(20), 12).astype(str)
    alike = Confounding.of(rng.integers(0, 4, 240), speakers, 4)
    assert not alike.is_high
    assert alike.excess < 0.1
    predicted = np.where(rng.random(240) < 0.8, np.repeat(np.arange(20) % 4, 12), rng.integers(0, 4, 240))
    confounded = Confounding.of(predicted, speakers, 4)
    assert confounded.is_high
    assert confounded.one_sided == 20
    assert "20 of 20 speakers" in confounded.warning()
    few = Confounding.of(rng.integers(0, 4, 60), np.arange(60).astype(str), 4)
    assert not few.is_high


@pytest.mark.parametrize("solver", ["rbf", "linear", "streaming"])
def test_a_probe_has_no_output_for_an_attribute_that_nobody_rated_in_some_training_part(
    tmp_path: Path, solver: str
) -> None:
    store, manifest = corpus(tmp_path)
    frame = manifest.to_arrow().to_pandas()
    frame["attr_valence"] = [2.0 if i == 0 else None for i in range(len(frame))]  # of one fold alone
    frame["attr_dominance"] = [float("nan")] * len(frame)
    with_gaps = Manifest(pa.Table.from_pandas(frame, preserve_index=False), LabelScheme(
        CLASSES, dict.fromkeys(("arousal", "valence", "dominance"), (1.0, 7.0))
    ))  # fmt: skip
    result = fit_probe(
        store, with_gaps, ProbeConfig("p", SETS, solver=solver), plan_folds(with_gaps, cv="fold"), device="cpu"
    )
    member = ProbeMember.save(result, store, tmp_path / "run")
    assert member.attributes == ("arousal",)
    assert member.predict(store, with_gaps.keys[:2])[0].shape == (2, 4)
    assert any("valence, dominance" in note for note in result.notes)


def test_a_probe_names_a_clip_whose_values_spoil_it(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    spec = FeatureSpec("audio", "huge", "none", ("layer_01",), 2, 50.0, dtype="float32")
    with store.writer("huge", spec) as writer:
        for key in manifest.keys:
            writer.append(key, [np.full((2, 2), 1e38 if key == manifest.keys[7] else 1.0, np.float32)])
    with pytest.raises(ConfigError, match=f"'huge'.*'{manifest.keys[7]}'"):
        fit_probe(store, manifest, ProbeConfig("p", ("huge",)), plan_folds(manifest, cv="fold"), device="cpu")
