"""What a feature set has already: left as it is where it was made from the same data, else refused or made again."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from featurestore.audio import decode_pass, in_passes
from featurestore.errors import AudioError, ConfigError
from featurestore.featurize.items import Failures, Item
from featurestore.sets.compact import drop
from featurestore.sets.conflicts import conflicting_keys
from featurestore.sets.sources import Comparison, Digests, Recorder, compare, refuse

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore

MISMATCHED = "mismatched"
REMEDY = (
    "Ids must mean one thing in a store: give this corpus ids of its own, or encode it into another set (--name) or "
    "store (-s). Where the data was changed on purpose, `--again mismatched` encodes these utterances again."
)


@dataclass(frozen=True)
class Again:
    """Which utterances are encoded again although the set has them: these keys, or all that don't match.

    mismatched: also those of which the set has two copies, made from different data.
    """

    keys: frozenset[str] = frozenset()
    mismatched: bool = False

    @classmethod
    def parse(cls, texts: Sequence[str], manifest: Manifest) -> Again:
        """Read KEY, KEY,KEY or "mismatched" each; ConfigError for a key that the manifest lacks."""
        manifest_keys, keys, mismatched = set(manifest.keys), set(), False
        for text in texts:
            for key in [text] if text in manifest_keys else [part.strip() for part in text.split(",")]:
                if key == MISMATCHED and key not in manifest_keys:
                    mismatched = True
                elif key in manifest_keys:
                    keys.add(key)
                else:
                    near = difflib.get_close_matches(key, manifest.keys, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else "."
                    raise ConfigError(f"--again {key}: expected {MISMATCHED}, or ids that the manifest has{hint}")
        return cls(frozenset(keys), mismatched)


@dataclass(frozen=True)
class Present:
    """What the set has. n: utterances that stay. n_again: that are encoded again. comparison: with today's data.

    failed: (key, reason) of those that were to be encoded again and whose audio can't be decoded; their rows stay.
    """

    n: int = 0
    n_again: int = 0
    comparison: Comparison = field(default_factory=Comparison)
    failed: Failures = field(default_factory=list)


def to_encode(
    items: Sequence[Item],
    store: FeatureStore | None,
    name: str,
    *,
    verify_audio: bool = False,
    again: Again | None = None,
    workers: int = 2,
    write: bool = True,
    beside: Collection[str] = (),
) -> tuple[list[Item], Present]:
    """Return the items that the set `name` lacks, each with a recorder of what it is made from, and what the set has.

    Utterances to be encoded again are removed from the set, unless write=False, where their audio can be decoded: rows
    are not given up for none. beside: the keys of which `items` are a
    shard; of those, too, both of two copies made from different data are removed, since none can be removed alone.
    IdentityMismatch where the set has an id that was made from other data; see `sources.compare`.
    """
    lacking, present = _lacking(items, store, name, verify_audio, again or Again(), workers, write, beside)
    digests = Digests()
    return [replace(item, recorder=Recorder(item.source, digests)) for item in lacking], present


def _lacking(
    items: Sequence[Item],
    store: FeatureStore | None,
    name: str,
    verify_audio: bool,
    again: Again,
    workers: int,
    write: bool,
    beside: Collection[str],
) -> tuple[list[Item], Present]:
    if store is None or name not in store:
        return list(items), Present()
    features = store[name]
    conflicting: set[str] = set()
    if again.mismatched:
        conflicting = features.reading(conflicting_keys)
        features.refresh()  # another shard may have removed them meanwhile
    absent = set(features.missing([item.key for item in items]))
    present = {item.key: item.source for item in items if item.key not in absent | again.keys}
    # A shard may lack the partner whose piece was changed, or find its record made anew by another shard.
    comparison = compare(present, features, verify=verify_audio, verify_mixtures=again.mismatched, workers=workers)
    redone = {item.key for item in items} & again.keys - absent
    if again.mismatched:
        redone |= {mismatch.key for mismatch in comparison.mismatches}
        redone |= conflicting.intersection(present)
    else:
        refuse(features, comparison, REMEDY)
    failed: Failures = []
    if write:  # of two conflicting copies neither may stay
        failed = _undecodable([item for item in items if item.key in redone - conflicting], workers)
        redone -= {key for key, _ in failed}
    if write and (redone or not conflicting.isdisjoint(beside)):
        drop(features, sorted(redone), conflicting=beside if again.mismatched else ())
    lacking = [item for item in items if item.key in absent or item.key in redone]
    return lacking, Present(len(items) - len(lacking) - len(failed), len(redone), comparison, failed)


def _undecodable(items: Sequence[Item], workers: int) -> Failures:
    """Return (key, reason) of those whose audio can't be decoded."""
    audio = [item for item in items if not isinstance(item.source, str)]
    sources = [item.source for item in audio]

    def failures(group: list[int]) -> Failures:
        outcomes = decode_pass([sources[i] for i in group])
        return [
            (audio[i].key, f"{outcome} What {audio[i].key!r} has in the set stays.")
            for i, outcome in zip(group, outcomes, strict=True)
            if isinstance(outcome, AudioError)
        ]

    with ThreadPoolExecutor(max(1, workers), "decode") as pool:
        return [failure for found in pool.map(failures, in_passes(sources)) for failure in found]
