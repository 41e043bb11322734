"""Carrying out a plan: what is done is skipped, what was cut off goes on, and fingerprints decide which is which.

A step is done when its record says that these settings, on inputs with these fingerprints, made what is still there.
Records are written after a step, so a kill at any moment leaves a step undone, never half done; the commands themselves
go on where they were stopped.
"""

import csv
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ensemble.recipes.plan import Places, Step, Thing
from featurestore.errors import ConfigError, StoreError
from featurestore.runtime.durable import replace_file, writing
from featurestore.runtime.json_text import read_json

ROWS = ", rows "  # in the digest of a feature set, before that of its rows

SIDECARS = (".scheme.json", ".ratings.parquet")
MEMBERS = "members/"

Begin = Callable[[Step, int, int, str], None]  # (step, its number, how many, why it runs; "" when it is skipped)


def run_steps(
    steps: Sequence[Step],
    places: Places,
    call: Callable[[tuple[str, ...]], int],
    *,
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    begin: Begin | None = None,
) -> int:
    """Run what is not done, in order; returns 0, or the exit code of the step that ended it.

    call: runs `medusa` with these arguments and returns its exit code. only, again: steps by name, "members/m01" or all
    of "members"; `only` leaves the others alone, `again` does them though they are done (a member from its start).
    """
    chosen = named_steps(steps, only) or list(steps)
    repeated = named_steps(steps, again)
    for number, step in enumerate(chosen, 1):
        why = why_run(step, places, repeated)
        if begin is not None:
            begin(step, number, len(chosen), why)
        if not why:
            continue
        _refuse_edited(step, places)
        fresh = ("--overwrite",) if step in repeated and step.name.startswith(MEMBERS) else ()
        attempts = record_of(step, places).get("attempts", 0) + 1
        _write(step, places, {"attempts": attempts})
        reads, makes = labelled(step.reads), labelled(step.makes)
        states, digests = _look_at(reads)  # before it begins: what is changed while it runs is not what it read
        started = time.monotonic()
        code = call((*step.arguments, *fresh))
        if code:
            return code
        seconds = round(time.monotonic() - started, 2)
        # A tree may be where the step writes.
        digests |= {label: digest(thing) for label, thing in reads.items() if thing.kind == "tree"}
        states_made, digests_made = _look_at(makes)
        _write(step, places, {
            "attempts": attempts, "seconds": seconds, "what": list(step.settings), "states": states | states_made,
            "reads": digests, "makes": digests_made,
        })  # fmt: skip
    return 0


def labelled(things: Sequence[Thing]) -> dict[str, Thing]:
    """Return things by what a record calls them: in words, and with the path where others have the same words."""
    n_called = Counter(map(str, dict.fromkeys(things)))
    return {str(thing) if n_called[str(thing)] == 1 else f"{thing} ({thing.path})": thing for thing in things}


def _look_at(things: Mapping[str, Thing]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the states of the feature sets among these things, and the digests of all, by their labels."""
    states = {label: state(thing) for label, thing in things.items() if thing.kind == "set"}
    return states, {label: digest(thing) for label, thing in things.items()}


def named_steps(steps: Sequence[Step], names: Sequence[str]) -> list[Step]:
    """Return the steps of these names, or of these sections; ConfigError for a name that is none."""
    for name in names:
        if not any(_is_called(step, name) for step in steps):
            raise ConfigError(f"No step is called {name!r}; the steps are {', '.join(step.name for step in steps)}.")
    return [step for step in steps if any(_is_called(step, name) for name in names)]


def _is_called(step: Step, name: str) -> bool:
    return name in (step.name, step.name.partition("/")[0])


def why_run(step: Step, places: Places, again: Sequence[Step]) -> str:
    """Why a step is run; "" when it is done, and not among those that are asked for again."""
    return "asked for again" if step in again else undone(step, places)


def undone(step: Step, places: Places) -> str:
    """Why a step has to run; "" when it is done."""
    record = record_of(step, places)
    if step.always:
        return "shows results"
    if "what" not in record:
        return "was cut off" if record else "not done yet"
    if record["what"] != list(step.settings):
        return "its settings changed"
    for label, thing in labelled(step.reads).items():
        if not is_as_recorded(record, "reads", label, thing):
            return f"{label} changed"
    for label, thing in labelled(step.makes).items():
        if not is_as_recorded(record, "makes", label, thing):
            return f"{label} is not what it made"
    return ""


def is_as_recorded(record: dict[str, Any], role: str, label: str, thing: Thing) -> bool:
    """Return whether a thing that a step "reads" or "makes" has the digest that its record gives.

    A feature set whose files, and manifest, are untouched needs no digest, for which much would have to be loaded.
    Records of earlier versions have no such states, and some lack the rows of a feature set, or audio. Audio that can't
    be reached is as it was.
    """
    recorded = record[role].get(label)
    if thing.kind == "audio":
        return recorded is None or digest(thing) in ("", recorded)
    known = record.get("states", {}).get(label)
    if recorded and known and known == state(thing):
        return True
    now = digest(thing)
    return recorded in (now, re.sub(f"{ROWS}[0-9a-f]+", "", now))


def state(thing: Thing) -> str:
    """Return a digest of what `digest` of a feature set depends on: names, sizes and times of its files, the manifest.

    "" when the set isn't there. Without a change of these its digest is the same; with one it may be.
    """
    path = thing.path / thing.name
    if not path.exists():
        return ""
    total = hashlib.blake2b(_tree_digest(path).encode(), digest_size=8)
    if thing.manifest is not None and thing.manifest.exists():
        total.update(thing.manifest.read_bytes())
    return total.hexdigest()


def record_of(step: Step, places: Places) -> dict[str, Any]:
    """Return what is written down of a step: attempts, and where it was finished seconds, what, reads and makes."""
    path = places.step(step.name)
    try:
        record = read_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read ({error}); remove it, and the step is looked at anew.") from None
    return record if isinstance(record, dict) else {}


def digest(thing: Thing) -> str:
    """Return the digest of something on disk; "" when it isn't there.

    A manifest or file: its content. A tree: its files' names, sizes and times. A set of features: its fingerprint,
    whether it has every utterance of the manifest (None: of its own), and the rows of those that it has. The audio of
    a manifest: its files' names, sizes and times; "" when none is there.
    """
    if thing.kind == "set":
        return _set_digest(thing)
    if thing.kind == "audio":
        return _audio_digest(thing.path)
    if not thing.path.exists():
        return ""
    if thing.kind == "tree":
        return _tree_digest(thing.path)
    total = hashlib.blake2b(digest_size=8)
    paths = [thing.path]
    if thing.kind == "manifest":
        paths += [path for suffix in SIDECARS if (path := thing.path.with_suffix(suffix)).exists()]
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def _tree_digest(path: Path) -> str:
    total = hashlib.blake2b(digest_size=8)
    for name, size, changed in sorted(_files(path)):
        total.update(f"{name}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Return (name, bytes, time of the last change in ns) of a file, or of all files below a directory."""
    if not path.is_dir():
        about = path.stat()
        return [("", about.st_size, about.st_mtime_ns)]
    files = []
    for directory, _, names in os.walk(path):
        for name in names:
            about = os.stat(os.path.join(directory, name), follow_symlinks=False)
            files.append((os.path.relpath(os.path.join(directory, name), path), about.st_size, about.st_mtime_ns))
    return files


def _audio_digest(manifest: Path) -> str:
    if not manifest.exists():
        return ""
    about = manifest.stat()
    total, is_there = hashlib.blake2b(digest_size=8), False
    for path in _audio_paths(manifest, about.st_mtime_ns, about.st_size):
        try:
            about = os.stat(path)
        except (OSError, ValueError):
            continue
        is_there = True
        total.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return total.hexdigest() if is_there else ""


@lru_cache(maxsize=4)
def _audio_paths(manifest: Path, changed: int, size: int) -> list[str]:
    """Return the audio files of a manifest, each once; of a CSV without pyarrow, which takes long to load."""
    if manifest.suffix == ".csv":
        with suppress(csv.Error), open(manifest, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            paths = [row.get("path") for row in csv.DictReader(file)]
            return [str(manifest.parent / path) for path in dict.fromkeys(paths) if path]
    from featurestore.corpus.manifest import Manifest
    from featurestore.sets.sources import files_of

    table = Manifest.read(manifest)
    audios = table.audios if table.has("path") else []
    return list(dict.fromkeys(str(path) for audio in audios if audio is not None for path in files_of(audio)))


def _set_digest(thing: Thing) -> str:
    if not thing.path.exists():
        return ""
    from featurestore.store.feature_store import FeatureStore

    try:
        features = FeatureStore.open(thing.path)[thing.name]
    except StoreError:
        return ""
    fingerprint = features.spec.fingerprint
    if thing.manifest is None:
        keys = sorted(features)
    elif thing.manifest.exists():
        about = thing.manifest.stat()
        keys = _keys(thing.manifest, about.st_mtime_ns, about.st_size)
    else:
        return fingerprint
    missing = set(features.missing(keys))
    rows = features.rows_digest([key for key in keys if key not in missing])
    return f"{fingerprint}{ROWS}{rows}" + (f", {len(missing)} utterances missing" if missing else "")


@lru_cache(maxsize=4)
def _keys(path: Path, changed: int, size: int) -> list[str]:
    from featurestore.corpus.manifest import Manifest  # half a second that a plan of what isn't made yet doesn't need

    return Manifest.read(path).keys


def _refuse_edited(step: Step, places: Places) -> None:
    """Raise ConfigError before a manifest that was changed since it was made is overwritten."""
    record = record_of(step, places)
    for label, thing in labelled(step.makes).items():
        fingerprint = record.get("makes", {}).get(label)
        if thing.kind == "manifest" and fingerprint and digest(thing) not in ("", fingerprint):
            raise ConfigError(
                f"{thing.path} is not what `medusa {step.name}` wrote: it was changed since. Remove it to have it made "
                f"again, or use it in the recipe: `manifest: {thing.path}` in place of prepare."
            )


def _write(step: Step, places: Places, record: dict[str, Any]) -> None:
    old = record_of(step, places)
    makes = {"makes": old["makes"]} if "what" not in record and "makes" in old else {}
    text = json.dumps(makes | record, indent=1, ensure_ascii=False) + "\n"
    path = places.step(step.name)
    with writing(path, ConfigError):
        replace_file(path, lambda file: file.write(text.encode(errors="surrogateescape")))
