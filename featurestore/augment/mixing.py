"""Which clips a mixed view is made of: partners drawn without leaks, and kept as a feature set beside the view's.

The set `mixing/<label>` (such as mixing/mix1) holds a row per part of an utterance's mixed clip: columns `weight` (of
the part's targets) and `hash_0` ... `hash_3`, the part's key as the four 16-bit words, low first, of its hash.
"""

import bisect
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from featurestore.augment.views import AugmentedAudio, View
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError, ManifestError, StoreError
from featurestore.format.segment_info import hash_key
from featurestore.format.spec import FeatureSpec
from featurestore.sets.key_index import encode_key
from featurestore.store.feature_store import FeatureStore

OWN_WEIGHT = 0.5  # labels are averaged, whatever the clips' lengths
COLUMNS = ("weight", "hash_0", "hash_1", "hash_2", "hash_3")
AUTO, ANYWHERE = "auto", "none"  # of the option `within`


@dataclass(frozen=True)
class ViewedPart:
    """The training part of a manifest through a view: recordings in place of its files.

    partners: the other utterance of each one that is mixed with another. without_noise: those decoded so far to which
    no noise was added, as the excerpt drawn for them is silent.
    """

    manifest: Manifest
    view: View
    partners: Mapping[str, str]
    without_noise: list[str] = field(default_factory=list)

    def recording(self, i: int) -> AugmentedAudio:
        """Return row i's audio, decoded through the view; ManifestError where it, or its partner, has none."""
        key, audio = self.manifest.keys[i], self.manifest.audio(i)
        partner = self.partners.get(key)
        if partner is None:
            return AugmentedAudio(key, audio, self.view, None, self.without_noise)
        row = self._rows.get(partner)
        if row is None:
            raise ManifestError(
                f"{key!r} is mixed with {partner!r} in {mixing_name(self.view.label)}, which the manifest no longer "
                "has. Remove that set and the view's, and make them again."
            )
        return AugmentedAudio(key, audio, self.view, self.manifest.audio(row), self.without_noise)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.manifest.keys)}


def viewed_part(manifest: Manifest, view: View, store: FeatureStore | None = None, *, write: bool = True) -> ViewedPart:
    """Return a manifest's training part (split train, or all where there is no split) through a view.

    A mixed view's partners are those in the store's `mixing/<label>`; those of further utterances are drawn, and
    written there before anything is encoded. ConfigError where no column limits which utterances may be mixed.
    """
    part = training_part(manifest)
    if view.mix is None:
        return ViewedPart(part, view, {})
    drawn = partners(part.keys, _groups(part, view.mix.within), seed=view.seed, number=view.number)
    partner_of = {} if store is None else _kept(store, view, part.keys)
    if store is not None and write:
        _keep(store, view, {key: partner for key, partner in drawn.items() if key not in partner_of})
        partner_of = _kept(store, view, part.keys)  # what another process wrote meanwhile counts too
    chosen = drawn | partner_of
    return ViewedPart(part, view, {key: partner for key, partner in chosen.items() if partner is not None})


def partners(keys: Sequence[str], groups: Sequence[str], *, seed: int, number: int) -> dict[str, str | None]:
    """Another key of the same group for each key, None for one that is alone.

    A pure function of (key, seed, number) and the group's keys: all keys lie on a ring by one hash, and each takes the
    next one behind its own other hash. So a further utterance changes few partners, and order changes none.
    """
    rings: dict[str, list[tuple[bytes, str]]] = {}
    for key, group in zip(keys, groups, strict=True):
        rings.setdefault(group, []).append((_place("at", key, seed, number), key))
    for ring in rings.values():
        ring.sort()
    partner_of: dict[str, str | None] = {}
    for key, group in zip(keys, groups, strict=True):
        ring = rings[group]
        start = bisect.bisect_left(ring, (_place("from", key, seed, number), ""))
        nearest = (ring[(start + i) % len(ring)][1] for i in range(2))
        partner_of[key] = next((other for other in nearest if other != key), None)
    return partner_of


def mixing_name(label: str) -> str:
    """Return the set that records what the clips of a mixed view are made of."""
    return f"mixing/{label}"


def mixed_from(store: FeatureStore, label: str, keys: Sequence[str]) -> list[tuple[str | None, float] | None]:
    """Return, for each key, the utterance mixed into it in view `label` (None if none) and its own target's weight.

    None for a key that the set doesn't have, or whose partner is not among `keys`.
    """
    partner, weight, stored = mixed_places(store, label, keys)
    names = {-1: None} | dict(enumerate(keys))
    partners: list[tuple[str | None, float] | None] = []
    for i, is_stored in enumerate(stored):
        partners.append((names[int(partner[i])], float(weight[i])) if is_stored else None)
    return partners


def mixed_places(store: FeatureStore, label: str, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index into `keys` of each key's partner, (N,) int64, -1 for none; own weight, (N,) float32; is it known, (N,).

    Known: the set has the key, and its partner is one of `keys`.
    """
    features = store[mixing_name(label)]
    indices = np.flatnonzero(features.index.positions(list(keys)) >= 0)
    partner, weight = np.full(len(keys), -1, np.int64), np.ones(len(keys), np.float32)
    stored = np.zeros(len(keys), bool)
    if not len(indices):
        return partner, weight, stored
    place = {hash_key(encode_key(key)): i for i, key in enumerate(keys)}
    packed = features.gather([keys[i] for i in indices.tolist()], "parts")
    if set(packed.lengths.tolist()) - {1, 2}:
        raise StoreError(f"Feature set {features.name!r}: expected one part or two of each clip. Make the view again.")
    rows = packed.values.astype(np.float64)
    for j, i in enumerate(indices.tolist()):
        first, n = int(packed.offsets[j]), int(packed.lengths[j])
        stored[i] = True
        if n == 2:
            weight[i] = rows[first, 0]
            partner[i] = place.get(_hash_of(rows[first + 1]), -1)
            stored[i] = partner[i] >= 0
    return partner, weight, stored


def mixing_spec(view: View) -> FeatureSpec:
    return FeatureSpec("audio", "mixing", "none", ("parts",), len(COLUMNS), dtype="float32", columns=COLUMNS,
                       extra=view.pairs)  # fmt: skip


def check_mixing(store: FeatureStore, label: str, pairs: tuple[tuple[str, str], ...]) -> None:
    """Raise ConfigError when `mixing/<label>` is missing or belongs to a view of other settings."""
    name = mixing_name(label)
    if name not in store:
        raise ConfigError(f"View {label} mixes clips, and the store has no {name} that says which. Copy it, too.")
    if store[name].spec.view != pairs:
        raise ConfigError(f"{name} was made with other settings than view {label}; remove both, and make them again.")


def _kept(store: FeatureStore, view: View, keys: Sequence[str]) -> dict[str, str | None]:
    """Return the partners that the store has; one that is not in the manifest stands as its hash."""
    name = mixing_name(view.label)
    if name not in store:
        return {}
    features = store[name]
    features.check_spec(mixing_spec(view))
    by_hash = {hash_key(encode_key(key)): key for key in keys}
    partner_of: dict[str, str | None] = {}
    missing = set(features.missing(keys))
    for key in keys:
        if key not in missing:
            rows = features.array(key, "parts").astype(np.float64)
            code = None if len(rows) < 2 else _hash_of(rows[1])
            partner_of[key] = None if code is None else by_hash.get(code, f"hash:{code:016x}")
    return partner_of


def _keep(store: FeatureStore, view: View, chosen: dict[str, str | None]) -> None:
    if not chosen:
        return
    with store.writer(mixing_name(view.label), mixing_spec(view)) as writer:
        for key, partner in chosen.items():
            parts = [(1.0, key)] if partner is None else [(OWN_WEIGHT, key), (1 - OWN_WEIGHT, partner)]
            if key not in writer:
                writer.append(key, {"parts": np.array([[weight, *_words(part)] for weight, part in parts], np.float32)})


def _words(key: str) -> list[int]:
    code = hash_key(encode_key(key))
    return [code >> shift & 0xFFFF for shift in (0, 16, 32, 48)]


def _hash_of(row: np.ndarray) -> int:
    return sum(int(word) << shift for word, shift in zip(row[1:5], (0, 16, 32, 48), strict=True))


def training_part(manifest: Manifest) -> Manifest:
    """Return the utterances of split train, all where there is no split; ConfigError where no split is train."""
    if not manifest.has("split"):
        return manifest
    train = manifest.column("split") == "train"
    if not train.any():
        raise ConfigError(f"--augment: views are of training utterances, and no split of {manifest.name} is train.")
    return manifest.rows(train)


def _groups(manifest: Manifest, within: str) -> list[str]:
    """Return the groups (N,) within which partners are drawn, so that no held-out fold or split is learned from."""
    if within == ANYWHERE:
        return [""] * len(manifest)
    division_column = next((name for name in ("fold", "split") if manifest.has(name)), "")
    column = division_column if within == AUTO else within
    if not column:
        raise ConfigError(
            f"--augment mix: {manifest.name} has neither folds nor splits, so that a clip might be mixed with one that "
            "it is tested on. Make them with `medusa split`, name a column (mix:within=session), or mix:within=none."
        )
    return [str(value) for value in manifest.column(column).tolist()]


def _place(role: str, key: str, seed: int, number: int) -> bytes:
    return hashlib.blake2b(json.dumps([role, seed, number, key]).encode(), digest_size=16).digest()
