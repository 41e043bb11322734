"""Members' posteriors in a real store, with known reliability, and the manifest they are of."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ensemble.evaluation.align import Aligned, column_names
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

CLASSES = ("angry", "sad", "happy", "neutral")
RANGE = (1.0, 7.0)


@dataclass(frozen=True)
class Corpus:
    """labels (N,) int, -1 without consensus; arousal (N,); members' logits (M, N, C) and arousal (M, N)."""

    manifest: Manifest
    labels: np.ndarray
    logits: np.ndarray
    arousal: np.ndarray

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(f"posteriors/m{m}" for m in range(len(self.logits)))

    @property
    def posteriors(self) -> np.ndarray:
        """Return (M, N, C + 1): probabilities, then arousal."""
        p = np.exp(self.logits - self.logits.max(2, keepdims=True))
        return np.concatenate([p / p.sum(2, keepdims=True), self.arousal[..., None]], 2).astype(np.float32)

    def aligned(self) -> Aligned:
        columns = column_names(CLASSES, ("arousal",))
        kinds = ("fold",) * len(self.members)
        return Aligned(self.members, tuple(self.manifest.keys), columns, self.posteriors, kinds)


def _make_corpus(n: int = 600, n_members: int = 4, seed: int = 0, no_consensus: float = 0.0) -> Corpus:
    """Return members that know some classes and miss others; speakers of ten utterances, five folds, three splits."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(CLASSES), n)
    reliability = rng.uniform(0, 2.0, (n_members, len(CLASSES)))
    sharpness = rng.uniform(0.5, 3.0, n_members)
    logits = rng.normal(size=(n_members, n, len(CLASSES)))
    logits[:, np.arange(n), truth] += reliability[:, truth]
    logits *= sharpness[:, None, None]
    target = np.clip(4 + rng.normal(size=n), *RANGE)
    arousal = np.clip(target + rng.normal(size=(n_members, n)) * np.linspace(0.3, 3, n_members)[:, None], *RANGE)
    labels = np.where(rng.random(n) < no_consensus, -1, truth)
    votes = np.eye(len(CLASSES))[truth] * 3 + np.eye(len(CLASSES))[rng.integers(0, len(CLASSES), n)]
    speaker = np.arange(n) // 10
    columns = {
        "utterance_id": [f"ü {i:04d}/clip" for i in range(n)],
        "path": [f"{i}.wav" for i in range(n)],
        "speaker": [f"s{s}" for s in speaker],
        "label": [None if label < 0 else CLASSES[label] for label in labels],
        **({f"vote_{name}": votes[:, c] for c, name in enumerate(CLASSES)} if no_consensus else {}),
        "attr_arousal": target,
        "fold": [str(s % 5 + 1) for s in speaker],
        "split": [("train", "train", "train", "development", "test")[s % 5] for s in speaker],
    }
    manifest = Manifest(pa.table(columns), LabelScheme(CLASSES, {"arousal": RANGE}), name="made")
    return Corpus(manifest, labels, logits, arousal)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return _make_corpus()


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., Corpus]:
    """Return the function that makes further corpora: make_corpus(n, n_members, seed, no_consensus)."""
    return _make_corpus


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store")


Write = Callable[..., None]


@pytest.fixture(scope="session")
def _written_once(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the posteriors that `write(corpus)` writes."""
    path = tmp_path_factory.mktemp("posteriors") / "store"
    write_posteriors(FeatureStore.create(path), corpus)
    return path


@pytest.fixture
def write(store: FeatureStore, corpus: Corpus, _written_once: Path) -> Write:
    """Return a function that stores all members' posteriors: write(corpus, oof, leave_out, rows, column_order)."""

    def write(other_corpus: Corpus, *further: Any, **options: Any) -> None:
        if other_corpus is corpus and not further and not options and not store.names():
            shutil.copytree(_written_once, store.path, dirs_exist_ok=True)
        else:
            write_posteriors(store, other_corpus, *further, **options)

    return write


def write_posteriors(
    store: FeatureStore,
    corpus: Corpus,
    oof: str = "fold",
    leave_out: dict[str, Sequence[str]] | None = None,
    rows: np.ndarray | None = None,
    column_order: dict[str, Sequence[int]] | None = None,
) -> None:
    columns = column_names(CLASSES, ("arousal",))
    layers = {"posteriors": corpus.posteriors, "logits": corpus.posteriors.copy()}
    layers["logits"][..., : len(CLASSES)] = corpus.logits
    chosen = np.arange(len(corpus.labels)) if rows is None else np.flatnonzero(rows)
    for m, member in enumerate(corpus.members):
        order = list((column_order or {}).get(member, range(len(columns))))
        spec = FeatureSpec(
            kind="posteriors",
            encoder=member,
            weights="none",
            layers=tuple(layers),
            dim=len(columns),
            dtype="float32",
            columns=tuple(columns[i] for i in order),
            extra=(("oof", oof),),
        )
        # Each member in an order of its own: rows are found by key.
        mixed_order = np.random.default_rng(m).permutation(chosen)
        with store.writer(member, spec) as writer:
            for i in mixed_order.tolist():
                key = corpus.manifest.keys[i]
                if key not in (leave_out or {}).get(member, ()):
                    writer.append(key, {name: values[m, i : i + 1][:, order] for name, values in layers.items()})
