"""The manifest of recordings that nobody made one for: made from files and folders, and kept for the next run."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.audio import is_utf8
from featurestore.corpus.manifest import Manifest, moved_paths
from featurestore.errors import ConfigError
from featurestore.recordings.places import expanded, files_at, folder_above

NOT_UTF8 = "a file name that is not UTF-8 can't be a key; rename the file."


@dataclass(frozen=True)
class Recordings:
    """What places hold: a row of `manifest` for each real file, (name, reason) of those left out, and notes.

    whole: the manifest that is to be written, where that has further recordings of earlier runs; n_new: rows that it
    has more than before.
    """

    manifest: Manifest
    whole: Manifest
    n_new: int
    failed: list[tuple[str, str]]
    notes: list[str]


def recordings_of(
    places: Sequence[Path | str], listed: Iterable[str] = (), *, written: Path | None = None
) -> Recordings:
    """Return the recordings that files, folders, patterns and lists hold, with ids and paths and no labels.

    An id is the file's path as seen from the folder given, as `prepare audiofolder` has it; of several places, from the
    deepest folder that holds them all. written: a manifest that an earlier run wrote: its recordings keep their ids and
    columns, new ones are added. ConfigError: no recording at all, an id that another file has already.
    """
    names = expanded(places, listed)
    notes: list[str] = []
    files = list(dict.fromkeys(name for place in names for name in files_at(place, notes)))
    readable, failed = _sorted_out(files)
    if not readable:
        why = f": {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise ConfigError(f"There is no recording in {', '.join(str(place) for place in places)}{why}")
    repeated = [name for name, first_name in readable.items() if first_name != name]
    if repeated:
        some = ", ".join(f"{name} (as {readable[name]})" for name in repeated[:3])
        notes.append(f"{len(repeated):,} named before under another name left out: {some}")
    once = [name for name, first_name in readable.items() if first_name == name]
    root = folder_above(names)
    ids = {name: Path(os.path.relpath(name, root)).as_posix() for name in once}
    if written is not None and written.exists():
        whole, n_new = _extended(Manifest.read(written.absolute()), ids, root, written)
    else:
        whole, n_new = Manifest(_table([*ids.values()], [*ids.values()]), root=root, name="recordings"), len(ids)
    row_of = {_real(whole.audio_path(i)): i for i in range(len(whole))}
    return Recordings(whole.rows(np.array([row_of[_real(name)] for name in once])), whole, n_new, failed, notes)


def _sorted_out(files: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """By name the first name of the same real file, and (name, reason) of what is no file or can't be named."""
    first: dict[str, str] = {}
    path_of_key: dict[str, str] = {}
    failed = []
    for name in files:
        if not is_utf8(os.path.abspath(name)):
            failed.append((repr(name), NOT_UTF8))
        elif not os.path.lexists(name):
            failed.append((name, f"no such file (relative paths start at {os.getcwd()})."))
        elif not os.path.exists(name):
            failed.append((name, f"is a link to {os.path.realpath(name)}, which isn't there."))
        elif not os.path.isfile(name):
            failed.append((name, "is not a regular file, expected a recording."))
        else:
            path_of_key[name] = first.setdefault(_real(name), name)
    return path_of_key, failed


def _extended(old: Manifest, ids: dict[str, str], root: str, place: Path) -> tuple[Manifest, int]:
    """Add the recordings that a manifest lacks; ConfigError where it is of pieces, or has another file of an id."""
    if old.has_pieces or not old.has("path"):
        raise ConfigError(
            f"{place} is no list of whole recordings (it has {', '.join(old.columns)}); give it with --manifest, or "
            "another file to write with --write-manifest."
        )
    listed_paths = {_real(old.audio_path(i)) for i, path in enumerate(old.column("path").tolist()) if path is not None}
    new = {name: key for name, key in ids.items() if _real(name) not in listed_paths}
    taken = set(old.keys)
    for name, key in new.items():
        if key in taken:
            raise ConfigError(
                f"{name}: the id {key!r} is {old.audio_path(old.index(key))}'s in {place} already. Give the folder "
                "above both, or another file to write with --write-manifest, and another store."
            )
    if not new:
        return old, 0
    paths = moved_paths([*new.values()], root, old.root)
    both = [old.to_arrow(), _table(list(new.values()), paths)]
    return old.with_table(pa.concat_tables(both, promote_options="default")), len(new)


def _table(ids: Sequence[str], paths: Sequence[str | None]) -> pa.Table:
    return pa.table({"utterance_id": pa.array(ids, pa.string()), "path": pa.array(paths, pa.string())})


def _real(path: Path | str) -> str:
    return os.path.realpath(path)
