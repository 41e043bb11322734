"""Augmented views of the training clips, beside the clean sets: which there are, and how they are read and labelled.

With V views of N utterances, clip k * N + i is utterance i in view k, and clip i the utterance as it is (k = 0).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepser.config import ALL_VIEWS
from featurestore.augment.mixing import check_mixing, mixed_places, mixing_name
from featurestore.augment.views import differences_of_view
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.loaders.row_reader import Buffer, RowReader, beside_each_other
from featurestore.rows.packed import Packed
from featurestore.store.feature_store import FeatureStore

Indices = NDArray[np.int64]


def _none() -> NDArray[Any]:
    return np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Views:
    """V views of N utterances: which clips there are, and what is mixed into them; by default none."""

    labels: tuple[str, ...] = ()
    exists: NDArray[np.bool_] = field(default_factory=_none)  # (V, N): every audio set has it, its partner is known
    partner: Indices = field(default_factory=_none)  # (V, N): the utterance that is mixed in, -1 for none
    weight: NDArray[np.float32] = field(default_factory=_none)  # (V, N): of the own targets beside the partner's
    sets: tuple[tuple[str, str], ...] = ()  # (name, fingerprint) of every feature set of a view

    @classmethod
    def of(cls, store: FeatureStore, refs: Sequence[FeatureRef], labels: Sequence[str], keys: Sequence[str]) -> "Views":
        """Return views by label, for members that read `refs`: `NAME+label` of each audio set, and a text set as it is.

        ConfigError where a set is missing, made in another way than the clean one, or made of another view.
        """
        if not labels:
            return cls()
        audio = [ref for ref in refs if is_audio(store, ref.name)]
        if not audio:
            raise ConfigError(f"--views {','.join(labels)}: views are of audio, and no feature set read here is.")
        n, sets = len(keys), []
        has_view = np.ones((len(labels), n), bool)
        partner, weight = np.full((len(labels), n), -1, np.int64), np.ones((len(labels), n), np.float32)
        for k, label in enumerate(labels):
            pairs_of: dict[str, tuple[tuple[str, str], ...]] = {}
            for ref in audio:
                name = view_name(ref.name, label)
                _check_set(store, ref, name)
                view_features = store[name]
                pairs_of[name] = view_features.spec.view
                sets.append((name, view_features.spec.fingerprint))
                has_view[k] &= view_features.index.positions(list(keys)) >= 0
            pairs = next(iter(pairs_of.values()))
            differing = [name for name, other in pairs_of.items() if other != pairs]
            if differing:
                raise ConfigError(
                    f"{differing[0]} and {next(iter(pairs_of))} are other views, though both are {label}."
                )
            if is_mixed(pairs):
                check_mixing(store, label, pairs)
                partner[k], weight[k], has_partner = mixed_places(store, label, keys)
                has_view[k] &= has_partner
                sets.append((mixing_name(label), store[mixing_name(label)].spec.fingerprint))
        return cls(tuple(labels), has_view, partner, weight, tuple(sets))

    def available(self, train_at: Indices) -> NDArray[np.bool_]:
        """Return (V, N): which clips `train_at` allows to learn from; mixed ones only if it has the partner too.

        So no model learns from what it is judged or selected on, however folds were made and partners drawn.
        """
        if not self.labels:
            return np.zeros((0, 0), bool)
        learned: NDArray[np.bool_] = np.zeros(self.exists.shape[1], np.bool_)
        learned[train_at] = True
        return self.exists & ((self.partner < 0) | learned[self.partner])

    def soft(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map class targets (N, C) -> ((1 + V) N, C) for every clip; of mixed clips the weighted mean.

        A mixed clip of which one part has no class target has none.
        """
        if not self.labels:
            return targets
        has_target: NDArray[np.bool_] = targets.sum(1) > 0
        return np.concatenate(
            [targets, *(np.where((has_target & has_target[p])[:, None], m, 0) for p, m in self._mixed(targets))]
        )

    def attributes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map attributes (N, A) -> ((1 + V) N, A) for every clip; of mixed clips the weighted mean, NaN if one is."""
        if not self.labels:
            return values
        return np.concatenate([values, *(mixed for _, mixed in self._mixed(values))])

    def lengths(self, store: FeatureStore, name: str, keys: Sequence[str]) -> Indices:
        """Return ((1 + V) N,) rows of every clip in feature set `name`; for a missing view, the utterance's."""
        clean = store[name].lengths(list(keys))
        lengths = [clean]
        for k, label in enumerate(self.labels):
            if is_audio(store, name):
                of_view, indices = clean.copy(), np.flatnonzero(self.exists[k])
                of_view[indices] = store[view_name(name, label)].lengths([keys[i] for i in indices.tolist()])
            else:
                of_view = clean + np.where(self.partner[k] >= 0, clean[self.partner[k]], 0)
            lengths.append(of_view)
        return np.concatenate(lengths)

    @property
    def identity(self) -> str:
        """What of the views decides which clips are drawn and what they are; "" without views."""
        if not self.labels:
            return ""
        digest = hashlib.blake2b(repr(self.sets).encode(), digest_size=8)
        for part in (self.exists, self.partner, self.weight):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """For a member's config.json."""
        counts = {label: int(of_label.sum()) for label, of_label in zip(self.labels, self.exists, strict=True)}
        return {"sets": dict(self.sets), "utterances": counts, "clips": self.identity}

    def _mixed(self, values: NDArray[np.float32]) -> Iterator[tuple[Indices, NDArray[np.float32]]]:
        """Each view's partners, an utterance's own index where there is none, and the mixed values."""
        for partner, weight in zip(self.partner, self.weight, strict=True):
            unmixed = partner < 0
            partner = np.where(unmixed, np.arange(len(partner)), partner)
            mixed = weight[:, None] * values + (1 - weight[:, None]) * values[partner]
            yield partner, np.where(unmixed[:, None], values, mixed).astype(np.float32)


@dataclass(frozen=True)
class ClipReader:
    """Reads one feature set's rows of clips, indices into utterances and their views, sorted by view.

    readers: of the clean set and of each view's; a text encoder's are all the clean one, and of a mixed clip it reads
    the rows of both utterances, one after the other (`joins`).
    """

    keys: tuple[str, ...]
    views: Views
    readers: tuple[RowReader, ...]
    joins: bool

    @classmethod
    def of_refs(cls, store: FeatureStore, refs: Sequence[FeatureRef], keys: Sequence[str], views: Views, stride: int,
                dtype: str) -> "list[ClipReader]":  # fmt: skip
        """Return one for each reference."""
        joins = [not is_audio(store, ref.name) for ref in refs]
        flat = beside_each_other([
            RowReader(store[name], ref.resolve(store[ref.name]), stride, dtype)
            for ref, joined in zip(refs, joins, strict=True)
            for name in [ref.name, *(ref.name if joined else view_name(ref.name, label) for label in views.labels)]
        ])  # fmt: skip
        n = 1 + len(views.labels)
        return [cls(tuple(keys), views, tuple(flat[i * n : (i + 1) * n]), joins[i]) for i in range(len(refs))]

    def n_bytes(self, clips: Sequence[int]) -> int:
        return sum(reader.n_bytes(keys) for reader, keys, _ in self._runs(clips))

    def announce(self, clips: Sequence[int]) -> None:
        for reader, keys, _ in self._runs(clips):
            reader.announce(keys)

    def read(self, clips: Sequence[int], buffer: Buffer) -> Packed:
        """Read as `RowReader.read` does, straight into `buffer`."""
        runs, first = list(self._runs(clips)), self.readers[0]
        lengths = [
            np.add.reduceat(-(-reader.features.lengths(keys) // reader.stride), starts)
            for reader, keys, starts in runs
        ]  # fmt: skip
        offsets = buffer.take((len(clips) + 1,), "int64")
        offsets[0] = 0
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]), out=offsets[1:])
        values = buffer.take((len(first.layers), int(offsets[-1]), first.features.dim), first.dtype)
        start = 0
        for (reader, keys, _), of_run in zip(runs, lengths, strict=True):
            end = start + int(of_run.sum())
            reader.read(keys, _Part(values[:, start:end]))
            start = end
        return Packed(values, offsets)

    def _runs(self, clips: Sequence[int]) -> Iterator[tuple[RowReader, list[str], Indices]]:
        """Per view that occurs: its reader, the keys to read, and where in them each clip begins."""
        view, rows = np.divmod(np.asarray(clips, np.int64), len(self.keys))
        assert (np.diff(view) >= 0).all()
        for k in np.unique(view).tolist():
            of_view = rows[view == k]
            if k and self.joins:
                pairs = np.stack([of_view, self.views.partner[k - 1, of_view]], 1)
                is_mixed = pairs >= 0
                starts = np.r_[0, np.cumsum(is_mixed.sum(1))[:-1]]
                of_view = pairs[is_mixed]
            else:
                starts = np.arange(len(of_view))
            yield self.readers[k], [self.keys[i] for i in of_view], starts


class _Part(Buffer):
    """A place in a larger array for one reader's rows."""

    def __init__(self, values: NDArray[Any]) -> None:
        super().__init__()
        self._values = values

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        if len(shape) == 1:
            return super().take(shape, dtype)
        assert shape == self._values.shape
        return self._values


def by_view(clips: Indices, n: int) -> Indices:
    """Return the clips in the order in which they are read: by view, else as they were."""
    return clips[np.argsort(clips // n, kind="stable")]


def view_name(base: str, label: str) -> str:
    return f"{base}+{label}"


def is_audio(store: FeatureStore, name: str) -> bool:
    return store[name].spec.kind == "audio"


def is_mixed(view: Iterable[tuple[str, str]]) -> bool:
    """Return whether a specification's `view` mixes clips of two utterances."""
    return dict(view).get("view", "").startswith("mix")


def resolve_views(store: FeatureStore, features: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return views by label as they are, or for "all" those that the store has of every audio set among `features`."""
    if tuple(labels) != (ALL_VIEWS,):
        return tuple(labels)
    names = {FeatureRef.parse(text).name for text in features}
    of_each = [
        {name.removeprefix(f"{base}+") for name in store.names()
         if name.startswith(f"{base}+") and store[name].spec.view}
        for base in sorted(names) if is_audio(store, base)
    ]  # fmt: skip
    return tuple(sorted(set.intersection(*of_each))) if of_each else ()


def _check_set(store: FeatureStore, ref: FeatureRef, name: str) -> None:
    label = name.removeprefix(f"{ref.name}+")
    if name not in store:
        view_names = ", ".join(resolve_views(store, [ref.name], [ALL_VIEWS])) or "none"
        raise ConfigError(
            f"--views {label}: the store has no feature set {name}; of {ref.name} there are: {view_names}. Make it "
            "with `medusa featurize --augment`."
        )
    clean, view_spec = store[ref.name].spec, store[name].spec
    if not view_spec.view:
        raise ConfigError(f"--views {label}: {name} records no augmentation, so it is not a view of {ref.name}.")
    if differences := differences_of_view(clean, view_spec):
        raise ConfigError(f"{name} is no view of {ref.name}, which was made in another way: {'; '.join(differences)}.")
    ref.resolve(store[name])
