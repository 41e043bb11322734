"""The utterances that a file of predictions names: its ids matched to a manifest's keys or paths."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ensemble.evaluation.align import some
from featurestore.audio import without_audio_suffix
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.pieces import END, START, piece_id
from featurestore.errors import AlignmentError

MOST_FOLDERS = 3  # before a file name, by which paths of another place are matched


def matched_keys(path: Path, ids: Sequence[str], manifest: Manifest) -> tuple[tuple[str, ...], list[str]]:
    """Return the manifest's key of each id, and a note on how ids were matched where not as they are.

    Ids are those of the manifest, else its paths, whole or as far as their last folders: `predict` names the files that
    it was given, which may be found at another place. Blanks around an id and letter case count last. AlignmentError
    lists ids that the manifest does not have.
    """
    best: tuple[str, dict[str, str]] = ("", {})
    for description, form, names in _forms(manifest):
        id_forms, name_forms = [form(key) for key in ids], [form(name) for name in names]
        # A form that makes one name of two utterances could give one the other's prediction.
        if len(set(id_forms)) < len(ids) or len(set(name_forms)) < len(name_forms):
            continue
        key_of = dict(zip(name_forms, manifest.keys, strict=True))
        key_of_id = {key: key_of[name] for key, name in zip(ids, id_forms, strict=True) if name in key_of}
        if len(key_of_id) > len(best[1]):
            best = description, key_of_id
        if len(key_of_id) == len(ids):
            break
    surplus = [key for key in ids if key not in best[1]]
    if surplus:
        raise AlignmentError(
            f"{path} has predictions of {some(surplus)}, which manifest {manifest.name} does not have (its ids are "
            f"like {manifest.keys[0]!r}). Give the manifest that has them, or leave them out of the file.",
            surplus={str(path): surplus},
        )
    return tuple(best[1][key] for key in ids), [f"ids matched {best[0]}"] if best[0] else []


def _forms(manifest: Manifest) -> Iterator[tuple[str, Callable[[str], str], Sequence[str]]]:
    """Yield each form of an id: its description, the function that makes it, and the manifest's names in it."""
    keys = manifest.keys
    yield "", str, keys
    yield "without audio suffix", without_suffix, keys
    yield "without folders", file_name, keys
    yield "without folders and audio suffix", lambda key: without_suffix(file_name(key)), keys
    paths = manifest.column("path").tolist() if manifest.has("path") else []
    if paths and None not in paths:
        if manifest.has_pieces:
            ends = zip(manifest.column(START).tolist(), manifest.column(END).tolist(), strict=True)
            of_pieces = zip(paths, ends, strict=True)
            paths = [piece_id(path, low, None if math.isnan(high) else high) for path, (low, high) in of_pieces]
        yield "by path", str, paths
        for depth in range(MOST_FOLDERS, -1, -1):
            description = f"by the last {depth + 1} names of the path" if depth else "by the file name of the path"
            yield description, partial(_end_of_path, depth=depth), paths
    yield "without regard to letter case and blanks around", lambda key: key.strip().casefold(), keys


def _end_of_path(path: str, depth: int) -> str:
    """Return the file's name without its suffix, and the `depth` folders before it."""
    return without_suffix("/".join(path.replace("\\", "/").split("/")[-depth - 1 :]))


def file_name(path: str) -> str:
    """Return the text after the last slash."""
    return path[path.rfind("/") + 1 :]


def without_suffix(key: str) -> str:
    """Return a file's name without its suffix, where that is one of audio."""
    return without_audio_suffix(key)
