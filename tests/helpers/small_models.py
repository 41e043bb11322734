"""Two members over two kinds of log-mel features of 48 clips, and meta-classifiers of them: trained in seconds."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from deepser.config import MemberConfig, NetworkConfig, StageConfig, TrainConfig
from deepser.members.folds import plan_folds
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.fit import fit_ensemble
from ensemble.fusion.members import record_members
from featurestore.corpora.ravdess import read_ravdess
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.featurize.run import featurize
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member

ACTORS = ("01", "04", "08")
STAGES = (StageConfig("stage1", "shuffled", 0.5, 4, 3e-3),)
TRAIN = TrainConfig(stages=STAGES, select="last", precision="float32", stride=16)
NETWORK = NetworkConfig(d=16, n_layers=1, n_heads=2, dropout=0.1)


@dataclass(frozen=True)
class Trained:
    store: FeatureStore
    manifest: Manifest
    runs: Path


def load_trained(directory: Path) -> Trained:
    """Open the directory that `train` made, or a copy of it."""
    return Trained(FeatureStore.open(directory / "store"), read_ravdess(directory / "corpus"), directory / "runs")


def train(demo_corpus: Path, directory: Path) -> None:
    """Train runs/m0, runs/m1, runs/meta-posteriors and runs/meta-logits over the feature sets mel and pooled."""
    for actor in ACTORS:
        shutil.copytree(demo_corpus / f"Actor_{actor}", directory / "corpus" / f"Actor_{actor}")
    manifest = read_ravdess(directory / "corpus")
    store = FeatureStore.create(directory / "store")
    featurize(manifest, load_encoder("logmel"), store, "mel")
    featurize(manifest, load_encoder("logmel", pool="mean+std", dtype="float32"), store, "pooled")
    plan = plan_folds(manifest, cv="fold")
    for seed in (0, 1):
        config = MemberConfig(f"m{seed}", ("mel", "pooled"), NETWORK, replace(TRAIN, seed=seed))
        fit_member(store, manifest, config, plan, directory / "runs" / config.name)
    for inputs in ("posteriors", "logits"):
        runs, name = directory / "runs", f"meta-{inputs}"
        members = ["posteriors/m0", "posteriors/m1"]
        fit_ensemble(
            store, manifest, members, name=name, config=MetaConfig(inputs=inputs, seeds=(0, 1), rounds=2),
            folds="fold", directory=runs / name,
        )  # fmt: skip
        assert record_members(runs / name, store, members, runs) == []
