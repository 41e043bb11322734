"""Rows normalised by speaker or by corpus: each group's own mean and deviation, shrunk towards everyone's.

No label is read. The statistics of a speaker are those of all of that speaker's clips, of the judged part, too:
whatever comes of `--normalise speaker` is speaker-adapted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.training.checkpoint import save_atomically
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.errors import ConfigError, ManifestError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.rows import moments
from featurestore.runtime.json_text import read_json
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

Rows = list[tuple[Tensor, Tensor]]  # as `deepser.training.data.Rows`
Layer = tuple[str, str]  # a feature set and one of its layers
Prior = tuple[NDArray[np.floating], NDArray[np.floating]]  # mean and variance, (D,) each

LEAST_CLIPS = 2  # of a group: one clip says nothing of its speaker that is not the clip itself
CONSTANT = 1e-6  # of a dim's root mean square: a deviation below it is rounding
TOO_LARGE = 1e18  # float32 holds no square of more
BATCH_BYTES = 32 << 20  # of rows that are summed at once
SAVED = "normalisation"  # prefix of tensors in a member's weights, and name of the cache in its run directory


@dataclass(frozen=True, eq=False)
class Groups:
    """Who is normalised together: the group of each utterance, codes (N,), and how many clips each has, (G,).

    Group 0 is nobody's own: its members are normalised by the statistics of everyone. follows: (G,) of a running
    estimate, whose groups are single clips: the speaker of each, by the sums of whose groups so far it is normalised.
    """

    codes: NDArray[np.int64]
    n_clips: NDArray[np.int64]
    follows: NDArray[np.int64] | None = None

    @staticmethod
    def of(names: Sequence[str]) -> "Groups":
        """Return the groups of utterances by name; those of fewer than LEAST_CLIPS clips are put into group 0."""
        counts = Counter(names)
        code_of = {name: i for i, name in enumerate(sorted(n for n, c in counts.items() if c >= LEAST_CLIPS), start=1)}
        codes = np.array([code_of.get(name, 0) for name in names], np.int64)
        return Groups(codes, np.bincount(codes, minlength=len(code_of) + 1))

    @staticmethod
    def running(names: Sequence[str]) -> "Groups":
        """Return a group for each utterance, of its speaker's utterances up to and with it, in their order.

        The first LEAST_CLIPS - 1 of a speaker count as none.
        """
        counts: Counter[str] = Counter()
        n_clips = [0]
        for name in names:
            counts[name] += 1
            n_clips.append(counts[name] if counts[name] >= LEAST_CLIPS else 0)
        number = {name: i for i, name in enumerate(counts)}
        follows = np.array([-1, *(number[name] for name in names)], np.int64)
        return Groups(np.arange(1, len(names) + 1, dtype=np.int64), np.array(n_clips, np.int64), follows)

    @staticmethod
    def named(kind: str, manifest: Manifest) -> "Groups":
        """Return the groups of a manifest's utterances: its speakers, or its corpora (one, where it names none)."""
        if kind == "speaker":
            check_speakers(manifest)
            return Groups.of(speaker_groups(manifest).tolist())
        return Groups.of(corpora_of(manifest))

    @property
    def digest(self) -> str:
        """Changes with who is in which group."""
        return hashlib.blake2b(self.codes.tobytes(), digest_size=8).hexdigest()


def corpora_of(manifest: Manifest) -> list[str]:
    """Return the corpus of each utterance; "" where the manifest has no such column."""
    return [str(name) for name in manifest.column("corpus")] if manifest.has("corpus") else [""] * len(manifest)


def check_speakers(manifest: Manifest) -> None:
    """Raise ManifestError where no speaker is known."""
    if not manifest.has("speaker"):
        raise ManifestError(f"{manifest.name} has no 'speaker' column, so --normalise speaker can't be had.")
    if not any(str(group).startswith("s:") for group in speaker_groups(manifest)):
        raise ManifestError(f"No speaker is known in {manifest.name}, so --normalise speaker can't be had.")


class GroupSums:
    """Sums over the rows of each group, (G, D) float64, added batch by batch."""

    def __init__(self, n_groups: int, dim: int) -> None:
        self.n = np.zeros(n_groups)
        self.first = np.zeros((n_groups, dim))
        self.second = np.zeros((n_groups, dim))

    def add(
        self,
        means: NDArray[np.float32],
        codes: NDArray[np.int64],
        deviations: NDArray[np.float32] | None = None,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        """Add clips (n, D) by their means over time and, of more than one row, their deviations and numbers of rows."""
        for group in np.unique(codes):
            in_group = codes == group
            mean = means[in_group].astype(np.float64)
            square = mean**2 if deviations is None else mean**2 + deviations[in_group].astype(np.float64) ** 2
            weight = np.ones(len(mean)) if lengths is None else lengths[in_group].astype(np.float64)
            self.n[group] += weight.sum()
            self.first[group] += weight @ mean
            self.second[group] += weight @ square

    def prior(self) -> Prior:
        """Mean and variance of all rows, (D,) float64 each."""
        mean = self.first.sum(0) / max(self.n.sum(), 1)
        return mean, np.maximum(self.second.sum(0) / max(self.n.sum(), 1) - mean**2, 0)

    def statistics(self, groups: Groups, shrinkage: float, prior: Prior | None = None) -> "GroupStatistics":
        """Each group's statistics.

        With n clips of a group, weight w = n / (n + shrinkage): the mean is w m + (1 - w) M, and the second moment
        about it is blended likewise, where M and the variance beside it are `prior`, by default those of all rows.
        This is the posterior mean under a prior worth `shrinkage` clips. Group 0 has the prior alone.
        """
        total_mean, total_variance = self.prior() if prior is None else prior
        sums, first, second = (_so_far(each, groups.follows) for each in (self.n, self.first, self.second))
        weight = groups.n_clips / np.maximum(groups.n_clips + shrinkage, 1e-12)
        weight[0] = 0
        weight = weight[:, None]
        n = np.maximum(sums, 1)[:, None]
        group_mean = first / n
        variance = np.maximum(second / n - group_mean**2, 0)
        mean = weight * group_mean + (1 - weight) * total_mean
        # The group's own rows lie around its own mean, which is off the blended one.
        off = weight * (1 - weight) * (group_mean - total_mean) ** 2
        inverse = inverse_std_of(mean, weight * variance + (1 - weight) * total_variance + off)
        return GroupStatistics(mean.astype(np.float32), inverse)


def _so_far(sums: NDArray[np.float64], follows: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return the sums of each group (G, ...) with those of the groups of its speaker before it."""
    if follows is None:
        return sums
    running_sums = sums.copy()
    for speaker in np.unique(follows):
        of_speaker = follows == speaker
        running_sums[of_speaker] = sums[of_speaker].cumsum(0)
    return running_sums


@dataclass(frozen=True, eq=False)
class GroupStatistics:
    """Mean and inverse deviation of each group's rows, (G, D) float32, shrunk towards all rows."""

    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]

    @staticmethod
    def of(
        rows: NDArray[np.float32], groups: Groups, shrinkage: float, prior: Prior | None = None
    ) -> "GroupStatistics":
        """Return the statistics of one row for each utterance, (N, D); see `GroupSums.statistics`."""
        sums = GroupSums(len(groups.n_clips), rows.shape[1])
        sums.add(rows, groups.codes)
        return sums.statistics(groups, shrinkage, prior)

    def apply(self, rows: NDArray[np.float32], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows (N, D) less their group's mean, by its deviation."""
        return (rows - self.mean[codes]) * self.inverse_std[codes]


def inverse_std_of(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Inverse standard deviations, float32; 0 where a dim is constant but for rounding."""
    std = np.sqrt(np.maximum(variance, 0))
    live = std > CONSTANT * np.sqrt(np.maximum(variance, 0) + mean**2)
    return np.where(live, 1 / np.where(live, std, 1), 0).astype(np.float32)


@dataclass(eq=False)
class Normalisation:
    """How stored rows are normalised on reading. The statistics of a layer are made when `prepare` first needs them.

    kind: "speaker" or "corpus". priors: of layers whose statistics are shrunk towards those of another corpus, the
    training corpus when new audio is predicted.
    """

    kind: str
    groups: Groups
    shrinkage: float
    priors: dict[Layer, Prior] = field(default_factory=dict)
    statistics: dict[Layer, GroupStatistics] = field(default_factory=dict)
    _stacked: dict[Any, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @property
    def identity(self) -> str:
        """Changes with kind, groups and shrinkage."""
        return f"{self.kind}, shrinkage {self.shrinkage:g}, groups {self.groups.digest}"

    def to_json(self) -> dict[str, Any]:
        """For a member's config.json."""
        n_clips = self.groups.n_clips[1:]
        return {
            "kind": self.kind, "shrinkage": self.shrinkage, "groups": self.groups.digest, "n_groups": len(n_clips),
            "fewest_clips": int(n_clips.min(initial=0)), "without_a_group": int(self.groups.n_clips[0]),
        }  # fmt: skip

    def prepare(self, store: FeatureStore, refs: Sequence[FeatureRef], keys: Sequence[str]) -> None:
        """Make the statistics of the layers that `refs` name, where they are not there yet; reads every clip once."""
        for ref in refs:
            for layer in ref.layers:
                if (ref.name, layer) not in self.statistics:
                    sums = _sums_of(store[ref.name], layer, keys, self.groups)
                    prior = self.priors.setdefault((ref.name, layer), sums.prior())
                    self.statistics[ref.name, layer] = sums.statistics(self.groups, self.shrinkage, prior)

    def apply(self, refs: Sequence[FeatureRef], clips: NDArray[np.int64], rows: Rows) -> Rows:
        """Normalise the rows of a batch's clips, (L, sum T, D) for each feature set.

        clips (B,): index into the utterances; beyond them, in augmented views, the same speakers follow again.
        """
        codes = torch.from_numpy(self.groups.codes[clips % len(self.groups.codes)])
        return [(self._applied(ref, codes, values, offsets), offsets) for ref, (values, offsets) in
                zip(refs, rows, strict=True)]  # fmt: skip

    def _applied(self, ref: FeatureRef, codes: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
        mean, inverse_std = self._tensors(ref, values.device)
        if values.device.type == "cpu" and values.shape[1] > len(codes):
            out = torch.empty_like(values)
            for i, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
                group, clip_rows = int(codes[i]), out[:, start:end]
                torch.sub(values[:, start:end], mean[:, group, None], out=clip_rows)
                clip_rows.mul_(inverse_std[:, group, None])
            return out
        row_codes = torch.repeat_interleave(codes, offsets.cpu().diff()).to(values.device, non_blocking=True)
        return torch.sub(values, mean[:, row_codes]).mul_(inverse_std[:, row_codes])

    def _tensors(self, ref: FeatureRef, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return means and inverse deviations (L, G, D) of a feature set's layers on a device."""
        if (ref, device) not in self._stacked:
            statistics = [self.statistics[ref.name, layer] for layer in ref.layers]
            pair = (np.stack([s.mean for s in statistics]), np.stack([s.inverse_std for s in statistics]))
            self._stacked[ref, device] = (torch.from_numpy(pair[0]).to(device), torch.from_numpy(pair[1]).to(device))
        return self._stacked[ref, device]

    def prior_tensors(self, refs: Sequence[FeatureRef]) -> dict[str, Tensor]:
        """Mean and variance of everyone's rows, (D,) float32, as a member's weights keep them for new audio."""
        return {
            f"{SAVED}/{ref.name}/{layer}/{what}": torch.from_numpy(np.asarray(value, np.float32))
            for ref in refs
            for layer in ref.layers
            for what, value in zip(("mean", "variance"), self.priors[ref.name, layer], strict=True)
        }

    def save(self, path: Path, refs: Sequence[FeatureRef], made_of: Mapping[str, str]) -> None:
        """Keep the statistics of layers with where they come from: `made_of`, the sets' fingerprints and the keys'."""
        tensors = self.prior_tensors(refs)
        for ref in refs:
            for layer in ref.layers:
                statistics = self.statistics[ref.name, layer]
                tensors[f"{ref.name}/{layer}/mean"] = torch.from_numpy(statistics.mean)
                tensors[f"{ref.name}/{layer}/inverse_std"] = torch.from_numpy(statistics.inverse_std)
        save_atomically(tensors, path, {"made_of": json.dumps({**made_of, "normalisation": self.identity})})

    def restore(self, path: Path, refs: Sequence[FeatureRef], made_of: Mapping[str, str]) -> bool:
        """Take what `save` kept, if it is there and was made of the same; returns whether it was."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                if read_json(file.metadata()["made_of"]) != {**made_of, "normalisation": self.identity}:
                    return False
                for ref in refs:
                    for layer in ref.layers:
                        place, ref_layer = f"{ref.name}/{layer}", (ref.name, layer)
                        statistics = [file.get_tensor(f"{place}/{what}") for what in ("mean", "inverse_std")]
                        self.statistics[ref_layer] = GroupStatistics(*statistics)
                        prior = [file.get_tensor(f"{SAVED}/{place}/{what}") for what in ("mean", "variance")]
                        self.priors[ref_layer] = (prior[0], prior[1])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return False
        return True


def without_prior(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[Layer, Prior]]:
    """Divide a fold's saved weights into the network's own and the priors of `Normalisation.prior_tensors`."""
    network = {name: value for name, value in state.items() if not name.startswith(f"{SAVED}/")}
    means = [name for name in state if name.startswith(f"{SAVED}/") and name.endswith("/mean")]
    priors: dict[Layer, Prior] = {}
    for name in means:
        place = name.removesuffix("/mean")
        features, _, layer = place.removeprefix(f"{SAVED}/").rpartition("/")
        priors[features, layer] = (state[name].numpy(), state[f"{place}/variance"].numpy())
    return network, priors


def _sums_of(features: FeatureSet, layer: str, keys: Sequence[str], groups: Groups) -> GroupSums:
    """Return the sums over a layer's rows of each group; ConfigError names a clip that holds no numbers."""
    sums = GroupSums(len(groups.n_clips), features.dim)
    lengths = features.lengths(keys)
    batch = np.cumsum(lengths) * features.dim * features.dtype.itemsize // BATCH_BYTES
    for number in np.unique(batch):
        indices = np.flatnonzero(batch == number)
        packed = features.gather([keys[i] for i in indices.tolist()], layer)
        pooled = moments.mean_std(packed.values, packed.offsets)
        sound = np.abs(pooled).max(1, initial=0) < TOO_LARGE  # false for NaN
        if not sound.all():
            key = keys[int(indices[int(sound.argmin())])]
            raise ConfigError(
                f"Feature set {features.name!r}, {layer}, holds NaN, infinity or values beyond {TOO_LARGE:g} for "
                f"{key!r}. Encode or import this utterance again, or leave it out of the manifest."
            )
        sums.add(pooled[:, : features.dim], groups.codes[indices], pooled[:, features.dim :], lengths[indices])
    return sums


def new_groups(kind: str, n: int, speakers: Sequence[str] | None, running: bool = False) -> Groups:
    """Return the groups of n utterances of new audio.

    Without speakers each clip has the training corpus's statistics. running: by the utterances so far, not by all.
    """
    names = [""] * n if kind == "corpus" else [str(i) for i in range(n)] if speakers is None else list(speakers)
    return Groups.running(names) if running else Groups.of(names)
