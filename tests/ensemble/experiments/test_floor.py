"""A system that is no better than the largest class, or worse than a probe on the same folds, is told so."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deepser.probes.posteriors import MADE_BY
from ensemble.evaluation.parts import evaluate_parts
from ensemble.experiments.floor import shortcomings
from featurestore.corpus.division import PartRecord
from featurestore.corpus.made_on import MADE_ON, pack
from featurestore.corpus.manifest import Manifest
from featurestore.errors import IdentityMismatch
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa
from tests.helpers.synthetic_corpus import CLASSES, corpus


def written(
    store: FeatureStore,
    manifest: Manifest,
    name: str,
    share_right: float,
    made_by: str = "",
    adapted: bool = False,
    parts: Sequence[str] = (),
) -> list[str]:
    """Posteriors that are right for a share of the clips, the largest class for the others; what is said of them."""
    votes = manifest.votes
    assert votes is not None
    labels = votes.argmax(1)
    largest = int(np.bincount(labels).argmax())
    is_right = np.random.default_rng(0).random(len(labels)) < share_right
    guess = np.where(is_right, labels, largest)
    extra = [("oof", "fold"), ("folds", "cv:fold"), *([("adapted", "speaker")] if adapted else [])]
    spec = FeatureSpec(
        "posteriors", name, "none", ("posteriors", "logits"), 3, dtype="float32", columns=CLASSES, extra=tuple(extra)
    )
    record = {MADE_ON: pack(PartRecord(manifest.keys, parts, manifest.labels), "cv:fold")} if parts else {}
    with store.writer(f"posteriors/{name}", spec, provenance={"made_by": made_by, **record}) as writer:
        for key, c in zip(manifest.keys, guess, strict=True):
            row = np.eye(3, dtype=np.float32)[c][None]
            writer.append(key, {"posteriors": row, "logits": row})
    return shortcomings(store, manifest, name, evaluate_parts(store, manifest, name, cv="fold"), "fold")


def test_a_constant_answer_is_no_better_than_the_largest_class(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    (sentence,) = written(store, manifest, "constant", 0.0)
    assert mentions(sentence, "no better", "UAR 0.333", "0.333")
    assert written(store, manifest, "good", 0.7) == []


def test_a_member_worse_than_a_probe_on_its_folds_is_reported_and_an_adapted_probe_does_not_count(
    tmp_path: Path,
) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    written(store, manifest, "adapted", 1.0, MADE_BY, adapted=True)
    assert written(store, manifest, "member1", 0.5) == []
    written(store, manifest, "closed", 0.8, MADE_BY)
    (sentence,) = written(store, manifest, "member2", 0.5)
    assert "posteriors/closed" in sentence
    assert written(store, manifest, "member3", 0.95) == []


def test_a_probe_over_other_folds_of_the_same_column_is_passed_over(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    table = manifest.to_arrow().append_column("label", pa.array([CLASSES[c] for c in manifest.votes.argmax(1)]))
    manifest = manifest.with_table(table)
    folds = [str(fold) for fold in manifest.column("fold").tolist()]
    written(store, manifest, "closed", 0.8, MADE_BY, parts=folds)
    assert written(store, manifest, "member1", 0.5, parts=folds[1:] + folds[:1]) == []
    (sentence,) = written(store, manifest, "member2", 0.5, parts=[f"fold {fold}" for fold in folds])
    assert "posteriors/closed" in sentence


def test_a_probe_of_other_audio_under_the_same_ids_is_passed_over(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    table = manifest.to_arrow().append_column("duration_s", pa.array([1.0] * len(manifest)))
    manifest = manifest.with_table(table)
    written(store, manifest, "closed", 0.8, MADE_BY)
    spec = store["posteriors/closed"].spec
    with store.writer("posteriors/stale", replace(spec, encoder="stale"), provenance={"made_by": MADE_BY}) as writer:
        for key in manifest.keys:
            writer.append(key, {layer: np.eye(3, dtype=np.float32)[:1] for layer in spec.layers}, duration_s=2.0)
    with pytest.raises(IdentityMismatch):
        evaluate_parts(store, manifest, "stale", cv="fold")
    (sentence,) = written(store, manifest, "member", 0.5)
    assert "posteriors/closed" in sentence


def vote(directory: Path, store: FeatureStore, manifest: Manifest, *members: str) -> str:
    """Fit a soft vote by its command, and return its warnings."""
    manifest.write(directory / "m.csv")
    options = ["-m", directory / "m.csv", "-s", store.path, "--runs", directory / "runs", "--cv", "fold"]
    result = medusa("fit-meta", "--members", ",".join(members), "--meta", "soft", "--name", "vote", *options)
    return " ".join(result.stderr.split())


def test_fit_meta_warns_of_an_ensemble_that_is_no_better_than_the_largest_class(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    written(store, manifest, "a", 0.0)
    written(store, manifest, "b", 0.0)
    warnings = vote(tmp_path, store, manifest, "a", "b")
    assert "vote (all folds)" in warnings
    assert "always" in warnings
    assert "UAR 0.333 against 0.333" in warnings


def test_fit_meta_warns_of_an_ensemble_that_is_worse_than_a_probe_on_the_same_folds(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    written(store, manifest, "a", 0.5)
    written(store, manifest, "b", 0.6)
    assert "warning" not in vote(tmp_path, store, manifest, "a", "b")
    written(store, manifest, "closed", 0.9, MADE_BY)
    assert "less than the" in (warnings := vote(tmp_path, store, manifest, "a", "b"))
    assert "posteriors/closed" in warnings


def test_fit_deepser_warns_of_a_member_that_learned_nothing(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, 45, attributes=False)
    manifest.write(tmp_path / "m.csv")
    options = ["-m", tmp_path / "m.csv", "-s", store.path, "--runs", tmp_path / "runs", "--cv", "fold"]
    one_step = [
        "--epochs",
        "1",
        "--stage2-epochs",
        "0",
        "--lr",
        "1e-12",
        "--select",
        "last",
        "--d",
        "16",
        "--n-heads",
        "2",
    ]
    result = medusa("fit-deepser", "--features", "first,second", "--preset", "medusa", *one_step, *options)
    assert mentions(result.stderr, "no better")
