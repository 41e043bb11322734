"""A fitted member of an ensemble: its run directory, read back, and its posteriors for utterances in a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepser.config import MemberConfig, from_dict
from deepser.networks.network import Network
from deepser.networks.timing import Timing, timing_of
from deepser.scores.probabilities import softmax
from deepser.training import train as trainer
from deepser.training.checkpoint import load_weights
from deepser.training.data import Indices, TrainingData
from deepser.training.normalise import Normalisation, new_groups, without_prior
from deepser.training.processes import World
from deepser.training.targets import Targets
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.runtime.device import pick_device
from featurestore.runtime.json_text import read_json
from featurestore.runtime.weights_digest import parts_of_files, weights_digest
from featurestore.store.feature_store import FeatureStore


@dataclass(frozen=True)
class Member:
    """A fitted member: its config, what its outputs mean, and one network per fold."""

    config: MemberConfig
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_ranges: tuple[tuple[float, float], ...]
    inputs: tuple[tuple[int, int], ...]  # (stored layers, dim) per feature set
    layers: tuple[tuple[str, ...], ...]  # the layers read of each feature set
    specs: tuple[dict[str, Any], ...]  # each feature set's specification
    directory: Path

    @staticmethod
    def load(directory: Path | str) -> "Member":
        """Read a run directory; ConfigError says what is missing or damaged."""
        directory = Path(directory)
        path = directory / "config.json"
        if not path.is_file():
            raise ConfigError(
                f"{directory} is not a member's run directory: it has no config.json. Run `medusa fit-deepser` first."
            )
        try:
            saved = read_json(path.read_text())
            check_is_member(saved, directory)
            return Member(
                config=from_dict(MemberConfig, saved["member"], f"{path}: member"),
                classes=tuple(saved["classes"]),
                attributes=tuple(saved["attributes"]),
                attribute_ranges=tuple((low, high) for low, high in saved["attribute_ranges"]),
                inputs=tuple((n_layers, dim) for n_layers, dim in saved["inputs"]),
                layers=tuple(tuple(layers) for layers in saved["layers"]),
                specs=tuple(saved["specs"]),
                directory=directory,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} is damaged ({type(error).__name__}: {error}); fit the member again.") from error

    @property
    def refs(self) -> tuple[FeatureRef, ...]:
        names = [FeatureRef.parse(text).name for text in self.config.features]
        return tuple(FeatureRef(name, layers) for name, layers in zip(names, self.layers, strict=True))

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.classes, *(f"attr:{name}" for name in self.attributes))

    @property
    def speaker_adapted(self) -> bool:
        """Does it read rows normalised by their own speaker?"""
        return self.config.train.normalise == "speaker"

    def timing(self) -> Timing | None:
        """Return when the rows of its features are spoken; None where it doesn't align them. Errors as `timing_of`."""
        return timing_of(self.specs, self.config.train.stride, self.config.network.align_s)

    def new_network(self) -> Network:
        return Network(self.inputs, len(self.classes), self.attribute_ranges, self.config.network, self.timing())

    def weights(self) -> list[Path]:
        """Return the weight files of its folds; ConfigError when it is not fitted to the end."""
        paths = sorted(self.directory.glob("fold-*/model.safetensors"))
        if not paths:
            raise ConfigError(
                f"{self.directory} holds no weights yet; run the same `medusa fit-deepser` again to finish it."
            )
        return paths

    @property
    def weights_digest(self) -> str:
        """The identity of its weights, as its posteriors in a store carry it; ConfigError when it has none yet."""
        return weights_digest(parts_of_files(self.weights()))

    def predict(
        self,
        store: FeatureStore,
        keys: Sequence[str],
        *,
        device: str = "auto",
        speakers: Sequence[str] | None = None,
        running: bool = False,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return posteriors and logits of utterances in the store: each (n, C + A) float32, means over its folds.

        speakers: who speaks in each, where the member is speaker-adapted; without them, and for a speaker of one clip,
        the training corpus's statistics serve. running: each is normalised by its speaker's utterances up to it, in
        the order of the keys, as a stream must be.
        """
        world = World(device=pick_device(device))
        targets = Targets.unknown(tuple(keys), self.classes, self.attributes, self.attribute_ranges)
        data = TrainingData(
            store, self.refs, targets, normalisation=self._normalisation(store, keys, speakers, running)
        )
        total = PosteriorMean(len(keys), len(self.columns))
        all_rows = np.arange(len(keys))
        for path in self.weights():
            network = self.new_network()
            network.load_state_dict(without_prior(load_weights(path))[0])
            (outputs,) = trainer.predict([network], [data], all_rows, [self.config.train], world)
            total.add(all_rows, *outputs)
        return total.means()

    def _normalisation(
        self, store: FeatureStore, keys: Sequence[str], speakers: Sequence[str] | None, running: bool
    ) -> Normalisation | None:
        train = self.config.train
        if train.normalise == "none" or not len(keys):
            return None
        path = self.weights()[0]
        priors = without_prior(load_weights(path))[1]
        missing = [str(ref) for ref in self.refs for layer in ref.layers if (ref.name, layer) not in priors]
        if missing:
            raise ConfigError(f"{path} lacks the statistics that {missing[0]} is normalised by; fit the member again.")
        groups = new_groups(train.normalise, len(keys), speakers, running)
        normalisation = Normalisation(train.normalise, groups, train.shrinkage, priors)
        normalisation.prepare(store, self.refs, keys)
        return normalisation


def check_is_member(saved: Any, directory: Path) -> None:
    """Raise ConfigError where a config.json is of another kind of run directory, such as a probe's."""
    if isinstance(saved, dict) and "kind" in saved and "member" not in saved:
        raise ConfigError(
            f"{directory} holds a {saved['kind']}, not a member of fit-deepser; choose another --name or --runs."
        )


class PosteriorMean:
    """Means of class probabilities, logits and attributes over the models that judged an utterance."""

    def __init__(self, n: int, n_columns: int) -> None:
        self.posteriors = np.zeros((n, n_columns), np.float32)
        self.logits = np.zeros((n, n_columns), np.float32)
        self.count = np.zeros(n, np.int64)

    def add(self, rows: Indices, logits: NDArray[np.float32], attributes: NDArray[np.float32]) -> None:
        self.posteriors[rows] += np.concatenate([softmax(logits), attributes], 1)
        self.logits[rows] += np.concatenate([logits, attributes], 1)
        self.count[rows] += 1

    def means(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = np.maximum(self.count, 1)[:, None].astype(np.float32)
        return self.posteriors / count, self.logits / count
