"""Copying feature sets between a local store and one at any URL: whole segments, none twice, none half.

A reader of the target sees a segment whole or not at all. In a local directory that is a rename; elsewhere a segment's
files are copied first and its zarr.json last, without which it counts for nothing (an .h5 file is one object).
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featurestore.errors import SpecMismatch, StoreError
from featurestore.format.files import url_of
from featurestore.format.hdf5_segment import SUFFIX
from featurestore.format.segment import is_segment_name
from featurestore.format.segment_info import SegmentInfo
from featurestore.format.spec import FeatureSpec, check_set_name
from featurestore.format.zarr3 import chunk_file
from featurestore.remote.access import RemoteDirectory
from featurestore.sets.feature_set import SET_VERSION
from featurestore.store.feature_store import FeatureStore
from featurestore.transfer.conflicts import check_no_conflict, only_there
from featurestore.transfer.targets import (
    Count,
    LocalTarget,
    Plan,
    Progress,
    RemoteTarget,
    Target,
    Work,
    attributes_of,
    groups_above,
    is_whole,
)

N_THREADS = 8


@dataclass(frozen=True)
class Copied:
    """What came of one feature set: names of segments, and the bytes of those copied.

    kept: segments that were not pruned, with the number of their utterances that the source lacks.
    """

    name: str
    copied: tuple[str, ...]
    skipped: tuple[str, ...]
    removed: tuple[str, ...]
    n_bytes: int
    kept: dict[str, int] = field(default_factory=dict)


def push(
    store: str | os.PathLike[str],
    url: str,
    names: Sequence[str] | None = None,
    *,
    verify: bool = True,
    prune: bool = False,
    progress: Progress | None = None,
) -> list[Copied]:
    """Copy the segments that the store at `url` (or directory) lacks; it is created where there is none.

    names: of feature sets, default all. verify: compare every checksum of a segment before it is copied. prune: then
    remove segments that the source no longer has, such as those that were compacted; not those with utterances that the
    source lacks, such as another machine's, unless they hold others that it replaces. An interrupted push goes on where
    it was. Raises SpecMismatch when the target has other features under a name; StoreError names what is damaged,
    missing or refused, or an utterance that the target has of other data under the same id (but not with prune).
    """
    if url_of(store) is not None:
        raise StoreError(f"{store} is a URL: pull it first, and push from the directory.")
    FeatureStore.open(store)  # says what is there when it is no store
    return _copy(RemoteDirectory(os.path.abspath(store)), RemoteDirectory(url), names, verify, prune, True, progress)


def pull(
    url: str,
    store: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> list[Copied]:
    """Copy the segments that a local store lacks from the one at `url` (or directory), as `push` does.

    verify: compare every checksum of a segment before it is taken up.
    """
    if url_of(store) is not None:
        raise StoreError(f"{store} is a URL: a store is pulled into a directory.")
    return _copy(RemoteDirectory(url), RemoteDirectory(os.path.abspath(store)), names, verify, False, False, progress)


def _copy(
    source: RemoteDirectory,
    to: RemoteDirectory,
    names: Sequence[str] | None,
    verify: bool,
    prune: bool,
    listings: bool,
    progress: Progress | None,
) -> list[Copied]:
    if "medusa_store" not in (attributes_of(source, "") or {}):
        raise StoreError(f"{source.url} is not a feature store: its zarr.json is missing or does not mark one.")
    target: Target = RemoteTarget(to) if to.local is None else LocalTarget(to, to.local, listings)
    chosen = sorted(_set_names(source, "") if names is None else {check_set_name(name) for name in names})
    specs = {name: _spec(source, name) for name in chosen}
    for name, spec in specs.items():
        _check_target(to, name, spec)
    with ThreadPoolExecutor(N_THREADS, "copy") as threads:
        source_segments = {name: _segments(source, name, threads) for name in chosen}
        target_segments = {name: _segments(to, name, threads) for name in chosen}
        kept: dict[str, dict[str, int]] = {}
        for name in chosen:
            if surplus := set(target_segments[name]) - set(source_segments[name]):
                source_set, target_set = (FeatureStore.open(each.local or each.url)[name] for each in (source, to))
                if prune:
                    kept[name] = only_there(source_set, target_set, surplus)
                else:
                    check_no_conflict(source_set, target_set, to.url, has_prune=listings)
        plans = {
            name: [
                _plan(source, name, each, spec, threads)
                for each in source_segments[name]
                if each not in target_segments[name]
            ]
            for name, spec in specs.items()
        }
        count = Count(sum(plan.n_bytes for each in plans.values() for plan in each), progress)
        target.create_store()
        reports = []
        for name, spec in specs.items():
            count.what = name
            target.create_set(name, source.read(f"{name}/zarr.json"))
            for plan in plans[name]:
                target.take(plan, Work(source, name, spec, verify, threads, count))
            stays = {*source_segments[name], *kept.get(name, {})}
            pruned = [segment for segment in target_segments[name] if prune and segment not in stays]
            target.finish(name, pruned)
            copied = tuple(plan.name for plan in plans[name])
            skipped = tuple(segment for segment in source_segments[name] if segment in target_segments[name])
            n_bytes = sum(plan.n_bytes for plan in plans[name])
            reports.append(Copied(name, copied, skipped, tuple(pruned), n_bytes, kept.get(name, {})))
    return reports


def _plan(source: RemoteDirectory, name: str, segment: str, spec: FeatureSpec, threads: ThreadPoolExecutor) -> Plan:
    files = [segment] if segment.endswith(SUFFIX) else _segment_files(source, name, segment, spec)
    try:
        sizes = [n_bytes or 0 for n_bytes, _ in threads.map(source.stat, [f"{name}/{file}" for file in files])]
    except FileNotFoundError as error:
        raise StoreError(f"{error} is missing: its segment is damaged, or was removed just now.") from error
    return Plan(segment, dict(zip(files, sizes, strict=True)))


def _segment_files(source: RemoteDirectory, name: str, segment: str, spec: FeatureSpec) -> list[str]:
    """Every file of a Zarr segment, relative to the feature set, its own zarr.json last."""
    info = SegmentInfo.from_attributes(attributes_of(source, f"{name}/{segment}") or {}, spec, Path(segment))
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(spec.layers, (info.layout.n_rows, spec.dim))
    shapes |= {array: shape for array, (shape, _) in info.shapes().items()}
    files = []
    for array, shape in shapes.items():
        if np.prod(shape):  # Zarr leaves empty chunks out
            files.append(chunk_file(Path(segment) / array, len(shape)).as_posix())
        files.append(f"{segment}/{array}/zarr.json")
    return [*files, f"{segment}/zarr.json"]


def _segments(place: RemoteDirectory, name: str, threads: ThreadPoolExecutor) -> list[str]:
    """Return the names of the segments that are whole, sorted."""
    names = [entry for entry in place.names(name) if is_segment_name(entry)]
    whole = threads.map(lambda entry: is_whole(place, name, entry), names)
    return [entry for entry, each in zip(names, whole, strict=True) if each]


def _set_names(place: RemoteDirectory, group: str) -> list[str]:
    """Feature sets in a group, by their whole names."""
    names: list[str] = []
    for entry in place.names(group):
        below = f"{group}/{entry}".lstrip("/")
        attributes = None if entry.startswith(".") or entry == "zarr.json" else attributes_of(place, below)
        if attributes is not None:
            names += [below] if "medusa_set" in attributes else _set_names(place, below)
    return names


def _spec(place: RemoteDirectory, name: str) -> FeatureSpec:
    """Return the specification of a feature set; StoreError when there is no such set, or its metadata is damaged."""
    attributes = attributes_of(place, name)
    if attributes is None or attributes.get("medusa_set") != SET_VERSION:
        set_names = ", ".join(_set_names(place, "")) or "none"
        raise StoreError(f"{place.url} has no feature set {name!r} of version {SET_VERSION}; it has {set_names}.")
    spec = FeatureSpec.from_json(attributes.get("spec", {}))
    if attributes.get("fingerprint") != spec.fingerprint:
        raise StoreError(f"{place.url_of(name)}/zarr.json is damaged: its fingerprint isn't its specification's.")
    return spec


def _check_target(place: RemoteDirectory, name: str, spec: FeatureSpec) -> None:
    """Raise SpecMismatch when the target has other features of this name; StoreError when it can't have this name."""
    for group in groups_above(name):
        if "medusa_set" in (attributes_of(place, group) or {}):
            raise StoreError(f"{place.url} has a feature set {group!r}, inside which {name!r} can't lie; rename one.")
    attributes = attributes_of(place, name)
    if attributes is not None and "medusa_set" not in attributes:
        raise StoreError(f"{place.url} has feature sets below {name!r}, which can't be one itself then; rename one.")
    if attributes is not None and (stored := _spec(place, name)).fingerprint != spec.fingerprint:
        raise SpecMismatch(
            f"Feature set {name!r} in {place.url} holds other features ({'; '.join(stored.differences(spec))}). Remove "
            "it there, or copy into another store; nothing was copied."
        )
