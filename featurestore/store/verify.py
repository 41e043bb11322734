"""Everything that is wrong with a store's files: those of its feature sets, and those around them."""

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurestore.errors import StoreError
from featurestore.format.files import LOCAL
from featurestore.format.segment import PATTERNS
from featurestore.format.segment_info import read_group
from featurestore.format.spec import check_set_name
from featurestore.format.zarr3 import group_metadata, json_bytes
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import STORE_VERSION, FeatureStore, set_names

Found = Iterator[tuple[str, list[str]]]


def verify_store(path: Path | str, name: str | None = None) -> dict[str, list[str]]:
    """Return what is wrong with each feature set, one sentence each.

    Under "" what is wrong around them, if anything is.

    Reads every byte. path: a directory or a URL. name: only this set. A directory without a store's metadata that holds
    feature sets is a damaged store; StoreError where there is none, or no set of that name.
    """
    if "://" in str(path):
        remote = FeatureStore.open(path)
        return {each: remote[each].verify() for each in (remote.names() if name is None else [name])}
    root = Path(path)
    problems: dict[str, list[str]] = {"": []}
    try:
        FeatureStore.open(root)
        problems[""] = _altered(root, {"medusa_store": STORE_VERSION})
    except StoreError as error:
        if not os.path.isdir(root) or not set_names(root, "", LOCAL):
            raise
        problems[""] = [str(error)]
    for each, entries in _walk(root, "") if name is None else _entry(root / check_set_name(name), name):
        problems.setdefault(each, []).extend(entries)
    if name is not None and name not in problems:
        raise StoreError(f"Store {root} has no feature set {name!r}.")
    return {each: entries for each, entries in problems.items() if each or entries}


def _walk(directory: Path, prefix: str) -> Found:
    for entry in sorted(LOCAL.names(directory)):
        if not entry.startswith(".") and entry != "zarr.json":
            yield from _entry(directory / entry, prefix + entry)


def _entry(path: Path, name: str) -> Found:
    """Yield the feature set at `path`, or those below it."""
    if not os.path.isdir(path):
        if os.path.lexists(path):
            yield "", [f"{path}: a file that does not belong to the store."]
        return
    try:
        inside = [entry for entry in LOCAL.names(path) if not entry.startswith(".")]
        if not inside:
            return  # its creation was interrupted; the next writer goes on
        attributes = read_group(path)
        if "medusa_set" in attributes:
            yield name, FeatureSet(path, name).verify()
            return
    except StoreError as error:
        yield name, [str(error)]
        return
    if any(fnmatch.fnmatchcase(entry, pattern) for entry in inside for pattern in PATTERNS):
        yield name, [f"{path / 'zarr.json'}: there are segments beside it, but it describes no feature set: damaged."]
        return
    yield "", _altered(path, {})
    yield from _walk(path, name + "/")


def _altered(directory: Path, attributes: dict[str, Any]) -> list[str]:
    path = directory / "zarr.json"
    try:
        whole = path.read_bytes() == json_bytes(group_metadata(attributes))
    except OSError as error:
        return [f"{path} can't be read: {error.strerror}."]
    return [] if whole else [f"{path}: the metadata was altered."]
