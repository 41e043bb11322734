"""A small corpus that can be learned: two feature sets whose rows carry the class, and a manifest with folds."""

from pathlib import Path

import numpy as np
import pandas as pd

from deepser.config import MemberConfig, NetworkConfig, StageConfig, TrainConfig
from featurestore.corpus.manifest import Manifest
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

CLASSES = ("calm", "angry", "sad")
DIMS = {"first": 6, "second": 4}


def corpus(
    directory: Path, n: int = 90, *, attributes: bool = True, rated_speakers: bool = False
) -> tuple[FeatureStore, Manifest]:
    """Make n utterances of 9 speakers in 3 folds; every tenth has no consensus, every third no arousal.

    rated_speakers: every speaker has utterances with arousal; else every third speaker has none.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), n)
    keys = [f"u/{i} é" for i in range(n)]
    store = FeatureStore.create(directory / "store")
    for name, dim in DIMS.items():
        centres = rng.normal(size=(len(CLASSES), dim)) * 2
        spec = FeatureSpec("audio", name, "none", ("layer_01", "layer_02"), dim, 50.0)
        with store.writer(name, spec) as writer:
            for key, label in zip(keys, labels, strict=True):
                rows = centres[label] + rng.normal(size=(2, int(rng.integers(3, 15)), dim))
                writer.append(key, rows.astype(np.float32))
    votes = np.eye(len(CLASSES))[labels] * 3
    votes[::10] = 1
    frame = pd.DataFrame({"utterance_id": keys, "path": [f"{i}.wav" for i in range(n)]})
    frame["speaker"] = [f"s{i % 9}" for i in range(n)]
    frame["fold"] = [str(i % 9 // 3) for i in range(n)]
    for c, name in enumerate(CLASSES):
        frame[f"vote_{name}"] = votes[:, c]
    if attributes:
        arousal = 2.0 + 2 * labels
        frame["attr_arousal"] = [
            None if (i // 9 if rated_speakers else i) % 3 == 0 else float(a) for i, a in enumerate(arousal)
        ]
    return store, Manifest.from_pandas(frame)


def member(name: str = "m", **train: object) -> MemberConfig:
    """Return a member small enough to fit in a second."""
    stages = (StageConfig("stage1", "shuffled", 0.5, 3, 3e-3), StageConfig("stage2", "balanced", 0.0, 2, 1e-3))
    settings: dict[str, object] = {"stages": stages, "batch_size": 8, "select": "last", "precision": "float32", **train}
    network = NetworkConfig(d=16, n_layers=1, n_heads=2, ff_multiple=2, dropout=0.1)
    return MemberConfig(name, ("first@1+2", "second@2"), network, TrainConfig(**settings))  # type: ignore[arg-type]
