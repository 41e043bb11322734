"""Every network that takes several sets takes sets of one row (functionals, embeddings) beside sets of frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deepser.config import MemberConfig, NetworkConfig, StageConfig, TrainConfig
from deepser.members.folds import plan_folds
from featurestore.corpus.manifest import Manifest
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member

N = 24
TRAIN = TrainConfig(
    stages=(StageConfig("stage1", "shuffled", 0.0, 6, 1e-2),), select="last", precision="float32", stride=2
)
SETS = {
    "frames": FeatureSpec("audio", "e", "none", ("layer_01",), 6, 50.0),
    "words": FeatureSpec("text", "t", "none", ("layer_01",), 5),
    "functionals": FeatureSpec("audio", "egemapsv02", "none", ("layer_00",), 9, dtype="float32", pool="model"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Manifest]:
    """Two classes that the functionals alone tell apart, their values on scales as far apart as openSMILE's."""
    rng = np.random.default_rng(0)
    keys, labels = [f"u{i:02d}" for i in range(N)], [("a", "b")[i % 2] for i in range(N)]
    store = FeatureStore.create(tmp_path_factory.mktemp("one-row") / "store")
    scales = 10.0 ** np.arange(-3, 6)
    for name, spec in SETS.items():
        with store.writer(name, spec) as writer:
            for i, key in enumerate(keys):
                n_rows = {"frames": 20 + i, "words": 3 + i % 4, "functionals": 1}[name]
                rows = rng.standard_normal((n_rows, spec.dim))
                if name == "functionals":
                    rows = (rows + (2 if labels[i] == "a" else -2)) * scales
                writer.append(key, {spec.layers[0]: rows.astype(np.float32)}, 1.0)
    table = pa.table({
        "utterance_id": keys, "path": [f"{key}.wav" for key in keys], "label": labels,
        "speaker": [f"s{i // 2 % 4}" for i in range(N)], "fold": [f"f{i // 2 % 2}" for i in range(N)],
    })  # fmt: skip
    return store, Manifest.from_arrow(table)


@pytest.mark.parametrize("kind", ["cross-attention", "deepser", "late-fusion", "srpol"])
def test_a_network_learns_from_one_row_beside_frames_and_tokens(
    corpus: tuple[FeatureStore, Manifest], tmp_path: Path, kind: str
) -> None:
    store, manifest = corpus
    network = NetworkConfig(d=16, n_heads=2, dropout=0.0, kind=kind)
    if kind == "srpol":
        network = replace(network, pooling="asp", pool_dim=8, lstm_dim=16)
    config = MemberConfig(kind, tuple(SETS), network, TRAIN)
    member = fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), tmp_path / kind, device="cpu")
    probabilities, _ = member.predict(store, list(manifest.keys), device="cpu")
    classes = [name for name in member.columns if not name.startswith("attr:")]
    chosen = [classes[i] for i in probabilities[:, : len(classes)].argmax(1)]
    accuracy = np.mean([a == b for a, b in zip(chosen, manifest.column("label").tolist(), strict=True)])
    assert np.isfinite(probabilities).all()
    assert accuracy > 0.9
