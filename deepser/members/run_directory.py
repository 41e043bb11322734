"""A member's run directory: its config.json says what it was fitted on; nothing else is continued there."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from deepser.config import MemberConfig, from_dict, to_dict
from deepser.members.folds import FoldPlan
from deepser.members.held_out import NAME as HELD_OUT
from deepser.members.member import Member, check_is_member
from deepser.training.targets import Targets
from deepser.training.views import Views
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, writing
from featurestore.runtime.json_text import read_json
from featurestore.runtime.provenance import provenance

FORMAT = 1
STARTS = "starts.json"


def open_directory(
    member: Member,
    targets: Targets,
    plan: FoldPlan,
    views: Views,
    held_out: Callable[[], dict[str, Any]],
    *,
    rows: dict[str, str] | None = None,
    normalisation: dict[str, Any] | None = None,
) -> None:
    """Write config.json, or check that the one that is there says the same: else a ConfigError with each difference.

    held_out: finds who is held out of each fold, which a new directory keeps beside it. rows: by the feature sets that
    are read, `FeatureSet.rows_digest` of them. normalisation: what `Normalisation.to_json` says.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (targets.labels, targets.soft, targets.attribute_values, plan.folds):
        digest.update(np.ascontiguousarray(part).tobytes())
    if targets.ratings is not None:
        also = 0.0 if targets.also is None else targets.also
        digest.update(targets.ratings.counts(targets.classes, also=also).tobytes())
    digest.update("\n".join(targets.keys).encode(errors="surrogatepass"))
    expected = {
        "format": FORMAT,
        "member": to_dict(member.config),
        "classes": member.classes,
        "attributes": member.attributes,
        "attribute_ranges": member.attribute_ranges,
        "inputs": member.inputs,
        "layers": member.layers,
        "specs": member.specs,
        "folds": {"names": plan.names, "rule": plan.rule},
        "corpus": {"utterances": len(targets.keys), "keys_labels_folds": digest.hexdigest()},
    }
    if views.labels:
        expected["views"] = views.to_json()
    if normalisation is not None:
        expected["normalisation"] = normalisation
    if rows:
        expected["rows"] = rows
    expected = json.loads(json.dumps(expected))
    path = member.directory / "config.json"
    if path.exists():
        try:
            recorded = read_json(path.read_text())
            check_is_member(recorded, member.directory)
            recorded["member"] = json.loads(json.dumps(to_dict(from_dict(MemberConfig, recorded["member"]))))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged ({error}); use --overwrite to fit the member anew.") from error
        recorded_rows, expected_rows = recorded.pop("rows", {}), expected.pop("rows", {})  # earlier runs recorded none
        differences = list(_differences(recorded, expected, ""))
        if differences:
            raise ConfigError(
                f"{member.directory} holds a member with other settings: {'; '.join(differences[:8])}. "
                "Choose another --name, or --overwrite to fit it anew."
            )
        changed = [name for name, digest in recorded_rows.items() if expected_rows.get(name, digest) != digest]
        if changed:
            raise ConfigError(
                f"The rows of feature set {', '.join(map(repr, changed))} are not those that the member in "
                f"{member.directory} learned from: they were encoded or imported again since. Use --overwrite to fit "
                "it anew, or choose another --name."
            )
        return
    text = json.dumps(expected, indent=1) + "\n"
    with writing(path, ConfigError):
        # First, so that a directory with a config.json but without this is one of an earlier version.
        record = json.dumps(held_out(), indent=1, ensure_ascii=False) + "\n"
        replace_text(member.directory / HELD_OUT, record)
        replace_text(path, text)


def record_start(directory: Path, places: Sequence[str], precision: str) -> None:
    """Add to starts.json when a run was begun or continued, by which versions, on which devices (by rank), and how."""
    path = directory / STARTS
    starts = []
    if path.exists():
        with suppress(ValueError):  # a record for people, for whose sake no run is refused
            starts = read_json(path.read_text())
    record = {**provenance(), "devices": list(places), "precision": precision}
    with writing(path, ConfigError):
        replace_text(path, json.dumps([*starts, record], indent=1, ensure_ascii=False) + "\n")


def remove_directory(directory: Path) -> None:
    """Remove a member's run directory; ConfigError when it is anything else."""
    if directory.exists():
        Member.load(directory)
        with fitting_alone(directory):
            shutil.rmtree(directory)


@contextmanager
def fitting_alone(directory: Path) -> Iterator[None]:
    """Keep other processes from fitting in a run directory meanwhile; ConfigError where one does.

    Where the file system has no locks nothing is kept out.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(
            f"{directory} is in use: another process fits this member. Wait until it ends, or choose another --name."
        ) from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)


def _differences(recorded: Any, expected: Any, place: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(expected, dict):
        for key in sorted({*recorded, *expected}):
            if key != "provenance":
                yield from _differences(recorded.get(key), expected.get(key), f"{place}.{key}" if place else key)
    elif isinstance(recorded, list) and isinstance(expected, list) and len(recorded) == len(expected):
        for i, (a, b) in enumerate(zip(recorded, expected, strict=True)):
            yield from _differences(a, b, f"{place}[{i}]")
    elif recorded != expected:
        yield f"{place} is {recorded!r} there, {expected!r} asked"
