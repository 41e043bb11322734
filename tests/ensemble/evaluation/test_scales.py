"""Attributes on two scales are never scored, fused or submitted as one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepser.members.scales import ATTRIBUTE_RANGES, ranges_of
from ensemble.evaluation.posteriors import evaluate_posteriors
from ensemble.evaluation.submission import submission
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import from_store
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.fit import fit_ensemble
from ensemble.prediction.inputs import scales_note
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError, SubmissionError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa

BOTH_SCALES = r"arousal.* 0 to 10 .*'posteriors/ten'.* 1 to 7 "
SHORT = MetaConfig(rounds=2, seeds=(0,), select="last")


@pytest.fixture
def two_scales(store: FeatureStore, write: Callable, corpus) -> FeatureStore:
    """Members m0 to m3, which record no scale, and the first one's predictions again, recorded as of 0 to 10."""
    write(corpus)
    first = store["posteriors/m0"]
    with store.writer("posteriors/ten", first.spec, provenance={ATTRIBUTE_RANGES: {"arousal": [0, 10]}}) as writer:
        for key in first:
            writer.append(key, {layer: first.array(key, layer) for layer in first.layers})
    return store


def rescaled(manifest: Manifest, low: float, high: float) -> Manifest:
    return Manifest(manifest.to_arrow(), LabelScheme(manifest.scheme.classes, {"arousal": (low, high)}), name="made")


def test_scores_of_another_scale_are_refused_and_the_error_names_both(two_scales: FeatureStore, corpus) -> None:
    with pytest.raises(ConfigError, match=BOTH_SCALES + ".*manifest made"):
        from_store(two_scales, "ten", corpus.manifest)
    with pytest.raises(ConfigError, match=BOTH_SCALES):
        evaluate_posteriors(two_scales, corpus.manifest, "ten")
    same = rescaled(corpus.manifest, 0, 10)
    assert from_store(two_scales, "ten", same).attribute_ranges == {"arousal": (0, 10)}
    assert evaluate_posteriors(two_scales, same, "ten").to_dict()
    assert from_store(two_scales, "m0", corpus.manifest).attribute_ranges == {}  # an earlier version's


def test_members_of_another_scale_are_not_fused(two_scales: FeatureStore, corpus) -> None:
    with pytest.raises(ConfigError, match=BOTH_SCALES):
        fit_ensemble(two_scales, corpus.manifest, ["m0", "ten"], config=SHORT, folds="fold")
    assert "posteriors/meta" not in two_scales


def test_an_ensemble_records_its_scale(two_scales: FeatureStore, corpus) -> None:
    fit_ensemble(two_scales, corpus.manifest, ["m0", "m1"], config=SHORT, folds="fold")
    assert ranges_of(two_scales["posteriors/meta"]) == {"arousal": (1, 7)}
    with pytest.raises(ConfigError, match=r"arousal.* 1 to 7 .* 0 to 10 "):
        from_store(two_scales, "meta", rescaled(corpus.manifest, 0, 10))


def test_evaluate_ends_with_an_error_before_any_score(two_scales: FeatureStore, corpus, tmp_path: Path) -> None:
    corpus.manifest.write(tmp_path / "m.parquet")
    shown = medusa("evaluate", "ten", "-m", tmp_path / "m.parquet", "-s", two_scales.path, exit_code=2)
    message = " ".join(shown.stderr.split())
    assert "0 to 10" in message
    assert "1 to 7" in message


def test_a_submission_of_another_scale_is_refused_where_the_manifest_names_none(corpus) -> None:
    names, key = ("arousal", "valence", "dominance"), corpus.manifest.keys[0]
    ranges = {"arousal": (1.0, 7.0), "valence": (1.0, 5.0), "dominance": (1.0, 7.0)}
    system = System("m", (key,), (), None, None, names, np.full((1, 3), 3, np.float32), attribute_ranges=ranges)
    blind = Manifest(corpus.manifest.to_arrow().select(["utterance_id", "path"]).slice(0, 1), name="test3")
    with pytest.raises(SubmissionError, match=r"'m'.*valence.* 1 to 5.* 1 to 7"):
        submission("task2", system, blind)


def test_predict_notes_a_manifest_of_another_scale(corpus) -> None:
    note = scales_note(corpus.manifest, {"arousal": (1.0, 5.0), "valence": (1.0, 5.0)})
    assert "arousal" in note
    assert "1 to 5" in note
    assert "1 to 7" in note
    assert "valence" not in note
    assert scales_note(corpus.manifest, {"arousal": (1.0, 7.0)}) == ""
