"""Rows of another corpus's utterances, whose ids are the same, are refused before anything is fitted on them."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from deepser.members.folds import plan_folds
from deepser.members.member import Member
from deepser.members.sources import (
    check_all_sources,
    check_sources,
    check_sources_once,
    check_view_sources,
    refuse_mixed,
)
from featurestore.augment.mixing import mixed_places
from featurestore.augment.views import parse_views
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.errors import ConfigError, IdentityMismatch, ManifestError, StoreError
from featurestore.featurize.present import Again
from featurestore.featurize.run import featurize
from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

KEYS = ["a", "b"]


def corpus(directory: Path, seconds: float, **columns: list[float]) -> Manifest:
    directory.mkdir()
    rng = np.random.default_rng(0)
    for key in KEYS:
        soundfile.write(directory / f"{key}.wav", 0.1 * rng.standard_normal(round(seconds * 16_000)), 16_000)
    table = {"utterance_id": KEYS, "path": [f"{key}.wav" for key in KEYS], **columns}
    return Manifest(pa.table(table), root=directory)


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    store = FeatureStore.create(tmp_path / "store")
    featurize(corpus(tmp_path / "own", 1.0), load_encoder("logmel"), store, "logmel")
    return store["logmel"]


def test_the_corpus_that_was_encoded_passes(tmp_path: Path, features: FeatureSet) -> None:
    check_sources(Manifest(pa.table({"utterance_id": KEYS, "text": ["x", "y"]}), root=tmp_path), features)
    paths = [str(tmp_path / "own" / f"{key}.wav") for key in KEYS]
    check_sources(Manifest(pa.table({"utterance_id": KEYS, "path": paths, "duration_s": [1.0, 1.0]})), features)


def test_files_of_another_length_are_refused_by_their_headers(tmp_path: Path, features: FeatureSet) -> None:
    with pytest.raises(IdentityMismatch, match=r"(?s)'a' \(2\.000 s.*1\.000 s.*'b'.*--again mismatched"):
        check_sources(corpus(tmp_path / "other", 2.0), features)


def test_other_durations_are_refused_without_files(tmp_path: Path, features: FeatureSet) -> None:
    table = pa.table({"utterance_id": KEYS, "path": ["gone/a.wav", "gone/b.wav"], "duration_s": [1.0, 3.648]})
    with pytest.raises(IdentityMismatch, match=r"has 1 of these ids.*'b' \(3\.648 s by the manifest.*1\.000 s"):
        check_sources(Manifest(table, root=tmp_path), features)


def test_a_store_that_cannot_take_posteriors_says_so_before_training(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    spec = FeatureSpec("audio", "x", "none", ("layer_00",), 2)
    with store.writer("posteriors", spec) as writer:
        writer.append("a", [np.ones((1, 2))])
    with pytest.raises(StoreError, match=r"posteriors/m1.*beside 'posteriors'"):
        store.check_writable("posteriors/m1")
    store.check_writable("other/m1")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["posteriors", "zarr.json"]


def test_other_samples_of_the_same_length_are_refused_by_their_bytes(tmp_path: Path, features: FeatureSet) -> None:
    louder = corpus(tmp_path / "other", 1.0)
    soundfile.write(tmp_path / "other" / "b.wav", np.zeros(16_000), 16_000)
    with pytest.raises(IdentityMismatch, match=r"has 1 of these ids.*'b' \(1\.000 s"):
        check_sources(louder, features)


def test_a_corpus_of_train_alone_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    table = pa.table({"utterance_id": KEYS, "text": ["x", "y"], "label": ["sad", "angry"], "split": ["train"] * 2})
    with pytest.raises(ManifestError, match=r"split 'train'.*--folds N.*--hold-out"):
        plan_folds(Manifest(table))


def test_a_probes_run_directory_is_called_so_and_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": 1, "kind": "probe", "probe": {}}')
    with pytest.raises(ConfigError, match=r"holds a probe, not a member.*--name"):
        Member.load(tmp_path)


def test_of_several_sets_with_one_record_one_is_checked_and_another_record_is_found(
    tmp_path: Path, features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore.open(tmp_path / "store")
    manifest = Manifest(pa.table({"utterance_id": KEYS, "path": ["a.wav", "b.wav"]}), root=tmp_path / "own")
    featurize(manifest, load_encoder("logmel"), store, "again")
    louder = corpus(tmp_path / "other", 2.0)
    featurize(louder, load_encoder("logmel"), store, "other")
    n_checks = []
    monkeypatch.setattr(
        "deepser.members.sources.check_sources", lambda *arguments: (n_checks.append(1), check_sources(*arguments))
    )
    check_all_sources(manifest, [features, store["again"], features])
    assert len(n_checks) == 1
    with pytest.raises(IdentityMismatch, match="'other'"):
        check_all_sources(manifest, [features, store["other"]])


def test_a_set_that_lacks_utterances_is_compared_of_those_that_it_has(tmp_path: Path, features: FeatureSet) -> None:
    keys = [*KEYS, "c"]
    manifest = Manifest(pa.table({"utterance_id": keys, "path": [f"{key}.wav" for key in keys]}), root=tmp_path / "own")
    checked: set[bytes] = set()
    check_sources_once(manifest, features, checked)
    assert len(checked) == 1
    louder = corpus(tmp_path / "other", 2.0)
    longer = Manifest(pa.table({"utterance_id": keys, "path": [f"{key}.wav" for key in keys]}), root=louder.root)
    with pytest.raises(IdentityMismatch, match="'a'"):
        check_sources_once(longer, features, set())


@pytest.mark.parametrize("label", ["noise1", "mix1"])
def test_a_view_of_files_that_changed_since_is_refused_beside_the_clean_set(
    tmp_path: Path, features: FeatureSet, label: str
) -> None:
    own = Manifest(pa.table({"utterance_id": KEYS, "path": ["a.wav", "b.wav"]}), root=tmp_path / "own")
    store, encoder = FeatureStore.open(tmp_path / "store"), load_encoder("logmel")
    (view,) = parse_views([label[:-1] + (":within=none" if label == "mix1" else "")])
    featurize(own, encoder, store, view.name("logmel"), view=view)
    partner = mixed_places(store, label, KEYS)[0] if label == "mix1" else np.full(2, -1)

    def check() -> None:
        check_view_sources(own, store["logmel"], store[view.name("logmel")], KEYS, np.arange(2), partner)

    check()
    for key in KEYS:  # copied, so that the dates are others
        os.utime(own.root / f"{key}.wav", (1, 1))
    check()
    soundfile.write(own.root / "b.wav", np.full(16_000, 0.1), 16_000)
    featurize(own, encoder, store, "logmel", again=Again(mismatched=True))
    with pytest.raises(IdentityMismatch, match=rf"logmel\+{label}.*'b' \(the clean set: 1\.000 s.*--augment"):
        check()


def test_mixed_clips_are_not_features_that_a_label_belongs_to(tmp_path: Path, features: FeatureSet) -> None:
    store = FeatureStore.open(tmp_path / "store")
    for view in parse_views(["noise", "mix"]):
        spec = view.spec(features.spec)
        with store.writer(view.name("logmel"), spec) as writer:
            writer.append("a", [np.ones((2, features.dim), np.float32)])
    refuse_mixed(store["logmel"])
    refuse_mixed(store["logmel+noise1"])
    with pytest.raises(
        ConfigError, match=r"logmel\+mix1 holds clips that are mixed.*clean set \(logmel\).*--views mix1"
    ):
        refuse_mixed(store["logmel+mix1"])
