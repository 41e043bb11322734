"""A fitted probe as a member of an ensemble: its run directory, and its posteriors for utterances in a store."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from deepser.probes.calibrate import Calibration
from deepser.probes.config import ProbeConfig
from deepser.probes.fit import ProbeResult
from deepser.probes.problem import Problem
from deepser.probes.refine import clips_of_speakers, refined_by_speaker
from deepser.probes.rows import PooledRows, Source
from deepser.probes.scores_file import CONFIG, WEIGHTS
from deepser.probes.solver import Fitted, Piece, Setting
from deepser.scores.probabilities import softmax
from deepser.training.checkpoint import check_digest, load_weights, save_atomically, tensors_digest
from deepser.training.normalise import Groups, GroupStatistics, new_groups
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.runtime.durable import replace_text
from featurestore.runtime.json_text import read_json
from featurestore.runtime.weights_digest import parts_of_files, weights_digest
from featurestore.store.feature_store import FeatureStore

KIND = "probe"
FORMAT = 1
BATCH_ROWS = 4096
# Of a piece. "alpha" without a number is of all pieces: so it was saved while their kernels were averaged.
PIECE_ARRAYS = ("mean", "inverse_std", "support", "weights", "alpha")


@dataclass(frozen=True)
class ProbeMember:
    """A fitted probe: its settings, what its outputs mean, and one model of all training utterances.

    fitted: of all training rows. prior: mean and variance of the training corpus's rows, (D,) each, for sources that
    are normalised by speaker: a speaker of few clips is shrunk towards them.
    """

    config: ProbeConfig
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_ranges: tuple[tuple[float, float], ...]
    specs: tuple[dict[str, Any], ...]
    directory: Path
    fitted: Fitted
    calibration: Calibration
    setting: Setting
    prior: dict[Source, tuple[NDArray[np.float32], NDArray[np.float32]]]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.classes, *(f"attr:{name}" for name in self.attributes))

    @property
    def refs(self) -> tuple[FeatureRef, ...]:
        """The layers that are read, by feature set."""
        layers: dict[str, list[str]] = {}
        for piece in self.fitted.pieces:
            layers.setdefault(piece.source.features, []).append(piece.source.layer)
        return tuple(FeatureRef(name, tuple(dict.fromkeys(own))) for name, own in layers.items())

    @property
    def speaker_adapted(self) -> bool:
        """Does it read a speaker's other clips, to normalise rows or to refine scores?"""
        return self.setting.refine != "none" or any(piece.source.normalise == "speaker" for piece in self.fitted.pieces)

    def weights(self) -> list[Path]:
        """Return the one file of weights; ConfigError when it is missing."""
        path = self.directory / WEIGHTS
        if not path.is_file():
            raise ConfigError(f"{self.directory} holds no weights; run the same `medusa probe` again.")
        return [path]

    @property
    def weights_digest(self) -> str:
        """The identity of its weights, as its posteriors in a store carry it."""
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
        """Return posteriors and logits of utterances in the store: each (n, C + A) float32.

        speakers: who speaks in each, where the probe is speaker-adapted; without them, and for a speaker of one clip,
        the training corpus's statistics serve. running: each is normalised by its speaker's utterances up to it, in
        the order of the keys, as a stream must be.
        """
        n_columns, n_classes = len(self.columns), len(self.classes)
        if not len(keys):
            return np.zeros((0, n_columns), np.float32), np.zeros((0, n_columns), np.float32)
        if running and self.setting.refine != "none":
            raise ConfigError(
                f"{self.directory} refines scores by all clips of a speaker, so it can't predict from those so far; "
                "fit a probe without --refine, or leave --running out."
            )
        rows = PooledRows(store, keys, self.config.pool)
        deviations = np.zeros((len(keys), n_columns))
        clips_of: list[NDArray[np.int64]] = []  # of each speaker by whose clips scores are refined
        if self.setting.refine != "none" and speakers is not None:
            clips_of = clips_of_speakers(Groups.of(list(speakers)).codes)
        class_scores, covariances = [], []
        for piece in self.fitted.pieces:
            x = self._standardised(piece, rows, speakers, running)
            if piece.weights is not None:
                outputs = x.astype(np.float64) @ piece.weights
            else:
                assert piece.support is not None
                assert piece.alpha is not None
                across = _rbf(x, piece.support, piece.bandwidth)
                outputs = across @ piece.alpha.astype(np.float64)
                if clips_of:
                    class_scores.append(outputs[:, :n_classes] + self.fitted.offsets[:n_classes])
                    covariances.append(self._covariances(piece, x, across, clips_of))
            deviations += outputs
        deviations /= len(self.fitted.pieces)
        scores = deviations + self.fitted.offsets
        if clips_of:
            penalties = np.array([piece.penalty for piece in self.fitted.pieces])
            shares = self.fitted.shares if self.setting.refine == "shares" else None
            stacked = [np.stack([clips[i] for clips in covariances]) for i in range(len(clips_of))]
            scores[:, :n_classes] = refined_by_speaker(np.stack(class_scores), clips_of, stacked, penalties, shares)
        logits, attributes = self.calibration.outputs(self._problem, scores)
        posteriors = np.concatenate([softmax(logits), attributes], 1)
        return posteriors.astype(np.float32), np.concatenate([logits, attributes], 1).astype(np.float32)

    def _covariances(
        self, piece: Piece, x: NDArray[np.float32], across: NDArray[np.float64], clips_of: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float64]]:
        """Return the covariance (m, m) of each speaker's rows of x (n, D) given a piece's support.

        across: (n, support) their kernel with it.
        """
        assert piece.support is not None
        assert self.fitted.weights is not None
        weighted = np.flatnonzero(self.fitted.weights > 0)
        support = piece.support[weighted]
        kernel = _rbf(support, support, piece.bandwidth)
        kernel[np.diag_indices_from(kernel)] += piece.penalty / self.fitted.weights[weighted]
        factor, covariances = cho_factor(kernel), []
        for clips in clips_of:
            clip_rows, mixed = x[clips], across[np.ix_(clips, weighted)]
            covariances.append(_rbf(clip_rows, clip_rows, piece.bandwidth) - mixed @ cho_solve(factor, mixed.T))
        return covariances

    @property
    def _problem(self) -> Problem:
        none = np.zeros((0, len(self.columns)))
        return Problem((), self.classes, self.attributes, self.attribute_ranges, np.zeros(0, np.int64), none)

    def _standardised(
        self, piece: Piece, rows: PooledRows, speakers: Sequence[str] | None, running: bool
    ) -> NDArray[np.float32]:
        x = rows.read(Source(piece.source.features, piece.source.layer))
        if piece.source.normalise != "none":
            groups = new_groups(piece.source.normalise, len(x), speakers, running)
            statistics = GroupStatistics.of(x, groups, self.config.shrinkage, self.prior[piece.source])
            x = statistics.apply(x, groups.codes)
        return (x - piece.mean) * piece.inverse_std

    @staticmethod
    def save(result: ProbeResult, store: FeatureStore, directory: Path) -> "ProbeMember":
        """Write a run directory, config.json last, and return it as read from there."""
        specs = []
        for name in dict.fromkeys(piece.source.features for piece in result.fitted.pieces):
            features = store[name]
            specs.append({"name": name, "fingerprint": features.spec.fingerprint, "spec": features.spec.to_json(),
                          "provenance": features.provenance})  # fmt: skip
        problem, fitted = result.problem, result.fitted
        pieces = [
            {"features": p.source.features, "layer": p.source.layer, "normalise": p.source.normalise,
             "bandwidth": p.bandwidth, "penalty": p.penalty}
            for p in fitted.pieces
        ]  # fmt: skip
        content = {
            "format": FORMAT, "kind": KIND, "probe": asdict(result.config), "classes": problem.classes,
            "attributes": problem.attributes, "attribute_ranges": problem.attribute_ranges, "specs": specs,
            "pieces": pieces, "calibration": asdict(result.calibration),
            "setting": asdict(result.final.setting), "n_trained": len(result.final.inner),
            "folds": {"names": result.plan.names, "rule": result.plan.rule},
            "speaker_adapted": result.speaker_adapted,
        }  # fmt: skip
        tensors = {"offsets": torch.from_numpy(fitted.offsets)}
        if result.final.setting.refine != "none":
            assert fitted.weights is not None
            assert fitted.shares is not None
            tensors |= {"row_weights": torch.from_numpy(fitted.weights), "shares": torch.from_numpy(fitted.shares)}
        for i, piece in enumerate(fitted.pieces):
            arrays = {"mean": piece.mean, "inverse_std": piece.inverse_std, "support": piece.support,
                   "weights": piece.weights, "alpha": piece.alpha}  # fmt: skip
            if piece.source in result.prior:
                arrays |= dict(zip(("prior_mean", "prior_variance"), result.prior[piece.source], strict=True))
            tensors |= {f"{i}/{name}": torch.from_numpy(value) for name, value in arrays.items() if value is not None}
        (directory / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
        save_atomically(tensors, directory / WEIGHTS)
        content["weights"] = tensors_digest(tensors)  # those of two fits can't be taken together
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        replace_text(directory / CONFIG, text)
        return ProbeMember.load(directory)

    @staticmethod
    def load(directory: Path | str) -> "ProbeMember":
        """Read a run directory; ConfigError says what is missing or damaged."""
        directory = Path(directory)
        path = directory / CONFIG
        try:
            saved = read_json(path.read_text(encoding="utf-8"))
            config = ProbeConfig(**{name: _frozen(value) for name, value in saved["probe"].items()})
            weights = load_weights(directory / WEIGHTS)
            check_digest(weights, saved.get("weights"), directory / WEIGHTS, "medusa probe")
            tensors = {name: value.numpy() for name, value in weights.items()}
            pieces, prior = [], {}
            for i, each in enumerate(saved["pieces"]):
                source = Source(each["features"], each["layer"], each["normalise"])
                arrays = {name: tensors.get(f"{i}/{name}", tensors.get(name)) for name in PIECE_ARRAYS}
                settings = {name: float(each.get(name, 0)) for name in ("bandwidth", "penalty")}
                pieces.append(Piece(source, **arrays, **settings))  # type: ignore[arg-type]
                if f"{i}/prior_mean" in tensors:
                    prior[source] = (tensors[f"{i}/prior_mean"], tensors[f"{i}/prior_variance"])
            return ProbeMember(
                config=config,
                classes=tuple(saved["classes"]),
                attributes=tuple(saved["attributes"]),
                attribute_ranges=tuple((low, high) for low, high in saved["attribute_ranges"]),
                specs=tuple(saved["specs"]),
                directory=directory,
                fitted=Fitted(tuple(pieces), tensors["offsets"], tensors.get("row_weights"), tensors.get("shares")),
                calibration=Calibration(**{name: _frozen(value) for name, value in saved["calibration"].items()}),
                setting=Setting(**saved["setting"]),
                prior=prior,
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} is damaged ({type(error).__name__}: {error}); run `medusa probe` again."
            ) from error


def is_probe(directory: Path | str) -> bool:
    """Return whether the config.json of a run directory says that a probe wrote it."""
    try:
        is_probe: bool = read_json((Path(directory) / CONFIG).read_text(encoding="utf-8")).get("kind") == KIND
        return is_probe
    except (OSError, ValueError, AttributeError):
        return False


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _rbf(x: NDArray[np.float32], support: NDArray[np.float32], bandwidth: float) -> NDArray[np.float64]:
    """Return (n, support rows) float64."""
    out = np.empty((len(x), len(support)))
    squares = np.square(support, dtype=np.float64).sum(1)
    for start in range(0, len(x), BATCH_ROWS):
        batch = x[start : start + BATCH_ROWS]
        distances = np.square(batch, dtype=np.float64).sum(1)[:, None] + squares - 2 * (batch @ support.T)
        out[start : start + len(batch)] = np.exp(-np.maximum(distances, 0) / (2 * bandwidth**2 * x.shape[1]))
    return out
