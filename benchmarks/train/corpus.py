"""The made-up corpus that is trained on: rows in a store and as a `.npy` file per utterance, targets, settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepser.config import MemberConfig, NetworkConfig, StageConfig, TrainConfig
from deepser.training.targets import Targets
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

LAYER = "layer_00"
CLASSES = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
ATTRIBUTES = ("arousal", "valence", "dominance")
RANGE = (1.0, 7.0)
SIGMA = 0.5  # of the durations' logarithm
SHORTEST_S, LONGEST_S = 0.5, 30.0


@dataclass(frozen=True)
class Modality:
    """A feature set: rows of `dim` float16 values, `rate_hz` of them per second."""

    dim: int
    rate_hz: float

    @classmethod
    def parse(cls, text: str) -> "Modality":
        """Return the modality of a text such as "1024@50": 1024 columns at 50 rows per second."""
        dim, _, rate = text.partition("@")
        try:
            modality = cls(int(dim), float(rate or 50))
        except ValueError:
            modality = cls(0, 0)
        if modality.dim < 1 or not modality.rate_hz > 0:
            raise ConfigError(f"{text!r}: expected DIM or DIM@RATE, such as 1024@50.")
        return modality


@dataclass(frozen=True)
class Made:
    """A corpus of N utterances: their names, durations and targets; its rows lie in `directory`."""

    directory: Path
    modalities: tuple[Modality, ...]
    durations_s: np.ndarray
    targets: Targets

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the feature sets."""
        return tuple(f"set{i}" for i in range(len(self.modalities)))

    @property
    def store(self) -> Path:
        return self.directory / "store"

    def lengths(self, modality: int) -> np.ndarray:
        """Return the number of rows of each utterance, (N,)."""
        return np.maximum(np.ceil(self.durations_s * self.modalities[modality].rate_hz), 1).astype(np.int64)

    def npy(self, modality: int, i: int) -> Path:
        return self.directory / "npy" / self.names[modality] / f"{i:06d}.npy"


def made(directory: Path, n: int, modalities: Sequence[Modality], mean_s: float, seed: int) -> Made:
    """Return N utterances with log-normal durations of that mean, as in podcasts; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    durations = np.clip(rng.lognormal(np.log(mean_s) - SIGMA**2 / 2, SIGMA, n), SHORTEST_S, LONGEST_S)
    labels = rng.integers(0, len(CLASSES), n)
    votes = np.eye(len(CLASSES))[labels] * 3 + rng.multinomial(2, np.full(len(CLASSES), 1 / len(CLASSES)), n)
    targets = Targets(
        keys=tuple(f"MADE-UP_{i // 100:04d}_{i:06d}" for i in range(n)),
        classes=CLASSES,
        attributes=ATTRIBUTES,
        attribute_ranges=(RANGE,) * len(ATTRIBUTES),
        labels=labels.astype(np.int64),
        soft=(votes / votes.sum(1, keepdims=True)).astype(np.float32),
        attribute_values=np.clip(4 + rng.normal(size=(n, len(ATTRIBUTES))), *RANGE).astype(np.float32),
    )
    return Made(directory, tuple(modalities), durations, targets)


def rows_of(corpus: Made, modality: int, seed: int) -> Iterator[np.ndarray]:
    """Yield each utterance's rows (T, D) float16: smooth in time, columns of unlike scales, with the class in them.

    They are cut from one long stretch of noise at random places: drawing every row anew takes longer than training.
    """
    rng = np.random.default_rng((seed, modality))
    dim, lengths = corpus.modalities[modality].dim, corpus.lengths(modality)
    longest = int(lengths.max())
    noise = rng.standard_normal((2 * longest + 2, dim), np.float32) * rng.lognormal(0, 0.5, dim).astype(np.float32)
    stretch = ((noise[:-2] + noise[1:-1] + noise[2:]) / 3).astype(np.float16)
    centres = rng.standard_normal((len(CLASSES), dim)).astype(np.float16)
    for label, n in zip(corpus.targets.labels, lengths, strict=True):
        start = int(rng.integers(0, longest))
        yield stretch[start : start + n] + centres[label]


def write(corpus: Made, seed: int, *, npy: bool = True) -> None:
    """Write the rows into a store.

    With `npy` also into a file per utterance and feature set, as equal float16 values.
    """
    store = FeatureStore.create(corpus.store)
    for m, (name, modality) in enumerate(zip(corpus.names, corpus.modalities, strict=True)):
        spec = FeatureSpec("audio", name, "none", (LAYER,), modality.dim, modality.rate_hz)
        if npy:
            corpus.npy(m, 0).parent.mkdir(parents=True)
        with store.writer(name, spec) as writer:
            for i, rows in enumerate(rows_of(corpus, m, seed)):
                writer.append(corpus.targets.keys[i], [rows])
                if npy:
                    np.save(corpus.npy(m, i), rows)


def member_config(
    names: Sequence[str], *, d: int, n_layers: int, n_heads: int, batch: int, epochs: int, precision: str
) -> MemberConfig:
    """Return the configuration of DeepSER, trained as MEDUSA's first stage is, for a number of epochs."""
    network = NetworkConfig(d=d, n_layers=n_layers, n_heads=n_heads)
    stages = (StageConfig("stage1", "shuffled", 0.5, epochs=epochs, lr=1e-4),)
    train = TrainConfig(stages, batch_size=batch, select="last", precision=precision)
    return MemberConfig("bench", tuple(names), network, train)
